//! Commands against an engine of the test: what they print, write, and how they end.

mod building;
mod daemon;
mod images;
mod questions;
mod records;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::{CommandFactory as _, Parser as _};
use rbuild_builder::engine_load::{EngineTarget, Given};
use rbuild_builder::image_files::CopyRules;
use rbuild_builder::imagetools::attestations::{Kind, Predicates};
use rbuild_builder::imagetools::{Combination, Combined, Found};
use rbuild_builder::load::Loaded;
use rbuild_builder::request::{BuildOutcome, BuildRequest};
use rbuild_builder::run::RunRequest;
use rbuild_dockerfile::Span;
use rbuild_frontend::subrequest::{LintFailure, LintResults, Subrequest, SubrequestAnswer, TargetList};
use rbuild_frontend::{FrontendOptions, LintWarning, Rule};
use rbuild_graph::progress::Sink;
use rbuild_oci::{
    Descriptor, Digest, History, ImageConfig, Index, Reference, Timestamp, media_type, parse_document,
};

use super::*;
use crate::engine::{
    ContainerRow, CreateRequest, FilesTo, ImageDetails, ImageRow, Info, OpenOutput, PruneRequest, Removed,
    ServeRequest, UsageFilter, UsageRow,
};
use crate::env::testing::{Written, env};

/// What the engine answers, and what it was asked.
#[derive(Default)]
struct Fake {
    build: Option<EngineError>,
    asked: Rc<RefCell<Vec<String>>>,
    images: Vec<ImageRow>,
    usage: Vec<UsageRow>,
    answer: Option<SubrequestAnswer>,
}

impl Fake {
    fn ask(&self, what: String) {
        self.asked.borrow_mut().push(what);
    }
}

impl Engine for Rc<RefCell<Fake>> {
    fn build(&self, request: BuildRequest, _sink: Arc<dyn Sink>) -> Result<BuildOutcome, EngineError> {
        self.borrow().ask(format!("build {:?}", request.tags));
        match self.borrow_mut().build.take() {
            Some(error) => Err(error),
            None => Ok(BuildOutcome {
                manifest_digest: Some(Digest::sha256(b"m")),
                config_digest: Some(Digest::sha256(b"c")),
                metadata: [(
                    "containerimage.digest".to_owned(),
                    Digest::sha256(b"m").as_str().into(),
                )]
                .into(),
                ..BuildOutcome::default()
            }),
        }
    }

    fn build_definition(
        &self,
        request: BuildRequest,
        definition: &[u8],
        sink: Arc<dyn Sink>,
    ) -> Result<BuildOutcome, EngineError> {
        self.borrow()
            .ask(format!("definition of {} bytes", definition.len()));
        self.build(request, sink)
    }

    fn call(
        &self,
        request: BuildRequest,
        subrequest: Subrequest,
        _sink: Arc<dyn Sink>,
    ) -> Result<SubrequestAnswer, EngineError> {
        self.borrow()
            .ask(format!("call {subrequest:?} {:?}", request.target));
        match self.borrow().answer.clone() {
            Some(answer) => Ok(answer),
            None => Err(EngineError::failed("boom")),
        }
    }

    fn push(&self, names: &[String], _sink: Arc<dyn Sink>) -> Result<Vec<(String, Digest)>, EngineError> {
        Ok(names
            .iter()
            .map(|name| (name.clone(), Digest::sha256(b"m")))
            .collect())
    }

    fn pull(
        &self,
        names: &[String],
        platform: Option<&str>,
        _sink: Arc<dyn Sink>,
    ) -> Result<Vec<(String, Digest)>, EngineError> {
        self.borrow().ask(format!("pull {names:?} {platform:?}"));
        Ok(names
            .iter()
            .map(|name| (name.clone(), Digest::sha256(b"m")))
            .collect())
    }

    fn find_remote(&self, name: &str) -> Result<Found, EngineError> {
        self.borrow().ask(format!("find {name}"));
        let bytes = Index::new(media_type::OCI_INDEX, vec![]).to_bytes();
        Ok(Found {
            reference: Reference::parse(name).unwrap().or_latest(),
            descriptor: Descriptor::of(media_type::OCI_INDEX, &bytes),
            document: parse_document(&bytes, None).unwrap(),
            bytes,
        })
    }

    fn remote_configs(&self, _found: &Found) -> Result<Vec<(Descriptor, ImageConfig)>, EngineError> {
        Ok(Vec::new())
    }

    fn predicates(&self, _found: &Found, _kind: Kind) -> Result<Predicates, EngineError> {
        Ok(Predicates::new())
    }

