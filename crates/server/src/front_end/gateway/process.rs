//! The process of a front end that is an image, and the gateway it speaks to: HTTP/2 over its standard input and output.
//!
//! It lives as long as it has not returned and its connection holds, and never longer than its build.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use rbuild_builder::container::{
    Container, ContainerProcess, Input, Output, ProcessFailure, ProcessRequest, Shown, Streams,
};
use rbuild_builder::error::chain_text;
use rbuild_builder::value::Value;
use rbuild_dockerfile::csv::boolean;
use rbuild_graph::{ContentCache, ExecMeta, ExecOp, Mount, MountKind, NetMode, SecurityMode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::{Asked, Image, LABEL_NO_NETWORK, environment};
use crate::answer::Answer;
use crate::bridge::{self, Bridge, Caller};
use crate::core::Core;
use crate::errors::build_status;
use crate::forwarder::{Forwarder, Returned};
use crate::running::Running;
use crate::scope::Scope;
use crate::serve::health;

/// Calls a front end may have open at once.
const CALLS_MAX: u32 = 250;
/// How long a front end may take to end when it has returned, or closed its connection.
const GOODBYE: Duration = Duration::from_secs(10);
/// How much of the end of what it writes to standard error is told when it fails, bytes.
const STDERR_BYTES_MAX: usize = 4 << 10;
/// Where it finds the definition of its own image.
const METADATA: &str = "/run/config/buildkit/metadata/frontend.bin";

/// Runs the front end in `image`, and gives what it returns.
///
/// # Errors
/// What it returned, how it died, and those of making its sandbox.
pub(super) async fn run(
    core: &Arc<Core>,
    running: &Arc<Running>,
    caller: &Forwarder,
    scope: &Arc<Scope>,
    image: &Image,
    asked: Asked,
) -> Result<Answer, Status> {
    let permit = Arc::clone(&running.containers).try_acquire_owned();
    let _permit = permit.map_err(|_none| Status::resource_exhausted("too many front ends in this build"))?;
    let container = container(running, image).await?;
    let meta = environment::meta(&image.config, &asked.attrs, &running.session, &core.worker());
    let request = ProcessRequest {
        meta,
        secret_env: Vec::new(),
        security: SecurityMode::Sandbox,
        streams: Streams::Pipes { stdin: true },
    };
    let (forwarder, returned) = Forwarder::new(
        format!("{}-{}", running.id, caller.next_number()),
        asked.inputs.into_iter().collect(),
        caller.depth + 1,
        Arc::clone(scope),
    );
    let forwarder = Arc::new(forwarder);
    let answered = match container.start(request).await {
        Ok(process) => {
            let caller = Caller {
                running: Arc::clone(running),
                forwarder: Arc::clone(&forwarder),
            };
            converse(core, caller, &container, process, returned).await
        }
        Err(error) => Err(Status::unknown(chain_text(&error))),
    };
    forwarder.containers.release_all().await;
    // How it ended is part of the answer already.
    container.release().await.ok();
    answered
}

/// Its sandbox: the image, and the definition of it.
async fn container(running: &Running, image: &Image) -> Result<Container, Status> {
    let chain = image.files.chain(&running.job, &running.cancel).await;
    let chain = chain.map_err(|error| build_status(&error))?;
    let no_network = image.config.config.labels.get(LABEL_NO_NETWORK);
    let root = Mount {
        input: Some(0),
        selector: String::new(),
        dest: "/".to_owned(),
        output: None,
        readonly: false,
        kind: MountKind::Bind,
        content_cache: ContentCache::Default,
        result_id: String::new(),
    };
    let exec = ExecOp {
        meta: ExecMeta::default(),
        mounts: vec![root],
        network: if no_network.and_then(|value| boolean(value)).unwrap_or(false) {
            NetMode::None
        } else {
            NetMode::Unset
        },
        security: SecurityMode::Sandbox,
        secret_env: Vec::new(),
        cdi_devices: Vec::new(),
    };
    let definition = image.files.definition().map(prost::Message::encode_to_vec);
    let shown = definition.map(|content| Shown::File {
        path: METADATA.into(),
        content,
        mode: 0o400,
    });
    let shown = shown.into_iter().collect();
    let inputs = [Value::Chain(chain)];
    let made = Container::create(&running.job, exec, &inputs, shown, &running.cancel).await;
    made.map_err(|error| Status::unknown(chain_text(&error)))
}

/// Serves the front end until it ends.
async fn converse(
    core: &Arc<Core>,
    caller: Caller,
    container: &Container,
    process: ContainerProcess,
    mut returned: oneshot::Receiver<Returned>,
) -> Result<Answer, Status> {
    let ContainerProcess {
        stdin,
        stdout,
        stderr,
        handle,
    } = process;
    let (Some(input), Some(output)) = (stdin, stdout) else {
        return Err(Status::internal("the front end has no streams"));
    };
    let stderr = tokio::spawn(tail(stderr));
    let closed = CancellationToken::new();
    let connection = Connection {
        input,
        output,
        _closed: closed.clone().drop_guard(),
    };
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let serving = tokio::spawn(serve(
        Bridge::of(Arc::clone(core), caller),
        connection,
        stop.clone(),
    ));
    let mut ended = std::pin::pin!(handle.wait());
    let mut result = None;
    let end = tokio::select! {
        end = &mut ended => Some(end),
        // What it returned is kept; it has a moment to end by itself.
        done = &mut returned => {
            result = done.ok();
            finish(container, ended).await
        }
        () = closed.cancelled() => finish(container, ended).await,
    };
    stop.cancel();
    serving.abort();
    let told = stderr.await.unwrap_or_default();
    let result = result.or_else(|| returned.try_recv().ok());
    judge(result, end, &told)
}

/// Waits for a process that has no reason to go on. `None` is one that had to be ended.
async fn finish(
    container: &Container,
    ended: Pin<&mut impl Future<Output = Result<(), ProcessFailure>>>,
) -> Option<Result<(), ProcessFailure>> {
    let end = tokio::time::timeout(GOODBYE, ended).await;
    if end.is_err() {
        // Its end is ours and says nothing of it.
        container.release().await.ok();
    }
    end.ok()
}

/// What comes of a front end: the error it returned before the way it ended, and that before an answer. `None` is one that
/// had to be ended.
fn judge(
    result: Option<Returned>,
    end: Option<Result<(), ProcessFailure>>,
    stderr: &str,
) -> Result<Answer, Status> {
    match (result, end) {
        (Some(Err(status)), _) => Err(status),
        (_, Some(Err(failure))) => {
            let mut text = failure.text;
            if !stderr.trim().is_empty() {
                text = format!("{text}: {}", stderr.trim());
            }
            Err(Status::unknown(format!(
                "frontend ended without a result: {text}"
            )))
        }
        (Some(Ok(answer)), _) => Ok(answer),
        (None, None) => Err(Status::unknown("frontend grpc server closed unexpectedly")),
        (None, Some(Ok(()))) => Err(Status::unknown("no result for incomplete build")),
    }
}

async fn serve(bridge: Bridge, connection: Connection, stop: CancellationToken) {
    let bridge = bridge::service(bridge);
    let only = futures_util::stream::once(async { Ok::<_, io::Error>(connection) });
    let incoming = only.chain(futures_util::stream::pending());
    let server = Server::builder()
        .max_concurrent_streams(CALLS_MAX)
        .add_service(bridge)
        .add_service(health());
    // A connection that fails is one that is closed, which others wait for.
    server
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
        .ok();
}

/// The last of what is written to standard error, as far as it is text.
async fn tail(stderr: Option<Output>) -> String {
    let Some(mut stderr) = stderr else {
        return String::new();
    };
    let mut kept = Vec::new();
    let mut buffer = vec![0; STDERR_BYTES_MAX];
    while let Ok(len @ 1..) = stderr.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..len]);
        let over = kept.len().saturating_sub(STDERR_BYTES_MAX);
        kept.drain(..over);
    }
    let text = String::from_utf8_lossy(&kept);
    text.chars().filter(|c| !c.is_control() || *c == '\n').collect()
}

