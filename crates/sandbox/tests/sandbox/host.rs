//! Programs of the host: what they are started with, and what is left of them.

use std::io::Read as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rbuild_sandbox::CANNOT_START;

use crate::fixture::{probe, sandbox};

fn sh(script: &str) -> Output {
    sandbox()
        .host_command("sh")
        .arg("-c")
        .arg(script)
        .env("PATH", "/usr/bin:/bin")
        .env("GIVEN", "yes")
        .output()
        .unwrap()
}

#[test]
fn privileged_a_program_of_the_host_has_its_own_settings_and_tells_its_end() {
    let done = sh("umask; echo $$; echo $GIVEN$HOME$CARGO; echo err >&2; exit 7");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "0022\n1\nyes\n");
    assert_eq!(String::from_utf8_lossy(&done.stderr), "err\n");
    assert_eq!(done.status.code(), Some(7));
    let missing = sandbox()
        .host_command("no-such-program")
        .env("PATH", "/bin")
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(i32::from(CANNOT_START)));
    assert!(String::from_utf8_lossy(&missing.stderr).starts_with("no-such-program: "));
}

#[test]
fn privileged_what_a_program_started_ends_with_it() {
    let started = Instant::now();
    // The background process holds the pipe open: reading ends when it has ended.
    let done = sh("sleep 60 & exit 0");
    assert_eq!(done.status.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn privileged_a_killed_program_takes_everything_with_it() {
    let sandbox = sandbox();
    let mut command = sandbox.host_command("sh");
    command
        .args(["-c", "sleep 60 & echo ready; wait"])
        .env("PATH", "/usr/bin:/bin");
    assert_all_end_with(&mut command);
}

/// Kills what says that it is ready, after which nobody may hold the pipe any more to which it said so.
#[track_caller]
fn assert_all_end_with(command: &mut Command) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdout.take().unwrap();
    let mut ready = [0; 6];
    pipe.read_exact(&mut ready).unwrap();
    let started = Instant::now();
    child.kill().unwrap();
    child.wait().unwrap();
    pipe.read_to_end(&mut Vec::new()).unwrap();
    assert!(started.elapsed() < Duration::from_secs(30));
}

/// The same by a caller who can make no namespace.
fn by_nobody(script: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65533", "--regid=65533", "--clear-groups", "--"])
        .arg(probe())
        .args(["host", script]);
    command
}

#[test]
fn privileged_without_namespaces_a_program_of_the_host_tells_its_end_too() {
    let done = by_nobody("umask; test $$ -ne 1 && echo no namespace; echo err >&2; exit 7")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), "0022\nno namespace\n");
    assert_eq!(String::from_utf8_lossy(&done.stderr), "err\n");
    assert_eq!(done.status.code(), Some(7));
    let killed = by_nobody("kill -9 $$").output().unwrap();
    assert_eq!(killed.status.code(), Some(128 + 9));
}

#[test]
fn privileged_without_namespaces_what_a_program_started_ends_with_it_and_with_its_caller() {
    // In groups and sessions of their own, which nobody could be told to signal; each holds the pipe that is read.
    let started = Instant::now();
    let done = by_nobody("setsid sh -c 'sleep 60 & sleep 60' & sleep 60 & exit 0").output();
    assert_eq!(done.unwrap().status.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(30));

    assert_all_end_with(&mut by_nobody(
        "setsid sh -c 'sleep 60 & sleep 60' & echo ready; wait",
    ));
}
