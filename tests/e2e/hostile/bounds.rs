//! What a step or a layer may have at most: memory that looks like files, processes, attributes, and files of sizes that no disk
//! has; on each rung.

use std::time::{Duration, Instant};

use rbuild_testkit::layout::{Attributes, LayerBuilder};
use rbuild_testkit::residue::{own_sleep, processes};
use serde_json::json;

use crate::e2e::hostile::canary::{Rung, Site};

#[test]
fn beyond_shared_memory_has_its_size_and_runs_nothing() {
    for rung in Rung::with_mounts() {
        let step = "sed -n 's/^[^ ]* \\/dev\\/shm tmpfs //p' /proc/mounts > /options; \
                    dd if=/dev/zero of=/dev/shm/f bs=64k count=1300 2>/dev/null; stat -c %s /dev/shm/f > /size; rm /dev/shm/f; \
                    cp /bin/busybox /dev/shm/busybox; chmod 4755 /dev/shm/busybox; \
                    (/dev/shm/busybox true && echo ran; true) 2>/dev/null > /ran; \
                    mkdir /t2; cp /dev/shm/busybox /busybox && /busybox echo fine > /twin; rm /busybox";
        let site = Site::on(rung, &format!("FROM busybox\nRUN {step}\n"));
        for (flag, most) in [(None, 64 << 20), (Some("--shm-size=4m".to_owned()), 4 << 20)] {
            let args: Vec<String> = flag.into_iter().chain(["--no-cache".to_owned()]).collect();
            let files = site.works(&args);
            let options = files.text("options").unwrap_or_default();
            for option in ["nosuid", "nodev"] {
                assert!(options.contains(option), "{rung:?}: {option}: {options}");
            }
            // With a size of its own it is a mount like others, also with BuildKit.
            let ran = if args.len() > 1 { "ran\n" } else { "" };
            let size: u64 = files.text("size").unwrap_or_default().trim().parse().unwrap();
            assert!(size > most / 2 && size <= most, "{rung:?}: {size} of {most}");
            assert_eq!(
                files.text("ran"),
                Some(ran),
                "{rung:?}: a program in shared memory"
            );
            assert_eq!(files.text("twin"), Some("fine\n"), "{rung:?}: elsewhere it runs");
        }
    }
}

#[test]
fn beyond_a_user_s_process_bomb_ends_at_its_limit_and_with_its_step() {
    for (place, rung) in (0..).zip(Rung::here()) {
        let seconds = own_sleep(3600, place);
        let site = Site::on(
            rung,
            &format!(
                "FROM busybox\nUSER 1000\n\
                 RUN i=0; while [ $i -lt 300 ]; do setsid sleep {seconds} & i=$((i+1)); done 2>/dev/null; echo $i > /tmp/all\n"
            ),
        );
        let start = Instant::now();
        let told = site
            .build(&["--ulimit=nproc=100:100".to_owned()])
            .map(|files| files.table())
            .expect_err("all were made");
        assert!(told.contains("exit code: 2"), "{rung:?}: {told}");
        // The legal twin: without the limit they are made, and end with their step.
        let files = site.works(&["--no-cache".to_owned()]);
        assert_eq!(files.text("tmp/all"), Some("300\n"), "{rung:?}");
        assert!(start.elapsed() < Duration::from_secs(60), "{rung:?}");
        let left = processes(&seconds);
        assert!(left.is_empty(), "{rung:?}: {left:?}");
    }
}

#[test]
fn row11_attributes_are_kept_whole_or_refused_by_their_entry_on_each_rung() {
    let large = vec![b'v'; 60_000];
    for rung in Rung::unpacking() {
        let site = Site::on(rung, "FROM evil\n");
        let config = || json!({"Env": ["PATH=/bin"]});
        // More than the file system of most stores takes.
        let layer = LayerBuilder::new().file_with_xattrs(
            "laden",
            Attributes::mode(0o644),
            b"x",
            &[("user.large", &large)],
        );
        let evil = site.evil(config(), vec![layer]);
        match site.build(&[evil]) {
            Ok(files) => {
                let kept = files
                    .get("laden")
                    .and_then(|file| file.xattrs.get("user.large").cloned());
                assert!(kept.is_some(), "{rung:?}: an attribute was lost without a word");
            }
            Err(told) => assert!(
                told.contains("laden") && told.contains("attribute"),
                "{rung:?}: refused, but not by its name: {told}"
            ),
        }
        // Two thousand files with sixteen small ones each, in time that a build has.
        let names: Vec<String> = (0..16).map(|number| format!("user.small{number}")).collect();
        let small: Vec<(&str, &[u8])> = names
            .iter()
            .map(|name| (name.as_str(), b"value".as_slice()))
            .collect();
        let layer = (0..2000).fold(LayerBuilder::new(), |layer, number| {
            layer.file_with_xattrs(&format!("d/f{number}"), Attributes::mode(0o644), b"x", &small)
        });
        let evil = site.evil(config(), vec![layer]);
        let start = Instant::now();
        let files = site.works(&[evil]);
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{rung:?}: {:?}",
            start.elapsed()
        );
        for name in ["d/f0", "d/f1999"] {
            let kept = files.get(name).map(|file| file.xattrs.len());
            assert_eq!(kept, Some(16), "{rung:?}: {name}");
        }
    }
}
