//! Signals: the first interrupt asks the build to stop, the third ends the program at once. Owns no terminal state:
//! the live view leaves the terminal as it was after every frame.

use std::io;

use rbuild_ui::diagnostic::ExitCode;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Interrupts after which nothing is waited for.
const FORCED_AT: u32 = 3;

/// Watches for `SIGINT` and `SIGTERM` from now on.
///
/// # Errors
/// What the system says when a handler cannot be set.
pub(crate) fn watch(runtime: &Handle, cancel: CancellationToken) -> io::Result<()> {
    let _inside = runtime.enter();
    let interrupt = signal(SignalKind::interrupt())?;
    let terminate = signal(SignalKind::terminate())?;
    runtime.spawn(count(interrupt, terminate, cancel));
    Ok(())
}

async fn count(mut interrupt: Signal, mut terminate: Signal, cancel: CancellationToken) {
    for _ in 1..FORCED_AT {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        cancel.cancel();
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    force();
}

#[allow(
    clippy::exit,
    reason = "the user asked three times: nothing is to be waited for any more"
)]
fn force() -> ! {
    std::process::exit(i32::from(ExitCode::Cancelled.code()))
}
