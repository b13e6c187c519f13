//! Predicates of captures made by hand.

use super::*;
use crate::provenance::capture::ImageSource;
use crate::provenance::purl::Kind;
use rbuild_oci::Digest;

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

fn invocation() -> Invocation {
    Invocation {
        id: "i1".to_owned(),
        started: Timestamp::from_unix(10, 0),
        finished: Timestamp::from_unix(11, 0),
        builder_platform: "linux/amd64".to_owned(),
        custom: Map::new(),
    }
}

const ATTRS: [(&str, &str); 10] = [
    ("build-arg:FOO", "bar"),
    ("label:lbl", "abc"),
    ("context:foo", "https://u:secretpw@h/x"),
    ("attest:provenance", "mode=max"),
    ("platform", "linux/amd64"),
    ("filename", "Dockerfile"),
    ("vcs:source", "https://u:secretpw@h/r"),
    ("vcs:revision", "123"),
    ("vcs:localdir:context", "sub/dir"),
    ("vcs:empty", ""),
];

fn request(attrs: &[(&str, &str)]) -> Request {
    let attrs = attrs.iter();
    let attrs = attrs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Request::new("dockerfile.v0", &attrs.collect())
}

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
    Predicate::new(capture, request(attrs), invocation(), options, details).unwrap()
}

