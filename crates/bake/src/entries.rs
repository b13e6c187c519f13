//! Attributes that are lists of options: outputs, caches, secrets, agents, attestations, limits. Each is a text as on buildx'
//! command line, or an object (buildx' `util/buildflags`).

use std::collections::BTreeMap;

use crate::printed::Printed;
use crate::value::{Type, Value, convert};

/// Why a value is no option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// It is no list of values with commas in between.
    #[error("invalid value {0:?}: a quote is not closed")]
    Csv(String),
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

/// The values of a line with commas in between, quoted where they hold one.
pub(crate) fn fields(text: &str) -> Result<Vec<String>, EntryError> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        let mut field = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next() {
                    Some('"') if chars.next_if_eq(&'"').is_some() => field.push('"'),
                    Some('"') => break,
                    Some(next) => field.push(next),
                    None => return Err(EntryError::Csv(text.to_owned())),
                }
            }
        }
        while let Some(next) = chars.next_if(|next| *next != ',') {
            field.push(next);
        }
        found.push(field);
        if chars.next().is_none() {
            return Ok(found);
        }
    }
}

/// `key=value` as it stands in a list of them.
fn quoted(key: &str, value: &str) -> String {
    let pair = format!("{key}={value}");
    if pair.contains([',', '"']) {
        format!("\"{}\"", pair.replace('"', "\"\""))
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
    /// Puts those together that are one.
    fn dedup(entries: Vec<Self>) -> Vec<Self>;
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

/// Where a result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// `image`, `local`, ….
    pub kind: String,
    /// What else is said of it, its destination (`dest`) included.
    pub attrs: BTreeMap<String, String>,
}

impl Output {
    /// An output of which no more is said.
    pub(crate) fn of(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            attrs: BTreeMap::new(),
        }
    }

    fn checked(mut self) -> Result<Self, EntryError> {
        if self.kind.is_empty() {
            return Err(EntryError::NoOutputType);
        }
        self.attrs
            .retain(|name, value| name != "dest" || !value.is_empty());
        Ok(self)
    }
}

impl Entry for Output {
    fn from_text(text: &str) -> Result<Vec<Self>, EntryError> {
        let fields = fields(text)?;
        if fields.len() == 1 && fields[0] == text && !text.starts_with("type=") {
            let mut output = Self::of(if text == "-" { "tar" } else { "local" });
            output.attrs.insert("dest".to_owned(), text.to_owned());
            return Ok(vec![output]);
        }
        let mut output = Self::of("");
        for field in &fields {
            let (key, value) = pair(field)?;
            match key.to_lowercase().trim() {
                "type" => value.clone_into(&mut output.kind),
                key => {
                    output.attrs.insert(key.to_owned(), value.to_owned());
                }
            }
        }
        Ok(vec![output.checked()?])
    }

    fn from_fields(mut attrs: BTreeMap<String, String>) -> Result<Self, EntryError> {
        let kind = attrs.remove("type").unwrap_or_default();
        Self { kind, attrs }.checked()
    }

    fn dedup(entries: Vec<Self>) -> Vec<Self> {
        without_twins(entries)
    }

    fn to_json(&self) -> Printed {
        typed_json(&self.kind, &self.attrs).into()
    }

    fn to_text(&self) -> String {
        typed_text(&self.kind, &self.attrs)
    }
}

/// Where a cache comes from, or goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// `registry`, `local`, ….
    pub kind: String,
    /// What else is said of it.
    pub attrs: BTreeMap<String, String>,
}

impl Entry for Cache {
    fn from_text(text: &str) -> Result<Vec<Self>, EntryError> {
        let fields = fields(text)?;
        let reference = |field: &String| Self {
            kind: "registry".to_owned(),
            attrs: BTreeMap::from([("ref".to_owned(), field.clone())]),
        };
        if !text.contains('=') {
            return Ok(fields.iter().map(reference).collect());
        }
        let mut attrs = BTreeMap::new();
        for field in &fields {
            let (key, value) = pair(field)?;
            attrs.insert(key.to_lowercase(), value.to_owned());
        }
        let kind = attrs.remove("type").unwrap_or_default();
        if kind.is_empty() {
            return Err(EntryError::NoType(text.to_owned()));
        }
        Ok(vec![Self { kind, attrs }])
    }

