//! Commands against an engine of the test: what they print, write, and how they end.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::{CommandFactory as _, Parser as _};
use rbuild_builder::engine_load::{EngineTarget, Given};
use rbuild_builder::image_files::CopyRules;
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
        })
    }

    fn run(&self, request: RunRequest, _sink: Arc<dyn Sink>) -> Result<u8, EngineError> {
        self.borrow()
            .ask(format!("run {} {:?}", request.image, request.args));
        match request.image.as_str() {
            "missing" => Err(EngineError::failed("no such image: missing")),
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
            "missing" => Err(EngineError::failed("no such image: missing")),
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
                "no such image: missing",
            )))),
            name => Ok(Removed {
                untagged: vec![name.to_owned()],
                deleted: vec![Digest::sha256(b"m")],
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

#[test]
fn a_quiet_build_prints_the_id_and_nothing_else() {
    let ran = run_line(&["build", "-q", "-t", "a", "."]);
    assert_eq!(ran.code, ExitCode::Success);
    assert_eq!(ran.stdout.text(), format!("{}\n", Digest::sha256(b"c")));
    assert_eq!(ran.stderr.text(), "");
    assert_eq!(ran.asked, ["build [\"a\"]"]);
}

#[test]
fn result_files_are_written_when_the_build_succeeds_only() {
    let dir = tempfile::tempdir().unwrap();
    let (iid, meta) = (dir.path().join("iid"), dir.path().join("meta.json"));
    let line = [
        "build",
        "--progress=none",
        "--iidfile",
        iid.to_str().unwrap(),
        "--metadata-file",
        meta.to_str().unwrap(),
        ".",
    ];
    std::fs::write(&iid, "stale").unwrap();
    assert_eq!(run_line(&line).code, ExitCode::Success);
    assert_eq!(
        std::fs::read_to_string(&iid).unwrap(),
        Digest::sha256(b"c").as_str()
    );
    let expected = format!(
        "{{\n  \"containerimage.digest\": \"{}\"\n}}",
        Digest::sha256(b"m")
    );
    assert_eq!(std::fs::read_to_string(&meta).unwrap(), expected);
    std::fs::remove_file(&meta).unwrap();
    let fake = Fake {
        build: Some(EngineError::Failed(Box::new(Diagnostic::new("boom")))),
        ..Fake::default()
    };
    let ran = run_with(fake, &line, b"");
    assert_eq!(ran.code, ExitCode::Failure);
    assert_eq!(ran.stderr.text(), "ERROR: boom\n");
    assert!(
        !iid.exists() && !meta.exists(),
        "a failed build leaves no result file"
    );
}

#[test]
fn a_stopped_build_ends_with_130() {
    let ran = run_with(
        Fake {
            build: Some(EngineError::Cancelled),
            ..Fake::default()
        },
        &["build", "-q", "."],
        b"",
    );
    assert_eq!(ran.code, ExitCode::Cancelled);
    assert_eq!(ran.stdout.text(), "");
    assert_eq!(ran.stderr.text(), "ERROR: canceled: context canceled\n");
}

#[test]
fn wrong_usage_does_not_open_the_engine() {
    let ran = run_line(&["build", "--policy=reset=true", "."]);
    assert_eq!(ran.code, ExitCode::Failure);
    assert_eq!(
        ran.stderr.text(),
        "ERROR: not supported yet: --policy: no Rego is evaluated here; buildx evaluates it when it builds through `rbuild serve`\n"
    );
    assert!(ran.asked.is_empty());
}

#[test]
fn warnings_of_flags_go_to_standard_error() {
    let ran = run_line(&["build", "-q", "--squash", "-o", "type=image,tpyo=\x1b[2J", "."]);
    assert_eq!(ran.code, ExitCode::Success);
    assert_eq!(
        ran.stderr
            .text()
            .lines()
            .filter(|line| line.starts_with("WARNING: "))
            .count(),
        2
    );
}

#[test]
fn a_reader_that_went_away_ends_quietly() {
    struct Closed;
    impl io::Write for Closed {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (mut env, _, stderr) = env(&[], b"");
    env.stdout = Box::new(Closed);
    let cli = Cli::try_parse_from(["rbuild", "version"]).unwrap();
    let done = run(cli, &mut env, &|_| Err(EngineError::Cancelled));
    assert_eq!(report(done, &mut env), ExitCode::Success);
    assert_eq!(stderr.text(), "");
}

fn lint(warnings: &[(Rule, u32)], failure: Option<&str>) -> SubrequestAnswer {
    let options = FrontendOptions {
        dockerfile: b"FROM a\nENV \x1b[2J x\nCMD y\n".to_vec(),
        filename: "inside".to_owned(),
        ..FrontendOptions::default()
    };
    let warning = |(rule, line): &(Rule, u32)| LintWarning {
        rule: *rule,
        message: "detail".to_owned(),
        description: "d",
        url: "https://example.test/r",
        span: Span::new(*line, *line),
    };
    let failure = failure.map(|message| LintFailure {
        message: message.to_owned(),
        span: Some(Span::new(1, 1)),
    });
    let warnings = warnings.iter().map(warning).collect();
    SubrequestAnswer::Lint(LintResults::new(&options, warnings, failure))
}

fn ask(answer: SubrequestAnswer, line: &[&str]) -> Ran {
    let fake = Fake {
        answer: Some(answer),
        ..Fake::default()
    };
    run_with(fake, line, b"")
}

const CHECK: [&str; 4] = ["build", "--progress=none", "--check", "."];

#[test]
fn a_check_without_findings_succeeds() {
    let ran = ask(lint(&[], None), &CHECK);
    assert_eq!(ran.code, ExitCode::Success);
    assert_eq!(ran.stdout.text(), "Check complete, no warnings found.\n");
    assert_eq!(ran.stderr.text(), "");
    assert_eq!(ran.asked, ["call Lint None"]);
}

#[test]
fn a_check_with_findings_fails_without_another_word() {
    let found = lint(&[(Rule::LegacyKeyValueFormat, 2)], None);
    let ran = ask(found.clone(), &CHECK);
    assert_eq!(ran.code, ExitCode::Failure);
    assert_eq!(ran.stderr.text(), "");
    assert_eq!(
        ran.stdout.text(),
        "Check complete, 1 warning has been found!\n\n\
         WARNING: LegacyKeyValueFormat - https://example.test/r\ndetail\nDockerfile:2\n--------------------\n   \
         1 |     FROM a\n   2 | >>> ENV \\x1b[2J x\n   3 |     CMD y\n   4 |     \n--------------------\n"
    );
    let ignoring = ["build", "--progress=none", "--call=check,ignorestatus=true", "."];
    assert_eq!(ask(found, &ignoring).code, ExitCode::Success);
}

#[test]
fn a_check_of_what_cannot_be_built_ends_with_the_error() {
    let found = lint(
        &[(Rule::LegacyKeyValueFormat, 2), (Rule::JsonArgsRecommended, 3)],
        Some("no such stage"),
    );
    let ran = ask(found, &CHECK);
    assert_eq!(ran.code, ExitCode::Failure);
    let stdout = ran.stdout.text();
    assert!(
        stdout.starts_with("Check complete, 2 warnings have been found!\n\nWARNING: "),
        "{stdout}"
    );
    assert!(stdout.ends_with("--------------------\n\n"), "{stdout}");
    assert!(
        ran.stderr
            .text()
            .starts_with("ERROR: no such stage\nDockerfile:1\n--------------------\n   1 | >>> FROM a\n"),
        "{}",
        ran.stderr.text()
    );
    let ran = ask(lint(&[], Some("no such stage")), &CHECK);
    assert_eq!((ran.code, ran.stdout.text().as_str()), (ExitCode::Failure, ""));
}

#[test]
fn answers_are_printed_as_text_or_json() {
    let options = FrontendOptions {
        dockerfile: b"# a first\nFROM x AS a\n".to_vec(),
        ..FrontendOptions::default()
    };
    let list = || SubrequestAnswer::Targets(TargetList::of(&options).unwrap());
    let ran = ask(
        list(),
        &["build", "--progress=none", "--call=targets", "--target=b", "."],
    );
    assert_eq!(ran.stdout.text(), "TARGET      DESCRIPTION\na (default) first\n");
    assert_eq!(ran.asked, ["call Targets Some(\"b\")"]);
    let dir = tempfile::tempdir().unwrap();
    let meta = dir.path().join("meta.json");
    let file = format!("--metadata-file={}", meta.display());
    let ran = ask(list(), &["build", "-q", "--call=targets,format=json", &file, "."]);
    assert_eq!(ran.code, ExitCode::Success);
    let printed: serde_json::Value = serde_json::from_str(&ran.stdout.text()).unwrap();
    assert_eq!(printed["targets"][0]["description"], "first");
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(meta).unwrap()).unwrap();
    assert_eq!(written["result.json"], printed);
    assert_eq!(written["version"], "1.0.0");
    let ran = run_line(&["build", "-q", "--call=outline", "."]);
    assert_eq!(
        (ran.code, ran.stderr.text().as_str()),
        (ExitCode::Failure, "ERROR: boom\n")
    );
}

#[test]
fn images_as_a_table() {
    let fake = || Fake {
        images: vec![
            image(Some("old"), "1", 30),
            image(Some("new"), "latest", 3),
            image(None, "", 4),
            image(Some("localhost:5000/a"), "x", 5),
        ],
        ..Fake::default()
    };
    let id = &Digest::sha256(b"c").hex()[..12].to_owned();
    let text = run_with(fake(), &["images"], b"").stdout.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "REPOSITORY         TAG      IMAGE ID       CREATED       SIZE"
    );
    assert_eq!(
        lines[1],
        format!("new                latest   {id}   3 days ago    12.35MB")
    );
    assert_eq!(lines.len(), 4);
    assert!(
        run_with(fake(), &["images", "-a"], b"")
            .stdout
            .text()
            .contains("<none>")
    );
    assert_eq!(
        run_with(fake(), &["images", "-q"], b"").stdout.text(),
        format!("{id}\n"),
        "one id once"
    );
    let whole = run_with(fake(), &["images", "-q", "--no-trunc"], b"")
        .stdout
        .text();
    assert_eq!(whole, format!("{}\n", Digest::sha256(b"c")));
    for (name, count) in [
        ("new", 1),
        ("new:latest", 1),
        ("new:other", 0),
        ("localhost:5000/a", 1),
        ("localhost:5000/a:x", 1),
    ] {
        let text = run_with(fake(), &["images", name], b"").stdout.text();
        assert_eq!(text.lines().count() - 1, count, "{name}");
    }
    assert!(
        run_with(fake(), &["images", "--digests"], b"")
            .stdout
            .text()
            .contains(Digest::sha256(b"m").as_str())
    );
}

#[test]
fn images_as_json() {
    let fake = Fake {
        images: vec![image(Some("a"), "1", 3)],
        ..Fake::default()
    };
    let text = run_with(fake, &["images", "--format", "json"], b"").stdout.text();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["Repository"], "a");
    assert_eq!(json["CreatedSince"], "3 days ago");
    assert_eq!(json["ID"], Digest::sha256(b"c").hex()[..12]);
}

