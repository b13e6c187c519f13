//! What a step is, sees and may do.

use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};

use rbuild_sandbox::{Ids, Network, Plan, RootPlan, Security, Source};

use crate::fixture::{Fixture, finish, probe, run, sandbox};

/// Docker's 14 default capabilities as the kernel prints them.
const DEFAULT_CAPABILITIES: &str = "00000000a80425fb";

fn caps(text: &str, name: &str) -> String {
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .unwrap_or_default();
    line.split_whitespace().last().unwrap_or_default().to_owned()
}

#[test]
fn privileged_row23_no_foreign_descriptors_and_no_way_out_by_cwd() {
    let Some(fixture) = Fixture::new() else { return };
    // Descriptors without close-on-exec, as a careless library would leave them.
    let leaked: Vec<_> = (0..20)
        .map(|_| {
            let fd = rustix::fs::open("/", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
            rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).unwrap();
            fd
        })
        .collect();
    let seen = fixture.run("ls /proc/self/fd; pwd -P").ok();
    assert_eq!(seen, "0\n1\n2\n3\n/\n", "3 is ls's own");
    let highest = leaked.iter().map(|fd| fd.as_raw_fd()).max().unwrap();
    symlink("/proc/self/fd/7", fixture.path("lower/link")).unwrap();
    // The way up from a mount must end at the step's own root, whatever is stacked there.
    let up = fixture.run("cd /proc/1/fd && cat ../../../etc/hostname ../../../../../etc/hostname; ls ../../..; cd /dev/pts && ls ../..").ok();
    assert!(
        !up.contains("boot") && up.matches("bin\ndev\netc\n").count() == 2,
        "{up}"
    );
    let dirs = (3..=highest + 5).map(|n| format!("/proc/self/fd/{n}")).chain([
        "/link".into(),
        "/proc/self/root/../etc".into(),
        "/proc/1/cwd".into(),
    ]);
    for cwd in dirs {
        let mut plan = fixture.plan("cat ../../../../etc/hostname; pwd -P");
        plan.process.cwd = cwd.clone().into();
        let done = run(&plan);
        assert!(done.exit.is_err(), "{cwd}: {}{}", done.stdout, done.stderr);
        let text = done.error();
        assert!(text.contains("working directory"), "{cwd}: {text}");
    }
    let mut plan = fixture.plan("pwd -P; stat -c %u:%g .");
    plan.process.cwd = "/made/for/me".into();
    plan.process.ids = Ids {
        uid: 1000,
        gid: 7,
        groups: vec![7],
    };
    assert_eq!(
        run(&plan).ok(),
        "/made/for/me\n1000:7\n",
        "a missing one is made, as BuildKit does"
    );
}

#[test]
fn privileged_row24_our_binary_is_out_of_reach() {
    let Some(fixture) = Fixture::new() else { return };
    let before = std::fs::read(probe()).unwrap();
    let modified = std::fs::metadata(probe()).unwrap().modified().unwrap();
    assert_eq!(
        fixture
            .run("readlink /proc/1/exe; cat /proc/[0-9]*/cmdline | grep -c 'sandbox[-]init'")
            .stdout,
        "/bin/busybox\n0\n"
    );
    let script = fixture.path("lower/bin/evil");
    std::fs::write(&script, "#!/proc/self/exe\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    for program in ["/bin/evil", "/proc/self/exe"] {
        let mut plan = fixture.plan("");
        plan.process.args = vec![program.into()];
        let done = run(&plan);
        assert!(
            done.exit.is_err() || done.stderr.contains("usage"),
            "{program}: {} {:?}",
            done.stderr,
            done.exit
        );
    }
    let grab = "for i in 1 2 3 4 5 6 7 8 9; do for p in /proc/[0-9]*; do (exec 9<$p/exe; echo x >/proc/self/fd/9) 2>/dev/null; done; done; true";
    fixture.run(grab).ok();
    assert_eq!(std::fs::read(probe()).unwrap(), before);
    assert_eq!(std::fs::metadata(probe()).unwrap().modified().unwrap(), modified);
}

