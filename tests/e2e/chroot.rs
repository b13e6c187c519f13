//! The rung without namespaces: what a hostile step reaches there, what is refused, and a build in a plain container, which is
//! runc's with docker's default capabilities and a profile that refuses what docker's refuses.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rbuild_testkit::command::{Ran, RbuildCommand, TestHome};
use rbuild_testkit::image::OciLayout;
use rbuild_testkit::machine;
use serde_json::{Value, json};

use crate::e2e::RBUILD;
use crate::e2e::fixture::{Fixture, busybox_argument, is_root};

const CHROOT: &str = "--rung=chroot";

/// A build on this rung by root of this machine.
fn built(dockerfile: &str) -> Option<(Fixture, Ran)> {
    if !is_root("the rung without namespaces") {
        return None;
    }
    let fixture = Fixture::new(dockerfile);
    let ran = fixture.build().arg(CHROOT).run();
    Some((fixture, ran))
}

#[test]
fn privileged_row25_without_namespaces_a_step_reaches_no_process_of_others() {
    let script = "FROM busybox
RUN test -z \"$(ls /proc)\" && echo no proc
RUN kill -0 $PPID 2>/dev/null && echo reached the parent; kill -0 1 2>/dev/null && echo reached init; kill -9 -1; echo alive
RUN sleep 1000 & echo started
RUN echo after
";
    let Some((fixture, ran)) = built(script) else {
        return;
    };
    let before = fixture.residue();
    let ran = ran.succeeded();
    for said in ["no proc", "alive", "started", "after"] {
        assert!(ran.stderr.contains(said), "{said}: {ran}");
    }
    if scopes_signals() {
        assert!(
            !ran.stderr
                .lines()
                .any(|line| line.ends_with("reached the parent")),
            "{ran}"
        );
        assert!(
            !ran.stderr.lines().any(|line| line.ends_with("reached init")),
            "{ran}"
        );
    }
    fixture.assert_clean_since(&before);
}

/// Landlock keeps signals in since Linux 6.12.
fn scopes_signals() -> bool {
    rbuild_sys::landlock::version() >= 6
}

#[test]
fn privileged_row28_without_namespaces_a_step_cannot_leave_its_root_or_make_devices() {
    let script = "FROM busybox
RUN mkdir /d && cd /d && ! chroot . /bin/true && cd ../../../../.. && test -e /bin/busybox && pwd >/cwd
RUN ! mknod /d b 8 0 && ! mknod /c c 1 1 && ! mount -t proc proc /proc && ! unshare -m true && mkfifo /p
RUN grep -c . /etc/passwd >/n && echo x >/dev/null && head -c 4 /dev/urandom | wc -c >/random
";
    let Some((fixture, ran)) = built(script) else {
        return;
    };
    drop(ran.succeeded());
    let (_, image) = fixture.image(&[CHROOT]);
    let files = image.files().unwrap();
    assert_eq!(files.text("cwd").unwrap_or_default(), "/\n");
    assert_eq!(files.text("random").unwrap_or_default(), "4\n");
    assert!(
        files.get("dev/null").is_none() && files.get("d").is_some(),
        "{:?}",
        files.table()
    );
}

#[test]
fn privileged_row27_without_namespaces_new_privileges_and_insecure_steps_are_refused() {
    let Some((fixture, ran)) = built("FROM busybox\nRUN grep -c . /etc/group >/dev/null && id -u\n") else {
        return;
    };
    drop(ran.succeeded());
    fixture
        .context
        .dockerfile("# syntax=docker/dockerfile:1-labs\nFROM busybox\nRUN --security=insecure id -u\n");
    let insecure = fixture
        .build()
        .args([CHROOT, "--allow=security.insecure"])
        .fails();
    assert!(
        insecure
            .stderr
            .contains("--security=insecure would leave nothing between"),
        "{insecure}"
    );
    fixture.context.dockerfile("FROM busybox\nRUN id -u\n");
    let network = fixture.build().args([CHROOT, "--network=sandbox"]).fails();
    assert!(network.stderr.contains("network"), "{network}");
    let overlay = fixture.build().args([CHROOT, "--snapshotter=overlayfs"]).fails();
    assert!(
        overlay.stderr.contains("nothing can be mounted on rung chroot"),
        "{overlay}"
    );
}

