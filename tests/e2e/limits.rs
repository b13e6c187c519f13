//! Steps that use too much, take too long, or fail at first: limits, `--run-timeout`, `--run-retries`.

use std::time::{Duration, Instant};

use rbuild_testkit::command::Ran;
use rbuild_testkit::residue::{own_sleep, processes};

use crate::e2e::fixture::{Fixture, RBUILD, busybox_argument};
use crate::e2e::hostile::canary::{Rung, Site};

/// Whether limits of memory can be had: by whoever may make a group where memory is counted.
fn has_memory_limits() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let v1 = mounts
        .lines()
        .any(|line| line.contains(" - cgroup cgroup ") && line.ends_with(",memory"));
    let unified = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let has = v1 || unified.split_whitespace().any(|name| name == "memory");
    if !has || !rustix::process::geteuid().is_root() {
        println!("SKIP: memory cannot be limited here");
    }
    has && rustix::process::geteuid().is_root()
}

#[test]
fn privileged_a_step_killed_for_memory_says_so_and_limits_are_no_part_of_a_key() {
    if !has_memory_limits() {
        return;
    }
    let fixture =
        Fixture::new("FROM busybox\nRUN dd if=/dev/zero of=/dev/null bs=200M count=1 && echo done > /done\n");
    let said = "cannot allocate memory: killed for memory at 48 MiB";
    let build = |flags: &[&str]| fixture.build_of().args(flags).arg(fixture.context.dir());
    build(&["--memory=48m"]).fails().says(said).says("Dockerfile:2");
    build(&["--resource=memory=48m"]).fails().says(said);
    let ran = build(&["--memory=1g", "--cpu-shares=512"])
        .ok()
        .never_says("killed for memory");
    assert!(!ran.executed().is_empty());
    let again = build(&["--memory=48m", "--cpu-quota=50000"]).ok();
    let cached = again.cached();
    assert!(cached.iter().any(|name| name.contains("RUN dd")), "{again}");
}

#[test]
fn a_step_that_ends_otherwise_was_not_killed_for_memory() {
    let fixture = Fixture::new("FROM busybox\nRUN sh -c 'kill -9 $$'; exit $?\n");
    let build = fixture.build_of().arg("--memory=64m").arg(fixture.context.dir());
    build
        .fails()
        .says("exit code: 137")
        .never_says("killed for memory");
}

#[test]
fn what_cannot_be_had_is_told_once_and_is_an_error_if_asked() {
    let fixture = Fixture::new("FROM busybox\nRUN echo one\nRUN echo two\n");
    let build = |flags: &[&str]| {
        let flags = ["--cpuset-cpus=4095"].iter().chain(flags);
        fixture.build_of().args(flags).arg(fixture.context.dir())
    };
    let told = |ran: &Ran| {
        ran.stderr
            .matches("WARN: the limit cpuset-cpus=4095 could not be set: ")
            .count()
    };
    let ran = build(&["--no-cache"]).ok();
    assert_eq!(told(&ran), 1, "{ran}");
    let refused = build(&["--no-cache", "--strict-limits"]).fails();
    refused.says("keep \"--strict-limits\": the limit cpuset-cpus=4095 could not be set: ");
}

#[test]
fn rootless_limits_that_a_user_cannot_have_are_told() {
    let Some(fixture) = Fixture::rootless("FROM busybox\nRUN echo one\nRUN echo two\n") else {
        return;
    };
    let build = fixture.build_of().arg("--memory=256m").arg(fixture.context.dir());
    let ran = build.ok();
    let told = ran
        .stderr
        .matches("WARN: the limit memory=268435456 could not be set: ")
        .count();
    // Where a user is given a part of the tree of groups, the limit holds.
    assert!(told <= 1, "{ran}");
    if told == 0 {
        let hungry =
            Fixture::rootless("FROM busybox\nRUN dd if=/dev/zero of=/dev/null bs=200M count=1\n").unwrap();
        let build = hungry.build_of().arg("--memory=48m").arg(hungry.context.dir());
        build.fails().says("killed for memory at 48 MiB");
    }
}