#[test]
fn privileged_row25_only_the_image_s_own_processes_are_there() {
    let Some(fixture) = Fixture::new() else { return };
    let seen = fixture
        .run("cat /proc/1/comm; for p in /proc/[0-9]*; do readlink $p/exe; done | sort -u")
        .ok();
    assert_eq!(seen, "sh\n/bin/busybox\n");
}

#[test]
fn privileged_row26_capabilities_and_groups_are_exact() {
    let Some(fixture) = Fixture::new() else { return };
    let status = fixture.run("cat /proc/self/status").ok();
    assert_eq!(caps(&status, "CapBnd"), DEFAULT_CAPABILITIES);
    assert_eq!(caps(&status, "CapPrm"), DEFAULT_CAPABILITIES);
    assert_eq!(caps(&status, "CapEff"), DEFAULT_CAPABILITIES);
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(caps(&status, set), "0000000000000000", "{set} (CVE-2022-24769)");
    }
    assert_eq!(
        (caps(&status, "NoNewPrivs"), caps(&status, "Seccomp:")),
        ("0".into(), "2".into())
    );
    assert_eq!(
        status.lines().find(|l| l.starts_with("Groups")).unwrap().trim(),
        "Groups:\t0"
    );

    let mut plan = fixture.plan("cat /proc/self/status; id -u; id -g; id -G; umask");
    plan.process.ids = Ids {
        uid: 1000,
        gid: 50,
        groups: vec![50, 60],
    };
    for security in [Security::Sandbox, Security::Insecure] {
        plan.security = security;
        let status = run(&plan).ok();
        for set in ["CapInh", "CapAmb", "CapPrm", "CapEff"] {
            assert_eq!(caps(&status, set), "0000000000000000", "{security:?} {set}");
        }
        assert!(status.ends_with("1000\n50\n50 60\n0022\n"), "{status}");
    }
    plan.process.ids = Ids {
        uid: 0,
        gid: 0,
        groups: vec![0],
    };
    let insecure = run(&plan).ok();
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(caps(&insecure, set), "0000000000000000", "insecure {set}");
    }
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(
        caps(&insecure, "CapEff"),
        caps(&own, "CapEff"),
        "all the caller has"
    );
    assert_eq!(caps(&insecure, "Seccomp:"), "0");
}

#[test]
fn privileged_row26_a_group_may_not_be_shed() {
    let Some(fixture) = Fixture::new() else { return };
    let file = fixture.path("lower/etc/only-others");
    std::fs::write(&file, "x").unwrap();
    std::os::unix::fs::chown(&file, Some(0), Some(50)).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o604)).unwrap();
    let mut plan = fixture.plan("cat /etc/only-others");
    plan.process.ids = Ids {
        uid: 1000,
        gid: 50,
        groups: vec![50],
    };
    assert_ne!(run(&plan).code(), 0, "the group is denied");
    plan.process.ids = Ids {
        uid: 1000,
        gid: 51,
        groups: vec![51],
    };
    assert_eq!(run(&plan).ok(), "x", "others may");
}

#[test]
fn privileged_row27_masked_and_read_only_paths_hold() {
    let Some(fixture) = Fixture::new() else { return };
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let script = "for f in kcore keys timer_list sched_debug interrupts latency_stats timer_stats; do \
          test -e /proc/$f && head -c 100 /proc/$f 2>/dev/null | wc -c | grep -v '^0$'; done; \
        for d in /proc/acpi /proc/scsi /proc/asound /sys/firmware /sys/devices/virtual/powercap; do \
          test -d $d && ls -A $d; done; \
        for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/irq/default_smp_affinity /sys/kernel/x \
          /sys/fs/cgroup/cgroup.procs /proc/kcore; do (echo h > $f) 2>/dev/null && echo \"wrote $f\"; done; \
        mkdir /sys/fs/cgroup/x 2>/dev/null && echo made; umount /proc/kcore 2>/dev/null && echo unmounted; true";
    let seen = fixture.run(script).ok();
    let null = if std::path::Path::new("/proc/kcore").exists() {
        "wrote /proc/kcore\n"
    } else {
        ""
    };
    assert_eq!(seen, null, "which is the null device");
    assert_eq!(
        std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(),
        pattern
    );

    let mut insecure =
        fixture.plan("head -c 100 /proc/interrupts | wc -c; test -w /proc/sys/kernel/core_pattern && echo w");
    insecure.security = Security::Insecure;
    assert_eq!(run(&insecure).ok(), "100\nw\n", "insecure masks nothing");
}