#[test]
fn images_by_a_template() {
    let fake = || Fake {
        images: vec![image(Some("a"), "1", 3), image(None, "", 4)],
        ..Fake::default()
    };
    let of = |format: &str| {
        let ran = run_with(fake(), &["images", "-a", "--format", format], b"");
        (ran.code, ran.stdout.text())
    };
    assert_eq!(of("{{.Repository}}:{{.Tag}}").1, "a:1\n<none>:<none>\n");
    assert!(of("{{.ID}}").1.starts_with(&Digest::sha256(b"c").hex()[..12]));
    assert_eq!(of("{{nonsense}}").0, ExitCode::Failure);
}

#[test]
fn a_build_is_given_to_an_engine_and_says_so() {
    let ran = run_line(&["build", "--load=unix:///x.sock", "--progress=plain", "."]);
    assert_eq!(ran.code, ExitCode::Success);
    let id = Digest::sha256(b"c");
    assert_eq!(
        ran.asked,
        [
            "build []".to_owned(),
            format!("give [\"{id}\"] to unix:///x.sock")
        ]
    );
    let said = ran.stderr.text();
    assert!(
        said.contains("loaded into unix:///x.sock: 1 of 3 layers, 1.5kB"),
        "{said}"
    );
    let quiet = run_line(&["build", "-q", "--load=unix:///x.sock", "."]);
    assert_eq!(quiet.stderr.text(), "");
}

