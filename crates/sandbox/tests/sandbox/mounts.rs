//! What is mounted where, through which links, and what is left in the layer.

use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;

use rbuild_sandbox::{MountKind, MountPlan, OverlayPlan, Source};
use rbuild_sys::overlay::Form;

use crate::fixture::{Fixture, finish, host_network, run, sandbox};

pub(crate) fn file(dest: &str, content: &str) -> MountPlan {
    let kind = MountKind::File {
        content: content.into(),
        uid: 0,
        gid: 0,
        mode: 0o400,
    };
    MountPlan {
        dest: dest.into(),
        kind,
    }
}

fn bind(dest: &str, source: PathBuf, readonly: bool) -> MountPlan {
    let kind = MountKind::Bind {
        source: Source::Path(source),
        selector: PathBuf::new(),
        readonly,
    };
    MountPlan {
        dest: dest.into(),
        kind,
    }
}

const fn tmpfs_kind() -> MountKind {
    MountKind::Tmpfs {
        size_bytes: None,
        mode: None,
    }
}

fn tmpfs(dest: &str) -> MountPlan {
    MountPlan {
        dest: dest.into(),
        kind: tmpfs_kind(),
    }
}

#[test]
fn privileged_the_usual_file_systems_are_there_and_not_in_the_layer() {
    let Some(fixture) = Fixture::new() else { return };
    let before = std::fs::metadata(fixture.path("lower/etc")).unwrap();
    let mut plan = fixture.plan(
        "cat /etc/resolv.conf /etc/hosts; hostname; ls /dev; stat -c '%t:%T %a' /dev/null /dev/tty; \
         stat -f -c %T /proc /sys /dev /dev/shm; df -k /dev/shm | tail -n 1 | { read a b c; echo $b; }; echo x > /file",
    );
    plan.resolv_conf = Some(b"nameserver 9.9.9.9\n".to_vec());
    plan.hosts = Some(b"1.2.3.4 five\n".to_vec());
    plan.hostname = "a-host".to_owned();
    plan.shm_size_bytes = Some(1 << 20);
    let seen = run(&plan).ok();
    let expected = "nameserver 9.9.9.9\n1.2.3.4 five\na-host\ncore\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\n\
        stderr\nstdin\nstdout\ntty\nurandom\nzero\n1:3 666\n5:0 666\nproc\nsysfs\ntmpfs\ntmpfs\n1024\n";
    assert_eq!(seen, expected);
    assert_eq!(
        fixture.layer(),
        [PathBuf::from("etc"), "file".into()],
        "no stubs; etc was copied up"
    );
    let after = std::fs::metadata(fixture.path("upper/etc")).unwrap();
    assert_eq!(
        (after.mtime(), after.mtime_nsec()),
        (before.mtime(), before.mtime_nsec())
    );
    assert_eq!(std::fs::read_dir(fixture.path("upper/etc")).unwrap().count(), 0);
}

#[test]
fn privileged_resolv_conf_and_hosts_are_read_only() {
    let Some(fixture) = Fixture::new() else { return };
    let mut plan =
        fixture.plan("echo x > /etc/resolv.conf; echo x >> /etc/hosts; rm -f /etc/hosts; cat /etc/hosts");
    plan.resolv_conf = Some(b"r\n".to_vec());
    plan.hosts = Some(b"h\n".to_vec());
    assert_eq!(run(&plan).ok(), "h\n");
}

#[test]
fn privileged_mounts_of_every_kind_nested_and_cleaned_up() {
    let Some(fixture) = Fixture::new() else { return };
    std::fs::create_dir_all(fixture.path("src/sub")).unwrap();
    std::fs::write(fixture.path("src/sub/f"), "from-src").unwrap();
    let mut plan = fixture.plan(
        "cat /b/f /s/secret; stat -c '%a %u:%g' /s/secret; (echo w > /b/new) 2>/dev/null || echo ro; \
         echo w > /rw/new; echo t > /t/x && cat /t/x /t/deep/file; stat -c %a /t; (echo > /s/secret) 2>/dev/null || echo ro",
    );
    plan.mounts = vec![
        file("/t/deep/file", "deep\n"),
        MountPlan {
            dest: "/t".into(),
            kind: MountKind::Tmpfs {
                size_bytes: Some(1 << 20),
                mode: Some(0o750),
            },
        },
        MountPlan {
            dest: "/b".into(),
            kind: MountKind::Bind {
                source: Source::Path(fixture.path("src")),
                selector: "sub".into(),
                readonly: true,
            },
        },
        bind("/rw", fixture.path("src"), false),
        MountPlan {
            dest: "/s/secret".into(),
            kind: MountKind::File {
                content: b"s3\n".to_vec(),
                uid: 5,
                gid: 6,
                mode: 0o440,
            },
        },
    ];
    assert_eq!(run(&plan).ok(), "from-srcs3\n440 5:6\nro\nt\ndeep\n750\nro\n");
    assert_eq!(
        std::fs::read_to_string(fixture.path("src/new")).unwrap(),
        "w\n",
        "a writable bind is written through"
    );
    assert!(!fixture.path("src/sub/new").exists());
    assert!(fixture.layer().is_empty(), "{:?}", fixture.layer());
}

