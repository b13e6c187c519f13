//! Layers as eStargz, of images and of caches, and layers that are had elsewhere than where the image is: what manifests say of
//! them. The form itself is read in `crates/layer/tests/layer/estargz.rs`.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use rbuild_oci::{Digest, Manifest, media_type};
use rbuild_testkit::image::{Image, OciLayout, decompressed};
use rbuild_testkit::layout::{Attributes, LayerBuilder};
use rbuild_testkit::registry::{ImageSpec, TestRegistry};
use rbuild_testkit::validate;
use serde_json::Value;

use crate::e2e::fixture::Fixture;

const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
const TAR_SIZE: &str = "io.containers.estargz.uncompressed-size";
const FOOTER_BYTES: usize = 51;

/// The table of contents that a blob's footer points at.
fn toc_of(blob: &[u8]) -> Option<Vec<u8>> {
    let footer = &blob[blob.len().checked_sub(FOOTER_BYTES)?..];
    if &footer[32..38] != b"STARGZ" {
        return None;
    }
    let offset = usize::from_str_radix(std::str::from_utf8(&footer[16..32]).ok()?, 16).ok()?;
    let tar = decompressed(&blob[offset..]).ok()?;
    let mut archive = tar::Archive::new(tar.as_slice());
    let mut table = archive.entries().ok()?.next()?.ok()?;
    let mut json = Vec::new();
    table.read_to_end(&mut json).ok()?;
    (table.path_bytes().as_ref() == b"stargz.index.json").then_some(json)
}

/// That a layer is eStargz, and that manifest and config tell of it what is so: the table's digest, and size and digest of the
/// tar with the table.
#[track_caller]
pub(crate) fn assert_estargz(layout: &OciLayout, image: &Image, at: usize) -> Value {
    let layer = &image.manifest["layers"][at];
    assert_eq!(layer["mediaType"], media_type::OCI_LAYER_GZIP);
    let blob = fs::read(layout.blob(layer["digest"].as_str().unwrap()).unwrap()).unwrap();
    let toc = toc_of(&blob).expect("a table of contents");
    let tar = decompressed(&blob).unwrap();
    let annotations = &layer["annotations"];
    assert_eq!(annotations[TOC_DIGEST], Digest::sha256(&toc).to_string());
    assert_eq!(annotations[TAR_SIZE], tar.len().to_string());
    assert_eq!(annotations.as_object().unwrap().len(), 2, "{annotations}");
    assert_eq!(
        image.config["rootfs"]["diff_ids"][at],
        Digest::sha256(&tar).to_string(),
        "of all that is decompressed"
    );
    serde_json::from_slice(&toc).unwrap()
}

#[track_caller]
fn opened(archive: &Path) -> (OciLayout, Image) {
    let layout = OciLayout::open(archive).unwrap();
    validate::assert_valid(&layout);
    let image = layout.image().unwrap();
    (layout, image)
}

/// A base of two files in a registry, whose layer is had at `urls`.
fn base(registry: &TestRegistry, urls: &[&str]) -> Manifest {
    let tar = LayerBuilder::new()
        .file("one", Attributes::mode(0o644), b"one\n")
        .file("two", Attributes::mode(0o644), b"two\n")
        .finish();
    let put = registry.put_image(
        "base",
        "1",
        &ImageSpec {
            layers: vec![tar],
            ..ImageSpec::default()
        },
    );
    let mut manifest = put.manifest;
    if !urls.is_empty() {
        manifest.layers[0].media_type = media_type::OCI_LAYER_NONDISTRIBUTABLE_GZIP.to_owned();
        manifest.layers[0].urls = urls.iter().map(|url| (*url).to_owned()).collect();
        registry.put_manifest("base", "1", media_type::OCI_MANIFEST, &manifest.to_bytes());
    }
    manifest
}

