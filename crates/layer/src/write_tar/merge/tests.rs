//! Merged directories beside the kernel's overlays of the same layers: what is seen, and what is made of changes.

use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rbuild_sys::RootFd;
use rbuild_sys::overlay::{Form, OverlaySpec};

use super::{Contents, fold_layers, link_touched, merge_layers};
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
            mtime: None,
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

/// Knuth's MMIX.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Fills a directory of a layer with what may be in one: files, links, whiteouts, directories, some of which hide those below.
fn fill(dir: &Path, depth: u32, dice: &mut Dice) {
    for name in ["a", "b", "c"] {
        let path = dir.join(name);
        match dice.throw(8) {
            0 => std::fs::write(&path, dice.throw(1000).to_string()).unwrap(),
            1 => std::os::unix::fs::symlink("a", &path).unwrap(),
            2 => rustix::fs::mknodat(
                rustix::fs::CWD,
                &path,
                rustix::fs::FileType::CharacterDevice,
                rustix::fs::Mode::empty(),
                0,
            )
            .unwrap(),
            3..6 if depth < 3 => {
                std::fs::create_dir(&path).unwrap();
                let mode = 0o700 + u32::try_from(dice.throw(0o100)).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
                if dice.throw(4) == 0 {
                    let flags = rustix::fs::XattrFlags::empty();
                    rustix::fs::setxattr(&path, "trusted.overlay.opaque", b"y", flags).unwrap();
                }
                fill(&path, depth + 1, dice);
            }
            _ => {}
        }
    }
}

/// Of a name that is listed and not there: the kernel shows those of whiteouts in a directory that one layer alone has.
const GONE: &str = "gone";

/// Every name that is listed, and what it is.
fn listed(dir: &Path, below: &Path, lines: &mut Vec<String>) {
    let mut names: Vec<_> = std::fs::read_dir(dir.join(below))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    for name in names {
        let path = below.join(name);
        let full = dir.join(&path);
        let what = match std::fs::symlink_metadata(&full) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => GONE.to_owned(),
            Err(error) => panic!("{path:?}: {error}"),
            Ok(found) if found.is_dir() => format!("{:o}", found.permissions().mode()),
            Ok(found) if found.is_file() => std::fs::read_to_string(&full).unwrap(),
            Ok(found) => format!("{:?}", found.file_type()),
        };
        let is_dir = full.symlink_metadata().is_ok_and(|found| found.is_dir());
        lines.push(format!("{path:?} {what}"));
        if is_dir {
            listed(dir, &path, lines);
        }
    }
}

#[test]
fn privileged_a_folded_directory_shows_and_hides_what_its_layers_do() {
    use std::os::fd::AsRawFd as _;
    if !is_root() {
        return;
    }
    let mut dice = Dice(1);
    for round in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: String| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let layers: Vec<PathBuf> = (0..5).map(|number| make(format!("layer-{number}"))).collect();
        for layer in &layers {
            fill(layer, 0, &mut dice);
        }
        let empty = make("empty".to_owned());
        let seen = |layers: &[PathBuf]| {
            let lowers = layers.iter().rev().chain([&empty]).cloned().collect();
            let spec = OverlaySpec {
                form: Form::Trusted,
                lowers,
                upper_work: None,
                volatile: false,
            };
            let root = spec.mount().unwrap();
            let mut lines = Vec::new();
            let shown = format!("/proc/self/fd/{}", root.as_raw_fd());
            listed(Path::new(&shown), Path::new(""), &mut lines);
            lines
        };
        let is_there = |line: &String| !line.ends_with(GONE);
        let (expected, gone): (Vec<String>, Vec<String>) = seen(&layers).into_iter().partition(is_there);
        for from in 0..layers.len() {
            for to in from + 2..=layers.len() {
                let folded = make(format!("folded-{from}-{to}"));
                let open = |dir: &PathBuf| RootFd::open(dir).unwrap();
                let group: Vec<RootFd> = layers[from..to].iter().map(open).collect();
                fold_layers(&group, Form::Trusted, &open(&folded)).unwrap();
                let mut layers = layers.clone();
                layers.splice(from..to, [folded]);
                let (there, more) = seen(&layers).into_iter().partition::<Vec<_>, _>(is_there);
                assert_eq!(there, expected, "round {round}, layers {from} to {to}");
                let more: Vec<_> = more.iter().filter(|line| !gone.contains(line)).collect();
                assert!(more.is_empty(), "round {round}, layers {from} to {to}: {more:?}");
            }
        }
    }
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