/// A control group that belongs to a user.
struct Given(std::path::PathBuf);

impl Given {
    /// Of version 1 for memory, as an administrator of such a machine gives one (`cgcreate -a`).
    fn for_memory(uid: u32) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts
            .lines()
            .find(|line| line.contains(" - cgroup cgroup ") && line.ends_with(",memory"));
        let Some(mount) = mount.filter(|_| rustix::process::geteuid().is_root()) else {
            println!("SKIP: there is no control group of version 1 for memory to give away");
            return None;
        };
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own
            .lines()
            .find_map(|line| line.split_once(":memory:"))
            .map_or("/", |(_, path)| path);
        let top = std::path::Path::new(mount.split(' ').nth(4).unwrap()).join(own.trim_start_matches('/'));
        Some(Self::below(&top, uid))
    }

    /// Of version 2, where another version has the controllers: a delegated tree of which nothing can be had.
    fn without_controllers(uid: u32) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let mount = mount
            .and_then(|line| line.split(' ').nth(4))
            .map(std::path::PathBuf::from);
        let bare = |top: &std::path::PathBuf| {
            let has = std::fs::read_to_string(top.join("cgroup.controllers")).unwrap_or_default();
            !has.split_whitespace().any(|name| name == "memory")
        };
        let Some(top) = mount
            .filter(bare)
            .filter(|_| rustix::process::geteuid().is_root())
        else {
            println!("SKIP: version 2 is not here, or has the controllers");
            return None;
        };
        Some(Self::below(&top, uid))
    }

    fn below(top: &std::path::Path, uid: u32) -> Self {
        let dir = top.join(format!("rbuild-test-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        for entry in std::fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .chain([dir.clone()])
        {
            std::os::unix::fs::chown(entry, Some(uid), Some(uid)).unwrap();
        }
        Self(dir)
    }

    /// A build of the site by a process in this group.
    fn builds(&self, site: &Site, limit: &str) -> Ran {
        site.fixture.home.hand_over();
        // Whoever gives a group of version 2 away has to put the first process there too: its way begins above.
        let shell = site.fixture.home.command("/bin/sh").user(0, 0);
        let user = site.rung().user();
        let enter = format!(
            "echo $$ > \"$0/cgroup.procs\" && exec setpriv --reuid {user} --regid {user} --clear-groups \"$@\""
        );
        let build = shell
            .args(["-c", &enter])
            .arg(&self.0)
            .args([RBUILD, "build", "--progress=plain"]);
        let base = busybox_argument("busybox");
        let build = build.args(site.rung().argument()).args([base.as_str(), limit]);
        build.arg(site.fixture.context.dir()).run()
    }

    /// Nothing that a build made is in the group.
    #[track_caller]
    fn assert_empty(&self, rung: Rung) {
        let entries = std::fs::read_dir(&self.0).unwrap().flatten();
        let left: Vec<_> = entries.filter(|entry| entry.path().is_dir()).collect();
        assert!(left.is_empty(), "{rung:?}: {left:?}");
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.0).ok();
    }
}

#[test]
fn rootless_a_limit_holds_where_a_user_is_given_a_group() {
    for rung in [Rung::Subids, Rung::OneId] {
        if !Rung::here().contains(&rung) {
            return;
        }
        let site = Site::on(
            rung,
            "FROM busybox\nRUN dd if=/dev/zero of=/dev/null bs=200M count=1 && echo done > /done\n",
        );
        let Some(group) = Given::for_memory(rung.user()) else {
            return;
        };
        let ran = group.builds(&site, "--memory=48m").failed();
        let ran = ran.says("cannot allocate memory: killed for memory at 48 MiB");
        ran.never_says("could not be set");
        // The legal twin; and nothing of the groups is left in the one that was given.
        let ran = group.builds(&site, "--memory=1g").succeeded();
        ran.never_says("could not be set");
        group.assert_empty(rung);
    }
}

