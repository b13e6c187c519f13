//! Limits of control groups: that they hold, what is told of them, and that no group stays. On whatever this machine has:
//! version 1, version 2 or both.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rbuild_sandbox::{ExitStatus, Limits, Plan, Swap};

use crate::fixture::{Done, Fixture, finish, probe, run, sandbox};

/// Where a group of all trees with a parent of this name would be.
fn groups(parent: &str) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let trees = mounts.lines().filter(|line| line.contains(" - cgroup"));
    trees
        .filter_map(|line| line.split(' ').nth(4))
        .map(|mount| Path::new(mount).join(parent))
        .filter(|path| path.exists())
        .collect()
}

/// Where the tree with a controller is mounted, and which version it is.
fn tree(controller: &str) -> Option<(PathBuf, u8)> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = || {
        text.lines()
            .filter_map(|line| line.split_once(" - "))
            .filter_map(|(mount, of)| Some((PathBuf::from(mount.split(' ').nth(4)?), of)))
    };
    let lists = |list: &str, by: char| list.split(by).any(|name| name.trim() == controller);
    let old = mounts().find(|(_, of)| {
        of.strip_prefix("cgroup ")
            .and_then(|of| of.rsplit(' ').next())
            .is_some_and(|options| lists(options, ','))
    });
    let new = || {
        mounts().find(|(mount, of)| {
            let text = std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
            of.starts_with("cgroup2 ") && lists(&text, ' ')
        })
    };
    old.map(|(mount, _)| (mount, 1))
        .or_else(|| new().map(|(mount, _)| (mount, 2)))
}

/// Whether a controller can be had: by this test's own group or the top of all.
fn has(controller: &str) -> bool {
    let has = tree(controller).is_some();
    if !has {
        println!("SKIP: no cgroup controller {controller}");
    }
    has
}

struct Limited {
    fixture: Fixture,
    parent: String,
}

impl Limited {
    fn new(name: &str, controller: &str) -> Option<Self> {
        if !has(controller) {
            return None;
        }
        Some(Self {
            fixture: Fixture::new()?,
            parent: format!("rbuild-test-{name}-{}", std::process::id()),
        })
    }

    fn plan(&self, script: &str, limits: Limits) -> Plan {
        let mut plan = self.fixture.plan(script);
        plan.cgroup_parent = Some(Path::new("/").join(&self.parent));
        plan.limits = limits;
        plan
    }

    fn run(&self, script: &str, limits: Limits) -> Done {
        let done = run(&self.plan(script, limits));
        self.check_nothing_left();
        done
    }

    fn check_nothing_left(&self) {
        assert_eq!(groups(&self.parent), Vec::<PathBuf>::new(), "no group stays");
    }
}

fn warnings(done: &Done) -> Vec<String> {
    done.exit.as_ref().unwrap().warnings.clone()
}

#[test]
fn privileged_a_step_over_its_memory_is_killed_and_that_is_known() {
    let Some(step) = Limited::new("memory", "memory") else {
        return;
    };
    let limits = Limits {
        memory_bytes: Some(48 << 20),
        ..Limits::default()
    };
    let hungry = "dd if=/dev/zero of=/dev/null bs=200M count=1; echo it ended with $?; exit 3";
    let done = step.run(hungry, limits.clone());
    assert!(
        done.stdout.contains("it ended with 137"),
        "{}{}",
        done.stdout,
        done.stderr
    );
    let usage = done.exit.as_ref().unwrap().usage.clone();
    assert_eq!(usage.oom, Some(true));
    assert_eq!(usage.memory_limit_bytes, Some(48 << 20));
    let peak = usage.memory_peak_bytes.unwrap();
    assert!(peak > 40 << 20 && peak <= 48 << 20, "{peak}");
    assert_eq!(warnings(&done), Vec::<String>::new());

    let modest = step.run("dd if=/dev/zero of=/dev/null bs=20M count=1", limits);
    let usage = modest.exit.as_ref().unwrap().usage.clone();
    modest.ok();
    assert_eq!(usage.oom, Some(false));
    let peak = usage.memory_peak_bytes.unwrap();
    assert!(peak > 19 << 20 && peak < 48 << 20, "{peak}");
    assert!(usage.largest_process_bytes > 19 << 20, "{usage:?}");
}

