//! A step beside what runc makes of containerd's default spec with BuildKit's changes: the same programs look around in both, and
//! whatever is not the same is in the list of [`differences`], with its reason. In user namespaces runc is run by the same user
//! with the same ids; beside the step without namespaces it is root's.

mod differences;
mod mounts;

use std::collections::BTreeSet;
use std::path::Path;

use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::machine;
use serde_json::{Value, json};

use crate::e2e::chroot::{CAPABILITIES, profile};
use crate::e2e::fixture::{Fixture, is_root};
use crate::e2e::hostile::canary::{Rung, Site};
use crate::e2e::rows::program_in_context;

/// Prints facts, one a line, each with the name of its kind.
const LOOK: &str = r#"
sed -n 's/^\(Cap[A-Za-z]*\|NoNewPrivs\|Seccomp\|Uid\|Gid\|Groups\|Umask\):[[:space:]]*/status \1 /p' /proc/self/status
for n in /proc/self/ns/[a-z]*; do echo "ns $(readlink $n)"; done
awk '{print "mount", $5, $6}' /proc/self/mountinfo
sed -n 's/^Max \(.*[a-z]\)  *\([0-9u][^ ]*\)  *\([0-9u][^ ]*\).*/limit \1 \2 \3/p' /proc/self/limits
for d in /dev/*; do echo "dev $d"; done
for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/latency_stats; do test -e $f && echo "reads $f $(head -c1 $f 2>/dev/null | wc -c)"; done
for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/irq/default_smp_affinity; do test -e $f && { echo >>$f; } 2>/dev/null && echo "writes $f"; done
test -d /proc/self && echo "oom $(cat /proc/self/oom_score_adj)"
echo "cwd $(pwd)"
env | sed -n 's/^\(SHLVL\|PWD\|_\)=.*//; t; s/^/env /p' | sort
for n in 0 1 2; do (true <&$n) 2>/dev/null && echo "stream $n"; done
test -d /proc/self && echo "session $(cat /proc/self/timerslack_ns 2>/dev/null) $(cat /proc/self/coredump_filter)"
test -d /proc/self && echo "processes $(ls -d /proc/[0-9]* | wc -l | sed 's/[0-9]*/some/')"
look
"#;

/// Which kinds of facts a step without `/proc` can tell.
const WITHOUT_PROC: [&str; 5] = ["asked ", "dev ", "cwd ", "env ", "stream "];

/// First number and length of the range of subordinate ids that a file gives to the user of the rootless tests.
fn range(file: &str) -> (u64, u64) {
    let text = std::fs::read_to_string(file).unwrap();
    let user = format!("{}:", machine::TEST_USER);
    let line = text.lines().find_map(|line| line.strip_prefix(&user)).unwrap();
    let (first, count) = line.split_once(':').unwrap();
    (first.parse().unwrap(), count.parse().unwrap())
}

/// The ids of a rung's user namespace. None on the others.
fn mappings(rung: Rung) -> Option<[Value; 2]> {
    let own = |id: u32| json!({"containerID": 0, "hostID": id, "size": 1});
    let id = rung.user();
    match rung {
        Rung::Subids => Some(["/etc/subuid", "/etc/subgid"].map(|file| {
            let (first, count) = range(file);
            json!([own(id), {"containerID": 1, "hostID": first, "size": count}])
        })),
        Rung::OneId => Some([json!([own(id)]), json!([own(id)])]),
        Rung::Root | Rung::Chroot | Rung::Files => None,
    }
}

fn spec(rung: Rung, rootfs: &Path) -> Value {
    let mut spec = spec_of_root(rootfs);
    let Some([users, groups]) = mappings(rung) else {
        return spec;
    };
    // What runc refuses to anybody but root: more groups, and a terminal group that is not mapped.
    spec["process"]["user"] = json!({"uid": 0, "gid": 0});
    if rung == Rung::OneId {
        let options = spec["mounts"][2]["options"].as_array_mut().unwrap();
        options.retain(|option| option != "gid=5");
    }
    spec["linux"]["uidMappings"] = users;
    spec["linux"]["gidMappings"] = groups;
    spec["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "user"}));
    spec
}

fn spec_of_root(rootfs: &Path) -> Value {
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
        "asked ",
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

/// What the programs see in runc's container, started by the rung's user.
fn theirs(rung: Rung, fixture: &Fixture) -> BTreeSet<String> {
    let rootfs = fixture.home.work().join("rootfs");
    fixture
        .build()
        .args(rung.argument())
        .arg("--target=seen")
        .arg(format!("--output=type=local,dest={}", rootfs.display()))
        .ok();
    for dir in ["proc", "sys", "dev"] {
        std::fs::create_dir_all(rootfs.join(dir)).unwrap();
    }
    let bundle = fixture.home.work().join("bundle");
    std::fs::create_dir_all(&bundle).unwrap();
    std::fs::write(bundle.join("config.json"), spec(rung, &rootfs).to_string()).unwrap();
    fixture.home.hand_over();
    let runc: RbuildCommand = fixture.home.command(machine::program("runc").expect("runc"));
    let ran = runc
        .arg("--root")
        .arg(fixture.home.work().join("runc"))
        .args(["run", "--bundle"])
        .arg(&bundle)
        .arg(format!("rbuild-beside-{}-{rung:?}", std::process::id()))
        .ok();
    facts(&ran.stdout_text())
}

#[test]
fn privileged_a_step_is_what_runc_makes_of_the_default_spec_but_for_what_is_listed() {
    if !is_root("runc") || machine::program("runc").is_none() {
        return machine::skip("runc is not here, or is not root's");
    }
    let mut found = differences::Found::default();
    let mut mounts = mounts::Compared::default();
    let rungs = Rung::here();
    let all = rungs.len() > 1;
    for rung in rungs {
        let site = Site::on(
            rung,
            &format!(
                "FROM busybox AS seen\nCOPY look /bin/\nFROM seen\nRUN --network=none <<'END' sh >/look\n{LOOK}END\n"
            ),
        );
        if program_in_context(&site.fixture, "look").is_none() {
            return;
        }
        let files = &site.fixture;
        let mut theirs = theirs(rung, files);
        let seen = files.home.work().join("seen");
        files
            .build()
            .args(rung.argument())
            .arg(format!("--output=type=local,dest={}", seen.display()))
            .ok();
        let mut ours = facts(&std::fs::read_to_string(seen.join("look")).expect("what was seen"));
        if rung == Rung::Chroot {
            for facts in [&mut ours, &mut theirs] {
                facts.retain(|fact| WITHOUT_PROC.iter().any(|kind| fact.starts_with(kind)));
            }
        }
        assert!(
            ours.len() > 40 && theirs.len() > 40,
            "{rung:?}: {ours:#?} {theirs:#?}"
        );
        for same in [
            "asked no_new_privs 0",
            "asked seccomp 2",
            "asked effective 00000000a80425fb",
        ] {
            let given_up = rung == Rung::Chroot && same != "asked seccomp 2";
            assert_eq!(ours.contains(same), !given_up, "{rung:?}: {same}: {ours:#?}");
            assert!(theirs.contains(same), "{rung:?}: {same}: {theirs:#?}");
        }
        mounts.compare(rung, &ours, &theirs);
        found.compare(rung, &ours, &theirs);
    }
    mounts.assert_listed(all);
    found.assert_listed(all);
}
