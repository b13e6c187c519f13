//! Users and owners against files an image could hold.

use super::*;
use std::os::unix::fs::symlink;

struct Image {
    dir: tempfile::TempDir,
}

const PASSWD_TEXT: &str = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:50::/:/bin/sh\n1000:x:0:0::/:/bin/sh\n\
    big:x:4294967296:0::/:/bin/sh\nminus:x:-1:0::/:/bin/sh\nnone:x\nbob:x:1:1::/:/bin/sh\n";
const GROUP_TEXT: &str =
    "root:x:0:\ng:x:50:bob\n#c:x:7:bob\nwheel:x:10:alice,bob\nstaff:x:60:bobby\n77:x:5:bob\n";

impl Image {
    fn new() -> Self {
        let this = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir_all(this.dir.path().join("root/etc")).unwrap();
        std::fs::write(this.dir.path().join("host"), "evil:x:0:0::/:/bin/sh\n").unwrap();
        this.put("passwd", PASSWD_TEXT.as_bytes());
        this.put("group", GROUP_TEXT.as_bytes());
        this
    }

    fn etc(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("root/etc").join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.etc(name), bytes).unwrap();
    }

    fn root(&self) -> RootFd {
        RootFd::open(&self.dir.path().join("root")).unwrap()
    }

    fn user(&self, spec: &str) -> Result<(u32, u32, Vec<u32>), UserError> {
        lookup_user(&self.root(), spec).map(|ids| (ids.uid, ids.gid, ids.groups))
    }
}

#[test]
fn row26_users_and_groups_are_mobys() {
    let image = Image::new();
    for (spec, uid, gid, groups) in [
        ("", 0, 0, vec![0]),
        ("root", 0, 0, vec![0]),
        ("bob", 1000, 50, vec![50, 10, 5]),
        ("1000", 1000, 50, vec![50, 10, 5]),
        ("bob:", 1000, 50, vec![50, 10, 5]),
        ("bob:g", 1000, 50, vec![50]),
        ("bob:wheel", 1000, 10, vec![10]),
        ("bob:77", 1000, 77, vec![77]),
        ("1000:50", 1000, 50, vec![50]),
        ("5000", 5000, 0, vec![0]),
        ("5000:6000", 5000, 6000, vec![6000]),
        ("root:root", 0, 0, vec![0]),
        (":wheel", 0, 10, vec![10]),
        (
            "2147483647:2147483647",
            2_147_483_647,
            2_147_483_647,
            vec![2_147_483_647],
        ),
    ] {
        assert_eq!(image.user(spec).unwrap(), (uid, gid, groups), "{spec:?}");
    }
}

#[test]
fn row15_digits_are_never_a_name_and_never_overflow_to_root() {
    let image = Image::new();
    image.put(
        "passwd",
        format!("{PASSWD_TEXT}4294967296:x:0:0::/:/bin/sh\n-1:x:0:0::/:/bin/sh\n").as_bytes(),
    );
    for spec in [
        "4294967296",
        "2147483648",
        "4294967295",
        "-1",
        "1000:4294967296",
        "99999999999999999999",
        "0:-1",
    ] {
        assert!(
            matches!(image.user(spec), Err(UserError::OutOfRange(_))),
            "{spec}: {:?}",
            image.user(spec)
        );
    }
    for spec in ["0x0", "+0", "nobody", "1000 ", "bob\n", "ü"] {
        assert!(
            matches!(image.user(spec), Err(UserError::NoUser(_))),
            "{spec}: {:?}",
            image.user(spec)
        );
    }
    for spec in ["big", "minus", "none"] {
        assert!(
            matches!(image.user(spec), Err(UserError::BadEntry { .. })),
            "{spec}: {:?}",
            image.user(spec)
        );
    }
    assert!(matches!(image.user("bob:nogroup"), Err(UserError::NoGroup(_))));
    assert_eq!(
        image.user("1000").unwrap().0,
        1000,
        "a user NAMED 1000 with uid 0 is not meant"
    );
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
        assert!(
            matches!(image.user("evil"), Err(UserError::NoUser(_))),
            "{what}: {:?}",
            image.user("evil")
        );
        assert_eq!(image.user("").unwrap(), (0, 0, vec![0]), "{what}");
        assert_eq!(image.user("7").unwrap(), (7, 0, vec![0]), "{what}");
    };
    replace(&|path| symlink(&host, path).unwrap());
    nobody("link to the host");
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
    assert!(matches!(
        image.user("evil"),
        Err(UserError::Read { file: PASSWD, .. })
    ));
    assert_eq!(image.user("").unwrap().0, 0, "the default user needs no file");
    image.put(
        "passwd",
        format!("evil:x:5:5:{}\n", "a".repeat(PASSWD_LINE_MAX)).as_bytes(),
    );
    assert!(matches!(
        image.user("evil"),
        Err(UserError::LongLine { file: PASSWD, .. })
    ));
    std::fs::write(image.etc("passwd2"), "real:x:3:3::/:\n").unwrap();
    replace(&|path| symlink("/etc/passwd2", path).unwrap());
    assert_eq!(
        image.user("real").unwrap().0,
        3,
        "a link inside the root is the legal twin"
    );
}

#[test]
fn row15_many_groups_are_bounded() {
    let image = Image::new();
    let many: String = (0..100_000).map(|i| format!("g{i}:x:{i}:bob\n")).collect();
    image.put("group", many.as_bytes());
    assert_eq!(image.user("bob").unwrap().2.len(), GROUPS_MAX);
    image.put(
        "group",
        format!("g:x:5:{}\n", "u,".repeat(GROUP_LINE_MAX)).as_bytes(),
    );
    assert!(matches!(
        image.user("bob"),
        Err(UserError::LongLine { file: GROUP, .. })
    ));
}

#[test]
fn owners_are_buildkits() {
    let image = Image::new();
    let root = image.root();
    for (spec, uid, gid) in [
        ("bob", 1000, 50),
        ("1000", 1000, 1000),
        ("bob:wheel", 1000, 10),
        ("bob:7", 1000, 7),
        ("7:g", 7, 50),
        ("root", 0, 0),
        ("nosuch", 0, 0),
        ("nosuch:g", 0, 50),
        ("bob:nosuch", 1000, 50),
    ] {
        assert_eq!(lookup_owner(&root, spec).unwrap(), (uid, gid), "{spec}");
    }
    for spec in ["4294967296", "-1", "0:2147483648"] {
        assert!(
            matches!(lookup_owner(&root, spec), Err(UserError::OutOfRange(_))),
            "{spec}"
        );
    }
    assert!(matches!(
        lookup_owner(&root, "big"),
        Err(UserError::BadEntry { .. })
    ));
}
