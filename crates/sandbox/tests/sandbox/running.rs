//! Starting, ending and killing.

use std::time::{Duration, Instant};

use rbuild_sandbox::{ExitStatus, Rlimit, RlimitResource, WaitError};

use crate::fixture::{Fixture, finish, host_network, run, sandbox};

#[test]
fn privileged_output_exit_code_and_signal() {
    let Some(fixture) = Fixture::new() else { return };
    let done = fixture.run("echo out; echo err >&2; exit 7");
    assert_eq!(
        (done.code(), done.stdout.as_str(), done.stderr.as_str()),
        (7, "out\n", "err\n")
    );
    let signaled = fixture.run("sh -c 'kill -TERM $$'; echo $?");
    assert_eq!(signaled.ok(), "143\n");
    assert!(fixture.run("cat").ok().is_empty(), "standard input is empty");
}