#[test]
fn privileged_row21_without_namespaces_what_was_put_into_a_root_is_taken_back_or_the_step_fails() {
    let stolen = "FROM busybox
RUN --mount=type=cache,target=/k,id=stolen echo mine >/k/f
RUN --mount=type=cache,target=/k,id=stolen mv /k /taken && mkdir /k
";
    let Some((fixture, ran)) = built(stolen) else {
        return;
    };
    let ran = ran.failed();
    assert!(
        ran.stderr
            .contains("the step moved or removed what was mounted there"),
        "{ran}"
    );
    fixture
        .context
        .dockerfile("FROM busybox\nRUN mv /dev /gone && ln -s /etc /dev\n");
    let moved = fixture.build().arg(CHROOT).fails();
    assert!(
        moved
            .stderr
            .contains("the step moved or removed what was mounted there"),
        "{moved}"
    );
    fixture.context.dockerfile(
        "FROM busybox
RUN rm /etc/hosts /etc/resolv.conf && echo nobody >/etc/hosts && ln -s /etc/passwd /etc/resolv.conf
RUN --mount=type=tmpfs,target=/t/deep cat /etc/hosts >/seen
",
    );
    let (_, image) = fixture.image(&[CHROOT]);
    let files = image.files().unwrap();
    assert!(
        !files.text("seen").unwrap_or_default().contains("nobody"),
        "{:?}",
        files.table()
    );
    assert!(
        files.get("etc/hosts").is_none() && files.get("t").is_none(),
        "{:?}",
        files.table()
    );
}

#[test]
fn privileged_row22_without_namespaces_what_is_read_only_stays_as_it_was() {
    let script = "FROM busybox AS other
RUN mkdir /d && echo kept >/d/f
FROM busybox
RUN --mount=from=other,source=/d,target=/m echo changed >/m/f; true
RUN --mount=from=other,source=/d,target=/m cp /m/f /seen
RUN --mount=type=cache,target=/k,id=ro echo kept >/k/f
RUN --mount=type=cache,target=/k,id=ro,readonly echo changed >/k/f; true
RUN --mount=type=cache,target=/k,id=ro cat /k/f >>/seen
";
    if !is_root("the rung without namespaces") {
        return;
    }
    let fixture = Fixture::new(script);
    let (_, image) = fixture.image(&[CHROOT]);
    assert_eq!(
        image.files().unwrap().text("seen").unwrap_or_default(),
        "kept\nkept\n"
    );
}

#[test]
fn privileged_row42_without_namespaces_a_secret_is_a_variable_or_refused_and_on_no_disk() {
    if !is_root("the rung without namespaces") {
        return;
    }
    let fixture = Fixture::new("FROM busybox\nRUN --mount=type=secret,id=s cat /run/secrets/s\n");
    let secret = fixture.home.work().join("secret");
    std::fs::write(&secret, "c4n4ry-of-rung-4").unwrap();
    let secret = format!("--secret=id=s,src={}", secret.display());
    let refused = fixture.build().args([CHROOT, &secret]).fails();
    assert!(
        refused
            .stderr
            .contains("would be written to the disk of the store"),
        "{refused}"
    );
    fixture
        .context
        .dockerfile("FROM busybox\nRUN --mount=type=secret,id=s,env=S echo ${#S} >/length\n");
    let (_, image) = fixture.image(&[CHROOT, &secret]);
    assert_eq!(image.files().unwrap().text("length").unwrap_or_default(), "16\n");
}

#[test]
fn privileged_row29_without_namespaces_a_step_without_network_has_no_sockets_but_its_own() {
    let Some((_, ran)) = built(
        "FROM busybox
RUN --network=none ! nc -l -p 0 -w 1 2>/nc && cat /nc
",
    ) else {
        return;
    };
    let ran = ran.succeeded();
    assert!(ran.stderr.contains("Operation not permitted"), "{ran}");
}

/// A plain container with this program, the base images and a home; nothing else of it can be written to.
pub(crate) struct Container {
    pub(crate) home: TestHome,
    bundle: PathBuf,
    runc: PathBuf,
}

/// Docker's default capabilities.
pub(crate) const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Numbers containers.
static NUMBER: AtomicUsize = AtomicUsize::new(0);

impl Container {
    pub(crate) fn new() -> Option<Self> {
        if !is_root("runc") {
            return None;
        }
        let Some(runc) = machine::program("runc") else {
            machine::skip("runc is not here");
            return None;
        };
        let home = TestHome::new();
        let bundle = home.work().join("bundle");
        std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
        Some(Self { home, bundle, runc })
    }

    /// `rbuild` with `args` in it.
    pub(crate) fn rbuild(&self, uid: u32, args: &[&str]) -> RbuildCommand {
        self.rbuild_under(&profile(), uid, args)
    }

