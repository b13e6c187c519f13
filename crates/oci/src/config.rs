//! The image config: what runs, and how the image came to be (OCI image-spec, config.md, with Docker's additions).
//!
//! Reads what Go reads; keeps every field, known or not. Writes as BuildKit does: the top level sorted by key
//! (`exporter/containerimage/writer.go` patches a Go map), everything below in Go's struct order, compact.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::descriptor::null_is_default;
use crate::document::{DocumentError, check_case};
use crate::strict_json::{self, StrictJsonError};
use crate::{DiffId, Platform, Timestamp, go_json};

/// Largest image config read, in bytes.
pub const CONFIG_BYTES_MAX: usize = 16 << 20;

/// An image config. Fields are in the order they are written: sorted by JSON key.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct ImageConfig {
    /// CPU architecture, a `GOARCH` name.
    #[serde(default, deserialize_with = "null_is_default")]
    pub architecture: String,
    /// Who made the image.
    #[serde(default, deserialize_with = "null_is_default")]
    pub author: String,
    /// Defaults for containers of the image.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: ContainerConfig,
    /// When the image was made.
    #[serde(default)]
    pub created: Option<Timestamp>,
    /// How each layer was made, bottom first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub history: Vec<History>,
    /// Operating system, a `GOOS` name.
    #[serde(default, deserialize_with = "null_is_default")]
    pub os: String,
    /// Features needed of the operating system.
    #[serde(rename = "os.features", default, deserialize_with = "null_is_default")]
    pub os_features: Vec<String>,
    /// Version of the operating system.
    #[serde(rename = "os.version", default, deserialize_with = "null_is_default")]
    pub os_version: String,
    /// The layers' uncompressed digests.
    #[serde(default, deserialize_with = "null_is_default")]
    pub rootfs: RootFs,
    /// Variant of the architecture.
    #[serde(default, deserialize_with = "null_is_default")]
    pub variant: String,
    /// Fields this program does not know, such as `container` or `moby.buildkit.cache.v0`.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// The layers of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Digests of the uncompressed layers, bottom first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self {
            kind: "layers".to_owned(),
            diff_ids: Vec::new(),
        }
    }
}

/// One step of how an image was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// By which command.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub created_by: String,
    /// By whom.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub author: String,
    /// A remark; BuildKit writes `buildkit.dockerfile.v0`.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub comment: String,
    /// Whether the step made no layer.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_false"
    )]
    pub empty_layer: bool,
    /// Fields this program does not know.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// Defaults for containers (`config` of an image config). JSON fields are in Go's struct order: the OCI fields,
/// then Docker's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// `user[:group]` of the process; names or ids.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub user: String,
    /// Ports, as `80/tcp`.
    #[serde(default, with = "go_set", skip_serializing_if = "BTreeSet::is_empty")]
    pub exposed_ports: BTreeSet<String>,
    /// `KEY=value`, in order.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub entrypoint: Vec<String>,
    /// Default arguments, or program and arguments where there is no entry point.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub cmd: Vec<String>,
    /// Paths that hold data of a container.
    #[serde(default, with = "go_set", skip_serializing_if = "BTreeSet::is_empty")]
    pub volumes: BTreeSet<String>,
    /// Working directory of the process.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub working_dir: String,
    /// Free metadata.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the process to end.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub stop_signal: String,
    /// Docker: on Windows, the command is one escaped string; CMD sets it everywhere.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_false"
    )]
    pub args_escaped: bool,
    /// Docker: how to see whether a container is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Docker: instructions to run when the image is a base.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub on_build: Vec<String>,
    /// Docker: the shell of shell-form instructions; empty means the default one.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub shell: Vec<String>,
    /// Fields this program does not know, such as `Hostname` or `Image` of old Docker configs.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// Docker's health check. Zero means: inherited or default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// Empty (inherit), `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub test: Vec<String>,
    /// Time between checks, in nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// How long one check may take, in nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// How long after the start failures do not count, in nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between checks during the start period, in nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make a container unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// Why an image config is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Larger than [`CONFIG_BYTES_MAX`].
    #[error("image config has {size} bytes, at most {CONFIG_BYTES_MAX} are read")]
    TooLarge {
        /// Size in bytes.
        size: usize,
    },
    /// Not JSON, or JSON that can be read in two ways.
    #[error("image config is refused")]
    Json(#[from] StrictJsonError),
    /// A field has the wrong type or value.
    #[error("image config is malformed")]
    Malformed(#[from] serde_json::Error),
    /// A field name in another case, which Go reads as the field.
    #[error("image config is refused")]
    FieldCase(#[source] DocumentError),
    /// The config's layers are not the manifest's.
    #[error("image config has {config} layers, its manifest {manifest}")]
    LayerCount {
        /// Number of diff ids.
        config: usize,
        /// Number of layers.
        manifest: usize,
    },
}

impl ImageConfig {
    /// Reads a config.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        if bytes.len() > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLarge { size: bytes.len() });
        }
        strict_json::check(bytes)?;
        let config: Self = serde_json::from_slice(bytes)?;
        check_case(&config.extra, Self::FIELDS).map_err(ConfigError::FieldCase)?;
        check_case(&config.config.extra, ContainerConfig::FIELDS).map_err(ConfigError::FieldCase)?;
        Ok(config)
    }

    /// Compares the number of layers with the manifest's.
    ///
    /// # Errors
    /// [`ConfigError::LayerCount`].
    pub fn check_layers(&self, manifest_layers: usize) -> Result<(), ConfigError> {
        let config = self.rootfs.diff_ids.len();
        if config == manifest_layers {
            Ok(())
        } else {
            Err(ConfigError::LayerCount {
                config,
                manifest: manifest_layers,
            })
        }
    }

    /// What the image runs on, as the config says.
    #[must_use]
    pub fn platform(&self) -> Platform {
        let some = |text: &String| Some(text.clone()).filter(|t| !t.is_empty());
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            os_version: some(&self.os_version),
            os_features: self.os_features.clone(),
            variant: some(&self.variant),
        }
    }

    /// Sets the five fields that say what the image runs on.
    pub fn set_platform(&mut self, platform: &Platform) {
        self.architecture.clone_from(&platform.architecture);
        self.os.clone_from(&platform.os);
        self.os_version = platform.os_version.clone().unwrap_or_default();
        self.os_features.clone_from(&platform.os_features);
        self.variant = platform.variant.clone().unwrap_or_default();
    }

    /// Drops the fields this program does not know, as BuildKit's Dockerfile front end does with those of a base
    /// image (it reads the config into Go structs).
    pub fn drop_unknown(&mut self) {
        self.extra.clear();
        self.config.extra.clear();
        for entry in &mut self.history {
            entry.extra.clear();
        }
    }

    /// The bytes of the config as BuildKit writes them.
    ///
    /// # Panics
    /// Never: every part of a config is JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        go_json::to_vec(self).expect("an image config is JSON")
    }

    const FIELDS: &[&str] = &[
        "architecture",
        "author",
        "config",
        "created",
        "history",
        "os",
        "os.features",
        "os.version",
        "rootfs",
        "variant",
    ];
}

