//! RUN.

use crate::csv;
use crate::error::{ParseError, ParseErrorKind};
use crate::instruction::flags::{FlagType, Flags};
use crate::instruction::mount::MountOptions;
use crate::instruction::{CommandLine, command_line};
use crate::parser::Node;
use crate::suggest;

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: CommandLine,
    /// `--mount`, each as written: their values are expanded when the stage is built.
    pub mounts: Vec<String>,
    /// `from=` of each mount, which may not hold variables; empty if absent.
    pub mount_sources: Vec<String>,
    /// `--network`.
    pub network: RunNetwork,
    /// `--security`.
    pub security: RunSecurity,
    /// `--device`, each.
    pub devices: Vec<Device>,
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunNetwork {
    /// The build's.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// `RUN --security`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunSecurity {
    /// Docker's default profile.
    #[default]
    Sandbox,
    /// Nothing taken away.
    Insecure,
}

/// A CDI device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// `vendor/class=device`.
    pub name: String,
    /// Its absence is an error.
    pub required: bool,
}

/// Something wrong with `--device`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// It cannot be cut at commas.
    #[error("failed to parse csv devices: {0}")]
    Csv(csv::CsvError),
    /// A field without `=` that cannot stand alone.
    #[error("invalid field '{0}' must be a key=value pair")]
    NoValue(String),
    /// Two names.
    #[error("device name already set to {0}")]
    SecondName(String),
    /// No boolean.
    #[error("invalid value for {key}: {value}")]
    Value {
        /// Option.
        key: String,
        /// Value.
        value: String,
    },
    /// An unknown option.
    #[error("unexpected key '{key}' in '{field}'{}", suggest::hint(.suggestion))]
    UnknownKey {
        /// Option.
        key: String,
        /// The field it stands in.
        field: String,
        /// Option that may be meant.
        suggestion: Option<String>,
    },
}

pub(super) fn run(node: &Node) -> Result<Run, ParseError> {
    let fail = |kind| ParseError::new(kind, node.span);
    let flags = Flags::parse(
        node,
        &[
            ("mount", FlagType::List),
            ("network", FlagType::Text),
            ("security", FlagType::Text),
            ("device", FlagType::List),
        ],
    )?;
    let mounts = flags.list("mount");
    let mut mount_sources = Vec::new();
    for mount in &mounts {
        let from = MountOptions::from_of(mount).map_err(|error| fail(ParseErrorKind::Mount(error)))?;
        mount_sources.push(from);
    }
    let network = match flags.text("network") {
        "" if !flags.has("network") => RunNetwork::Default,
        "default" => RunNetwork::Default,
        "none" => RunNetwork::None,
        "host" => RunNetwork::Host,
        other => return Err(fail(ParseErrorKind::NetworkMode(other.to_owned()))),
    };
    let security = match flags.text("security") {
        "" if !flags.has("security") => RunSecurity::Sandbox,
        "sandbox" => RunSecurity::Sandbox,
        "insecure" => RunSecurity::Insecure,
        other => return Err(fail(ParseErrorKind::SecurityMode(other.to_owned()))),
    };
    let devices: Result<_, _> = flags.list("device").iter().map(|text| device(text)).collect();
    let devices = devices.map_err(|error| fail(ParseErrorKind::Device(error)))?;
    let command = command_line(&node.arguments, &node.heredocs);
    Ok(Run {
        command,
        mounts,
        mount_sources,
        network,
        security,
        devices,
    })
}

fn device(text: &str) -> Result<Device, DeviceError> {
    let mut device = Device::default();
    for field in csv::fields(text).map_err(DeviceError::Csv)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None) => device.required = true,
            ("required", Some(value)) => {
                let bad = || DeviceError::Value {
                    key: key.clone(),
                    value: value.to_owned(),
                };
                device.required = csv::boolean(value).ok_or_else(bad)?;
            }
            ("name", Some(value)) if device.name.is_empty() => value.clone_into(&mut device.name),
            ("name", Some(_)) => return Err(DeviceError::SecondName(device.name)),
            _ if device.name.is_empty() => device.name = field,
            (_, None) => return Err(DeviceError::NoValue(field)),
            (_, Some(_)) => {
                let suggestion = suggest::nearest(&key, ["name", "required"], true);
                return Err(DeviceError::UnknownKey {
                    key,
                    field,
                    suggestion,
                });
            }
        }
    }
    Ok(device)
}
