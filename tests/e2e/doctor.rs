//! `rbuild doctor` where something really is missing: each cause is made, and the report has the change that helps.

use std::process::Command;

use rbuild_testkit::command::TestHome;
use rbuild_testkit::image::OciLayout;
use rbuild_testkit::machine;
use serde_json::{Value, json};

use crate::e2e::RBUILD;
use crate::e2e::chroot::{Container, Work, profile};
use crate::e2e::fixture::{Fixture, busybox_argument, is_root, ordinary_user};
use crate::e2e::ladder::WITHOUT_RANGES;

/// Becomes the user `uid` in a script.
fn becoming(uid: u32) -> String {
    format!("setpriv --reuid={uid} --regid={uid} --clear-groups")
}

/// What the only rung that `doctor --rung=RUNG` tries reports, run by `script` in namespaces that `unshare` makes; `$DOCTOR` is the
/// command, `$DIR` a directory that anybody may write to.
#[track_caller]
fn told(unshare: &[&str], script: &str, rung: &str) -> Option<(bool, String)> {
    if !is_root("making what doctor finds") || machine::program("setpriv").is_none() {
        return None;
    }
    let home = TestHome::for_user(WITHOUT_RANGES, WITHOUT_RANGES);
    let dir = home.work();
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let ran = Command::new("unshare")
        .args(unshare)
        .args(["sh", "-ec", script])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", &dir)
        .env("TMPDIR", &dir)
        .env("RBUILD_ROOT", dir.join("store"))
        .env("DIR", &dir)
        .env("DOCTOR", format!("{RBUILD} doctor --json --rung={rung}"))
        .output()
        .unwrap();
    let report: Result<Value, _> = serde_json::from_slice(&ran.stdout);
    assert!(report.is_ok(), "{}", String::from_utf8_lossy(&ran.stderr));
    let report = report.unwrap();
    let tried: Vec<&Value> = report["rungs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|tried| tried["name"] == rung)
        .collect();
    assert_eq!(tried.len(), 1, "{report:#}");
    let tried = tried[0];
    Some((tried["works"] == true, tried["checks"].to_string()))
}

/// The rung does not work, for that reason, and that would help.
#[track_caller]
fn lacks(unshare: &[&str], script: &str, rung: &str, parts: [&str; 2]) {
    let Some((works, checks)) = told(unshare, script, rung) else {
        return;
    };
    assert!(!works, "{checks}");
    for part in parts {
        assert!(checks.contains(part), "{part:?}: {checks}");
    }
}

#[test]
fn rootless_doctor_names_the_limit_of_user_namespaces() {
    // The limit of a namespace of its own; its root without rights is as good as an ordinary user.
    lacks(
        &["--user", "--map-root-user"],
        "echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-all --inh-caps=-all $DOCTOR",
        "one-id",
        [
            "user.max_user_namespaces = 0",
            "sysctl -w user.max_user_namespaces=15000",
        ],
    );
}

#[test]
fn rootless_doctor_names_the_programs_that_map_ranges() {
    let Some(user) = ordinary_user() else { return };
    // They are in no directory any more that is searched.
    let script = format!(
        "mkdir $DIR/empty; for d in /usr/bin /bin; do test -L $d || {{ mkdir $DIR/u $DIR/w; mount -t overlay -o \
         lowerdir=$d,upperdir=$DIR/u,workdir=$DIR/w none $d; rm $d/newuidmap $d/newgidmap; }}; done; exec {} $DOCTOR",
        becoming(user.uid)
    );
    lacks(
        &["--mount"],
        &script,
        "subids",
        ["newuidmap", "apt-get install uidmap"],
    );
}

#[test]
fn rootless_doctor_names_programs_without_their_right() {
    let Some(user) = ordinary_user() else { return };
    let script = format!(
        "for n in newuidmap newgidmap; do cp /usr/bin/$n $DIR/$n; chmod 755 $DIR/$n; mount --bind $DIR/$n /usr/bin/$n; done; \
         exec {} $DOCTOR",
        becoming(user.uid)
    );
    lacks(&["--mount"], &script, "subids", ["newuidmap", "chmod u+s "]);
}

#[test]
fn rootless_doctor_names_the_switch_that_keeps_programs_from_rights() {
    let Some(user) = ordinary_user() else { return };
    let script = format!("exec {} --no-new-privs $DOCTOR", becoming(user.uid));
    lacks(
        &["--mount"],
        &script,
        "subids",
        ["newuidmap", "allowPrivilegeEscalation: true"],
    );
}

#[test]
fn rootless_doctor_names_a_file_system_that_keeps_no_records() {
    let script = format!(
        "mkdir $DIR/ram; mount -t ramfs none $DIR/ram; chmod 777 $DIR/ram; export RBUILD_ROOT=$DIR/ram/store; exec {} $DOCTOR",
        becoming(WITHOUT_RANGES)
    );
    lacks(
        &["--mount"],
        &script,
        "one-id",
        [
            "Operation not supported",
            "name a directory on a local file system",
        ],
    );
}

#[test]
fn rootless_doctor_names_a_proc_that_is_partly_hidden() {
    let script = format!(
        "mount -t tmpfs none /proc/fs; exec {} $DOCTOR",
        becoming(WITHOUT_RANGES)
    );
    lacks(
        &["--mount"],
        &script,
        "one-id",
        ["partly hidden", "systempaths=unconfined"],
    );
}

#[test]
fn rootless_doctor_names_a_root_that_is_not_the_namespaces_own() {
    let script = format!(
        "mkdir $DIR/root; mount --rbind / $DIR/root; exec chroot $DIR/root {} $DOCTOR",
        becoming(WITHOUT_RANGES)
    );
    lacks(
        &["--mount"],
        &script,
        "one-id",
        ["make a user namespace", "user namespaces cannot be made in one"],
    );
}

#[test]
fn privileged_doctor_names_the_capability_that_the_rung_without_namespaces_needs() {
    lacks(
        &["--mount"],
        "exec setpriv --bounding-set=-sys_chroot,-sys_admin --inh-caps=-all $DOCTOR",
        "chroot",
        ["SYS_CHROOT are missing", "docker run --cap-add SYS_CHROOT"],
    );
}

#[test]
fn rootless_doctor_tells_a_missing_fuse_and_goes_on_without() {
    let script = format!(
        "mkdir $DIR/dev; for n in null zero full random urandom tty; do touch $DIR/dev/$n; mount --bind /dev/$n $DIR/dev/$n; done; \
         mount --rbind $DIR/dev /dev; exec {} $DOCTOR",
        becoming(WITHOUT_RANGES)
    );
    let Some((works, checks)) = told(&["--mount"], &script, "one-id") else {
        return;
    };
    assert!(works, "{checks}");
    assert!(checks.contains("fuse-overlayfs does not"), "{checks}");
}

#[test]
fn privileged_doctor_names_the_profile_of_a_container() {
    let Some(container) = Container::new() else { return };
    let ran = container.rbuild(1000, &["doctor", "--json"]).run();
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
    let profiles = profile();
    assert!(profiles.is_object(), "the container has one: {profiles}");
    let checks = report["rungs"][2]["checks"].to_string();
    assert_eq!(report["rungs"][2]["works"], false, "{checks}");
    assert!(checks.contains("--security-opt seccomp=unconfined"), "{checks}");
}

#[test]
fn privileged_profiles_that_kill_or_deny_that_there_is_a_call_are_named_and_a_build_goes_on() {
    let namespaces = ["unshare", "setns", "mount", "fsopen"].as_slice();
    let answers = [
        (
            json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 38}),
            namespaces,
            "Function not implemented",
        ),
        (
            json!({"action": "SCMP_ACT_KILL_PROCESS"}),
            namespaces,
            "a seccomp profile kills processes that make namespaces",
        ),
        // Docker's own, where a container has CAP_SYS_ADMIN; and one from before the calls were there.
        (
            json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 1}),
            &["pivot_root"],
            "a seccomp profile refuses pivot_root(2)",
        ),
        (
            json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 38}),
            &["move_mount", "mount_setattr"],
            "a seccomp profile refuses move_mount(2)",
        ),
    ];
    for (mut answer, calls, said) in answers {
        let Some(work) = Work::of("FROM busybox\nRUN id -u > /id\n") else {
            return;
        };
        answer["names"] = json!(calls);
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [answer]});
        // Root of this container has no CAP_SYS_ADMIN, and gets as far as mounting in a user namespace alone.
        let of_root = if calls == namespaces { 0 } else { 2 };
        for (user, rung) in [(0, of_root), (1000, 2)] {
            let ran = work
                .container
                .rbuild_under(&profile, user, &["doctor", "--json"])
                .run();
            let report: Value =
                serde_json::from_slice(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
            let checks = report["rungs"][rung]["checks"].to_string();
            assert!(checks.contains(said), "{user}: {checks}");
            assert!(
                checks.contains("--security-opt seccomp=unconfined"),
                "{user}: {checks}"
            );
        }
        // As a plain container's root, on the rung without namespaces.
        let inside = work.archive("inside.tar");
        let args = work.args(None, &inside);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let ran = work.container.rbuild_under(&profile, 0, &args).run().succeeded();
        assert!(ran.stderr.contains("building on rung 4 (chroot)"), "{ran}");
        work.assert_same(&inside);
    }
}

