//! The one list of Debian packages that tests and measurements need, and their installation.

use std::process::Command;

use anyhow::{Result, ensure};
use rbuild_testkit::machine;

use crate::shell;

/// Package, and a program or file whose presence shows that it is installed.
const TEST_PACKAGES: [(&str, &str); 23] = [
    ("busybox-static", "busybox"),
    ("uidmap", "newuidmap"),
    ("skopeo", "skopeo"),
    ("umoci", "umoci"),
    ("runc", "runc"),
    ("docker-registry", "docker-registry"),
    ("docker.io", "dockerd"),
    ("podman", "podman"),
    ("fuse-overlayfs", "fuse-overlayfs"),
    ("mmdebstrap", "mmdebstrap"),
    ("xz-utils", "xz"),
    ("util-linux", "unshare"),
    ("gcc", "gcc"),
    ("ca-certificates", "update-ca-certificates"),
    ("jq", "jq"),
    ("git", "git"),
    ("openssh-client", "ssh-agent"),
    ("qemu-user-static", "qemu-aarch64-static"),
    ("valgrind", "valgrind"),
    ("zsh", "zsh"),
    ("fish", "fish"),
    ("mandoc", "mandoc"),
    ("python3-yaml", "/usr/lib/python3/dist-packages/yaml/__init__.py"),
];
/// What `cargo xtask demo` needs: a linker, a base image, and programs that share no code with rbuild to run the result.
const DEMO_PACKAGES: [(&str, &str); 6] = [
    ("gcc", "gcc"),
    ("libc6-dev", "/usr/include/stdlib.h"),
    ("mmdebstrap", "mmdebstrap"),
    ("util-linux", "unshare"),
    ("umoci", "umoci"),
    ("runc", "runc"),
];
/// Peers and tools of the measurements.
const BENCH_PACKAGES: [(&str, &str); 2] = [("buildah", "buildah"), ("time", "time")];

/// What some tests need that not every release of Debian has: they say so where it is missing.
const OPTIONAL_PACKAGES: [(&str, &str); 1] =
    [("docker-buildx", "/usr/libexec/docker/cli-plugins/docker-buildx")];

/// Installs what the tests need.
pub(crate) fn for_tests() -> Result<()> {
    install(&TEST_PACKAGES)?;
    let known = |package: &str| {
        let shown = Command::new("apt-cache").args(["show", package]).output();
        shown.is_ok_and(|output| output.status.success() && !output.stdout.is_empty())
    };
    let had: Vec<_> = OPTIONAL_PACKAGES
        .into_iter()
        .filter(|(package, _)| machine::is_root() && known(package))
        .collect();
    install(&had)
}

/// Installs what the demonstration needs.
pub(crate) fn for_demo() -> Result<()> {
    install(&DEMO_PACKAGES)
}

/// Installs what the measurements need on top.
pub(crate) fn for_bench() -> Result<()> {
    install(&TEST_PACKAGES)?;
    install(&BENCH_PACKAGES)
}

fn install(packages: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|(_, program)| machine::program(program).is_none())
        .map(|(package, _)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(
        machine::is_root(),
        "not root, and these Debian packages are missing: {}",
        missing.join(" ")
    );
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    shell::step("apt-get update", &mut apt(&["update", "-qq"]))?;
    let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
    args.extend(&missing);
    shell::step(&format!("apt-get install {}", missing.join(" ")), &mut apt(&args))
}

/// Makes the ordinary user that the rootless tests become, with 65,536 subordinate ids of its own.
pub(crate) fn make_ordinary_user() -> Result<()> {
    if machine::ordinary_user().is_some() || !machine::is_root() {
        return Ok(());
    }
    let name = machine::TEST_USER;
    let known = std::fs::read_to_string("/etc/passwd")?
        .lines()
        .any(|line| line.starts_with(&format!("{name}:")));
    if !known {
        let mut useradd = Command::new("useradd");
        useradd.args(["--create-home", "--shell", "/bin/sh", name]);
        shell::step(
            &format!("make the user {name} for the rootless tests"),
            &mut useradd,
        )?;
    }
    if machine::ordinary_user().is_none() {
        // useradd gives ranges only where login.defs says so; these lie above what it hands out.
        let mut usermod = Command::new("usermod");
        usermod.args([
            "--add-subuids",
            "2000000000-2000065535",
            "--add-subgids",
            "2000000000-2000065535",
            name,
        ]);
        shell::step(&format!("subordinate ids for {name}"), &mut usermod)?;
    }
    ensure!(
        machine::ordinary_user().is_some(),
        "{name} has no subordinate ids after all, or newuidmap is missing"
    );
    Ok(())
}
