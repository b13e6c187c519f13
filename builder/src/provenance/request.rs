//! What was asked for: a front end with its options, the requests that its inputs come from, and the request of the
//! client above it all (`solver/llbsolver/provenance/predicate.go`, `RequestProvenance`, `FilterArgs`; `provenance.go`,
//! `scrubMinRequest`).

use std::collections::BTreeMap;

use rbuild_oci::Digest;
use serde_json::{Map, Value as Json, json};

use super::capture::Capture;
use super::redact;

/// Options that say how the host does it, not what was asked for.
const HOST: [&str; 4] = ["cgroup-parent", "image-resolve-mode", "platform", "cache-imports"];

/// A request to a front end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Front end; empty for a graph that came as it is.
    pub frontend: String,
    /// Its options, see `filter_args`.
    pub args: BTreeMap<String, String>,
    /// What made the graphs that were given to it, by name.
    pub inputs: BTreeMap<String, Record>,
    /// What the client asked for, if this was asked for by a front end in between.
    pub root: Option<Box<Record>>,
}

/// A request whose context and file are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Where the build's configuration is from.
    pub config_source: ConfigSource,
    /// The rest of it.
    pub request: Request,
}

/// Where a build's configuration is from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigSource {
    uri: String,
    digest: Option<(String, String)>,
    path: String,
}

impl Request {
    /// The request to `frontend` with the options a client gave it.
    #[must_use]
    pub fn new(frontend: &str, attrs: &BTreeMap<String, String>) -> Self {
        Self {
            frontend: frontend.to_owned(),
            args: filter_args(attrs),
            ..Self::default()
        }
    }

    /// The request with its context, looked up among the sources of `capture`, and its file taken out.
    #[must_use]
    pub fn located(mut self, capture: &Capture) -> Record {
        let config_source = config_source(&mut self.args, capture);
        Record {
            config_source,
            request: self,
        }
    }

    /// Leaves out what the least provenance does not say. Whether that was anything.
    pub(super) fn scrub(&mut self) -> bool {
        let before = self.args.len();
        self.args
            .retain(|key, _| !key.starts_with("build-arg:") && !key.starts_with("label:"));
        let mut scrubbed = self.args.len() != before;
        for input in self.inputs.values_mut() {
            scrubbed |= input.request.scrub();
        }
        if let Some(root) = &mut self.root {
            scrubbed |= root.request.scrub();
        }
        scrubbed
    }

    /// The fields that every request has.
    pub(super) fn to_json(&self) -> Map<String, Json> {
        let mut fields = Map::new();
        if !self.frontend.is_empty() {
            fields.insert("frontend".to_owned(), self.frontend.clone().into());
        }
        if !self.args.is_empty() {
            fields.insert("args".to_owned(), json!(self.args));
        }
        if !self.inputs.is_empty() {
            let inputs = self.inputs.iter();
            let inputs: Map<String, Json> = inputs
                .map(|(name, input)| (name.clone(), input.to_json()))
                .collect();
            fields.insert("inputs".to_owned(), inputs.into());
        }
        if let Some(root) = &self.root {
            fields.insert("root".to_owned(), root.to_json());
        }
        fields
    }
}

impl Record {
    fn to_json(&self) -> Json {
        json!({"configSource": self.config_source.to_json("path"), "request": self.request.to_json()})
    }

    /// Whether it says anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.request == Request::default()
    }
}

impl ConfigSource {
    /// The fields, of which the file's is called `path`.
    pub(super) fn to_json(&self, path: &str) -> Json {
        let mut fields = Map::new();
        if !self.uri.is_empty() {
            fields.insert("uri".to_owned(), self.uri.clone().into());
        }
        if let Some((algorithm, digest)) = &self.digest {
            fields.insert("digest".to_owned(), json!({ algorithm: digest }));
        }
        if !self.path.is_empty() {
            fields.insert(path.to_owned(), self.path.clone().into());
        }
        fields.into()
    }
}

/// The options of a front end that say what was asked for: not those of the host, nor of attestations; without
/// credentials.
#[must_use]
pub(crate) fn filter_args(attrs: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let kept = attrs
        .iter()
        .filter(|(key, _)| !HOST.contains(&key.as_str()) && !key.starts_with("attest:"));
    // BuildKit masks contexts only; proxies are build arguments, and theirs are passwords as well.
    kept.map(|(key, value)| (key.clone(), redact::credentials(value)))
        .collect()
}

/// Takes the context and the Dockerfile's name out of the options.
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
        let repository = without_directory(&source.uri);
        source.digest = match (capture.git.get(repository), capture.http.get(&source.uri)) {
            (Some(commit), _) => Some(commit_digest(commit)),
            (None, Some(digest)) => Some(digest_pair(digest)),
            (None, None) => None,
        };
    }
    if let Some(path) = filled("filename") {
        source.path = path;
        args.remove("filename");
    }
    if !source.uri.is_empty() {
        args.remove(&key);
    }
    source
}

/// A directory of the repository is not part of the material's name.
fn without_directory(uri: &str) -> &str {
    let Some((_, fragment)) = uri.split_once('#') else {
        return uri;
    };
    let end = fragment.find(':').map_or(0, |at| fragment.len() - at);
    &uri[..uri.len() - end]
}

/// A commit as in-toto has digests: by the algorithm of its length.
pub(super) fn commit_digest(commit: &str) -> (String, String) {
    let algorithm = if commit.len() == 64 { "sha256" } else { "sha1" };
    (algorithm.to_owned(), commit.to_owned())
}

pub(super) fn digest_pair(digest: &Digest) -> (String, String) {
    (digest.algorithm().name().to_owned(), digest.hex().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attrs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn row41_requests_are_told_without_credentials() {
        let given = attrs(&[
            ("context", "https://u:secretpw@h/r.git#v1:dir"),
            ("context:foo", "https://u:secretpw@h/x"),
            ("vcs:source", "https://u:secretpw@h/r"),
            ("build-arg:HTTP_PROXY", "http://u:secretpw@proxy"),
            ("platform", "linux/amd64"),
            ("attest:provenance", "mode=max"),
            ("filename", "F"),
        ]);
        let commit = "a".repeat(40);
        let capture = Capture {
            git: [("https://xxxxx:xxxxx@h/r.git#v1".to_owned(), commit.clone())].into(),
            ..Capture::default()
        };
        let record = Request::new("dockerfile.v0", &given).located(&capture);
        assert_eq!(
            record.config_source.to_json("path"),
            json!({"uri": "https://xxxxx:xxxxx@h/r.git#v1:dir", "digest": {"sha1": commit}, "path": "F"})
        );
        let kept: Vec<&str> = record.request.args.keys().map(String::as_str).collect();
        assert_eq!(kept, ["build-arg:HTTP_PROXY", "context:foo", "vcs:source"]);
        assert!(!format!("{record:?}").contains("secretpw"));
    }

    #[test]
    fn the_least_is_the_least_of_inputs_and_root_too() {
        let record = || {
            Request::new("f", &attrs(&[("build-arg:A", "b"), ("target", "t")])).located(&Capture::default())
        };
        let mut request = Request::new("f", &attrs(&[("target", "t")]));
        assert!(!request.scrub());
        request.inputs.insert("in".to_owned(), record());
        request.root = Some(Box::new(record()));
        assert!(request.scrub());
        let told = Json::from(request.to_json());
        let left = json!({"configSource": {}, "request": {"frontend": "f", "args": {"target": "t"}}});
        assert_eq!((&told["inputs"]["in"], &told["root"]), (&left, &left));
    }
}
