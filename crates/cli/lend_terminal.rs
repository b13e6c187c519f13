//! The user's terminal, lent to a shell in a step that failed: what is typed goes there byte by byte, what it shows comes
//! here, and the terminal is afterwards as it was.

use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rbuild_builder::container::{ContainerProcess, Input, Output, ProcessHandle, TerminalSize};
use rbuild_builder::failed_step::UserTerminal;
use rbuild_ui::text;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::terminal;

/// Bytes moved at once.
const CHUNK: usize = 4096;
/// Chunks typed ahead of a shell that does not read.
const AHEAD: usize = 16;
/// How soon the reader of what is typed notices that the shell has ended.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};
/// What is said of the build meanwhile is on the screen by then: it is shown in steps of a tenth of a second.
const SETTLE: Duration = Duration::from_millis(250);

/// The terminal of standard input and standard error.
#[derive(Debug)]
pub(crate) struct OwnTerminal;

impl UserTerminal for OwnTerminal {
    fn size(&self) -> TerminalSize {
        terminal::size(rustix::stdio::stdin())
    }

    fn lend<'a>(
        &'a self,
        process: ContainerProcess,
        told: &'a [String],
    ) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>> {
        Box::pin(async move {
            tokio::time::sleep(SETTLE).await;
            for line in told {
                writeln!(io::stderr(), "{}", text::one_line(line))?;
            }
            relay(process).await
        })
    }
}

/// While it lives, the terminal gives every byte as it is typed, and interprets none.
struct Raw(Termios);

impl Raw {
    fn start() -> io::Result<Self> {
        let stdin = rustix::stdio::stdin();
        let before = tcgetattr(stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin, OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _gone = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}

async fn relay(process: ContainerProcess) -> io::Result<()> {
    let ContainerProcess {
        stdin,
        stdout,
        handle,
        ..
    } = process;
    let (Some(input), Some(output)) = (stdin, stdout) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let mut resized = signal(SignalKind::window_change())?;
    let raw = Raw::start()?;
    fit(&handle);
    let over = Arc::new(AtomicBool::new(false));
    let typed = type_into(input, &over);
    let mut show = std::pin::pin!(show(output));
    let shown = loop {
        tokio::select! {
            shown = &mut show => break shown,
            _ = resized.recv() => fit(&handle),
        }
    };
    over.store(true, Ordering::Relaxed);
    drop(raw);
    typed.await;
    // How a shell ends is its user's affair.
    handle.wait().await.ok();
    shown
}

fn fit(handle: &ProcessHandle) {
    handle.resize(terminal::size(rustix::stdio::stdin()));
}

/// Shows what the shell writes, to its end.
async fn show(mut output: Output) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match output.read(&mut buffer).await? {
            0 => return Ok(()),
            count => {
                let mut screen = io::stderr().lock();
                screen.write_all(&buffer[..count])?;
                screen.flush()?;
            }
        }
    }
}

/// Gives what is typed to the shell until `over`; the future ends when nothing reads the terminal any more.
fn type_into(mut input: Input, over: &Arc<AtomicBool>) -> impl Future<Output = ()> {
    let (typed, mut keys) = mpsc::channel::<Vec<u8>>(AHEAD);
    let over = Arc::clone(over);
    let reader = tokio::task::spawn_blocking(move || {
        while !over.load(Ordering::Relaxed) {
            let stdin = rustix::stdio::stdin();
            let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
            if !matches!(poll(&mut ready, Some(&LOOK)), Ok(1..)) {
                continue;
            }
            let mut buffer = vec![0; CHUNK];
            let Ok(count @ 1..) = rustix::io::read(stdin, &mut buffer) else {
                return;
            };
            buffer.truncate(count);
            if typed.blocking_send(buffer).is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some(keys) = keys.recv().await {
            if input.write_all(&keys).await.is_err() {
                return;
            }
        }
    });
    async move {
        // It only fails with the runtime, and then nobody reads either.
        reader.await.ok();
    }
}
