//! `attest:…` and `build-arg:BUILDKIT_ATTEST_…` (`frontend/attestations/parse.go`, `control/control.go`). They hold
//! for every solve, whatever its front end.

use std::collections::BTreeMap;

use rbuild_dockerfile::csv::{self, CsvError};
use rbuild_oci::{Reference, ReferenceError};

/// Image that scans for packages if none is named.
pub(crate) const DEFAULT_SBOM_GENERATOR: &str = "docker/buildkit-syft-scanner:stable-1";

/// Attestations to make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attestations {
    /// List of packages.
    pub sbom: Option<Sbom>,
    /// How the result was made.
    pub provenance: Option<Provenance>,
}

/// A list of packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sbom {
    /// Image that makes it.
    pub generator: Reference,
    /// Parameters of the generator.
    pub parameters: BTreeMap<String, String>,
}

/// How the result was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// SLSA version.
    pub version: SlsaVersion,
    /// `mode`, `reproducible`, `inline-only`, `disabled` and such, as written.
    pub parameters: BTreeMap<String, String>,
}

/// Versions of the SLSA provenance predicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlsaVersion {
    /// `v1`.
    #[default]
    V1,
    /// `v0.2`.
    V02,
}

/// Why attestations are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    /// No such attestation.
    #[error("unknown attestation type {0:?}")]
    Kind(String),
    /// A value that cannot be cut.
    #[error("failed to parse {kind}")]
    Csv {
        /// Which attestation.
        kind: String,
        /// Why.
        #[source]
        source: CsvError,
    },
    /// A generator without a name.
    #[error("sbom generator cannot be empty")]
    NoGenerator,
    /// A generator that is no image.
    #[error("failed to parse sbom generator {text}")]
    Generator {
        /// As written.
        text: String,
        /// Why.
        #[source]
        source: ReferenceError,
    },
    /// No version.
    #[error("provenance SLSA version cannot be empty")]
    NoSlsaVersion,
    /// No such version.
    #[error("invalid provenance SLSA version: {0}")]
    SlsaVersion(String),
}

/// Reads the attestations that `attrs` ask for. Where both spellings ask for one, `attest:` holds.
///
/// # Errors
/// [`AttestationError`].
pub fn parse(attrs: &BTreeMap<String, String>) -> Result<Attestations, AttestationError> {
    let mut asked: BTreeMap<String, &str> = BTreeMap::new();
    for prefix in ["build-arg:BUILDKIT_ATTEST_", "attest:"] {
        for (key, value) in attrs {
            if let Some(kind) = key.strip_prefix(prefix) {
                asked.insert(kind.to_lowercase(), value);
            }
        }
    }
    let mut found = Attestations::default();
    for (kind, value) in asked {
        let parameters = parameters(&kind, value)?;
        match kind.as_str() {
            "sbom" => found.sbom = Some(sbom(parameters)?),
            "provenance" => found.provenance = Some(provenance(parameters)?),
            _ => return Err(AttestationError::Kind(kind)),
        }
    }
    Ok(found)
}

fn parameters(kind: &str, value: &str) -> Result<BTreeMap<String, String>, AttestationError> {
    if value.is_empty() {
        return Ok(BTreeMap::new());
    }
    let fields = csv::fields(value).map_err(|source| AttestationError::Csv {
        kind: kind.to_owned(),
        source,
    })?;
    let pair = |field: String| match field.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (field, String::new()),
    };
    Ok(fields.into_iter().map(pair).collect())
}

fn sbom(mut parameters: BTreeMap<String, String>) -> Result<Sbom, AttestationError> {
    let text = parameters
        .remove("generator")
        .unwrap_or_else(|| DEFAULT_SBOM_GENERATOR.to_owned());
    if text.is_empty() {
        return Err(AttestationError::NoGenerator);
    }
    match Reference::parse(&text) {
        Ok(generator) => Ok(Sbom {
            generator: generator.or_latest(),
            parameters,
        }),
        Err(source) => Err(AttestationError::Generator { text, source }),
    }
}

fn provenance(mut parameters: BTreeMap<String, String>) -> Result<Provenance, AttestationError> {
    let version = match parameters.remove("version").as_deref() {
        None | Some("v1") => SlsaVersion::V1,
        Some("v0.2") => SlsaVersion::V02,
        Some("") => return Err(AttestationError::NoSlsaVersion),
        Some(other) => return Err(AttestationError::SlsaVersion(other.to_owned())),
    };
    Ok(Provenance { version, parameters })
}
