//! Flags of `build` with what people write behind them: every attribute, and odd spellings (quotes, blanks, case, keys that there
//! are not, nothing at all). `flag_values/FLAG.txt` has a line for each: the values, whether docker buildx takes them before a
//! real buildkitd, and what is said here where they are refused. The first half asks rbuild; the second asks buildx, where
//! there is one.
//!
//! `takes` and `refuses: WORDS` are the answers of both, and the words are ours, with a hint behind ` | `. Where they differ
//! on purpose the line says so, and why: `takes; here refuses: WORDS; why: REASON`, `refuses; here takes; why: REASON`.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rbuild_testkit::command::{Ran, RbuildCommand};
use rbuild_testkit::machine;

use crate::e2e::fixture::{Fixture, RBUILD};
use crate::e2e::real_buildkit::RealBuildkit;

const DOCKERFILE: &str = "FROM scratch AS one\nLABEL a=b\nFROM scratch AS two\nCOPY secret /s\n";
/// Files of which a line is words of the command line, and not values of one flag.
const OF_WORDS: [&str; 2] = ["bools", "files"];
/// Annotations are of images.
const IMAGE: &str = "--output=type=oci,dest=x.tar";

/// A line of a file.
#[derive(Debug)]
struct Line {
    args: Vec<String>,
    buildx_takes: bool,
    /// What is said here where it is refused.
    says: Option<String>,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/flag_values")
}

fn lines(flag: &str) -> Vec<Line> {
    let text = fs::read_to_string(directory().join(format!("{flag}.txt"))).expect("a file of the flag");
    let lines: Vec<Line> = text.lines().map(|line| read(flag, line)).collect();
    assert!(lines.len() > 3, "{flag}");
    lines
}

fn read(flag: &str, line: &str) -> Line {
    let answers = ["` takes", "` refuses: ", "` refuses; "];
    let at = answers.iter().filter_map(|answer| line.find(answer)).min();
    let (values, answer) = line.split_at(at.expect("values in backticks, and an answer"));
    let answer = &answer[2..];
    let values = values[1..].split("` `");
    let mut args: Vec<String> = if OF_WORDS.contains(&flag) {
        values
            .flat_map(|words| words.split(' '))
            .map(str::to_owned)
            .collect()
    } else {
        values.map(|value| format!("--{flag}={value}")).collect()
    };
    if flag == "annotation" {
        args.push(IMAGE.to_owned());
    }
    let (there, here) = match answer.split_once("; here ") {
        None => (answer, answer),
        Some((there, here)) => {
            let (here, why) = here.split_once("; why: ").unwrap_or((here, ""));
            assert!(why.len() > 10, "{flag}: no reason is given: {line}");
            (there, here)
        }
    };
    Line {
        args,
        buildx_takes: there == "takes",
        says: here.strip_prefix("refuses: ").map(str::to_owned),
    }
}

/// A directory with what the values name.
struct Room {
    dir: PathBuf,
    _agent: UnixListener,
}

impl Room {
    fn make(dir: PathBuf, key: &Path) -> Self {
        fs::create_dir_all(dir.join("dir")).expect("a directory");
        fs::write(dir.join("Dockerfile"), DOCKERFILE).expect("a file");
        fs::write(dir.join("secret"), "s\n").expect("a file");
        fs::copy(key, dir.join("key")).expect("a key");
        let agent = UnixListener::bind(dir.join("sock")).expect("a socket");
        Self { dir, _agent: agent }
    }
}

fn key(fixture: &Fixture) -> PathBuf {
    let path = fixture.home.work().join("key");
    let keygen = machine::required("ssh-keygen", "openssh-client").expect("ssh-keygen");
    RbuildCommand::new(keygen)
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&path)
        .ok();
    path
}

/// Asks `tool` about all lines of `flag`, and gives those it answers in another way.
fn judge(
    fixture: &Fixture,
    flag: &str,
    ask: impl Fn() -> RbuildCommand,
    is_right: impl Fn(&Line, &Ran) -> bool,
) -> Vec<String> {
    let key = key(fixture);
    let mut wrong = Vec::new();
    for (number, line) in lines(flag).iter().enumerate() {
        let room = Room::make(fixture.home.work().join(number.to_string()), &key);
        let mut command = ask().current_dir(&room.dir).env("HERE", "here");
        if !matches!(flag, "progress" | "bools") {
            command = command.arg("--progress=plain");
        }
        let ran = command.args(&line.args).arg(".").run();
        if !is_right(line, &ran) {
            wrong.push(format!("{line:?}: {ran}"));
        }
    }
    wrong
}