#[test]
fn privileged_row49_only_an_insecure_step_writes_to_control_groups() {
    let Some(fixture) = Fixture::new() else { return };
    let old = std::path::Path::new("/sys/fs/cgroup/cpuset/tasks").exists();
    let dir = if old {
        "/sys/fs/cgroup/cpuset"
    } else {
        "/sys/fs/cgroup"
    };
    let name = format!("rbuild-test-{}", std::process::id());
    let script = format!("mkdir {dir}/{name} 2>/dev/null && echo made && rmdir {dir}/{name}; true");
    let mut plan = fixture.plan(&script);
    assert_eq!(run(&plan).ok(), "");
    plan.security = Security::Insecure;
    assert_eq!(run(&plan).ok(), "made\n");
}

#[test]
fn privileged_row08_device_nodes_of_a_step_open_nothing() {
    let Some(fixture) = Fixture::new() else { return };
    let disk = a_disk();
    let mut plan = fixture.plan(&format!(
        "for d in / /tmp /dev /dev/shm /t; do mknod $d/n c 1 3; mknod $d/b b {disk}; \
         test -c $d/n && test -b $d/b && echo made; (: < $d/n) 2>/dev/null && echo \"opened $d/n\"; \
         (: < $d/b) 2>/dev/null && echo \"opened $d/b\"; rm $d/n $d/b; done; : < /dev/null && echo legal",
    ));
    let kind = rbuild_sandbox::MountKind::Tmpfs {
        size_bytes: None,
        mode: None,
    };
    plan.mounts = vec![rbuild_sandbox::MountPlan {
        dest: "/t".into(),
        kind,
    }];
    assert_eq!(run(&plan).ok(), "made\nmade\nmade\nmade\nmade\nlegal\n");
}

/// Major and minor number of a block device that the machine has.
fn a_disk() -> String {
    let table = std::fs::read_to_string("/proc/partitions").unwrap();
    let numbers = table.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (major, minor) = (words.next()?, words.next()?);
        major.parse::<u32>().ok().map(|major| format!("{major} {minor}"))
    });
    numbers.unwrap_or_else(|| "1 0".to_owned())
}

/// A segment of System V memory of this machine, which goes with this.
struct SharedMemory(String);

impl SharedMemory {
    fn new() -> Self {
        let made = std::process::Command::new("ipcmk")
            .args(["-M", "4096"])
            .output()
            .unwrap();
        let text = String::from_utf8(made.stdout).unwrap();
        Self(text.split_whitespace().last().unwrap().to_owned())
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let mut remove = std::process::Command::new("ipcrm");
        drop(remove.args(["-m", &self.0]).status());
    }
}

#[test]
fn privileged_row28_new_namespaces_and_mounts_are_refused() {
    let Some(fixture) = Fixture::new() else { return };
    let script = "unshare -U true 2>&1; unshare -m true 2>&1; mount -t tmpfs x /tmp 2>&1; umount /proc 2>&1; \
        hostname other 2>&1; chroot / /bin/echo legal";
    let seen = fixture.run(script).ok();
    let refused = seen
        .lines()
        .filter(|line| line.to_lowercase().contains("not permitted") || line.contains("denied"))
        .count();
    assert_eq!(refused, 5, "{seen}");
    assert!(seen.ends_with("legal\n"), "{seen}");
}

