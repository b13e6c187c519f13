//! What the flags about steps promise, on each rung that runs them.

use std::time::{Duration, Instant};

use rbuild_testkit::residue::{own_sleep, processes};

use crate::e2e::hostile::canary::{Rung, Site};

/// A build of the site that must fail; what it said.
#[track_caller]
fn fails(site: &Site, args: &[String]) -> String {
    site.build(args)
        .map(|files| files.table())
        .expect_err("it was built")
}

#[test]
fn rootless_a_step_that_hangs_is_ended_whole_on_each_rung() {
    for (place, rung) in (0..).zip(Rung::here()) {
        let seconds = own_sleep(3600, place);
        let site = Site::on(
            rung,
            &format!("FROM busybox\nRUN echo begun; (setsid sleep {seconds} &); sleep {seconds}\n"),
        );
        let start = Instant::now();
        let told = fails(&site, &["--run-timeout=2s".to_owned()]);
        assert!(start.elapsed() < Duration::from_secs(30), "{rung:?}: {told}");
        for part in ["begun", "it did not complete within 2s", "Dockerfile:2"] {
            assert!(told.contains(part), "{rung:?}: {part}: {told}");
        }
        let left = processes(&seconds);
        assert!(left.is_empty(), "{rung:?}: {left:?}");
    }
}

#[test]
fn rootless_a_flaky_step_begins_clean_each_time_on_each_rung() {
    for rung in Rung::here() {
        let site = Site::on(
            rung,
            "FROM busybox AS other
RUN mkdir /d && echo untouched > /d/f
FROM busybox
RUN --mount=type=cache,target=/c --mount=from=other,source=/d,target=/m,rw echo x >> /c/n; test -e /seen && exit 9; \\
 grep -q untouched /m/f || exit 8; echo changed > /m/f; touch /seen; mkdir -p /made/by; (sleep 1; touch /late) & test $(wc -l < /c/n) -ge 3
RUN ls / > /all
",
        );
        let told = fails(&site, &["--run-retries=1".to_owned()]);
        assert!(
            told.contains("retry 1 of 1, on what the step began with") && told.contains("exit code: 1"),
            "{rung:?}: {told}"
        );
        let files = site.works(&["--run-retries=5".to_owned()]);
        let all = files.text("all").unwrap_or_default();
        assert!(all.contains("seen") && !all.contains("late"), "{rung:?}: {all}");
    }
}

#[test]
fn rootless_the_files_of_a_failed_step_are_kept_on_each_rung() {
    for rung in Rung::here() {
        let site = Site::on(
            rung,
            "FROM busybox\nWORKDIR /w\nRUN --mount=type=secret,id=s,env=S --mount=type=cache,target=/c echo half > half; echo in > /c/cached; exit 7\n",
        );
        let dir = site.fixture.home.work().join("kept");
        let secret = site.fixture.home.work().join("secret");
        std::fs::write(&secret, "not to be kept").unwrap();
        let told = fails(
            &site,
            &[
                format!("--on-error=keep={}", dir.display()),
                format!("--secret=id=s,src={}", secret.display()),
            ],
        );
        assert!(
            told.contains("the files of the failed step are in"),
            "{rung:?}: {told}"
        );
        let half = std::fs::read_to_string(dir.join("w/half"));
        assert_eq!(half.unwrap(), "half\n", "{rung:?}");
        assert!(
            dir.join("bin/busybox").exists(),
            "{rung:?}: with those of the image"
        );
        assert!(
            !dir.join("c/cached").exists(),
            "{rung:?}: and not those of mounts"
        );
    }
}

#[test]
fn rootless_limits_of_processes_and_networks_hold_on_each_rung() {
    for rung in Rung::here() {
        let site = Site::on(
            rung,
            "FROM busybox
RUN ulimit -n > /n; ulimit -c > /c
RUN --network=none ifconfig -a 2>/dev/null | grep -c Link > /none; true
",
        );
        let files = site.works(&["--ulimit=nofile=77:77".to_owned()]);
        assert_eq!(files.text("n"), Some("77\n"), "{rung:?}");
        assert_eq!(files.text("c"), Some("0\n"), "{rung:?}: no core dumps");
        // A loopback interface of its own, or on the rung without namespaces no sockets by which there would be any.
        let none = if rung == Rung::Chroot { "0\n" } else { "1\n" };
        assert_eq!(files.text("none"), Some(none), "{rung:?}");
    }
}
