//! A front end for tests: speaks the gateway over its standard input and output, as those in images do. What it does is said by
//! the option `do`; what it found out is the file `/found` of its answer. Also the hidden mode of the sandbox.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for tests: what goes wrong in it is a failed test"
)]

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll};

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    InputsRequest, PingRequest, ReadDirRequest, ReadFileRequest, Ref, Result as GatewayResult, ReturnRequest,
    SolveRequest, result,
};
use bollard_buildkit_proto::pb;
use hyper_util::rt::TokioIo;
use rbuild_graph::{Edge, FileAction, FileActionKind, FileOp, Graph, MkFileAction, Op, SourceOp, Vertex};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

mod containers;
mod failures;

type Client = LlbBridgeClient<Channel>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn serve() -> ExitCode {
    let options = options();
    let what = options.get("do").or_else(|| options.get("build-arg:DO"));
    let what = what.map_or("", String::as_str);
    match what {
        "die" => {
            eprintln!("no luck");
            return ExitCode::from(3);
        }
        "garbage" => {
            println!("this is not HTTP/2 {}", "x".repeat(1 << 16));
            std::future::pending::<()>().await;
        }
        "silence" => std::future::pending::<()>().await,
        _ => {}
    }
    let mut client = connect().await;
    if let Some(question) = options.get("requestid") {
        client.r#return(answer(question, &options)).await.unwrap();
        return ExitCode::SUCCESS;
    }
    let found = match what {
        "look" => look(&mut client, &options).await,
        "read" => read(&mut client, &options).await,
        "layout" => layout(&mut client, &options).await,
        "containers" => containers::all(&mut client).await,
        "forbidden" => containers::forbidden(&mut client).await,
        "failures" => failures::look_into(&mut client).await,
        "leave" => containers::leave(&mut client).await,
        "call-itself" => Ok(call_itself(&mut client, &options).await),
        "error" => Err("the front end says no".to_owned()),
        other => Err(format!("nothing is known of {other:?}")),
    };
    let answer = match found {
        Ok(text) => ReturnRequest {
            result: Some(made(&mut client, &text).await),
            error: None,
        },
        Err(message) => ReturnRequest {
            result: None,
            error: Some(rpc::Status {
                code: 2,
                message,
                details: Vec::new(),
            }),
        },
    };
    client.r#return(answer).await.unwrap();
    if what == "leave" {
        // A front end that does not end although it has answered.
        std::future::pending::<()>().await;
    }
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    rbuild_sandbox::init_if_requested();
    serve()
}

/// The options it was started with.
fn options() -> HashMap<String, String> {
    let pair = |(name, value): (String, String)| {
        name.starts_with("BUILDKIT_FRONTEND_OPT_")
            .then(|| {
                value
                    .split_once('=')
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
            })
            .flatten()
    };
    std::env::vars().filter_map(pair).collect()
}

/// The answer to a question about the file: none that knows more than the options.
fn answer(question: &str, options: &HashMap<String, String>) -> ReturnRequest {
    let json = match question {
        "frontend.lint" => {
            r#"{"warnings":[{"ruleName":"Own"}],"sources":[{"data":"b25lCnR3bwo="}],"buildError":{"message":"all is wrong","location":{"ranges":[{"start":{"line":2},"end":{"line":2}}]}}}"#
        }
        "frontend.targets" => r#"{"own":"targets"}"#,
        other => {
            return ReturnRequest {
                result: None,
                error: Some(rpc::Status {
                    code: 2,
                    message: format!("unsupported request {other}"),
                    details: Vec::new(),
                }),
            };
        }
    };
    let text = format!("{question} {} {}\n", options["frontend.caps"], options["cmdline"]);
    let forms = [
        ("result.json", json),
        ("result.txt", &text),
        ("result.statuscode", "1"),
    ];
    let metadata = forms.map(|(key, text)| (key.to_owned(), text.as_bytes().to_vec()));
    ReturnRequest {
        result: Some(GatewayResult {
            metadata: metadata.into_iter().collect(),
            ..GatewayResult::default()
        }),
        error: None,
    }
}