#[test]
fn privileged_row29_no_network_no_abstract_sockets_no_ipc() {
    let Some(fixture) = Fixture::new() else { return };
    let name = format!("rbuild-canary-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
    let listener: UnixListener = UnixListener::bind_addr(&address).unwrap();
    let memory = SharedMemory::new();
    let ours = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    assert!(ours.contains(&memory.0), "the machine has it: {ours}");
    let seen = fixture
        .run("cat /proc/net/unix; ip -o addr; cat /proc/sysvipc/shm | wc -l")
        .ok();
    assert!(!seen.contains(&name), "{seen}");
    assert!(seen.ends_with("\n1\n"), "the table's head alone: {seen}");
    assert!(
        seen.contains("127.0.0.1") && !seen.contains("eth"),
        "loopback is up and alone: {seen}"
    );
    let mut plan = fixture.plan(&format!("grep -c '@{name}$' /proc/net/unix"));
    plan.network = Network::Host;
    assert_eq!(
        run(&plan).ok(),
        "1\n",
        "the host's network, when asked for, is the host's"
    );
    drop(listener);
    let ours = std::fs::read_to_string("/proc/net/unix").unwrap();
    assert!(
        !ours.lines().any(|line| line.contains("@rbuild-sandbox")),
        "no abstract socket is ours"
    );
}

#[test]
fn privileged_row29_abstract_sockets_of_the_host_are_out_of_reach_on_its_network() {
    if !rbuild_sys::landlock::has_scopes() {
        println!("SKIP: this kernel has no Landlock scopes (Linux 6.12)");
        return;
    }
    let name = format!("rbuild-scope-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let reach = |network, security| {
        let root = RootPlan {
            source: Source::Path("/".into()),
            readonly: true,
        };
        let probe = probe().to_string_lossy().into_owned();
        let args = [probe.as_str(), "connect", name.as_str()];
        let mut plan = Plan::new(root, args.map(Into::into).to_vec());
        plan.network = network;
        plan.security = security;
        let done = run(&plan);
        assert!(done.exit.is_ok(), "{:?}", done.exit);
        done.stderr
    };
    let (alone, sandboxed) = (Network::None, Security::Sandbox);
    assert_eq!(reach(Network::Host, sandboxed), "reached\nPermissionDenied\n");
    assert_eq!(reach(alone, sandboxed), "reached\nConnectionRefused\n");
    assert_eq!(
        reach(Network::Host, Security::Insecure),
        "reached\nreached\n",
        "the legal twin"
    );
}

#[test]
fn privileged_row30_the_environment_is_exactly_the_plan_s() {
    let Some(fixture) = Fixture::new() else { return };
    let mut plan = fixture
        .plan("env | sort; cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n' | grep -c '=CANAR[Y]'; ulimit -c; ulimit -Hc; kill -SEGV $$");
    plan.process.env = vec!["PATH=/bin".into(), "A=b=c".into(), "ODD NAME=1".into()];
    let file = fixture.path("plan.json");
    std::fs::write(&file, serde_json::to_vec(&plan).unwrap()).unwrap();
    let output = std::process::Command::new(probe())
        .arg("run")
        .arg(&file)
        .env("CANARY_ENV", "CANARY")
        .env("LD_PRELOAD", "")
        .env("AWS_SECRET_ACCESS_KEY", "CANARY")
        .output()
        .unwrap();
    let seen = String::from_utf8(output.stdout).unwrap();
    assert!(
        seen.starts_with("A=b=c\n") && seen.contains("PATH=/bin\n"),
        "{seen}"
    );
    // The second limit is the one that a program cannot lift; the first is 0 in whoever starts it, too.
    assert!(seen.ends_with("\n0\n0\n0\n"), "no canary, no core: {seen}");
    assert!(!seen.contains("AWS") && !seen.contains("HOME="), "{seen}");
    assert!(
        !fixture
            .layer()
            .iter()
            .any(|path| path.to_string_lossy().contains("core")),
        "no core in the layer"
    );
}

#[test]
fn privileged_two_steps_do_not_see_each_other() {
    let Some(fixture) = Fixture::new() else { return };
    let other = Fixture::new().unwrap();
    let sandbox = sandbox();
    let long = sandbox
        .spawn(&other.plan("echo > /dev/shm/x; echo up; sleep 60"), &[])
        .unwrap();
    let mut up = [0; 3];
    std::io::Read::read_exact(&mut long.take_stdout().unwrap(), &mut up).unwrap();
    let seen = finish(
        &sandbox
            .spawn(&fixture.plan("ls /dev/shm; ps | grep -c 'sleep 6[0]'"), &[])
            .unwrap(),
    );
    assert_eq!(seen.stdout, "0\n");
}
