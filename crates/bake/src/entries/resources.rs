//! Limits of steps.

use std::collections::BTreeMap;

use super::{EntryError, flat};
use crate::printed::Printed;
use crate::value::Value;

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
