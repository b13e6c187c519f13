//! The predicate: what was asked for, what it was made of and when, in the words of SLSA v1 and v0.2
//! (`solver/llbsolver/provenance/predicate.go`, `provenance/types/types.go`, `solver/llbsolver/provenance.go`).

use std::collections::BTreeMap;

use rbuild_oci::{Digest, Timestamp};
use serde_json::{Map, Value as Json, json};

use super::capture::Capture;
use super::{purl, redact};

/// Predicate type of v1.
pub const TYPE_V1: &str = "https://slsa.dev/provenance/v1";
/// Predicate type of v0.2.
pub const TYPE_V02: &str = "https://slsa.dev/provenance/v0.2";
const BUILD_TYPE_V1: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
const BUILD_TYPE_V02: &str = "https://mobyproject.org/buildkit@v1";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Neither build arguments nor labels, secrets nor the definition.
    Min,
    /// Everything.
    #[default]
    Max,
}

/// Attributes of `attest:provenance`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `mode`.
    pub mode: Mode,
    /// `reproducible`.
    pub reproducible: bool,
    /// `builder-id`.
    pub builder_id: String,
    /// `complete-materials`: a result whose materials are not all known is an error.
    pub complete_materials: bool,
}

/// Why there is no predicate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredicateError {
    /// No such mode.
    #[error("invalid mode {0:?}")]
    Mode(String),
    /// Not a bool.
    #[error("failed to parse {key} flag {value:?}")]
    Flag {
        /// Attribute.
        key: &'static str,
        /// Value.
        value: String,
    },
    /// Not all materials are known, and they have to be.
    #[error("provenance has incomplete materials: {0}")]
    Incomplete(String),
}

impl Options {
    /// Reads the attributes.
    ///
    /// # Errors
    /// [`PredicateError::Mode`], [`PredicateError::Flag`].
    pub fn parse(attrs: &BTreeMap<String, String>) -> Result<Self, PredicateError> {
        let flag = |key: &'static str| match attrs.get(key).map(String::as_str) {
            None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some(value) => Err(PredicateError::Flag {
                key,
                value: value.to_owned(),
            }),
        };
        Ok(Self {
            mode: match attrs.get("mode").map(String::as_str) {
                None | Some("max" | "full") => Mode::Max,
                Some("min") => Mode::Min,
                Some(other) => return Err(PredicateError::Mode(other.to_owned())),
            },
            reproducible: flag("reproducible")?,
            builder_id: attrs.get("builder-id").cloned().unwrap_or_default(),
            complete_materials: flag("complete-materials")?,
        })
    }
}

/// The build, as its server knows it.
#[derive(Debug, Clone, Default)]
pub struct Invocation {
    /// Its id.
    pub id: String,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// Platform of the machine.
    pub builder_platform: String,
    /// Version of the Dockerfile front end, if that made the graph.
    pub dockerfile_version: Option<String>,
    /// Front end; empty for a graph that came as it is.
    pub frontend: String,
    /// Options of the front end, as the client gave them.
    pub attrs: BTreeMap<String, String>,
    /// API version of the request.
    pub compatibility_version: Option<i64>,
    /// Keys that the administrator adds.
    pub custom: Map<String, Json>,
}

/// What only [`Mode::Max`] says, in the words of the API and the exporter.
#[derive(Debug, Clone, Default)]
pub struct Details {
    /// `llbDefinition` and `digestMapping`.
    pub build_config: Option<Json>,
    /// `infos` and `locations`.
    pub source: Option<Json>,
    /// Descriptors of each step's layers.
    pub layers: Option<Json>,
}

/// Provenance of one result.
#[derive(Debug, Clone)]
pub struct Predicate {
    materials: Vec<Json>,
    config_source: ConfigSource,
    request: Map<String, Json>,
    vcs: Map<String, Json>,
    complete_request: bool,
    complete_materials: bool,
    hermetic: bool,
    options: Options,
    invocation: Invocation,
    details: Details,
}