    /// The same under another profile.
    pub(crate) fn rbuild_under(&self, profile: &Value, uid: u32, args: &[&str]) -> RbuildCommand {
        let capabilities: &[&str] = if uid == 0 { &CAPABILITIES } else { &[] };
        let mut argv = vec![RBUILD.to_owned()];
        argv.extend(args.iter().map(|arg| (*arg).to_owned()));
        let mut config = self.config(uid, capabilities, &argv);
        config["linux"]["seccomp"].clone_from(profile);
        self.run(&config)
    }

    /// The same with the right to mount, and a store that lies on an overlay, as in a privileged container or pod.
    fn rbuild_on_overlay(&self, args: &[String]) -> RbuildCommand {
        let mut argv = vec![RBUILD.to_owned()];
        argv.extend_from_slice(args);
        let mut capabilities = CAPABILITIES.to_vec();
        capabilities.push("CAP_SYS_ADMIN");
        let mut config = self.config(0, &capabilities, &argv);
        let dirs = ["lower", "upper", "workdir", "container-store"].map(|name| self.home.work().join(name));
        for dir in &dirs {
            std::fs::create_dir_all(dir).unwrap();
        }
        let [lower, upper, work, at] = dirs.map(|dir| dir.display().to_string());
        let options = [
            format!("lowerdir={lower}"),
            format!("upperdir={upper}"),
            format!("workdir={work}"),
        ];
        let mounted = json!({"destination": at, "type": "overlay", "source": "overlay", "options": options});
        config["mounts"].as_array_mut().expect("mounts").push(mounted);
        for hardened in ["seccomp", "maskedPaths", "readonlyPaths"] {
            config["linux"]
                .as_object_mut()
                .expect("an object")
                .remove(hardened);
        }
        self.run(&config)
    }

    fn run(&self, config: &Value) -> RbuildCommand {
        std::fs::write(self.bundle.join("config.json"), config.to_string()).unwrap();
        let id = format!(
            "rbuild-test-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        self.home
            .command(&self.runc)
            .arg("--root")
            .arg(self.home.work().join("runc"))
            .arg("run")
            .arg("--bundle")
            .arg(&self.bundle)
            .arg(id)
    }

    fn config(&self, uid: u32, capabilities: &[&str], args: &[String]) -> Value {
        let work = self.home.work();
        let bind = |path: &Path, mode: &str| json!({"destination": path, "source": path, "type": "bind", "options": ["rbind", mode]});
        let program = Path::new(RBUILD).parent().expect("a directory").to_owned();
        let bases = rbuild_testkit::base::layout().expect("base images");
        let mut mounts = vec![
            json!({"destination": "/proc", "type": "proc", "source": "proc"}),
            json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}),
            json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"]}),
            json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid", "noexec", "nodev"]}),
        ];
        for path in ["/usr", "/lib", "/lib64", "/bin", "/etc"].map(Path::new) {
            mounts.extend(path.exists().then(|| bind(path, "ro")));
        }
        mounts.push(bind(&program, "ro"));
        mounts.push(bind(&bases, "ro"));
        mounts.push(bind(&work, "rw"));
        let namespaces = ["pid", "mount", "ipc", "uts", "network"].map(|kind| json!({"type": kind}));
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": uid, "gid": uid},
                "args": args,
                "cwd": "/",
                "env": [
                    "PATH=/usr/bin:/bin",
                    format!("HOME={}", self.home.home().display()),
                    format!("RBUILD_ROOT={}", work.join("container-store").display()),
                ],
                "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
                "noNewPrivileges": false,
            },
            "root": {"path": "rootfs"},
            "mounts": mounts,
            "linux": {
                "namespaces": namespaces,
                "resources": {"devices": [{"allow": false, "access": "rwm"}]},
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
                "seccomp": profile(),
            },
        })
    }
}

/// What docker's default profile refuses to a process without `CAP_SYS_ADMIN`, as far as a builder could ask for it.
pub(crate) fn profile() -> Value {
    let refused = [
        "mount",
        "umount2",
        "unshare",
        "setns",
        "pivot_root",
        "open_tree",
        "move_mount",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "mount_setattr",
        "keyctl",
        "add_key",
        "request_key",
        "bpf",
        "perf_event_open",
        "open_by_handle_at",
        "userfaultfd",
        "kcmp",
        "pidfd_getfd",
    ];
    let mut rules = vec![
        json!({"names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}),
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}),
    ];
    // One rule for each kind of namespace: any of them is enough.
    for flag in [
        0x2_0000,
        0x200_0000,
        0x400_0000,
        0x800_0000,
        0x1000_0000,
        0x2000_0000,
        0x4000_0000,
    ] {
        let test = json!({"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"});
        rules.push(json!({"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": [test]}));
    }
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules})
}

