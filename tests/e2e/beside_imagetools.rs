//! `imagetools` beside docker buildx's, on the same images of the same registry: what is printed, byte for byte, and whether it fails.
//! `imagetools.txt` has what buildx printed (461836ba); where there is a buildx it is asked again. `RBUILD_RECORD=1` writes the
//! file by it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use rbuild_testkit::command::Ran;
use rbuild_testkit::peer::DockerRegistry;

use crate::e2e::buildx;
use crate::e2e::fixture::Fixture;

const DOCKERFILE: &str =
    "FROM scratch\nARG TARGETARCH\nCOPY a /a\nLABEL type=$TARGETARCH\nENV A=1\nCMD [\"<x>\"]\n";

/// Lines that succeed. `P:` begins the name of an image in the registry, `@amd64` is a digest, `~` a blank in a word.
const PRINT: &[&str] = &[
    "inspect P:amd64",
    "inspect P:docker",
    "inspect P:two",
    "inspect P:noted",
    "inspect P:two@two",
    "inspect --raw P:two",
    "inspect --raw P:docker",
    "inspect --raw=false P:amd64",
    "inspect --format {{.Name}} P:two",
    "inspect --format {{.Manifest}} P:two",
    "inspect --format {{~.Manifest~}} P:amd64",
    "inspect --format {{json~.Manifest}} P:two",
    "inspect --format {{json~.Manifest}} P:amd64",
    "inspect --format {{json~.Manifest}} P:noted",
    "inspect --format {{json~.Manifest.Annotations}} P:noted",
    "inspect --format {{json~.Image}} P:two",
    "inspect --format {{json~.Image}} P:docker",
    "inspect --format {{json~.Image.Config}} P:amd64",
    "inspect --format {{json~.Image.RootFS}} P:amd64",
    "inspect --format {{json~.}} P:amd64",
    "inspect --format {{json~.}} P:two",
    "inspect --format {{json~.SBOM}}{{json~.Provenance}} P:two",
    "inspect --format {{json~.SBOM}}{{json~.Provenance}} P:amd64",
    "inspect --format {{.Manifest.Digest}}~{{.Manifest.Size}}~{{.Manifest.MediaType}} P:two",
    "inspect --format {{len~.Manifest.Manifests}} P:two",
    "inspect --format {{range~.Manifest.Manifests}}{{.Platform.Architecture}},{{end}} P:two",
    "inspect --format {{(index~.Manifest.Manifests~0).Digest}} P:two",
    "inspect --format {{.Image.Config.Cmd}}~{{.Image.Config.Env}} P:amd64",
    "inspect --format {{.Image.Architecture}}/{{.Image.OS}} P:amd64",
    "inspect --format {{(index~.Image~\"linux/amd64\").Config.Labels}} P:two",
    "inspect --format {{index~.Image.Config.Labels~\"type\"}} P:amd64",
    "inspect --format {{range~.Image.History}}{{.CreatedBy}};{{end}} P:amd64",
    "inspect --format {{.Manifest.Annotations}} P:noted",
    "inspect --format x P:amd64",
    "inspect --format json P:amd64",
    "create --dry-run P:amd64 P:arm64",
    "create --dry-run P:amd64",
    "create --dry-run P:two",
    "create --dry-run P:two P:arm",
    "create --dry-run P:arm P:two",
    "create --dry-run P:noted",
    "create --dry-run P:docker",
    "create --dry-run P:docker P:arm64",
    "create --dry-run P:amd64 P:amd64",
    "create --dry-run --prefer-index=false P:amd64",
    "create --dry-run --prefer-index=false P:two",
    "create --dry-run --annotation index:a=b P:amd64 P:arm64",
    "create --dry-run --annotation manifest-descriptor:a=b P:amd64 P:arm64",
    "create --dry-run --annotation manifest-descriptor[linux/arm64]:a=b P:amd64 P:arm64",
    "create --dry-run --annotation manifest-descriptor[linux/s390x]:a=b P:amd64 P:arm64",
    "create --dry-run --annotation index,manifest-descriptor:a=b P:amd64",
    "create --dry-run --annotation index:k=v2 P:noted",
    "create --dry-run --annotation= P:amd64",
    "create --dry-run -p linux/amd64 P:two",
    "create --dry-run --platform linux/amd64,linux/arm64 P:two",
    "create --dry-run --platform linux/amd64 --platform linux/arm64 P:two",
    "create --dry-run --platform linux/amd64 P:amd64",
    "create --dry-run --append -t P:two P:arm",
    "create --dry-run -f FILE:descriptor -t P:x",
    "create --dry-run -f FILE:placed -t P:x",
    "create --dry-run -f FILE:name",
    "create --dry-run -f FILE:digest -t P:x",
    "create --dry-run P:amd64 -f FILE:name",
    "create --dry-run @amd64 P:arm64",
    "create --dry-run P:amd64@amd64",
    "create --progress none -t P:y P:amd64",
    "create --progress quiet -t P:y P:amd64 --metadata-file FILE:meta",
    "create --progress plain -t P:y1 -t Q:y2 P:amd64 P:arm64 --metadata-file FILE:meta",
    "create --progress plain -t Q:y2 --append P:arm --metadata-file FILE:meta",
    "inspect Q:y2",
    "create --progress quiet -t P:y3 --prefer-index=false P:amd64 --metadata-file FILE:meta",
];

