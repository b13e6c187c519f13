//! Attestations of images that are in registries: those that refer to a manifest join the index it goes into, and those of an index
//! are read for templates (`buildx/util/imagetools/create.go`, `loader.go`).

use std::collections::BTreeMap;

use base64::Engine as _;
use rbuild_oci::attestation::{ARTIFACT_TYPE, PREDICATE_TYPE};
use rbuild_oci::media_type::IN_TOTO;
use rbuild_oci::{Descriptor, Document};
use rbuild_registry::Client;
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::Value;

use super::{Entry, Found, ImagetoolsError, fetch};

/// What the type of a layer begins and ends with whose statement is signed (DSSE, `protocol.md`).
const SIGNED: [&str; 2] = ["application/vnd.in-toto.", "+dsse"];
/// What predicate types of provenance begin with.
const PROVENANCE: &str = "https://slsa.dev/provenance/";
/// The predicate type of lists of packages.
const SPDX: &str = "https://spdx.dev/Document";
/// Most of the statements of one image, bytes.
const STATEMENTS_BYTES_MAX: u64 = 64 << 20;

/// What an attestation is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// How an image was made.
    Provenance,
    /// What is in it.
    Sbom,
}

impl Kind {
    /// Whether a layer is a statement of this kind.
    fn has(self, layer: &Descriptor) -> bool {
        let written = layer.annotations.get(PREDICATE_TYPE).map_or("", String::as_str);
        let is_statement = layer.media_type == IN_TOTO || is_signed(&layer.media_type);
        is_statement
            && match self {
                Self::Provenance => written.starts_with(PROVENANCE),
                Self::Sbom => written == SPDX,
            }
    }
}

/// The predicates of one kind, by platform, in the order of their layers.
pub type Predicates = BTreeMap<String, Vec<Value>>;

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
        descriptor.artifact_type = None;
        descriptor.attest(digest);
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
        let digest = entry.descriptor.digest.as_str();
        if entries
            .iter()
            .any(|other| other.descriptor.attested() == Some(digest))
        {
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
/// [`ImagetoolsError::Registry`], also for statements that are together larger than is read; [`ImagetoolsError::Statement`].
pub async fn predicates(client: &Client, found: &Found, kind: Kind) -> Result<Predicates, ImagetoolsError> {
    let mut all = Predicates::new();
    let Document::Index(index) = &found.document else {
        return Ok(all);
    };
    let mut left = STATEMENTS_BYTES_MAX;
    for entry in &index.manifests {
        let Some(about) = entry.attested() else { continue };
        let subject = index.manifests.iter().find(|one| one.digest.as_str() == about);
        let Some(platform) = subject.and_then(|one| one.platform.as_ref()) else {
            continue;
        };
        let place = found.reference.repository().with_digest(entry.digest.clone());
        let Document::Manifest(manifest) = fetch(client, &place).await?.document else {
            continue;
        };
        for layer in manifest.layers.iter().filter(|layer| kind.has(layer)) {
            let bytes = client.blob(&place, layer, left).await;
            let bytes = bytes.map_err(|source| ImagetoolsError::Registry {
                verb: "pull an attestation of",
                name: place.to_string(),
                source,
            })?;
            left = left.saturating_sub(bytes.len() as u64);
            let said = predicate(&layer.media_type, &bytes);
            let said = said.map_err(|source| ImagetoolsError::Statement {
                digest: layer.digest.clone(),
                source,
            })?;
            all.entry(platform.short()).or_default().push(said);
        }
    }
    Ok(all)
}

fn is_signed(media_type: &str) -> bool {
    let rest = media_type.strip_prefix(SIGNED[0]);
    rest.is_some_and(|rest| rest.ends_with(SIGNED[1]))
}

/// The predicate of a statement; of one that is signed too, which is not verified here.
fn predicate(media_type: &str, bytes: &[u8]) -> Result<Value, serde_json::Error> {
    #[derive(Deserialize)]
    struct Envelope {
        #[serde(default)]
        payload: String,
    }
    #[derive(Deserialize)]
    struct Statement {
        #[serde(default)]
        predicate: Value,
    }
    let statement: Statement = if is_signed(media_type) {
        let envelope: Envelope = serde_json::from_slice(bytes)?;
        let base64 = base64::engine::general_purpose::STANDARD;
        let payload = base64.decode(envelope.payload);
        serde_json::from_slice(&payload.map_err(serde_json::Error::custom)?)?
    } else {
        serde_json::from_slice(bytes)?
    };
    Ok(statement.predicate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_found_by_media_type_and_what_they_say() {
        let layer = |media_type: &str, predicate_type: &str| {
            let mut layer = Descriptor::of(media_type, b"{}");
            let written = (PREDICATE_TYPE.to_owned(), predicate_type.to_owned());
            layer.annotations.extend([written]);
            layer
        };
        let signed = "application/vnd.in-toto.spdx+dsse";
        for (kind, media_type, predicate_type, expected) in [
            (Kind::Sbom, IN_TOTO, SPDX, true),
            (Kind::Sbom, signed, SPDX, true),
            (Kind::Sbom, IN_TOTO, "https://spdx.dev/Document/v2.3", false),
            (Kind::Sbom, "text/plain", SPDX, false),
            (Kind::Provenance, IN_TOTO, "https://slsa.dev/provenance/v1", true),
            (Kind::Provenance, IN_TOTO, SPDX, false),
            (Kind::Provenance, IN_TOTO, "", false),
        ] {
            let found = kind.has(&layer(media_type, predicate_type));
            assert_eq!(found, expected, "{kind:?} {media_type} {predicate_type}");
        }
    }

    #[test]
    fn a_statement_may_be_anything() {
        let signed = "application/vnd.in-toto.provenance+dsse";
        let payload = base64::engine::general_purpose::STANDARD.encode("{\"predicate\": [1]}");
        let envelope = format!("{{\"payload\": \"{payload}\"}}");
        for (media_type, text, expected) in [
            (IN_TOTO, "{\"predicate\": {\"a\": 1}}", Some("{\"a\":1}")),
            (IN_TOTO, "{}", Some("null")),
            (IN_TOTO, "{\"predicate\": null}", Some("null")),
            (signed, &envelope, Some("[1]")),
            (IN_TOTO, "", None),
            (IN_TOTO, "1", None),
            (IN_TOTO, "\"x\"", None),
            (IN_TOTO, "true", None),
            (signed, "{}", None),
            (signed, "{\"payload\": \"!\"}", None),
            (signed, "{\"payload\": 1}", None),
        ] {
            let said = predicate(media_type, text.as_bytes()).ok();
            assert_eq!(said.map(|value| value.to_string()).as_deref(), expected, "{text}");
        }
    }
}
