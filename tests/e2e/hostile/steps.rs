//! Rows about what a step can do, in whole builds on each rung: devices, caches, deep trees, privileges, kernel files, processes.
//! Where a rung has no `/proc` to ask, the step tries instead of looking.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use rbuild_testkit::facts::Kind;
use rbuild_testkit::layout::{Attributes, LayerBuilder};
use rbuild_testkit::machine;
use serde_json::json;

use crate::e2e::fixture::RBUILD;
use crate::e2e::hostile::canary::{Rung, Site};

/// What root is left with in a step, as `/proc/self/status` writes it: docker's default set.
const CAPABILITIES: &str = "00000000a80425fb";

#[test]
fn row08_devices_of_an_image_open_nothing_and_stay_devices() {
    for rung in Rung::here() {
        // The zero and random devices, under names that nothing prepares, which would give bytes to anybody.
        let site = Site::on(
            rung,
            "FROM evil\nRUN for d in /zero /random; do head -c 1 $d 2>/dev/null | wc -c; done > /bytes; \
             head -c 1 /dev/zero | wc -c > /twin\n",
        );
        let layer = LayerBuilder::new()
            .char_device("zero", 0o666, (1, 5))
            .char_device("random", 0o666, (1, 9));
        let evil = site.evil(json!({"Env": ["PATH=/bin"]}), vec![layer]);
        let files = site.works(&[evil]);
        assert_eq!(
            files.text("bytes"),
            Some("0\n0\n"),
            "{rung:?}: a device of the image opens"
        );
        assert_eq!(files.text("twin"), Some("1\n"), "{rung:?}: the step's own do");
        for (name, number) in [("zero", 5), ("random", 9)] {
            let kind = files.get(name).map(|facts| facts.kind.clone());
            assert_eq!(kind, Some(Kind::Char(1, number)), "{rung:?}: {name} of the image");
        }
    }
}

#[test]
fn row08_devices_that_a_step_makes_open_nothing_wherever_it_can_write() {
    // The zero device. Where nodes cannot be made they are recorded, or refused.
    let made = "for d in /made /tmp/made /dev/made /dev/shm/made /t/made /c/made; do mknod $d c 1 5 && chmod 666 $d; \
                echo $? $(head -c 1 $d 2>/dev/null | wc -c) $d; done > /bytes; rm -f /made /tmp/made";
    for rung in Rung::here() {
        let mounts = "--mount=type=tmpfs,target=/t --mount=type=cache,target=/c";
        let site = Site::on(rung, &format!("FROM busybox\nRUN {mounts} {made}\n"));
        let files = site.works(&[]);
        let bytes = files.text("bytes").unwrap();
        assert_eq!(bytes.lines().count(), 6, "{rung:?}: {bytes}");
        for line in bytes.lines() {
            let (made, read) = line.split_once(' ').unwrap();
            assert!(read.starts_with("0 /"), "{rung:?}: it opens: {line}");
            if rung == Rung::Root && machine::is_root() {
                assert_eq!(made, "0", "root makes nodes: {line}");
            }
        }
    }
}

#[test]
fn row12_a_limit_of_archives_ends_a_build_and_a_flag_raises_it() {
    for rung in Rung::here() {
        let site = Site::on(rung, "FROM evil\n");
        let layer = (0..9).fold(LayerBuilder::new(), |layer, number| {
            layer.file(&format!("f{number}"), Attributes::mode(0o644), b"x")
        });
        let evil = site.evil(json!({}), vec![layer]);
        let few = "--archive-limits=entries=8".to_owned();
        site.refused(&[evil.clone(), few], "the limit of 8 entries");
        let small = "--archive-limits=bytes=4k".to_owned();
        site.refused(
            &[evil.clone(), small],
            "--archive-limits=bytes=NUMBER allows more",
        );
        let files = site.works(&[evil, "--archive-limits=entries=100000,bytes=1g".to_owned()]);
        assert!(files.get("f8").is_some(), "{rung:?}");
    }
}