/// Lines that fail, with our codes and words. buildx ends with 1.
const FAIL: &[(&str, i32, &str)] = &[
    (
        "inspect --format {{.Nope}} P:amd64",
        1,
        "can't evaluate field Nope",
    ),
    ("inspect --format {{ P:amd64", 1, "unclosed action"),
    (
        "inspect --format {{nope}} P:amd64",
        1,
        "function \"nope\" not defined",
    ),
    (
        "inspect --raw --format x P:amd64",
        1,
        "format and raw cannot be used together",
    ),
    ("inspect P:none", 7, "not found"),
    ("inspect UPPER", 1, "must be lowercase"),
    ("inspect", 1, "required"),
    ("inspect a b", 1, "b"),
    ("inspect --nope P:amd64", 125, "--nope"),
    ("inspect 127.0.0.1:1/x", 3, "127.0.0.1:1"),
    ("create", 1, "no sources specified"),
    ("create -t P:y", 1, "no sources specified"),
    ("create P:amd64", 1, "can't push with no tags specified"),
    ("create -t UPPER P:amd64", 1, "must be lowercase"),
    ("create -t P:y P:none", 7, "not found"),
    ("create -t P:y --dry-run=x P:amd64", 125, "x"),
    ("create -t P:y5 --append P:two", 7, "not found"),
    ("create --dry-run --append P:arm", 0, ""),
    (
        "create --progress nope -t P:y P:amd64",
        1,
        "invalid progress mode nope",
    ),
    ("create --progress tty -t P:y P:amd64", 1, "failed to get console"),
    (
        "create --dry-run --annotation manifest:a=b P:amd64",
        1,
        "manifest:a=b",
    ),
    (
        "create --dry-run --annotation nope:a=b P:amd64",
        1,
        "unknown annotation type \"nope\"",
    ),
    (
        "create --dry-run --platform linux/s390x P:two",
        1,
        "none of the manifests match the provided platforms",
    ),
    (
        "create --dry-run --platform nope P:two",
        1,
        "invalid platform \"nope\"",
    ),
    (
        "create --dry-run -f FILE:digest",
        1,
        "no repositories specified, please set a reference in tag or source",
    ),
    (
        "create --dry-run -f FILE:wrong -t P:x",
        1,
        "invalid size mismatch for @amd64, 5 != ",
    ),
    (
        "create --dry-run -f FILE:manifest -t P:x",
        1,
        "expected an OCI content descriptor, got a manifest or index (schemaVersion 2)",
    ),
    (
        "create --dry-run -f FILE:empty -t P:x",
        1,
        "invalid descriptor: digest is required",
    ),
    (
        "create --dry-run -f FILE:none -t P:x",
        1,
        "No such file or directory",
    ),
    (
        "create --dry-run @amd64 -t P:x -t Q:x",
        1,
        "multiple repositories specified, cannot infer repository for",
    ),
    (
        "create --dry-run sha256:zz -t P:x",
        1,
        "failed to parse source \"sha256:zz\"",
    ),
    ("nope", 1, "nope"),
];

/// Images in a registry, and files that name them.
struct Scene {
    registry: DockerRegistry,
    fixture: Fixture,
    digests: BTreeMap<String, String>,
}

