//! What stands beside an image in its index: the manifest of its attestations, and the statements in it
//! (`source/containerimage/source.go`, `ResolveImageMetadata`). Signatures are not looked for.

use std::sync::Arc;

use rbuild_oci::attestation::PREDICATE_TYPE;
use rbuild_oci::{Descriptor, Digest, Document, Manifest, parse_document};
use rbuild_store::Lease;

use super::{ImageError, Images, Kind, Lookup, ResolvedImage};

/// Where the attestations of an image are.
#[derive(Debug, Clone, PartialEq)]
pub struct AttestationChain {
    /// The index.
    pub root: Digest,
    /// The image's manifest for the platform.
    pub image: Digest,
    /// The manifest of its attestations, if it has any.
    pub attestation: Option<Digest>,
    /// Index, manifest of the attestations, and the statements that were asked for.
    pub blobs: Vec<(Descriptor, Vec<u8>)>,
}

impl Images {
    /// The attestations of the image `text`, with its statements of `predicate_types`; `None` for an image without an
    /// index.
    ///
    /// # Errors
    /// [`ImageError`].
    pub async fn attestation_chain(
        &self,
        lease: &Arc<Lease>,
        text: &str,
        lookup: &Lookup<'_>,
        predicate_types: &[String],
    ) -> Result<Option<AttestationChain>, ImageError> {
        let image = self.resolve_name(lease, text, lookup).await?;
        let manifest = &image.manifest_descriptor.digest;
        let Some(size) = self.store.has_blob(&image.digest)? else {
            return Ok(None);
        };
        let top = Descriptor::new("", image.digest.clone(), size);
        let bytes = self.part(lease, &image, &top, Kind::Manifest).await?;
        let Document::Index(index) = parsed(&image, &top, &bytes)? else {
            return Ok(None);
        };
        let mut chain = AttestationChain {
            root: image.digest.clone(),
            image: manifest.clone(),
            attestation: None,
            blobs: vec![(
                Descriptor::new(&index.media_type, image.digest.clone(), size),
                bytes,
            )],
        };
        let is_about = |entry: &&Descriptor| entry.attested() == Some(manifest.as_str());
        let Some(entry) = index.manifests.iter().find(is_about) else {
            return Ok(Some(chain));
        };
        let bytes = self.part(lease, &image, entry, Kind::Manifest).await?;
        let document = parsed(&image, entry, &bytes)?;
        chain.attestation = Some(entry.digest.clone());
        chain.blobs.push((entry.clone(), bytes));
        if let Document::Manifest(attestations) = document {
            for layer in wanted(&attestations, predicate_types) {
                let bytes = self.part(lease, &image, layer, Kind::Config).await?;
                chain.blobs.push((layer.clone(), bytes));
            }
        }
        Ok(Some(chain))
    }

    async fn part(
        &self,
        lease: &Arc<Lease>,
        image: &ResolvedImage,
        descriptor: &Descriptor,
        kind: Kind,
    ) -> Result<Vec<u8>, ImageError> {
        self.document(lease, &image.name, descriptor, &image.origin, kind)
            .await
    }
}

fn parsed(image: &ResolvedImage, descriptor: &Descriptor, bytes: &[u8]) -> Result<Document, ImageError> {
    let media_type = Some(descriptor.media_type.as_str()).filter(|text| !text.is_empty());
    parse_document(bytes, media_type).map_err(|source| ImageError::Document {
        name: image.name.clone(),
        digest: descriptor.digest.clone(),
        source,
    })
}

fn wanted<'a>(manifest: &'a Manifest, predicate_types: &'a [String]) -> impl Iterator<Item = &'a Descriptor> {
    let layers = manifest.layers.iter();
    layers.filter(|layer| {
        let predicate_type = layer.annotations.get(PREDICATE_TYPE);
        predicate_type.is_some_and(|found| predicate_types.contains(found))
    })
}
