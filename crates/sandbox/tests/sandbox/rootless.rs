//! The same steps by an ordinary user with subordinate ids. Needs root to make that user, and `uidmap` installed.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Output};

use rbuild_sandbox::{DeviceKind, DeviceNode, Ids, MountKind, MountPlan, Network, Plan, Security, Source};
use rbuild_sys::overlay::Form;

use crate::fixture::{Fixture, probe};
use crate::mounts::file;

const USER: &str = "rbuildtest";
const SUB_START: u32 = 1_700_000_000;

struct Rootless {
    fixture: Fixture,
    uid: u32,
}

impl Rootless {
    fn new() -> Option<Self> {
        let missing = ["/usr/bin/newuidmap", "/usr/sbin/useradd"];
        if let Some(program) = missing.into_iter().find(|path| !Path::new(path).exists()) {
            assert!(
                std::env::var_os("RBUILD_REQUIRE_PEERS").is_none(),
                "RBUILD_REQUIRE_PEERS is set without {program}"
            );
            println!("SKIP: {program} is missing (apt-get install uidmap)");
            return None;
        }
        let uid = test_user();
        Some(Self {
            fixture: users_fixture(uid)?,
            uid,
        })
    }

    fn plan(&self, script: &str) -> Plan {
        user_plan(&self.fixture, script)
    }

    fn run(&self, plan: &Plan) -> Output {
        self.probe("run", plan)
    }

    fn probe(&self, mode: &str, plan: &Plan) -> Output {
        let path = self.fixture.path("plan.json");
        std::fs::write(&path, serde_json::to_vec(plan).unwrap()).unwrap();
        let id = self.uid.to_string();
        Command::new("/usr/bin/setpriv")
            .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
            .arg(self.fixture.path("probe"))
            .arg(mode)
            .arg(path)
            .env_clear()
            .env("CANARY_ENV", "CANARY")
            .output()
            .unwrap()
    }

    fn ok(&self, plan: &Plan) -> String {
        Self::text_of(self.run(plan))
    }

