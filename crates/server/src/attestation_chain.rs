//! The attestations of an image that a client asks about: from its index to the statements (`util/imageutil`,
//! `ResolveAttestationChain`).

use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    AttestationChain, Blob, Descriptor, ResolveSourceImageRequest,
};
use rbuild_builder::error::chain_text;
use rbuild_builder::images::Lookup;
use rbuild_oci::{Digest, Platform, Reference};
use tonic::Status;

use crate::running::Running;

/// Those of the image `name` of `digest` that `asked` wants; nothing if it wants none.
///
/// # Errors
/// The registry's.
pub async fn find(
    running: &Running,
    name: &str,
    digest: &Digest,
    platform: &Platform,
    asked: &ResolveSourceImageRequest,
) -> Result<Option<AttestationChain>, Status> {
    if !asked.attestation_chain && asked.resolve_attestations.is_empty() {
        return Ok(None);
    }
    let lookup = Lookup {
        platform,
        pull: false,
    };
    let exact = match Reference::parse(name) {
        Ok(reference) if reference.digest().is_none() => format!("{name}@{digest}"),
        _ => name.to_owned(),
    };
    let job = &running.job;
    let images = &job.engine.images;
    let chain = images.attestation_chain(&job.lease, &exact, &lookup, &asked.resolve_attestations);
    let chain = chain.await.map_err(|error| Status::unknown(chain_text(&error)))?;
    Ok(chain.map(|chain| AttestationChain {
        root: chain.root.to_string(),
        image_manifest: chain.image.to_string(),
        attestation_manifest: chain
            .attestation
            .map(|digest| digest.to_string())
            .unwrap_or_default(),
        signature_manifests: Vec::new(),
        blobs: chain
            .blobs
            .into_iter()
            .map(|(descriptor, data)| (descriptor.digest.to_string(), blob(descriptor, data)))
            .collect(),
    }))
}

fn blob(descriptor: rbuild_oci::Descriptor, data: Vec<u8>) -> Blob {
    let descriptor = Descriptor {
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
