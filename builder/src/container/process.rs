//! A process of a container: its streams, its end, and what can be sent to it.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rbuild_sandbox::{Exit, ExitStatus, Ready, Running, TerminalSize, WaitError};
use rustix::termios::Winsize;
use tokio::sync::{oneshot, watch};

use super::streams::{Input, Output};
use crate::error::chain_text;
use crate::ops::exec::output::failure;

/// Exit status of a process whose end is not known (`frontend/gateway/pb/exit.go`, `UnknownExitStatus`).
pub const UNKNOWN_EXIT_STATUS: u32 = 255;

/// How a process failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ProcessFailure {
    /// What a shell would say it ended with; [`UNKNOWN_EXIT_STATUS`] if it never ran.
    pub code: u32,
    /// In BuildKit's words: `exit code: 3`.
    pub text: String,
    /// The kernel's answer, where it would not run the program.
    pub refused: Option<i32>,
}

/// Its streams as they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// Three pipes; without `stdin` there is nothing to read.
    Pipes {
        /// Whether it has input.
        stdin: bool,
    },
    /// A terminal, as large as this when it starts.
    Terminal(TerminalSize),
}

/// A process that was started. It goes on when this is dropped; its container ends it.
#[derive(Debug)]
pub struct ContainerProcess {
    /// What it reads.
    pub stdin: Option<Input>,
    /// What it writes; of a terminal, all of it.
    pub stdout: Option<Output>,
    /// Its errors.
    pub stderr: Option<Output>,
    /// For what is sent to it.
    pub handle: ProcessHandle,
}

/// What can be done to a process.
#[derive(Debug, Clone)]
pub struct ProcessHandle {
    running: Arc<Running>,
    terminal: Option<Arc<OwnedFd>>,
    end: watch::Receiver<Option<Result<(), ProcessFailure>>>,
}

impl ProcessHandle {
    /// Sends it a signal.
    pub fn signal(&self, number: i32) {
        self.running.signal(number);
    }

    /// Sets the size of its terminal, if it has one.
    pub fn resize(&self, size: TerminalSize) {
        let size = Winsize {
            ws_row: size.rows,
            ws_col: size.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        if let Some(terminal) = &self.terminal {
            // A process that just ended has no size.
            rustix::termios::tcsetwinsize(terminal, size).ok();
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`ProcessFailure`] unless it returned 0.
    pub async fn wait(&self) -> Result<(), ProcessFailure> {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await;
        let lost = || ProcessFailure {
            code: UNKNOWN_EXIT_STATUS,
            text: "the process was lost".to_owned(),
            refused: None,
        };
        ended
            .map_err(|_gone| lost())?
            .clone()
            .unwrap_or_else(|| Err(lost()))
    }
}

/// The pipe a process reads, if it is to have one: its end, and ours.
pub(super) fn input(streams: Streams) -> io::Result<Option<(OwnedFd, OwnedFd)>> {
    match streams {
        Streams::Pipes { stdin: true } => rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map(Some)
            .map_err(Into::into),
        Streams::Pipes { stdin: false } | Streams::Terminal(_) => Ok(None),
    }
}

/// The streams of a process that is ready, or of one that will never be.
pub(super) fn attach(
    running: Arc<Running>,
    ready: Option<&mut Ready>,
    stdin: Option<OwnedFd>,
    end: watch::Receiver<Option<Result<(), ProcessFailure>>>,
) -> io::Result<ContainerProcess> {
    let terminal = ready.and_then(|ready| ready.terminal.take()).map(Arc::new);
    let (stdin, stdout) = match &terminal {
        Some(terminal) => (
            Some(Input::new(terminal.try_clone()?)?),
            Some(Output::new(terminal.try_clone()?)?),
        ),
        None => (stdin.map(Input::new).transpose()?, pipe(running.take_stdout())?),
    };
    Ok(ContainerProcess {
        stdin,
        stdout,
        stderr: pipe(running.take_stderr())?,
        handle: ProcessHandle {
            running,
            terminal,
            end,
        },
    })
}

fn pipe(end: Option<impl Into<OwnedFd>>) -> io::Result<Option<Output>> {
    end.map(|end| Output::new(end.into())).transpose()
}

/// The descriptors a plan counts in.
pub(super) fn given<'a>(fds: &'a [OwnedFd], input: Option<&'a OwnedFd>) -> Vec<BorrowedFd<'a>> {
    fds.iter().chain(input).map(OwnedFd::as_fd).collect()
}

/// Waits for the end of a process, as long as that takes: not on a thread that others need.
pub(super) fn wait_on_thread(running: &Arc<Running>) -> oneshot::Receiver<Result<Exit, WaitError>> {
    let (tell, ended) = oneshot::channel();
    let running = Arc::clone(running);
    let wait = move || drop(tell.send(running.wait()));
    // A thread that cannot be made drops the sender, which is an answer too.
    drop(
        std::thread::Builder::new()
            .name("container".to_owned())
            .spawn(wait),
    );
    ended
}

/// What the end of a process means. `stopped` says that its container was told to end.
pub(super) fn judge(exit: Result<Exit, WaitError>, stopped: bool) -> Result<(), ProcessFailure> {
    let mut failed = match exit {
        Ok(exit) => match (failure(&exit, &[]), exit.status) {
            (None, _) => return Ok(()),
            (Some((text, _)), ExitStatus::Code(code)) => ProcessFailure {
                code: u32::try_from(code).unwrap_or(UNKNOWN_EXIT_STATUS),
                text,
                refused: None,
            },
            (Some((text, _)), ExitStatus::Signal(signal)) => ProcessFailure {
                code: u32::try_from(128 + signal).unwrap_or(UNKNOWN_EXIT_STATUS),
                text,
                refused: None,
            },
        },
        Err(error) => ProcessFailure {
            code: UNKNOWN_EXIT_STATUS,
            text: chain_text(&error),
            refused: match &error {
                WaitError::Exec {
                    source: Some(source), ..
                } => source.raw_os_error(),
                _ => None,
            },
        },
    };
    if stopped {
        failed.text.push_str(": context canceled");
    }
    Err(failed)
}