#[test]
fn privileged_limits_of_the_parent_hold_for_the_step() {
    let Some(step) = Limited::new("parent", "pids") else {
        return;
    };
    let (top, version) = tree("pids").unwrap();
    let parent = top.join(&step.parent);
    if version == 2 {
        // Which controllers groups have is for whoever is above to say, also for a limit that is not rbuild's.
        std::fs::write(top.join("cgroup.subtree_control"), "+pids").unwrap();
    }
    std::fs::create_dir(&parent).unwrap();
    std::fs::write(parent.join("pids.max"), "10").unwrap();
    // Root's: `--ulimit nproc` does not hold root of the machine, whom the kernel exempts (kernel/fork.c, `copy_process`).
    let bomb = "i=0; while [ $i -lt 20 ]; do sleep 5 & i=$((i+1)); done; echo all";
    let done = run(&step.plan(bomb, Limits::default()));
    std::fs::remove_dir(&parent).unwrap();
    step.check_nothing_left();
    assert!(
        !done.stdout.contains("all") && done.stderr.contains("fork"),
        "{}{}",
        done.stdout,
        done.stderr
    );
}

/// What the kernel counts of the one group that a step has: periods of its quota, and those in which it was held back
/// (`cpu.stat`, alike in both versions).
fn periods_and_held_back(step: &Limited) -> (u64, u64) {
    let parent = tree("cpu").unwrap().0.join(&step.parent);
    let groups = std::fs::read_dir(&parent)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let groups: Vec<PathBuf> = groups.filter(|path| path.is_dir()).collect();
    let [group] = groups.as_slice() else {
        panic!("{groups:?}");
    };
    let text = std::fs::read_to_string(group.join("cpu.stat")).unwrap();
    let count = |name: &str| -> u64 {
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("{name} of {text}"))
    };
    (count("nr_periods "), count("nr_throttled "))
}

/// By the kernel's own counts and not by the clock: a loaded machine gives a step less than its quota in most periods.
#[test]
fn privileged_a_quota_of_processor_time_holds() {
    const QUOTA_US: u64 = 10_000;
    let Some(step) = Limited::new("cpu", "cpu") else {
        return;
    };
    // A share so small that a step gets it beside whatever else runs.
    let limits = Limits {
        cpu_quota_us: Some(QUOTA_US),
        cpu_period_us: Some(500_000),
        cpu_shares: Some(512),
        ..Limits::default()
    };
    let running = sandbox()
        .spawn(&step.plan("while :; do :; done", limits), &[])
        .unwrap();
    assert!(running.ready().is_some());
    let give_up = Instant::now() + Duration::from_secs(60);
    let mut counted = periods_and_held_back(&step);
    let begun = counted.1;
    while counted.1 < begun + 2 && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(50));
        counted = periods_and_held_back(&step);
    }
    running.kill();
    let done = finish(&running);
    step.check_nothing_left();
    let exit = done.exit.unwrap();
    assert_eq!((exit.status, exit.warnings), (ExitStatus::Signal(9), vec![]));
    let (periods, held_back) = counted;
    assert!(
        held_back >= begun + 2,
        "held back in {held_back} of {periods} periods"
    );
    // What is left over of one period is the next one's, and what is taken too much is given back.
    let allowed = 2 * QUOTA_US * (periods + 2);
    let used = exit.usage.cpu_us;
    assert!(used <= allowed, "{used} us in {periods} periods");
}

