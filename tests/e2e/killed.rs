//! Ended from outside: Ctrl-C, a kill at any moment, and what the next build finds.

use std::time::{Duration, Instant};

use rbuild_testkit::command::Running;
use rbuild_testkit::residue::{own_sleep, wait_for_process, wait_until_gone};
use rbuild_testkit::stopwatch::Stopwatch;
use rustix::process::Signal;

use crate::e2e::fixture::Fixture;

/// Two seconds, however busy the machine is; and nowhere near the minute that the steps sleep.
#[track_caller]
pub(crate) fn assert_ended_at_once(watch: &Stopwatch, what: &str) {
    let (own, all) = (watch.own(), watch.elapsed());
    assert!(
        own < Duration::from_secs(2) && all < Duration::from_secs(30),
        "took {own:?} of {all:?}: {what}"
    );
}

#[test]
fn ctrl_c_ends_the_step_within_two_seconds_and_leaves_nothing() {
    for (name, signal) in [("SIGINT", Signal::INT), ("SIGTERM", Signal::TERM)] {
        let sleep = own_sleep(60, 1);
        // The shell ignores the signal, as a stubborn step may.
        let fixture = Fixture::new(&format!(
            "FROM busybox\nRUN echo first > /first\nRUN trap '' INT TERM; sleep {sleep} & sleep {sleep}\n"
        ));
        let before = fixture.residue();
        let running: Running = fixture.build().spawn();
        let _step = wait_for_process(&format!("sleep {sleep}"));
        let watch = Stopwatch::start();
        running.signal_group(signal);
        let ran = running.wait();
        assert_ended_at_once(&watch, &format!("{name}: {ran}"));
        assert!(!ran.status.success(), "{name}\n{ran}");
        wait_until_gone(&format!("sleep {sleep}"));
        fixture.assert_clean_since(&before);
        fixture
            .context
            .dockerfile("FROM busybox\nRUN echo first > /first\nRUN echo second > /second\n");
        let (next, image) = fixture.image(&[]);
        assert!(
            next.cached()
                .iter()
                .any(|step| step.ends_with("RUN echo first > /first")),
            "{name}\n{next}"
        );
        assert_eq!(image.files().unwrap().text("second"), Some("second\n"));
    }
}

/// Seconds of processor that the threads of a process had (proc(5), `/proc/PID/stat`, fields 14 and 15 in hundredths).
fn worked(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = behind_name.split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

#[test]
fn beyond_a_file_of_holes_does_not_hold_a_build_that_was_stopped() {
    let fixture = Fixture::new(
        "FROM busybox AS holes\nRUN truncate -s 4398046511104 /holes && echo made\nFROM scratch\nCOPY --from=holes /holes /\n",
    );
    let before = fixture.residue();
    let running: Running = fixture.build().spawn();
    // What the step made is read then: nothing before that takes so long.
    let deadline = Instant::now() + Duration::from_secs(60);
    while worked(running.pid()) < 2.0 {
        assert!(Instant::now() < deadline, "nothing reads the file of holes");
        std::thread::sleep(Duration::from_millis(20));
    }
    let watch = Stopwatch::start();
    running.signal_group(Signal::INT);
    let ran = running.wait();
    assert_eq!(ran.status.code(), Some(130), "{ran}");
    let took = watch.elapsed();
    assert!(
        took > Duration::from_secs(3),
        "nothing was read any more: {took:?}\n{ran}"
    );
    assert!(watch.own() < Duration::from_secs(10), "{took:?}\n{ran}");
    ran.says("made");
    fixture
        .context
        .dockerfile("FROM busybox\nRUN echo second > /second\n");
    let (_, image) = fixture.image(&[]);
    assert_eq!(image.files().unwrap().text("second"), Some("second\n"));
    fixture.assert_clean_since(&before);
}

#[test]
fn a_killed_build_takes_its_step_with_it() {
    let sleep = own_sleep(60, 2);
    let fixture = Fixture::new(&format!(
        "FROM busybox\nRUN (setsid sleep {sleep} &); sleep {sleep}\n"
    ));
    let before = fixture.residue();
    let running = fixture.build().spawn();
    let _step = wait_for_process(&format!("sleep {sleep}"));
    running.signal(Signal::KILL);
    drop(running.wait());
    wait_until_gone(&format!("sleep {sleep}"));
    fixture.assert_clean_since(&before);
}

#[test]
fn a_process_left_by_a_step_ends_with_it() {
    let sleep = own_sleep(60, 3);
    let fixture = Fixture::new(&format!(
        "FROM busybox\nRUN (setsid sleep {sleep} >/dev/null 2>&1 &); true\nRUN true\n"
    ));
    let ran = fixture.build().ok();
    assert!(ran.elapsed < Duration::from_secs(30), "{ran}");
    wait_until_gone(&format!("sleep {sleep}"));
}

#[test]
fn after_a_kill_at_any_moment_the_next_build_works() {
    let dockerfile = "FROM busybox AS a
COPY . /ctx
RUN for i in 1 2 3 4 5 6 7 8; do cp -r /ctx /copy$i; done
FROM busybox
COPY --from=a /copy1 /one
RUN rm -r /one/d1 && echo done > /done
";
    let fixture = Fixture::new(dockerfile);
    for dir in 0..20 {
        for file in 0..20 {
            fixture
                .context
                .file(&format!("d{dir}/f{file}"), format!("{dir} {file}\n").repeat(50));
        }
    }
    let whole = Fixture::new(dockerfile);
    let reference = {
        let output = format!("--output=type=oci,dest={}", whole.archive().display());
        let start = Instant::now();
        whole.build_of().arg(fixture.context.dir()).arg(output).ok();
        let image = rbuild_testkit::image::OciLayout::open(&whole.archive())
            .unwrap()
            .image()
            .unwrap();
        (start.elapsed(), image.files().unwrap().table())
    };
    let before = fixture.residue();
    let rounds = 16;
    for round in 0..rounds {
        let running = fixture
            .build()
            .arg(format!("--output=type=oci,dest={}", fixture.archive().display()))
            .spawn();
        std::thread::sleep(reference.0 * round / rounds);
        running.signal_group(Signal::KILL);
        drop(running.wait());
    }
    fixture.assert_clean_since(&before);
    let (ran, image) = fixture.image(&[]);
    assert_eq!(image.files().unwrap().table(), reference.1, "{ran}");
    let (again, _) = fixture.image(&[]);
    assert!(
        again.executed().iter().all(|step| !step.contains("RUN")),
        "{again}"
    );
}