#[test]
fn names_are_given_and_taken() {
    assert_eq!(run_line(&["tag", "a", "b"]).asked, ["tag a b"]);
    let ran = run_line(&["rmi", "-f", "a", "missing", "b"]);
    assert_eq!(ran.asked, ["rmi a true", "rmi missing true", "rmi b true"]);
    assert_eq!(ran.code, ExitCode::Failure);
    assert_eq!(ran.stderr.text(), "ERROR: no such image: missing\n");
    assert!(ran.stdout.text().starts_with("Untagged: a\nDeleted: sha256:"));
}

#[test]
fn transfers_print_digests() {
    let digest = Digest::sha256(b"m");
    assert_eq!(
        run_line(&["push", "--progress=none", "a"]).stdout.text(),
        format!("a@{digest}\n")
    );
    let ran = run_line(&["pull", "-q", "--platform=linux/arm64", "a"]);
    assert_eq!(ran.stdout.text(), format!("{digest}\n"));
    assert_eq!(ran.asked, ["pull [\"a\"] Some(\"linux/arm64\")"]);
    assert_eq!(
        run_line(&["pull", "--progress=x", "a"]).stderr.text(),
        "ERROR: invalid progress mode x\n"
    );
}

#[test]
fn disk_usage() {
    let fake = || Fake {
        usage: vec![record("a", true, true), record("b", false, false)],
        ..Fake::default()
    };
    assert_eq!(
        run_with(fake(), &["du"], b"").stdout.text(),
        "ID   RECLAIMABLE   SIZE   LAST ACCESSED\na    false         1MB*   2 hours ago\nb*   true          1MB    2 hours ago\n\
         Shared:       1MB\nPrivate:      1MB\nReclaimable:  1MB\nTotal:        2MB\n"
    );
    let text = run_with(fake(), &["du", "--verbose"], b"").stdout.text();
    assert!(
        text.starts_with("ID:           a\nParents:\n - p\nCreated at:   1970-01-01T00:00:00Z\n"),
        "{text}"
    );
    assert!(
        text.contains("Description:  mount / from exec \\x1b[2J\n"),
        "row 44"
    );
    let filtered = run_with(
        fake(),
        &["du", "--filter", "until=24h", "--filter", "type=regular"],
        b"",
    );
    assert!(!filtered.stdout.text().contains("Total:"));
    assert!(filtered.asked[0].contains("86400s") && filtered.asked[0].contains("(\"type\", \"regular\")"));
    let json = run_with(fake(), &["du", "--format=json"], b"").stdout.text();
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(
        (first["ID"].as_str(), first["Size"].as_u64()),
        (Some("a"), Some(1_000_000))
    );
}

