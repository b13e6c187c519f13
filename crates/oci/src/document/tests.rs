//! Manifests, indexes and configs: what is read, and which ambiguous or oversized ones are refused.

use super::*;
use crate::Digest;
use crate::media_type::{
    DOCKER_INDEX, DOCKER_MANIFEST, DOCKER_SCHEMA1_SIGNED, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST,
};

fn config() -> String {
    format!(
        r#"{{"mediaType":"{OCI_CONFIG}","digest":"{}","size":2}}"#,
        Digest::sha256(b"{}")
    )
}

fn manifest(extra: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{},"layers":[]{extra}}}"#,
        config()
    )
}

fn index(extra: &str) -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]{extra}}}"#)
}

fn refused(text: &str, content_type: Option<&str>) -> DocumentError {
    parse_document(text.as_bytes(), content_type).expect_err(text)
}

#[test]
fn row32_a_document_that_is_both_is_refused() {
    for text in [
        manifest(r#","manifests":[]"#),
        index(r#","layers":[]"#),
        index(&format!(r#","config":{}"#, config())),
    ] {
        assert!(
            matches!(refused(&text, None), DocumentError::Ambiguous(..)),
            "{text}"
        );
        assert!(matches!(
            refused(&text, Some(OCI_MANIFEST)),
            DocumentError::Ambiguous(..)
        ));
    }
    let bare_index = r#"{"schemaVersion":2,"manifests":[]}"#;
    assert!(matches!(
        refused(bare_index, Some(OCI_MANIFEST)),
        DocumentError::WrongField { .. }
    ));
    let bare_manifest = format!(r#"{{"schemaVersion":2,"config":{},"layers":[]}}"#, config());
    assert!(matches!(
        refused(&bare_manifest, Some(DOCKER_INDEX)),
        DocumentError::WrongField { .. }
    ));
}

#[test]
fn row32_the_header_must_agree() {
    for outer in [
        OCI_INDEX,
        DOCKER_MANIFEST,
        "application/vnd.oci.image.config.v1+json",
        "text/html",
    ] {
        let error = refused(&manifest(""), Some(outer));
        assert!(
            matches!(error, DocumentError::MediaTypeMismatch { .. }),
            "{outer}: {error}"
        );
    }
    let nameless = format!(r#"{{"schemaVersion":2,"config":{},"layers":[]}}"#, config());
    assert!(matches!(refused(&nameless, None), DocumentError::NoMediaType));
    assert!(matches!(
        refused(&nameless, Some("application/json")),
        DocumentError::NoMediaType
    ));
    assert!(matches!(
        refused(&nameless, Some("text/html")),
        DocumentError::UnknownMediaType(_)
    ));
}

#[test]
fn row32_legal_twins_are_read() {
    let text = manifest(r#","annotations":{"a":"1","A":"2"},"subject":null,"future":{"x":1}"#);
    for outer in [
        None,
        Some(OCI_MANIFEST),
        Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
        Some("application/json"),
    ] {
        let Document::Manifest(read) = parse_document(text.as_bytes(), outer).expect("a manifest") else {
            panic!("not a manifest");
        };
        assert_eq!(read.annotations.len(), 2);
        assert!(read.extra.contains_key("future"));
    }
    let nameless = format!(r#"{{"schemaVersion":2,"config":{},"layers":null}}"#, config());
    let read = parse_document(nameless.as_bytes(), Some(OCI_MANIFEST)).expect("type from the header");
    assert_eq!(read.media_type(), OCI_MANIFEST);
    assert!(matches!(
        parse_document(index("").as_bytes(), None).expect("index"),
        Document::Index(_)
    ));
}

#[test]
fn row32_schema1_is_refused_by_name() {
    let schema1 = r#"{"schemaVersion":1,"name":"a","tag":"b","fsLayers":[],"history":[]}"#;
    for outer in [None, Some(DOCKER_SCHEMA1_SIGNED), Some(OCI_MANIFEST)] {
        let error = refused(schema1, outer);
        assert!(matches!(error, DocumentError::Schema1), "{error}");
        assert!(error.to_string().contains("schema 1"));
    }
    let disguised = manifest(r#","fsLayers":[]"#);
    assert!(matches!(refused(&disguised, None), DocumentError::Schema1));
    assert!(matches!(
        refused("{}", Some(OCI_MANIFEST)),
        DocumentError::SchemaVersion(0)
    ));
    assert!(matches!(
        refused(r#"{"schemaVersion":3}"#, Some(OCI_MANIFEST)),
        DocumentError::SchemaVersion(3)
    ));
}

#[test]
fn row32_duplicate_and_misspelt_keys_are_refused() {
    let twice = manifest(r#","layers":[]"#);
    assert!(matches!(refused(&twice, None), DocumentError::Json(_)));
    for key in ["Manifests", "MANIFESTS", "Subject", "fslayerS", "manifeſts"] {
        let text = manifest(&format!(r#","{key}":[]"#));
        assert!(
            matches!(refused(&text, None), DocumentError::FieldCase(_)),
            "{key}"
        );
    }
    let inside = manifest("").replace(r#""size":2"#, r#""size":2,"URLs":["https://b/"]"#);
    assert!(matches!(refused(&inside, None), DocumentError::FieldCase(_)));
}

#[test]
fn row32_limits_of_size_and_count() {
    let layer = format!(
        r#"{{"mediaType":"{OCI_LAYER}","digest":"{}","size":1}}"#,
        Digest::sha256(b"x")
    );
    let many = |n: usize| {
        manifest("").replace(
            "\"layers\":[]",
            &format!("\"layers\":[{}]", vec![layer.as_str(); n].join(",")),
        )
    };
    assert!(matches!(
        refused(&many(LAYERS_MAX + 1), None),
        DocumentError::TooMany { found: 4097, .. }
    ));
    parse_document(many(LAYERS_MAX).as_bytes(), None).expect("as many as allowed");
    let padded = |n: usize| format!("{}{}", manifest(""), " ".repeat(n - manifest("").len()));
    assert!(matches!(
        refused(&padded(DOCUMENT_BYTES_MAX + 1), None),
        DocumentError::TooLarge { .. }
    ));
    parse_document(padded(DOCUMENT_BYTES_MAX).as_bytes(), None).expect("as large as allowed");
}

#[test]
fn row31_digests_of_another_form_are_refused() {
    let good = Digest::sha256(b"{}").to_string();
    for bad in [
        "sha256:../../../../canary/x".to_owned(),
        good[..good.len() - 1].to_owned(),
        format!("{good}0"),
        good.to_uppercase().replace("SHA256", "sha256"),
        format!("{}%2f", &good[..good.len() - 3]),
        "md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(),
        String::new(),
        "x:y".to_owned(),
    ] {
        let text = manifest("").replace(&good, &bad);
        assert!(
            matches!(refused(&text, None), DocumentError::Malformed { .. }),
            "{bad}"
        );
    }
    let sha512 = format!("sha512:{}", "a".repeat(128));
    parse_document(manifest("").replace(&good, &sha512).as_bytes(), None).expect("sha512 is legal");
}

#[test]
fn row32_embedded_data_is_not_kept() {
    let text = manifest("").replace(r#""size":2"#, r#""size":2,"data":"e30=","x":1"#);
    let Document::Manifest(read) = parse_document(text.as_bytes(), None).expect("manifest") else {
        panic!("kind")
    };
    assert_eq!(read.config.extra.keys().collect::<Vec<_>>(), ["x"]);
}

#[test]
fn bytes_are_buildkits() {
    let mut config = Descriptor::of(OCI_CONFIG, b"{}");
    config.annotations.insert("b".to_owned(), "<&>".to_owned());
    config.annotations.insert("a".to_owned(), String::new());
    let mut manifest = Manifest::new(OCI_MANIFEST, config, Vec::new());
    manifest.annotations.insert("k".to_owned(), "v".to_owned());
    let digest = Digest::sha256(b"{}");
    let expected = format!(
        r#"{{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {{
    "mediaType": "application/vnd.oci.image.config.v1+json",
    "digest": "{digest}",
    "size": 2,
    "annotations": {{
      "a": "",
      "b": "\u003c\u0026\u003e"
    }}
  }},
  "layers": [],
  "annotations": {{
    "k": "v"
  }}
}}"#
    );
    assert_eq!(String::from_utf8(manifest.to_bytes()).expect("utf-8"), expected);
    let Document::Manifest(read) = parse_document(&manifest.to_bytes(), None).expect("ours") else {
        panic!("kind")
    };
    assert_eq!(*read, manifest);
}

#[test]
fn an_index_gives_the_entry_that_fits() {
    let entry = |platform: &str, kind: Option<&str>| {
        let mut entry = Descriptor::of(OCI_MANIFEST, platform.as_bytes());
        entry.platform = Platform::parse(platform).ok();
        if let Some(kind) = kind {
            entry
                .annotations
                .insert("vnd.docker.reference.type".to_owned(), kind.to_owned());
        }
        entry
    };
    let index = Index::new(
        OCI_INDEX,
        vec![
            entry("linux/amd64", Some("attestation-manifest")),
            entry("linux/arm/v6", None),
            entry("linux/amd64", None),
            entry("-", None),
        ],
    );
    let chosen = |platform: &str| {
        let platform = Platform::parse(platform).expect(platform);
        index
            .choose(&platform)
            .map(|chosen| index.manifests.iter().position(|e| std::ptr::eq(e, chosen)))
    };
    assert_eq!(chosen("linux/amd64"), Some(Some(2)));
    assert_eq!(chosen("linux/arm/v7"), Some(Some(1)));
    assert_eq!(
        chosen("linux/s390x"),
        Some(Some(3)),
        "an entry without platform is the last resort"
    );
    let other = Index::new(
        OCI_INDEX,
        vec![
            entry("linux/s390x", None),
            entry("-", Some("attestation-manifest")),
        ],
    );
    assert!(other.choose(&Platform::new("linux", "amd64")).is_none());
}