#[derive(Debug, Clone, Default)]
struct ConfigSource {
    uri: String,
    digest: Json,
    path: String,
}

impl Predicate {
    /// What is to be said of a result made of `capture`.
    ///
    /// # Errors
    /// [`PredicateError::Incomplete`].
    pub fn new(
        capture: &Capture,
        invocation: Invocation,
        options: Options,
        details: Details,
    ) -> Result<Self, PredicateError> {
        let complete_materials = !capture.incomplete_materials && capture.locals.is_empty();
        if options.complete_materials && !complete_materials {
            let locals: Vec<&str> = capture.locals.iter().map(String::as_str).collect();
            return Err(PredicateError::Incomplete(locals.join(", ")));
        }
        let mut args = filter_args(&invocation.attrs);
        let config_source = config_source(&mut args, capture);
        let vcs = take_vcs(&mut args);
        let mut complete_request = !invocation.frontend.is_empty();
        if options.mode == Mode::Min {
            let before = args.len();
            args.retain(|key, _| !key.starts_with("build-arg:") && !key.starts_with("label:"));
            complete_request &= args.len() == before;
        }
        let details = match options.mode {
            Mode::Min => Details::default(),
            Mode::Max => details,
        };
        Ok(Self {
            materials: materials(capture),
            config_source,
            request: request(capture, &invocation, &options, args),
            vcs,
            complete_request,
            complete_materials,
            hermetic: complete_materials && !capture.network_access,
            options,
            invocation,
            details,
        })
    }

    /// The predicate of [`TYPE_V1`].
    #[must_use]
    pub fn to_v1(&self) -> Json {
        let mut internal = Map::new();
        put(&mut internal, "buildConfig", self.details.build_config.clone());
        internal.insert(
            "builderPlatform".to_owned(),
            self.invocation.builder_platform.clone().into(),
        );
        put(
            &mut internal,
            "dockerfileVersion",
            self.invocation.dockerfile_version.clone(),
        );
        internal.extend(self.invocation.custom.clone());
        let mut definition = json!({
            "buildType": BUILD_TYPE_V1,
            "externalParameters": {
                "configSource": self.config_source.to_json("path"),
                "request": self.request,
            },
            "internalParameters": internal,
        });
        if !self.materials.is_empty() {
            definition["resolvedDependencies"] = self.materials.clone().into();
        }
        let mut metadata = self.times(["invocationId", "startedOn", "finishedOn"]);
        metadata.insert("buildkit_metadata".to_owned(), self.metadata());
        metadata.insert(
            "buildkit_completeness".to_owned(),
            json!({"request": self.complete_request, "resolvedDependencies": self.complete_materials}),
        );
        put(&mut metadata, "buildkit_hermetic", self.hermetic.then_some(true));
        put(
            &mut metadata,
            "buildkit_reproducible",
            self.options.reproducible.then_some(true),
        );
        json!({
            "buildDefinition": definition,
            "runDetails": {"builder": {"id": self.options.builder_id}, "metadata": metadata},
        })
    }

    /// The predicate of [`TYPE_V02`].
    #[must_use]
    pub fn to_v02(&self) -> Json {
        let mut environment = Map::new();
        environment.insert(
            "platform".to_owned(),
            self.invocation.builder_platform.clone().into(),
        );
        put(
            &mut environment,
            "dockerfileVersion",
            self.invocation.dockerfile_version.clone(),
        );
        environment.extend(self.invocation.custom.clone());
        let mut metadata = self.times(["buildInvocationID", "buildStartedOn", "buildFinishedOn"]);
        metadata.insert(
            "completeness".to_owned(),
            json!({
                "parameters": self.complete_request,
                "environment": true,
                "materials": self.complete_materials,
            }),
        );
        metadata.insert("reproducible".to_owned(), self.options.reproducible.into());
        metadata.insert(format!("{BUILD_TYPE_V02}#metadata"), self.metadata());
        let hermetic = format!("{BUILD_TYPE_V02}#hermetic");
        put(&mut metadata, &hermetic, self.hermetic.then_some(true));
        let mut predicate = json!({
            "builder": {"id": self.options.builder_id},
            "buildType": BUILD_TYPE_V02,
            "invocation": {
                "configSource": self.config_source.to_json("entryPoint"),
                "parameters": self.request,
                "environment": environment,
            },
            "metadata": metadata,
        });
        if !self.materials.is_empty() {
            predicate["materials"] = self.materials.clone().into();
        }
        if let Some(config) = &self.details.build_config {
            predicate["buildConfig"] = config.clone();
        }
        predicate
    }

