//! `buildctl build --addr`: a build by a server, with what this machine has for it over a session (`client/solve.go`,
//! `cmd/buildctl/build`). What the server says is shown by the same code as what an engine of this process says.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1 as api;
use rbuild_builder::error::chain_text;
use rbuild_builder::request::SecretSource;
use rbuild_builder::ssh::{Agents as _, SshAgents};
use rbuild_client::Control;
use rbuild_graph::progress::Sink;
use rbuild_llb::status_reader;
use rbuild_registry::{Credential, CredentialSources, Credentials};
use rbuild_session::attach::{AgentStream, Attachables, Attached, ConnectAgent, Login, Place};
use rbuild_ui::progress::Mode;
use rbuild_ui::values::csv;
use rbuild_ui::values::scalar::parse_bool;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::question::Question;
use super::stores::Stores;
use super::{build, server, told};
use crate::args::{BuildArgs, LowBuild, ServerArgs};
use crate::commands::CommandError;
use crate::env::Env;
use crate::request::policies;
use crate::{request, result_files, signals, view};

/// Largest secret, bytes: BuildKit's.
const SECRET_BYTES_MAX: u64 = 500 << 10;
/// How long the last of the progress is waited for when the result is known.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(3);

/// Builds by the server.
pub(super) fn run(args: &BuildArgs, to: &ServerArgs, env: &mut Env) -> Result<(), CommandError> {
    build::unserved(args)?;
    unserved(args)?;
    let mut stores = Stores::of(args)?;
    let mut attachables = attachables(args, env)?;
    let mut request = solve_request(args, &mut stores, env)?;
    for (number, text) in (0..).zip(&args.output) {
        let (exporter, place) = exporter(text, env.stdout_is_terminal)?;
        request.exporters.push(exporter);
        match place {
            None => {}
            Some(Goes::To(place)) => attachables = attachables.output(number, place),
            Some(Goes::IntoLayout(dest)) => stores.output(&dest)?,
        }
    }
    attachables = stores.attach(attachables);
    let mode = Mode::parse(&args.progress)
        .ok_or_else(|| CommandError::failed(&request::UsageError::Progress(args.progress.clone())))?;
    let mode = request::shown_mode(mode, env).map_err(|error| CommandError::failed(&error))?;
    let cannot =
        |what: &str, error: &dyn std::fmt::Display| CommandError::failed(&format!("cannot {what}: {error}"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| cannot("start", &error))?;
    let connection = runtime.block_on(server::connect(to, env))?;
    let question = Question::of(&mut request, connection.bridge());
    let cancel = CancellationToken::new();
    signals::watch(runtime.handle(), cancel.clone()).map_err(|error| cannot("start", &error))?;
    let view = view::start(mode, "Building", None, env).map_err(|error| cannot("show progress", &error))?;
    let sink = view.sink();
    let solved = runtime.block_on(async {
        tokio::select! {
            () = cancel.cancelled() => Err(CommandError::Cancelled),
            solved = solve(connection.control(), attachables.attach(), request, question, sink) => {
                solved.map_err(|status| told(&prefixed(&status)))
            }
        }
    });
    drop(view.finish());
    // A read of a directory or a socket that is still under way does not keep the program.
    runtime.shutdown_background();
    let (response, answer) = solved?;
    stores.finish(&response.exporter_response)?;
    if let Some(path) = &args.metadata_file {
        result_files::write_metadata(path, &metadata(response.exporter_response))
            .map_err(|error| CommandError::failed(&error))?;
    }
    for text in answer {
        env.stdout
            .write_all(&text)
            .map_err(|error| cannot("write the answer", &error))?;
    }
    Ok(())
}

/// What BuildKit's own client cannot ask a server for either: it is no part of the API.
fn unserved(args: &BuildArgs) -> Result<(), CommandError> {
    if !args.proxy_network {
        return Ok(());
    }
    Err(CommandError::failed(
        &"not supported through a server: --proxy-network; leave out --addr and BUILDKIT_HOST to build in this process",
    ))
}
fn attachables(args: &BuildArgs, env: &Env) -> Result<Attachables, CommandError> {
    let mut attachables = Attachables::default();
    for (name, dir) in build::pairs("--local", &args.local)? {
        let path = PathBuf::from(dir);
        if !path.is_dir() {
            return Err(CommandError::failed(&format!(
                "--local {name}: {path:?} is not a directory"
            )));
        }
        attachables = attachables.directory(&name, path);
    }
    let low = LowBuild {
        secret: args.secret.clone(),
        ssh: args.ssh.clone(),
        ..LowBuild::default()
    };
    let usage = |error: request::UsageError| CommandError::failed(&error);
    let specs = request::ssh(&low, env).map_err(usage)?;
    let agents = Arc::new(SshAgents::new(&specs));
    for spec in specs {
        attachables = attachables.agent(&spec.id.clone(), agent(Arc::clone(&agents), spec.id));
    }
    let secrets = request::secrets(&low, env).map_err(usage)?;
    if !secrets.is_empty() {
        // Variables are read now: a process has one environment, and threads must not.
        let known: HashMap<String, Result<Vec<u8>, PathBuf>> = secrets
            .into_iter()
            .map(|secret| {
                let source = match secret.source {
                    SecretSource::Env(name) => Ok(env.var(&name).unwrap_or_default().into_bytes()),
                    SecretSource::File(path) => Err(path),
                };
                (secret.id, source)
            })
            .collect();
        attachables = attachables.secrets(Arc::new(move |id: &str| match known.get(id) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value.clone())),
            Some(Err(path)) => read_secret(path).map(Some),
        }));
    }
    let credentials = Credentials::load(&CredentialSources::from_process());
    Ok(attachables.logins(Arc::new(move |host| login(credentials.clone(), host))))
}