    fn text_of(output: Output) -> String {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{stderr}{}",
            String::from_utf8_lossy(&output.stdout)
        );
        assert!(stderr.contains("SubordinateIds"), "{stderr}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A fixture that belongs to a user, with a probe that the user can run.
pub(crate) fn users_fixture(uid: u32) -> Option<Fixture> {
    let fixture = Fixture::new()?;
    let setpriv = "/usr/bin/setpriv";
    assert!(Path::new(setpriv).exists(), "{setpriv} is missing (util-linux)");
    for name in ["upper", "work", "lower"] {
        own(&fixture.path(name), uid);
    }
    std::fs::copy(probe(), fixture.path("probe")).unwrap();
    std::fs::set_permissions(fixture.path("probe"), Permissions::from_mode(0o755)).unwrap();
    Some(fixture)
}

/// A plan over it, for a user namespace.
pub(crate) fn user_plan(fixture: &Fixture, script: &str) -> Plan {
    let mut plan = fixture.plan(script);
    let Source::Overlay(overlay) = &mut plan.root.source else {
        unreachable!()
    };
    overlay.form = Form::User;
    plan
}

pub(crate) fn own(path: &Path, uid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(uid)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        std::fs::read_dir(path)
            .unwrap()
            .for_each(|entry| own(&entry.unwrap().path(), uid));
    }
}

/// One user for all tests of this machine, with ranges of its own.
fn test_user() -> u32 {
    let lock = std::fs::File::create(std::env::temp_dir().join("rbuild-test-user.lock")).unwrap();
    lock.lock().unwrap();
    let find = || {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        let line = passwd
            .lines()
            .find(|line| line.starts_with(&format!("{USER}:")))?
            .to_owned();
        line.split(':').nth(2)?.parse().ok()
    };
    if find().is_none() {
        let made = Command::new("/usr/sbin/useradd")
            .args(["-M", "-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0", USER])
            .status();
        assert!(made.unwrap().success());
    }
    for file in ["/etc/subuid", "/etc/subgid"] {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let wanted = format!("{USER}:{SUB_START}:65536");
        if !text.lines().any(|line| line == wanted) {
            let others = text.lines().filter(|line| !line.starts_with(&format!("{USER}:")));
            let text: String = others
                .chain([wanted.as_str()])
                .flat_map(|line| [line, "\n"])
                .collect();
            std::fs::write(file, text).unwrap();
        }
    }
    find().unwrap()
}

#[test]
fn rootless_ids_owners_and_capabilities() {
    let Some(rootless) = Rootless::new() else { return };
    let script = "id -u; id -G; touch /f && chown 33:44 /f && stat -c %u:%g /f; mkdir /d; chmod 4755 /f; \
        rm -r /home; mknod /x c 1 3 2>/dev/null || echo nodev; grep CapBnd /proc/self/status; \
        cat /proc/self/uid_map | wc -l; cat /proc/self/setgroups";
    let seen = rootless.ok(&rootless.plan(script));
    assert_eq!(seen, "0\n0\n33:44\nnodev\nCapBnd:\t00000000a80425fb\n2\nallow\n");
    let upper = rootless.fixture.path("upper");
    let meta = std::fs::metadata(upper.join("f")).unwrap();
    assert_eq!(
        (meta.uid(), meta.gid(), meta.mode() & 0o7777),
        (SUB_START + 32, SUB_START + 43, 0o4755)
    );
    let mut plan = rootless
        .plan("id -u; id -g; id -G; grep -E 'Cap(Prm|Inh|Amb)' /proc/self/status | sort -u -k 2 | wc -l");
    plan.process.ids = Ids {
        uid: 1000,
        gid: 50,
        groups: vec![50, 60],
    };
    assert_eq!(
        rootless.ok(&plan),
        "1000\n50\n50 60\n1\n",
        "all three sets are equal, and empty"
    );
}

#[test]
fn rootless_a_process_joins_one_at_a_terminal() {
    let Some(rootless) = Rootless::new() else { return };
    let script = "id -u; cat /proc/1/cmdline | tr '\\0' ' '; grep -E 'CapEff|Seccomp:' /proc/self/status | tr '\\t' ' '; \
        readlink /proc/1/fd/0; ls /sys/class/net";
    let mut plan = rootless.plan(script);
    plan.network = Network::None;
    let expected = "0\nsleep 600 CapEff: 00000000a80425fb\nSeccomp: 2\n/dev/pts/0\nlo\n";
    assert_eq!(Rootless::text_of(rootless.probe("join", &plan)), expected);
    plan.network = Network::Host;
    let seen = Rootless::text_of(rootless.probe("join", &plan));
    let expected = "0\nsleep 600 CapEff: 00000000a80425fb\nSeccomp: 2\n";
    let Some(rest) = seen.strip_prefix(expected) else {
        panic!("{seen}")
    };
    // Each process that joins on the host's network leaves the host's sockets for itself, and is nobody's debugger.
    assert_eq!(
        rest.starts_with("/dev/pts/0\n"),
        !rbuild_sys::landlock::has_scopes(),
        "{seen}"
    );
}

#[test]
fn rootless_the_usual_file_systems_and_masks() {
    let Some(rootless) = Rootless::new() else { return };
    let mut plan = rootless.plan(
        "cat /etc/hosts; ls /dev; stat -c %t:%T /dev/null; echo x > /dev/null; stat -f -c %T /proc /dev /dev/shm; \
         for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /sys/kernel/uevent_seqnum /sys/fs/cgroup/cgroup.procs; do \
         (echo h > $f) 2>/dev/null && echo \"wrote $f\"; done; ls -A /sys/firmware; head -c 9 /proc/interrupts | wc -c; \
         chmod 777 /dev/null 2>/dev/null && echo chmod; umount /proc 2>/dev/null && echo umount; true",
    );
    plan.hosts = Some(b"h\n".to_vec());
    plan.network = Network::Host;
    let expected = "h\ncore\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n1:3\n\
        proc\ntmpfs\ntmpfs\n0\n";
    assert_eq!(rootless.ok(&plan), expected);
    let layer = rootless.fixture.layer();
    assert_eq!(layer, [std::path::PathBuf::from("etc")], "no stubs in the layer");
    plan.network = Network::None;
    assert_eq!(rootless.ok(&plan), expected, "with a sysfs of its own");
}

#[test]
fn rootless_row30_secrets_mounts_and_environment() {
    let Some(rootless) = Rootless::new() else { return };
    let secret = MountPlan {
        dest: "/run/secrets/s".into(),
        kind: MountKind::File {
            content: b"s3cr3t\n".to_vec(),
            uid: 1000,
            gid: 1000,
            mode: 0o400,
        },
    };
    let mut plan = rootless.plan("cat /run/secrets/s /m; env | grep -c CANARY; cat /t/x; true");
    plan.mounts = vec![
        secret,
        file("/m", "m\n"),
        MountPlan {
            dest: "/t".into(),
            kind: MountKind::Tmpfs {
                size_bytes: Some(4096),
                mode: None,
            },
        },
    ];
    assert_eq!(rootless.ok(&plan), "s3cr3t\nm\n0\n");
    plan.process.ids = Ids {
        uid: 1001,
        gid: 1001,
        groups: vec![1001],
    };
    assert_eq!(
        rootless.ok(&plan),
        "0\n",
        "another user of the step cannot read it"
    );
    assert!(
        rootless.fixture.layer().is_empty(),
        "{:?}",
        rootless.fixture.layer()
    );
}

#[test]
fn rootless_row22_read_only_binds_hold() {
    let Some(rootless) = Rootless::new() else { return };
    let context = rootless.fixture.path("ctx");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("f"), "context").unwrap();
    own(&context, rootless.uid);
    let mut plan = rootless.plan(
        "mount -o remount,rw,bind /ctx; umount -l /ctx; unshare -Urm true; echo x > /ctx/f; cat /ctx/f",
    );
    plan.mounts = vec![MountPlan {
        dest: "/ctx".into(),
        kind: MountKind::Bind {
            source: Source::Path(context.clone()),
            selector: "".into(),
            readonly: true,
        },
    }];
    assert_eq!(rootless.ok(&plan), "context");
    plan.security = Security::Insecure;
    plan.process.args[2] = "cat /ctx/f; grep Seccomp: /proc/self/status".into();
    assert_eq!(rootless.ok(&plan), "contextSeccomp:\t0\n");
}