    fn times(&self, [id, started, finished]: [&str; 3]) -> Map<String, Json> {
        let mut metadata = Map::new();
        let invocation = &self.invocation;
        put(
            &mut metadata,
            id,
            Some(invocation.id.clone()).filter(|id| !id.is_empty()),
        );
        put(
            &mut metadata,
            started,
            invocation.started.map(|time| time.to_string()),
        );
        put(
            &mut metadata,
            finished,
            invocation.finished.map(|time| time.to_string()),
        );
        metadata
    }

    fn metadata(&self) -> Json {
        let mut metadata = Map::new();
        put(
            &mut metadata,
            "vcs",
            (!self.vcs.is_empty()).then(|| self.vcs.clone()),
        );
        put(&mut metadata, "source", self.details.source.clone());
        put(&mut metadata, "layers", self.details.layers.clone());
        metadata.into()
    }
}

impl ConfigSource {
    fn to_json(&self, path: &str) -> Json {
        let mut source = Map::new();
        let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        put(&mut source, "uri", text(&self.uri));
        put(
            &mut source,
            "digest",
            Some(self.digest.clone()).filter(|digest| !digest.is_null()),
        );
        put(&mut source, path, text(&self.path));
        source.into()
    }
}

/// An in-toto statement that `predicate` holds for the images of these names and this digest.
#[must_use]
pub fn statement(predicate_type: &str, predicate: &Json, names: &[String], digest: &Digest) -> Json {
    let subject = names
        .iter()
        .map(|name| json!({"name": name, "digest": digest_set(digest)}));
    json!({
        "_type": STATEMENT_TYPE,
        "predicateType": predicate_type,
        "subject": subject.collect::<Vec<_>>(),
        "predicate": predicate,
    })
}

fn put(map: &mut Map<String, Json>, key: &str, value: Option<impl Into<Json>>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value.into());
    }
}

fn digest_set(digest: &Digest) -> Json {
    json!({ digest.algorithm().name(): digest.hex() })
}

fn commit_set(commit: &str) -> Json {
    let algorithm = if commit.len() == 64 { "sha256" } else { "sha1" };
    json!({ algorithm: commit })
}

fn materials(capture: &Capture) -> Vec<Json> {
    let one = |uri: String, digest: Json| {
        let mut material = Map::new();
        material.insert("uri".to_owned(), uri.into());
        put(
            &mut material,
            "digest",
            Some(digest).filter(|digest| !digest.is_null()),
        );
        Json::from(material)
    };
    let images = capture.images.iter().filter_map(|image| {
        let uri = purl::of_text(image.kind, &image.reference, image.platform.as_deref())?;
        Some(one(uri, image.digest.as_ref().map_or(Json::Null, digest_set)))
    });
    let git = capture
        .git
        .iter()
        .map(|(url, commit)| one(url.clone(), commit_set(commit)));
    let http = capture
        .http
        .iter()
        .map(|(url, digest)| one(url.clone(), digest_set(digest)));
    images.chain(git).chain(http).collect()
}

