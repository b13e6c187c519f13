//! Row 47 on whole builds: another user of the machine, and a step, at the store of the one who builds.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::machine;

use crate::e2e::fixture::{Fixture, RBUILD, busybox_argument};
use crate::e2e::hostile::canary::{OTHER, Rung, Site};

/// A build under `umask 000` of an image with a set-id program, in a home that others may look into.
fn careless(site: &Site) {
    let home = site.fixture.home.store().parent().unwrap().to_owned();
    fs::set_permissions(home, fs::Permissions::from_mode(0o755)).unwrap();
    let fixture: &Fixture = &site.fixture;
    fixture
        .context
        .dockerfile("FROM busybox\nRUN cp /bin/busybox /suid && chmod 4755 /suid && echo va1ue-of-a-file > /f && chmod 666 /f\n");
    fixture.home.hand_over();
    fixture
        .home
        .command(machine::program("sh").unwrap())
        .args([
            "-c",
            "umask 000; exec \"$@\"",
            "sh",
            RBUILD,
            "build",
            "-t",
            "kept:1",
        ])
        .args(site.rung().argument())
        .arg(busybox_argument("busybox"))
        .arg(fixture.context.dir())
        .ok();
}

/// Everything below `dir`, without what is gone meanwhile.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            found.extend(entries.map(|entry| entry.path()));
        }
    }
    found
}

fn as_other(program: impl AsRef<std::ffi::OsStr>) -> RbuildCommand {
    RbuildCommand::new(program).user(OTHER, OTHER)
}

#[test]
fn row47_another_user_sees_reads_runs_and_locks_nothing_of_a_store() {
    if !crate::e2e::fixture::is_root("to be another user") {
        return;
    }
    for rung in Rung::here() {
        let site = Site::on(rung, "");
        careless(&site);
        let store = site.fixture.home.store();
        let all = below(&store);
        let suid = all
            .iter()
            .find(|path| path.ends_with("suid"))
            .expect("the program's layer");
        let lock = all
            .iter()
            .find(|path| path.to_string_lossy().contains("lock"))
            .expect("a lock");
        assert!(all.len() > 50, "{} entries", all.len());

        let listed = as_other(machine::program("find").unwrap()).arg(&store).run();
        assert_eq!(
            listed.stdout_text(),
            store.display().to_string(),
            "{rung:?}: the store itself and nothing below"
        );
        assert!(listed.stderr.contains("Permission denied"), "{listed}");
        let run = Command::new(suid).arg("true").uid(OTHER).gid(OTHER).output();
        let refused = run.map_err(|error| error.kind()).err();
        assert_eq!(
            refused,
            Some(ErrorKind::PermissionDenied),
            "{rung:?}: {} ran",
            suid.display()
        );
        for path in [suid, lock] {
            let ran = as_other(machine::program("cat").unwrap()).arg(path).run();
            assert!(!ran.status.success() && ran.stdout.is_empty(), "{rung:?}: {ran}");
        }
        let held = as_other(machine::program("flock").unwrap())
            .args(["--nonblock"])
            .arg(lock)
            .arg("true")
            .run();
        assert!(!held.status.success(), "{rung:?}: {held}");
        // The legal twin: it is the directory that refuses, and not the files or the tools.
        assert_eq!(
            suid.metadata().unwrap().permissions().mode() & 0o111,
            0o111,
            "{rung:?}"
        );
        fs::set_permissions(&store, fs::Permissions::from_mode(0o755)).unwrap();
        let open = as_other(machine::program("find").unwrap()).arg(&store).run();
        assert!(open.stdout_text().lines().count() > 1, "{rung:?}: {open}");
    }
}