#[test]
fn privileged_sources_by_descriptor_and_by_overlay_with_selectors() {
    let Some(fixture) = Fixture::new() else { return };
    for name in ["one/d", "two/d"] {
        std::fs::create_dir_all(fixture.path(name)).unwrap();
        std::fs::write(fixture.path(name).join("f"), name).unwrap();
        std::fs::write(fixture.path(name).join(name.replace('/', "-")), "").unwrap();
    }
    symlink("/d", fixture.path("one/link")).unwrap();
    let overlay = OverlayPlan {
        form: Form::Trusted,
        lowers: vec![fixture.path("one"), fixture.path("two")],
        upper: None,
        work: None,
        volatile: false,
    };
    let mount = |dest: &str, source: Source, selector: &str| MountPlan {
        dest: dest.into(),
        kind: MountKind::Bind {
            source,
            selector: selector.into(),
            readonly: true,
        },
    };
    let detached = overlay_spec(&overlay).mount().unwrap();
    let plain = std::fs::File::open(fixture.path("two")).unwrap();
    let mut plan = fixture.plan("ls /o; cat /o/f; echo; ls /fd; cat /p; echo; ls /whole");
    plan.mounts = vec![
        mount("/o", Source::Overlay(overlay.clone()), "link"),
        mount("/fd", Source::Fd(0), "d"),
        mount("/p", Source::Fd(1), "d/f"),
        mount("/whole", Source::Overlay(overlay), ""),
    ];
    let running = sandbox()
        .spawn(&plan, &[detached.as_fd(), plain.as_fd()])
        .unwrap();
    let seen = finish(&running).ok();
    assert_eq!(seen, "f\none-d\ntwo-d\none/d\nf\none-d\ntwo-d\ntwo/d\nd\nlink\n");
}

fn overlay_spec(plan: &OverlayPlan) -> rbuild_sys::overlay::OverlaySpec {
    rbuild_sys::overlay::OverlaySpec {
        form: plan.form,
        lowers: plan.lowers.clone(),
        upper_work: None,
        volatile: false,
    }
}

#[test]
fn privileged_row16_selectors_end_inside_their_source() {
    let Some(fixture) = Fixture::new() else { return };
    std::fs::create_dir_all(fixture.path("stage/inside")).unwrap();
    std::fs::write(fixture.path("stage/mark"), "stage-root").unwrap();
    symlink("/", fixture.path("stage/dir")).unwrap();
    let climbing = format!("../../../../../../../..{}", fixture.path("canary").display());
    symlink(climbing, fixture.path("stage/rel")).unwrap();
    symlink("/proc/self/root", fixture.path("stage/of-proc")).unwrap();
    symlink(fixture.path("canary"), fixture.path("stage/abs")).unwrap();
    let with = |selector: &str| {
        let mut plan =
            fixture.plan("ls -a /m; cat /m/mark 2>/dev/null; cat /m/secret 2>/dev/null; touch /m/pwn");
        plan.mounts = vec![MountPlan {
            dest: "/m".into(),
            kind: MountKind::Bind {
                source: Source::Path(fixture.path("stage")),
                selector: selector.into(),
                readonly: true,
            },
        }];
        run(&plan)
    };
    for whole in ["dir", "../..", "dir/dir/.."] {
        assert!(
            with(whole).stdout.contains("stage-root"),
            "{whole}: the source's own root"
        );
    }
    for gone in ["rel", "abs", "of-proc"] {
        assert!(with(gone).error().contains("No such file"), "{gone}");
    }
    fixture.check_canary();
}

