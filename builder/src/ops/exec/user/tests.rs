//! Users against files that an image could hold.

use std::os::unix::fs::symlink;
use std::path::Path;

use rbuild_sys::RootFdError;
use rbuild_sys::userdb::{GROUPS_MAX, USER_FILE_MAX_BYTES};

use super::*;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:100:Bob:/home/bob:/bin/sh\n1000:x:0:0::/:/bin/sh\n\
    1000000:x:0:0::/:\nbig:x:4294967296:0::/:/bin/sh\nminus:x:-1:0::/:/bin/sh\nnone:x\nbob:x:1:1::/:/bin/sh\n";
const GROUP: &str = "root:x:0:\nusers:x:100:\n#off:x:7:bob\nwheel:x:10:root,bob\nstaff:x:50:bob\nmore:x:60:bobby\n\
    77:x:5:bob\n";

/// A root with its user database, and a file of the host beside it.
struct Image {
    dir: tempfile::TempDir,
}

impl Image {
    fn new() -> Self {
        let this = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir_all(this.dir.path().join("root/etc")).unwrap();
        std::fs::write(this.dir.path().join("host"), "evil:x:0:0::/:/bin/sh\n").unwrap();
        this.put("passwd", PASSWD);
        this.put("group", GROUP);
        this
    }

    fn etc(&self, name: &str) -> PathBuf {
        self.dir.path().join("root/etc").join(name)
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.etc(name), text).unwrap();
    }

    fn lookup(&self, spec: &str) -> Result<ProcessUser, UserError> {
        lookup(&RootFd::open(&self.dir.path().join("root")).unwrap(), spec)
    }

    fn ids(&self, spec: &str) -> (u32, u32, Vec<u32>) {
        let ids = self.lookup(spec).unwrap().ids;
        (ids.uid, ids.gid, ids.groups)
    }
}

#[test]
fn item49_row26_groups_are_the_images_own() {
    let image = Image::new();
    for (spec, uid, gid, groups, home) in [
        ("", 0, 0, vec![0, 10], "/root"),
        ("root", 0, 0, vec![0, 10], "/root"),
        ("root:root", 0, 0, vec![0], "/root"),
        ("root:5", 0, 5, vec![5], "/root"),
        (":wheel", 0, 10, vec![10], "/root"),
        ("bob", 1000, 100, vec![100, 5, 10, 50], "/home/bob"),
        ("bob:", 1000, 100, vec![100, 5, 10, 50], "/home/bob"),
        ("1000", 1000, 100, vec![100, 5, 10, 50], "/home/bob"),
        ("bob:staff", 1000, 50, vec![50], "/home/bob"),
        ("bob:77", 1000, 77, vec![77], "/home/bob"),
        ("1000:50", 1000, 50, vec![50], "/home/bob"),
        ("1000:root", 1000, 0, vec![0], "/home/bob"),
        ("4242", 4242, 0, vec![0], "/"),
        ("4242:6000", 4242, 6000, vec![6000], "/"),
        (
            "2147483647:2147483647",
            2_147_483_647,
            2_147_483_647,
            vec![2_147_483_647],
            "/",
        ),
    ] {
        assert_eq!(image.ids(spec), (uid, gid, groups), "{spec:?}");
        assert_eq!(image.lookup(spec).unwrap().home, PathBuf::from(home), "{spec:?}");
    }
}

