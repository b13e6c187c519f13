//! Merged directories beside the kernel's overlays of the same layers: what is seen, and what is made of changes.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rbuild_sys::RootFd;
use rbuild_sys::overlay::{Form, OverlaySpec};

use super::{Contents, link_touched, merge_layers};
use crate::entry::Time;
use crate::write_tar::{ExportedXattrs, WriteOptions, write_tar};

/// What a step did in each layer, bottom first.
const LAYERS: [&str; 3] = [
    "mkdir -p a/b d/e o/p; echo 1 >a/f; ln a/f a/g; ln -s f a/l; mkfifo a/p; echo x >d/e/x; echo y >o/p/y; touch gone; \
     chown 5:6 a/f; chmod 4751 a/b; @user.t v a/b; touch -d 2001-02-03T04:05:06.7 a/b d o",
    "rm gone; rm -r o; mkdir o; echo n >o/n; echo 2 >>d/e/x; chown 7 a/l -h; @user.t - a/b; mknod dev c 7 1",
    "rm -r d; echo file >d; mv a/b a/c; rmdir a/c; mkdir gone; chmod 700 gone; touch -d 2002-02-03 gone a",
];

/// What a step does on top of them.
const STEPS: &[&str] = &[
    "true",
    "echo more >>a/f",
    "chown -R 8:9 a",
    "chown 8:9 a/f d; chmod 4755 a/f",
    "rm d; mkdir d; echo z >d/z; rm -r o; mkdir o; chmod 750 o",
    "cp -a gone aa; ln a/p a/q; mv a/l a/m; touch gone/new",
    "ln o/n o/again; rm dev; mknod dev b 9 2; @user.k v o",
    "cp -p o/n t; echo 3 >o/n; touch -r t o/n; rm t",
    "chmod 711 .; mkdir -p x/y/z; rmdir x/y/z; touch -d 2003-01-01 o",
];

struct Case {
    dir: tempfile::TempDir,
    layers: Vec<PathBuf>,
}

impl Case {
    fn new() -> Self {
        let mut case = Self {
            dir: tempfile::tempdir().unwrap(),
            layers: Vec::new(),
        };
        for script in LAYERS {
            let upper = case.in_overlay(script);
            case.layers.push(upper);
        }
        case
    }

    fn make(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    }

    /// Runs `script` in an overlay of all layers; gives the upper directory.
    fn in_overlay(&self, script: &str) -> PathBuf {
        let count = std::fs::read_dir(self.dir.path()).unwrap().count();
        let place = self.make(&format!("overlay-{count}"));
        let (upper, work, empty) = (place.join("upper"), place.join("work"), place.join("empty"));
        for dir in [&upper, &work, &empty] {
            std::fs::create_dir(dir).unwrap();
        }
        let mut lowers: Vec<PathBuf> = self.layers.iter().rev().cloned().collect();
        lowers.push(empty);
        let spec = OverlaySpec {
            form: Form::Trusted,
            lowers,
            upper_work: Some((upper.clone(), work)),
            volatile: true,
        };
        run(script, &RootFd::from_fd(spec.mount().unwrap()));
        upper
    }

    fn merged(&self, name: &str, contents: Contents) -> RootFd {
        let out = RootFd::open(&self.make(name)).unwrap();
        let layers: Vec<RootFd> = self.layers.iter().map(|dir| RootFd::open(dir).unwrap()).collect();
        merge_layers(&layers, Form::Trusted, contents, &out).unwrap();
        out
    }

    fn tar(&self, layer: &Path) -> Vec<u8> {
        let mut bytes = Vec::new();
        let lowers: Vec<PathBuf> = self.layers.iter().rev().cloned().collect();
        let spec = OverlaySpec {
            form: Form::Trusted,
            lowers,
            upper_work: None,
            volatile: false,
        };
        let lower = RootFd::from_fd(spec.mount().unwrap());
        let options = WriteOptions {
            lower: Some(&lower),
            newest_mtime: Some(1_500_000_000),
            xattrs: ExportedXattrs::CapabilityAndUser,
            late: None,
        };
        let layer = std::fs::File::open(layer).unwrap();
        write_tar(layer.as_fd(), Form::Trusted, &options, &mut bytes).unwrap();
        bytes
    }
}

/// Runs statements of a shell; `@NAME VALUE PATH` sets an attribute, `-` takes it away.
fn run(script: &str, root: &RootFd) {
    use std::os::fd::AsRawFd as _;
    let dir = format!("/proc/{}/fd/{}", std::process::id(), root.as_fd().as_raw_fd());
    for statement in script.split("; ") {
        let Some(attribute) = statement.trim().strip_prefix('@') else {
            let ran = Command::new("sh")
                .args(["-ec", statement])
                .current_dir(&dir)
                .status();
            assert!(ran.unwrap().success(), "{statement}");
            continue;
        };
        let words: Vec<&str> = attribute.split(' ').collect();
        let path = Path::new(&dir).join(words[2]);
        match words[1] {
            "-" => rustix::fs::removexattr(&path, words[0]).unwrap(),
            value => {
                rustix::fs::setxattr(&path, words[0], value.as_bytes(), rustix::fs::XattrFlags::empty())
                    .unwrap();
            }
        }
    }
}