#[test]
fn rootless_row24_the_user_s_own_binary_is_out_of_reach() {
    let Some(rootless) = Rootless::new() else { return };
    // As in a home directory: owned, and writable, by the very user whose uid is the step's root.
    chown(
        rootless.fixture.path("probe"),
        Some(rootless.uid),
        Some(rootless.uid),
    )
    .unwrap();
    let before = std::fs::read(rootless.fixture.path("probe")).unwrap();
    let script = rootless.fixture.path("lower/bin/evil");
    std::fs::write(&script, "#!/proc/self/exe\n").unwrap();
    std::fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    own(&script, rootless.uid);
    let mut plan = rootless.plan("");
    plan.process.args = vec!["/bin/evil".into()];
    rootless.run(&plan);
    rootless.ok(&rootless.plan("for p in /proc/[0-9]*; do (echo x > $p/exe) 2>/dev/null; done; true"));
    assert_eq!(std::fs::read(rootless.fixture.path("probe")).unwrap(), before);
}

#[test]
fn rootless_a_user_without_ranges_is_told_the_least_change() {
    let Some(rootless) = Rootless::new() else { return };
    let plan = rootless.fixture.path("plan.json");
    std::fs::write(&plan, serde_json::to_vec(&rootless.plan("true")).unwrap()).unwrap();
    let output = Command::new("/usr/bin/setpriv")
        .args(["--reuid", "1599999", "--regid", "1599999", "--clear-groups"])
        .arg(rootless.fixture.path("probe"))
        .arg("run")
        .arg(plan)
        .env("PROBE_RUNG", "subids")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains("usermod --add-subuids") && text.contains("1599999"),
        "{text}"
    );
}