/// The options of a front end that say what was asked for: not those of the host, nor of attestations.
fn filter_args(attrs: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    const HOST: [&str; 4] = ["cgroup-parent", "image-resolve-mode", "platform", "cache-imports"];
    let context = attrs
        .get("contextkey")
        .filter(|key| !key.is_empty())
        .map_or("context", String::as_str);
    let kept = attrs
        .iter()
        .filter(|(key, _)| !HOST.contains(&key.as_str()) && !key.starts_with("attest:"));
    kept.map(|(key, value)| {
        let is_url = key == context || key.starts_with("context:") || key == "vcs:source";
        let value = if is_url {
            redact::credentials(value)
        } else {
            value.clone()
        };
        (key.clone(), value)
    })
    .collect()
}

/// Takes the context and the Dockerfile's name out of the options: where the build's configuration is from.
fn config_source(args: &mut BTreeMap<String, String>, capture: &Capture) -> ConfigSource {
    let filled = |key: &str| args.get(key).filter(|value| !value.is_empty()).cloned();
    let key = match (filled("contextkey"), filled("input:context")) {
        (Some(key), _) => key,
        (None, Some(_)) => "input:context".to_owned(),
        (None, None) => "context".to_owned(),
    };
    let mut source = ConfigSource::default();
    if let Some(context) = filled(&key) {
        source.uri = redact::credentials(&context);
        let repository = source.uri.split_once(':').map_or(source.uri.as_str(), |_| {
            // A directory of the repository is not part of the material's name.
            match source.uri.split_once('#') {
                Some((_, fragment)) => {
                    let end = fragment.find(':').map_or(0, |at| fragment.len() - at);
                    &source.uri[..source.uri.len() - end]
                }
                None => &source.uri,
            }
        });
        source.digest = match (capture.git.get(repository), capture.http.get(&source.uri)) {
            (Some(commit), _) => commit_set(commit),
            (None, Some(digest)) => digest_set(digest),
            (None, None) => Json::Null,
        };
        args.remove(&key);
    }
    if let Some(path) = filled_path(args) {
        source.path = path;
        args.remove("filename");
    }
    source
}

fn filled_path(args: &BTreeMap<String, String>) -> Option<String> {
    args.get("filename").filter(|value| !value.is_empty()).cloned()
}

/// Takes what the client says of its repository out of the options.
fn take_vcs(args: &mut BTreeMap<String, String>) -> Map<String, Json> {
    let mut vcs = Map::new();
    args.retain(|key, value| match key.strip_prefix("vcs:") {
        Some(name) => {
            put(
                &mut vcs,
                name,
                Some(value.clone()).filter(|value| !value.is_empty()),
            );
            false
        }
        None => true,
    });
    vcs
}