#[test]
fn filters_that_are_refused() {
    for (filters, expected) in [
        (
            &["until=x"][..],
            "\"until\" filter expects a duration (e.g., '24h')",
        ),
        (
            &["until=1h", "until=2h"],
            "\"until\" filter expects only one value",
        ),
        (
            &["until=1h", "unused-for=2h"],
            "conflicting filters \"until\" and \"unused-for\"",
        ),
        (&["id=a", "id=b"], "\"id\" filter expects only one value"),
        (&["colour=red"], "invalid filter \"colour=red\""),
    ] {
        let line: Vec<&str> = std::iter::once("du")
            .chain(filters.iter().flat_map(|f| ["--filter", f]))
            .collect();
        let ran = run_line(&line);
        assert_eq!(ran.stderr.text(), format!("ERROR: {expected}\n"));
        assert!(ran.asked.is_empty());
    }
}

#[test]
fn pruning_asks_first() {
    let fake = || Fake {
        usage: vec![record("a", false, false)],
        ..Fake::default()
    };
    let question =
        "WARNING! This will remove all dangling build cache. Are you sure you want to continue? [y/N] ";
    for answer in [&b""[..], b"n\n", b"yes please\n"] {
        let ran = run_with(fake(), &["prune"], answer);
        assert_eq!((ran.stdout.text().as_str(), ran.asked.len()), (question, 0));
        assert_eq!(ran.code, ExitCode::Success);
    }
    let ran = run_with(fake(), &["prune"], b"Y\n");
    assert!(ran.stdout.text().ends_with("Total:   1MB\n"));
    assert_eq!(ran.asked.len(), 1);
    assert!(
        run_with(fake(), &["prune", "-a"], b"n")
            .stdout
            .text()
            .starts_with("WARNING! This will remove all build cache.")
    );
    let ran = run_with(
        fake(),
        &["prune", "-af", "--max-used-space=1g", "--filter=until=1h"],
        b"",
    );
    assert!(
        ran.asked[0].contains("all: true") && ran.asked[0].contains("max_used_bytes: Some(1073741824)"),
        "{:?}",
        ran.asked
    );
    assert!(!ran.stdout.text().contains("WARNING"));
    assert_eq!(
        run_line(&["prune", "-f", "--max-used-space=x"]).code,
        ExitCode::Failure
    );
}

