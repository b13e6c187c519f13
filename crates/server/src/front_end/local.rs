//! Front ends that are images, for builds that no client asked for: those of the command line. They speak to the same
//! gateway; files and secrets come from this machine, by the job's own client.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use rbuild_builder::export::BuildResult;
use rbuild_builder::front_ends::{FrontEndFailed, FrontEnds};
use rbuild_builder::job::Job;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{Asked, GATEWAY};
use crate::attest::Wanted;
use crate::core::Core;
use crate::errors;
use crate::events::EventLog;
use crate::export;
use crate::forwarder::Forwarder;
use crate::running::Running;

/// Runs them on this process's engine.
#[derive(Debug)]
pub struct LocalFrontEnds(pub Arc<Core>);

impl FrontEnds for LocalFrontEnds {
    fn answer<'a>(
        &'a self,
        job: &'a Arc<Job>,
        attrs: BTreeMap<String, String>,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<BuildResult, FrontEndFailed>> {
        Box::pin(async move {
            let answered = self.built(job, attrs, cancel).await;
            answered.map_err(|status| FrontEndFailed {
                text: status.message().to_owned(),
                place: errors::place(&status),
            })
        })
    }
}

impl LocalFrontEnds {
    async fn built(
        &self,
        job: &Arc<Job>,
        attrs: BTreeMap<String, String>,
        cancel: &CancellationToken,
    ) -> Result<BuildResult, Status> {
        let (forwarder, _returned) = Forwarder::new("local".to_owned(), HashMap::new(), 0, Arc::default());
        let running = Arc::new(Running::new(
            "local".to_owned(),
            Arc::new(EventLog::default()),
            cancel.clone(),
            Arc::clone(job),
            String::new(),
            Arc::new(forwarder),
        ));
        let wanted = Wanted::of(&attrs.clone().into_iter().collect())?;
        let asked = Asked {
            frontend: GATEWAY.to_owned(),
            attrs,
            ..Asked::default()
        };
        let answer = super::answer(&self.0, &running, &running.forwarder, asked).await?;
        export::result(&running, &answer, &wanted, &self.0.producers).await
    }
}
