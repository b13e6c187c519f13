//! A step beside what runc makes of containerd's default spec with BuildKit's changes: the same program looks around in both,
//! and whatever is not the same is in a list here, with its reason.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use rbuild_testkit::machine;
use serde_json::{Value, json};

use crate::e2e::chroot::{CAPABILITIES, profile};
use crate::e2e::fixture::{Fixture, is_root};
use crate::e2e::hostile::canary::{Rung, Site};

/// Prints facts, one a line, each with the name of its kind.
const LOOK: &str = r#"
sed -n 's/^\(Cap[A-Za-z]*\|NoNewPrivs\|Seccomp\|Uid\|Gid\|Groups\|Umask\):[[:space:]]*/status \1 /p' /proc/self/status
for n in /proc/self/ns/*; do echo "ns $(readlink $n)"; done
awk '{print "mount", $5, $6}' /proc/self/mountinfo
sed -n 's/^Max \(.*[a-z]\)  *\([0-9u][^ ]*\)  *\([0-9u][^ ]*\).*/limit \1 \2 \3/p' /proc/self/limits
for d in /dev/*; do echo "dev $d"; done
for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/latency_stats; do test -e $f && echo "reads $f $(head -c1 $f 2>/dev/null | wc -c)"; done
for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/irq/default_smp_affinity; do test -e $f && { echo >>$f; } 2>/dev/null && echo "writes $f"; done
echo "oom $(cat /proc/self/oom_score_adj)"
echo "cwd $(pwd)"
env | sed -n 's/^\(SHLVL\|PWD\|_\)=.*//; t; s/^/env /p' | sort
for f in /proc/self/fd/*; do n=${f##*/}; test $n -le 2 && echo "stream $n"; done
echo "session $(cat /proc/self/timerslack_ns 2>/dev/null) $(cat /proc/self/coredump_filter)"
echo "processes $(ls -d /proc/[0-9]* | wc -l | sed 's/[0-9]*/some/')"
"#;

/// What only a step of ours has (`+`) or only runc's container (`-`), by how the line begins, and why.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "+ mount /sys/fs/cgroup",
        "runc was not asked for one here; BuildKit asks, and it is read-only in both",
    ),
    (
        "+ mount /etc/",
        "the network files, which BuildKit's worker binds too",
    ),
    (
        "+ mount / ",
        "the root is nodev: a step has CAP_MKNOD and no device cgroup",
    ),
    ("- mount / ", "the same"),
    (
        "+ mount /dev",
        "each device is a mount of its own, and so are the places above; nothing else there opens",
    ),
    ("- mount /dev", "runc makes nodes, which the device cgroup opens"),
    (
        "+ mount /proc",
        "masks are mounts of a null device and one empty directory; options differ",
    ),
    ("- mount /proc", "the same"),
    ("+ mount /sys", "masks"),
    ("- mount /sys", "masks"),
    (
        "- limit core file size",
        "dumps would be in the layer, with the secrets of the step",
    ),
    ("+ limit core file size", "the same"),
    ("- dev /dev/console", "only with a terminal"),
    ("- dev /dev/core", "a link to what is masked"),
    ("+ dev /dev/core", "the same"),
    ("+ dev /dev/ptmx", "the same file in both"),
];

/// The same for steps in a user namespace.
const IN_A_NAMESPACE: &[(&str, &str)] = &[
    ("+ ns user of its own", "what the rung is"),
    ("- ns user of the machine", "the same"),
];

/// The same where that has one id.
const WITH_ONE_ID: &[(&str, &str)] = &[
    (
        "+ limit file locks",
        "which user a process is said to be is kept in this limit, which the kernel does not use",
    ),
    ("- limit file locks", "the same"),
    (
        "+ status Groups",
        "/proc tells the truth; getgroups(2) answers as on the other rungs",
    ),
    ("- status Groups", "the same"),
];

fn spec(rootfs: &Path) -> Value {
    let mount = |dest: &str, kind: &str, options: &[&str]| json!({"destination": dest, "type": kind, "source": kind, "options": options});
    let namespaces = ["pid", "mount", "ipc", "uts", "network", "cgroup"].map(|kind| json!({"type": kind}));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0, "additionalGids": [0, 10]},
            "args": ["/bin/sh", "-c", LOOK],
            "cwd": "/",
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
            "noNewPrivileges": false,
        },
        "root": {"path": rootfs},
        "hostname": "buildkitsandbox",
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "namespaces": namespaces,
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "seccomp": profile(),
        },
    })
}

