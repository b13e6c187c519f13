//! The server itself: takes connections until it is told to stop, or has had nothing to do for long enough.

use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::health::health_server::{Health, HealthServer};
use bollard_buildkit_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse, health_check_response,
};
use bollard_buildkit_proto::moby::buildkit::v1::control_server::ControlServer;
use futures_util::stream::{BoxStream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::bridge::{self, Bridge};
use crate::content::ContentService;
use crate::control::ControlService;
use crate::core::Core;
use crate::gc;
use crate::info::WithInfo;
use crate::listen::Listening;
use crate::newer::WithNewer;
use crate::notify::{READY, STOPPING, notify};

/// Largest message in either direction, as BuildKit's (`util/grpcutil`, `defaults.DefaultMaxRecvMsgSize`).
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Streams one connection may have open.
const STREAMS_MAX: u32 = 1000;
/// How often an idle server looks whether it still is.
const IDLE_CHECK: Duration = Duration::from_millis(500);
/// How long connections may take to end once the server stops.
const GOODBYE: Duration = Duration::from_secs(2);

/// Serves until `stop`, or until nothing was built and nobody connected for `idle`.
///
/// # Errors
/// The transport's.
pub async fn serve(
    core: Arc<Core>,
    listening: Vec<Listening>,
    idle: Option<Duration>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let (sockets, _files): (Vec<_>, Vec<_>) = listening.into_iter().map(Listening::split).unzip();
    let incoming = futures_util::stream::select_all(sockets).map(Ok::<_, std::convert::Infallible>);
    let collected = Arc::clone(&core);
    let calls = ControlService(Arc::clone(&core));
    let control = ControlServer::new(calls.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let bridge = bridge::service(Bridge::new(Arc::clone(&core)));
    let server = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .add_service(WithNewer::new(WithInfo(control), calls))
        .add_service(bridge)
        .add_service(ContentService::new(core.history.clone()))
        .add_service(health());
    let over = {
        let (core, stop) = (Arc::clone(&core), stop.clone());
        async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = idle_for(&core, idle) => stop.cancel(),
            }
            notify(STOPPING);
            core.builds.cancel_all();
            core.sessions.close_all();
        }
    };
    notify(READY);
    let serving = server.serve_with_incoming_shutdown(incoming, over);
    let collecting = gc::keep_collecting(collected);
    let too_long = async {
        stop.cancelled().await;
        tokio::time::sleep(GOODBYE).await;
    };
    tokio::select! {
        served = serving => served,
        () = collecting => Ok(()),
        // A client that keeps its connection open does not keep the server.
        () = too_long => Ok(()),
    }
}

/// Ends when nothing was going on for `idle`.
async fn idle_for(core: &Core, idle: Option<Duration>) {
    let Some(idle) = idle else {
        return std::future::pending().await;
    };
    let mut since = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(IDLE_CHECK.min(idle)).await;
        if core.builds.count() > 0 || core.sessions.count() > 0 {
            since = tokio::time::Instant::now();
        }
        if since.elapsed() >= idle {
            return;
        }
    }
}

/// `grpc.health.v1.Health`: a server that answers serves.
#[derive(Debug)]
pub(crate) struct Serving;

/// The service of that.
pub(crate) fn health() -> HealthServer<Serving> {
    HealthServer::new(Serving)
}

fn serving() -> HealthCheckResponse {
    HealthCheckResponse {
        status: health_check_response::ServingStatus::Serving.into(),
    }
}

#[tonic::async_trait]
impl Health for Serving {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(serving()))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let statuses = std::iter::once((String::new(), serving())).collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let once = futures_util::stream::once(async { Ok(serving()) });
        Ok(Response::new(once.chain(futures_util::stream::pending()).boxed()))
    }
}
