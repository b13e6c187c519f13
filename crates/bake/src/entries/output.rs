//! Where results go.

use std::collections::BTreeMap;

use super::{Entry, EntryError, fields, pair, typed_json, typed_text};
use crate::printed::Printed;

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
}

impl Entry for Output {
    fn from_text(text: &str) -> Result<Vec<Self>, EntryError> {
        let fields = fields(text)?;
        if fields.len() == 1 && fields[0] == text && !text.starts_with("type=") {
            let mut output = Self::of(if text == "-" { "tar" } else { "local" });
            output.attrs.insert("dest".to_owned(), text.to_owned());
            return Ok(vec![output]);
        }
        let mut attrs = BTreeMap::new();
        for field in &fields {
            let (key, value) = pair(field)?;
            attrs.insert(key.to_lowercase().trim().to_owned(), value.to_owned());
        }
        Ok(vec![Self::from_fields(attrs)?])
    }

    fn from_fields(mut attrs: BTreeMap<String, String>) -> Result<Self, EntryError> {
        let kind = attrs.remove("type").unwrap_or_default();
        if kind.is_empty() {
            return Err(EntryError::NoOutputType);
        }
        attrs.retain(|name, value| name != "dest" || !value.is_empty());
        Ok(Self { kind, attrs })
    }

    fn to_json(&self) -> Printed {
        typed_json(&self.kind, &self.attrs).into()
    }

    fn to_text(&self) -> String {
        typed_text(&self.kind, &self.attrs)
    }
}