/// The facts, without the numbers of namespaces: those are only told from this process's own.
fn facts(text: &str) -> BTreeSet<String> {
    let known = [
        "status ",
        "ns ",
        "mount ",
        "limit ",
        "dev ",
        "reads ",
        "writes ",
        "oom ",
        "processes ",
        "cwd ",
        "env ",
        "stream ",
        "session ",
    ];
    let lines = text
        .lines()
        .filter(|line| known.iter().any(|kind| line.starts_with(kind)));
    lines
        .map(|line| match line.strip_prefix("ns ") {
            Some(link) => {
                let kind = link.split(':').next().unwrap_or_default();
                let own = std::fs::read_link(format!("/proc/self/ns/{kind}"));
                let shared = own.is_ok_and(|own| own.to_string_lossy() == link);
                format!(
                    "ns {kind} {}",
                    if shared { "of the machine" } else { "of its own" }
                )
            }
            None => line.to_owned(),
        })
        .collect()
}

#[test]
fn privileged_a_step_is_what_runc_makes_of_the_default_spec_but_for_what_is_listed() {
    if !is_root("runc") {
        return;
    }
    let Some(runc) = machine::program("runc") else {
        return machine::skip("runc is not here");
    };
    let fixture = Fixture::new("FROM busybox\n");
    let rootfs = fixture.home.work().join("rootfs");
    fixture
        .build()
        .arg(format!("--output=type=local,dest={}", rootfs.display()))
        .ok();
    for dir in ["proc", "sys", "dev"] {
        std::fs::create_dir_all(rootfs.join(dir)).unwrap();
    }
    let bundle = fixture.home.work().join("bundle");
    std::fs::create_dir_all(&bundle).unwrap();
    std::fs::write(bundle.join("config.json"), spec(&rootfs).to_string()).unwrap();
    let ran = Command::new(runc)
        .arg("--root")
        .arg(fixture.home.work().join("runc"))
        .args(["run", "--bundle"])
        .arg(&bundle)
        .arg(format!("rbuild-beside-{}", std::process::id()))
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let theirs = facts(&String::from_utf8_lossy(&ran.stdout));

    let dockerfile = format!("FROM busybox\nRUN --network=none <<'END' sh >/look\n{LOOK}END\n");
    for rung in Rung::with_mounts() {
        let files = Site::on(rung, &dockerfile).fixture;
        let seen = files.home.work().join("seen");
        files
            .build()
            .args(rung.argument())
            .arg(format!("--output=type=local,dest={}", seen.display()))
            .ok();
        let ours = facts(&std::fs::read_to_string(seen.join("look")).expect("what was seen"));
        assert_same(rung, &ours, &theirs);
    }
}

#[track_caller]
fn assert_same(rung: Rung, ours: &BTreeSet<String>, theirs: &BTreeSet<String>) {
    assert!(ours.len() > 40 && theirs.len() > 40, "{ours:#?} {theirs:#?}");
    let differences = ours
        .difference(theirs)
        .map(|line| format!("+ {line}"))
        .chain(theirs.difference(ours).map(|line| format!("- {line}")));
    let more = match rung {
        Rung::Root => &[][..],
        Rung::OneId => &[IN_A_NAMESPACE, WITH_ONE_ID].concat(),
        _ => IN_A_NAMESPACE,
    };
    let listed = |line: &String| {
        let mut all = DIFFERENCES.iter().chain(more);
        all.any(|(begins, _)| line.starts_with(begins))
    };
    let unlisted: Vec<String> = differences.filter(|line| !listed(line)).collect();
    assert!(unlisted.is_empty(), "{rung:?}: {unlisted:#?}");
    for same in [
        "status CapEff 00000000a80425fb",
        "status CapBnd 00000000a80425fb",
        "status NoNewPrivs 0",
        "status Seccomp 2",
    ] {
        assert!(
            ours.contains(same) && theirs.contains(same),
            "{rung:?}: {same}: {ours:#?}"
        );
    }
}