#[test]
fn row13_a_tree_that_a_step_made_too_deep_is_copied_and_pruned() {
    // Names of a hundred bytes, of which the kernel takes forty in one path.
    let name = "n".repeat(100);
    for rung in Rung::here() {
        let site = Site::on(
            rung,
            &format!(
                "FROM busybox AS deep\nRUN mkdir /top && cd /top && for i in $(seq 30); do mkdir {name} && cd -P {name}; done && echo end > f\n\
                 FROM scratch\nCOPY --from=deep /top /copied\n"
            ),
        );
        let files = site.works(&[]);
        let end = format!("copied/{}f", format!("{name}/").repeat(30));
        assert_eq!(
            files.text(&end),
            Some("end\n"),
            "{rung:?}: within the limit of paths"
        );
        site.fixture.context.dockerfile(&format!(
            "FROM busybox AS deep\nRUN mkdir /top && echo end > /top/f && for i in $(seq 300); do mkdir /x && mv /top /x/{name} && mv /x /top || exit 1; done\n\
             FROM scratch\nCOPY --from=deep /top /copied\n"
        ));
        // A tar can say it, so that it is written, and can be removed again.
        let end = format!("copied/{}f", format!("{name}/").repeat(300));
        assert_eq!(site.works(&[]).text(&end), Some("end\n"), "{rung:?}: beyond it");
        site.fixture
            .rbuild(["prune", "--all", "--force"])
            .args(rung.argument())
            .ok();
        let forms = fs::read_dir(site.fixture.home.store().join("layers"))
            .into_iter()
            .flatten()
            .flatten();
        let left = forms
            .flat_map(|form| fs::read_dir(form.path()).into_iter().flatten().flatten())
            .count();
        assert_eq!(left, 0, "{rung:?}: layers that cannot be removed");
    }
}

#[test]
fn row15_users_of_an_image_that_are_none_do_not_become_root() {
    for rung in Rung::here() {
        for (user, told) in [
            ("4294967295", "4294967295"),
            ("-1", "-1"),
            ("nobody-here", "nobody-here"),
        ] {
            let site = Site::on(rung, &format!("FROM busybox\nUSER {user}\nRUN id -u > /tmp/id\n"));
            site.refused(&[], told);
        }
        // A list of users that is a link out of the image is the image's own file of that name, which is not there.
        let site = Site::on(rung, "FROM evil\nUSER intruder\nRUN id -u > /tmp/id\n");
        let passwd = site.canary.dir.join("victim");
        let layer = LayerBuilder::new()
            .whiteout("etc/passwd")
            .symlink("etc/passwd", &passwd.display().to_string());
        let evil = site.evil(json!({"Env": ["PATH=/bin"]}), vec![layer]);
        site.refused(&[evil], "intruder");
        // The legal twin: numbers need no list.
        let site = Site::on(
            rung,
            "FROM busybox\nUSER 1234:56\nRUN id -u > /tmp/id && id -g >> /tmp/id\n",
        );
        assert_eq!(site.works(&[]).text("tmp/id"), Some("1234\n56\n"), "{rung:?}");
    }
}

#[test]
fn row18_ids_of_caches_are_no_paths() {
    for rung in Rung::here() {
        let site = Site::on(rung, "");
        let canary = site.canary.absolute();
        for (number, id) in [
            site.canary.climbing(),
            canary,
            "..".to_owned(),
            "/".to_owned(),
            "a/../b".to_owned(),
        ]
        .iter()
        .enumerate()
        {
            site.fixture.context.dockerfile(&format!(
                "FROM busybox\nRUN --mount=type=cache,id={id},target=/c ls -A /c > /was; echo {number} > /c/pwn\n\
                 RUN --mount=type=cache,id={id},target=/c cat /c/pwn > /is\n"
            ));
            let files = site.works(&[]);
            assert_eq!(files.text("was"), Some(""), "{rung:?}: {id:?} is somebody else's");
            assert_eq!(
                files.text("is"),
                Some(format!("{number}\n").as_str()),
                "{rung:?}: {id:?}"
            );
        }
    }
}