/// Everything that can be seen of a tree, but for times that were not set.
fn table(root: &RootFd) -> String {
    use std::os::fd::AsRawFd as _;
    let dir = format!("/proc/{}/fd/{}", std::process::id(), root.as_fd().as_raw_fd());
    let script = "find . | sort | while read f; do stat -c '%n %F %a %u:%g %s %t:%T %Y' \"$f\"; \
                  readlink \"$f\" || test ! -f \"$f\" || cat \"$f\"; done";
    let ran = Command::new("sh")
        .args(["-c", script])
        .current_dir(dir)
        .output()
        .unwrap();
    let text = String::from_utf8(ran.stdout).unwrap();
    let own_size = |line: &&str| !line.contains(" directory ");
    let dirs = text.lines().filter(|line| !own_size(line)).map(|line| {
        // Sizes and numbers of names of directories are the file system's own.
        let words: Vec<&str> = line.split(' ').collect();
        format!("{} {} {} {}", words[0], words[2], words[3], words.last().unwrap())
    });
    let files = text.lines().filter(own_size).map(str::to_owned);
    files.chain(dirs).collect::<Vec<_>>().join("\n")
}

fn overlay(case: &Case) -> RootFd {
    let lowers: Vec<PathBuf> = case.layers.iter().rev().cloned().collect();
    let spec = OverlaySpec {
        form: Form::Trusted,
        lowers,
        upper_work: None,
        volatile: false,
    };
    RootFd::from_fd(spec.mount().unwrap())
}

/// The time from which on something is a change.
fn now(dir: &Path) -> Time {
    use std::os::unix::fs::MetadataExt as _;
    std::thread::sleep(std::time::Duration::from_millis(20));
    let mark = dir.join("mark");
    std::fs::write(&mark, "").unwrap();
    let found = std::fs::metadata(&mark).unwrap();
    std::fs::remove_file(mark).unwrap();
    Time {
        seconds: found.ctime(),
        nanoseconds: u32::try_from(found.ctime_nsec()).unwrap(),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn privileged_a_merged_directory_shows_what_the_overlay_shows() {
    if !is_root() {
        return;
    }
    let case = Case::new();
    let expected = table(&overlay(&case));
    assert!(
        expected.contains("./o/n") && !expected.contains("./o/p"),
        "{expected}"
    );
    assert_eq!(table(&case.merged("copied", Contents::Copy)), expected);
    assert_eq!(table(&case.merged("linked", Contents::Link)), expected);
    assert_eq!(table(&overlay(&case)), expected, "layers stay as they were");
    let names = std::fs::metadata(case.dir.path().join("copied/a/f")).unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::nlink(&names),
        1,
        "each name is a file"
    );
}

#[test]
fn privileged_a_copy_shares_no_inode_with_its_layers_and_a_link_all() {
    use std::os::unix::fs::MetadataExt as _;
    if !is_root() {
        return;
    }
    let case = Case::new();
    drop((
        case.merged("copied", Contents::Copy),
        case.merged("linked", Contents::Link),
    ));
    let inode = |dir: &Path| std::fs::metadata(dir.join("o/n")).unwrap().ino();
    let layer = inode(&case.layers[1]);
    assert_ne!(inode(&case.dir.path().join("copied")), layer);
    assert_eq!(inode(&case.dir.path().join("linked")), layer);
}

#[test]
fn privileged_changes_in_a_merged_directory_make_the_layer_that_the_overlay_makes() {
    if !is_root() {
        return;
    }
    for step in STEPS {
        let case = Case::new();
        let expected = case.tar(&case.in_overlay(step));
        let (tree, lower) = (
            case.merged("tree", Contents::Copy),
            case.merged("lower", Contents::Link),
        );
        let since = now(case.dir.path());
        run(step, &tree);
        let upper = case.make("made");
        link_touched(
            &tree,
            Form::Trusted,
            &lower,
            since,
            &RootFd::open(&upper).unwrap(),
        )
        .unwrap();
        let names = |tar: &[u8]| {
            let mut reader = crate::TarReader::new(tar, crate::Limits::default());
            let mut names = Vec::new();
            while let Some(entry) = reader.next_entry().unwrap() {
                names.push(format!("{entry:?}"));
            }
            names
        };
        let made = case.tar(&upper);
        assert_eq!(names(&made), names(&expected), "{step}");
        assert_eq!(made, expected, "{step}");
    }
}

#[test]
fn privileged_marks_that_a_step_made_itself_hide_nothing() {
    if !is_root() {
        return;
    }
    let case = Case::new();
    let (tree, lower) = (
        case.merged("tree", Contents::Copy),
        case.merged("lower", Contents::Link),
    );
    let since = now(case.dir.path());
    run(
        "@trusted.overlay.redirect /a a; @trusted.overlay.opaque y o; touch o/w; mkdir x; touch x/w; \
         @trusted.overlay.opaque x x; @trusted.overlay.whiteout y x/w",
        &tree,
    );
    let upper = case.make("made");
    link_touched(
        &tree,
        Form::Trusted,
        &lower,
        since,
        &RootFd::open(&upper).unwrap(),
    )
    .unwrap();
    let mut shown = Case {
        dir: case.dir,
        layers: case.layers,
    };
    shown.layers.push(upper);
    let text = table(&overlay(&shown));
    assert!(
        ["./o/n ", "./o/w ", "./x/w "]
            .iter()
            .all(|name| text.contains(name)),
        "{text}"
    );
}
