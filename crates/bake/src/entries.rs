//! Attributes that are lists of options: outputs, caches, secrets, agents, attestations, limits. Each is a text as on buildx'
//! command line, or an object (buildx' `util/buildflags`).

mod attest;
mod cache;
mod output;
mod resources;
mod secret;
mod ssh;

use std::collections::BTreeMap;

pub use attest::Attest;
pub use cache::Cache;
pub use output::Output;
pub use resources::Resources;
pub use secret::Secret;
pub use ssh::Ssh;

use rbuild_dockerfile::csv::{CsvError, fields};

use crate::printed::Printed;
use crate::value::{Type, Value, convert};

/// Why a value is no option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// It is no list of values with commas in between.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// It is no `key=value`.
    #[error("invalid value {0}")]
    Field(String),
    /// A cache of no type.
    #[error("type required for {0:?}")]
    NoType(String),
    /// An output of no type.
    #[error("type is required for output")]
    NoOutputType,
    /// An attestation of no type.
    #[error("attestation type not specified")]
    NoAttestType,
    /// A secret of another kind than file or variable.
    #[error("unsupported secret type {0:?}")]
    SecretType(String),
    /// A key that a secret does not have.
    #[error("unexpected key '{key}' in '{field}'")]
    SecretKey {
        /// The key.
        key: String,
        /// The field it stands in.
        field: String,
    },
    /// A limit there is not.
    #[error("unknown resources key {0}")]
    ResourceKey(String),
    /// A limit that has to be a number.
    #[error("invalid value {value} for int64 key resources.{key}")]
    ResourceValue {
        /// The limit.
        key: String,
        /// Its value.
        value: String,
    },
    /// A value of another type.
    #[error("{0}")]
    Mismatch(String),
}

/// `key=value` as it stands in a list of them; what has neither comma nor quote is left as it is (buildx, `csvBuilder`).
fn quoted(key: &str, value: &str) -> String {
    let pair = format!("{key}={value}");
    if pair.contains([',', '"']) {
        rbuild_dockerfile::csv::field(&pair)
    } else {
        pair
    }
}

fn pair(field: &str) -> Result<(&str, &str), EntryError> {
    field
        .split_once('=')
        .ok_or_else(|| EntryError::Field(field.to_owned()))
}

/// What is read from a text or an object, and merged with others.
pub trait Entry: Sized + Clone + PartialEq {
    /// Reads a text; one of caches may be several.
    ///
    /// # Errors
    /// [`EntryError`].
    fn from_text(text: &str) -> Result<Vec<Self>, EntryError>;
    /// Reads an object whose fields are texts.
    ///
    /// # Errors
    /// [`EntryError`].
    fn from_fields(fields: BTreeMap<String, String>) -> Result<Self, EntryError>;
    /// Puts those together that are one: those that say the same, or as the kind has it.
    fn dedup(entries: Vec<Self>) -> Vec<Self> {
        without_twins(entries)
    }
    /// As JSON.
    fn to_json(&self) -> Printed;
    /// As on a command line.
    fn to_text(&self) -> String;
}

/// Reads a list of texts and objects.
pub(crate) fn read<E: Entry>(value: &Value) -> Result<Vec<E>, EntryError> {
    let mismatch = || EntryError::Mismatch("list of map of string required".to_owned());
    let mut entries = Vec::new();
    for element in value.elements().ok_or_else(mismatch)? {
        match element {
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => entries.extend(E::from_text(text)?),
            Value::Null(_) => {}
            other => {
                let mut texts = BTreeMap::new();
                for (name, value) in other.fields().ok_or_else(mismatch)? {
                    match flat(value)? {
                        Some(text) => texts.insert(name.clone(), text),
                        None => None,
                    };
                }
                entries.push(E::from_fields(texts)?);
            }
        }
    }
    Ok(entries)
}

/// A field as a text; of a list its texts with commas in between.
fn flat(value: &Value) -> Result<Option<String>, EntryError> {
    if let Some(values) = value.elements() {
        let texts = values.iter().map(flat).collect::<Result<Vec<_>, _>>()?;
        return Ok(Some(texts.into_iter().flatten().collect::<Vec<_>>().join(",")));
    }
    match convert(value, &Type::String).map_err(EntryError::Mismatch)? {
        Value::String(text) => Ok(Some(text)),
        _ => Ok(None),
    }
}

/// Reads texts, leaving out empty ones.
pub(crate) fn read_texts<E: Entry>(texts: &[String]) -> Result<Vec<E>, EntryError> {
    let read = texts
        .iter()
        .filter(|text| !text.is_empty())
        .map(|text| E::from_text(text));
    Ok(read
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect())
}

/// Removes what stands there twice. The order is that of buildx: the last takes the place of one that goes.
fn without_twins<E: PartialEq>(mut entries: Vec<E>) -> Vec<E> {
    for at in (0..entries.len().saturating_sub(1)).rev() {
        let twin = (at + 1..entries.len()).find(|&other| entries[at] == entries[other]);
        if let Some(twin) = twin {
            entries.swap_remove(twin);
        }
    }
    entries
}

/// Keeps the last of those with one name, at the place of the first.
fn last_of_each<E>(entries: Vec<E>, same: impl Fn(&E, &E) -> bool) -> Vec<E> {
    let mut kept: Vec<E> = Vec::new();
    for entry in entries {
        match kept.iter_mut().find(|known| same(known, &entry)) {
            Some(known) => *known = entry,
            None => kept.push(entry),
        }
    }
    kept
}

fn typed_json(kind: &str, attrs: &BTreeMap<String, String>) -> BTreeMap<String, Printed> {
    let mut fields: BTreeMap<String, Printed> = attrs
        .iter()
        .map(|(name, value)| (name.clone(), Printed::text(value)))
        .collect();
    fields.insert("type".to_owned(), Printed::text(kind));
    fields
}

fn typed_text(kind: &str, attrs: &BTreeMap<String, String>) -> String {
    let mut parts = vec![quoted("type", kind)];
    parts.extend(attrs.iter().map(|(name, value)| quoted(name, value)));
    parts.join(",")
}
