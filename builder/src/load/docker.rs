//! `manifest.json`, the listing of `docker save`: which file is the config, which are the layers, what the names are
//! (moby `image/tarexport`).

use std::collections::BTreeSet;

use rbuild_layer::Compression;
use rbuild_oci::media_type::{
    DOCKER_CONFIG, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_LAYER_ZSTD, DOCKER_MANIFEST,
};
use rbuild_oci::{Descriptor, Digest, Manifest, Reference};
use serde::Deserialize;

use super::archive::{self, Archive};
use super::{Found, LoadError};

/// The listing.
#[derive(Debug)]
pub(super) struct Listing(Vec<Image>);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Listing {
    /// The archive's, if it has one.
    pub(super) fn of(archive: &Archive<'_>) -> Result<Option<Self>, LoadError> {
        let listing = archive.document(archive::DOCKER_MANIFEST);
        let images = listing.map(serde_json::from_slice).transpose();
        Ok(images.map_err(LoadError::DockerManifest)?.map(Self))
    }

    /// The names of the image with this config.
    pub(super) fn names(
        &self,
        archive: &Archive<'_>,
        config: &Digest,
    ) -> Result<BTreeSet<Reference>, LoadError> {
        let mut names = BTreeSet::new();
        for image in &self.0 {
            if archive
                .find(&image.config)
                .is_some_and(|found| found.digest == *config)
            {
                names.extend(references(image)?);
            }
        }
        Ok(names)
    }

    /// The images, of an archive that is no layout. Their manifests are ours: the archive has none.
    pub(super) fn images(&self, archive: &Archive<'_>) -> Result<Vec<Found>, LoadError> {
        self.0.iter().map(|image| found(archive, image)).collect()
    }
}

fn references(image: &Image) -> Result<BTreeSet<Reference>, LoadError> {
    let names = image.repo_tags.iter().flatten();
    let parse = |name: &String| Reference::parse(name).map_err(|_| LoadError::Name(name.clone()));
    names.map(parse).collect()
}

fn found(archive: &Archive<'_>, image: &Image) -> Result<Found, LoadError> {
    let names = references(image)?;
    let missing = |path: &str| LoadError::Missing(format!("file {path:?}"));
    let config_blob = archive
        .find(&image.config)
        .ok_or_else(|| missing(&image.config))?;
    let config = archive.read_config(&config_blob.digest)?;
    let paths: &[String] = image.layers.as_deref().unwrap_or_default();
    config
        .check_layers(paths.len())
        .map_err(|source| LoadError::Config {
            name: image.config.clone(),
            source,
        })?;
    let mut layers = Vec::with_capacity(paths.len());
    for (path, expected) in paths.iter().zip(&config.rootfs.diff_ids) {
        let blob = archive.find(path).ok_or_else(|| missing(path))?;
        let media_type = match Compression::detect(&archive.start(&blob.digest)?) {
            Compression::Gzip => DOCKER_LAYER_GZIP,
            Compression::Zstd => DOCKER_LAYER_ZSTD,
            // A layer that is compressed is compared with its config when it is unpacked.
            _ if blob.digest != expected.0 => {
                return Err(LoadError::DiffId {
                    path: path.clone(),
                    expected: expected.0.clone(),
                    found: blob.digest.clone(),
                });
            }
            _ => DOCKER_LAYER,
        };
        layers.push(Descriptor::new(media_type, blob.digest.clone(), blob.size));
    }
    let config_descriptor = Descriptor::new(DOCKER_CONFIG, config_blob.digest.clone(), config_blob.size);
    let manifest = Manifest::new(DOCKER_MANIFEST, config_descriptor, layers);
    let bytes = manifest.to_bytes();
    let top = Descriptor::of(DOCKER_MANIFEST, &bytes);
    archive.put(&bytes)?;
    // It has to be one that is read again: too many layers are refused here.
    archive.read_document(&top)?;
    let mut found = Found::of_manifest(top, &manifest, &config);
    found.names = names;
    Ok(found)
}