#[test]
fn privileged_processors_are_those_named() {
    let Some(step) = Limited::new("cpuset", "cpuset") else {
        return;
    };
    let named = |cpus: &str| Limits {
        cpuset_cpus: Some(cpus.to_owned()),
        ..Limits::default()
    };
    let allowed = "grep Cpus_allowed_list /proc/self/status";
    let done = step.run(allowed, named("0"));
    assert_eq!(warnings(&done), Vec::<String>::new());
    assert_eq!(done.ok(), "Cpus_allowed_list:\t0\n");
    let mut plan = step.fixture.plan("true");
    plan.limits = named("0");
    assert_eq!(
        warnings(&run(&plan)),
        Vec::<String>::new(),
        "and beside rbuild's own group"
    );
}

#[test]
fn privileged_what_cannot_be_had_is_told_and_an_error_if_asked() {
    let Some(step) = Limited::new("told", "memory") else {
        return;
    };
    let mut limits = Limits {
        memory_swap: Some(Swap::Bytes(1 << 20)),
        cpuset_cpus: Some("4095".to_owned()),
        ..Limits::default()
    };
    let done = step.run("echo it runs", limits.clone());
    let told = warnings(&done).join("\n");
    assert_eq!(done.ok(), "it runs\n");
    for part in [
        "the limit memory-swap=1048576 could not be set: it needs a limit of memory beside it; the step runs without it",
        "the limit cpuset-cpus=4095 could not be set: ",
    ] {
        assert!(told.contains(part), "{told}");
    }
    limits.strict = true;
    let error = step.run("echo it runs", limits).error();
    assert!(
        error.contains("keep \"--strict-limits\": the limit memory-swap=1048576 could not be set"),
        "{error}"
    );
}

#[test]
fn privileged_groups_left_by_a_killed_supervisor_are_taken_away() {
    let Some(step) = Limited::new("left", "memory") else {
        return;
    };
    let limits = Limits {
        memory_bytes: Some(64 << 20),
        ..Limits::default()
    };
    let plan = step.fixture.path("plan.json");
    let text = serde_json::to_vec(&step.plan("echo up; sleep 600", limits.clone())).unwrap();
    std::fs::write(&plan, text).unwrap();
    let start = || {
        let mut child = std::process::Command::new(probe())
            .arg("run")
            .arg(&plan)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        child
    };
    // rbuild alone is killed: its supervisor cleans up.
    let mut child = start();
    assert!(!groups(&step.parent).is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !groups(&step.parent).is_empty() {
        assert!(Instant::now() < deadline, "{:?}", groups(&step.parent));
        std::thread::sleep(Duration::from_millis(20));
    }
    // Both are: the next step cleans up.
    let mut child = start();
    let only_child = |pid: u32| -> u32 {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.trim().parse().unwrap()
    };
    let supervisor = i32::try_from(only_child(only_child(child.id()))).unwrap();
    let supervisor = rustix::process::Pid::from_raw(supervisor).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
    child.wait().unwrap();
    assert!(!groups(&step.parent).is_empty());
    let again = |_| step.plan("true", limits.clone());
    // A step that is being killed leaves its group in a moment.
    let gone = (0..50).map(again).any(|plan| {
        std::thread::sleep(Duration::from_millis(50));
        run(&plan).ok();
        groups(&step.parent).is_empty()
    });
    assert!(gone, "{:?}", groups(&step.parent));
}

#[test]
fn privileged_no_limit_makes_no_group() {
    let Some(fixture) = Fixture::new() else { return };
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let places = own.lines().filter_map(|line| line.splitn(3, ':').nth(2)).count();
    let seen = fixture.run("cat /proc/self/cgroup; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done");
    let usage = seen.exit.as_ref().unwrap().usage.clone();
    let seen = seen.ok();
    assert_eq!(seen.lines().count(), places);
    assert!(!seen.contains("rbuild-step"), "{seen}");
    assert_eq!((usage.oom, usage.memory_limit_bytes), (None, None));
    assert!(usage.cpu_us > 1000, "{usage:?}");
}
