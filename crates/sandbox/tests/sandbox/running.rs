//! Starting, ending, killing, limits.

use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rbuild_sandbox::{ExitStatus, Rlimit, RlimitResource, Running, Source, WaitError};

use rbuild_sys::Uses;

use crate::fixture::{Fixture, finish, probe, run, sandbox};

#[test]
fn privileged_output_exit_code_and_signal() {
    let Some(fixture) = Fixture::new() else { return };
    let done = fixture.run("echo out; echo err >&2; exit 7");
    assert_eq!(
        (done.code(), done.stdout.as_str(), done.stderr.as_str()),
        (7, "out\n", "err\n")
    );
    assert_eq!(fixture.run("sh -c 'kill -TERM $$'; echo $?").ok(), "143\n");
    assert!(fixture.run("cat").ok().is_empty(), "standard input is empty");
    let pipe = fixture.run("(seq 100000; echo $? >&2) | head -n 1").stderr;
    assert_eq!(pipe.trim(), "141", "SIGPIPE has its default action and ends seq");
}

#[test]
fn privileged_programs_are_found_in_the_steps_path_only() {
    let Some(fixture) = Fixture::new() else { return };
    let with = |program: &str, path: &str| {
        let mut plan = fixture.plan("");
        plan.process.args = vec![program.into(), "hello".into()];
        plan.process.env = vec![format!("PATH={path}").into()];
        run(&plan)
    };
    assert_eq!(with("echo", "/nowhere:/bin").ok(), "hello\n");
    assert_eq!(with("/bin/echo", "").ok(), "hello\n");
    for (program, path, errno) in [
        ("echo", "/nowhere", libc_enoent()),
        ("nosuch", "/bin", libc_enoent()),
        ("/etc/passwd", "", 13),
        ("/tmp", "", 13),
    ] {
        match with(program, path).exit {
            Err(WaitError::Exec {
                program: named,
                source: Some(source),
                ..
            }) => {
                assert_eq!(
                    (named.as_path(), source.raw_os_error()),
                    (Path::new(program), Some(errno))
                );
            }
            other => panic!("{program}: {other:?}"),
        }
    }
    let mut empty = fixture.plan("");
    empty.process.args.clear();
    assert!(run(&empty).error().contains("no program is named"));
}

const fn libc_enoent() -> i32 {
    2
}

#[test]
fn privileged_kill_ends_the_whole_pid_namespace_at_once() {
    let Some(fixture) = Fixture::new() else { return };
    let script = "for i in 1 2 3; do sh -c 'trap \"\" TERM INT HUP; echo up; sleep 600' & done; wait";
    let running = Arc::new(sandbox().spawn(&fixture.plan(script), &[]).unwrap());
    let mut stdout = running.take_stdout().unwrap();
    stdout.read_exact(&mut [0; 9]).unwrap();
    let start = Instant::now();
    let killer = Arc::clone(&running);
    std::thread::spawn(move || killer.kill());
    let exit = running.wait().unwrap();
    assert_eq!(exit.status, ExitStatus::Signal(9));
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "nobody holds the pipe any more"
    );
    running.kill();
}

