//! What a client may count on: the capabilities of the gateway and of build definitions, named as BuildKit names them
//! (`frontend/gateway/pb/caps.go`, `solver/pb/caps.go`). What the engine does not do is marked as disabled.

use bollard_buildkit_proto::moby::buildkit::v1::apicaps::ApiCap;
use rbuild_llb::caps::{CapError, Disabled, advertise, check};

/// Of the gateway.
const GATEWAY: [&str; 26] = [
    "solve.base",
    "solve.inlinereturn",
    "resolveimage",
    "resolveimage.resolvemode",
    "readfile",
    "return",
    "returnmap",
    "readdir",
    "statfile",
    "importcaches",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "gateway.solve.metadata",
    "frontend.caps",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
    "reference.attestations",
    "source.metaresolver",
    "gateway.exec",
    "source.metaresolver.image.attestations",
    "gateway.exec.extrahosts",
    "gateway.exec.secretenv",
    "gateway.exec.signals",
    "gateway.exec.filesystem",
];

/// Of build definitions, those that the engine does not have.
const MISSING: &[Disabled] = &[
    off("exec.meta.security.devices.v1"),
    off("exporter.session"),
    off("source.git.signatureverify"),
    off("source.http.signatureverify"),
];

const fn off(name: &'static str) -> Disabled {
    Disabled {
        name,
        reason: "rbuild does not have it yet",
    }
}

/// The gateway's capabilities.
#[must_use]
pub fn gateway() -> Vec<ApiCap> {
    let enabled = |id: &&str| ApiCap {
        id: (*id).to_owned(),
        enabled: true,
        ..ApiCap::default()
    };
    GATEWAY.iter().map(enabled).collect()
}

/// Those of build definitions.
#[must_use]
pub fn definition() -> Vec<ApiCap> {
    advertise(MISSING)
}

/// Whether everything a definition needs is here.
///
/// # Errors
/// [`CapError`] for the first that is not.
pub(crate) fn check_definition<'a>(needed: impl IntoIterator<Item = &'a str>) -> Result<(), CapError> {
    check(needed, MISSING)
}