#[test]
fn row47_a_step_does_not_reach_the_store() {
    for rung in Rung::here() {
        let site = Site::on(rung, "");
        let store = site.fixture.home.store();
        // Overlay mounts name their layers in the step's own table: the names lead nowhere.
        site.fixture.context.dockerfile(&format!(
            "FROM busybox\nRUN for at in {store} /proc/1/root{store} /proc/self/cwd/../..{store} /../..{store}; do test -e $at && echo $at; done > /reached; \
             tr ' ,:=' '\\n' < /proc/self/mountinfo | grep '^/' | sort -u > /named; \
             find / -xdev -path /proc -prune -o -name index.db -print -o -name rbuild-store -print -o -name blobs -print > /found\n",
            store = store.display()
        ));
        let files = site.works(&[]);
        assert_eq!(files.text("reached"), Some(""), "{rung:?}");
        assert_eq!(files.text("found"), Some(""), "{rung:?}");
        assert!(
            rung == Rung::Chroot || files.text("named").is_some_and(|named| named.contains("/proc")),
            "{rung:?}"
        );
    }
}

#[test]
fn row47_names_that_others_made_in_shared_directories_are_not_used() {
    use std::os::unix::fs::{MetadataExt as _, symlink};
    if !crate::e2e::fixture::is_root("to be another user") {
        return;
    }
    for rung in Rung::here() {
        let site = Site::on(
            rung,
            "FROM busybox\nRUN --mount=type=cache,target=/k date > /k/d\nADD a.tar /a/\n",
        );
        let archive = rbuild_testkit::layout::LayerBuilder::new().file(
            "f",
            rbuild_testkit::layout::Attributes::mode(0o644),
            b"f\n",
        );
        site.fixture.context.file("a.tar", archive.finish());
        let owner = fs::metadata(site.fixture.home.work()).unwrap().uid();
        // Outside of what is handed to the user that builds: as `/tmp` and `/run/user` of a machine are.
        let shared = tempfile::tempdir().unwrap();
        fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        let names = [
            "rbuild".to_owned(),
            format!("rbuild-{owner}"),
            format!("rbuild-{owner}.lock"),
            ".rbuild".to_owned(),
            "rbuild.sock".to_owned(),
            "buildkit".to_owned(),
            "buildkitd.sock".to_owned(),
        ];
        for name in &names {
            let at = shared.path().join(name);
            symlink(&site.canary.dir, &at).unwrap();
            std::os::unix::fs::lchown(&at, Some(OTHER), Some(OTHER)).unwrap();
        }
        let listed = || {
            let mut found: Vec<_> = fs::read_dir(shared.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect();
            found.sort();
            found
        };
        let before = listed();
        let ran = site
            .fixture
            .build()
            .args(rung.argument())
            .env("TMPDIR", shared.path())
            .env("XDG_RUNTIME_DIR", shared.path())
            .ok();
        assert_eq!(listed(), before, "{rung:?}: {ran}");
        site.canary.assert_untouched();
        // The legal twin: the directory is one that rbuild makes its own, random names in.
        let kept = site.fixture.build().args(rung.argument());
        site.fixture.context.dockerfile("FROM busybox\nRUN false\n");
        let kept = kept.env("TMPDIR", shared.path()).arg("--on-error=keep").fails();
        assert_eq!(listed().len(), before.len() + 1, "{rung:?}: {kept}");
        site.canary.assert_untouched();
    }
}

#[test]
fn row47_a_way_to_the_store_that_everybody_can_write_to_is_told_on_each_rung() {
    for rung in Rung::here() {
        let site = Site::on(rung, "FROM busybox\nRUN true\n");
        let above = site.fixture.home.work().join("above");
        fs::create_dir(&above).unwrap();
        let store = above.join("store");
        let warnings = |mode| {
            fs::set_permissions(&above, fs::Permissions::from_mode(mode)).unwrap();
            let build = site.fixture.build().args(rung.argument());
            let ran = build.env("RBUILD_ROOT", &store).ok();
            let about_it = |line: &&str| line.contains("above the store");
            ran.stderr
                .lines()
                .filter(about_it)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let told = warnings(0o777);
        assert_eq!(told.len(), 1, "{rung:?}: {told:?}");
        let expected = format!(
            "WARNING: everybody can write to {:?} above the store",
            above.display()
        );
        assert!(
            told[0].replace('"', "").starts_with(&expected.replace('"', "")),
            "{rung:?}: {told:?}"
        );
        assert_eq!(warnings(0o1777), [""; 0], "{rung:?}: the twin");
        assert_eq!(warnings(0o755), [""; 0], "{rung:?}: the twin");
    }
}
