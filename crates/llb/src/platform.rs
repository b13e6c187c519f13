//! Platforms between our form and BuildKit's, in which what is not said is an empty text.

use bollard_buildkit_proto::pb;
use rbuild_oci::Platform;

/// A platform as the API has it.
#[must_use]
pub fn encode_platform(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone().unwrap_or_default(),
        os_version: platform.os_version.clone().unwrap_or_default(),
        os_features: platform.os_features.clone(),
    }
}

/// A platform as the client wrote it: what is the normal form is asked where platforms are compared.
#[must_use]
pub fn decode_platform(platform: &pb::Platform) -> Platform {
    let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: given(&platform.os_version),
        os_features: platform.os_features.clone(),
        variant: given(&platform.variant),
    }
}