impl Scene {
    fn set() -> Self {
        let mut scene = Self {
            registry: DockerRegistry::start().unwrap(),
            fixture: Fixture::new(DOCKERFILE),
            digests: BTreeMap::new(),
        };
        scene.fixture.context.file("a", "a\n");
        for (name, platforms, more) in [
            ("amd64", "linux/amd64", ""),
            ("arm64", "linux/arm64", ""),
            ("arm", "linux/arm/v7", ""),
            ("docker", "linux/amd64", ",oci-mediatypes=false"),
            ("two", "linux/amd64,linux/arm64", ""),
            (
                "noted",
                "linux/amd64,linux/arm/v7",
                ",annotation-index.k=v,annotation-manifest-descriptor.long.key=&",
            ),
        ] {
            scene.push(name, platforms, more);
        }
        scene.files();
        scene
    }

    fn host(&self) -> String {
        self.registry.host()
    }

    fn push(&mut self, name: &str, platforms: &str, more: &str) {
        let host = self.host();
        let output = format!("-otype=image,push=true,name={host}/p:{name},rewrite-timestamp=true{more}");
        let platforms = format!("--platform={platforms}");
        let build = self.fixture.build().env("SOURCE_DATE_EPOCH", "1700000000");
        build.args([&platforms, &output]).ok();
        let asked = ["imagetools", "inspect", "--format", "{{.Manifest.Digest}}"];
        let digest = self.fixture.rbuild(asked).arg(format!("{host}/p:{name}")).ok();
        self.digests.insert(name.to_owned(), digest.stdout_text());
    }

    fn file(&self, name: &str) -> PathBuf {
        self.fixture.home.work().join(name)
    }

    fn files(&self) {
        let digest = &self.digests["amd64"];
        let asked = ["imagetools", "inspect", "--raw"];
        let raw = self
            .fixture
            .rbuild(asked)
            .arg(format!("{}/p:amd64", self.host()))
            .ok();
        let size = raw.stdout.len();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        for (name, text) in [
            (
                "descriptor",
                format!("{{\"mediaType\":\"{kind}\",\"digest\":\"{digest}\",\"size\":{size}}}"),
            ),
            (
                "placed",
                format!(
                    "{{\"digest\":\"{digest}\",\"size\":{size},\"annotations\":{{\"x\":\"y\"}},\
                     \"platform\":{{\"os\":\"linux\",\"architecture\":\"amd64\",\"variant\":\"v3\"}}}}"
                ),
            ),
            ("wrong", format!("{{\"digest\":\"{digest}\",\"size\":5}}")),
            ("name", format!("{}/p:arm64", self.host())),
            ("digest", digest.clone()),
            ("empty", "{}".to_owned()),
        ] {
            fs::write(self.file(name), text).unwrap();
        }
        fs::write(self.file("manifest"), &raw.stdout).unwrap();
    }

    /// The words of a line.
    fn words(&self, line: &str) -> Vec<String> {
        let host = self.host();
        let word = |word: &str| {
            let mut word = word.replace('~', " ");
            for (begin, place) in [("P:", "p:"), ("Q:", "q:")] {
                if let Some(rest) = word.strip_prefix(begin) {
                    word = format!("{host}/{place}{rest}");
                }
            }
            if let Some(name) = word.strip_prefix("FILE:") {
                return self.file(name).display().to_string();
            }
            match word.split_once('@') {
                Some((name, digest)) if self.digests.contains_key(digest) => {
                    let at = if name.is_empty() { "" } else { "@" };
                    format!("{name}{at}{}", self.digests[digest])
                }
                _ => word,
            }
        };
        line.split(' ').map(word).collect()
    }

    /// What was printed and written, without what another run has otherwise.
    fn told(&self, ran: &Ran) -> String {
        let mut text = String::from_utf8_lossy(&ran.stdout).into_owned();
        if let Ok(meta) = fs::read_to_string(self.file("meta")) {
            let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
            let _infallible = write!(text, "{meta:#}");
            fs::remove_file(self.file("meta")).unwrap();
        }
        text.replace(&self.host(), "HOST")
    }

    fn rbuild(&self, line: &str) -> Ran {
        self.fixture.rbuild(["imagetools"]).args(self.words(line)).run()
    }
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/imagetools.txt")
}

/// What buildx printed of each line.
fn recorded() -> BTreeMap<String, String> {
    let text = fs::read_to_string(file()).unwrap();
    let blocks = text
        .split("\n$ ")
        .map(|block| block.strip_prefix("$ ").unwrap_or(block));
    let blocks = blocks.map(|block| block.split_once('\n').unwrap_or((block, "")));
    blocks
        .map(|(line, text)| (line.to_owned(), text.to_owned()))
        .collect()
}

