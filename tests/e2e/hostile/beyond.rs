//! Attacks that the list of fifty does not have, on each rung.

use std::fs;
use std::time::{Duration, Instant};

use rbuild_testkit::layout::{Attributes, LayerBuilder};
use rbuild_testkit::residue::{own_sleep, processes};
use serde_json::json;

use crate::e2e::hostile::canary::{Rung, Site};

#[test]
fn beyond_a_file_of_a_cache_is_no_file_of_a_layer() {
    for rung in Rung::here() {
        let site = Site::on(
            rung,
            "FROM busybox AS first
RUN --mount=type=cache,target=/k echo one > /k/f && (ln /k/f /f || cp /k/f /f) 2>/dev/null && ln /f /again
RUN --mount=type=cache,target=/k (ln /f /k/back || cp /f /k/back) 2>/dev/null
FROM first AS second
RUN --mount=type=cache,target=/k test -s /k/back && echo changed > /k/f && echo changed > /k/back && cp /f /seen
",
        );
        let files = site.works(&[]);
        for name in ["f", "again", "seen"] {
            assert_eq!(files.text(name), Some("one\n"), "{rung:?}: {name}");
        }
        // What the first two steps made is taken as it was kept.
        let files = site.works(&["--target=first".to_owned()]);
        for name in ["f", "again"] {
            assert_eq!(
                files.text(name),
                Some("one\n"),
                "{rung:?}: {name} of the kept layer"
            );
        }
        // The legal twin: the cache has what was written to it.
        site.fixture
            .context
            .dockerfile("FROM busybox\nRUN --mount=type=cache,target=/k cat /k/f /k/back > /cached\n");
        assert_eq!(
            site.works(&[]).text("cached"),
            Some("changed\nchanged\n"),
            "{rung:?}"
        );
    }
}

#[test]
fn beyond_a_second_name_of_a_file_below_is_not_the_file_below() {
    for rung in Rung::here() {
        let site = Site::on(rung, "");
        let theirs = Attributes::mode(0o4755).owner(1234, 1234);
        let layer = LayerBuilder::new().file("theirs", theirs, b"of the image\n");
        let evil = site.evil(json!({"Env": ["PATH=/bin"]}), vec![layer]);
        let first = "FROM evil AS first
USER 1000
RUN (ln /theirs /tmp/mine && echo changed >> /tmp/mine && chmod 777 /tmp/mine) 2>/dev/null; true
USER 0
RUN ln /theirs /again && chown 5:6 /again && chmod 700 /again && echo more >> /again && stat -c %u:%g:%a /theirs > /stat
";
        site.fixture.context.dockerfile(first);
        let files = site.works(std::slice::from_ref(&evil));
        assert_eq!(
            files.text("stat"),
            Some("5:6:700\n"),
            "{rung:?}: the twin, a name is the file"
        );
        for name in ["theirs", "again"] {
            let owner = files
                .get(name)
                .map(|file| (file.uid, file.gid, file.mode & 0o7777));
            assert_eq!(owner, Some((5, 6, 0o700)), "{rung:?}: {name}");
        }
        // What is in the store is as it came, for whoever builds on it next.
        site.fixture
            .context
            .dockerfile("FROM evil\nRUN stat -c '%u:%g %a' /theirs > /seen; cat /theirs >> /seen\n");
        let files = site.works(std::slice::from_ref(&evil));
        let seen = "1234:1234 4755\nof the image\n";
        assert_eq!(files.text("seen"), Some(seen), "{rung:?}");
        let owner = files
            .get("theirs")
            .map(|file| (file.uid, file.gid, file.mode & 0o7777));
        assert_eq!(owner, Some((1234, 1234, 0o4755)), "{rung:?}");
    }
}

