//! The threads that work is done on, and how long they are waited for when the user asks to stop.
//!
//! What waits ends at once when it is stopped. A thread that copies or reads a large file does not, and nothing of it is needed
//! any more: it ends with the program, and the next build removes what it left, as after a kill.

use std::io;
use std::time::Duration;

use rbuild_builder::error::BuildError;
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{diagnostic, failed};
use crate::engine::EngineError;
use crate::signals;

/// How long builds that were stopped may take to end their steps and give back what they hold, all of them together.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Threads {
    /// Gone only while this is dropped.
    runtime: Option<Runtime>,
    handle: Handle,
    /// Set by the user's interrupt.
    pub(super) cancel: CancellationToken,
    /// Set when nothing is waited for any more.
    overdue: CancellationToken,
}

impl Threads {
    /// Starts them, and watches for signals.
    ///
    /// # Errors
    /// [`EngineError::Failed`].
    pub(super) fn start(workers: usize) -> Result<Self, EngineError> {
        Self::start_with(workers, GRACE)
    }

    fn start_with(workers: usize, grace: Duration) -> Result<Self, EngineError> {
        let cannot = |what: &str, error: &io::Error| EngineError::failed(format!("cannot {what}: {error}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .thread_name("rbuild")
            .enable_all()
            .build()
            .map_err(|error| cannot("start threads", &error))?;
        let (handle, cancel) = (runtime.handle().clone(), CancellationToken::new());
        signals::watch(&handle, cancel.clone()).map_err(|error| cannot("watch for signals", &error))?;
        let overdue = CancellationToken::new();
        let (stopped, told) = (cancel.clone(), overdue.clone());
        handle.spawn(async move {
            stopped.cancelled().await;
            tokio::time::sleep(grace).await;
            told.cancel();
        });
        Ok(Self {
            runtime: Some(runtime),
            handle,
            cancel,
            overdue,
        })
    }

    /// Does `work` on this thread.
    pub(super) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.handle.block_on(work)
    }

    /// Begins `work` on another.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.handle.spawn(work)
    }

    /// Does what can be left at any point.
    ///
    /// # Errors
    /// Those of `work`, and [`EngineError::Cancelled`].
    pub(super) fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, impl std::error::Error + 'static>>,
    ) -> Result<T, EngineError> {
        self.block_on(async {
            tokio::select! {
                done = work => done.map_err(failed),
                () = self.cancel.cancelled() => Err(EngineError::Cancelled),
            }
        })
    }

    /// Waits for a build that was begun. It is told of an interrupt by itself, and has some time to end.
    ///
    /// # Errors
    /// The build's, and [`EngineError::Cancelled`].
    pub(super) fn finish<T>(&self, build: JoinHandle<Result<T, BuildError>>) -> Result<T, EngineError> {
        let ended = self.block_on(async {
            tokio::select! {
                biased;
                ended = build => Some(ended),
                () = self.overdue.cancelled() => None,
            }
        });
        match ended {
            None => Err(EngineError::Cancelled),
            Some(Ok(built)) => built.map_err(|error| diagnostic(&error)),
            Some(Err(error)) => match error.try_into_panic() {
                Ok(reason) => std::panic::resume_unwind(reason),
                Err(_) => Err(EngineError::Cancelled),
            },
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take().filter(|_| self.cancel.is_cancelled()) {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn builds_that_do_not_end_are_waited_for_together() {
        const GRACE: Duration = Duration::from_millis(400);
        let threads = Threads::start_with(1, GRACE).unwrap();
        let endless = || threads.spawn(std::future::pending::<Result<(), BuildError>>());
        let builds = [endless(), endless(), endless(), endless()];
        let done = threads.spawn(std::future::ready(Ok::<_, BuildError>(())));
        threads.cancel.cancel();
        let start = Instant::now();
        assert!(threads.finish(done).is_ok(), "what has ended is not overdue");
        for build in builds {
            assert!(matches!(threads.finish(build), Err(EngineError::Cancelled)));
        }
        let took = start.elapsed();
        assert!(took >= GRACE / 2 && took < GRACE * 3, "{took:?}");
    }
}
