//! Command lines of `docker run` as they stand in Makefiles, and how they end: what is printed and the code are docker's, which
//! Debian's engine is asked for where it can be started. What it would do and rbuild does not is refused with a sentence.

use rbuild_testkit::command::{Ran, RbuildCommand};
use rbuild_testkit::machine;

use crate::e2e::docker_engine::DockerEngine;
use crate::e2e::fixture::Fixture;

/// Words of the line (`DIR` is a directory with the files below), the code, and what is printed; or what the error says.
type Line = (&'static [&'static str], i32, &'static str);

const FILES: [(&str, &str); 5] = [
    ("vars", "F=1\n# c\n G=2\nHERE\nNOWHERE\n\nI=a=b\nJ=\"q\"\n"),
    ("nameless", "=x\n"),
    ("blank", "A B=1\n"),
    ("marked", "\u{feff}X=1\n"),
    ("trailing", "HERE "),
];

const SH: &str = "app:1";

const LINES: &[Line] = &[
    (&["app:1"], 0, "cmd"),
    (&["--health-cmd=true", "--health-interval=1s", SH, "true"], 0, ""),
    (&["-it", SH, "true"], 1, "the input device is not a TTY"),
    (&[""], 125, "invalid reference format"),
    (&[SH, ""], 127, ""),
    (&["--entrypoint=", SH, ""], 127, ""),
    // What stands behind the image is the program's, flags of docker's name too.
    (&["--entrypoint", "sh", SH, "-c", "echo $0"], 0, "sh"),
    (&["--entrypoint=echo", SH, "-v", "-e", "x"], 0, "-v -e x"),
    (
        &["--entrypoint=echo", SH, "--", "--rm", "--help"],
        0,
        "-- --rm --help",
    ),
    (&[SH, "--version"], 127, ""),
    (&["-w", "/a/b/../c", SH, "pwd"], 0, "/a/c"),
    (&["--workdir=", SH, "pwd"], 0, "/app"),
    (
        &["-w", "rel", SH, "pwd"],
        125,
        "the working directory 'rel' is invalid",
    ),
    (&["-e", "=x", SH, "env"], 125, "invalid environment variable: =x"),
    (&["-e", "", SH, "env"], 125, "invalid environment variable:"),
    (&["-e", "A", SH, "sh", "-c", "echo [$A]"], 0, "[]"),
    (&["-e", "A=", SH, "sh", "-c", "echo [$A]"], 0, "[]"),
    (&["-e", "HERE", SH, "sh", "-c", "echo $HERE"], 0, "here"),
    (&["-e", "A=1", "-e", "A=2", SH, "sh", "-c", "echo $A"], 0, "2"),
    (
        &["--env-file", "DIR/vars", SH, "sh", "-c", "echo $F.$G.$HERE.$I.$J"],
        0,
        "1.2.here.a=b.\"q\"",
    ),
    (&["--env-file", "DIR/marked", SH, "sh", "-c", "echo $X"], 0, "1"),
    (
        &["--env-file", "DIR/nameless", SH, "true"],
        125,
        "no variable name on line '=x'",
    ),
    (
        &["--env-file", "DIR/blank", SH, "true"],
        125,
        "variable 'A B' contains whitespaces",
    ),
    (
        &["--env-file", "DIR/trailing", SH, "true"],
        125,
        "variable 'HERE ' contains whitespaces",
    ),
    (&["--env-file", "DIR/none", SH, "true"], 125, "DIR/none"),
    (&["-u", "1:2", SH, "id", "-u"], 0, "1"),
    (&["-u", "nosuch", SH, "id"], 125, "nosuch"),
    (&["-h", "mine", SH, "hostname"], 0, "mine"),
    (
        &[
            "--read-only=true",
            SH,
            "sh",
            "-c",
            "touch /x 2>/dev/null || echo no",
        ],
        0,
        "no",
    ),
    (
        &["--read-only=false", SH, "sh", "-c", "touch /x && echo yes"],
        0,
        "yes",
    ),
    (&["--rm=bogus", SH, "true"], 125, "bogus"),
    (&["-it=false", SH, "true"], 0, ""),
    (
        &["-d=false", "--privileged=false", "--restart=no", SH, "true"],
        0,
        "",
    ),
    (&["-v", "DIR:/c:ro", SH, "cat", "/c/nameless"], 0, "=x"),
    (
        &[
            "-v",
            "DIR:/c:ro,z",
            SH,
            "sh",
            "-c",
            "touch /c/x 2>/dev/null || echo no",
        ],
        0,
        "no",
    ),
    (&["-v", "DIR:/c:bogus", SH, "true"], 125, "invalid mode: bogus"),
    (
        &["--mount", "type=bind,src=DIR,dst=/c", SH, "cat", "/c/nameless"],
        0,
        "=x",
    ),
    (
        &["--mount", "type=bind,src=rel,dst=/c", SH, "true"],
        125,
        "mount path must be absolute",
    ),
    (
        &["--mount", "type=bind,src=DIR/none,dst=/c", SH, "true"],
        125,
        "bind source path does not exist",
    ),
    (
        &["--mount", "type=tmpfs,dst=/t,src=/x", SH, "true"],
        125,
        "field Source must not be specified",
    ),
    (&["--tmpfs", "/t:bogus=1", SH, "true"], 125, "tmpfs option"),
    (
        &[
            "--tmpfs",
            "/t:rw,nosuid,size=1m,mode=1777",
            SH,
            "stat",
            "-c",
            "%a",
            "/t",
        ],
        0,
        "1777",
    ),
    (
        &["--name", "a/b", SH, "true"],
        125,
        "Invalid container name (a/b)",
    ),
    (&["--name", "one.two_3-4", "--init=true", SH, "true"], 0, ""),
    (
        &[
            "-l",
            "a=b",
            "--label-file",
            "DIR/vars",
            "--log-driver=none",
            "--stop-timeout=1",
            "--stop-signal",
            "INT",
            "--no-healthcheck",
            "--expose=80",
            "--sig-proxy=false",
            "--detach-keys=a",
            "--disable-content-trust",
            "--isolation=default",
            SH,
            "true",
        ],
        0,
        "",
    ),
];