#[test]
fn files_are_asked_for_as_docker_asks() {
    for (line, asked) in [
        (
            &["cp", "-aL", "c:/x", "there"][..],
            "take c Some((\"/x\", true, true)) there",
        ),
        (&["cp", "c:x", "-"], "take c Some((\"x\", false, false)) tar"),
        (&["container", "export", "c"], "take c None tar"),
        (&["container", "rm", "-fv", "missing"], "rm missing true"),
        (
            &["create", "--name=n", "-it", "-v", "/:/x", "image", "sh"],
            "create image Some(\"n\")",
        ),
    ] {
        let ran = run_line(line);
        assert_eq!(ran.code, ExitCode::Success, "{}", ran.stderr.text());
        assert_eq!(ran.asked, [asked]);
    }
    assert_eq!(run_line(&["rm", "a", "missing"]).stdout.text(), "a\n");
}

#[test]
fn referrers_are_listed_with_their_types() {
    let ran = run_line(&["imagetools", "inspect", "--referrers", "r.test/a:1"]);
    let text = ran.stdout.text();
    assert!(
        text.starts_with("DIGEST") && text.contains("application/x.test"),
        "{text}"
    );
}

#[test]
fn versions_are_asked_for_as_of_a_client_and_a_server() {
    for template in [
        "{{.Server.Version}}",
        "{{.Client.Version}}",
        "{{ .Server.Version }}",
    ] {
        let ran = run_line(&["version", "--format", template]);
        assert_eq!(ran.stdout.text(), format!("{}\n", env!("CARGO_PKG_VERSION")));
    }
    let json = run_line(&["buildx", "version", "--format=json"]).stdout.text();
    let said: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(said["Server"]["Os"], "linux");
}

