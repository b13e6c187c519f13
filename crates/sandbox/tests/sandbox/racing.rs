//! Rows 17 and 19 while names are exchanged: a part of a shared cache, and the way to a mount's target.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use rbuild_sandbox::{MountKind, MountPlan, Source};
use rbuild_testkit::racing::racing;

use crate::fixture::{Fixture, run};

fn bind(dest: &str, source: PathBuf, selector: &str) -> MountPlan {
    MountPlan {
        dest: dest.into(),
        kind: MountKind::Bind {
            source: Source::Path(source),
            selector: selector.into(),
            readonly: false,
        },
    }
}

/// Every round did one of two things, and each of them happened, or the race was none.
#[track_caller]
fn assert_raced(exchanges: u64, (shown, refused): (u32, u32)) {
    assert!(
        exchanges > 1000 && shown > 0 && refused > 0,
        "{exchanges} exchanges, {shown} times mounted, {refused} times refused"
    );
}

#[test]
fn privileged_row17_a_part_of_a_cache_that_is_exchanged_for_a_link_is_never_the_host() {
    let Some(fixture) = Fixture::new() else { return };
    std::fs::create_dir_all(fixture.path("cache/sub")).unwrap();
    std::fs::write(fixture.path("cache/sub/f"), "inside").unwrap();
    for target in [
        fixture.path("canary"),
        PathBuf::from(format!(
            "../../../../../../../..{}",
            fixture.path("canary").display()
        )),
        PathBuf::from("/proc/self/root"),
    ] {
        let link = fixture.path("cache/link");
        symlink(&target, &link).unwrap();
        let mut counts = (0, 0);
        let exchanges = racing(&fixture.path("cache/sub"), &link, || {
            for _ in 0..80 {
                let mut plan = fixture.plan("ls /m; cat /m/f; touch /m/f");
                plan.mounts = vec![bind("/m", fixture.path("cache"), "sub")];
                let done = run(&plan);
                if done.exit.is_ok() {
                    assert_eq!(done.ok(), "f\ninside", "the part itself");
                    counts.0 += 1;
                } else {
                    let told = done.error();
                    assert!(told.contains("No such file"), "{told}");
                    counts.1 += 1;
                }
            }
        });
        assert_raced(exchanges, counts);
        fixture.check_canary();
        // Which of the two names is the link is left to chance.
        for name in ["cache/sub", "cache/link"].map(|name| fixture.path(name)) {
            if name.is_symlink() {
                std::fs::remove_file(name).unwrap();
            } else if name != fixture.path("cache/sub") {
                std::fs::rename(name, fixture.path("cache/kept")).unwrap();
            }
        }
        if fixture.path("cache/kept").exists() {
            std::fs::rename(fixture.path("cache/kept"), fixture.path("cache/sub")).unwrap();
        }
    }
}

#[test]
fn privileged_row19_a_target_s_parent_that_is_exchanged_for_a_link_never_leads_to_the_host() {
    let Some(fixture) = Fixture::new() else { return };
    std::fs::create_dir_all(fixture.path("cache/d")).unwrap();
    symlink(fixture.path("canary"), fixture.path("cache/link")).unwrap();
    let mine = |table: String| {
        let path = fixture.dir.path().to_str().unwrap().to_owned();
        table.lines().filter(|line| line.contains(&path)).count()
    };
    let mut counts = (0, 0);
    let mut seen = 0;
    let exchanges = racing(&fixture.path("cache/d"), &fixture.path("cache/link"), || {
        for round in 0..200 {
            let kind = match round % 3 {
                0 => MountKind::Tmpfs {
                    size_bytes: None,
                    mode: None,
                },
                1 => MountKind::File {
                    content: b"secret".to_vec(),
                    uid: 0,
                    gid: 0,
                    mode: 0o400,
                },
                _ => bind("", fixture.path("lower/etc"), "").kind,
            };
            let mut plan = fixture.plan("true");
            plan.mounts = vec![
                bind("/c", fixture.path("cache"), ""),
                MountPlan {
                    dest: "/c/d/x".into(),
                    kind,
                },
            ];
            match run(&plan).exit {
                Ok(_) => counts.0 += 1,
                Err(_) => counts.1 += 1,
            }
            seen += mine(std::fs::read_to_string("/proc/self/mountinfo").unwrap());
        }
    });
    assert_raced(exchanges, counts);
    assert_eq!(seen, 0, "a mount of the step in the host's namespace");
    fixture.check_canary();
}
