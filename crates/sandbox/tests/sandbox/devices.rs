//! Devices of the host: nodes that can be opened, trees that come with them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use rbuild_sandbox::{DeviceKind, DeviceNode, HostTree, MountKind, MountPlan};

use crate::fixture::{Fixture, run};

fn node(host: &str, major: u32, minor: u32) -> DeviceNode {
    DeviceNode {
        host: host.into(),
        kind: DeviceKind::Character,
        major,
        minor,
        mode: 0o640,
        uid: 12,
        gid: 34,
    }
}

fn at(dest: &str, kind: MountKind) -> MountPlan {
    MountPlan {
        dest: dest.into(),
        kind,
    }
}

#[test]
fn privileged_a_device_is_opened_and_only_that_one() {
    let Some(fixture) = Fixture::new() else { return };
    let mut plan = fixture.plan(
        "head -c 4 /dev/given/zero | wc -c; stat -c '%a %u:%g %t:%T' /dev/given/zero; echo x > /devices/null && echo written; \
         mknod /tmp/z c 1 5; head -c 1 /tmp/z 2>&1 | wc -c; ls /dev/given",
    );
    plan.mounts = vec![
        at("/dev/given/zero", MountKind::Device(node("/dev/zero", 1, 5))),
        // The host has no such node.
        at("/devices/null", MountKind::Device(node("/dev/not/here", 1, 3))),
    ];
    let seen = run(&plan).ok();
    // The message that it is not permitted is longer than the byte that was wanted.
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..3], ["4", "640 12:34 1:5", "written"], "{seen}");
    assert!(
        lines[3].parse::<usize>().unwrap() > 1,
        "a node of its own was opened: {seen}"
    );
    assert_eq!(lines[4], "zero");
    assert!(
        !fixture.layer().iter().any(|path| path.starts_with("devices")),
        "{:?}",
        fixture.layer()
    );
}

#[test]
fn privileged_row23_trees_of_the_host_are_restricted() {
    let Some(fixture) = Fixture::new() else { return };
    let host = fixture.path("canary");
    std::fs::copy("/bin/busybox", host.join("busybox")).unwrap();
    std::fs::set_permissions(host.join("busybox"), Permissions::from_mode(0o4755)).unwrap();
    let tree = |readonly, noexec| {
        MountKind::HostTree(HostTree {
            path: host.clone(),
            readonly,
            noexec,
        })
    };
    let script = "cat /h/secret; echo; grep ' /h ' /proc/self/mountinfo | cut -d' ' -f6; (echo x > /h/secret) 2>/dev/null || echo kept";
    let mut plan = fixture.plan(script);
    plan.mounts = vec![at("/h", tree(true, true))];
    let seen = run(&plan).ok();
    let flags = seen.lines().nth(1).unwrap();
    for flag in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(
            flags.split(',').any(|found| found == flag),
            "{flag} is not in {flags}"
        );
    }
    assert!(
        seen.starts_with("host-secret\n") && seen.ends_with("kept\n"),
        "{seen}"
    );
    let mut plan = fixture.plan("/h/busybox true && echo runs; echo y > /h/written");
    plan.mounts = vec![at("/h", tree(false, false))];
    assert_eq!(run(&plan).ok(), "runs\n");
    assert_eq!(std::fs::read(host.join("written")).unwrap(), b"y\n");
}
