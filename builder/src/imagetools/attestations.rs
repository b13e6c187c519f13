//! Attestations of images that are in registries: those that refer to a manifest join the index it goes into, and those of an index
//! are read for templates (`buildx/util/imagetools/create.go`, `loader.go`).

use std::collections::BTreeMap;

use rbuild_oci::{Descriptor, Document, Platform};
use rbuild_registry::Client;
use serde_json::Value;

use super::{Entry, Found, ImagetoolsError, fetch};

/// What a manifest of attestations says it is.
const ARTIFACT_TYPE: &str = "application/vnd.docker.attestation.manifest.v1+json";
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// Beginnings of the predicates that are shown, and what templates call them.
const SHOWN: [(&str, Kind); 2] = [
    ("https://slsa.dev/provenance/", Kind::Provenance),
    ("https://spdx.dev/Document", Kind::Sbom),
];
/// Largest statement read, bytes.
const STATEMENT_BYTES_MAX: u64 = 64 << 20;

/// What an attestation is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// How an image was made.
    Provenance,
    /// What is in it.
    Sbom,
}

/// The predicates of one kind, by platform.
pub type Predicates = BTreeMap<String, Value>;

/// The entry that is an attestation of `entry` by a reference of the registry; the first, if there are several.
async fn of_entry(client: &Client, entry: &Entry) -> Result<Option<Entry>, ImagetoolsError> {
    let digest = &entry.descriptor.digest;
    let found = client.referrers(&entry.from, digest).await;
    let found = found.map_err(|source| ImagetoolsError::Registry {
        verb: "list what refers to",
        name: entry.from.repository().with_digest(digest.clone()).to_string(),
        source,
    })?;
    let first = found
        .into_iter()
        .find(|one| one.artifact_type.as_deref() == Some(ARTIFACT_TYPE));
    Ok(first.map(|mut descriptor| {
        let unknown = || "unknown".to_owned();
        descriptor.artifact_type = None;
        descriptor.platform = Some(Platform {
            os: unknown(),
            architecture: unknown(),
            ..Platform::default()
        });
        let about = [
            (REFERENCE_TYPE, "attestation-manifest".to_owned()),
            (REFERENCE_DIGEST, digest.to_string()),
        ];
        descriptor
            .annotations
            .extend(about.map(|(key, value)| (key.to_owned(), value)));
        Entry {
            descriptor,
            from: entry.from.clone(),
        }
    }))
}

/// Attestations that `entries` have in their registries and not among themselves.
pub(super) async fn missing(client: &Client, entries: &[Entry]) -> Result<Vec<Entry>, ImagetoolsError> {
    let mut all = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.descriptor.is_attestation()) {
        let digest = entry.descriptor.digest.to_string();
        let is_attested = entries.iter().any(|other| {
            other.descriptor.is_attestation()
                && other.descriptor.annotations.get(REFERENCE_DIGEST) == Some(&digest)
        });
        if is_attested {
            continue;
        }
        if let Some(found) = of_entry(client, entry).await? {
            let is_known = |known: &Entry| known.descriptor.digest == found.descriptor.digest;
            if !entries.iter().chain(&all).any(is_known) {
                all.push(found);
            }
        }
    }
    Ok(all)
}

/// What the attestations in an index say, of one kind.
///
/// # Errors
/// [`ImagetoolsError::Registry`], [`ImagetoolsError::Statement`].
pub async fn predicates(client: &Client, found: &Found, kind: Kind) -> Result<Predicates, ImagetoolsError> {
    let mut all = Predicates::new();
    let Document::Index(index) = &found.document else {
        return Ok(all);
    };
    for entry in index.manifests.iter().filter(|entry| entry.is_attestation()) {
        let subject = entry.annotations.get(REFERENCE_DIGEST);
        let about = |one: &&Descriptor| Some(&one.digest.to_string()) == subject;
        let Some(platform) = index
            .manifests
            .iter()
            .find(about)
            .and_then(|one| one.platform.as_ref())
        else {
            continue;
        };
        let place = found.reference.repository().with_digest(entry.digest.clone());
        let Document::Manifest(manifest) = fetch(client, &place).await?.document else {
            continue;
        };
        for layer in manifest.layers.iter().filter(|layer| is_of(layer, kind)) {
            let bytes = client.blob(&place, layer, STATEMENT_BYTES_MAX).await;
            let bytes = bytes.map_err(|source| ImagetoolsError::Registry {
                verb: "pull an attestation of",
                name: place.to_string(),
                source,
            })?;
            let mut statement: Value =
                serde_json::from_slice(&bytes).map_err(|source| ImagetoolsError::Statement {
                    digest: layer.digest.clone(),
                    source,
                })?;
            all.entry(platform.short())
                .or_insert_with(|| statement["predicate"].take());
        }
    }
    Ok(all)
}

fn is_of(layer: &Descriptor, kind: Kind) -> bool {
    let written = layer.annotations.get(PREDICATE_TYPE).map_or("", String::as_str);
    SHOWN
        .iter()
        .any(|(begin, of)| *of == kind && written.starts_with(begin))
}
