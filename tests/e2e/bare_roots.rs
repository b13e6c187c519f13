//! Roots that lack a part of what a machine has, as somebody makes them by hand: without `/dev`, `/proc` or `/sys`, or with a `/tmp` that
//! is only read; entered by `chroot`, where the kernel makes no namespaces, and by `pivot_root`. Each ends in a build, or in one
//! sentence that says the least change.

use std::fs;
use std::process::{Command, Output};

use rbuild_testkit::command::TestHome;
use rbuild_testkit::image::{Files, entries};
use rbuild_testkit::machine;

use crate::e2e::fixture::{RBUILD, is_root};

/// Makes the root `$DIR/root` without `$WITHOUT`, and builds in it.
const SCRIPT: &str = r#"
cd "$DIR"
for part in usr lib lib64 bin etc dev proc sys tmp root store layout context; do mkdir -p "root/$part"; done
for part in usr lib lib64; do [ ! -d "/$part" ] || mount --rbind "/$part" "root/$part"; done
for part in dev proc sys; do [ $part = "$WITHOUT" ] || mount --rbind /$part root/$part; done
[ "$WITHOUT" != tmp ] || mount -t tmpfs -o ro none root/tmp
mount --bind "$LAYOUT" root/layout
: > root/rbuild
mount --bind "$RBUILD" root/rbuild
printf 'FROM busybox\nRUN echo built > /said\nCOPY Dockerfile /copied\n' > root/context/Dockerfile
set -- env -i PATH=/usr/bin HOME=/root /rbuild $RUNG --root /store build --progress=plain \
    --build-context "busybox=oci-layout:///layout:busybox" -o type=tar,dest=/store/out.tar /context
if [ "$BY" = chroot ]; then exec chroot root "$@"; fi
mount --rbind root root
cd root
mkdir old
pivot_root . old
umount -l /old || true
exec "$@"
"#;

/// What a build in such a root says, and what it made.
fn build(without: &str, by: &str, rung: Option<&str>) -> Option<(Output, Option<Files>)> {
    if !is_root("making a root") || machine::program("pivot_root").is_none() {
        return None;
    }
    let home = TestHome::new();
    let dir = home.work();
    let ran = Command::new("unshare")
        .args(["--mount", "sh", "-ec", SCRIPT])
        .env("DIR", &dir)
        .env("LAYOUT", rbuild_testkit::base::layout().unwrap())
        .env("RBUILD", RBUILD)
        .env("WITHOUT", without)
        .env("BY", by)
        .env(
            "RUNG",
            rung.map(|rung| format!("--rung={rung}")).unwrap_or_default(),
        )
        .output()
        .unwrap();
    let files = fs::read(dir.join("root/store/out.tar")).ok().map(|tar| {
        let mut files = Files::default();
        files.apply(entries(&tar).unwrap()).unwrap();
        files
    });
    Some((ran, files))
}

#[test]
fn privileged_a_root_without_devices_without_sys_or_with_a_tmp_that_is_only_read_builds() {
    for without in ["dev", "sys", "tmp"] {
        for (by, rung) in [("chroot", "chroot"), ("pivot_root", "root")] {
            let Some((ran, files)) = build(without, by, Some(rung)) else {
                return;
            };
            let told = String::from_utf8_lossy(&ran.stderr);
            assert!(ran.status.success(), "without {without} by {by}: {told}");
            assert!(told.contains(&format!("({rung})")), "{told}");
            let files = files.unwrap();
            assert_eq!(files.text("said"), Some("built\n"), "without {without} by {by}");
        }
    }
}

#[test]
fn privileged_a_root_without_proc_is_told_what_to_mount() {
    for (by, rung) in [("chroot", None), ("chroot", Some("chroot")), ("pivot_root", None)] {
        let Some((ran, files)) = build("proc", by, rung) else {
            return;
        };
        let told = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success() && files.is_none(), "{told}");
        assert_eq!(told.matches("mount -t proc proc /proc").count(), 1, "{told}");
        assert!(!told.contains("would work"), "{told}");
    }
}
