//! `RUN --mount`: options, and which type takes which.

use crate::csv::{self, CsvError};
use crate::quote::quote;
use crate::shell::ExpandError;
use crate::suggest;

/// Kinds of mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MountType {
    /// A directory or file of the context, a stage or an image.
    #[default]
    Bind,
    /// A directory kept between builds.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret.
    Secret,
    /// The socket of an ssh agent.
    Ssh,
}

impl MountType {
    const ALL: [(&'static str, Self); 5] = [
        ("bind", Self::Bind),
        ("cache", Self::Cache),
        ("tmpfs", Self::Tmpfs),
        ("secret", Self::Secret),
        ("ssh", Self::Ssh),
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

impl std::fmt::Display for MountType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `sharing=` of a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Any number of users at once.
    Shared,
    /// One each.
    Private,
    /// One after the other.
    Locked,
}

const SHARINGS: [(&str, Sharing); 3] = [
    ("shared", Sharing::Shared),
    ("private", Sharing::Private),
    ("locked", Sharing::Locked),
];

/// Options of one mount.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountOptions {
    /// `type`.
    pub mount_type: MountType,
    /// `from`; empty if absent.
    pub from: String,
    /// `source`; empty if absent.
    pub source: String,
    /// `target`; empty if absent.
    pub target: String,
    /// No writing: as said, or as the type has it.
    pub readonly: bool,
    /// `size` in bytes, 0 for no limit.
    pub size_bytes: u64,
    /// `id`; empty if absent.
    pub id: String,
    /// `sharing`.
    pub sharing: Option<Sharing>,
    /// `required`.
    pub required: bool,
    /// `env`: variable that gets a secret.
    pub env: Option<String>,
    /// `mode`.
    pub mode: Option<u32>,
    /// `uid`.
    pub uid: Option<u32>,
    /// `gid`.
    pub gid: Option<u32>,
}

/// Something wrong with `--mount`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// It cannot be cut at commas.
    #[error("failed to parse csv mounts: {0}")]
    Csv(CsvError),
    /// A value cannot be expanded.
    #[error(transparent)]
    Expand(ExpandError),
    /// `from=$x`.
    #[error("'from' doesn't support variable expansion, define alias stage instead")]
    VariableInFrom,
    /// An option without a value.
    #[error("invalid field '{0}' must be a key=value pair")]
    NoValue(String),
    /// A type there is not.
    #[error("unsupported mount type {}{}", quote(.value), suggest::hint(.suggestion))]
    Type {
        /// As written.
        value: String,
        /// Type that may be meant.
        suggestion: Option<String>,
    },
    /// A sharing there is not.
    #[error("unsupported sharing value {}{}", quote(.value), suggest::hint(.suggestion))]
    Sharing {
        /// As written.
        value: String,
        /// Sharing that may be meant.
        suggestion: Option<String>,
    },
    /// A value that cannot be read.
    #[error("invalid value for {key}: {value}")]
    Value {
        /// Option.
        key: String,
        /// Value.
        value: String,
    },
    /// `mode`, `uid` or `gid` that is no number.
    #[error("invalid value {value} for {key}")]
    Number {
        /// Option.
        key: String,
        /// Value.
        value: String,
    },
    /// An option this type does not take.
    #[error("unexpected key '{key}' for mount type '{mount_type}'")]
    NotForType {
        /// Option.
        key: String,
        /// Type so far: the order of options matters.
        mount_type: MountType,
    },
    /// An option there is not.
    #[error("unexpected key '{key}' in '{field}'{}", suggest::hint(.suggestion))]
    UnknownKey {
        /// Option.
        key: String,
        /// The field it stands in.
        field: String,
        /// Option that may be meant.
        suggestion: Option<String>,
    },
    /// `mode`, `uid` or `gid` where nothing is made.
    #[error("{key} not allowed for {} type mounts", quote(.mount_type.as_str()))]
    OwnerNotAllowed {
        /// Option.
        key: &'static str,
        /// Type.
        mount_type: MountType,
    },
    /// A secret with `from`.
    #[error("secret mount should not have a from")]
    SecretFrom,
    /// A secret with `sharing`.
    #[error("secret mount should not define sharing")]
    SecretSharing,
    /// A secret without a name.
    #[error("invalid secret mount. one of source, target required")]
    SecretWithoutName,
    /// A secret with two names.
    #[error("both source and id can't be set")]
    SecretWithTwoNames,
    /// `sharing` on another type.
    #[error("invalid cache sharing set for {0} mount")]
    SharingNotAllowed(MountType),
}

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

impl MountOptions {
    /// Only `from=`: it is needed before variables are known, and so may hold none.
    pub(super) fn from_of(text: &str) -> Result<String, MountError> {
        let mut from = String::new();
        for field in csv::fields(text).map_err(MountError::Csv)? {
            if let Some((key, value)) = field.split_once('=')
                && key.eq_ignore_ascii_case("from")
            {
                if value.find('$').is_some_and(|at| at + 1 != value.len()) {
                    return Err(MountError::VariableInFrom);
                }
                value.clone_into(&mut from);
            }
        }
        Ok(from)
    }

