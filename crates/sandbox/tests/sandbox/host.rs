//! Programs of the host: what they are started with, and what is left of them.

use std::process::Output;
use std::time::{Duration, Instant};

use rbuild_sandbox::CANNOT_START;

use crate::fixture::sandbox;

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
    let mut child = sandbox()
        .host_command("sh")
        .args(["-c", "sleep 60 & echo ready; wait"])
        .env("PATH", "/usr/bin:/bin")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdout.take().unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(&mut pipe, &mut ready).unwrap();
    let started = Instant::now();
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut pipe, &mut rest).unwrap();
    assert!(started.elapsed() < Duration::from_secs(30));
}