    fn referrers(&self, found: &Found) -> Result<Vec<Descriptor>, EngineError> {
        Ok(vec![Descriptor {
            artifact_type: Some("application/x.test".to_owned()),
            ..found.descriptor.clone()
        }])
    }

    fn combine(
        &self,
        asked: &Combination,
        publish: bool,
        _sink: Arc<dyn Sink>,
    ) -> Result<Combined, EngineError> {
        let annotations: Vec<_> = asked.annotations.iter().collect();
        self.borrow().ask(format!(
            "combine {} {:?} {annotations:?} {publish}",
            asked.sources.len(),
            asked.targets.iter().map(ToString::to_string).collect::<Vec<_>>()
        ));
        Ok(Combined {
            descriptor: Descriptor::of(media_type::OCI_INDEX, b"{}"),
            bytes: b"{}".to_vec(),
            entries: Vec::new(),
        })
    }

    fn give(&self, names: &[String], to: &EngineTarget) -> Result<Given, EngineError> {
        self.borrow().ask(format!("give {names:?} to {to}"));
        Ok(Given {
            sent_bytes: 1500,
            layers_sent: 1,
            layers_kept: 2,
            by_manifest: false,
        })
    }

    fn run(&self, request: RunRequest, _sink: Arc<dyn Sink>) -> Result<u8, EngineError> {
        self.borrow()
            .ask(format!("run {} {:?}", request.image, request.args));
        match request.image.as_str() {
            "missing" => Err(EngineError::failed("No such image: missing")),
            "three" => Ok(3),
            _ => Ok(0),
        }
    }

    fn info(&self) -> Result<Info, EngineError> {
        Ok(Info {
            root: "/store".into(),
            form: "root".to_owned(),
            images: 2,
            used_bytes: 3000,
            ..Info::default()
        })
    }

    fn images(&self) -> Result<Vec<ImageRow>, EngineError> {
        Ok(self.borrow().images.clone())
    }

    fn image(&self, text: &str, platform: Option<&str>) -> Result<ImageDetails, EngineError> {
        self.borrow().ask(format!("image {text} {platform:?}"));
        match text {
            "missing" => Err(EngineError::failed("No such image: missing")),
            _ => Ok(details()),
        }
    }

    fn create_container(&self, request: &CreateRequest, _sink: Arc<dyn Sink>) -> Result<String, EngineError> {
        self.borrow()
            .ask(format!("create {} {:?}", request.image, request.name));
        Ok("0123456789abcdef".repeat(4))
    }

    fn containers(&self) -> Result<Vec<ContainerRow>, EngineError> {
        Ok(Vec::new())
    }

    fn remove_container(&self, text: &str, force: bool) -> Result<bool, EngineError> {
        self.borrow().ask(format!("rm {text} {force}"));
        Ok(text != "missing")
    }

    fn take_files(
        &self,
        container: &str,
        path: Option<(&str, CopyRules)>,
        to: FilesTo<'_>,
    ) -> Result<(), EngineError> {
        let path = path.map(|(path, rules)| (path.to_owned(), rules.follow_link, rules.keep_owners));
        let to = match to {
            FilesTo::Path(path) => path.display().to_string(),
            FilesTo::Tar(_) => "tar".to_owned(),
        };
        self.borrow().ask(format!("take {container} {path:?} {to}"));
        Ok(())
    }

    fn save(&self, names: &[String], open: OpenOutput<'_>) -> Result<(), EngineError> {
        self.borrow().ask(format!("save {names:?}"));
        let mut out = open().map_err(|error| EngineError::failed(error.to_string()))?;
        out.write_all(b"half").unwrap();
        if names[0] == "broken" {
            return Err(EngineError::failed("blob is gone"));
        }
        out.write_all(b" and half").unwrap();
        out.flush().unwrap();
        Ok(())
    }

    fn load(
        &self,
        input: &mut (dyn io::Read + Send),
        platform: Option<&str>,
    ) -> Result<Vec<Loaded>, EngineError> {
        let mut text = String::new();
        input.read_to_string(&mut text).unwrap();
        self.borrow().ask(format!("load {text} {platform:?}"));
        let named = |names: &[&str]| Loaded {
            names: names.iter().map(|name| Reference::parse(name).unwrap()).collect(),
            id: Digest::sha256(b"c"),
        };
        Ok(vec![named(&["a:1", "a:2"]), named(&[])])
    }

