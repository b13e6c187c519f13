//! The ladder: the same image from every rung, the choice told once, and what `rbuild doctor` says of them.

mod folded;
mod images;

use std::path::Path;

use rbuild_testkit::command::TestHome;
use rbuild_testkit::image::{Image, OciLayout};
use rbuild_testkit::machine;

use crate::e2e::fixture::{Fixture, ordinary_user};

/// A number that no account has and that no range of ids was given to.
pub(crate) const WITHOUT_RANGES: u32 = 3_999_999_777;

/// What a rung may get wrong: owners, modes, links, pipes, users, set-id programs, times of directories.
const CORPUS: &[(&str, &str)] = &[
    (
        OWNERS,
        "FROM busybox
RUN touch /f && chown 33:44 /f && mkdir /d && chown 5:6 /d && ln -s f /l && chown -h 7:8 /l && mkfifo /p && chown 9:10 /p && ln /f /g
RUN chown 0:0 /f && mv /d /e && cp -a /l /k && rm /p
",
    ),
    (
        "users that make things",
        "FROM busybox
USER daemon
RUN id > /tmp/id; mkdir /tmp/d; ln -s a /tmp/l; mkfifo /tmp/p; umask 027; touch /tmp/u; chmod 4750 /tmp/u
USER 1234:5678
WORKDIR /made/by/1234
RUN id >> /tmp/i; touch here; chown :5678 here
",
    ),
    (
        SET_ID,
        "FROM busybox
RUN mkdir -m 2775 /s && chown 0:50 /s && touch /s/f && mkdir /s/d && cp /bin/true /x && chmod 6755 /x && chown 12 /x && chmod 4711 /x
",
    ),
    (
        "copies that change owners, and those that keep them",
        "FROM busybox AS a
RUN mkdir /t && touch /t/f && chown -R 21:22 /t && ln -s f /t/l && chown -h 23:24 /t/l
FROM busybox
COPY --from=a /t /kept
COPY --from=a --chown=31:32 --chmod=640 /t /given
COPY --link --chown=1:1 Dockerfile /link/
ADD --chown=41 Dockerfile /added
RUN stat -c '%u:%g %a %n' /kept /kept/* /given /given/* /link/* /added > /seen
",
    ),
    (
        "names that go and come",
        "FROM busybox
RUN mkdir -p /a/b && touch /a/b/c && chown -R 5:5 /a
RUN rm -r /a && mkdir /a && chown 6:6 /a && rm /bin/vi
",
    ),
    (
        "what is changed, replaced, removed and left alone",
        "FROM busybox
RUN mkdir -p /a/b /o /p && echo 1 >/a/f && echo 1 >/a/g && echo 2 >/o/x && echo 4 >/p/w && touch /gone
RUN rm /gone && rm -r /o && mkdir /o && echo 3 >/o/y && cp -a /a /c && mv /a/b /a/d && chmod 700 /c
RUN true
RUN echo more >>/p/w && touch -d @1704067200 /p/w && rm -r /c && echo file >/c && rm /a/g && chown 3 /a/f
WORKDIR /p/deep/er
RUN ls -ld /gone || ls -l /a /o /p | tr -s ' ' | cut -d' ' -f1,3,4,9 >seen
",
    ),
    (
        NAMES_OF_ONE_FILE,
        "FROM busybox
RUN mkdir /a && echo 1 >/a/f && ln /a/f /a/g && ln /a/f /a/h
RUN chown -R 5:6 /a
RUN ln /a/f /a/i && chmod 600 /a/h
",
    ),
    (
        "mounts of every kind that leave nothing",
        "FROM busybox AS other
RUN mkdir /d && echo from other >/d/f
FROM busybox
RUN --mount=type=tmpfs,target=/t --mount=type=cache,target=/var/k --mount=from=other,source=/d,target=/m,rw \\
    echo x >/t/x && cp /m/f /var/k/f && rm /m/f && touch /dev/shm/z
RUN --mount=type=cache,target=/elsewhere,id=/var/k --mount=from=other,target=/m cp /elsewhere/f /kept && cat /m/d/f >>/kept
RUN --network=none cat /etc/resolv.conf >/dev/null && echo nothing
",
    ),
];

const OWNERS: &str = "owners of everything that a step can own";
const SET_ID: &str = "set-id bits and set-group directories";
/// Of these fuse-overlayfs 1.10 gets something wrong by itself, so that it is not asked: owners of one of several names, and
/// the group of what is made in a set-group directory.
const NOT_BY_FUSE: [&str; 3] = [OWNERS, SET_ID, NAMES_OF_ONE_FILE];
const NAMES_OF_ONE_FILE: &str = "files with several names below that are changed under all of them";

/// Each rung with each snapshotter that it can have, but for the one that all are compared with.
const WAYS: &[(&str, &str)] = &[
    ("root", "native"),
    ("root", "fuse-overlayfs"),
    ("subids", "overlayfs"),
    ("subids", "native"),
    ("one-id", "overlayfs"),
    ("one-id", "native"),
    ("chroot", "native"),
];

/// One who builds on a rung with a snapshotter, and the store that fills.
struct Builder {
    rung: &'static str,
    snapshotter: &'static str,
    fixture: Fixture,
}

impl Builder {
    /// Nothing if this machine has no such user.
    fn of((rung, snapshotter): (&'static str, &'static str)) -> Option<Self> {
        let user = ordinary_user()?;
        let home = match rung {
            "root" | "chroot" => TestHome::new(),
            "subids" => TestHome::for_user(user.uid, user.gid),
            _ => TestHome::for_user(WITHOUT_RANGES, WITHOUT_RANGES),
        };
        Some(Self {
            rung,
            snapshotter,
            fixture: Fixture::with_home(home, ""),
        })
    }

    fn build(&self, dockerfile: &str) -> Image {
        self.build_in(dockerfile, None)
    }

    /// The same with a store elsewhere.
    fn build_in(&self, dockerfile: &str, store: Option<&Path>) -> Image {
        self.fixture.context.dockerfile(dockerfile);
        self.fixture.context.settle();
        let archive = self.fixture.archive();
        let build = store.into_iter().fold(self.fixture.build(), |build, store| {
            build.env("RBUILD_ROOT", store)
        });
        let ran = build
            .arg(format!("--rung={}", self.rung))
            .arg(format!("--snapshotter={}", self.snapshotter))
            .arg("--build-arg=SOURCE_DATE_EPOCH=1704067200")
            .arg(format!(
                "--output=type=oci,rewrite-timestamp=true,dest={}",
                archive.display()
            ))
            .ok();
        assert!(
            ran.stderr.contains(&format!("snapshotter {}", self.snapshotter)),
            "{ran}"
        );
        OciLayout::open(&archive)
            .expect("an archive")
            .image()
            .expect("one image")
    }
}

/// The ways of this machine: `fuse-overlayfs` is not everywhere.
fn ways() -> impl Iterator<Item = (&'static str, &'static str)> {
    let has_fuse = machine::program("fuse-overlayfs").is_some() && Path::new("/dev/fuse").exists();
    if !has_fuse {
        machine::skip("fuse-overlayfs or /dev/fuse is not here: that snapshotter is left out");
    }
    let ways = WAYS.iter().copied();
    ways.filter(move |(_, snapshotter)| has_fuse || *snapshotter != "fuse-overlayfs")
}

#[test]
fn rootless_every_rung_and_snapshotter_makes_the_same_layers_digest_for_digest() {
    let Some(root) = Builder::of(("root", "overlayfs")) else {
        return;
    };
    let expected = CORPUS.iter().map(|(about, dockerfile)| {
        let image = root.build(dockerfile);
        (*about, *dockerfile, image.files().unwrap().table(), image.config)
    });
    let expected: Vec<_> = expected.collect();
    for way in ways() {
        let builder = Builder::of(way).expect("the user that was there a moment ago");
        let asked = |about: &&str| way.1 != "fuse-overlayfs" || !NOT_BY_FUSE.contains(about);
        for (about, dockerfile, files, config) in expected.iter().filter(|row| asked(&row.0)) {
            let other = builder.build(dockerfile);
            assert_eq!(
                *files,
                other.files().unwrap().table(),
                "{about}: files of {way:?}"
            );
            assert_eq!(*config, other.config, "{about}: config and layers of {way:?}");
        }
    }
}

/// A file as a device with a file system on it, mounted until it is dropped.
struct Loop {
    dir: tempfile::TempDir,
}

impl Loop {
    fn of(kind: &str) -> Option<Self> {
        use std::process::Command;
        let mkfs = machine::program(&format!("mkfs.{kind}"))?;
        let dir = tempfile::tempdir().unwrap();
        let (image, at) = (dir.path().join("image"), dir.path().join("at"));
        std::fs::create_dir(&at).unwrap();
        std::fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
        let made = Command::new(mkfs).arg("-q").arg(&image).output().unwrap();
        let mount = Command::new("mount")
            .args(["-o", "loop"])
            .args([&image, &at])
            .output()
            .unwrap();
        if made.status.success() && mount.status.success() {
            return Some(Self { dir });
        }
        let said = String::from_utf8_lossy(&mount.stderr);
        machine::skip(&format!("{kind} cannot be mounted here: {}", said.trim()));
        None
    }

    fn at(&self) -> std::path::PathBuf {
        self.dir.path().join("at")
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        drop(
            std::process::Command::new("umount")
                .arg("-l")
                .arg(self.at())
                .status(),
        );
    }
}

#[test]
fn slow_privileged_on_file_systems_that_share_blocks_the_layers_are_the_same() {
    let Some(overlay) = Builder::of(("root", "overlayfs")) else {
        return;
    };
    for (kind, rungs) in [("btrfs", ["root", "chroot"]), ("xfs", ["chroot", "root"])] {
        let Some(mounted) = Loop::of(kind) else { continue };
        let probe = mounted.at().join("probe");
        std::fs::write(&probe, vec![1; 1 << 16]).unwrap();
        let (from, to) = (
            std::fs::File::open(&probe).unwrap(),
            std::fs::File::create(mounted.at().join("clone")).unwrap(),
        );
        rustix::fs::ioctl_ficlone(&to, &from).expect("it shares blocks");
        for ((about, dockerfile), rung) in CORPUS.iter().zip(rungs.iter().cycle()) {
            let store = mounted.at().join(rung);
            let other = Builder::of((rung, "native")).expect("root");
            let other = other.build_in(dockerfile, Some(&store));
            assert_eq!(
                overlay.build(dockerfile).config,
                other.config,
                "{about}: {rung} on {kind}"
            );
        }
    }
}

#[test]
fn rootless_the_choice_is_told_once_with_its_reason() {
    if ordinary_user().is_none() {
        return;
    }
    let home = TestHome::for_user(WITHOUT_RANGES, WITHOUT_RANGES);
    let fixture = Fixture::with_home(home, "FROM busybox\nRUN id -u\n");
    let ran = fixture.build().ok();
    let told: Vec<&str> = ran
        .stderr
        .lines()
        .filter(|line| line.contains("building on rung"))
        .collect();
    assert_eq!(told.len(), 1, "{ran}");
    assert!(
        told[0].contains("rung 3 (one-id)") && told[0].contains("not subids: /etc/subuid"),
        "{}",
        told[0]
    );
    let refused = fixture.build().arg("--rung=subids").fails();
    assert!(refused.stderr.contains("usermod --add-subuids"), "{refused}");
}

fn doctor(home: &TestHome, args: &[&str]) -> (i32, serde_json::Value) {
    let ran = home
        .command(crate::e2e::RBUILD)
        .args(["doctor", "--json"])
        .args(args)
        .run();
    let report: Result<serde_json::Value, _> = serde_json::from_slice(&ran.stdout);
    assert!(report.is_ok(), "{ran}");
    (ran.status.code().unwrap_or(-1), report.unwrap_or_default())
}

#[test]
fn rootless_doctor_tries_each_rung_and_says_what_to_change() {
    if ordinary_user().is_none() {
        return;
    }
    let home = TestHome::for_user(WITHOUT_RANGES, WITHOUT_RANGES);
    let (code, report) = doctor(&home, &[]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["chosen"], "one-id", "{report:#}");
    let rungs = report["rungs"].as_array().unwrap();
    assert_eq!(rungs.len(), 5);
    assert_eq!(
        (&rungs[4]["works"], &rungs[4]["has_steps"]),
        (&true.into(), &false.into())
    );
    assert_eq!(
        (&rungs[3]["works"], &rungs[3]["automatic"]),
        (&false.into(), &rbuild_sys::landlock::has_scopes().into())
    );
    assert_eq!(rungs[1]["works"], false);
    let advice = rungs[1]["checks"][0]["advice"][0].as_str().unwrap();
    assert!(advice.contains("usermod --add-subuids 100000-165535"), "{advice}");
    let names: Vec<_> = rungs[2]["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["namespaces and ids", "records of owners", "snapshotters", "step"]
    );
    let (code, report) = doctor(&home, &["--rung=subids"]);
    assert_eq!((code, &report["chosen"]), (1, &serde_json::Value::Null));
    let left: Vec<_> = std::fs::read_dir(home.work())
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("doctor"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