#[test]
fn row41_max_says_all_but_what_is_the_hosts_and_what_is_secret() {
    let found = predicate(&capture(), &ATTRS, Mode::Max).to_json();
    let external = &found["buildDefinition"]["externalParameters"];
    assert_eq!(
        external["request"],
        json!({
            "frontend": "dockerfile.v0",
            "args": {"build-arg:FOO": "bar", "label:lbl": "abc", "context:foo": "https://xxxxx:xxxxx@h/x"},
            "secrets": [{"id": "s", "optional": true}],
            "locals": [{"name": "context"}, {"name": "dockerfile"}],
            "compatibilityVersion": 30,
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
        json!({"source": "https://xxxxx:xxxxx@h/r", "revision": "123", "localdir:context": "sub/dir"})
    );
    assert_eq!(
        metadata["buildkit_completeness"],
        json!({"request": true, "resolvedDependencies": false})
    );
    assert_eq!(metadata["startedOn"], "1970-01-01T00:00:10Z");
    assert_eq!(metadata["finishedOn"], "1970-01-01T00:00:11Z");
    assert_eq!(metadata["invocationId"], "i1");
    assert!(metadata.get("buildkit_hermetic").is_none());
    assert!(metadata["buildkit_metadata"]["source"].is_object());
    assert!(metadata["buildkit_metadata"]["layers"].is_object());
    let internal = &found["buildDefinition"]["internalParameters"];
    assert!(internal["buildConfig"].is_object());
    assert_eq!(internal["dockerfileVersion"], DOCKERFILE_VERSION);
    assert!(!found.to_string().contains("secretpw"));
}

#[test]
fn who_built_where_and_whether_it_can_be_repeated_is_told_as_it_was_asked() {
    let mut said = predicate(&capture(), &ATTRS, Mode::Max);
    let found = said.to_json();
    assert_eq!(
        found["buildDefinition"]["buildType"],
        "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"
    );
    assert_eq!(
        found["buildDefinition"]["internalParameters"]["builderPlatform"],
        "linux/amd64"
    );
    assert_eq!(found["runDetails"]["builder"], json!({"id": ""}));
    let metadata = &found["runDetails"]["metadata"];
    assert!(metadata.get("buildkit_reproducible").is_none());
    assert!(metadata["buildkit_metadata"].get("network").is_none());
    said.options.builder_id = "https://ci.example.invalid/7".to_owned();
    said.options.reproducible = true;
    let found = said.to_json();
    assert_eq!(
        found["runDetails"]["builder"],
        json!({"id": "https://ci.example.invalid/7"})
    );
    assert_eq!(found["runDetails"]["metadata"]["buildkit_reproducible"], true);
    said.invocation.custom.insert("ci".to_owned(), json!({"job": 7}));
    let found = said.to_json();
    assert_eq!(
        found["buildDefinition"]["internalParameters"]["ci"],
        json!({"job": 7})
    );
    let proxied = Capture {
        proxy_network: true,
        ..capture()
    };
    let found = predicate(&proxied, &ATTRS, Mode::Min).to_json();
    assert_eq!(
        found["runDetails"]["metadata"]["buildkit_metadata"]["network"],
        json!({"mode": "proxy"})
    );
    let definition = predicate(&capture(), &[], Mode::Min).to_json();
    assert_eq!(
        definition["buildDefinition"]["externalParameters"]["request"]["frontend"],
        "dockerfile.v0"
    );
}

#[test]
fn min_leaves_out_arguments_secrets_and_the_definition_and_says_so() {
    let found = predicate(&capture(), &ATTRS, Mode::Min).to_json();
    let request = &found["buildDefinition"]["externalParameters"]["request"];
    assert_eq!(request["args"], json!({"context:foo": "https://xxxxx:xxxxx@h/x"}));
    assert!(request.get("secrets").is_none());
    let internal = &found["buildDefinition"]["internalParameters"];
    assert!(internal.get("buildConfig").is_none());
    let metadata = &found["runDetails"]["metadata"];
    assert_eq!(metadata["buildkit_completeness"]["request"], false);
    assert!(metadata["buildkit_metadata"].get("source").is_none());
    let plain = predicate(&capture(), &[("target", "x")], Mode::Min).to_json();
    let completeness = &plain["runDetails"]["metadata"]["buildkit_completeness"];
    assert_eq!(completeness["request"], true);
}

#[test]
fn a_build_of_a_repository_without_network_is_complete_and_hermetic() {
    let commit = "a".repeat(40);
    let source = Capture {
        git: [("https://xxxxx:xxxxx@h/r.git#v1".to_owned(), commit.clone())].into(),
        ..Capture::default()
    };
    let attrs = [("context", "https://u:secretpw@h/r.git#v1:dir")];
    let found = predicate(&source, &attrs, Mode::Max).to_json();
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
    let v1 = said.to_json();
    said.options.version = SlsaVersion::V02;
    let found = said.to_json();
    assert_eq!(found["buildType"], BUILD_TYPE_V02);
    assert_eq!(
        found["invocation"]["configSource"],
        json!({"entryPoint": "Dockerfile"})
    );
    assert_eq!(
        found["invocation"]["environment"],
        json!({"platform": "linux/amd64", "dockerfileVersion": DOCKERFILE_VERSION, "foo": "bar"})
    );
    let definition = &v1["buildDefinition"];
    assert_eq!(definition["internalParameters"]["foo"], "bar");
    assert_eq!(found["materials"], definition["resolvedDependencies"]);
    assert_eq!(
        found["invocation"]["parameters"],
        definition["externalParameters"]["request"]
    );
    assert_eq!(found["metadata"]["buildInvocationID"], "i1");
    assert_eq!(found["metadata"]["completeness"]["environment"], true);
}

#[test]
fn materials_that_have_to_be_complete_and_are_not_are_refused() {
    let strict = Options {
        complete_materials: true,
        ..Options::default()
    };
    let new = |capture: &Capture| {
        Predicate::new(
            capture,
            Request::default(),
            invocation(),
            strict.clone(),
            Details::default(),
        )
    };
    let refused = new(&capture()).unwrap_err().to_string();
    assert!(refused.starts_with("provenance materials are incomplete\n\n"));
    assert!(refused.ends_with(
        "Uncaptured local sources:\n  - context\n    reason: local_source\n  - dockerfile\n    reason: local_source"
    ));
    assert!(new(&Capture::default()).is_ok());
}
