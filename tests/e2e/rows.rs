//! Rows 14, 25, 29 and 30 of the security list on whole builds: programs planted in an image, processes beside a step,
//! keys and sockets of the host, and the environment of the one who builds. docs/security.md has all rows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rbuild_testkit::command::TestHome;
use rbuild_testkit::facts::Kind;
use rbuild_testkit::image::OciLayout;
use rbuild_testkit::layout::{Attributes, ImageBuilder, LayerBuilder};
use rbuild_testkit::leak::{holders, holds};
use rbuild_testkit::machine;
use rbuild_testkit::residue::{own_sleep, processes, wait_for_process};

use crate::e2e::fixture::{Fixture, RBUILD};
use crate::e2e::ladder::WITHOUT_RANGES;

/// A tar that holds `inside`, packed by xz: no encoder for it is among the packages of the tests.
const TAR_XZ: &str = "fd377a585a000004e6d6b4460200210116000000742fe5a3e007ff00465d00349b8acd3603807f84245a59422f1809378020\
    f4a3aef0e6f46c7f53a885f0bb42ac8d191145d44232a2b4b00e60e3db7819d4fa332850ae8cdda5cca4d59d69e9fa34c47c0000000031c34a\
    136cac114f0001628010000000819d9667b1c467fb020000000004595a";

