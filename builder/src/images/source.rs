//! Images that a vertex of the graph names. A front end of ours has resolved them before; graphs of clients name what
//! was never asked for, and then it is asked for here (`source/containerimage/source.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use rbuild_graph::SourceOp;
use rbuild_oci::{Digest, DigestError, Platform};
use rbuild_store::Lease;

use super::session::SessionStore;
use super::{ImageError, Images, Lookup, ResolvedImage};
use crate::client::{Client, ContentPlace};

/// Why an attribute of an image source is refused.
#[derive(Debug, thiserror::Error)]
pub enum AttributeError {
    /// `image.resolvemode`.
    #[error("invalid resolvemode: {0}")]
    ResolveMode(String),
    /// `image.layerlimit`, `oci.layerlimit`.
    #[error("invalid layer limit {0}")]
    LayerLimit(String),
    /// `image.checksum`.
    #[error("invalid image checksum {value}")]
    Checksum {
        /// As written.
        value: String,
        /// Why.
        #[source]
        source: DigestError,
    },
}

/// What an image source says besides its name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Attributes {
    pull: bool,
    checksum: Option<Digest>,
    layers_max: Option<usize>,
    session: String,
    store: String,
}

impl Attributes {
    fn read(attrs: &BTreeMap<String, String>) -> Result<Self, AttributeError> {
        let mut read = Self::default();
        for (name, value) in attrs {
            match name.as_str() {
                "image.resolvemode" => {
                    read.pull = match value.as_str() {
                        "pull" => true,
                        "" | "default" | "local" => false,
                        _ => return Err(AttributeError::ResolveMode(value.clone())),
                    }
                }
                "image.layerlimit" | "oci.layerlimit" => {
                    let limit = value.parse().ok().filter(|limit| *limit > 0);
                    read.layers_max = Some(limit.ok_or_else(|| AttributeError::LayerLimit(value.clone()))?);
                }
                "image.checksum" => {
                    let digest = Digest::parse(value).map_err(|source| AttributeError::Checksum {
                        value: value.clone(),
                        source,
                    })?;
                    read.checksum = Some(digest);
                }
                "oci.session" => read.session.clone_from(value),
                "oci.store" => read.store.clone_from(value),
                _ => {}
            }
        }
        Ok(read)
    }
}

/// An image, and how much of it is meant.
#[derive(Debug, Clone)]
pub struct SourceImage {
    /// The image.
    pub image: Arc<ResolvedImage>,
    /// How many of its layers count, from the bottom.
    pub layers: usize,
}

/// Who asks for an image.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// Keeps what is found.
    pub lease: &'a Arc<Lease>,
    /// The build's client.
    pub client: &'a Arc<dyn Client>,
}

impl Images {
    /// The image that a source names, for `platform` (this machine's if absent). Asked for once in a build.
    ///
    /// # Errors
    /// [`ImageError`].
    pub(crate) async fn of_source(
        &self,
        asker: Asker<'_>,
        source: &SourceOp,
        platform: Option<&Platform>,
    ) -> Result<SourceImage, ImageError> {
        let attributes = Attributes::read(&source.attrs)?;
        let (scheme, name) = source
            .identifier
            .split_once("://")
            .unwrap_or(("", &source.identifier));
        let host = Platform::host();
        let platform = platform.unwrap_or(&host);
        let image = match self.known(name, &platform.to_string()) {
            Some(image) => image,
            None => {
                let lookup = Lookup {
                    platform,
                    pull: attributes.pull,
                };
                let image = if scheme == "oci-layout" {
                    self.of_store(asker, name, &attributes, &lookup).await?
                } else {
                    self.resolve_name(asker.lease, name, &lookup).await?
                };
                self.remember(name.to_owned(), platform.to_string(), &image);
                image
            }
        };
        if let Some(expected) = attributes.checksum.filter(|digest| *digest != image.digest) {
            return Err(ImageError::Checksum {
                name: name.to_owned(),
                found: image.digest.clone(),
                expected,
            });
        }
        let all = image.manifest.layers.len();
        Ok(SourceImage {
            layers: attributes.layers_max.map_or(all, |most| most.min(all)),
            image,
        })
    }

    async fn of_store(
        &self,
        asker: Asker<'_>,
        name: &str,
        attributes: &Attributes,
        lookup: &Lookup<'_>,
    ) -> Result<Arc<ResolvedImage>, ImageError> {
        let digest = name
            .rsplit_once('@')
            .and_then(|(_, text)| Digest::parse(text).ok());
        let digest = digest.ok_or_else(|| ImageError::NoDigest(name.to_owned()))?;
        let store = SessionStore {
            client: Arc::clone(asker.client),
            place: ContentPlace {
                session: attributes.session.clone(),
                store: format!("oci:{}", attributes.store),
            },
        };
        self.resolve_store(asker.lease, name, store, &digest, lookup)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, value: &str) -> Result<Attributes, AttributeError> {
        Attributes::read(&BTreeMap::from([(name.to_owned(), value.to_owned())]))
    }

    #[test]
    fn attributes_are_read_or_refused() {
        assert!(read("image.resolvemode", "pull").unwrap().pull);
        assert!(!read("image.resolvemode", "local").unwrap().pull);
        assert_eq!(read("oci.layerlimit", "2").unwrap().layers_max, Some(2));
        let digest = Digest::sha256(b"x");
        let found = read("image.checksum", digest.as_str()).unwrap().checksum;
        assert_eq!(found, Some(digest));
        for (name, value, text) in [
            ("image.resolvemode", "never", "invalid resolvemode: never"),
            ("image.layerlimit", "0", "invalid layer limit 0"),
            ("image.layerlimit", "-1", "invalid layer limit -1"),
            ("image.checksum", "x", "invalid image checksum x"),
        ] {
            assert_eq!(read(name, value).unwrap_err().to_string(), text);
        }
    }
}
