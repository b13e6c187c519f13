//! What an answer's metadata says of a file system that is exported: its config, and that no time is after its epoch.

use std::collections::BTreeMap;

use rbuild_builder::build::common_history;
use rbuild_builder::export::{BuildResult, Subject};
use rbuild_builder::value::Chain;
use rbuild_oci::{ImageConfig, Platform, Timestamp};
use tonic::Status;

use crate::answer::{BASE_CONFIG, CONFIG, EPOCH};
use crate::errors::refused;

/// Metadata of an answer, or of an exporter's attributes.
pub(super) type Metadata = BTreeMap<String, Vec<u8>>;

/// `chain` with what `metadata` says of it; keys of one platform end in `suffix`.
pub(super) fn subject(
    metadata: &Metadata,
    suffix: &str,
    platform: Option<&Platform>,
    chain: Chain,
) -> Result<Subject, Status> {
    let config = image_config(metadata, CONFIG, suffix)?.unwrap_or_else(|| empty_config(platform));
    if platform.is_none() && config.os.is_empty() != config.architecture.is_empty() {
        return Err(Status::unknown(
            "invalid image config: os and architecture must be specified together",
        ));
    }
    let base_history =
        image_config(metadata, BASE_CONFIG, suffix)?.map_or(0, |base| common_history(&base, &config));
    Ok(Subject {
        chain,
        config,
        base_history,
        epoch: said_epoch(metadata, suffix)?,
    })
}

/// The config under `key`: that of the platform, or of all.
fn image_config(metadata: &Metadata, key: &str, suffix: &str) -> Result<Option<ImageConfig>, Status> {
    let of_platform = metadata.get(&format!("{key}{suffix}"));
    let bytes = of_platform.or_else(|| metadata.get(key));
    if bytes.is_some_and(|bytes| bytes.trim_ascii() == b"null") {
        return Err(Status::unknown("invalid null image config for export"));
    }
    let parsed = bytes.map(|bytes| ImageConfig::parse(bytes)).transpose();
    parsed.map_err(|error| Status::unknown(format!("invalid image config: {error}")))
}

/// `result` with what the exporter's own attributes say of it: they win over the front end
/// (`exporter/containerimage/export.go`, `Export`).
pub(super) fn with_metadata(mut result: BuildResult, metadata: &Metadata) -> Result<BuildResult, Status> {
    for part in &mut result.subjects {
        let suffix = format!("/{}", part.runs_on());
        if let Some(config) = image_config(metadata, CONFIG, &suffix)? {
            let base = image_config(metadata, BASE_CONFIG, &suffix)?;
            part.subject.base_history = base.map_or(0, |base| common_history(&base, &config));
            part.subject.config = config;
        }
        if let Some(epoch) = said_epoch(metadata, &suffix)? {
            part.subject.epoch = Some(epoch);
        }
    }
    Ok(result)
}

/// What the front end says that no time is after: for all platforms, or for this one.
fn said_epoch(metadata: &Metadata, suffix: &str) -> Result<Option<Timestamp>, Status> {
    let said = metadata.get(EPOCH);
    let Some(said) = said.or_else(|| metadata.get(&format!("{EPOCH}{suffix}"))) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(said);
    if text.is_empty() {
        return Ok(None);
    }
    let time = text
        .parse()
        .ok()
        .and_then(|seconds| Timestamp::from_unix(seconds, 0));
    let wrong = || refused(format!("invalid SOURCE_DATE_EPOCH from frontend: {text:?}"));
    time.map(Some).ok_or_else(wrong)
}

/// The config of an image that no front end described (`exporter/containerimage/writer.go`, `defaultImageConfig`).
fn empty_config(platform: Option<&Platform>) -> ImageConfig {
    let platform = platform.cloned().unwrap_or_else(Platform::host);
    let mut config = ImageConfig {
        os: platform.os,
        architecture: platform.architecture,
        variant: platform.variant.unwrap_or_default(),
        os_version: platform.os_version.unwrap_or_default(),
        os_features: platform.os_features,
        ..ImageConfig::default()
    };
    config.config.working_dir = "/".to_owned();
    // Windows has its own search path.
    if config.os != "windows" {
        config.config.env =
            vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(platform: Option<&Platform>) -> serde_json::Value {
        serde_json::to_value(empty_config(platform)).unwrap()
    }

    #[test]
    fn an_image_that_nobody_described_has_the_least_there_is() {
        let host = Platform::host();
        let config = json(None);
        assert_eq!(config["os"], host.os.as_str());
        assert_eq!(config["architecture"], host.architecture.as_str());
        assert_eq!(
            config["config"],
            serde_json::json!({
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "WorkingDir": "/",
            })
        );
        assert_eq!(config["rootfs"]["type"], "layers");
        let arm: Platform = "linux/arm/v7".parse().unwrap();
        let config = json(Some(&arm));
        assert_eq!(
            (&config["architecture"], &config["variant"]),
            (&"arm".into(), &"v7".into())
        );
        let windows: Platform = "windows/amd64".parse().unwrap();
        assert_eq!(
            json(Some(&windows))["config"],
            serde_json::json!({"WorkingDir": "/"})
        );
    }
}