    fn tag(&self, source: &str, target: &str) -> Result<(), EngineError> {
        self.borrow().ask(format!("tag {source} {target}"));
        Ok(())
    }

    fn remove_image(&self, name: &str, force: bool) -> Result<Removed, EngineError> {
        self.borrow().ask(format!("rmi {name} {force}"));
        match name {
            "missing" => Err(EngineError::Failed(Box::new(Diagnostic::new(
                "No such image: missing",
            )))),
            name => Ok(Removed {
                untagged: vec![name.to_owned()],
                deleted: vec![Digest::sha256(b"m")],
                missing: false,
            }),
        }
    }

    fn usage(&self, filter: &UsageFilter) -> Result<Vec<UsageRow>, EngineError> {
        self.borrow().ask(format!("du {filter:?}"));
        Ok(self.borrow().usage.clone())
    }

    fn serve(&self, request: ServeRequest) -> Result<(), EngineError> {
        let ServeRequest {
            addresses,
            gid,
            idle,
            entitlements,
            ..
        } = &request;
        self.borrow()
            .ask(format!("serve {addresses:?} {gid:?} {idle:?} {entitlements:?}"));
        self.borrow().ask(format!("labels {:?}", request.labels));
        self.borrow().ask(format!("tls {:?}", request.tls));
        self.borrow().ask(format!("gc {:?}", request.gc));
        self.borrow().ask(format!("cdi {:?}", request.cdi));
        Ok(())
    }

    fn prune(&self, request: &PruneRequest) -> Result<Vec<UsageRow>, EngineError> {
        self.borrow().ask(format!("prune {request:?}"));
        Ok(self.borrow().usage.clone())
    }
}

fn details() -> ImageDetails {
    let step = |command: &str, empty_layer: bool| History {
        created: Timestamp::from_unix(0, 0),
        created_by: command.to_owned(),
        comment: "buildkit.dockerfile.v0".to_owned(),
        empty_layer,
        ..History::default()
    };
    ImageDetails {
        id: Digest::sha256(b"c"),
        names: vec![Reference::parse("docker.io/library/a:1").unwrap()],
        descriptor: Descriptor::of("m", b"m"),
        config: ImageConfig {
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            created: Timestamp::from_unix(0, 0),
            history: vec![
                step(
                    "RUN a long command that is cut off here and not later # buildkit",
                    false,
                ),
                step("CMD <x>", true),
            ],
            ..ImageConfig::default()
        },
        layers: vec![Descriptor::new("l", Digest::sha256(b"l"), 2_500_000)],
        size_bytes: 2_500_100,
        tagged: Some(SystemTime::UNIX_EPOCH),
    }
}

struct Ran {
    code: ExitCode,
    stdout: Written,
    stderr: Written,
    asked: Vec<String>,
}

fn run_with(fake: Fake, line: &[&str], stdin: &[u8]) -> Ran {
    let (mut env, stdout, stderr) = env(&[], stdin);
    let asked = Rc::clone(&fake.asked);
    let fake = Rc::new(RefCell::new(fake));
    let cli = Cli::try_parse_from(std::iter::once(&"rbuild").chain(line)).unwrap();
    let open =
        move |_: EngineOptions| -> Result<Box<dyn Engine>, EngineError> { Ok(Box::new(Rc::clone(&fake))) };
    let done = run(cli, &mut env, &open);
    let code = report(done, &mut env);
    let asked = asked.borrow().clone();
    Ran {
        code,
        stdout,
        stderr,
        asked,
    }
}

fn run_line(line: &[&str]) -> Ran {
    run_with(Fake::default(), line, b"")
}

fn image(repository: Option<&str>, tag: &str, age_days: u64) -> ImageRow {
    ImageRow {
        repository: repository.map(str::to_owned),
        tag: repository.map(|_| tag.to_owned()),
        digest: Digest::sha256(b"m"),
        id: Digest::sha256(b"c"),
        created: Some(SystemTime::now() - Duration::from_secs(age_days * 86400 + 10)),
        size_bytes: 12_345_678,
    }
}

fn record(id: &str, in_use: bool, shared: bool) -> UsageRow {
    UsageRow {
        id: id.to_owned(),
        parents: vec!["p".to_owned()],
        created: SystemTime::UNIX_EPOCH,
        mutable: !shared,
        in_use,
        shared,
        size_bytes: 1_000_000,
        description: "mount / from exec \x1b[2J".to_owned(),
        usage_count: 2,
        last_used: Some(SystemTime::now() - Duration::from_secs(2 * 3600)),
        kind: "regular".to_owned(),
    }
}