/// An agent as the server sees it: it can ask for keys and for signatures, and nothing else.
fn agent(agents: Arc<SshAgents>, id: String) -> Arc<ConnectAgent> {
    Arc::new(move || {
        let (agents, id) = (Arc::clone(&agents), id.clone());
        Box::pin(async move {
            let connected = agents.connect(&id).await;
            let connected = connected.map_err(|error| chain_text(&error))?;
            Ok(Box::new(connected) as Box<dyn AgentStream>)
        })
    })
}

fn read_secret(path: &std::path::Path) -> Result<Vec<u8>, String> {
    let mut value = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut value));
    match read {
        Err(error) => Err(format!("{}: {error}", path.display())),
        Ok(length) if length as u64 > SECRET_BYTES_MAX => Err(format!(
            "invalid secret size: more than {SECRET_BYTES_MAX} bytes in {}",
            path.display()
        )),
        Ok(_) => Ok(value),
    }
}

fn login(credentials: Credentials, host: String) -> Login {
    Box::pin(async move {
        match credentials.find(&host, "", true).await.credential {
            Some(Credential::Basic { username, password }) => (username, password.reveal().to_owned()),
            // A refresh token goes where a password does, beside no user (`session/auth/authprovider`).
            Some(Credential::Identity(token)) => (String::new(), token.reveal().to_owned()),
            Some(Credential::Bearer(_)) | None => (String::new(), String::new()),
        }
    })
}

fn solve_request(
    args: &BuildArgs,
    stores: &mut Stores,
    env: &mut Env,
) -> Result<api::SolveRequest, CommandError> {
    let mut attrs: HashMap<String, String> = build::pairs("--opt", &args.opt)?.into_iter().collect();
    let frontend = args.frontend.clone().unwrap_or_default();
    let definition = if frontend.is_empty() {
        let bytes = build::definition(env)?;
        let read = <bollard_buildkit_proto::pb::Definition as prost::Message>::decode(bytes.as_slice());
        Some(
            read.map_err(|error| CommandError::failed(&format!("standard input is no definition: {error}")))?,
        )
    } else {
        if args.no_cache == Some(true) {
            attrs.insert("no-cache".to_owned(), String::new());
        }
        None
    };
    let policy = args.source_policy_file.as_deref().map(policies::message);
    Ok(api::SolveRequest {
        r#ref: identity(),
        session: identity(),
        definition,
        frontend,
        frontend_attrs: attrs,
        cache: Some(api::CacheOptions {
            exports: stores.exports(&args.export_cache)?,
            imports: stores.imports(&args.import_cache, env)?,
            ..api::CacheOptions::default()
        }),
        entitlements: args.allow.clone(),
        source_policy: policy.transpose().map_err(|error| CommandError::failed(&error))?,
        ..api::SolveRequest::default()
    })
}

