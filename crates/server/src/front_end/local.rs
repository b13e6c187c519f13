//! Front ends that are images, and definitions, for builds that no client asked for: those of the command line. Front ends
//! speak to the same gateway; files and secrets come from this machine, by the job's own client.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use futures_util::future::BoxFuture;
use prost::Message as _;
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
use crate::newer::Newer;
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
        let asked = Asked {
            frontend: GATEWAY.to_owned(),
            attrs,
            ..Asked::default()
        };
        let newer = Newer::default();
        Box::pin(async move { answered(&self.0, job, asked, newer, cancel).await.map_err(failed) })
    }

    fn question<'a>(
        &'a self,
        job: &'a Arc<Job>,
        attrs: BTreeMap<String, String>,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<BTreeMap<String, Vec<u8>>, FrontEndFailed>> {
        let asked = Asked {
            frontend: GATEWAY.to_owned(),
            attrs,
            ..Asked::default()
        };
        Box::pin(async move {
            let running = running(job, cancel);
            let answer = super::answer(&self.0, &running, &running.forwarder, asked).await;
            answer.map(|answer| answer.metadata).map_err(failed)
        })
    }
}

/// A definition that somebody on this machine gave.
#[derive(Debug)]
pub struct LocalDefinition {
    core: Arc<Core>,
    definition: pb::Definition,
    newer: Newer,
}

impl LocalDefinition {
    /// Reads a definition as BuildKit's tools write it (`pb.Definition`).
    ///
    /// # Errors
    /// What is wrong with the message; the definition in it is judged when it is built.
    pub fn read(core: Arc<Core>, bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        Ok(Self {
            core,
            definition: pb::Definition::decode(bytes)?,
            newer: Newer::of_definition(bytes)?,
        })
    }
}

impl FrontEnds for LocalDefinition {
    fn answer<'a>(
        &'a self,
        job: &'a Arc<Job>,
        attrs: BTreeMap<String, String>,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<BuildResult, FrontEndFailed>> {
        let asked = Asked {
            definition: Some(self.definition.clone()),
            attrs,
            ..Asked::default()
        };
        let newer = self.newer.clone();
        Box::pin(async move {
            let answered = answered(&self.core, job, asked, newer, cancel);
            answered.await.map_err(failed)
        })
    }

    fn question<'a>(
        &'a self,
        _: &'a Arc<Job>,
        _: BTreeMap<String, String>,
        _: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<BTreeMap<String, Vec<u8>>, FrontEndFailed>> {
        let unsupported = FrontEndFailed {
            text: "a definition answers no questions".to_owned(),
            place: None,
            is_unsupported: true,
            class: None,
        };
        Box::pin(std::future::ready(Err(unsupported)))
    }
}

fn failed(status: Status) -> FrontEndFailed {
    FrontEndFailed {
        text: status.message().to_owned(),
        place: errors::place(&status),
        is_unsupported: errors::is_unsupported_question(&status),
        class: errors::class(&status),
    }
}

/// What is asked, in a build of its own that no server lists.
async fn answered(
    core: &Arc<Core>,
    job: &Arc<Job>,
    asked: Asked,
    newer: Newer,
    cancel: &CancellationToken,
) -> Result<BuildResult, Status> {
    let running = running(job, cancel);
    running.resources.add(newer.resources)?;
    let wanted = Wanted::of(&asked.attrs.clone().into_iter().collect())?;
    let answer = super::answer(core, &running, &running.forwarder, asked).await?;
    export::result(&running, &answer, &wanted, &core.producers).await
}

/// A build that no server lists.
fn running(job: &Arc<Job>, cancel: &CancellationToken) -> Arc<Running> {
    let (forwarder, _returned) = Forwarder::new("local".to_owned(), HashMap::new(), 0, Arc::default());
    Arc::new(Running::new(
        "local".to_owned(),
        Arc::new(EventLog::default()),
        cancel.clone(),
        Arc::clone(job),
        String::new(),
        Arc::new(forwarder),
    ))
}
