//! The process that answers a step's calls, and how it gets to hear them.
//!
//! It is forked from the supervisor before the step is, and stays in the namespaces that the supervisor was started in: in
//! those the machine's `/proc` shows the step's processes, and threads can be made, which a process that is about to
//! fork into another pid namespace cannot. It ends with the supervisor.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use rbuild_sys::process;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};

use super::{Credentials, serve};
use crate::heard::{self, Asks, Ear, Mouth};
use crate::wire::{During as _, Explained as _, SetupError};

/// Longest reason for an end.
const REASON_MAX: u64 = 4096;

/// The supervisor's view of it. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Answerer {
    pid: Pid,
    /// Closed when it ends; what is written before is the reason.
    reason: io::PipeReader,
}

/// Starts it, for a step that starts as `first`. The caller has one thread.
pub(crate) fn start(first: Credentials) -> Result<(Answerer, Mouth), SetupError> {
    let (ear, mouth) = heard::pair(Asks::Owners)?;
    let (reason, tell) = io::pipe().during("make a pipe", "")?;
    match process::fork().explained("start the answerer", "")? {
        Some(pid) => Ok((Answerer { pid, reason }, mouth)),
        None => {
            // The other ends are this process's only until it has closed everything else.
            drop((mouth, reason));
            let told = answer(&ear, &tell, first).map_or_else(|error| describe(&error), |()| String::new());
            let mut tell = tell;
            let code = i32::from(tell.write_all(told.as_bytes()).is_err());
            #[expect(clippy::exit, reason = "the answerer is a process of its own")]
            std::process::exit(code)
        }
    }
}

fn describe(error: &SetupError) -> String {
    match &error.source {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Answers until no process of the step is left.
fn answer(ear: &Ear, tell: &io::PipeWriter, first: Credentials) -> Result<(), SetupError> {
    process::die_with_parent().during("tie to supervisor", "")?;
    // The step's output ends with the step.
    let null = rustix::stdio::stdin();
    rustix::stdio::dup2_stdout(null).during("close output", "")?;
    rustix::stdio::dup2_stderr(null).during("close output", "")?;
    // Whatever else the supervisor holds is the step's, or the caller's: it must end when they let it go.
    process::close_all_but(&[ear.as_raw_fd(), tell.as_raw_fd()]).during("close descriptors", "")?;
    match ear.listener().during("hear the step", "")? {
        Some(heard) => serve::serve(heard, first),
        // The step ended on its way.
        None => Ok(()),
    }
}

impl Answerer {
    /// To wait for its end.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.reason.as_fd()
    }

    /// Why it ended, if it did while it was needed. `killed`: the step was ended by `SIGKILL`.
    pub(crate) fn failure(mut self, ended: bool, killed: bool) -> Option<SetupError> {
        if !ended {
            return None;
        }
        let mut reason = String::new();
        let read = self.reason.by_ref().take(REASON_MAX).read_to_string(&mut reason);
        if reason.is_empty() && !killed && read.is_ok() {
            return None;
        }
        let text = if reason.is_empty() {
            "it was ended"
        } else {
            &reason
        };
        Some(SetupError::refused(
            "show owners to the step",
            std::path::Path::new(""),
            format!(": {text}"),
        ))
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        // It is a child that nobody else waits for: its number cannot have come to mean anything else.
        rustix::process::kill_process(self.pid, Signal::KILL).ok();
        while matches!(
            rustix::process::waitpid(Some(self.pid), WaitOptions::empty()),
            Err(Errno::INTR)
        ) {}
    }
}