#[test]
fn rootless_a_device_is_the_hosts_own() {
    let Some(rootless) = Rootless::new() else { return };
    let with = |host: &str| {
        let mut plan = rootless.plan("head -c 4 /dev/given | wc -c; stat -c %t:%T /dev/given");
        plan.mounts.push(MountPlan {
            dest: "/dev/given".into(),
            kind: MountKind::Device(DeviceNode {
                host: host.into(),
                kind: DeviceKind::Character,
                major: 1,
                minor: 5,
                mode: 0o600,
                uid: 0,
                gid: 0,
            }),
        });
        plan
    };
    assert_eq!(rootless.ok(&with("/dev/zero")), "4\n1:5\n");
    // None can be made, and another device is no substitute.
    for host in ["/dev/not/here", "/dev/null"] {
        assert!(!rootless.run(&with(host)).status.success(), "{host}");
    }
}

/// A program of i386 that makes a socket (`AF_INET`, `SOCK_DGRAM`) by `socketcall` and exits with the error's number, or with that of
/// the descriptor below 256.
#[cfg(target_arch = "x86_64")]
fn narrow() -> Vec<u8> {
    const HEADERS: u32 = 52 + 32;
    const AT: u32 = 0x0804_8000;
    let code: &[u8] = &[
        0x6a, 0, 0x6a, 2, 0x6a, 2, // push protocol, kind, family
        0x89, 0xe1, 0x6a, 1, 0x5b, 0x6a, 102, 0x58, 0xcd, 0x80, // socketcall(SYS_SOCKET, stack)
        0x89, 0xc3, 0xf7, 0xdb, 0x6a, 1, 0x58, 0xcd, 0x80, // exit(-result)
    ];
    let size = HEADERS + u32::try_from(code.len()).unwrap();
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let halves = |file: &mut Vec<u8>, all: &[u16]| all.iter().for_each(|n| file.extend(n.to_le_bytes()));
    let words = |file: &mut Vec<u8>, all: &[u32]| all.iter().for_each(|n| file.extend(n.to_le_bytes()));
    // ET_EXEC, EM_386; entry, program headers, no sections, no flags; one program header: PT_LOAD, readable and executable.
    halves(&mut file, &[2, 3]);
    words(&mut file, &[1, AT + HEADERS, 52, 0, 0]);
    halves(&mut file, &[52, 32, 1, 40, 0, 0]);
    words(&mut file, &[1, 0, AT, AT, size, size, 5, 0x1000]);
    file.extend(code);
    file
}

/// Who executes a file that it may not read, and whose owner has no number in its user namespace, is no one's to look into from
/// there (`would_dump` of fs/exec.c): no right makes up for that, so what it asks for is not known.
#[cfg(target_arch = "x86_64")]
#[test]
fn rootless_row28_who_may_not_be_looked_into_gets_no_socket_unjudged() {
    let Some(rootless) = Rootless::new() else { return };
    let program = rootless.fixture.path("narrow");
    std::fs::write(&program, narrow()).unwrap();
    let mut plan = rootless.plan("/narrow; echo $?; cat /narrow >/dev/null 2>&1 && echo readable");
    plan.mounts.push(MountPlan {
        dest: "/narrow".into(),
        kind: MountKind::Bind {
            source: Source::Path(program.clone()),
            selector: "".into(),
            readonly: true,
        },
    });
    for (mode, said) in [(0o755, "253\nreadable\n"), (0o711, "1\n")] {
        std::fs::set_permissions(&program, Permissions::from_mode(mode)).unwrap();
        let output = rootless.run(&plan);
        assert_eq!(String::from_utf8_lossy(&output.stdout), said, "{mode:o}");
    }
}