fn tar_xz() -> Vec<u8> {
    let digits: Vec<u8> = TAR_XZ.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// The static program of `NAME.c` beside this file, which lies in the context too, under its name.
pub(crate) fn program_in_context(fixture: &Fixture, name: &str) -> Option<PathBuf> {
    program_in_context_with(fixture, name, &["-static"])
}

/// The same, compiled with these flags.
pub(crate) fn program_in_context_with(fixture: &Fixture, name: &str, flags: &[&str]) -> Option<PathBuf> {
    let program = compiled(fixture, &format!("{name}.c"), name, flags)?;
    fixture
        .context
        .file(name, fs::read(&program).unwrap())
        .mode(name, 0o755);
    Some(program)
}

/// What the C compiler makes of one of the sources beside this file; says `SKIP:` where it makes nothing.
pub(crate) fn compiled(fixture: &Fixture, source: &str, name: &str, flags: &[&str]) -> Option<PathBuf> {
    let made = fixture.home.work().join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/e2e/rows")
        .join(source);
    let compiler = machine::program("cc");
    let done = compiler.and_then(|cc| {
        let mut command = Command::new(cc);
        command.args(flags).arg("-o").arg(&made).arg(source).output().ok()
    });
    if done.as_ref().is_some_and(|output| output.status.success()) {
        return Some(made);
    }
    let why = done.map_or_else(String::new, |output| {
        String::from_utf8_lossy(&output.stderr).into_owned()
    });
    machine::skip(&format!("{name} needs a C compiler and its libraries: {why}"));
    None
}

/// An image of that name: busybox below `layer`.
fn image_over_busybox(fixture: &Fixture, name: &str, layer: LayerBuilder) -> String {
    let bases = OciLayout::open(&rbuild_testkit::base::layout().unwrap()).unwrap();
    let busybox = bases.images().unwrap().swap_remove(0);
    let dir = fixture.home.work().join(name);
    ImageBuilder::new(serde_json::json!({"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]}))
        .layer(busybox.layer_tar(0).unwrap(), "busybox")
        .layer(layer.finish(), name)
        .write(&dir, name)
        .unwrap();
    format!("--build-context={name}=oci-layout://{}:{name}", dir.display())
}

/// Programs that a builder might run and libraries that its C library might load, each of which leaves a mark on the
/// host at `mark` and in the image at `/ran-NAME`.
fn planted(mark: &Path, library: &[u8]) -> LayerBuilder {
    let mut layer = LayerBuilder::new()
        .file(
            "etc/passwd",
            Attributes::mode(0o644),
            b"root:x:0:0::/:/bin/sh\nbob:x:1000:100::/:/bin/sh\n",
        )
        .file("etc/group", Attributes::mode(0o644), b"root:x:0:\nbob:x:100:\n")
        .file(
            "etc/nsswitch.conf",
            Attributes::mode(0o644),
            b"passwd: files compat systemd\ngroup: files\nhosts: files dns\n",
        )
        .file(
            "etc/ld.so.preload",
            Attributes::mode(0o644),
            b"/lib/libnss_files.so.2\n",
        );
    for name in [
        "xz",
        "unxz",
        "unpigz",
        "pigz",
        "gzip",
        "zstd",
        "bzip2",
        "tar",
        "git",
        "newuidmap",
        "newgidmap",
        "getent",
        "id",
        "cp",
        "mount",
        "umount",
    ] {
        let script = format!(
            "#!/bin/sh\necho {name} >> {}\necho {name} >> /ran-{name}\n",
            mark.display()
        );
        for dir in ["usr/bin", "usr/local/bin"] {
            layer = layer.file(
                &format!("{dir}/{name}"),
                Attributes::mode(0o755),
                script.as_bytes(),
            );
        }
    }
    for dir in [
        "lib",
        "lib64",
        "usr/lib",
        "lib/x86_64-linux-gnu",
        "usr/lib/x86_64-linux-gnu",
        "usr/lib/aarch64-linux-gnu",
    ] {
        for name in ["files", "dns", "compat", "systemd"] {
            layer = layer.file(
                &format!("{dir}/libnss_{name}.so.2"),
                Attributes::mode(0o755),
                library,
            );
        }
    }
    layer
}

const PLANTED_STEPS: &str =
    "FROM planted\nADD x.tar.xz /x/\nCOPY --chown=bob:bob f /f\nWORKDIR /work\nUSER bob\nRUN true\n";

fn nothing_planted_is_run(fixture: &Fixture, args: &[&str]) {
    let mark = fixture.home.work().join("ran-on-the-host");
    let define = format!("-DMARK=\"{}\"", mark.display());
    let Some(library) = compiled(fixture, "planted.c", "planted.so", &["-shared", "-fPIC", &define]) else {
        return;
    };
    // The twin for the library: whoever loads it leaves the mark that is looked for below.
    let loaded = fixture.home.command(machine::program("true").unwrap());
    loaded.env("LD_PRELOAD", &library).ok();
    assert!(mark.exists(), "loading the library leaves no mark");
    fs::remove_file(&mark).unwrap();
    // Its other mark is made where the root is, which was the machine's here.
    fs::remove_file("/ran-library").ok();
    let layer = planted(&mark, &fs::read(library).unwrap());
    let argument = image_over_busybox(fixture, "planted", layer);
    let args = [&[argument.as_str()], args].concat();
    fixture
        .context
        .file("x.tar.xz", tar_xz())
        .file("f", "f\n")
        .dockerfile(PLANTED_STEPS);
    let (ran, image) = fixture.image(&args);
    let files = image.files().unwrap();
    assert_eq!(
        files.text("x/inside"),
        Some("from xz\n\n"),
        "the archive was unpacked\n{ran}"
    );
    let copied = files.get("f").unwrap();
    assert_eq!(
        (copied.uid, copied.gid),
        (1000, 100),
        "bob was found in the image's own files"
    );
    let marks: Vec<&str> = files.paths().filter(|path| path.starts_with("ran-")).collect();
    assert_eq!(
        marks, [""; 0],
        "something of the image was run by the builder\n{ran}"
    );
    assert!(!mark.exists(), "on the host: {:?}", fs::read_to_string(&mark));

    // The legal twin, and the proof that the marks would show: the step itself may run what its image holds (by its path:
    // the shell of busybox takes its own xz first).
    fixture.context.dockerfile("FROM planted\nRUN /usr/bin/xz\n");
    let (_, image) = fixture.image(&args);
    assert_eq!(image.files().unwrap().text("ran-xz"), Some("xz\n"));
    assert!(!mark.exists(), "a step reached the host");
}

#[test]
fn row14_nothing_planted_in_an_image_is_run_by_the_builder() {
    nothing_planted_is_run(&Fixture::new(""), &[]);
}

#[test]
fn rootless_row14_nothing_planted_in_an_image_is_run_by_the_builder() {
    if let Some(fixture) = Fixture::rootless("") {
        nothing_planted_is_run(&fixture, &[]);
    }
}

#[test]
fn privileged_row14_without_namespaces_nothing_planted_in_an_image_is_run_by_the_builder() {
    if machine::is_root() {
        nothing_planted_is_run(&Fixture::new(""), &["--rung=chroot"]);
    }
}

#[test]
fn rootless_row14_one_id_nothing_planted_in_an_image_is_run_by_the_builder() {
    if machine::is_root() {
        let home = TestHome::for_user(WITHOUT_RANGES, WITHOUT_RANGES);
        nothing_planted_is_run(&Fixture::with_home(home, ""), &[]);
    }
}

#[test]
fn row25_steps_do_not_see_each_other_and_nobody_outlives_a_step() {
    // The stages run at once. What each looks for is written in two parts, so that it does not see its own script.
    let seconds = own_sleep(3600, 1);
    let fixture = Fixture::new(&format!(
        "FROM busybox AS long\nRUN sleep 6.125; echo > /done\n\
         FROM busybox AS looks\nRUN sleep 2; cat /proc/[0-9]*/cmdline | tr '\\0' ' ' > /seen; \
         for p in /proc/[0-9]*; do readlink $p/exe; done | sort -u > /programs; \
         (sleep {seconds} > /dev/null 2>&1 &); true\n\
         FROM busybox\nCOPY --from=long /done /\nCOPY --from=looks /seen /programs /\n"
    ));
    let before = fixture.residue();
    let start = Instant::now();
    let (ran, image) = fixture.image(&[]);
    assert!(
        start.elapsed() < Duration::from_secs(120),
        "a step waited for its background process\n{ran}"
    );
    let files = image.files().unwrap();
    let seen = files.text("seen").unwrap();
    assert!(
        seen.contains("/bin/sh -c") && seen.contains(&seconds),
        "it sees itself: {seen}"
    );
    assert!(
        !seen.contains("6.125") && !seen.contains("rbuild"),
        "a step saw others: {seen}"
    );
    assert_eq!(
        files.text("programs"),
        Some("/bin/busybox\n"),
        "only the image's own programs run beside it"
    );
    let left = processes(&seconds);
    assert!(
        left.is_empty(),
        "a background process outlived its step: {left:?}"
    );
    fixture.assert_clean_since(&before);
}

/// `pid` and all that descend from it.
fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|child| child.parse::<u32>().ok()),
            );
        }
    }
    found
}

