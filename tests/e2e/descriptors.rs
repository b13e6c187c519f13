//! What stands in the documents of an archive beside what was built: types, annotations, blanks, and nothing that is
//! for this program alone. The names are those of `exporter/containerimage` of BuildKit.

use std::path::Path;

use rbuild_testkit::image::OciLayout;
use serde_json::{Value, json};

use crate::e2e::fixture::Fixture;

/// An archive: its `index.json`, and its documents by their digests.
struct Documents {
    layout: OciLayout,
    /// The one entry of `index.json`.
    top: Value,
}

impl Documents {
    fn of(archive: &Path) -> Self {
        let layout = OciLayout::open(archive).unwrap();
        let top = layout.index().unwrap()["manifests"][0].clone();
        Self { layout, top }
    }

    fn bytes(&self, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().expect("a digest");
        std::fs::read(self.layout.blob(digest).unwrap()).unwrap()
    }

    fn read(&self, descriptor: &Value) -> Value {
        serde_json::from_slice(&self.bytes(descriptor)).unwrap()
    }
}

/// An archive of an image with provenance, written with `attributes` of the output.
fn attested(fixture: &Fixture, attributes: &str) -> Documents {
    let archive = fixture.archive();
    let to = format!(
        "--output=type=oci,name=example.invalid/app:1,dest={}{attributes}",
        archive.display()
    );
    fixture
        .build()
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .args(["--provenance=mode=min", &to])
        .ok();
    Documents::of(&archive)
}

#[test]
fn an_attestation_stands_beside_its_image_as_an_artifact_or_as_old_readers_know_it() {
    let fixture = Fixture::new("FROM busybox\nRUN echo x > /x\n");
    for (attributes, as_artifact) in [
        ("", true),
        (",oci-artifact=true", true),
        (",oci-artifact=false", false),
    ] {
        let documents = attested(&fixture, attributes);
        assert_eq!(
            documents.top["mediaType"],
            "application/vnd.oci.image.index.v1+json"
        );
        let index = documents.read(&documents.top);
        let [image, attestation] = index["manifests"].as_array().unwrap().as_slice() else {
            panic!("an image and what is said of it, not {index}");
        };
        assert_eq!(
            attestation["annotations"],
            json!({
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": image["digest"],
            })
        );
        assert_eq!(
            attestation["platform"],
            json!({"architecture": "unknown", "os": "unknown"})
        );
        let manifest = documents.read(attestation);
        let layer = &manifest["layers"][0];
        assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
        assert_eq!(
            layer["annotations"],
            json!({"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"})
        );
        let statement = documents.read(layer);
        assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
        let subject = &statement["subject"][0];
        assert_eq!(
            subject["name"],
            "pkg:docker/example.invalid/app@1?platform=linux%2Famd64"
        );
        assert_eq!(
            format!("sha256:{}", subject["digest"]["sha256"].as_str().unwrap()),
            image["digest"].as_str().unwrap()
        );
        let config = documents.read(&manifest["config"]);
        if as_artifact {
            assert_eq!(
                manifest["artifactType"],
                "application/vnd.docker.attestation.manifest.v1+json"
            );
            assert_eq!(manifest["subject"]["digest"], image["digest"]);
            assert_eq!(
                manifest["config"]["mediaType"],
                "application/vnd.oci.empty.v1+json"
            );
            assert_eq!(config, json!({}));
        } else {
            assert!(manifest.get("artifactType").is_none() && manifest.get("subject").is_none());
            assert_eq!(
                manifest["config"]["mediaType"],
                "application/vnd.oci.image.config.v1+json"
            );
            assert_eq!(config["rootfs"]["diff_ids"], json!([layer["digest"]]));
        }
    }
}

#[test]
fn archives_name_and_date_what_is_in_them_and_keep_the_builders_notes_out() {
    let fixture = Fixture::new("FROM busybox\nRUN echo x > /x\n");
    let documents = attested(&fixture, "");
    assert_eq!(
        documents.top["annotations"],
        json!({
            "io.containerd.image.name": "example.invalid/app:1",
            "org.opencontainers.image.ref.name": "1",
            "org.opencontainers.image.created": "2023-11-14T22:13:20Z",
        })
    );
    let index = documents.read(&documents.top);
    for entry in index["manifests"].as_array().unwrap() {
        let manifest = documents.read(entry);
        for layer in manifest["layers"].as_array().unwrap() {
            let notes = layer
                .get("annotations")
                .map(ToString::to_string)
                .unwrap_or_default();
            for own in ["containerd.io/", "buildkit/createdat"] {
                assert!(!notes.contains(own), "{own} in {notes}");
            }
        }
        assert!(!entry.to_string().contains("config.digest"), "{entry}");
    }
}

#[test]
fn indexes_and_manifests_are_indented_and_configs_and_statements_are_not() {
    let fixture = Fixture::new("FROM busybox\nRUN echo x > /x\n");
    let documents = attested(&fixture, "");
    let indented = |descriptor: &Value| {
        let text = String::from_utf8(documents.bytes(descriptor)).unwrap();
        assert!(
            text.starts_with("{\n  \"schemaVersion\": 2,\n  \"mediaType\": "),
            "{text}"
        );
        assert!(text.ends_with("\n}"), "{text}");
    };
    let compact = |descriptor: &Value| {
        let text = String::from_utf8(documents.bytes(descriptor)).unwrap();
        assert!(
            text.starts_with("{\"") && !text.contains('\n') && !text.contains("\": "),
            "{text}"
        );
    };
    indented(&documents.top);
    let index = documents.read(&documents.top);
    for entry in index["manifests"].as_array().unwrap() {
        indented(entry);
    }
    let [image, attestation] = [0, 1].map(|at| documents.read(&index["manifests"][at]));
    compact(&image["config"]);
    compact(&attestation["layers"][0]);
}
