//! A program of an image on the standard streams of this process: what is typed goes in, what it says comes out, and a
//! terminal is given back as it was.

use std::io::{self, Read as _, Write};
use std::sync::Arc;

use rbuild_builder::container::{Output, ProcessFailure, ProcessHandle, UNKNOWN_EXIT_STATUS};
use rbuild_builder::run::{Run, RunRequest};
use rbuild_graph::progress::Sink;
use rbuild_ui::diagnostic::{Diagnostic, ExitCode};
use rustix::termios::{OptionalActions, Termios};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::{Native, failed};
use crate::engine::EngineError;
use crate::terminal;

/// How much is read at once, bytes.
const CHUNK_BYTES: usize = 32 << 10;

/// The terminal of standard input without its own ways, until this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
        let before = rustix::termios::tcgetattr(io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that went away needs nothing back.
        let _gone = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

impl Native {
    /// Runs a program to its end; gives its exit code.
    pub(super) fn run_image(&self, request: &RunRequest, sink: Arc<dyn Sink>) -> Result<u8, EngineError> {
        self.threads.block_on(async {
            let engine = Arc::clone(&self.core);
            let starting = Run::start(engine, request, sink, &self.threads.cancel);
            let mut run = tokio::select! {
                run = starting => run.map_err(failed)?,
                () = self.threads.cancel.cancelled() => return Err(EngineError::Cancelled),
            };
            if request.terminal.is_some() {
                tokio::spawn(follow_size(run.process.handle.clone()));
            }
            let _raw = request.terminal.and_then(|_size| Raw::enter());
            let outputs = [
                run.process
                    .stdout
                    .take()
                    .map(|from| tokio::spawn(copy(from, io::stdout()))),
                run.process
                    .stderr
                    .take()
                    .map(|from| tokio::spawn(copy(from, io::stderr()))),
            ];
            if request.interactive
                && let Some(mut to) = run.process.stdin.take()
            {
                let mut typed = typed();
                tokio::spawn(async move {
                    while let Some(bytes) = typed.recv().await {
                        if to.write_all(&bytes).await.is_err() {
                            break;
                        }
                    }
                });
            }
            let ended = run.end().await;
            for output in outputs.into_iter().flatten() {
                // What could not be written, nobody reads.
                let _unwritten = output.await;
            }
            match ended {
                _ if self.threads.cancel.is_cancelled() => Err(EngineError::Cancelled),
                Ok(()) => Ok(0),
                Err(failure) if failure.code == UNKNOWN_EXIT_STATUS => Err(not_run(failure)),
                Err(failure) => Ok(u8::try_from(failure.code).unwrap_or(u8::MAX)),
            }
        })
    }
}

/// What the user is told of a program that never ran. The codes are docker's and every shell's: 127 if it is not there,
/// 126 if it cannot be run.
fn not_run(failure: ProcessFailure) -> EngineError {
    let mut told = Diagnostic::new(failure.text);
    if let Some(errno) = failure.refused {
        let is_missing = io::Error::from_raw_os_error(errno).kind() == io::ErrorKind::NotFound;
        told.exit_code = ExitCode::Program(if is_missing { 127 } else { 126 });
    }
    EngineError::Failed(Box::new(told))
}

/// Writes what a program says as it comes.
async fn copy(mut from: Output, mut to: impl Write) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        let bytes = &chunk[..count];
        let written = tokio::task::block_in_place(|| to.write_all(bytes).and_then(|()| to.flush()));
        if written.is_err() {
            return;
        }
    }
}

/// What comes on standard input. Its thread cannot be woken from its read, so it is waited for by nobody and ends with
/// the process.
fn typed() -> mpsc::Receiver<Vec<u8>> {
    let (tell, typed) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = io::stdin().read(&mut chunk) {
            if tell.blocking_send(chunk[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    typed
}

/// Keeps the program's terminal as large as ours, which may have changed since it was made.
async fn follow_size(handle: ProcessHandle) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return;
    };
    loop {
        handle.resize(terminal::size(io::stdout()));
        if changes.recv().await.is_none() {
            return;
        }
    }
}
