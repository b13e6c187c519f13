//! Where caches come from, and go.

use std::collections::BTreeMap;

use super::{Entry, EntryError, fields, pair, typed_json, typed_text};
use crate::printed::Printed;

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
        let read = Self::from_fields(attrs);
        Ok(vec![
            read.map_err(|_no_type| EntryError::NoType(text.to_owned()))?,
        ])
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

    fn to_json(&self) -> Printed {
        typed_json(&self.kind, &self.attrs).into()
    }

    fn to_text(&self) -> String {
        typed_text(&self.kind, &self.attrs)
    }
}