#[test]
fn row19_targets_of_mounts_behind_links_are_below_the_root() {
    for rung in Rung::here() {
        let site = Site::on(rung, "");
        site.fixture.context.file("f", "f\n");
        let (absolute, climbing) = (site.canary.absolute(), site.canary.climbing());
        let layer = LayerBuilder::new()
            .symlink("abs", &absolute)
            .symlink("up", &climbing);
        let evil = site.evil(json!({"Env": ["PATH=/bin"]}), vec![layer]);
        for link in ["abs", "up"] {
            for kind in ["tmpfs", "cache"] {
                site.fixture.context.dockerfile(&format!(
                    "FROM evil\nRUN --mount=type={kind},target=/{link}/emptyd echo pwn > /{link}/emptyd/pwn && ls /{link}/emptyd > /seen\n"
                ));
                let files = site.works(std::slice::from_ref(&evil));
                assert_eq!(
                    files.text("seen"),
                    Some("pwn\n"),
                    "{rung:?}: {kind} behind {link}"
                );
            }
            site.fixture.context.dockerfile(&format!(
                "FROM evil\nRUN --mount=type=bind,source=f,target=/{link}/victim cat /{link}/victim > /seen\n"
            ));
            let files = site.works(std::slice::from_ref(&evil));
            assert_eq!(files.text("seen"), Some("f\n"), "{rung:?}: a file behind {link}");
        }
    }
}

#[test]
fn row22_what_is_mounted_is_not_taken_off_or_made_writable() {
    for rung in Rung::with_mounts() {
        let site = Site::on(
            rung,
            "FROM busybox AS other\nRUN mkdir /d && echo kept > /d/f\n\
             FROM busybox\nRUN --mount=from=other,source=/d,target=/m,readonly \
             mount -o remount,rw,bind /m; umount /m; mount --make-rshared /; unshare -m true; mount -t tmpfs x /m; \
             echo changed > /m/f; cat /m/f > /seen\n\
             RUN --mount=from=other,source=/d,target=/m cat /m/f >> /seen\n\
             RUN --mount=type=cache,target=/c echo cached > /c/f\n\
             RUN --mount=type=cache,target=/c,readonly echo changed > /c/f; mount -o remount,rw,bind /c; echo changed > /c/f; cat /c/f >> /seen\n",
        );
        let seen = "kept\nkept\ncached\n";
        assert_eq!(site.works(&[]).text("seen"), Some(seen), "{rung:?}");
    }
}

#[test]
fn row23_no_descriptor_but_three_is_open_in_a_step() {
    for rung in Rung::here() {
        let site = Site::on(
            rung,
            "FROM busybox\nRUN for n in 3 4 5 6 7 8 9; do (true <&$n) 2>/dev/null && echo $n; done > /open; (true <&1) && echo 1 > /twin\n",
        );
        let held = fs::File::open(&site.canary.dir).unwrap();
        rustix::io::fcntl_setfd(&held, rustix::io::FdFlags::empty()).unwrap();
        let files = site.works(&[]);
        assert_eq!(files.text("open"), Some(""), "{rung:?}");
        assert_eq!(files.text("twin"), Some("1\n"), "{rung:?}: an open one is found");
    }
}