/// Root of a namespace with one id, as `unshare -r` makes it: it looks like root, and no step of a build can be.
#[test]
fn rootless_root_of_a_namespace_with_one_id_builds_on_the_rung_of_one_id() {
    let alone = ["--user", "--map-root-user"];
    lacks(
        &alone,
        "exec $DOCTOR",
        "root",
        ["it has one id", "rung one-id works"],
    );
    let Some((works, checks)) = told(&alone, "exec $DOCTOR", "one-id") else {
        return;
    };
    assert!(works, "{checks}");
    let fixture =
        Fixture::new("FROM busybox\nRUN echo x > /f && chown 5:6 /f\nUSER daemon\nRUN id -u > /tmp/id\n");
    let (_, expected) = fixture.image(&[]);
    let home = TestHome::new();
    let archive = home.work().join("archive.tar");
    let ran = home
        .command("unshare")
        .args(alone)
        .args([RBUILD, "build", "--progress=plain"])
        .arg(busybox_argument("busybox"))
        .arg(format!("--output=type=oci,dest={}", archive.display()))
        .arg(fixture.context.dir())
        .run()
        .succeeded();
    assert!(ran.stderr.contains("building on rung 3 (one-id)"), "{ran}");
    let built = OciLayout::open(&archive).unwrap().image().unwrap();
    assert_eq!(built.files().unwrap().table(), expected.files().unwrap().table());
}