const IN_A_CONTAINER: &str = "FROM busybox AS other
RUN mkdir /d && echo from other >/d/f && chown 5:6 /d/f
FROM busybox
RUN --mount=type=cache,target=/k --mount=from=other,source=/d,target=/m cp -p /m/f /k/f && cp -p /k/f /kept && chmod 4711 /kept
USER daemon
WORKDIR /w
RUN id >/w/id 2>/dev/null || id >/tmp/id
";

/// A context in a container's home, and what builds it there.
pub(crate) struct Work {
    fixture: Fixture,
    pub(crate) container: Container,
}

impl Work {
    fn new() -> Option<Self> {
        Self::of(IN_A_CONTAINER)
    }

    pub(crate) fn of(dockerfile: &str) -> Option<Self> {
        let container = Container::new()?;
        let fixture = Fixture::new(dockerfile);
        fixture.context.settle();
        let copied = std::process::Command::new("cp")
            .arg("-a")
            .arg(fixture.context.dir())
            .arg(container.home.work().join("context"))
            .status();
        assert!(copied.unwrap().success());
        Some(Self { fixture, container })
    }

    pub(crate) fn archive(&self, name: &str) -> PathBuf {
        self.container.home.work().join(name)
    }

    pub(crate) fn args(&self, rung: Option<&str>, to: &Path) -> Vec<String> {
        let mut args: Vec<String> = rung.map(str::to_owned).into_iter().collect();
        args.extend(
            [
                "build",
                "--progress=plain",
                "--build-arg=SOURCE_DATE_EPOCH=1704067200",
            ]
            .map(str::to_owned),
        );
        args.push(busybox_argument("busybox"));
        args.push(format!(
            "--output=type=oci,rewrite-timestamp=true,dest={}",
            to.display()
        ));
        args.push(self.archive("context").display().to_string());
        args
    }

    /// The image at `inside` is the one that is built outside of containers.
    #[track_caller]
    pub(crate) fn assert_same(&self, inside: &Path) {
        let outside = self.archive("outside.tar");
        let args = self.args(None, &outside);
        self.fixture.rbuild(args.iter().map(String::as_str)).ok();
        let config = |path: &Path| OciLayout::open(path).unwrap().image().unwrap().config;
        assert_eq!(config(inside), config(&outside));
    }
}

#[test]
fn privileged_a_plain_container_builds_without_namespaces_and_the_same_image() {
    let Some(work) = Work::new() else {
        return;
    };
    let run = |args: &[String]| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        work.container.rbuild(0, &args).run()
    };
    let inside = work.archive("inside.tar");
    let refused = run(&work.args(Some("--rung=namespaces"), &inside)).failed();
    assert!(refused.stderr.contains("--rung=chroot would work"), "{refused}");
    let unasked = run(&work.args(None, &inside));
    let asked = if scopes_signals() {
        unasked.succeeded()
    } else {
        let unasked = unasked.failed();
        assert!(unasked.stderr.contains("--rung=chroot would work"), "{unasked}");
        run(&work.args(Some(CHROOT), &inside)).succeeded()
    };
    let told = asked.stderr.matches("building on rung 4 (chroot)").count();
    assert_eq!(told, 1, "{asked}");
    assert!(asked.stderr.contains("--rung=namespaces refuses this"), "{asked}");
    work.assert_same(&inside);

    let doctor = run(&["doctor".to_owned(), "--json".to_owned()]);
    let report: Value = serde_json::from_slice(&doctor.stdout).unwrap_or_default();
    let chosen = scopes_signals().then_some("chroot");
    assert_eq!(report["chosen"].as_str(), chosen, "{doctor}");
    assert_eq!(report["rungs"][3]["works"], true, "{doctor}");
}

#[test]
fn privileged_on_an_overlay_in_a_container_layers_are_shown_by_what_works_there() {
    let Some(work) = Work::new() else {
        return;
    };
    let inside = work.archive("inside.tar");
    let args = work.args(None, &inside);
    let ran = work.container.rbuild_on_overlay(&args).run().succeeded();
    assert!(ran.stderr.contains("rung 1 (root)"), "{ran}");
    assert!(
        ran.stderr.contains("snapshotter native; not overlayfs: "),
        "{ran}"
    );
    work.assert_same(&inside);
}

#[test]
fn privileged_a_plain_container_of_an_ordinary_user_is_told_what_it_lacks() {
    let Some(container) = Container::new() else {
        return;
    };
    let ran = container.rbuild(1000, &[CHROOT, "images"]).run();
    let ran = ran.failed();
    assert!(ran.stderr.contains("the caller is not root"), "{ran}");
}