#[test]
fn the_version_names_the_platform() {
    assert_eq!(
        run_line(&["version"]).stdout.text(),
        format!("rbuild {} linux/amd64\n", env!("CARGO_PKG_VERSION"))
    );
}

/// Runs the program as BuildKit's daemon.
fn buildkitd_with(line: &[&str]) -> (Result<(), CommandError>, Vec<String>) {
    let fake = Fake::default();
    let asked = Rc::clone(&fake.asked);
    let fake = Rc::new(RefCell::new(fake));
    let args = Buildkitd::try_parse_from(std::iter::once(&"buildkitd").chain(line)).unwrap();
    let open = move |options: EngineOptions| -> Result<Box<dyn Engine>, EngineError> {
        fake.borrow().ask(format!("root {:?}", options.root));
        Ok(Box::new(Rc::clone(&fake)))
    };
    let (mut env, _, _) = env(&[("HOME", "/home/u")], b"");
    let done = buildkitd(&args, &mut env, &open);
    let asked = asked.borrow().clone();
    (done, asked)
}

#[test]
fn buildkitd_takes_the_flags_of_buildkits_tests() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("buildkitd.toml");
    std::fs::write(&config, "insecure-entitlements = [\"network.host\"]\n").unwrap();
    let config = format!("--config={}", config.display());
    let (done, asked) = buildkitd_with(&[
        "--oci-worker=true",
        "--containerd-worker=false",
        "--oci-worker-gc=false",
        "--oci-worker-labels=a.b=true,c=d",
        &config,
        "--root",
        "/r",
        "--addr",
        "unix:///r/s.sock",
        "--debug",
    ]);
    done.unwrap();
    assert_eq!(asked[0], "root Some(\"/r/rbuild\")");
    assert_eq!(asked[1], "serve [\"unix:///r/s.sock\"] None None [NetworkHost]");
    for label in ["\"a.b\": \"true\"", "\"c\": \"d\""] {
        assert!(asked[2].contains(label), "{asked:?}");
    }
}

#[test]
fn a_daemon_that_cannot_be_is_refused_by_name() {
    for (line, words) in [
        (&["--oci-worker=false"][..], "--oci-worker=false"),
        (&["--containerd-worker=true"], "containerd"),
        (&["--idle-timeout=soon"], "soon"),
        (&["--allow-insecure-entitlement=everything"], "everything"),
        (&["--oci-worker-labels=alone"], "alone"),
        (&["--group=no such group"], "no such group"),
        (&["--tlscert=/c", "--tlskey=/k"], "--tlscacert"),
        (&["--tlscacert=/a"], "--tlscert"),
        (&["--oci-worker-selinux"], "SELinux"),
        (&["--oci-worker-apparmor-profile=p"], "AppArmor"),
        (&["--oci-worker-gc-keepstorage=much"], "much"),
        (&["--log-level=loud"], "loud"),
    ] {
        let (done, asked) = buildkitd_with(line);
        let Err(CommandError::Failed(diagnostic)) = done else {
            panic!("{line:?} was taken: {asked:?}");
        };
        assert!(
            diagnostic.message.contains(words),
            "{line:?}: {}",
            diagnostic.message
        );
    }
    let (done, asked) = buildkitd_with(&["--idle-timeout=5m", "--addr=unix:///a"]);
    done.unwrap();
    assert!(asked[1].contains("Some(300s)"), "{asked:?}");
}

#[test]
fn buildkitd_takes_what_drivers_of_buildx_pass() {
    let (done, asked) = buildkitd_with(&[
        "--allow-insecure-entitlement=network.host",
        "--oci-worker-no-process-sandbox",
        "--tlscacert=/a",
        "--tlscert=/c",
        "--tlskey=/k",
        "--oci-worker-gc-keepstorage=10,20,30",
        "--addr=tcp://0.0.0.0:1234",
        "--addr=fd://",
    ]);
    done.unwrap();
    assert!(
        asked[1].contains("[\"tcp://0.0.0.0:1234\", \"fd://\"]"),
        "{asked:?}"
    );
    assert!(asked[1].contains("[NetworkHost]"), "{asked:?}");
    assert_eq!(
        asked[3],
        "tls Some(ServerFiles { ca: \"/a\", own: Pair { cert: \"/c\", key: \"/k\" } })"
    );
    assert_eq!(
        asked[4],
        "gc Standard(Some(Limits { reserved: Bytes(10000000), max_used: Bytes(30000000), min_free: Bytes(20000000) }))"
    );
}

