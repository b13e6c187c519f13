//! The attestations of an image as clients get them: from its index to the statements (`util/imageutil`,
//! `ResolveAttestationChain`).

use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    AttestationChain as Proto, Blob, Descriptor as ProtoDescriptor,
};
use rbuild_builder::images::chain::AttestationChain;
use rbuild_oci::Descriptor;

/// The proto form.
#[must_use]
pub(crate) fn to_proto(chain: AttestationChain) -> Proto {
    let attestation = chain.attestation.map(|digest| digest.to_string());
    Proto {
        root: chain.root.to_string(),
        image_manifest: chain.image.to_string(),
        attestation_manifest: attestation.unwrap_or_default(),
        signature_manifests: Vec::new(),
        blobs: chain
            .blobs
            .into_iter()
            .map(|(descriptor, data)| (descriptor.digest.to_string(), blob(descriptor, data)))
            .collect(),
    }
}

fn blob(descriptor: Descriptor, data: Vec<u8>) -> Blob {
    let descriptor = ProtoDescriptor {
        media_type: descriptor.media_type,
        digest: descriptor.digest.to_string(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        annotations: descriptor.annotations.into_iter().collect(),
    };
    Blob {
        descriptor: Some(descriptor),
        data,
    }
}