#[test]
fn privileged_processes_left_behind_end_with_the_step() {
    let Some(fixture) = Fixture::new() else { return };
    let start = Instant::now();
    assert_eq!(fixture.run("sleep 600 & echo done").ok(), "done\n");
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn privileged_dropping_kills_and_waits() {
    let Some(fixture) = Fixture::new() else { return };
    let marker = "86471";
    let running = sandbox()
        .spawn(&fixture.plan(&format!("echo up; sleep {marker}; true")), &[])
        .unwrap();
    running.take_stdout().unwrap().read_exact(&mut [0; 3]).unwrap();
    wait_for_processes(marker, 2);
    drop(running);
    assert_eq!(processes(marker), 0);
}

#[test]
fn privileged_nothing_survives_a_killed_caller() {
    let Some(fixture) = Fixture::new() else { return };
    let marker = "86472";
    let plan = fixture.plan(&format!("echo up; sleep {marker}; true"));
    let file = fixture.path("plan.json");
    std::fs::write(&file, serde_json::to_vec(&plan).unwrap()).unwrap();
    let mounts_before = host_mounts();
    let mut caller = Command::new(probe())
        .arg("run")
        .arg(&file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    caller.stdout.take().unwrap().read_exact(&mut [0; 3]).unwrap();
    wait_for_processes(marker, 2);
    assert_eq!(
        host_mounts(),
        mounts_before,
        "a running step shows no mounts outside"
    );
    caller.kill().unwrap();
    caller.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while processes(marker) > 0 {
        assert!(Instant::now() < deadline, "the step outlives its caller");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(host_mounts(), mounts_before);
    // The work directory would be busy if the overlay were still mounted somewhere.
    assert_eq!(fixture.run("echo again").ok(), "again\n");
}

#[test]
fn privileged_nothing_survives_a_killed_supervisor() {
    let Some(fixture) = Fixture::new() else { return };
    let marker = "86473";
    let sandbox = sandbox();
    let running = sandbox
        .spawn(&fixture.plan(&format!("echo up; sleep {marker}; true")), &[])
        .unwrap();
    running.take_stdout().unwrap().read_exact(&mut [0; 3]).unwrap();
    // Tests beside this one have supervisors too.
    let steps: Vec<i32> = all(marker).filter_map(parent).collect();
    let mut supervisors = supervisors();
    supervisors.retain(|pid| steps.contains(&pid.as_raw_nonzero().get()));
    assert_eq!(supervisors.len(), 1, "{supervisors:?}");
    rustix::process::kill_process(supervisors[0], rustix::process::Signal::KILL).unwrap();
    assert!(matches!(running.wait(), Err(WaitError::Lost)));
    let deadline = Instant::now() + Duration::from_secs(20);
    while processes(marker) > 0 {
        assert!(Instant::now() < deadline, "the step outlives its supervisor");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn privileged_limits_asked_for_are_set_or_refused_by_name() {
    let Some(fixture) = Fixture::new() else { return };
    let with = |resource, soft, hard, required| {
        let mut plan = fixture.plan("ulimit -S -n; ulimit -H -n; ulimit -S -c; ulimit -H -c");
        plan.process.rlimits = vec![Rlimit {
            resource,
            soft,
            hard,
            required,
        }];
        run(&plan)
    };
    let set = with(RlimitResource::Nofile, Some(77), Some(99), true);
    assert_eq!(set.ok(), "77\n99\n0\n0\n", "core dumps are off");
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let Some(hard) = hard.filter(|_| !has_sys_resource()) else {
        println!("SKIP: this machine may raise every limit");
        return;
    };
    let lowered = with(RlimitResource::Nofile, Some(hard + 1), Some(hard + 1), false);
    assert_eq!(lowered.exit.as_ref().unwrap().warnings.len(), 1);
    assert!(lowered.exit.as_ref().unwrap().warnings[0].contains("nofile"));
    assert!(lowered.ok().starts_with(&format!("{hard}\n{hard}\n")));
    let refused = with(RlimitResource::Nofile, Some(hard + 1), Some(hard + 1), true).error();
    assert!(
        refused.contains("nofile") && refused.contains(&hard.to_string()),
        "{refused}"
    );
    let upside_down = with(RlimitResource::Nofile, Some(9), Some(8), true).error();
    assert!(upside_down.contains("nofile"), "{upside_down}");
}

fn has_sys_resource() -> bool {
    let sets = rustix::thread::capabilities(None).unwrap();
    sets.effective
        .contains(rustix::thread::CapabilitySet::SYS_RESOURCE)
}

#[test]
fn privileged_a_cgroup_of_its_own() {
    let Some(fixture) = Fixture::new() else { return };
    let unified = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .find(|place| Path::new(place).join("cgroup.procs").exists());
    let Some(unified) = unified else {
        println!("SKIP: no unified cgroup hierarchy");
        return;
    };
    let name = format!("/rbuild-test-{}", std::process::id());
    let mut plan = fixture.plan("cat /proc/self/cgroup");
    plan.cgroup_parent = Some(name.clone().into());
    let seen = run(&plan).ok();
    assert!(
        seen.lines().any(|line| line == "0::/"),
        "the step sees itself at the top: {seen}"
    );
    let parent = Path::new(unified).join(name.trim_start_matches('/'));
    assert!(
        !parent.exists(),
        "the step's group is gone, and the parent made for it"
    );
}

#[test]
fn privileged_setup_errors_name_what_and_where() {
    let Some(fixture) = Fixture::new() else { return };
    let mut plan = fixture.plan("true");
    plan.root.source = Source::Path("/nonexistent/root".into());
    let text = run(&plan).error();
    assert!(
        text.contains("/nonexistent/root") && text.contains("No such file"),
        "{text}"
    );
    let mut plan = fixture.plan("true");
    plan.hostname = "h".repeat(65);
    assert!(run(&plan).error().contains("host name"));
    let mut plan = fixture.plan("true");
    plan.root.source = Source::Fd(0);
    assert!(run(&plan).error().contains("descriptor 0"));
}

#[test]
fn privileged_that_somebody_still_has_a_steps_files_open_is_told_and_nothing_else_is() {
    let Some(fixture) = Fixture::new() else { return };
    let meeting = |script: &str| {
        let mut plan = fixture.plan(script);
        plan.meets_others = true;
        plan
    };
    // What a step leaves running ends with it, and is nobody's.
    let own = run(&meeting(
        "exec 3>/own; (sleep 71234 & sleep 71234 3<&3 &); echo done",
    ));
    assert!(!own.exit.unwrap().is_in_use);

    let running = sandbox().spawn(&meeting("echo x >/f; sleep 71235"), &[]).unwrap();
    wait_for_processes("sleep\x0071235", 1);
    let pid = all("sleep\x0071235").next().unwrap();
    let held = std::fs::File::open(format!("/proc/{pid}/root/f")).unwrap();
    running.kill();
    assert!(running.wait().unwrap().is_in_use);
    drop(held);
}

#[test]
fn privileged_a_root_that_is_given_is_gone_with_the_step() {
    let Some(fixture) = Fixture::new() else { return };
    let mut plan = fixture.plan("grep -c ' / / ' /proc/self/mountinfo; echo kept >/home/f");
    let Source::Overlay(overlay) = std::mem::replace(&mut plan.root.source, Source::Given) else {
        panic!("the fixture's root is no overlay");
    };
    let mounted = overlay.spec().mount().unwrap();
    let mut uses = Uses::new().unwrap();
    uses.watch(mounted.as_fd()).unwrap();
    let running = sandbox().spawn_on(mounted.as_fd(), &plan, &[]).unwrap();
    drop(mounted);
    let done = finish(&running);
    assert_eq!(
        (done.stdout.as_str(), done.stderr.as_str()),
        ("1\n", ""),
        "one mount at the root"
    );
    assert!(!done.exit.unwrap().is_in_use);
    let gone = uses.end_within(Duration::from_millis(500));
    assert!(gone.unwrap(), "the step has ended, its root is mounted still");
    let written = std::fs::read(fixture.path("upper/home/f")).unwrap();
    assert_eq!(written, b"kept\n");
}

#[test]
fn privileged_of_a_root_that_was_given_nobody_knows_who_uses_it() {
    let Some(fixture) = Fixture::new() else { return };
    let mut plan = fixture.plan("true");
    let Source::Overlay(overlay) = std::mem::replace(&mut plan.root.source, Source::Given) else {
        panic!("the fixture's root is no overlay");
    };
    plan.meets_others = true;
    let mounted = overlay.spec().mount().unwrap();
    let running = sandbox().spawn_on(mounted.as_fd(), &plan, &[]).unwrap();
    drop(mounted);
    assert!(finish(&running).exit.unwrap().is_in_use);
    // Without the mount that its plan speaks of there is no step.
    let text = run(&plan).error();
    assert!(text.contains("the given mount"), "{text}");
}

#[test]
fn privileged_many_steps_at_once() {
    let Some(fixture) = Fixture::new() else { return };
    let sandbox = sandbox();
    std::thread::scope(|scope| {
        for i in 0..8 {
            let (sandbox, fixture) = (&sandbox, &fixture);
            scope.spawn(move || {
                for _ in 0..3 {
                    let mut plan = fixture.plan("cat /m; ls /proc/self/fd | wc -l");
                    let Source::Overlay(overlay) = &mut plan.root.source else {
                        unreachable!()
                    };
                    let dir = fixture.path(&format!("t{i}"));
                    for name in ["u", "w"] {
                        std::fs::create_dir_all(dir.join(name)).unwrap();
                    }
                    (overlay.upper, overlay.work) = (Some(dir.join("u")), Some(dir.join("w")));
                    plan.mounts = vec![crate::mounts::file("/m", &format!("{i}\n"))];
                    let done = finish(&sandbox.spawn(&plan, &[]).unwrap());
                    assert_eq!(
                        done.ok(),
                        format!("{i}\n4\n"),
                        "three descriptors and the directory's own"
                    );
                }
            });
        }
    });
}

/// The shell says that it is up before it has started its sleep.
fn wait_for_processes(text: &str, count: usize) {
    for _ in 0..500 {
        if processes(text) == count {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{} processes of {text}, not {count}", processes(text));
}

/// Processes with this text in their command line, ours apart.
fn processes(text: &str) -> usize {
    all(text).count()
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

fn all(text: &str) -> impl Iterator<Item = i32> {
    let me = i32::try_from(std::process::id()).unwrap();
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(move |pid| {
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        *pid != me && String::from_utf8_lossy(&cmdline).contains(text)
    })
}

fn host_mounts() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap()
}

#[test]
fn privileged_a_supervisor_that_died_while_it_waited_for_a_step_is_replaced() {
    let Some(fixture) = Fixture::new() else { return };
    let sandbox = sandbox();
    let run = || {
        let running = sandbox.spawn(&fixture.plan("exit 7"), &[]).unwrap();
        running.wait().unwrap().status
    };
    assert_eq!([run(), run()], [ExitStatus::Code(7); 2]);
    let [waiting] = waiting(1)[..] else { unreachable!() };
    rustix::process::kill_process(waiting, rustix::process::Signal::KILL).unwrap();
    let stat = format!("/proc/{}/stat", waiting.as_raw_nonzero());
    let until = Instant::now() + Duration::from_secs(10);
    while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
        assert!(Instant::now() < until, "{stat}");
        std::thread::yield_now();
    }
    assert_eq!([run(), run()], [ExitStatus::Code(7); 2]);
    let [next] = self::waiting(1)[..] else {
        unreachable!()
    };
    assert_ne!(next, waiting);
    drop(sandbox);
    assert_eq!((zygotes(), supervisors()), (vec![], vec![]));
}

#[test]
fn privileged_a_step_outlives_the_zygote_and_the_next_has_a_new_one() {
    let Some(fixture) = Fixture::new() else { return };
    let sandbox = sandbox();
    let start = || {
        let plan = fixture.plan("trap 'exit 7' USR1; echo up; while :; do sleep 0.01; done");
        let running = sandbox.spawn(&plan, &[]).unwrap();
        running.take_stdout().unwrap().read_exact(&mut [0; 3]).unwrap();
        running
    };
    let end = |running: Running| {
        running.signal(rustix::process::Signal::USR1.as_raw());
        running.wait().unwrap().status
    };
    let running = start();
    let [zygote] = zygotes()[..] else {
        panic!("{:?}", zygotes())
    };
    rustix::process::kill_process(zygote, rustix::process::Signal::KILL).unwrap();
    assert_eq!(end(running), ExitStatus::Code(7));
    assert_eq!(end(start()), ExitStatus::Code(7));
    assert!(!zygotes().contains(&zygote), "it would be another's");
    assert_eq!(zygotes().len(), 1);
}

#[test]
fn privileged_one_waits_for_the_step_after_the_second_and_is_the_one_that_is_taken() {
    let Some(fixture) = Fixture::new() else { return };
    let sandbox = sandbox();
    let run = |command: &str| sandbox.spawn(&fixture.plan(command), &[]).unwrap();
    run("exit 0").wait().unwrap();
    assert_eq!(supervisors(), [], "one step may be all");
    run("exit 0").wait().unwrap();
    let [spare] = waiting(1)[..] else { unreachable!() };
    let marker = "86491";
    let third = run(&format!("echo up; sleep {marker}; true"));
    third.take_stdout().unwrap().read_exact(&mut [0; 3]).unwrap();
    let parents: Vec<i32> = all(marker).filter_map(parent).collect();
    assert!(
        parents.contains(&spare.as_raw_nonzero().get()),
        "{parents:?} {spare:?}"
    );
    // It, and the next.
    waiting(2);
    drop(third);
    drop(sandbox);
    assert_eq!((zygotes(), supervisors()), (vec![], vec![]));
}

/// The processes that this one had started to look after steps, once there are `count` of them.
fn waiting(count: usize) -> Vec<rustix::process::Pid> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let found = supervisors();
        if found.len() == count {
            return found;
        }
        assert!(Instant::now() < until, "{found:?}");
        std::thread::yield_now();
    }
}

/// Processes that look after steps of this one, or wait for some, and that did not end.
fn supervisors() -> Vec<rustix::process::Pid> {
    zygotes().into_iter().flat_map(inits_below).collect()
}

/// Processes that this one started to have such forked.
fn zygotes() -> Vec<rustix::process::Pid> {
    inits_below(rustix::process::getpid())
}

fn inits_below(pid: rustix::process::Pid) -> Vec<rustix::process::Pid> {
    let mut found = Vec::new();
    let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())) else {
        return found;
    };
    for thread in threads {
        let children = std::fs::read_to_string(thread.unwrap().path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            let name = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            if name.starts_with(b"rbuild-sandbox-init") {
                found.extend(child.parse().ok().and_then(rustix::process::Pid::from_raw));
            }
        }
    }
    found
}
