//! A server on a socket and what comes over it: fields that are newer than the generated messages, and bytes that are no
//! messages (row 48).

use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::{InfoRequest, SolveRequest, SolveResponse};
use bollard_buildkit_proto::pb;
use http::uri::PathAndQuery;
use prost::Message;
use rbuild_client::{Address, connect};
use rbuild_graph::{
    ExecMeta, ExecOp, Graph, LinuxResources, Mount, MountKind, NetMode, Op, SecurityMode, Vertex, VertexMeta,
};
use rbuild_sandbox::Sandbox;
use rbuild_server::listen::{Access, listen};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::bench::Bench;
use crate::builds::hello;
use crate::gateway::program;

const SOLVE: &str = "/moby.buildkit.v1.Control/Solve";
/// Longer than anything that is not stuck.
const LONG: Duration = Duration::from_secs(10);

/// The server of `bench` on a socket, until the guard goes.
fn serve(bench: &Bench) -> (PathBuf, DropGuard) {
    let path = bench.dir.path().join("wire.sock");
    let address = format!("unix://{}", path.display());
    let listening = listen(&address, &Access::default()).unwrap();
    let stop = CancellationToken::new();
    let core = std::sync::Arc::clone(&bench.core);
    tokio::spawn(rbuild_server::serve::serve(core, listening, None, stop.clone()));
    (path, stop.drop_guard())
}

async fn channel(path: &Path) -> Channel {
    let path = path.to_owned();
    let connect = tower_service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
    });
    Endpoint::from_static("http://localhost")
        .connect_with_connector(connect)
        .await
        .unwrap()
}

/// A connector of one function.
fn tower_service_fn<F, R>(connect: F) -> Connector<F>
where
    F: FnMut(Uri) -> R,
{
    Connector(connect)
}

struct Connector<F>(F);

impl<F, R, T> tonic::codegen::Service<Uri> for Connector<F>
where
    F: FnMut(Uri) -> R,
    R: Future<Output = std::io::Result<T>>,
{
    type Response = T;
    type Error = std::io::Error;
    type Future = R;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> R {
        (self.0)(uri)
    }
}

async fn call<M: Message + Default + 'static>(
    channel: &Channel,
    path: &'static str,
    message: M,
) -> Result<SolveResponse, Status> {
    let mut grpc = Grpc::new(channel.clone()).max_encoding_message_size(usize::MAX);
    grpc.ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<M, SolveResponse>::default();
    let done = grpc.unary(Request::new(message), PathAndQuery::from_static(path), codec);
    let done = tokio::time::timeout(LONG, done).await.expect("an answer in time");
    done.map(tonic::Response::into_inner)
}

async fn is_well(path: &Path) {
    let address: Address = format!("unix://{}", path.display()).parse().unwrap();
    let mut control = connect(&address, None, LONG).await.unwrap().control();
    control.info(InfoRequest {}).await.unwrap();
}

/// `SolveRequest` with a definition as it is on the wire today.
#[derive(Clone, PartialEq, Message)]
struct NewSolve {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "2")]
    definition: Option<rbuild_llb::wire::Definition>,
    #[prost(string, tag = "5")]
    session: String,
}

/// A step that may use nothing but a list of processors that is none.
fn limited(cpus: &str) -> rbuild_llb::wire::Definition {
    let mut graph = Graph::default();
    let exec = ExecOp {
        meta: ExecMeta {
            args: vec!["true".to_owned()],
            ..ExecMeta::default()
        },
        mounts: vec![Mount {
            output: Some(0),
            ..Mount::new("/", MountKind::Bind)
        }],
        network: NetMode::None,
        security: SecurityMode::Sandbox,
        secret_env: vec![],
        cdi_devices: vec![],
    };
    let vertex = Vertex {
        meta: VertexMeta {
            linux_resources: Some(LinuxResources {
                cpuset_cpus: cpus.to_owned(),
                ..LinuxResources::default()
            }),
            ..VertexMeta::default()
        },
        ..Vertex::new(Op::Exec(Box::new(exec)), vec![])
    };
    let vertex = graph.add(vertex).unwrap();
    rbuild_llb::encode_wire(&graph, &rbuild_graph::Edge { vertex, output: 0 }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_limits_in_a_clients_definition_are_followed() {
    let bench = Bench::with_sandbox(Sandbox::with_program(program()).unwrap());
    let (path, _stop) = serve(&bench);
    let channel = channel(&path).await;
    let solve = |id: &str, definition| NewSolve {
        id: id.to_owned(),
        definition: Some(definition),
        session: "none".to_owned(),
    };
    // Limits that cannot be are told before anything is run, so they were read.
    let refused = call(&channel, SOLVE, solve("limited", limited("no list")))
        .await
        .unwrap_err();
    assert!(
        refused
            .message()
            .contains("cpuset-cpus is no list of numbers: \"no list\""),
        "{refused}"
    );
    // The same bytes as a message that knows no limits.
    let old = pb::Definition::decode(limited("no list").encode_to_vec().as_slice()).unwrap();
    let old = SolveRequest {
        r#ref: "old".to_owned(),
        definition: Some(old),
        session: "none".to_owned(),
        ..SolveRequest::default()
    };
    let other = call(&channel, SOLVE, old).await.unwrap_err();
    assert!(!other.message().contains("cpuset"), "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row48_bytes_that_are_no_messages_are_errors_for_who_sends_them() {
    #[derive(Clone, PartialEq, Message)]
    struct Garbage {
        #[prost(bytes = "vec", tag = "2")]
        definition: Vec<u8>,
    }
    let bench = Bench::new();
    let (path, _stop) = serve(&bench);
    let channel = channel(&path).await;
    let garbage = Garbage {
        definition: vec![0xff; 64],
    };
    let refused = call(&channel, SOLVE, garbage).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal, "{refused}");
    let unknown = call(
        &channel,
        "/moby.buildkit.v1.Control/Destroy",
        SolveRequest::default(),
    )
    .await
    .unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
    let nowhere = call(&channel, "/evil.Service/Call", SolveRequest::default())
        .await
        .unwrap_err();
    assert_eq!(nowhere.code(), Code::Unimplemented);
    let large = Garbage {
        definition: vec![0; 20 << 20],
    };
    let refused = call(&channel, SOLVE, large).await.unwrap_err();
    assert!(
        matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted),
        "{refused}"
    );
    // The connection of the client that sent all of this is of use yet.
    let twin = SolveRequest {
        r#ref: "twin".to_owned(),
        session: "none".to_owned(),
        definition: Some(hello("x")),
        ..SolveRequest::default()
    };
    call(&channel, SOLVE, twin).await.unwrap();
    is_well(&path).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row48_frames_that_are_none_end_their_connection_alone() {
    let bench = Bench::new();
    let (path, _stop) = serve(&bench);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let streams: [&[u8]; 5] = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\xff\x13nonsense",
        // A frame that says it has 16 MiB.
        &[&preface[..], b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"].concat(),
        // Headers that no table has.
        &[
            &preface[..],
            b"\0\0\0\x04\0\0\0\0\0",
            b"\0\0\x04\x01\x05\0\0\0\x01\xff\xff\xff\xff",
        ]
        .concat(),
    ];
    for bytes in streams {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        // A server that has heard enough may be gone before all is written.
        stream.write_all(bytes).await.ok();
        stream.shutdown().await.ok();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await;
        // A reset is an end too.
        drop(read.expect("the connection ends"));
        is_well(&path).await;
    }
}
