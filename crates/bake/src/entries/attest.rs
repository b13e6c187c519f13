//! What is attested of results.

use std::collections::BTreeMap;

use rbuild_dockerfile::csv::boolean;

use super::{Entry, EntryError, fields, last_of_each, pair, typed_json, typed_text};
use crate::printed::Printed;

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
            Some(text) => boolean(&text).ok_or_else(|| EntryError::Field(format!("disabled={text}")))?,
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