#[test]
fn privileged_row19_targets_through_links_stay_inside() {
    let Some(fixture) = Fixture::new() else { return };
    let canary = fixture.path("canary");
    symlink(&canary, fixture.path("lower/m")).unwrap();
    let climbing = format!("../../../../../../../../..{}", canary.display());
    symlink(climbing, fixture.path("lower/m2")).unwrap();
    symlink("/proc/self/fd", fixture.path("lower/m3")).unwrap();
    std::fs::create_dir(fixture.path("cache")).unwrap();
    symlink(&canary, fixture.path("cache/d")).unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let kinds = || {
        [
            bind("", fixture.path("lower/etc"), false).kind,
            bind("", fixture.path("lower/etc/passwd"), true).kind,
            tmpfs_kind(),
            file("", "x").kind,
        ]
    };
    for dest in ["/m/x", "/m2/x", "/m/../m2/y/z"] {
        for kind in kinds() {
            let mut plan = fixture.plan(&format!("test -e {}", dest.replace("/m/..", "")));
            plan.mounts = vec![MountPlan {
                dest: dest.into(),
                kind,
            }];
            run(&plan).ok();
            fixture.check_canary();
        }
    }
    for kind in kinds() {
        let mut plan = fixture.plan("true");
        plan.mounts = vec![MountPlan {
            dest: "/m3/5".into(),
            kind,
        }];
        run(&plan).error();
    }
    // A link inside a mounted cache on the way to a second mount, and its legal twin.
    std::fs::create_dir(fixture.path("cache/real")).unwrap();
    let mut plan = fixture.plan("test -d /c/real/x && echo inside");
    plan.mounts = vec![bind("/c", fixture.path("cache"), false), tmpfs("/c/real/x")];
    assert_eq!(run(&plan).ok(), "inside\n");
    plan.mounts[1].dest = "/c/d/x".into();
    assert!(run(&plan).error().contains("leads out of it"));
    fixture.check_canary();
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
    // The image's own directory was copied up for the stub in it, and holds nothing.
    assert!(
        fixture
            .layer()
            .iter()
            .all(|path| path.as_os_str() == "tmp" || path.as_os_str() == "proc"),
        "{:?}",
        fixture.layer()
    );
}

#[test]
fn privileged_row20_an_image_cannot_lead_the_set_up_outside() {
    let Some(fixture) = Fixture::new() else { return };
    let canary = fixture.path("canary");
    let outside = canary.to_str().unwrap();
    let climbing = format!("../../../../../../../..{outside}");
    // Each is followed inside the root and made there for as long as the step runs; inside /proc nothing is made.
    let cases: &[(&str, &str, Option<&str>)] = &[
        ("dev", outside, None),
        ("dev", &climbing, None),
        ("etc/resolv.conf", &format!("{outside}/r"), None),
        (
            "etc/hosts",
            "/proc/1/environ",
            Some("mount on \"/etc/hosts\": nothing is mounted inside /proc and /sys"),
        ),
        ("etc/hosts", "../../../x", None),
        ("run", outside, None),
    ];
    for (name, target, refused) in cases {
        let link = fixture.path("lower").join(name);
        let stood = link.is_dir();
        if stood {
            std::fs::remove_dir(&link).unwrap();
        }
        symlink(target, &link).unwrap();
        let mut plan = fixture.plan("stat -c %t:%T /dev/null; echo > /dev/null");
        plan.resolv_conf = Some(b"r\n".to_vec());
        plan.hosts = Some(b"h\n".to_vec());
        match refused {
            None => assert_eq!(run(&plan).ok(), "1:3\n", "{name} -> {target}"),
            Some(told) => {
                let error = run(&plan).error();
                assert!(error.contains(told), "{name} -> {target}: {error}");
            }
        }
        fixture.check_canary();
        assert_eq!(std::fs::read_link(&link).unwrap().to_str(), Some(*target));
        assert!(
            !fixture.layer().contains(&name.into()),
            "the image's link is not in the layer: {name}"
        );
        std::fs::remove_file(&link).unwrap();
        if stood {
            std::fs::create_dir(&link).unwrap();
        }
    }
}

#[test]
fn privileged_row20_device_files_of_the_image_are_not_used() {
    let Some(fixture) = Fixture::new() else { return };
    let dev = fixture.path("lower/dev");
    symlink("/etc/shadow", dev.join("null")).unwrap();
    symlink("/proc/sysrq-trigger", dev.join("console")).unwrap();
    std::fs::write(dev.join("ptmx"), "file").unwrap();
    symlink(fixture.path("canary"), dev.join("pts")).unwrap();
    symlink(fixture.path("canary"), dev.join("shm")).unwrap();
    let seen = fixture
        .run("stat -c %t:%T /dev/null; readlink /dev/ptmx; test ! -e /dev/console && stat -f -c %T /dev/shm");
    assert_eq!(seen.ok(), "1:3\npts/ptmx\ntmpfs\n");
    std::fs::remove_dir_all(&dev).unwrap();
    std::fs::write(&dev, "a file").unwrap();
    assert!(fixture.run("true").error().contains("/dev"));
    std::fs::remove_file(&dev).unwrap();
    std::fs::create_dir(fixture.path("lower/fake")).unwrap();
    std::fs::create_dir(&dev).unwrap();
    for name in ["proc", "sys"] {
        let place = fixture.path("lower").join(name);
        std::fs::remove_dir(&place).unwrap();
        symlink("./fake", &place).unwrap();
        assert!(
            fixture.run("true").error().contains(name),
            "{name} must be a real directory"
        );
        std::fs::remove_file(&place).unwrap();
        std::fs::create_dir(&place).unwrap();
    }
    assert_eq!(fixture.run("echo well").ok(), "well\n");
    fixture.check_canary();
}