/// The standard input and output of a front end as one stream.
#[derive(Debug)]
struct Connection {
    input: Input,
    output: Output,
    /// Tells when the server has let go of it.
    _closed: DropGuard,
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.input).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn died() -> Option<Result<(), ProcessFailure>> {
        Some(Err(ProcessFailure {
            code: 1,
            text: "exit code: 1".to_owned(),
            refused: None,
        }))
    }

    #[test]
    fn an_error_that_is_returned_stands_before_an_end_and_that_before_an_answer() {
        let text = |result| {
            judge(result, died(), " no luck\n")
                .unwrap_err()
                .message()
                .to_owned()
        };
        assert_eq!(text(Some(Err(Status::unknown("mine")))), "mine");
        for result in [None, Some(Ok(Answer::empty()))] {
            assert_eq!(
                text(result),
                "frontend ended without a result: exit code: 1: no luck"
            );
        }
        for end in [Some(Ok(())), None] {
            judge(Some(Ok(Answer::empty())), end, "noise").unwrap();
        }
        let nothing = judge(None, Some(Ok(())), "").unwrap_err();
        assert_eq!(nothing.message(), "no result for incomplete build");
        let closed = judge(None, None, "").unwrap_err();
        assert_eq!(closed.message(), "frontend grpc server closed unexpectedly");
    }
}
