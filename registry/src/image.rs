//! Pulling an image's documents: through indexes to the manifest that fits a platform, and to its config.
//!
//! Refuses indexes nested too deeply, configs that are no configs, and configs whose layers are not the manifest's.

use rbuild_oci::{
    CONFIG_BYTES_MAX, Descriptor, Document, INDEX_DEPTH_MAX, ImageConfig, Manifest, Platform, Reference,
    media_type,
};

use crate::client::Client;
use crate::{PulledManifest, RegistryError, ShownUrl};

/// The documents of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct PulledImage {
    /// What the reference stands for: the index, or the manifest where there is no index.
    pub root: Descriptor,
    /// Every index on the way, outermost first, with its bytes.
    pub indexes: Vec<(Descriptor, Vec<u8>)>,
    /// The image manifest's type, digest and size.
    pub descriptor: Descriptor,
    /// The manifest's bytes.
    pub manifest_bytes: Vec<u8>,
    /// The manifest.
    pub manifest: Manifest,
    /// The config's bytes.
    pub config_bytes: Vec<u8>,
    /// The config.
    pub config: ImageConfig,
}

impl Client {
    /// Pulls the manifest and config of the image that `reference` has for `platform`. An image without an index is
    /// taken as it is: its config says what it runs on.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn image(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<PulledImage, RegistryError> {
        let mut indexes = Vec::new();
        let mut pulled = self.manifest(reference).await?;
        let root = pulled.descriptor.clone();
        // What the last index said that the image runs on.
        let mut claimed: Option<Platform> = None;
        loop {
            match pulled.document {
                Document::Manifest(manifest) => {
                    let PulledManifest {
                        descriptor, bytes, ..
                    } = pulled;
                    let (config_bytes, config) = self.config_of(reference, &manifest).await?;
                    if let Some(claimed) = claimed.filter(|claimed| !runs_on(&config, claimed)) {
                        return Err(RegistryError::NoPlatform {
                            reference: reference.to_string(),
                            platform: claimed.to_string(),
                            offered: offered(&[&config.platform()]),
                        });
                    }
                    return Ok(PulledImage {
                        root,
                        indexes,
                        descriptor,
                        manifest_bytes: bytes,
                        manifest: *manifest,
                        config_bytes,
                        config,
                    });
                }
                Document::Index(index) => {
                    if indexes.len() == INDEX_DEPTH_MAX {
                        return Err(RegistryError::Nesting {
                            reference: reference.to_string(),
                            max: INDEX_DEPTH_MAX,
                        });
                    }
                    let chosen =
                        index
                            .choose(platform)
                            .cloned()
                            .ok_or_else(|| RegistryError::NoPlatform {
                                reference: reference.to_string(),
                                platform: platform.to_string(),
                                offered: offered(&index.platforms()),
                            })?;
                    indexes.push((pulled.descriptor, pulled.bytes));
                    claimed = Some(chosen.platform.clone().unwrap_or_else(|| platform.clone()));
                    pulled = self.manifest_of(reference, &chosen).await?;
                }
            }
        }
    }

    /// Pulls and checks the config of an image manifest.
    async fn config_of(
        &self,
        reference: &Reference,
        manifest: &Manifest,
    ) -> Result<(Vec<u8>, ImageConfig), RegistryError> {
        let url = ShownUrl::blob(reference, &manifest.config.digest);
        if !media_type::is_config(&manifest.config.media_type) {
            let found = crate::Excerpt::from(manifest.config.media_type.as_str());
            return Err(RegistryError::Protocol {
                url,
                reason: format!("this is no image: its config is {found}"),
            });
        }
        for layer in &manifest.layers {
            if !media_type::is_layer(&layer.media_type) {
                let found = crate::Excerpt::from(layer.media_type.as_str());
                return Err(RegistryError::Protocol {
                    url,
                    reason: format!("a layer of type {found} cannot be unpacked"),
                });
            }
        }
        let bytes = self
            .blob(reference, &manifest.config, CONFIG_BYTES_MAX as u64)
            .await?;
        let refused = |source| RegistryError::ImageConfig {
            url: url.clone(),
            source: Box::new(source),
        };
        let config = ImageConfig::parse(&bytes).map_err(refused)?;
        config.check_layers(manifest.layers.len()).map_err(refused)?;
        Ok((bytes, config))
    }
}

/// Whether a config is of the system and architecture an index claims for it. Variants are not compared: many configs
/// of ARM images lack theirs.
fn runs_on(config: &ImageConfig, claimed: &Platform) -> bool {
    let (found, claimed) = (config.platform().normalized(), claimed.normalized());
    found.architecture.is_empty() || (found.os == claimed.os && found.architecture == claimed.architecture)
}

fn offered(platforms: &[&Platform]) -> String {
    let shown: Vec<String> = platforms
        .iter()
        .take(16)
        .map(|p| crate::Excerpt::from(p.to_string().as_str()).to_string())
        .collect();
    match (shown.is_empty(), platforms.len() > shown.len()) {
        (true, _) => "none".to_owned(),
        (false, true) => format!("{}, and more", shown.join(", ")),
        (false, false) => shown.join(", "),
    }
}