/// What it finds itself in.
async fn look(client: &mut Client, options: &HashMap<String, String>) -> Result<String, String> {
    let mut lines = Vec::new();
    let pong = client.ping(PingRequest {}).await.unwrap().into_inner();
    let has = |id: &str| {
        pong.frontend_api_caps
            .iter()
            .any(|cap| cap.id == id && cap.enabled)
    };
    lines.push(format!(
        "exec {}",
        has("gateway.exec") && has("gateway.exec.filesystem")
    ));
    for name in ["BUILDKIT_SESSION_ID", "BUILDKIT_EXPORTEDPRODUCT", "OF_IMAGE"] {
        lines.push(format!("{name}={}", std::env::var(name).unwrap_or_default()));
    }
    lines.push(format!(
        "option {}",
        options.get("build-arg:A").map_or("", String::as_str)
    ));
    lines.push(format!("cwd {}", std::env::current_dir().unwrap().display()));
    let definition = std::fs::read("/run/config/buildkit/metadata/frontend.bin").unwrap();
    let definition: pb::Definition = prost::Message::decode(definition.as_slice()).unwrap();
    lines.push(format!("definition of {} operations", definition.def.len()));
    let inputs = client.inputs(InputsRequest {}).await.unwrap().into_inner();
    let mut inputs: Vec<_> = inputs.definitions.into_keys().collect();
    inputs.sort();
    lines.push(format!("inputs {}", inputs.join(",")));
    let interfaces = std::fs::read_dir("/sys/class/net").unwrap().count();
    lines.push(format!("interfaces {interfaces}"));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    lines.push(format!(
        "pid {}, host in mounts {}",
        std::process::id(),
        mounts.contains("/home/")
    ));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    lines.extend(
        status
            .lines()
            .filter(|line| line.starts_with("Seccomp:"))
            .map(str::to_owned),
    );
    Ok(lines.join("\n"))
}

/// The Dockerfile, and what the context shows.
async fn read(client: &mut Client, options: &HashMap<String, String>) -> Result<String, String> {
    let dockerfile = solve(client, Some(local("dockerfile"))).await;
    let name = options.get("filename").cloned().unwrap_or_default();
    let request = ReadFileRequest {
        r#ref: dockerfile,
        file_path: name.clone(),
        ..ReadFileRequest::default()
    };
    let text = client
        .read_file(request)
        .await
        .map_err(|status| status.to_string())?;
    let text = String::from_utf8(text.into_inner().data).unwrap();
    let request = ReadDirRequest {
        r#ref: solve(client, Some(local("context"))).await,
        dir_path: "/".to_owned(),
        ..ReadDirRequest::default()
    };
    let entries = client
        .read_dir(request)
        .await
        .map_err(|status| status.to_string())?;
    let names: Vec<String> = entries
        .into_inner()
        .entries
        .into_iter()
        .map(|entry| entry.path)
        .collect();
    let line = options.get("cmdline").cloned().unwrap_or_default();
    Ok(format!(
        "{name} {} lines\n{line}\n{}",
        text.lines().count(),
        names.join(" ")
    ))
}

/// A file of the layout that the named context `near` is (`dockerui/namedcontext.go`).
async fn layout(client: &mut Client, options: &HashMap<String, String>) -> Result<String, String> {
    let value = options.get("context:near").cloned().unwrap_or_default();
    let place = value.strip_prefix("oci-layout://").ok_or_else(|| value.clone())?;
    let (store, digest) = place.split_once('@').ok_or_else(|| value.clone())?;
    let session = std::env::var("BUILDKIT_SESSION_ID").unwrap_or_default();
    let attrs = [("oci.store", store), ("oci.session", &session)];
    let attrs = attrs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let image = source(
        format!("oci-layout://docker.io/library/near@{digest}"),
        BTreeMap::from(attrs),
    );
    let request = ReadFileRequest {
        r#ref: solve(client, Some(image)).await,
        file_path: "inside".to_owned(),
        ..ReadFileRequest::default()
    };
    let text = client
        .read_file(request)
        .await
        .map_err(|status| status.to_string())?;
    Ok(String::from_utf8_lossy(&text.into_inner().data).into_owned())
}