/// Lines that docker runs, and what is said here instead: every other flag of `docker run --help` with a value it takes.
const REFUSED: &str = "attach=stdout blkio-weight=10 blkio-weight-device=/dev/x:10 cap-add=SYS_ADMIN cap-drop=ALL \
    cgroup-parent=/x cgroupns=host cpu-count=1 cpu-percent=1 cpu-period=1000 cpu-quota=1000 cpu-rt-period=1000 \
    cpu-rt-runtime=1000 cpu-shares=2 cpus=1 cpuset-cpus=0 cpuset-mems=0 detach device=/dev/null \
    device-cgroup-rule=x device-read-bps=x device-read-iops=x device-write-bps=x device-write-iops=x dns=10.0.0.1 \
    dns-option=x dns-search=x domainname=x gpus=all group-add=5 io-maxbandwidth=1 io-maxiops=1 ip=10.0.0.1 ip6=::1 \
    ipc=host isolation=process kernel-memory=1m link=x link-local-ip=10.0.0.1 mac-address=x memory=64m \
    memory-reservation=1m memory-swap=1g memory-swappiness=1 network-alias=x oom-kill-disable oom-score-adj=1 pid=host \
    pids-limit=10 privileged publish=80:80 publish-all restart=always runtime=runc security-opt=no-new-privileges \
    shm-size=1m storage-opt=x=y sysctl=a=b ulimit=nofile=10 use-api-socket userns=host uts=host volume-driver=x \
    volumes-from=x cidfile=x";

fn fixture() -> Fixture {
    let fixture = Fixture::new(
        "FROM busybox\nENV A=1 B=\"two words\"\nWORKDIR /app\nCMD [\"sh\", \"-c\", \"echo cmd\"]\n",
    );
    fixture.build().args(["-t", "app:1"]).ok();
    for (name, text) in FILES {
        fixture.context.file(name, text);
    }
    fixture
}

fn judge(tool: &str, fixture: &Fixture, run: impl Fn(Vec<String>) -> RbuildCommand) {
    let dir = fixture.context.dir().display().to_string();
    let mut wrong = Vec::new();
    for (words, code, says) in LINES {
        let words = words.iter().map(|word| word.replace("DIR", &dir));
        let line = ["run", "--rm", "--network=none"]
            .map(str::to_owned)
            .into_iter()
            .chain(words);
        let ran: Ran = run(line.collect()).env("HERE", "here").run();
        let says = says.replace("DIR", &dir);
        let is_said = match code {
            0 => ran.stdout_text() == says,
            _ => ran.stderr.contains(&says),
        };
        if ran.status.code() != Some(*code) || !is_said {
            wrong.push(format!("{tool}: not {code} {says:?}: {ran}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lines_of_run_end_as_dockers_do() {
    let fixture = fixture();
    judge("rbuild", &fixture, |line| fixture.rbuild(line));
    for flag in REFUSED.split_whitespace() {
        let name = flag.split('=').next().unwrap_or_default();
        let line = ["run", "--rm", &format!("--{flag}"), "app:1", "true"];
        let ran = fixture.rbuild(line).fails();
        assert_eq!(ran.status.code(), Some(125), "{ran}");
        ran.says(&format!("not supported: --{name}: "));
    }
}

#[test]
fn privileged_lines_of_run_are_those_of_docker() {
    if !machine::is_root() {
        machine::skip("the engine needs root");
        return;
    }
    let fixture = fixture();
    let archive = fixture.home.work().join("image.tar");
    fixture.rbuild(["save", "app:1", "-o"]).arg(&archive).ok();
    let engine = DockerEngine::start_in(&fixture.home.work());
    engine.docker(["load", "-q", "-i"]).arg(&archive).ok();
    judge("docker", &fixture, |line| engine.docker(line));
    engine.stop();
}
