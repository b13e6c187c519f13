//! Every rule an image must obey that can be checked from its bytes alone.
//!
//! Used on whatever any test builds. The rules are those of the OCI image specification 1.1 and of Docker's own loader;
//! a finding is a sentence.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::facts::{Kind, sha256_hex};
use crate::image::{Image, OciLayout, decompressed, entries};

/// What is wrong with a layout; empty if nothing is.
///
/// # Errors
/// A layout that cannot be read at all.
pub fn problems(layout: &OciLayout) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let marker = fs::read_to_string(layout.dir().join("oci-layout")).unwrap_or_default();
    let marker: Value = serde_json::from_str(&marker).unwrap_or_default();
    if marker["imageLayoutVersion"] != "1.0.0" {
        found.push(format!("oci-layout says {marker}"));
    }
    let index = layout.index()?;
    if index["schemaVersion"] != 2 {
        found.push(format!("index.json has schemaVersion {}", index["schemaVersion"]));
    }
    if let Err(error) = oci_spec::image::ImageIndex::from_reader(index.to_string().as_bytes()) {
        found.push(format!("index.json: {error}"));
    }
    let mut reached = BTreeSet::new();
    walk(layout, &index, &mut reached, &mut found)?;
    for entry in fs::read_dir(layout.dir().join("blobs/sha256")).context("list blobs")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !reached.contains(&name) {
            found.push(format!("blobs/sha256/{name} belongs to no image"));
        }
    }
    for image in layout.images()? {
        image_problems(&image, &mut found)?;
    }
    Ok(found)
}

/// Asserts that [`problems`] finds none.
#[track_caller]
pub fn assert_valid(layout: &OciLayout) {
    let found = problems(layout).expect("the layout can be read");
    assert!(
        found.is_empty(),
        "the image breaks the specification:\n  {}",
        found.join("\n  ")
    );
}

fn walk(
    layout: &OciLayout,
    document: &Value,
    reached: &mut BTreeSet<String>,
    found: &mut Vec<String>,
) -> Result<()> {
    let lists = ["manifests", "layers"]
        .into_iter()
        .filter_map(|key| document[key].as_array())
        .flatten();
    let config = document
        .get("config")
        .filter(|value| value.get("digest").is_some());
    for descriptor in lists.chain(config) {
        let Some(digest) = descriptor["digest"].as_str() else {
            found.push(format!("descriptor without digest: {descriptor}"));
            continue;
        };
        let bytes = match fs::read(layout.blob(digest)?) {
            Ok(bytes) => bytes,
            Err(error) => {
                found.push(format!("{digest}: {error}"));
                continue;
            }
        };
        let hex = sha256_hex(&bytes);
        if !digest.ends_with(&hex) {
            found.push(format!("{digest} has the digest sha256:{hex}"));
        }
        if descriptor["size"] != bytes.len() {
            found.push(format!(
                "{digest} has {} bytes, its descriptor says {}",
                bytes.len(),
                descriptor["size"]
            ));
        }
        let first = reached.insert(hex);
        let media_type = descriptor["mediaType"].as_str().unwrap_or_default();
        if media_type.contains("manifest") || media_type.contains("index") {
            let inner: Value = serde_json::from_slice(&bytes).with_context(|| format!("parse {digest}"))?;
            if inner["mediaType"] != media_type {
                found.push(format!(
                    "{digest} says {}, its descriptor {media_type}",
                    inner["mediaType"]
                ));
            }
            if first {
                walk(layout, &inner, reached, found)?;
            }
        }
    }
    Ok(())
}

fn image_problems(image: &Image, found: &mut Vec<String>) -> Result<()> {
    let name = &image.manifest_digest;
    let manifest_type = image.manifest["mediaType"].as_str().unwrap_or_default();
    if let Err(error) = oci_spec::image::ImageManifest::from_reader(image.manifest.to_string().as_bytes()) {
        found.push(format!("{name}: manifest: {error}"));
    }
    if let Err(error) = oci_spec::image::ImageConfiguration::from_reader(image.config.to_string().as_bytes())
    {
        found.push(format!("{name}: config: {error}"));
    }
    let docker = manifest_type.contains("docker");
    let layers = image.manifest["layers"].as_array().cloned().unwrap_or_default();
    for descriptor in layers.iter().chain([&image.manifest["config"]]) {
        let media_type = descriptor["mediaType"].as_str().unwrap_or_default();
        if media_type.contains("docker") != docker {
            found.push(format!("{name}: {media_type} in a {manifest_type}"));
        }
    }
    let diff_ids = image.config["rootfs"]["diff_ids"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if diff_ids.len() != layers.len() {
        found.push(format!(
            "{name}: {} layers, {} diff ids",
            layers.len(),
            diff_ids.len()
        ));
    }
    if let Some(history) = image.config["history"].as_array() {
        let filled = history
            .iter()
            .filter(|entry| entry["empty_layer"] != true)
            .count();
        if filled != layers.len() {
            found.push(format!(
                "{name}: {} layers, {filled} history entries that made one",
                layers.len()
            ));
        }
    }
    for field in ["architecture", "os"] {
        if !image.config[field].is_string() {
            found.push(format!("{name}: config without {field}"));
        }
    }
    for (index, diff_id) in diff_ids.iter().enumerate().take(layers.len()) {
        layer_problems(image, index, diff_id, &layers[index], found)?;
    }
    Ok(())
}

fn layer_problems(
    image: &Image,
    index: usize,
    diff_id: &Value,
    descriptor: &Value,
    found: &mut Vec<String>,
) -> Result<()> {
    let tar = image.layer_tar(index)?;
    let actual = format!("sha256:{}", sha256_hex(&tar));
    if diff_id != actual.as_str() {
        found.push(format!(
            "layer {index} has the diff id {actual}, the config says {diff_id}"
        ));
    }
    let media_type = descriptor["mediaType"].as_str().unwrap_or_default();
    let expected = ["gzip", "zstd"].into_iter().find(|c| media_type.ends_with(c));
    let compressed = expected.is_some();
    if compressed == (decompressed_size(image, index)? == descriptor["size"].as_u64().unwrap_or(0)) {
        found.push(format!("layer {index} is not what {media_type} promises"));
    }
    let mut seen = BTreeSet::new();
    for (path, facts) in entries(&tar)? {
        if path.starts_with('/') || path.split('/').any(|part| part == "..") {
            found.push(format!("layer {index}: entry {path:?}"));
        }
        if let Kind::HardLink(target) = &facts.kind
            && !seen.contains(target)
        {
            found.push(format!(
                "layer {index}: {path} links to {target}, which does not precede it"
            ));
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        if name.starts_with(".wh.") && !matches!(&facts.kind, Kind::File(content) if content.size_bytes == 0)
        {
            found.push(format!("layer {index}: whiteout {path} is not an empty file"));
        }
        for attribute in facts.xattrs.keys() {
            if attribute.contains("overlay.") {
                found.push(format!("layer {index}: {path} carries {attribute}"));
            }
        }
        if !seen.insert(path.clone()) {
            found.push(format!("layer {index}: {path} twice"));
        }
    }
    Ok(())
}

fn decompressed_size(image: &Image, index: usize) -> Result<u64> {
    Ok(decompressed(&image.layer_tar(index)?)?.len() as u64)
}