#[test]
fn new_layers_are_estargz_and_those_of_the_base_when_that_is_asked_for() {
    let registry = TestRegistry::start();
    let base = base(&registry, &[]);
    let fixture = Fixture::new(&format!(
        "FROM {}\nCOPY --chown=3:4 new /d/new\nCOPY large /large\n",
        registry.reference("base:1")
    ));
    fixture.context.file("new", "new\n");
    fixture
        .context
        .file("large", rbuild_testkit::context::noise(5 << 20));
    let build = |more: &str| {
        let dest = fixture.archive();
        let output = format!(
            "--output=type=oci,dest={},compression=estargz{more}",
            dest.display()
        );
        fixture.build().arg(output).ok();
        dest
    };
    let plain = build("");
    let (layout, image) = opened(&plain);
    let layers = image.manifest["layers"].as_array().unwrap();
    assert_eq!(
        layers[0]["digest"],
        base.layers[0].digest.to_string(),
        "as it was"
    );
    let toc = assert_estargz(&layout, &image, 1);
    let new = toc["entries"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["name"] == "d/new");
    let new = new.unwrap();
    assert_eq!(
        (&new["uid"], &new["gid"], &new["size"]),
        (&3.into(), &4.into(), &4.into())
    );
    let toc = assert_estargz(&layout, &image, 2);
    let kinds: Vec<_> = toc["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["type"])
        .collect();
    assert_eq!(kinds, ["reg", "chunk"], "4 MiB and the rest");
    assert_eq!(image.files().unwrap().text("d/new"), Some("new\n"));

    let forced = build(",force-compression=true");
    let (layout, image) = opened(&forced);
    for at in 0..3 {
        assert_estargz(&layout, &image, at);
    }
    let files = image.files().unwrap();
    assert_eq!(
        (files.text("one"), files.text("d/new")),
        (Some("one\n"), Some("new\n"))
    );
    assert!(
        files.get("stargz.index.json").is_none(),
        "who unpacks it sees no file more"
    );
}

#[test]
fn a_base_that_is_estargz_stays_as_it_is_and_builds_go_on_from_it() {
    let registry = TestRegistry::start();
    base(&registry, &[]);
    let first = registry.reference("first:1");
    let fixture = Fixture::new(&format!("FROM {}\nCOPY new /new\n", registry.reference("base:1")));
    fixture.context.file("new", "new\n");
    let form = "compression=estargz,force-compression=true";
    fixture
        .build()
        .arg(format!("--output=type=image,push=true,name={first},{form}"))
        .ok();
    let (_, bytes) = registry.manifest("first", "1").unwrap();
    let pushed: Value = serde_json::from_slice(&bytes).unwrap();
    // Another store, which knows of the blobs what the registry says.
    let second = Fixture::new(&format!("FROM {first}\nCOPY more /more\n"));
    second.context.file("more", "more\n");
    let dest = second.archive();
    second
        .build()
        .arg(format!("--output=type=oci,dest={},{form}", dest.display()))
        .ok();
    let (layout, image) = opened(&dest);
    for at in 0..2 {
        assert_eq!(image.manifest["layers"][at], pushed["layers"][at]);
    }
    for at in 0..3 {
        assert_estargz(&layout, &image, at);
    }
    assert_eq!(image.files().unwrap().text("new"), Some("new\n"));
}

#[test]
fn layers_out_of_a_cache_are_told_of_as_when_they_were_made() {
    let registry = TestRegistry::start();
    let cache = registry.reference("cache:1");
    let build = |option: String| {
        let fixture = Fixture::new("FROM scratch\nCOPY a /a\nCOPY b /b\n");
        fixture.context.file("a", "a\n").file("b", "b\n");
        let dest = fixture.archive();
        fixture
            .build()
            .arg(option)
            .arg(format!(
                "--output=type=oci,dest={},compression=estargz",
                dest.display()
            ))
            .ok();
        let (layout, image) = opened(&dest);
        for at in 0..2 {
            assert_estargz(&layout, &image, at);
        }
        image.manifest["layers"].clone()
    };
    let made = build(format!(
        "--cache-to=type=registry,ref={cache},mode=max,compression=estargz"
    ));
    let taken = build(format!("--cache-from=type=registry,ref={cache}"));
    assert_eq!(taken, made);
}

#[test]
fn a_file_of_the_tables_name_is_refused_in_buildkits_words() {
    let fixture = Fixture::new("FROM scratch\nCOPY stargz.index.json /\n");
    fixture.context.file("stargz.index.json", "{}");
    let build = |compression: &str| {
        let dest = fixture.archive();
        let output = format!(
            "--output=type=oci,dest={},compression={compression}",
            dest.display()
        );
        fixture.build().arg(output)
    };
    build("estargz")
        .fails()
        .says("existing TOC JSON is not allowed; decompress layer before append");
    build("gzip").ok();
}

#[test]
fn layers_that_are_had_elsewhere_stay_there_for_who_prefers_it() {
    const ELSEWHERE: &str = "https://elsewhere.example/layer";
    let registry = TestRegistry::start();
    let base = base(&registry, &[ELSEWHERE]);
    let fixture = Fixture::new(&format!("FROM {}\nCOPY new /new\n", registry.reference("base:1")));
    fixture.context.file("new", "new\n");
    let push = |name: &str, more: &str| {
        let name = registry.reference(&format!("{name}:1"));
        fixture
            .build()
            .arg(format!("--output=type=image,push=true,name={name}{more}"))
            .ok();
    };
    let digest = &base.layers[0].digest;
    let layers = |name: &str| -> Value {
        let (_, bytes) = registry.manifest(name, "1").unwrap();
        let manifest: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(manifest["layers"][0]["digest"], digest.to_string());
        manifest["layers"].clone()
    };
    push("plain", "");
    let plain = layers("plain");
    assert_eq!(plain[0]["mediaType"], media_type::OCI_LAYER_GZIP);
    assert!(plain[0].get("urls").is_none(), "{plain}");
    assert!(registry.blob("plain", digest).is_some(), "it is sent");

    push("kept", ",prefer-nondist-layers=true");
    let kept = layers("kept");
    assert_eq!(kept[0]["mediaType"], media_type::OCI_LAYER_NONDISTRIBUTABLE_GZIP);
    assert_eq!(kept[0]["urls"], serde_json::json!([ELSEWHERE]));
    assert_eq!(kept[1], plain[1], "what is new is had here");
    assert!(registry.blob("kept", digest).is_none(), "it is not sent");

    push("docker", ",prefer-nondist-layers=true,oci-mediatypes=false");
    assert_eq!(
        layers("docker")[0]["mediaType"],
        media_type::DOCKER_LAYER_FOREIGN_GZIP
    );
}