fn rbuild_answers(flag: &str) {
    let fixture = Fixture::new("");
    let ask = || fixture.home.command(RBUILD).arg("build");
    let wrong = judge(&fixture, flag, ask, |line, ran| match &line.says {
        None => ran.status.success(),
        Some(says) => {
            let code = ran.status.code();
            matches!(code, Some(1 | 3 | 7 | 125)) && says.split(" | ").all(|part| ran.stderr.contains(part))
        }
    });
    assert!(wrong.is_empty(), "{} lines: {}", wrong.len(), wrong.join("\n"));
}

macro_rules! flags {
    ($($test:ident $flag:literal;)*) => {
        const FLAGS: &[&str] = &[$($flag),*];
        $(
            #[test]
            fn $test() {
                rbuild_answers($flag);
            }
        )*
    };
}

flags! {
    values_of_add_host "add-host";
    values_of_allow "allow";
    values_of_annotation "annotation";
    values_of_attest "attest";
    values_of_bools "bools";
    values_of_build_arg "build-arg";
    values_of_build_context "build-context";
    values_of_cache_from "cache-from";
    values_of_cache_to "cache-to";
    values_of_call "call";
    values_of_cpu_period "cpu-period";
    values_of_cpu_quota "cpu-quota";
    values_of_cpu_shares "cpu-shares";
    values_of_cpuset_cpus "cpuset-cpus";
    values_of_cpuset_mems "cpuset-mems";
    values_of_file "file";
    values_of_files "files";
    values_of_label "label";
    values_of_memory "memory";
    values_of_memory_swap "memory-swap";
    values_of_network "network";
    values_of_no_cache_filter "no-cache-filter";
    values_of_output "output";
    values_of_platform "platform";
    values_of_policy "policy";
    values_of_progress "progress";
    values_of_provenance "provenance";
    values_of_resource "resource";
    values_of_sbom "sbom";
    values_of_secret "secret";
    values_of_shm_size "shm-size";
    values_of_ssh "ssh";
    values_of_tag "tag";
    values_of_target "target";
    values_of_ulimit "ulimit";
}

#[test]
fn every_file_of_values_is_asked_about() {
    let mut files: Vec<String> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let mut expected: Vec<String> = FLAGS.iter().map(|flag| format!("{flag}.txt")).collect();
    expected.sort();
    assert_eq!(files, expected);
    let count: usize = FLAGS.iter().map(|flag| lines(flag).len()).sum();
    assert!(count > 1000, "{count}");
}

/// buildx evaluates it without being asked (`buildx/build/opt.go`).
#[test]
fn a_policy_beside_the_dockerfile_is_not_left_out() {
    let fixture = Fixture::new("FROM scratch\nLABEL a=b\n");
    fixture
        .context
        .file("Dockerfile.rego", "package docker\ndefault allow = false\n");
    let build = |flags: &[&str]| fixture.build().args(flags.iter().copied());
    build(&[])
        .fails()
        .says("Dockerfile.rego\": no Rego is evaluated here");
    build(&["--policy=strict=true"])
        .fails()
        .says("--policy disabled=true");
    build(&["--policy=disabled=true"]).ok();
    build(&["--policy=reset=true"]).ok();
    fixture.context.file("other", "FROM scratch\nLABEL a=b\n");
    let other = fixture.context.dir().join("other").display().to_string();
    build(&["-f", &other]).ok();
}

#[test]
fn privileged_buildx_gives_the_answers_that_are_written_of_it() {
    let Some(server) = RealBuildkit::start() else {
        return;
    };
    // Most of the time is waiting, for names that no resolver knows too.
    let next = AtomicUsize::new(0);
    let ask = || {
        let mut wrong = Vec::new();
        while let Some(flag) = FLAGS.get(next.fetch_add(1, Ordering::Relaxed)) {
            wrong.extend(buildx_answers(&server, flag));
        }
        wrong
    };
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..ASKERS).map(|_| scope.spawn(ask)).collect();
        askers
            .into_iter()
            .flat_map(|asker| asker.join().expect("answers"))
            .collect()
    });
    assert!(wrong.is_empty(), "{} lines: {}", wrong.len(), wrong.join("\n"));
}

/// How many ask buildx at once.
const ASKERS: usize = 6;

/// Lines of `flag` that buildx answers in another way than it is written.
fn buildx_answers(server: &RealBuildkit, flag: &str) -> Vec<String> {
    let rooms = Fixture::new("");
    judge(
        &rooms,
        flag,
        || server.build(),
        |line, ran| ran.status.success() == line.buildx_takes,
    )
}