    /// Reads `text`, each value through `expand`.
    ///
    /// # Errors
    /// [`MountError`], also for options the type does not take.
    pub fn parse(
        text: &str,
        expand: &mut dyn FnMut(&str) -> Result<String, ExpandError>,
    ) -> Result<Self, MountError> {
        let mut mount = Self::default();
        let mut readonly = None;
        for field in csv::fields(text).map_err(MountError::Csv)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (
                    key.to_lowercase(),
                    Some(expand(value).map_err(MountError::Expand)?),
                ),
                None => (field.to_lowercase(), None),
            };
            let Some(value) = value else {
                match key.as_str() {
                    "readonly" | "ro" => readonly = Some(true),
                    "readwrite" | "rw" => readonly = Some(false),
                    "required" => {
                        mount.takes_required(&key)?;
                        mount.required = true;
                    }
                    _ => return Err(MountError::NoValue(field)),
                }
                continue;
            };
            let boolean = || {
                csv::boolean(&value).ok_or_else(|| MountError::Value {
                    key: key.clone(),
                    value: value.clone(),
                })
            };
            match key.as_str() {
                "readonly" | "ro" => readonly = Some(boolean()?),
                "readwrite" | "rw" => readonly = Some(!boolean()?),
                "required" => {
                    mount.takes_required(&key)?;
                    mount.required = boolean()?;
                }
                _ => mount.set(key, value, field)?,
            }
        }
        let writable = matches!(mount.mount_type, MountType::Cache | MountType::Tmpfs);
        mount.readonly = readonly.unwrap_or(!writable);
        mount.check()?;
        Ok(mount)
    }

    /// Whether the type so far may be `required`; its value, if it has one, is looked at afterwards.
    fn takes_required(&self, key: &str) -> Result<(), MountError> {
        match self.mount_type {
            MountType::Secret | MountType::Ssh => Ok(()),
            mount_type => Err(MountError::NotForType {
                key: key.to_owned(),
                mount_type,
            }),
        }
    }

    fn set(&mut self, key: String, value: String, field: String) -> Result<(), MountError> {
        let number = |radix| match value.bytes().all(|b| b.is_ascii_digit()) {
            true => u32::from_str_radix(&value, radix).map_err(|_| MountError::Number {
                key: key.clone(),
                value: value.clone(),
            }),
            false => Err(MountError::Number {
                key: key.clone(),
                value: value.clone(),
            }),
        };
        match key.as_str() {
            "type" => {
                self.mount_type = named(&MountType::ALL, &value)
                    .map_err(|suggestion| MountError::Type { value, suggestion })?;
            }
            "sharing" => {
                let sharing = named(&SHARINGS, &value)
                    .map_err(|suggestion| MountError::Sharing { value, suggestion })?;
                self.sharing = Some(sharing);
            }
            "from" => self.from = value,
            "source" | "src" => self.source = value,
            "target" | "dst" | "destination" => self.target = value,
            "size" if self.mount_type == MountType::Tmpfs => {
                self.size_bytes = csv::bytes(&value).ok_or_else(|| MountError::Value {
                    key: key.clone(),
                    value: value.clone(),
                })?;
            }
            "size" => {
                return Err(MountError::NotForType {
                    key,
                    mount_type: self.mount_type,
                });
            }
            "id" => self.id = value,
            "mode" => self.mode = Some(number(8)?),
            "uid" => self.uid = Some(number(10)?),
            "gid" => self.gid = Some(number(10)?),
            "env" => self.env = Some(value),
            _ => {
                let suggestion = suggest::nearest(&key, KEYS, true);
                return Err(MountError::UnknownKey {
                    key,
                    field,
                    suggestion,
                });
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), MountError> {
        let mount_type = self.mount_type;
        if matches!(mount_type, MountType::Bind | MountType::Tmpfs) {
            let given = [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)];
            if let Some((key, _)) = given.into_iter().find(|(_, value)| value.is_some()) {
                return Err(MountError::OwnerNotAllowed { key, mount_type });
            }
        }
        if mount_type == MountType::Secret {
            if !self.from.is_empty() {
                return Err(MountError::SecretFrom);
            }
            if self.sharing.is_some() {
                return Err(MountError::SecretSharing);
            }
            if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
                return Err(MountError::SecretWithoutName);
            }
            if !self.source.is_empty() && !self.id.is_empty() {
                return Err(MountError::SecretWithTwoNames);
            }
        }
        if self.sharing.is_some() && mount_type != MountType::Cache {
            return Err(MountError::SharingNotAllowed(mount_type));
        }
        Ok(())
    }
}

/// The value of that name, or the name that may be meant.
fn named<T: Copy>(list: &[(&'static str, T)], value: &str) -> Result<T, Option<String>> {
    let lower = value.to_lowercase();
    match list.iter().find(|(name, _)| *name == lower) {
        Some((_, found)) => Ok(*found),
        None => Err(suggest::nearest(value, list.iter().map(|(name, _)| *name), true)),
    }
}