fn request(
    capture: &Capture,
    invocation: &Invocation,
    options: &Options,
    args: BTreeMap<String, String>,
) -> Map<String, Json> {
    let mut request = Map::new();
    let frontend = &invocation.frontend;
    put(
        &mut request,
        "frontend",
        Some(frontend.clone()).filter(|name| !name.is_empty()),
    );
    put(&mut request, "args", (!args.is_empty()).then(|| json!(args)));
    let ids = |ids: &BTreeMap<String, bool>| -> Option<Json> {
        let one = |(id, optional): (&String, &bool)| {
            let mut entry = Map::new();
            entry.insert("id".to_owned(), id.clone().into());
            put(&mut entry, "optional", optional.then_some(true));
            Json::from(entry)
        };
        let list: Vec<Json> = ids.iter().map(one).collect();
        (options.mode == Mode::Max && !list.is_empty()).then(|| list.into())
    };
    put(&mut request, "secrets", ids(&capture.secrets));
    put(&mut request, "ssh", ids(&capture.ssh));
    let locals: Vec<Json> = capture
        .locals
        .iter()
        .map(|name| json!({ "name": name }))
        .collect();
    put(&mut request, "locals", (!locals.is_empty()).then_some(locals));
    put(
        &mut request,
        "compatibilityVersion",
        invocation.compatibility_version,
    );
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provenance::capture::ImageSource;
    use crate::provenance::purl::Kind;

    fn capture() -> Capture {
        let image = ImageSource {
            reference: "docker.io/library/busybox:latest".to_owned(),
            kind: Kind::Docker,
            platform: Some("linux/amd64".to_owned()),
            digest: Some(Digest::sha256(b"image")),
        };
        Capture {
            images: [image].into(),
            locals: ["context".to_owned(), "dockerfile".to_owned()].into(),
            secrets: [("s".to_owned(), true)].into(),
            network_access: true,
            ..Capture::default()
        }
    }

    fn invocation(attrs: &[(&str, &str)]) -> Invocation {
        Invocation {
            id: "i1".to_owned(),
            started: Timestamp::from_unix(10, 0),
            finished: Timestamp::from_unix(11, 0),
            builder_platform: "linux/amd64".to_owned(),
            dockerfile_version: Some("1.2".to_owned()),
            frontend: "dockerfile.v0".to_owned(),
            attrs: attrs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            ..Invocation::default()
        }
    }

    const ATTRS: [(&str, &str); 9] = [
        ("build-arg:FOO", "bar"),
        ("label:lbl", "abc"),
        ("context:foo", "https://u:secretpw@h/x"),
        ("attest:provenance", "mode=max"),
        ("platform", "linux/amd64"),
        ("filename", "Dockerfile"),
        ("vcs:source", "https://u:secretpw@h/r"),
        ("vcs:revision", "123"),
        ("vcs:empty", ""),
    ];

    fn predicate(capture: &Capture, attrs: &[(&str, &str)], mode: Mode) -> Predicate {
        let details = Details {
            build_config: Some(json!({"llbDefinition": []})),
            source: Some(json!({"infos": []})),
            layers: Some(json!({})),
        };
        let options = Options {
            mode,
            ..Options::default()
        };
        Predicate::new(capture, invocation(attrs), options, details).unwrap()
    }

    #[test]
    fn row41_max_says_all_but_what_is_the_hosts_and_what_is_secret() {
        let found = predicate(&capture(), &ATTRS, Mode::Max).to_v1();
        let external = &found["buildDefinition"]["externalParameters"];
        assert_eq!(
            external["request"],
            json!({
                "frontend": "dockerfile.v0",
                "args": {"build-arg:FOO": "bar", "label:lbl": "abc", "context:foo": "https://xxxxx:xxxxx@h/x"},
                "secrets": [{"id": "s", "optional": true}],
                "locals": [{"name": "context"}, {"name": "dockerfile"}],
            })
        );
        assert_eq!(external["configSource"], json!({"path": "Dockerfile"}));
        let digest = Digest::sha256(b"image");
        assert_eq!(
            found["buildDefinition"]["resolvedDependencies"],
            json!([{"uri": "pkg:docker/busybox@latest?platform=linux%2Famd64", "digest": {"sha256": digest.hex()}}])
        );
        let metadata = &found["runDetails"]["metadata"];
        assert_eq!(
            metadata["buildkit_metadata"]["vcs"],
            json!({"source": "https://xxxxx:xxxxx@h/r", "revision": "123"})
        );
        assert_eq!(
            metadata["buildkit_completeness"],
            json!({"request": true, "resolvedDependencies": false})
        );
        assert_eq!(metadata["startedOn"], "1970-01-01T00:00:10Z");
        assert!(metadata.get("buildkit_hermetic").is_none());
        assert!(found["buildDefinition"]["internalParameters"]["buildConfig"].is_object());
        assert!(!found.to_string().contains("secretpw"));
    }

    #[test]
    fn min_leaves_out_arguments_secrets_and_the_definition_and_says_so() {
        let found = predicate(&capture(), &ATTRS, Mode::Min).to_v1();
        let request = &found["buildDefinition"]["externalParameters"]["request"];
        assert_eq!(request["args"], json!({"context:foo": "https://xxxxx:xxxxx@h/x"}));
        assert!(request.get("secrets").is_none());
        assert!(
            found["buildDefinition"]["internalParameters"]
                .get("buildConfig")
                .is_none()
        );
        let metadata = &found["runDetails"]["metadata"];
        assert_eq!(metadata["buildkit_completeness"]["request"], false);
        assert!(metadata["buildkit_metadata"].get("source").is_none());
        let plain = predicate(&capture(), &[("target", "x")], Mode::Min).to_v1();
        assert_eq!(
            plain["runDetails"]["metadata"]["buildkit_completeness"]["request"],
            true
        );
    }

    #[test]
    fn a_build_of_a_repository_without_network_is_complete_and_hermetic() {
        let commit = "a".repeat(40);
        let source = Capture {
            git: [("https://xxxxx:xxxxx@h/r.git#v1".to_owned(), commit.clone())].into(),
            ..Capture::default()
        };
        let attrs = [("context", "https://u:secretpw@h/r.git#v1:dir")];
        let found = predicate(&source, &attrs, Mode::Max).to_v1();
        assert_eq!(
            found["buildDefinition"]["externalParameters"]["configSource"],
            json!({"uri": "https://xxxxx:xxxxx@h/r.git#v1:dir", "digest": {"sha1": commit}})
        );
        let metadata = &found["runDetails"]["metadata"];
        assert_eq!(metadata["buildkit_completeness"]["resolvedDependencies"], true);
        assert_eq!(metadata["buildkit_hermetic"], true);
    }

    #[test]
    fn the_older_version_says_the_same_in_other_words() {
        let mut said = predicate(&capture(), &ATTRS, Mode::Max);
        said.invocation.custom.insert("foo".to_owned(), "bar".into());
        let found = said.to_v02();
        assert_eq!(found["buildType"], BUILD_TYPE_V02);
        assert_eq!(
            found["invocation"]["configSource"],
            json!({"entryPoint": "Dockerfile"})
        );
        assert_eq!(
            found["invocation"]["environment"],
            json!({"platform": "linux/amd64", "dockerfileVersion": "1.2", "foo": "bar"})
        );
        let v1 = said.to_v1();
        assert_eq!(v1["buildDefinition"]["internalParameters"]["foo"], "bar");
        assert_eq!(found["materials"], v1["buildDefinition"]["resolvedDependencies"]);
        assert_eq!(
            found["invocation"]["parameters"],
            v1["buildDefinition"]["externalParameters"]["request"]
        );
        assert_eq!(found["metadata"]["buildInvocationID"], "i1");
        assert_eq!(found["metadata"]["completeness"]["environment"], true);
    }

    #[test]
    fn attributes_are_judged() {
        let parse =
            |key: &str, value: &str| Options::parse(&BTreeMap::from([(key.to_owned(), value.to_owned())]));
        assert_eq!(parse("mode", "full").unwrap().mode, Mode::Max);
        assert_eq!(parse("mode", "min").unwrap().mode, Mode::Min);
        assert_eq!(parse("mode", "x").unwrap_err().to_string(), "invalid mode \"x\"");
        assert!(parse("reproducible", "true").unwrap().reproducible);
        assert!(parse("reproducible", "maybe").is_err());
        let strict = parse("complete-materials", "1").unwrap();
        let refused = Predicate::new(&capture(), invocation(&[]), strict, Details::default()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "provenance has incomplete materials: context, dockerfile"
        );
    }

    #[test]
    fn a_statement_names_what_it_is_about() {
        let digest = Digest::sha256(b"manifest");
        let found = statement(TYPE_V1, &json!({"a": 1}), &["pkg:docker/x@1".to_owned()], &digest);
        assert_eq!(
            found,
            json!({
                "_type": "https://in-toto.io/Statement/v1",
                "predicateType": TYPE_V1,
                "subject": [{"name": "pkg:docker/x@1", "digest": {"sha256": digest.hex()}}],
                "predicate": {"a": 1},
            })
        );
    }
}