/// A name that nobody else has.
fn identity() -> String {
    let bytes = rbuild_sys::random_bytes().expect("the kernel has random bytes once it has started");
    u128::from_le_bytes(bytes).to_string()
}

/// The type and the other fields of `type=TYPE,KEY=VALUE`.
pub(super) fn typed(flag: &str, text: &str) -> Result<(String, HashMap<String, String>), CommandError> {
    let fields = csv::attributes(text).map_err(|error| CommandError::failed(&error))?;
    let mut attrs: HashMap<String, String> = fields
        .into_iter()
        .map(|(key, value)| (key, value.unwrap_or_default()))
        .collect();
    match attrs.remove("type").filter(|kind| !kind.is_empty()) {
        Some(kind) => Ok((kind, attrs)),
        None => Err(CommandError::failed(&format!("{flag} requires type=<type>"))),
    }
}

/// Where a result goes on this machine.
#[derive(Debug, PartialEq, Eq)]
enum Goes {
    To(Place),
    /// Blobs and `index.json` in a directory.
    IntoLayout(String),
}

/// One `--output`: what the server is told, and where here its result goes.
fn exporter(text: &str, to_terminal: bool) -> Result<(api::Exporter, Option<Goes>), CommandError> {
    let (kind, mut attrs) = typed("--output", text)?;
    let dest = attrs.remove("dest").or_else(|| attrs.remove("output"));
    let fail = |why: String| Err(CommandError::failed(&why));
    let is_tree = match attrs.get("tar").map(|text| parse_bool(text)) {
        Some(None) => return fail("failed to parse tar".to_owned()),
        Some(Some(is_tar)) => !is_tar,
        None => false,
    };
    let is_mirror = match attrs.get("mode").map(String::as_str) {
        Some("delete") => true,
        Some(other) if other != "copy" && kind == "local" => {
            return fail(format!("invalid local exporter mode {other:?}"));
        }
        _ => false,
    };
    let place = match (kind.as_str(), dest.as_deref()) {
        ("local", None) => return fail("output directory is required for local exporter".to_owned()),
        ("local", Some(dir)) if is_mirror => Some(Goes::To(Place::Mirror(dir.into()))),
        ("local", Some(dir)) => Some(Goes::To(Place::Directory(dir.into()))),
        ("oci" | "docker", None | Some("-")) if is_tree => {
            return fail(format!("dest is required for {kind} exporter with tar=false"));
        }
        ("oci" | "docker", Some(dir)) if is_tree => Some(Goes::IntoLayout(dir.to_owned())),
        ("oci" | "docker" | "tar", None | Some("-")) if to_terminal => {
            return fail(format!(
                "output file is required for {kind} exporter. refusing to write to console"
            ));
        }
        ("oci" | "docker" | "tar", None | Some("-")) => Some(Goes::To(Place::Stdout)),
        ("oci" | "docker" | "tar", Some(path)) => Some(Goes::To(Place::File(path.into()))),
        (_, Some(_)) => return fail(format!("output {text} not supported by {kind} exporter")),
        (_, None) => None,
    };
    Ok((api::Exporter { r#type: kind, attrs }, place))
}

/// Opens the session, asks for the build, and shows what is said of it, until there is a result.
async fn solve(
    mut control: Control,
    attached: Attached,
    request: api::SolveRequest,
    question: Option<Question>,
    sink: Arc<dyn Sink>,
) -> Result<(api::SolveResponse, Vec<Vec<u8>>), Status> {
    let introduction = attached
        .introduction(&request.session, "buildctl", "")
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let mut opening = control.clone();
    let session = attached.serve(|outgoing| async move {
        let mut call = Request::new(outgoing);
        *call.metadata_mut() = introduction;
        Ok(opening.session(call).await?.into_inner())
    });
    let mut watching = control.clone();
    let id = request.r#ref.clone();
    let status = async {
        let asked = watching.status(api::StatusRequest { r#ref: id }).await;
        // What came of the build is told by its own call.
        let Ok(mut said) = asked.map(tonic::Response::into_inner) else {
            return;
        };
        while let Ok(Some(response)) = said.message().await {
            for event in status_reader::events(response) {
                sink.send(event);
            }
        }
    };
    let solved = async { control.solve(request).await.map(tonic::Response::into_inner) };
    let answered = async {
        match question {
            Some(question) => question.ask().await,
            None => Vec::new(),
        }
    };
    let solved = async {
        let (solved, answer) = tokio::join!(solved, answered);
        solved.map(|solved| (solved, answer))
    };
    tokio::pin!(session, status, solved);
    let mut is_watched = true;
    let solved = loop {
        tokio::select! {
            biased;
            solved = &mut solved => break solved,
            () = &mut status, if is_watched => is_watched = false,
            ended = &mut session => {
                ended?;
                return Err(Status::unavailable("the server ended the session"));
            }
        }
    };
    if is_watched {
        // The build is over; its last words are no part of its result.
        tokio::time::timeout(LAST_WORDS, status).await.ok();
    }
    solved
}

fn prefixed(status: &Status) -> Status {
    Status::new(status.code(), format!("failed to solve: {}", status.message()))
}

/// What `--metadata-file` gets: texts, and JSON where a text is JSON in base64 (`writeMetadataFile`).
fn metadata(response: HashMap<String, String>) -> BTreeMap<String, serde_json::Value> {
    use base64::Engine as _;
    let value = |text: String| {
        let decoded = base64::engine::general_purpose::STANDARD.decode(&text).ok();
        let json = decoded.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        let json = json.filter(serde_json::Value::is_object);
        json.unwrap_or(serde_json::Value::String(text))
    };
    response
        .into_iter()
        .map(|(key, text)| (key, value(text)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_for_the_server_or_for_this_machine() {
        let of = |text: &str| {
            exporter(text, false)
                .ok()
                .map(|(told, place)| (told.r#type, place))
        };
        assert_eq!(
            of("type=image,name=a,push=true"),
            Some(("image".to_owned(), None))
        );
        for (text, kind, place) in [
            ("type=local,dest=out", "local", Place::Directory("out".into())),
            ("type=tar,dest=a.tar", "tar", Place::File("a.tar".into())),
            ("type=oci", "oci", Place::Stdout),
            ("type=docker,dest=-", "docker", Place::Stdout),
            (
                "type=local,dest=out,mode=delete",
                "local",
                Place::Mirror("out".into()),
            ),
        ] {
            assert_eq!(of(text), Some((kind.to_owned(), Some(Goes::To(place)))), "{text}");
        }
        for text in [
            "dest=x",
            "type=local",
            "type=image,dest=x",
            "type=oci,tar=false",
            "type=oci,dest=x,tar=maybe",
            "type=local,dest=x,mode=remove",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
        assert!(
            exporter("type=tar", true).is_err(),
            "an archive is nothing for a terminal"
        );
        let (told, _) = exporter("type=oci,dest=x,name=n", false).unwrap();
        assert_eq!(told.attrs, HashMap::from([("name".to_owned(), "n".to_owned())]));
    }

    #[test]
    fn json_in_base64_is_json_in_the_file() {
        let response = HashMap::from([
            ("containerimage.digest".to_owned(), "sha256:x".to_owned()),
            ("containerimage.descriptor".to_owned(), "eyJhIjoxfQ==".to_owned()),
        ]);
        let found = metadata(response);
        assert_eq!(found["containerimage.digest"], "sha256:x");
        assert_eq!(found["containerimage.descriptor"]["a"], 1);
    }
}
