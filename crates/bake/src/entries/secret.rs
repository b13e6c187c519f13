//! Secrets of steps.

use std::collections::BTreeMap;

use super::{Entry, EntryError, fields, last_of_each, pair, quoted};
use crate::printed::Printed;

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