const HOST_VARIABLES: [(&str, &str); 6] = [
    ("CANARY_ENV", "c4n4ry-env"),
    ("AWS_SECRET_ACCESS_KEY", "c4n4ry-env"),
    ("REGISTRY_TOKEN", "c4n4ry-env"),
    ("SSH_AUTH_SOCK", "/nowhere/c4n4ry-env"),
    ("TRACEPARENT", "00-c4n4ry-env"),
    ("HTTP_PROXY", "http://u:c4n4ry-env@127.0.0.1:9"),
];

fn environment_stays(fixture: &Fixture, seconds: &str) {
    fixture.context.dockerfile(&format!(
        "FROM busybox\nARG GIVEN\nENV SET=1\nRUN env | sort > /env; cat /proc/[0-9]*/environ > /environs; \
         ls -l /proc/[0-9]*/cwd > /cwds; ulimit -c > /core; cd /tmp && (ulimit -c unlimited; sh -c 'kill -SEGV $$'); true\n\
         RUN sleep {seconds}\n"
    ));
    let archive = fixture.archive();
    let build = fixture
        .build()
        .args(["--build-arg=GIVEN=yes"])
        .arg(format!("--output=type=oci,dest={}", archive.display()));
    let running = HOST_VARIABLES
        .iter()
        .fold(build, |build, (key, value)| build.env(key, value))
        .spawn();
    let step = wait_for_process(&format!("sleep {seconds}"));
    let rbuild = running.pid();
    for pid in family(rbuild).into_iter().filter(|pid| *pid != rbuild) {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        assert!(
            !String::from_utf8_lossy(&environ).contains("c4n4ry-env"),
            "a process beside the step has the builder's environment: {:?}",
            fs::read_to_string(format!("/proc/{pid}/cmdline"))
        );
    }
    for pid in [rbuild, step] {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap();
        let numbers: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
        assert_eq!(numbers, ["0", "0"], "core dumps are possible: {core}");
    }
    running.wait().succeeded();
    let image = OciLayout::open(&archive).unwrap().image().unwrap();
    let files = image.files().unwrap();
    let names: Vec<&str> = files
        .text("env")
        .unwrap()
        .lines()
        .filter_map(|line| line.split('=').next())
        .collect();
    for given in ["GIVEN", "SET", "PATH", "HOME"] {
        assert!(
            names.contains(&given),
            "legal twin: {given} reaches the step: {names:?}"
        );
    }
    let known = [
        "GIVEN", "SET", "PATH", "HOME", "HOSTNAME", "PWD", "SHLVL", "OLDPWD", "_",
    ];
    assert!(
        names.iter().all(|name| known.contains(name)),
        "more than BuildKit gives: {names:?}"
    );
    assert!(
        !holds(&fs::read(&archive).unwrap(), "c4n4ry-env"),
        "the image holds the host's environment"
    );
    assert_eq!(holders(&fixture.home.store(), "c4n4ry-env"), [""; 0]);
    let environs = files.get("environs").map(|facts| &facts.kind);
    assert!(
        matches!(environs, Some(Kind::File(content)) if content.size_bytes > 20),
        "what was searched is what the step could read: {environs:?}"
    );
    assert!(
        !files
            .text("cwds")
            .unwrap()
            .contains(&fixture.home.work().display().to_string())
    );
    assert_eq!(files.text("core"), Some("0\n"));
    assert!(
        !files
            .paths()
            .any(|path| path.contains("core.") || path.ends_with("/core")),
        "a core dump is in the layer"
    );
}