#[test]
fn what_the_configuration_says_is_served_and_flags_win() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buildkitd.toml");
    let text = "root = \"/kept\"\ninsecure-entitlements = [\"network.host\"]\n[grpc]\naddress = [\"unix:///a\"]\n\
                [grpc.tls]\nca = \"/a\"\ncert = \"/c\"\nkey = \"/k\"\n[worker.oci]\n[[worker.oci.gcpolicy]]\nkeepBytes = 5\n";
    std::fs::write(&path, text).unwrap();
    let config = format!("--config={}", path.display());
    let (done, asked) = buildkitd_with(&[&config]);
    done.unwrap();
    assert_eq!(asked[0], "root Some(\"/kept/rbuild\")");
    assert_eq!(asked[1], "serve [\"unix:///a\"] None None [NetworkHost]");
    assert!(asked[3].contains("\"/c\""), "{asked:?}");
    assert!(
        asked[4].starts_with("gc Listed([") && asked[4].contains("reserved: Bytes(5)"),
        "{asked:?}"
    );
    let (done, asked) = buildkitd_with(&[
        &config,
        "--allow-insecure-entitlement=security.insecure",
        "--addr=unix:///b",
        "--oci-worker-gc=false",
    ]);
    done.unwrap();
    assert_eq!(asked[1], "serve [\"unix:///b\"] None None [SecurityInsecure]");
    assert_eq!(asked[4], "gc Off");
}

