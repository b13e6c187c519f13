//! Layouts: `index.json` and what it reaches (OCI image-spec, image-layout.md). Names stand in annotations, and where
//! an engine wrote both, in Docker's listing.

use std::collections::BTreeSet;

use rbuild_oci::media_type::OCI_INDEX;
use rbuild_oci::{Descriptor, Digest, Document, Index, Platform, Reference, parse_document};

use super::archive::{self, Archive};
use super::docker::Listing;
use super::{Found, LoadError};

/// containerd's annotation: the whole name.
const FULL_NAME: &str = "io.containerd.image.name";
/// The image spec's: often only a tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Every image that `index` lists, once, with all its names.
pub(super) fn images(
    archive: &Archive<'_>,
    index: &[u8],
    docker: Option<&Listing>,
    platform: &Platform,
) -> Result<Vec<Found>, LoadError> {
    let parsed = parse_document(index, Some(OCI_INDEX)).map_err(|source| LoadError::Document {
        name: archive::INDEX.to_owned(),
        source,
    })?;
    let Document::Index(list) = parsed else {
        return Err(LoadError::NoImages);
    };
    let mut images: Vec<Found> = Vec::new();
    for entry in list.manifests {
        let own = name(&entry)?;
        let known = images.iter().position(|image| image.top.digest == entry.digest);
        let at = match known {
            Some(at) => at,
            None => {
                images.push(image(archive, plain(entry), docker, platform)?);
                images.len() - 1
            }
        };
        images[at].names.extend(own);
    }
    if images.is_empty() {
        return Err(LoadError::NoImages);
    }
    Ok(images)
}

/// The descriptor as it would stand in a registry: what a layout notes at it is not the image's.
fn plain(entry: Descriptor) -> Descriptor {
    Descriptor::new(&entry.media_type, entry.digest, entry.size)
}

fn name(entry: &Descriptor) -> Result<Option<Reference>, LoadError> {
    let parse = |name: &String| {
        let parsed = Reference::parse(name).map(Reference::or_latest);
        parsed.map_err(|_| LoadError::Name(name.clone()))
    };
    if let Some(full) = entry.annotations.get(FULL_NAME) {
        return parse(full).map(Some);
    }
    // `latest` alone is a tag of nothing.
    let full = entry
        .annotations
        .get(REF_NAME)
        .filter(|name| name.contains([':', '/']));
    full.map(parse).transpose()
}

fn image(
    archive: &Archive<'_>,
    top: Descriptor,
    docker: Option<&Listing>,
    platform: &Platform,
) -> Result<Found, LoadError> {
    if !archive.holds(&top)? {
        return Err(LoadError::Missing(format!("blob {}", top.digest)));
    }
    match archive.read_document(&top)? {
        Document::Manifest(_) => {
            let mut found = single(archive, top)?;
            found.names = listed(archive, docker, &found)?;
            Ok(found)
        }
        Document::Index(index) => whole_index(archive, top, &index, docker, platform),
    }
}

/// An index if everything it lists is there, else the image of it for `platform`.
fn whole_index(
    archive: &Archive<'_>,
    top: Descriptor,
    index: &Index,
    docker: Option<&Listing>,
    platform: &Platform,
) -> Result<Found, LoadError> {
    let mut parts = Vec::with_capacity(index.manifests.len());
    for entry in &index.manifests {
        match single(archive, entry.clone()) {
            Ok(found) => parts.push(found),
            Err(LoadError::Missing(_)) => {
                let chosen = index
                    .choose(platform)
                    .ok_or_else(|| LoadError::Platform(platform.short()))?;
                let mut found = single(archive, plain(chosen.clone()))?;
                found.names = listed(archive, docker, &found)?;
                return Ok(found);
            }
            Err(error) => return Err(error),
        }
    }
    let mut names = BTreeSet::new();
    for part in &parts {
        names.extend(listed(archive, docker, part)?);
    }
    let sizes: u64 = parts.iter().map(|part| part.size_bytes).sum();
    Ok(Found {
        size_bytes: sizes.saturating_add(top.size),
        created_ms: parts.iter().map(|part| part.created_ms).max().unwrap_or(0),
        config: None,
        names,
        top,
    })
}

/// The image of one manifest, all of it there.
fn single(archive: &Archive<'_>, top: Descriptor) -> Result<Found, LoadError> {
    let need = |descriptor: &Descriptor| -> Result<(), LoadError> {
        if archive.holds(descriptor)? {
            Ok(())
        } else {
            Err(LoadError::Missing(format!("blob {}", descriptor.digest)))
        }
    };
    need(&top)?;
    let Document::Manifest(manifest) = archive.read_document(&top)? else {
        return Err(LoadError::Missing(format!(
            "image manifest {}: it is an index inside an index",
            top.digest
        )));
    };
    need(&manifest.config)?;
    for layer in &manifest.layers {
        need(layer)?;
    }
    let config = archive.read_config(&manifest.config.digest)?;
    config
        .check_layers(manifest.layers.len())
        .map_err(|source| LoadError::Config {
            name: manifest.config.digest.to_string(),
            source,
        })?;
    Ok(Found::of_manifest(top, &manifest, &config))
}

fn listed(
    archive: &Archive<'_>,
    docker: Option<&Listing>,
    found: &Found,
) -> Result<BTreeSet<Reference>, LoadError> {
    let config: Option<&Digest> = found.config.as_ref().map(|config| &config.digest);
    match (docker, config) {
        (Some(docker), Some(config)) => docker.names(archive, config),
        _ => Ok(BTreeSet::new()),
    }
}
