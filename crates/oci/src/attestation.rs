//! How attestations stand beside images in an index (BuildKit, `docs/attestations/attestation-storage.md`).

use crate::{Descriptor, Digest, Platform};

/// Artifact type of a manifest of attestations.
pub const ARTIFACT_TYPE: &str = "application/vnd.docker.attestation.manifest.v1+json";
/// Annotation of a statement's layer: what it says, a predicate type of in-toto.
pub const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// Annotation of an index' entry: how it refers to another.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// What [`REFERENCE_TYPE`] is of a manifest of attestations.
const ATTESTATION_MANIFEST: &str = "attestation-manifest";
/// Annotation of an index' entry: which other one it refers to.
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

impl Descriptor {
    /// Whether this entry of an index is an attestation of BuildKit's and not an image.
    #[must_use]
    pub fn is_attestation(&self) -> bool {
        self.annotations
            .get(REFERENCE_TYPE)
            .is_some_and(|kind| kind == ATTESTATION_MANIFEST)
    }

    /// The image that this entry of an index is about, as written; nothing for one that is no attestation.
    #[must_use]
    pub fn attested(&self) -> Option<&str> {
        let about = self.annotations.get(REFERENCE_DIGEST);
        about.filter(|_| self.is_attestation()).map(String::as_str)
    }

    /// Makes of this an index' entry of attestations of `image`.
    pub fn attest(&mut self, image: &Digest) {
        self.platform = Some(nowhere());
        let about = [
            (REFERENCE_TYPE, ATTESTATION_MANIFEST.to_owned()),
            (REFERENCE_DIGEST, image.to_string()),
        ];
        self.annotations
            .extend(about.map(|(key, value)| (key.to_owned(), value)));
    }
}

/// The platform of attestations.
#[must_use]
pub fn nowhere() -> Platform {
    Platform::new("unknown", "unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_attests_names_its_image() {
        let mut entry = Descriptor::of("m", b"{}");
        assert!(!entry.is_attestation() && entry.attested().is_none());
        let image = Digest::sha256(b"image");
        entry.attest(&image);
        assert!(entry.is_attestation());
        assert_eq!(entry.attested(), Some(image.as_str()));
        assert_eq!(
            entry.platform.as_ref().map(Platform::short),
            Some("unknown/unknown".to_owned())
        );
        entry.annotations.remove(REFERENCE_TYPE);
        assert_eq!(entry.attested(), None, "the digest alone says nothing");
    }
}
