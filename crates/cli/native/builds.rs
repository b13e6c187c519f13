//! Builds: one, or several at once on the one engine, each when those that it needs are done.

use std::sync::Arc;

use rbuild_builder::build::{self, Helpers};
use rbuild_builder::error::BuildError;
use rbuild_builder::request::{BuildOutcome, BuildRequest};
use rbuild_graph::progress::Sink;
use rbuild_server::core::{Core, Settings};
use rbuild_server::front_end::local::LocalFrontEnds;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Native;
use crate::engine::{EngineError, Planned};
use crate::lend_terminal::OwnTerminal;

impl Native {
    /// A build that `cancel` stops.
    pub(super) fn planned(
        &self,
        request: BuildRequest,
        sink: Arc<dyn Sink>,
        cancel: CancellationToken,
    ) -> impl Future<Output = Result<BuildOutcome, BuildError>> + Send + 'static {
        let helpers = Helpers {
            front_ends: Arc::new(self.front_ends()),
            terminal: Some(Arc::new(OwnTerminal)),
        };
        build::build(Arc::clone(&self.core), request, sink, cancel, helpers)
    }

    /// Front ends that are images, run by this process.
    pub(super) fn front_ends(&self) -> LocalFrontEnds {
        let server = Core::new(Arc::clone(&self.core), Settings::default());
        LocalFrontEnds(Arc::new(server))
    }

    /// Builds all, in the order of `builds` what came of each. The first that fails stops the others.
    pub(super) fn build_several(&self, builds: Vec<Planned>) -> Vec<Result<BuildOutcome, EngineError>> {
        let cancel = self.threads.cancel.child_token();
        let ends: Vec<watch::Sender<bool>> = builds.iter().map(|_| watch::Sender::new(false)).collect();
        let mut tasks = Vec::with_capacity(builds.len());
        for (own, planned) in ends.iter().zip(builds) {
            let waits: Vec<_> = planned
                .after
                .iter()
                .filter_map(|&at| ends.get(at))
                .map(watch::Sender::subscribe)
                .collect();
            let build = self.planned(planned.request, planned.sink, cancel.clone());
            let (own, cancel) = (own.clone(), cancel.clone());
            tasks.push(self.threads.spawn(async move {
                let before = async {
                    for mut wait in waits {
                        // A sender that is gone did not succeed: it has stopped everything.
                        if wait.wait_for(|done| *done).await.is_err() {
                            std::future::pending::<()>().await;
                        }
                    }
                };
                tokio::select! {
                    () = before => {}
                    () = cancel.cancelled() => return Err(BuildError::Canceled),
                }
                let built = build.await;
                match &built {
                    Ok(_) => drop(own.send_replace(true)),
                    Err(_) => cancel.cancel(),
                }
                built
            }));
        }
        tasks.into_iter().map(|task| self.threads.finish(task)).collect()
    }
}