impl Serialize for ImageConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map: BTreeMap<&str, Field<'_>> = self
            .extra
            .iter()
            .map(|(key, value)| (key.as_str(), Field::Other(value)))
            .collect();
        map.insert("architecture", Field::Text(&self.architecture));
        map.insert("config", Field::Config(&self.config));
        map.insert("os", Field::Text(&self.os));
        map.insert("rootfs", Field::RootFs(&self.rootfs));
        for (key, text) in [
            ("author", &self.author),
            ("os.version", &self.os_version),
            ("variant", &self.variant),
        ] {
            if !text.is_empty() {
                map.insert(key, Field::Text(text));
            }
        }
        if let Some(created) = self.created {
            map.insert("created", Field::Time(created));
        }
        if !self.history.is_empty() {
            map.insert("history", Field::History(&self.history));
        }
        if !self.os_features.is_empty() {
            map.insert("os.features", Field::List(&self.os_features));
        }
        serializer.collect_map(map)
    }
}

/// A value of the config's top level, so that known and unknown ones sort together.
#[derive(Serialize)]
#[serde(untagged)]
enum Field<'a> {
    Text(&'a str),
    Time(Timestamp),
    List(&'a [String]),
    Config(&'a ContainerConfig),
    RootFs(&'a RootFs),
    History(&'a [History]),
    Other(&'a Value),
}

impl ContainerConfig {
    /// The value of a variable, the last one where it is set twice.
    #[must_use]
    pub fn env_value(&self, key: &str) -> Option<&str> {
        self.env
            .iter()
            .rev()
            .find_map(|entry| entry.split_once('=').filter(|(k, _)| *k == key))
            .map(|(_, v)| v)
    }

    const FIELDS: &[&str] = &[
        "User",
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "Volumes",
        "WorkingDir",
        "Labels",
        "StopSignal",
        "ArgsEscaped",
        "Healthcheck",
        "OnBuild",
        "Shell",
    ];
}

/// Go's `map[string]struct{}` as a set.
mod go_set {
    use super::{BTreeMap, BTreeSet, Deserialize, Deserializer, Serializer};
    use serde::Serialize;
    use serde::de::IgnoredAny;

    #[derive(Serialize)]
    struct Empty {}

    pub(super) fn serialize<S: Serializer>(set: &BTreeSet<String>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(set.iter().map(|key| (key, Empty {})))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeSet<String>, D::Error> {
        let map: Option<BTreeMap<String, IgnoredAny>> = Option::deserialize(deserializer)?;
        Ok(map.unwrap_or_default().into_keys().collect())
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A config with every field, as Go writes it.
    const FULL: &str = concat!(
        r#"{"architecture":"arm64","author":"A \u003ca@b\u003e","config":{"User":"1000:10","#,
        r#""ExposedPorts":{"443/tcp":{},"80/tcp":{}},"Env":["PATH=/bin","A=1=2"],"Entrypoint":["/e"],"#,
        r#""Cmd":["a","b"],"Volumes":{"/v":{}},"WorkingDir":"/w","Labels":{"a":"x\u0026y","b":""},"#,
        r#""StopSignal":"SIGINT","ArgsEscaped":true,"Healthcheck":{"Test":["CMD-SHELL","true"],"#,
        r#""Interval":30000000000,"Timeout":1,"StartPeriod":2,"StartInterval":3,"Retries":4},"#,
        r#""OnBuild":["RUN x"],"Shell":["/bin/bash","-c"],"Hostname":"h"},"#,
        r#""created":"2024-01-02T03:04:05.123456789Z","docker_version":"20","history":["#,
        r#"{"created":"2024-01-01T00:00:00Z","created_by":"RUN x","author":"me","comment":"c","empty_layer":true}],"#,
        r#""moby.buildkit.cache.v0":"e30=","os":"linux","os.features":["f"],"os.version":"1","rootfs":"#,
        r#"{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},"#,
        r#""variant":"v8"}"#
    );

    #[test]
    fn every_field_survives_byte_for_byte() {
        let config = ImageConfig::parse(FULL.as_bytes()).expect("a config");
        assert_eq!(String::from_utf8(config.to_bytes()).expect("utf-8"), FULL);
        assert_eq!(config.config.env_value("A"), Some("1=2"));
        assert_eq!(config.config.env_value("B"), None);
        assert_eq!(config.platform().to_string(), "linux(1+f)/arm64/v8");
        assert_eq!(config.config.healthcheck.as_ref().map(|h| h.retries), Some(4));
        assert!(config.config.exposed_ports.contains("80/tcp"));
    }

    #[test]
    fn a_number_of_an_unknown_field_is_the_same_when_it_is_written_and_read() {
        // Found by fuzzing: what was read was 7.777777777777776e+52, and 7.777777777777777e+52 the next time.
        let text = r#"{"x":{"size":77777777777777777777777771777777777777777777777777777}}"#;
        let config = ImageConfig::parse(text.as_bytes()).expect("a config");
        let again = ImageConfig::parse(&config.to_bytes()).expect("a config");
        assert_eq!(again, config);
    }

    #[test]
    fn unknown_fields_can_be_dropped_as_the_front_end_does() {
        let mut config = ImageConfig::parse(FULL.as_bytes()).expect("a config");
        config.drop_unknown();
        let text = String::from_utf8(config.to_bytes()).expect("utf-8");
        assert!(
            !text.contains("Hostname") && !text.contains("docker_version") && text.contains("Healthcheck")
        );
    }

    #[test]
    fn an_empty_config_has_gos_required_fields() {
        let config = ImageConfig::default();
        assert_eq!(
            String::from_utf8(config.to_bytes()).expect("utf-8"),
            r#"{"architecture":"","config":{},"os":"","rootfs":{"type":"layers","diff_ids":[]}}"#
        );
    }

    #[test]
    fn nulls_are_absent() {
        let text = r#"{"architecture":"amd64","os":"linux","created":null,"history":null,"config":{"Env":null,
            "Cmd":null,"Labels":null,"Volumes":null,"ExposedPorts":null,"OnBuild":null,"Healthcheck":null,
            "Entrypoint":null,"User":null,"Shell":null},"rootfs":{"type":"layers","diff_ids":null}}"#;
        let config = ImageConfig::parse(text.as_bytes()).expect("nulls are what docker writes");
        assert_eq!(config.config, ContainerConfig::default());
        assert!(ImageConfig::parse(br#"{"config":null}"#).is_ok());
    }

    #[test]
    fn row32_ambiguous_configs_are_refused() {
        for text in [
            r#"{"rootfs":{"diff_ids":[]},"rootfs":{"diff_ids":[]}}"#,
            r#"{"RootFS":{"type":"layers"}}"#,
            r#"{"config":{"env":["A=1"]}}"#,
            r#"{"rootfs":{"diff_ids":["sha256:../x"]}}"#,
            r#"{"created":"yesterday"}"#,
            "\u{1f}\u{8b}",
        ] {
            assert!(ImageConfig::parse(text.as_bytes()).is_err(), "{text}");
        }
        let spaces = vec![b' '; CONFIG_BYTES_MAX + 1];
        assert!(matches!(
            ImageConfig::parse(&spaces),
            Err(ConfigError::TooLarge { .. })
        ));
    }

    #[test]
    fn row32_layer_counts_must_agree() {
        let config = ImageConfig::parse(FULL.as_bytes()).expect("a config");
        config.check_layers(1).expect("one of each");
        for wrong in [0, 2] {
            assert!(matches!(
                config.check_layers(wrong),
                Err(ConfigError::LayerCount { config: 1, .. })
            ));
        }
    }
}