#[test]
fn rootless_a_delegated_group_without_controllers_is_told_and_left_as_it_was() {
    for rung in [Rung::Subids, Rung::OneId] {
        if !Rung::here().contains(&rung) {
            return;
        }
        let site = Site::on(rung, "");
        let Some(group) = Given::without_controllers(rung.user()) else {
            return;
        };
        for limit in ["--memory=48m", "--cpu-quota=50000", "--cpu-shares=512"] {
            // Steps that are not cached: their text is another one.
            let steps = format!("FROM busybox\nRUN echo one {limit}\nRUN echo two {limit}\n");
            site.fixture.context.dockerfile(&steps);
            let ran = group.builds(&site, limit).succeeded();
            let name = limit
                .trim_start_matches("--")
                .split('=')
                .next()
                .unwrap_or_default();
            let told = ran.stderr.matches(&format!("WARN: the limit {name}=")).count();
            assert_eq!(told, 1, "{rung:?}: {ran}");
            group.assert_empty(rung);
        }
    }
}

#[test]
fn a_limit_of_a_process_that_cannot_be_raised_is_named() {
    let sets = rustix::thread::capabilities(None).unwrap();
    let may = rustix::thread::CapabilitySet::SYS_RESOURCE;
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let Some(hard) = hard.filter(|_| !sets.effective.contains(may)) else {
        println!("SKIP: this machine may raise every limit");
        return;
    };
    let fixture = Fixture::new("FROM busybox\nRUN ulimit -n > /n\n");
    let with = |limit: u64| {
        let flag = format!("--ulimit=nofile={limit}:{limit}");
        fixture.build_of().arg(flag).arg(fixture.context.dir())
    };
    let ran = with(hard + 1).fails();
    ran.says("nofile")
        .says(&format!("is above the machine's hard limit of {hard}"));
    with(hard.min(512)).ok();
}

#[test]
fn a_step_that_hangs_is_ended_whole() {
    let seconds = own_sleep(3600, 1);
    let fixture = Fixture::new(&format!(
        "FROM busybox\nRUN echo begun; (sleep {seconds} &); sleep 4322\n"
    ));
    let before = fixture.residue();
    let build = fixture
        .build_of()
        .arg("--run-timeout=1500ms")
        .arg(fixture.context.dir());
    let started = Instant::now();
    let ran = build.fails();
    assert!(started.elapsed() < Duration::from_secs(30), "{ran}");
    ran.says("begun")
        .says("sleep 4322\" was ended: it did not complete within 1.5s")
        .says("Dockerfile:2");
    fixture.assert_clean_since(&before);
    let left = processes(&seconds);
    assert!(left.is_empty(), "{left:?}");
    let fine = fixture.build_of().arg("--run-timeout=1h").arg("--build-arg=X=1");
    fixture.context.dockerfile("FROM busybox\nRUN true\n");
    fine.arg(fixture.context.dir()).ok();
}

#[test]
fn a_step_is_run_again_on_what_it_began_with() {
    let fixture = Fixture::new(
        "FROM busybox\n\
         RUN --mount=type=cache,target=/c echo x >> /c/n; test -e /seen && exit 9; touch /seen; n=$(wc -l < /c/n); \
         echo run $n; test $n -ge 3\n\
         RUN test -e /seen\n",
    );
    let build = |flags: &[&str]| fixture.build_of().args(flags).arg(fixture.context.dir());
    let ran = build(&["--run-retries=1"]).fails();
    ran.says("run 1")
        .says("retry 1 of 1, on what the step began with")
        .says("exit code: 1")
        .never_says("exit code: 9");
    let ran = build(&["--run-retries=5"]).ok();
    ran.says("run 3").never_says("retry");
    let again = build(&["--run-retries=7", "--run-timeout=5m"]).ok();
    assert!(
        again.executed().iter().all(|name| !name.contains("RUN")),
        "rules are no part of a key: {again}"
    );
}