#[test]
fn row24_the_builder_s_program_is_not_written_by_a_step() {
    let facts = || {
        fs::metadata(RBUILD)
            .map(|m| (m.len(), m.ino(), m.mtime(), m.mtime_nsec()))
            .unwrap()
    };
    for rung in Rung::with_mounts() {
        let before = facts();
        let site = Site::on(
            rung,
            "FROM busybox\nRUN printf '#!/proc/self/exe\\n' > /s && chmod 755 /s && (/s; true) > /ran 2>&1; \
             for i in $(seq 50); do for e in /proc/[0-9]*/exe; do (echo x >> $e) 2>/dev/null && echo $e; done; done > /wrote; \
             readlink /proc/self/exe > /exe\n",
        );
        let files = site.works(&[]);
        assert_eq!(
            files.text("wrote"),
            Some(""),
            "{rung:?}: nothing that runs can be written"
        );
        let own = files.text("exe").unwrap_or_default();
        assert!(own.starts_with("/bin/"), "{rung:?}: its own program: {own}");
        assert_eq!(facts(), before, "{rung:?}");
    }
}

#[test]
fn row25_a_step_sees_and_reaches_its_own_processes_alone() {
    for rung in Rung::here() {
        // Where it is the first process of its namespace this does not end it itself (`tests/e2e/chroot.rs` has the other case).
        let kill = if rung == Rung::Chroot {
            "true"
        } else {
            "kill -9 -1"
        };
        let site = Site::on(
            rung,
            &format!(
                "FROM busybox\nRUN ls /proc | grep -c '^[0-9]' > /count; ({kill}) 2>/dev/null; true\n\
                 RUN sleep 600 & echo begun > /begun\nRUN echo after > /after\n"
            ),
        );
        let files = site.works(&[]);
        assert_eq!(
            files.text("after"),
            Some("after\n"),
            "{rung:?}: the builder lives"
        );
        let count: u32 = files.text("count").unwrap_or_default().trim().parse().unwrap();
        let most = if rung == Rung::Chroot { 0 } else { 4 };
        assert!(count <= most, "{rung:?}: {count} processes");
    }
}

#[test]
fn row26_rights_of_root_and_of_a_user_in_a_step() {
    for rung in Rung::here() {
        let site = Site::on(
            rung,
            "FROM busybox\nRUN echo root:x:0:daemon >> /etc/group && echo s > /s && chown 0:1 /s && chmod 640 /s && echo no > /no && chmod 600 /no\n\
             RUN grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2 > /sets; true\n\
             USER daemon\nRUN id -u > /tmp/id; id -G >> /tmp/id; cat /s >> /tmp/id; \
             grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2 > /tmp/caps; (cat /no > /tmp/no) 2>/dev/null; true\n",
        );
        let files = site.works(&[]);
        assert_eq!(
            files.text("tmp/id"),
            Some("1\n1 0\ns\n"),
            "{rung:?}: its user and groups"
        );
        let none = "0000000000000000";
        if rung != Rung::Chroot {
            let root = format!("{none}\n{CAPABILITIES}\n{CAPABILITIES}\n{CAPABILITIES}\n{none}\n");
            assert_eq!(
                files.text("sets"),
                Some(root.as_str()),
                "{rung:?}: root's five sets"
            );
        }
        // With one id every file is the one user's, and what runs keeps the rights to make others' (docs/rootless.md).
        if rung == Rung::Root || rung == Rung::Subids {
            let user = format!("{none}\n{none}\n{none}\n{CAPABILITIES}\n{none}\n");
            assert_eq!(files.text("tmp/caps"), Some(user.as_str()), "{rung:?}: a user's");
        }
        if rung != Rung::OneId {
            assert_eq!(files.text("tmp/no"), Some(""), "{rung:?}: root's file");
        }
    }
}