#[test]
fn beyond_what_forks_and_runs_from_its_end_ends_with_its_step() {
    for (place, rung) in (0..).zip(Rung::here()) {
        let (seconds, script) = (own_sleep(3600, place), format!("/run-{}.sh", own_sleep(0, place)));
        // Each process starts the next, in a session of its own, and ends; others are stopped, deaf to signals, or both.
        let site = Site::on(
            rung,
            &format!(
                "FROM busybox
RUN printf '#!/bin/sh\\ntrap \"\" TERM HUP INT\\nsetsid {script} >/dev/null 2>&1 </dev/null &\\n' > {script} && chmod 755 {script} \\
 && (setsid {script} &) && for i in 1 2 3; do (trap '' TERM; exec setsid sleep {seconds} >/dev/null 2>&1) & kill -STOP $!; done; sleep 0.2
RUN echo after > /after
"
            ),
        );
        let start = Instant::now();
        let files = site.works(&[]);
        assert_eq!(files.text("after"), Some("after\n"), "{rung:?}");
        assert!(start.elapsed() < Duration::from_secs(60), "{rung:?}");
        for text in [&seconds, &script] {
            let left = processes(text);
            assert!(left.is_empty(), "{rung:?}: {left:?}");
        }
    }
}

#[test]
fn beyond_a_step_that_removes_everything_removes_its_own() {
    for rung in Rung::here() {
        let site = Site::on(
            rung,
            "FROM busybox AS other
COPY lib /lib-of-the-context/
FROM busybox AS gone
RUN --mount=type=cache,target=/k echo kept > /k/f
RUN --mount=type=bind,target=/ctx --mount=type=bind,from=other,target=/o --mount=type=cache,target=/k,ro \\
 cp -r /ctx/lib /o/lib-of-the-context /tmp/ && rm -rf /ctx/* /o/* /k/* /usr /home /var /root /etc/* /bin/* 2>/dev/null; true
FROM busybox
COPY --from=other /lib-of-the-context /lib/
RUN --mount=type=cache,target=/k cat /k/f > /cached
COPY --from=gone / /rest/
",
        );
        site.fixture.context.file("lib/f", "of the context\n");
        let files = site.works(&[]);
        assert_eq!(files.text("cached"), Some("kept\n"), "{rung:?}");
        assert_eq!(files.text("lib/f"), Some("of the context\n"), "{rung:?}");
        let rest: Vec<&str> = files
            .paths()
            .filter(|path| path.starts_with("rest/bin/") || path.starts_with("rest/etc/"))
            .collect();
        assert_eq!(rest, [""; 0], "{rung:?}: the twin, it did remove");
        let kept = fs::read_to_string(site.fixture.context.dir().join("lib/f")).unwrap();
        assert_eq!(kept, "of the context\n", "{rung:?}");
        // The store is whole: the base is there for the next.
        site.fixture
            .context
            .dockerfile("FROM busybox\nRUN ls /etc > /all && test -x /bin/ls\n");
        let files = site.works(&[]);
        assert!(
            files.text("all").is_some_and(|all| all.contains("passwd")),
            "{rung:?}"
        );
    }
}

#[test]
fn beyond_a_step_reads_nothing_of_the_builder_through_what_it_is_given() {
    for rung in Rung::here() {
        let site = Site::on(rung, "");
        // Standard streams reopened, turned around, made to wait for nothing, and closed in the middle.
        site.fixture.context.dockerfile(
            &"FROM busybox
RUN (timeout 1 head -c 1 /dev/fd/1; timeout 1 head -c 1 /proc/self/fd/1; timeout 1 head -c 1 <&1; timeout 1 head -c 1 <&2) > /read 2>/dev/null; \\
 wc -c < /read > /bytes; readlink /proc/self/cwd > /tmp/cwd; true
RUN echo before; exec 1>&- 2>&-; echo lost; exit 0
RUN (while :; do echo noise; done) & (sleep 1; kill $!) 2>/dev/null; wait; true
RUN cat /proc/self/mountinfo /proc/mounts /proc/self/cgroup /proc/1/cmdline /proc/1/environ > /tmp/told 2>/dev/null; \\
 grep -c / /tmp/told > /read-lines; grep -aE 'canary|RBUILD_|{STORE}' /tmp/told | grep -av read-lines > /told; true
"
            .replace("{STORE}", &site.fixture.home.work().display().to_string()),
        );
        let files = site.works(&[]);
        assert_eq!(files.text("bytes"), Some("0\n"), "{rung:?}");
        assert_eq!(files.text("told"), Some(""), "{rung:?}");
        let lines: usize = files
            .text("read-lines")
            .and_then(|text| text.trim().parse().ok())
            .unwrap();
        assert_eq!(
            lines == 0,
            rung == Rung::Chroot,
            "{rung:?}: the twin, it was read: {lines}"
        );
    }
}
