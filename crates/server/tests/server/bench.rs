//! A server in this process, and requests to it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::moby::buildkit::v1::control_server::Control as _;
use bollard_buildkit_proto::moby::buildkit::v1::{
    Exporter, SolveRequest, SolveResponse, StatusRequest, StatusResponse,
};
use futures_util::StreamExt as _;
use rbuild_builder::engine::Engine;
use rbuild_registry::{Client, Credentials, RegistryConfig};
use rbuild_sandbox::Sandbox;
use rbuild_server::bridge::Bridge;
use rbuild_server::control::ControlService;
use rbuild_server::core::{Core, Settings};
use rbuild_session::fake::{FakeClient, FakeConnection};
use rbuild_store::{FormName, OpenOptions, Store};
use rbuild_sys::overlay::Form;
use tonic::{Request, Status};

pub(crate) struct Bench {
    pub(crate) core: Arc<Core>,
    pub(crate) control: ControlService,
    pub(crate) bridge: Bridge,
    /// Goes last: what is still written goes with it.
    pub(crate) dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with_sandbox(Sandbox::new().unwrap())
    }

    /// One that can run processes, which a sandbox started by this test program cannot.
    pub(crate) fn with_sandbox(sandbox: Sandbox) -> Self {
        Self::with_settings(sandbox, Settings::default())
    }

    /// One that was started so.
    pub(crate) fn with_settings(sandbox: Sandbox, settings: Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), &OpenOptions::default()).unwrap();
        let client = Client::new(RegistryConfig::default(), Credentials::default(), "test");
        let form = FormName::parse("root").unwrap();
        let engine = Engine::new(store, client, sandbox, Form::Trusted, form);
        let core = Arc::new(Core::new(Arc::new(engine), settings));
        Self {
            dir,
            control: ControlService(Arc::clone(&core)),
            bridge: Bridge::new(Arc::clone(&core)),
            core,
        }
    }

    /// A directory with these files.
    pub(crate) fn files(&self, name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
        let dir = self.dir.path().join(name);
        for (path, text) in files {
            let path = dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    /// A client with the directory as context and Dockerfile, that takes exporter 0's stream.
    pub(crate) async fn client(&self, id: &str, context: &Path, out: &Arc<Mutex<Vec<u8>>>) -> FakeConnection {
        let sent = rbuild_session::fake::SentNames::default();
        let client = FakeClient::new(id)
            .shared_key("key")
            .directory("context", context, &sent)
            .directory("dockerfile", context, &sent)
            .output(0, out);
        client.connect(&self.core.sessions).await.unwrap()
    }

    pub(crate) async fn solve(&self, request: SolveRequest) -> Result<SolveResponse, Status> {
        let done = self.control.solve(Request::new(request)).await;
        done.map(tonic::Response::into_inner)
    }

    /// Everything that a build says, until its stream ends.
    pub(crate) async fn status(&self, id: &str) -> Result<Vec<StatusResponse>, Status> {
        let request = StatusRequest { r#ref: id.to_owned() };
        let stream = self.control.status(Request::new(request)).await?.into_inner();
        Ok(stream.map(Result::unwrap).collect().await)
    }
}

/// A request for the built-in front end with one exporter.
pub(crate) fn dockerfile(id: &str, session: &str, exporter: &str, attrs: &[(&str, &str)]) -> SolveRequest {
    SolveRequest {
        r#ref: id.to_owned(),
        session: session.to_owned(),
        frontend: "dockerfile.v0".to_owned(),
        frontend_attrs: texts(attrs).into_iter().collect(),
        exporters: vec![Exporter {
            r#type: exporter.to_owned(),
            attrs: HashMap::new(),
        }],
        ..SolveRequest::default()
    }
}

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}