/// A home is where the store goes: without one, or with one that others own (an arbitrary number in a pod), doctor and build say
/// the same, and the flag that they name helps.
#[test]
fn rootless_a_place_for_the_store_is_asked_for_where_there_is_none() {
    if !is_root("becoming another user") || machine::program("setpriv").is_none() {
        return;
    }
    let home = TestHome::for_user(WITHOUT_RANGES, WITHOUT_RANGES);
    let context = home.work().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n").unwrap();
    home.hand_over();
    let run = |home: Option<&str>, args: &[&str]| {
        let user = format!("{} env -i PATH=/usr/bin:/bin", becoming(WITHOUT_RANGES));
        let mut command = Command::new("sh");
        let set = home.map(|home| format!("HOME={home}")).unwrap_or_default();
        let line = format!("cd / && exec {user} {set} {RBUILD} {} 2>&1", args.join(" "));
        let ran = command.args(["-c", &line]).output().unwrap();
        (
            ran.status.success(),
            String::from_utf8_lossy(&ran.stdout).into_owned(),
        )
    };
    let build = context.display().to_string();
    for (given, said) in [
        (None, "HOME is not set; name one with --root"),
        (Some("/"), "Permission denied"),
    ] {
        let (works, report) = run(given, &["doctor"]);
        assert!(
            !works && report.contains("name a directory of yours with --root"),
            "{report}"
        );
        assert!(report.contains(said), "{report}");
        let (works, told) = run(given, &["build", &build]);
        assert!(
            !works && told.contains(said) && told.contains("with --root or RBUILD_ROOT"),
            "{told}"
        );
        // What was named helps.
        let root = format!("--root={}", home.work().join("store").display());
        let (works, told) = run(given, &[&root, "build", &build]);
        assert!(works, "{told}");
    }
}
