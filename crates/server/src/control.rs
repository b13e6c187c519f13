//! `moby.buildkit.v1.Control`: builds, their progress, sessions, the cache, and what ran before.

use std::pin::Pin;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::control_server::Control;
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryRequest, BytesMessage, DiskUsageRequest, DiskUsageResponse, InfoRequest,
    InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest, SolveRequest, SolveResponse,
    StatusRequest, StatusResponse, UpdateBuildHistoryRequest, UpdateBuildHistoryResponse, UsageRecord,
};
use futures_util::{Stream, StreamExt as _};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use crate::builds::BuildsError;
use crate::core::{Core, version};
use crate::events::EventLog;
use crate::{errors, run, usage};

/// Header by which clients learn how far their clock is off (`control/control.go`).
const TIMESTAMP_HEADER: &str = "buildkit-current-timestamp";

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
#[derive(Debug, Clone)]
pub struct ControlService(pub Arc<Core>);

#[tonic::async_trait]
impl Control for ControlService {
    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let (_, mut extensions, request) = request.into_parts();
        let newer = extensions.remove().unwrap_or_default();
        let response = run::solve(&self.0, request, newer).await?;
        Ok(Response::new(response))
    }

    type StatusStream = Answers<StatusResponse>;

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let id = request.into_inner().r#ref;
        if let Some(messages) = self.0.history.logs(&id).await? {
            return Ok(timestamped(messages));
        }
        match self.0.builds.get(&id).await {
            Ok(running) => Ok(timestamped(status_stream(Arc::clone(&running.events)))),
            // Why is what Solve answers. BuildKit lets its clients wait for progress, which they give up after 3 s
            // (`client/solve.go`).
            Err(BuildsError::Refused(_)) => Ok(timestamped(futures_util::stream::empty())),
            Err(error) => Err(errors::builds_status(&error)),
        }
    }

    type SessionStream = Answers<BytesMessage>;

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (metadata, _, incoming) = request.into_parts();
        let outgoing = self.0.sessions.accept(&metadata, incoming).await;
        let outgoing = outgoing.map_err(Status::from)?;
        Ok(Response::new(Box::pin(outgoing)))
    }

    async fn list_workers(
        &self,
        _: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        Ok(Response::new(ListWorkersResponse {
            record: vec![self.0.worker()],
        }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse {
            buildkit_version: Some(version()),
        }))
    }

    async fn disk_usage(
        &self,
        request: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>, Status> {
        let record = usage::records(&self.0, &request.into_inner()).await?;
        Ok(Response::new(DiskUsageResponse { record }))
    }

    type PruneStream = Answers<UsageRecord>;

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        let removed = usage::prune(&self.0, &request.into_inner()).await?;
        Ok(Response::new(Box::pin(futures_util::stream::iter(
            removed.into_iter().map(Ok),
        ))))
    }

    type ListenBuildHistoryStream = Answers<BuildHistoryEvent>;

    async fn listen_build_history(
        &self,
        request: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        let stream = self.0.history.listen(request.into_inner()).await?;
        Ok(timestamped(stream.map(Ok)))
    }

    async fn update_build_history(
        &self,
        request: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        self.0.history.update(request.into_inner()).await?;
        Ok(Response::new(UpdateBuildHistoryResponse {}))
    }
}

/// A stream that begins with the time of this machine.
fn timestamped<T>(stream: impl Stream<Item = Result<T, Status>> + Send + 'static) -> Response<Answers<T>> {
    let mut response: Response<Answers<T>> = Response::new(Box::pin(stream));
    let now = rbuild_builder::time::from_ms(rbuild_builder::time::now_ms());
    let now = now.map(|now| MetadataValue::try_from(now.to_string()));
    if let Some(Ok(now)) = now {
        response.metadata_mut().insert(TIMESTAMP_HEADER, now);
    }
    response
}

fn status_stream(events: Arc<EventLog>) -> impl Stream<Item = Result<StatusResponse, Status>> + Send {
    let batches = futures_util::stream::unfold((events, 0), |(events, from)| async move {
        let (batch, next) = events.next(from).await?;
        let responses = events.responses(batch);
        Some((
            futures_util::stream::iter(responses.into_iter().map(Ok)),
            (events, next),
        ))
    });
    batches.flatten()
}