#[test]
fn row30_the_builders_environment_and_memory_stay_its_own() {
    environment_stays(&Fixture::new(""), &own_sleep(5, 2));
}

#[test]
fn rootless_row30_the_builders_environment_and_memory_stay_its_own() {
    if let Some(fixture) = Fixture::rootless("") {
        environment_stays(&fixture, &own_sleep(5, 3));
    }
}

#[test]
fn rootless_row25_others_of_the_same_user_cannot_look_into_the_builder() {
    let seconds = own_sleep(5, 4);
    let Some(fixture) = Fixture::rootless(&format!("FROM busybox\nRUN sleep {seconds}\n")) else {
        return;
    };
    let running = fixture.build().spawn();
    let _step = wait_for_process(&format!("sleep {seconds}"));
    let pid = running.pid();
    for name in ["environ", "mem", "maps", "fd/0", "root", "cwd", "exe"] {
        let read = if ["environ", "mem", "maps"].contains(&name) {
            "cat"
        } else {
            "readlink"
        };
        let other = fixture
            .home
            .command(machine::program(read).unwrap())
            .arg(format!("/proc/{pid}/{name}"))
            .run();
        assert!(
            !other.status.success() && other.stdout.is_empty(),
            "{name} of rbuild can be read: {other}"
        );
    }
    // The legal twin: it is the hiding that refuses, and not the user or the tool.
    let own = fixture
        .home
        .command(machine::program("cat").unwrap())
        .arg("/proc/self/environ")
        .ok();
    assert!(own.stdout_text().contains("RBUILD_ROOT"));
    running.wait().succeeded();
}

#[test]
fn row29_keys_of_the_host_are_out_of_reach() {
    const EX_NO_KEYS: i32 = 77;
    let name = format!("rbuild-canary-{}", std::process::id());
    let fixture = Fixture::new(&format!(
        "FROM busybox\nCOPY keys /bin/keys\nRUN keys look {name} > /answers; cat /proc/keys > /list 2>/dev/null; true\n\
         RUN --security=insecure keys look {name} > /insecure\n"
    ));
    let Some(keys) = program_in_context(&fixture, "keys") else {
        return;
    };
    let archive = fixture.archive();
    let bases = rbuild_testkit::base::layout().unwrap();
    let ran = fixture
        .home
        .command(&keys)
        .args([
            "plant",
            &name,
            RBUILD,
            "build",
            "--progress=plain",
            "--allow=security.insecure",
        ])
        .arg(format!(
            "--build-context=busybox=oci-layout://{}:busybox",
            bases.display()
        ))
        .arg(format!("--output=type=oci,dest={}", archive.display()))
        .arg(fixture.context.dir())
        .run();
    if ran.status.code() == Some(EX_NO_KEYS) {
        machine::skip("this machine gives its processes no kernel keys");
        return;
    }
    let ran = ran.succeeded();
    assert!(
        ran.stdout_text().contains("both keys are still there"),
        "a step reached the host's keys\n{ran}"
    );
    let files = OciLayout::open(&archive)
        .unwrap()
        .image()
        .unwrap()
        .files()
        .unwrap();
    let answers = files.text("answers").unwrap();
    assert_eq!(answers.lines().count(), 5, "{answers}");
    for line in answers.lines() {
        assert!(line.ends_with(": Operation not permitted"), "{answers}");
    }
    // No filter is in the way there: the step's session keyring is a new one, and its own.
    let insecure = files.text("insecure").unwrap();
    assert!(
        insecure.starts_with("search session: Required key not available\n"),
        "{insecure}"
    );
    assert!(insecure.contains("clear session: DONE\n"), "{insecure}");
    assert!(
        !files.text("list").unwrap_or_default().contains("rbuild-canary"),
        "/proc/keys shows the host's"
    );
}