    fn from_fields(mut attrs: BTreeMap<String, String>) -> Result<Self, EntryError> {
        match attrs.remove("type").filter(|kind| !kind.is_empty()) {
            Some(kind) => Ok(Self { kind, attrs }),
            None => {
                let json = serde_json::to_string(&attrs).unwrap_or_default();
                Err(EntryError::NoType(json))
            }
        }
    }

    fn dedup(entries: Vec<Self>) -> Vec<Self> {
        without_twins(entries)
    }

    fn to_json(&self) -> Printed {
        typed_json(&self.kind, &self.attrs).into()
    }

    fn to_text(&self) -> String {
        typed_text(&self.kind, &self.attrs)
    }
}

/// A secret of steps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Secret {
    /// Its name.
    pub id: String,
    /// File it is in.
    pub src: String,
    /// Variable it is in.
    pub env: String,
}

impl Entry for Secret {
    fn from_text(text: &str) -> Result<Vec<Self>, EntryError> {
        let mut secret = Self::default();
        let mut kind = String::new();
        for field in fields(text)? {
            let (key, value) = pair(&field)?;
            let value = value.to_owned();
            match key.to_lowercase().as_str() {
                "type" if value != "file" && value != "env" => return Err(EntryError::SecretType(value)),
                "type" => kind = value,
                "id" => secret.id = value,
                "source" | "src" => secret.src = value,
                "env" => secret.env = value,
                key => {
                    let key = key.to_owned();
                    return Err(EntryError::SecretKey { key, field });
                }
            }
        }
        if kind == "env" && secret.env.is_empty() {
            secret.env = std::mem::take(&mut secret.src);
        }
        Ok(vec![secret])
    }

    fn from_fields(mut fields: BTreeMap<String, String>) -> Result<Self, EntryError> {
        let mut take = |name| fields.remove(name).unwrap_or_default();
        Ok(Self {
            id: take("id"),
            src: take("src"),
            env: take("env"),
        })
    }

    fn dedup(entries: Vec<Self>) -> Vec<Self> {
        last_of_each(entries, |one, other| one.id == other.id)
    }

    fn to_json(&self) -> Printed {
        let fields = [("id", &self.id), ("src", &self.src), ("env", &self.env)];
        let filled = fields.into_iter().filter(|(_, value)| !value.is_empty());
        Printed::Fields(
            filled
                .map(|(name, value)| (name.to_owned(), Printed::text(value)))
                .collect(),
        )
    }

    fn to_text(&self) -> String {
        let fields = [("id", &self.id), ("src", &self.src), ("env", &self.env)];
        let filled = fields.into_iter().filter(|(_, value)| !value.is_empty());
        filled
            .map(|(name, value)| quoted(name, value))
            .collect::<Vec<_>>()
            .join(",")
    }
}

/// An SSH agent of steps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ssh {
    /// Its name.
    pub id: String,
    /// Its socket, or keys.
    pub paths: Vec<String>,
}

impl Entry for Ssh {
    fn from_text(text: &str) -> Result<Vec<Self>, EntryError> {
        let (id, paths) = text
            .split_once('=')
            .map_or((text, None), |(id, paths)| (id, Some(paths)));
        let paths = paths.map(|paths| paths.split(',').map(str::to_owned).collect());
        Ok(vec![Self {
            id: id.to_owned(),
            paths: paths.unwrap_or_default(),
        }])
    }

    fn from_fields(mut fields: BTreeMap<String, String>) -> Result<Self, EntryError> {
        let paths = fields.remove("paths").filter(|paths| !paths.is_empty());
        Ok(Self {
            id: fields.remove("id").unwrap_or_default(),
            paths: paths
                .map(|paths| paths.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
        })
    }

    fn dedup(entries: Vec<Self>) -> Vec<Self> {
        last_of_each(entries, |one, other| one.id == other.id)
    }

    fn to_json(&self) -> Printed {
        let mut fields = Vec::new();
        if !self.id.is_empty() {
            fields.push(("id".to_owned(), Printed::text(&self.id)));
        }
        if !self.paths.is_empty() {
            fields.push(("paths".to_owned(), Printed::texts(&self.paths)));
        }
        Printed::Fields(fields)
    }

    fn to_text(&self) -> String {
        if self.paths.is_empty() {
            return self.id.clone();
        }
        format!("{}={}", self.id, self.paths.join(","))
    }
}

/// What is attested of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attest {
    /// `provenance`, `sbom`.
    pub kind: String,
    /// It is not.
    pub disabled: bool,
    /// What else is said of it.
    pub attrs: BTreeMap<String, String>,
}