#[test]
fn privileged_row21_stubs_are_removed_only_as_they_were_made() {
    let Some(fixture) = Fixture::new() else { return };
    let canary = fixture.path("canary");
    let outside = canary.to_str().unwrap();
    let script = format!("mv /w /w2 && ln -s {outside} /w; mkdir -p /n1/n2; echo data > /n1/n2/own");
    let mut plan = fixture.plan(&script);
    plan.mounts = vec![
        file("/w/empty", "f"),
        bind("/w/emptyd", fixture.path("lower/etc"), true),
        tmpfs("/n1/n2/n3"),
        file("/run/secrets/empty", "s"),
    ];
    run(&plan).ok();
    fixture.check_canary();
    let layer = fixture.layer();
    for gone in ["w2/empty", "w2/emptyd", "n1/n2/n3", "run", "proc", "dev", "sys"] {
        assert!(!layer.contains(&gone.into()), "{gone} is in the layer: {layer:?}");
    }
    for kept in ["w", "w2", "n1/n2/own"] {
        assert!(
            layer.contains(&kept.into()),
            "{kept} is not in the layer: {layer:?}"
        );
    }
    assert!(fixture.path("upper/w").is_symlink());
}

#[test]
fn privileged_row22_read_only_stays_read_only() {
    let Some(fixture) = Fixture::new() else { return };
    std::fs::create_dir(fixture.path("ctx")).unwrap();
    std::fs::write(fixture.path("ctx/f"), "context").unwrap();
    let mut plan = fixture.plan(
        "mount -o remount,rw,bind /ctx && echo 1; mount -o remount,rw /ctx && echo 2; umount -l /ctx && echo 3; \
         (echo x > /ctx/f) && echo 4; unshare -Urm sh -c 'mount -o remount,rw,bind /ctx; echo x > /ctx/f' && echo 5; \
         mount --make-rshared / && echo 6; cat /ctx/f",
    );
    plan.mounts = vec![bind("/ctx", fixture.path("ctx"), true)];
    assert_eq!(run(&plan).ok(), "context", "each of them fails");
    assert_eq!(std::fs::read_to_string(fixture.path("ctx/f")).unwrap(), "context");
}

#[test]
fn privileged_row27_proc_and_sys_take_no_mounts() {
    let Some(fixture) = Fixture::new() else { return };
    symlink("/proc/sys", fixture.path("lower/ps")).unwrap();
    for dest in [
        "/proc",
        "/proc/sys",
        "/sys",
        "/sys/fs/cgroup",
        "/proc/self/attr",
        "/ps",
        "/ps/kernel",
        "/",
        "/etc/..",
    ] {
        let mut plan = fixture.plan("true");
        plan.mounts = vec![tmpfs(dest)];
        let text = run(&plan).error();
        assert!(
            text.contains("/proc and /sys") || text.contains("root directory"),
            "{dest}: {text}"
        );
    }
    let mut plan = host_network(fixture.plan("stat -f -c %T /dev/shm; cat /dev/pipes/EOF"));
    plan.mounts = vec![tmpfs("/dev/shm"), file("/dev/pipes/EOF", "heredoc\n")];
    assert_eq!(
        run(&plan).ok(),
        "tmpfs\nheredoc\n",
        "below /dev is the legal twin"
    );
}

#[test]
fn privileged_a_read_only_root() {
    let Some(fixture) = Fixture::new() else { return };
    let mut plan = fixture.plan("(echo x > /f) 2>/dev/null || echo ro; echo y > /t/f && cat /t/f");
    plan.root.readonly = true;
    plan.mounts = vec![tmpfs("/t")];
    assert_eq!(run(&plan).ok(), "ro\ny\n");
    assert!(fixture.layer().is_empty(), "{:?}", fixture.layer());
}