#[test]
fn row15_digits_are_never_a_name_and_never_overflow_to_root() {
    let image = Image::new();
    image.put(
        "passwd",
        &format!("{PASSWD}4294967296:x:0:0::/:/bin/sh\n-1:x:0:0::/:/bin/sh\n"),
    );
    assert_eq!(image.ids("1000000").0, 1_000_000);
    assert_eq!(
        image.ids("1000").0,
        1000,
        "a user NAMED 1000 with uid 0 is not meant"
    );
    for spec in [
        "4294967296",
        "2147483648",
        "4294967295",
        "99999999999999999999",
        "1000:4294967296",
        "-1",
        "+0",
        "0:-1",
    ] {
        assert!(
            matches!(
                image.lookup(spec),
                Err(UserError::UserDb(UserDbError::IdRange(_)))
            ),
            "{spec}: {:?}",
            image.lookup(spec)
        );
    }
    for (spec, user, group) in [("::", 0, 0), ("1000:5:6", 1000, 5), (":7:x", 0, 7)] {
        let ids = image.lookup(spec).unwrap().ids;
        assert_eq!((ids.uid, ids.gid), (user, group), "{spec}");
    }
    // The last three have a line, but none with ids: they are nobody, and not user 0.
    for spec in ["0x0", "nobody", "1000 ", "bob\n", "ü", "big", "minus", "none"] {
        assert!(
            matches!(image.lookup(spec), Err(UserError::UnknownUser(_))),
            "{spec}: {:?}",
            image.lookup(spec)
        );
    }
    assert!(matches!(
        image.lookup("bob:nogroup"),
        Err(UserError::UnknownGroup(_))
    ));
}

#[test]
fn row15_files_that_lead_out_or_never_end() {
    let image = Image::new();
    let host = image.dir.path().join("host");
    let replace = |make: &dyn Fn(&Path)| {
        std::fs::remove_file(image.etc("passwd"))
            .or_else(|_| std::fs::remove_dir(image.etc("passwd")))
            .unwrap();
        make(&image.etc("passwd"));
    };
    let nobody = |what: &str| {
        let found = image.lookup("evil");
        assert!(
            matches!(
                found,
                Err(UserError::UnknownUser(_) | UserError::UserDb(UserDbError::Read(_)))
            ),
            "{what}: {found:?}"
        );
        assert_eq!(image.ids("").0, 0, "{what}");
        assert_eq!(image.ids("7"), (7, 0, vec![0]), "{what}");
    };
    replace(&|path| symlink(&host, path).unwrap());
    nobody("link to the host");
    replace(&|path| symlink("../../host", path).unwrap());
    nobody("link upwards to the host");
    replace(&|path| symlink("/proc/self/environ", path).unwrap());
    nobody("link to proc");
    replace(&|path| symlink("passwd", path).unwrap());
    nobody("loop");
    replace(&|path| std::fs::create_dir(path).unwrap());
    nobody("directory");
    replace(&|path| {
        use rustix::fs::{CWD, FileType, Mode};
        rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    });
    nobody("pipe");
    replace(&|path| std::fs::File::create(path).unwrap().set_len(10 << 30).unwrap());
    nobody("10 GiB");
    assert!(matches!(
        image.lookup("evil"),
        Err(UserError::UserDb(UserDbError::Read(RootFdError::TooLarge {
            max_bytes: USER_FILE_MAX_BYTES,
            ..
        })))
    ));
    std::fs::write(image.etc("passwd2"), "real:x:3:3::/:\n").unwrap();
    replace(&|path| symlink("/etc/passwd2", path).unwrap());
    assert_eq!(image.ids("real").0, 3, "a link inside the root is the legal twin");
}

#[test]
fn row15_many_groups_are_bounded() {
    let image = Image::new();
    let groups = |n: usize| (0..n).map(|i| format!("g{i}:x:{i}:bob\n")).collect::<String>();
    image.put("group", &groups(GROUPS_MAX));
    assert_eq!(image.ids("bob").2.len(), GROUPS_MAX);
    image.put("group", &groups(GROUPS_MAX + 1));
    assert!(matches!(
        image.lookup("bob"),
        Err(UserError::UserDb(UserDbError::TooManyGroups(_)))
    ));
}

#[test]
fn an_image_without_files_runs_ids() {
    let dir = tempfile::tempdir().unwrap();
    let root = RootFd::open(dir.path()).unwrap();
    assert_eq!(lookup(&root, "").unwrap().ids.uid, 0);
    assert_eq!(lookup(&root, "5:6").unwrap().ids.gid, 6);
    assert_eq!(lookup(&root, "root:root").unwrap().ids.gid, 0);
    assert!(lookup(&root, "bob").is_err());
    assert!(lookup(&root, "root").is_err(), "alone it is a name");
}