impl Entry for Attest {
    fn from_text(text: &str) -> Result<Vec<Self>, EntryError> {
        let mut attrs = BTreeMap::new();
        for field in fields(text)? {
            let (key, value) = pair(&field)?;
            let lower = key.to_lowercase();
            let key = match lower.trim() {
                known @ ("type" | "disabled") => known,
                _ => key,
            };
            attrs.insert(key.to_owned(), value.to_owned());
        }
        if attrs.get("type").is_none_or(String::is_empty) {
            return Err(EntryError::NoAttestType);
        }
        Ok(vec![Self::from_fields(attrs)?])
    }

    fn from_fields(mut attrs: BTreeMap<String, String>) -> Result<Self, EntryError> {
        let disabled = match attrs.remove("disabled") {
            None => false,
            Some(text) => truth(&text).ok_or_else(|| EntryError::Field(format!("disabled={text}")))?,
        };
        let kind = attrs.remove("type").unwrap_or_default();
        Ok(Self {
            kind,
            disabled,
            attrs,
        })
    }

    fn dedup(entries: Vec<Self>) -> Vec<Self> {
        last_of_each(entries, |one, other| one.kind == other.kind)
    }

    fn to_json(&self) -> Printed {
        let mut fields = typed_json(&self.kind, &self.attrs);
        if self.disabled {
            fields.insert("disabled".to_owned(), Printed::Bare("true".to_owned()));
        }
        fields.into()
    }

    fn to_text(&self) -> String {
        let mut text = typed_text(&self.kind, &self.attrs);
        if self.disabled {
            text.push_str(",disabled=true");
        }
        text
    }
}

/// A truth value as Go's `strconv` reads it.
#[must_use]
pub fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Limits of steps, in the order in which they are printed; those behind are numbers.
const RESOURCES: [(&str, bool); 7] = [
    ("memory", false),
    ("memory-swap", false),
    ("cpu-shares", true),
    ("cpu-period", true),
    ("cpu-quota", true),
    ("cpuset-cpus", false),
    ("cpuset-mems", false),
];

/// Limits of steps, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources(pub BTreeMap<String, String>);

impl Resources {
    /// Sets one.
    ///
    /// # Errors
    /// [`EntryError::ResourceKey`], [`EntryError::ResourceValue`].
    pub(crate) fn set(&mut self, key: &str, value: String) -> Result<(), EntryError> {
        let Some((_, is_number)) = RESOURCES.iter().find(|(known, _)| *known == key) else {
            return Err(EntryError::ResourceKey(key.to_owned()));
        };
        if *is_number && value.parse::<i64>().is_err() {
            return Err(EntryError::ResourceValue {
                key: key.to_owned(),
                value,
            });
        }
        self.0.insert(key.to_owned(), value);
        Ok(())
    }

    pub(crate) fn read(value: &Value) -> Result<Self, EntryError> {
        let mut read = Self::default();
        let fields = value
            .fields()
            .ok_or_else(|| EntryError::Mismatch("object required".to_owned()))?;
        for (name, value) in fields {
            if let Some(text) = flat(value)? {
                read.set(name, text)?;
            }
        }
        Ok(read)
    }

    pub(crate) fn to_json(&self) -> Printed {
        let field = |(name, is_number): (&str, bool)| {
            let value = self.0.get(name)?;
            let number = value.parse::<i64>().ok().filter(|_| is_number);
            let printed = number.map_or_else(
                || Printed::text(value),
                |number| Printed::Bare(number.to_string()),
            );
            Some((name.to_owned(), printed))
        };
        Printed::Fields(RESOURCES.into_iter().filter_map(field).collect())
    }
}