#[test]
fn devices_are_described_where_the_configuration_says_and_can_be_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buildkitd.toml");
    let cdi = |text: &str, flags: &[&str]| {
        std::fs::write(&path, text).unwrap();
        let config = format!("--config={}", path.display());
        let flags: Vec<&str> = [config.as_str(), "--addr=unix:///a"]
            .into_iter()
            .chain(flags.iter().copied())
            .collect();
        let (done, asked) = buildkitd_with(&flags);
        done.unwrap();
        asked[5].clone()
    };
    let usual = cdi("", &[]);
    assert!(
        usual.contains(r#"["/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"]"#),
        "{usual}"
    );
    let set = "[cdi]\nspecDirs = [\"/s\"]\nautoAllowed = [\"v.com/c\"]\n";
    let own = cdi(set, &[]);
    assert!(
        own.contains(r#"dirs: ["/s"], auto_allowed: ["v.com/c"]"#),
        "{own}"
    );
    let flag = cdi(set, &["--cdi-spec-dir=/f"]);
    assert!(
        flag.contains(r#"dirs: ["/f"], auto_allowed: ["v.com/c"]"#),
        "{flag}"
    );
    assert_eq!(cdi(set, &["--cdi-disabled"]), "cdi None");
    assert_eq!(cdi("[cdi]\ndisabled = true\n", &[]), "cdi None");
    assert_ne!(
        cdi("[cdi]\ndisabled = true\n", &["--cdi-disabled=false"]),
        "cdi None"
    );
}

#[test]
fn a_daemon_keeps_its_store_where_buildkitd_does() {
    let (done, asked) = buildkitd_with(&["--addr=unix:///a"]);
    done.unwrap();
    let expected = if rustix::process::geteuid().is_root() {
        "/var/lib/buildkit/rbuild"
    } else {
        "/home/u/.local/share/buildkit/rbuild"
    };
    assert_eq!(asked[0], format!("root Some({expected:?})"));
}

#[test]
fn drivers_of_buildx_find_the_version_at_its_place() {
    let shown = Buildkitd::command().render_version();
    let words: Vec<&str> = shown.split_whitespace().collect();
    assert_eq!(words.len(), 4, "{shown}");
    assert!(words[2].starts_with('v'), "{shown}");
}

#[test]
fn inspect_prints_dockers_json() {
    let ran = run_line(&["inspect", "a", "missing"]);
    assert_eq!(ran.code, ExitCode::Failure, "one of them is not there");
    assert_eq!(ran.stderr.text(), "ERROR: no such image: missing\n");
    let text = ran.stdout.text();
    assert!(text.starts_with("[\n    {\n        \"Id\": \"sha256:"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json[0]["RepoTags"], serde_json::json!(["a:1"]));
    let digest = format!("a@{}", Digest::sha256(b"m"));
    assert_eq!(json[0]["RepoDigests"], serde_json::json!([digest]));
    assert_eq!(json[0]["Created"], "1970-01-01T00:00:00Z");
    assert_eq!(json[0]["Comment"], "buildkit.dockerfile.v0");
    assert_eq!(json[0]["Metadata"]["LastTagTime"], "1970-01-01T00:00:00Z");
    assert_eq!(json[0]["Size"], 2_500_100);
}

#[test]
fn inspect_takes_templates_and_says_what_it_does_not_understand() {
    let ran = run_line(&["image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", "a"]);
    assert_eq!(ran.stdout.text(), "linux/amd64\n");
    let ran = run_line(&["inspect", "--platform=linux/arm64", "-f", "{{slice .Id}}", "a"]);
    assert_eq!(ran.code, ExitCode::Failure);
    assert!(ran.stderr.text().contains("function \"slice\" is not supported"));
    assert!(ran.asked.is_empty(), "the template is judged first");
}

#[test]
fn history_is_a_table_newest_first() {
    let ran = run_line(&["history", "a"]);
    let text = ran.stdout.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("IMAGE          CREATED        CREATED BY"),
        "{text}"
    );
    assert!(lines[1].starts_with(&Digest::sha256(b"c").hex()[..12]) && lines[1].contains("CMD <x>   "));
    assert!(lines[1].contains("   0B "));
    assert!(
        lines[2].contains("RUN a long command that is cut off here and …   2.5MB   buildkit.dockerfile.v0")
    );
    let ran = run_line(&["history", "-q", "--no-trunc", "a"]);
    assert_eq!(
        ran.stdout.text(),
        format!("{}\n<missing>\n", Digest::sha256(b"c"))
    );
    let ran = run_line(&[
        "history",
        "--human=false",
        "--format={{.Size}} {{.CreatedAt}}",
        "a",
    ]);
    assert_eq!(
        ran.stdout.text(),
        "0 1970-01-01T00:00:00Z\n2500000 1970-01-01T00:00:00Z\n"
    );
}

#[test]
fn a_saved_file_appears_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    std::fs::write(&path, "old").unwrap();
    let to = path.to_str().unwrap();
    assert_eq!(run_line(&["save", "broken", "-o", to]).code, ExitCode::Failure);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(run_line(&["save", "a", "-o", to]).code, ExitCode::Success);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "half and half");
    assert_eq!(run_line(&["save", "a"]).stdout.text(), "half and half");
}

#[test]
fn load_prints_dockers_lines() {
    let ran = run_with(Fake::default(), &["load"], b"archive");
    assert_eq!(ran.asked, ["load archive None"]);
    let id = Digest::sha256(b"c");
    assert_eq!(
        ran.stdout.text(),
        format!("Loaded image: a:1\nLoaded image: a:2\nLoaded image ID: {id}\n")
    );
    let ran = run_line(&["load", "-i", "/nowhere/at/all"]);
    assert_eq!(ran.code, ExitCode::Failure);
    assert!(
        ran.asked.is_empty(),
        "the store is not opened for a file that is not there"
    );
}
