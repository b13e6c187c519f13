//! The one list of Debian packages that tests and measurements need, and their installation.

use std::process::Command;

use anyhow::{Result, ensure};
use rbuild_testkit::machine;

use crate::shell;

/// Package, and a program or file whose presence shows that it is installed.
const TEST_PACKAGES: [(&str, &str); 12] = [
    ("busybox-static", "busybox"),
    ("uidmap", "newuidmap"),
    ("skopeo", "skopeo"),
    ("umoci", "umoci"),
    ("runc", "runc"),
    ("docker-registry", "docker-registry"),
    ("mmdebstrap", "mmdebstrap"),
    ("xz-utils", "xz"),
    ("util-linux", "unshare"),
    ("gcc", "gcc"),
    ("ca-certificates", "update-ca-certificates"),
    ("jq", "jq"),
];
/// Peers and tools of the measurements.
const BENCH_PACKAGES: [(&str, &str); 3] = [("buildah", "buildah"), ("hyperfine", "hyperfine"), ("crun", "crun")];

/// Installs what the tests need.
pub(crate) fn for_tests() -> Result<()> {
    install(&TEST_PACKAGES)
}

/// Installs what the measurements need on top.
pub(crate) fn for_bench() -> Result<()> {
    install(&TEST_PACKAGES)?;
    install(&BENCH_PACKAGES)
}

fn install(packages: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        packages.iter().filter(|(_, program)| machine::program(program).is_none()).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(machine::is_root(), "not root, and these Debian packages are missing: {}", missing.join(" "));
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
