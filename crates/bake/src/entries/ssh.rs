//! SSH agents of steps.

use std::collections::BTreeMap;

use super::{Entry, EntryError, last_of_each};
use crate::printed::Printed;

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
