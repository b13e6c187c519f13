//! A running step: its output goes to the progress as it comes, its end is waited for, and a stopped build stops it.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use rbuild_graph::progress::Stream;
use rbuild_registry::chain_text;
use rbuild_sandbox::{Exit, ExitStatus, Running, Usage, WaitError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::job::Job;
use crate::ops::{OpError, blocking};
use crate::solve::Reporter;

const CHUNK_BYTES: usize = 32 * 1024;

/// Why nothing is known of a step's own end.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    /// It never ran.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// It was ended.
    #[error("it did not end within {0:?}")]
    TimeIsUp(Duration),
}

/// Follows `running` to its end. Ends it with all that it started when `cancel` or `time_is_up` says so.
pub(super) async fn follow(
    running: Running,
    job: &Job,
    reporter: &Reporter,
    cancel: &CancellationToken,
    time_is_up: impl Future<Output = Duration>,
) -> Result<Exit, FollowError> {
    let running = Arc::new(running);
    let stdout = running
        .take_stdout()
        .map(|out| pump(out, Stream::Stdout, reporter));
    let stderr = running
        .take_stderr()
        .map(|out| pump(out, Stream::Stderr, reporter));
    let waiter = Arc::clone(&running);
    let mut wait = std::pin::pin!(blocking(move || waiter.wait()));
    let (exit, ended_after) = tokio::select! {
        exit = &mut wait => (exit, None),
        () = cancel.cancelled() => {
            running.kill();
            (wait.await, None)
        }
        after = time_is_up => {
            running.kill();
            (wait.await, Some(after))
        }
    };
    for reader in [stdout, stderr].into_iter().flatten() {
        if let Err(error) = reader.await
            && let Ok(reason) = error.try_into_panic()
        {
            std::panic::resume_unwind(reason);
        }
    }
    let survived = |exit: &Exit| match exit.status {
        ExitStatus::Code(0) => killed_for_memory(&exit.usage),
        ExitStatus::Code(_) | ExitStatus::Signal(_) => None,
    };
    let survived = exit.as_ref().ok().and_then(survived);
    let survived = survived.map(|killed| format!("a process of the step was {killed}"));
    for warning in exit.iter().flat_map(|exit| &exit.warnings).chain(&survived) {
        if job.is_news(warning) {
            reporter.warn(warning.clone(), Vec::new(), String::new(), None);
        }
    }
    match (exit, ended_after) {
        (Ok(_), Some(after)) => Err(FollowError::TimeIsUp(after)),
        (exit, _) => Ok(exit?),
    }
}

fn pump(mut out: impl Read + Send + 'static, stream: Stream, reporter: &Reporter) -> JoinHandle<()> {
    let reporter = reporter.clone();
    tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            match out.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => reporter.log(stream, buffer[..count].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A pipe of our own does not fail; if it did, there would be nothing more to read.
                Err(_) => return,
            }
        }
    })
}

/// Why a step never ran. That its program is not there or cannot be run, or that nothing can be mounted where it is to be,
/// is told in its output too, where clients look for it.
pub(super) fn never_ran(command: String, source: WaitError, reporter: &Reporter) -> OpError {
    let is_of_the_image = match &source {
        WaitError::Exec { machine, .. } => machine.is_none(),
        WaitError::Setup { what, source, .. } => {
            let not_a_directory = |error: &io::Error| error.kind() == io::ErrorKind::NotADirectory;
            matches!(what.as_str(), "open mountpoint" | "mount on")
                && source.as_ref().is_none_or(not_a_directory)
        }
        _ => false,
    };
    if !is_of_the_image {
        return OpError::Sandbox { command, source };
    }
    let why = chain_text(&source);
    reporter.log(Stream::Stderr, format!("{why}\n").into_bytes());
    OpError::NotRun {
        command,
        code: 1,
        why,
    }
}

/// How a step failed, in BuildKit's words, and what may help; `None` if it did not. `valid` are the exit codes that
/// are no failure; 0 alone if there are none (`executor/…`, `ValidExitCodes`).
pub(crate) fn failure(exit: &Exit, valid: &[i32]) -> Option<(String, Option<String>)> {
    let (code, hint) = match exit.status {
        ExitStatus::Code(code) if valid.contains(&code) => return None,
        ExitStatus::Code(0) if valid.is_empty() => return None,
        ExitStatus::Code(code) => (code, code_hint(code)),
        ExitStatus::Signal(signal) => (128 + signal, Some(signal_hint(signal))),
    };
    let code = format!("exit code: {code}");
    Some(match killed_for_memory(&exit.usage) {
        Some(killed) => (
            format!("cannot allocate memory: {killed} ({code})"),
            Some("--memory sets how much a step may use".to_owned()),
        ),
        None => (code, hint),
    })
}

/// That a process of the step was killed for want of memory, and at how much: the limit, or what it had where the limit
/// is of a group above.
pub(crate) fn killed_for_memory(usage: &Usage) -> Option<String> {
    (usage.oom == Some(true)).then(|| {
        let at = usage.memory_limit_bytes.or(usage.memory_peak_bytes);
        at.map_or_else(
            || "killed for memory".to_owned(),
            |bytes| format!("killed for memory at {} MiB", bytes.div_ceil(1 << 20)),
        )
    })
}

fn signal_hint(signal: i32) -> String {
    match signal {
        9 => "the step was killed by signal 9; on a small machine that is the kernel's out-of-memory killer more often \
              than not (see dmesg)"
            .to_owned(),
        31 => "the step was ended by signal 31 (bad system call)".to_owned(),
        signal => format!("the step was ended by signal {signal}"),
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
        let usage = Usage {
            oom,
            memory_peak_bytes: Some((7 << 20) - 5),
            ..Usage::default()
        };
        Exit {
            status,
            usage,
            warnings: Vec::new(),
            is_in_use: false,
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
            failure(&exit(ExitStatus::Signal(9), Some(false)), &[]).unwrap().0,
            "exit code: 137"
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

    #[test]
    fn that_memory_was_short_is_said_when_it_was() {
        let text = |status, usage: &Usage| {
            let exit = Exit {
                usage: usage.clone(),
                ..exit(status, None)
            };
            failure(&exit, &[]).map(|failed| failed.0)
        };
        let mut usage = exit(ExitStatus::Code(0), Some(true)).usage;
        assert_eq!(
            text(ExitStatus::Signal(9), &usage).unwrap(),
            "cannot allocate memory: killed for memory at 7 MiB (exit code: 137)"
        );
        usage.memory_limit_bytes = Some(48 << 20);
        assert_eq!(
            text(ExitStatus::Code(2), &usage).unwrap(),
            "cannot allocate memory: killed for memory at 48 MiB (exit code: 2)"
        );
        assert_eq!(text(ExitStatus::Code(0), &usage), None);
        usage.oom = None;
        assert_eq!(text(ExitStatus::Signal(9), &usage).unwrap(), "exit code: 137");
        usage.oom = Some(false);
        assert_eq!(text(ExitStatus::Code(2), &usage).unwrap(), "exit code: 2");
        usage = Usage {
            oom: Some(true),
            ..Usage::default()
        };
        assert_eq!(killed_for_memory(&usage).unwrap(), "killed for memory");
    }
}