#[test]
fn imagetools_prints_what_buildx_prints() {
    let scene = Scene::set();
    let recorded = recorded();
    let mut wrong = Vec::new();
    for line in PRINT {
        let ran = scene.rbuild(line);
        let told = scene.told(&ran);
        if !ran.status.success() || recorded.get(*line) != Some(&told) {
            wrong.push(format!("{line}: not\n{:?}: {ran}", recorded.get(*line)));
        }
    }
    for (line, code, words) in FAIL {
        let ran = scene.rbuild(line);
        let words = words.replace("@amd64", &scene.digests["amd64"]);
        if ran.status.code() != Some(*code) || !ran.stderr.contains(&words) {
            wrong.push(format!("{line}: not {code} {words:?}: {ran}"));
        }
    }
    assert!(wrong.is_empty(), "{} lines: {}", wrong.len(), wrong.join("\n"));
    assert_eq!(recorded.len(), PRINT.len());
}

#[test]
fn buildx_prints_what_is_written_of_it() {
    let Some(program) = buildx::program() else { return };
    let scene = Scene::set();
    let run = |line: &str| {
        let command = scene.fixture.home.command(&program).arg("imagetools");
        command.args(scene.words(line)).run()
    };
    let told: Vec<(&str, Ran, String)> = PRINT
        .iter()
        .map(|line| {
            let ran = run(line);
            let told = scene.told(&ran);
            (*line, ran, told)
        })
        .collect();
    if std::env::var_os("RBUILD_RECORD").is_some() {
        let blocks: Vec<String> = told
            .iter()
            .map(|(line, _, told)| format!("$ {line}\n{told}"))
            .collect();
        fs::write(file(), blocks.join("\n")).unwrap();
    }
    let recorded = recorded();
    let mut wrong = Vec::new();
    for (line, ran, told) in &told {
        if !ran.status.success() || recorded.get(*line) != Some(told) {
            wrong.push(format!("{line}: {ran}"));
        }
    }
    for (line, code, _) in FAIL {
        let ran = run(line);
        if ran.status.success() != (*code == 0) {
            wrong.push(format!("{line}: {ran}"));
        }
    }
    assert!(wrong.is_empty(), "{} lines: {}", wrong.len(), wrong.join("\n"));
}

/// Attestations are found by their references, and shown.
#[test]
fn attestations_join_an_index_and_are_shown_in_templates() {
    let mut scene = Scene::set();
    let host = scene.host();
    scene
        .fixture
        .build()
        .args([
            "--platform=linux/amd64,linux/arm64",
            "--provenance=true",
            "--push",
        ])
        .args(["-t", &format!("{host}/p:told")])
        .ok();
    scene.digests.clear();
    let said = |line: &str| scene.rbuild(line).succeeded().stdout_text();
    let of = |line: &str| -> serde_json::Value { serde_json::from_str(&said(line)).unwrap() };
    let all = of("inspect --format {{json~.Provenance}} P:told");
    for platform in ["linux/amd64", "linux/arm64"] {
        let slsa = &all[platform]["SLSA"];
        assert!(slsa["buildDefinition"].is_object(), "{all:#}");
    }
    let first = said("inspect --format {{(index~.Manifest.Manifests~0).Digest}} P:told");
    let index = of(&format!("create --dry-run P:told@{first}"));
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 2, "{index:#}");
    assert_eq!(
        entries[1]["annotations"]["vnd.docker.reference.digest"],
        first.as_str()
    );
    assert_eq!(entries[1]["platform"]["os"], "unknown");
    // docker's lists are what was put into them.
    let list = format!("{host}/p:list");
    let one = format!("{host}/p@{first}");
    scene.fixture.rbuild(["manifest", "create", &list, &one]).ok();
    scene.fixture.rbuild(["manifest", "push", &list]).ok();
    let pushed = of("inspect --raw P:list");
    assert_eq!(pushed["manifests"].as_array().unwrap().len(), 1, "{pushed:#}");
    let only = of("create --dry-run --platform linux/arm64 P:told");
    assert_eq!(only["manifests"].as_array().unwrap().len(), 2, "{only:#}");
    let Some(program) = buildx::program() else { return };
    for line in [
        "inspect --format {{json~.Provenance}} P:told",
        "inspect --format {{json~.}} P:told",
        &format!("create --dry-run P:told@{first}"),
        "create --dry-run --platform linux/arm64 P:told",
    ] {
        let command = scene.fixture.home.command(&program).arg("imagetools");
        let theirs = command.args(scene.words(line)).ok();
        assert_eq!(scene.rbuild(line).stdout_text(), theirs.stdout_text(), "{line}");
    }
}