/// A local directory as a definition.
fn local(name: &str) -> pb::Definition {
    source(format!("local://{name}"), BTreeMap::new())
}

/// A source as a definition.
fn source(identifier: String, attrs: BTreeMap<String, String>) -> pb::Definition {
    let mut graph = Graph::default();
    let vertex = graph.add(Vertex::new(
        Op::Source(SourceOp { identifier, attrs }),
        Vec::new(),
    ));
    let target = Edge {
        vertex: vertex.unwrap(),
        output: 0,
    };
    rbuild_llb::encode(&graph, &target).unwrap()
}

/// Asks for the same front end again, until it is told no. Gives what it was told.
async fn call_itself(client: &mut Client, options: &HashMap<String, String>) -> String {
    let inputs = client.inputs(InputsRequest {}).await.unwrap().into_inner();
    let request = SolveRequest {
        frontend: "gateway.v0".to_owned(),
        frontend_opt: options.clone(),
        frontend_inputs: inputs.definitions,
        ..SolveRequest::default()
    };
    match client.solve(request).await {
        Ok(_) => "answered".to_owned(),
        Err(status) => status.message().to_owned(),
    }
}

/// A result with `text` in its only file.
async fn made(client: &mut Client, text: &str) -> GatewayResult {
    let mut graph = Graph::default();
    let action = FileAction {
        input: None,
        secondary_input: None,
        output: Some(0),
        kind: FileActionKind::MkFile(MkFileAction {
            path: "/found".to_owned(),
            mode: 0o644,
            data: text.as_bytes().to_vec(),
            owner: None,
            time: None,
        }),
    };
    let vertex = graph.add(Vertex::new(
        Op::File(FileOp {
            actions: vec![action],
        }),
        Vec::new(),
    ));
    let target = Edge {
        vertex: vertex.unwrap(),
        output: 0,
    };
    let request = SolveRequest {
        definition: Some(rbuild_llb::encode(&graph, &target).unwrap()),
        ..SolveRequest::default()
    };
    client.solve(request).await.unwrap().into_inner().result.unwrap()
}

/// The id of an input of the build, solved.
async fn input(client: &mut Client, name: &str) -> String {
    let inputs = client.inputs(InputsRequest {}).await.unwrap().into_inner();
    solve(client, inputs.definitions.get(name).cloned()).await
}

/// The id of what a definition makes.
async fn solve(client: &mut Client, definition: Option<pb::Definition>) -> String {
    let request = SolveRequest {
        definition,
        ..SolveRequest::default()
    };
    let solved = client.solve(request).await.unwrap().into_inner().result.unwrap();
    match solved.result {
        Some(result::Result::Ref(Ref { id, .. })) => id,
        other => unreachable!("one file system was asked for, not {other:?}"),
    }
}

async fn connect() -> Client {
    let endpoint = Endpoint::from_static("http://front.end");
    let channel = endpoint.connect_with_connector(Connector(Some(Streams {
        input: Receiver::from_owned_fd(duplicate(rustix::stdio::stdin())).unwrap(),
        output: Sender::from_owned_fd(duplicate(rustix::stdio::stdout())).unwrap(),
    })));
    let client = LlbBridgeClient::new(channel.await.unwrap());
    client.max_decoding_message_size(64 << 20)
}

fn duplicate(fd: BorrowedFd<'_>) -> OwnedFd {
    fd.try_clone_to_owned().unwrap()
}

/// Standard input and output as one stream.
struct Streams {
    input: Receiver,
    output: Sender,
}

struct Connector(Option<Streams>);

impl Service<http::Uri> for Connector {
    type Response = TokioIo<Streams>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<TokioIo<Streams>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let streams = self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into());
        std::future::ready(streams.map(TokioIo::new))
    }
}

impl AsyncRead for Streams {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_read(cx, buf)
    }
}

impl AsyncWrite for Streams {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.output).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_shutdown(cx)
    }
}
