//! A running step: its output goes to the progress as it comes, its end is waited for, and a stopped build stops it.

use std::io::Read;
use std::sync::Arc;

use rbuild_graph::progress::Stream;
use rbuild_sandbox::{Exit, ExitStatus, Running, WaitError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::ops::blocking;
use crate::solve::Reporter;

const CHUNK_BYTES: usize = 32 * 1024;

/// Follows `running` to its end. Stops it when `cancel` says so.
///
/// # Errors
/// [`WaitError`] when the step never ran.
pub(super) async fn follow(
    running: Running,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Exit, WaitError> {
    let running = Arc::new(running);
    let stdout = running
        .take_stdout()
        .map(|out| pump(out, Stream::Stdout, reporter));
    let stderr = running
        .take_stderr()
        .map(|out| pump(out, Stream::Stderr, reporter));
    let waiter = Arc::clone(&running);
    let mut wait = std::pin::pin!(blocking(move || waiter.wait()));
    let exit = tokio::select! {
        exit = &mut wait => exit,
        () = cancel.cancelled() => {
            running.kill();
            wait.await
        }
    };
    for reader in [stdout, stderr].into_iter().flatten() {
        if let Err(error) = reader.await
            && let Ok(reason) = error.try_into_panic()
        {
            std::panic::resume_unwind(reason);
        }
    }
    for warning in exit.iter().flat_map(|exit| &exit.warnings) {
        reporter.warn(warning.clone(), Vec::new(), String::new(), None);
    }
    exit
}

fn pump(mut out: impl Read + Send + 'static, stream: Stream, reporter: &Reporter) -> JoinHandle<()> {
    let reporter = reporter.clone();
    tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            match out.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => reporter.log(stream, buffer[..count].to_vec()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // A pipe of our own does not fail; if it did, there would be nothing more to read.
                Err(_) => return,
            }
        }
    })
}

/// How a step failed, in BuildKit's words, and what may help; `None` if it did not. `valid` are the exit codes that
/// are no failure; 0 alone if there are none (`executor/…`, `ValidExitCodes`).
pub(crate) fn failure(exit: &Exit, valid: &[i32]) -> Option<(String, Option<String>)> {
    match exit.status {
        ExitStatus::Code(code) if valid.contains(&code) => None,
        ExitStatus::Code(0) if valid.is_empty() => None,
        ExitStatus::Code(code) => Some((format!("exit code: {code}"), code_hint(code))),
        ExitStatus::Signal(signal) => {
            let oom = exit.oom == Some(true);
            let text = if oom {
                "cannot allocate memory".to_owned()
            } else {
                format!("exit code: {}", 128 + signal)
            };
            let hint = match (oom, signal) {
                (true, _) => Some("the step ran out of the memory it was given".to_owned()),
                (false, 9) => Some(
                    "the step was killed by signal 9; on a small machine that is the kernel's \
                                    out-of-memory killer more often than not (see dmesg)"
                        .to_owned(),
                ),
                (false, 31) => Some("the step was ended by signal 31 (bad system call)".to_owned()),
                (false, signal) => Some(format!("the step was ended by signal {signal}")),
            };
            Some((text, hint))
        }
    }
}

/// What shells mean by their own exit codes (POSIX, "Exit Status for Commands").
fn code_hint(code: i32) -> Option<String> {
    match code {
        126 => Some("126 usually means: a file was found but cannot be executed".to_owned()),
        127 => Some("127 usually means: a command was not found in the image".to_owned()),
        137 => Some(
            "137 usually means: a program was killed by signal 9, on a small machine most often for want of memory"
                .to_owned(),
        ),
        129..=159 => Some(format!("{code} usually means: a program was ended by signal {}", code - 128)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(status: ExitStatus, oom: Option<bool>) -> Exit {
        Exit {
            status,
            oom,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn ends_are_told_as_buildkit_does() {
        assert_eq!(failure(&exit(ExitStatus::Code(0), None), &[]), None);
        assert_eq!(
            failure(&exit(ExitStatus::Code(3), None), &[]),
            Some(("exit code: 3".to_owned(), None))
        );
        assert_eq!(
            failure(&exit(ExitStatus::Signal(9), None), &[]).unwrap().0,
            "exit code: 137"
        );
        assert_eq!(
            failure(&exit(ExitStatus::Signal(9), Some(true)), &[]).unwrap().0,
            "cannot allocate memory"
        );
        assert_eq!(failure(&exit(ExitStatus::Code(3), None), &[2, 3]), None);
        assert!(
            failure(&exit(ExitStatus::Code(0), None), &[3]).is_some(),
            "0 is not among them"
        );
        assert!(
            failure(&exit(ExitStatus::Code(127), None), &[])
                .unwrap()
                .1
                .is_some()
        );
    }
}
