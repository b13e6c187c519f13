//! Which image of an index is meant: a real engine and we say the same.

use std::fs;

use rbuild_testkit::registry::{ImageSpec, TestRegistry};
use serde_json::{Value, json};

use crate::e2e::docker_engine::DockerEngine;
use crate::e2e::fixture::{Fixture, is_root};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Puts an index of images for `platforms`, as they are written (`os/architecture/variant`; nothing for none), each with
/// a config of its own.
fn put(registry: &TestRegistry, tag: &str, platforms: &[&str]) -> String {
    let entries = platforms.iter().enumerate().map(|(at, platform)| {
        let mut parts = platform.split('/').map(str::to_owned);
        let mut part = || parts.next().unwrap_or_default();
        let (os, architecture, variant) = (part(), part(), part());
        let mut spec = ImageSpec {
            layers: vec![vec![0; 1024]],
            ..ImageSpec::default()
        };
        spec.config.os = if os == "windows" {
            os.clone()
        } else {
            "linux".to_owned()
        };
        spec.config.architecture = match architecture.as_str() {
            "" | "unknown" => "amd64".to_owned(),
            _ => architecture.clone(),
        };
        spec.config.author = format!("{tag} {at}");
        let put = registry.put_image("app", &format!("{tag}-{at}"), &spec);
        let mut entry = json!({
            "mediaType": MANIFEST, "digest": put.descriptor.digest.as_str(), "size": put.descriptor.size,
        });
        if !platform.is_empty() {
            entry["platform"] = json!({"os": os, "architecture": architecture});
        }
        if !variant.is_empty() {
            entry["platform"]["variant"] = variant.into();
        }
        if os == "unknown" {
            entry["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        }
        entry
    });
    let entries: Vec<Value> = entries.collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    registry.put_manifest("app", tag, INDEX, index.to_string().as_bytes());
    registry.reference(&format!("app:{tag}"))
}

#[test]
fn privileged_row32_an_engine_chooses_the_same_image_of_an_index() {
    if !is_root("dockerd") {
        return;
    }
    let registry = TestRegistry::start();
    let fixture = Fixture::new("FROM scratch\n");
    let room = fixture.home.work().join("engine");
    fs::create_dir(&room).unwrap();
    let engine = DockerEngine::start(&room);
    let mut chosen = 0;
    for (tag, platforms) in [
        ("second", &["linux/arm64", "linux/amd64"][..]),
        ("twice", &["linux/amd64", "linux/amd64"]),
        ("attested", &["unknown/unknown", "linux/amd64", "unknown/unknown"]),
        ("windows", &["windows/amd64", "linux/amd64"]),
        ("nameless-first", &["", "linux/amd64"]),
        ("nameless-last", &["linux/amd64", ""]),
        ("variants", &["linux/arm/v6", "linux/arm/v7", "linux/amd64"]),
        ("lesser", &["linux/386"]),
        ("lesser-first", &["linux/386", "linux/amd64"]),
        ("none", &["linux/arm64", "linux/s390x"]),
        ("windows-only", &["windows/amd64"]),
        ("attestations-only", &["unknown/unknown"]),
    ] {
        let name = put(&registry, tag, platforms);
        let theirs = engine.docker(["pull", "-q", &name]).run();
        let ours = fixture.rbuild(["pull", "-q", &name]).run();
        // What an older processor's programs are runs here: so say containerd and BuildKit, and this engine does not.
        let taken = theirs.status.success() || tag == "lesser";
        assert_eq!(ours.status.success(), taken, "{tag}\n{ours}\n{theirs}");
        if !theirs.status.success() {
            continue;
        }
        chosen += 1;
        assert_eq!(ours.stdout_text(), theirs.stdout_text(), "the name alone");
        let theirs = engine.docker(["inspect", "--format={{.Author}}", &name]).ok();
        let ours = fixture.rbuild(["inspect", "--format={{.Author}}", &name]).ok();
        assert_eq!(ours.stdout_text(), theirs.stdout_text(), "{tag}");
    }
    engine.stop();
    assert!(chosen >= 7, "only {chosen} were accepted");
}