#[test]
fn row27_files_of_the_kernel_are_masked_and_not_written() {
    let pattern = || fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    for rung in Rung::with_mounts() {
        let before = pattern();
        let site = Site::on(
            rung,
            "FROM busybox\nRUN for f in kcore keys timer_list sched_debug latency_stats; do head -c 1 /proc/$f 2>/dev/null; done | wc -c > /read; \
             for f in sys/kernel/core_pattern sysrq-trigger irq/default_smp_affinity; do (echo x > /proc/$f) 2>/dev/null && echo $f; done > /wrote; \
             (echo x > /sys/kernel/uevent_helper) 2>/dev/null && echo uevent >> /wrote; cat /proc/version | wc -l > /twin; \
             sed -n 's/^[^ ]* \\/sys [^ ]* \\(r[ow]\\),.*/\\1/p' /proc/mounts > /sys-is\n",
        );
        let files = site.works(&[]);
        assert_eq!(files.text("read"), Some("0\n"), "{rung:?}");
        assert_eq!(files.text("wrote"), Some(""), "{rung:?}");
        // Which of its files a kernel lets root write is not the same on all.
        assert_eq!(files.text("sys-is"), Some("ro\n"), "{rung:?}");
        assert_eq!(
            files.text("twin"),
            Some("1\n"),
            "{rung:?}: what is not masked is read"
        );
        assert_eq!(pattern(), before, "{rung:?}");
    }
}

#[test]
fn row28_calls_that_make_namespaces_and_mounts_are_refused() {
    for rung in Rung::here() {
        let site = Site::on(
            rung,
            "FROM busybox\nRUN for n in -m -u -i -n -p -U; do unshare $n true 2>/dev/null && echo made $n; done > /made; \
             mkdir /d && mount -t tmpfs x /d 2>/dev/null && echo mounted >> /made; \
             (mount -t proc p /d || mount -o bind / /d || swapon /d || hostname x) 2>/dev/null && echo mounted >> /made; true\n",
        );
        assert_eq!(site.works(&[]).text("made"), Some(""), "{rung:?}");
    }
}

#[test]
fn row29_shared_memory_of_the_host_is_not_seen() {
    let Some(ipcmk) = machine::program("ipcmk") else {
        machine::skip("ipcmk is not here");
        return;
    };
    let made = std::process::Command::new(ipcmk)
        .args(["-M", "4096"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&made.stdout).into_owned();
    let id = text.trim().rsplit(' ').next().unwrap_or_default().to_owned();
    assert!(id.parse::<u32>().is_ok(), "{text}");
    for rung in Rung::with_mounts() {
        let site = Site::on(
            rung,
            "FROM busybox\nRUN ipcs -m | grep -c '^0x' > /segments; true\nRUN --network=none cat /proc/net/unix | wc -l > /sockets\n",
        );
        let files = site.works(&[]);
        assert_eq!(files.text("segments"), Some("0\n"), "{rung:?}");
        assert_eq!(
            files.text("sockets"),
            Some("1\n"),
            "{rung:?}: a heading and nothing else"
        );
    }
    let removed = std::process::Command::new("ipcrm").args(["-m", &id]).status();
    assert!(removed.is_ok_and(|status| status.success()));
}

#[test]
fn row30_variables_of_the_builder_are_in_no_step() {
    for rung in Rung::here() {
        let site = Site::on(
            rung,
            "FROM busybox\nARG GIVEN\nRUN env | sort > /env; cat /proc/[0-9]*/environ > /others 2>/dev/null; true\n",
        );
        let archive = site.fixture.home.work().join("env.tar");
        site.fixture
            .build()
            .args(rung.argument())
            .env("RBUILD_CANARY", "va1ue-of-the-builder")
            .env("REGISTRY_AUTH_FILE", "/va1ue-of-the-builder")
            .args(["--build-arg=GIVEN=arrives"])
            .arg(format!("--output=type=tar,dest={}", archive.display()))
            .ok();
        let tar = fs::read(&archive).unwrap();
        assert!(
            !rbuild_testkit::leak::holds(&tar, "va1ue-of-the-builder"),
            "{rung:?}"
        );
        assert!(
            rbuild_testkit::leak::holds(&tar, "GIVEN=arrives"),
            "{rung:?}: the legal twin"
        );
    }
}
