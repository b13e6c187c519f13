//! Cache keys and what they are made of. A key is the digest of named ingredients, each framed by its length, so that
//! two different lists never meet in one digest. The ingredients are kept beside the record: the first one that
//! differs from an earlier record of the same step is the cause of a miss.

use std::fmt;

use rbuild_oci::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Name of a result in the cache.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub Digest);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One part of a key: what it is called and what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingredient {
    /// What a user would call it: `command`, `content of src/`, `base`.
    pub name: String,
    /// Its value, or the digest of a long one.
    pub value: String,
}

/// Collects ingredients.
#[derive(Debug, Clone, Default)]
pub struct KeyBuilder {
    ingredients: Vec<Ingredient>,
}

/// Changes whenever the meaning of any ingredient does: old records are then not found instead of wrong.
const KEY_VERSION: &[u8] = b"rbuild key 1\0";

impl KeyBuilder {
    /// Adds one.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.ingredients.push(Ingredient {
            name: name.into(),
            value: value.into(),
        });
    }

    /// The digest of all ingredients in order, and the ingredients.
    #[must_use]
    pub fn finish(self) -> (Key, Vec<Ingredient>) {
        let mut hasher = Sha256::new();
        hasher.update(KEY_VERSION);
        for Ingredient { name, value } in &self.ingredients {
            for part in [name, value] {
                hasher.update((part.len() as u64).to_le_bytes());
                hasher.update(part.as_bytes());
            }
        }
        (
            Key(Digest::from_sha256(hasher.finalize().into())),
            self.ingredients,
        )
    }
}

/// The first ingredient that differs between an earlier record and now, as one line for the user.
#[must_use]
pub(crate) fn first_difference(earlier: &[Ingredient], now: &[Ingredient]) -> Option<String> {
    for part in now {
        match earlier.iter().find(|old| old.name == part.name) {
            None => return Some(format!("{} is new", part.name)),
            Some(old) if old.value != part.value => return Some(format!("{} changed", part.name)),
            Some(_) => {}
        }
    }
    earlier
        .iter()
        .find(|old| !now.iter().any(|part| part.name == old.name))
        .map(|old| format!("{} is gone", old.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[(&str, &str)]) -> Key {
        let mut builder = KeyBuilder::default();
        for (name, value) in parts {
            builder.add(*name, *value);
        }
        builder.finish().0
    }

    #[test]
    fn row46_joined_and_shifted_ingredients_do_not_collide() {
        let all = [
            key(&[("a", "bc")]),
            key(&[("ab", "c")]),
            key(&[("a", "b"), ("c", "")]),
            key(&[("a", "b")]),
            key(&[("a", "b"), ("", "c")]),
            key(&[("a", "")]),
            key(&[]),
        ];
        for (i, left) in all.iter().enumerate() {
            for right in &all[i + 1..] {
                assert_ne!(left, right);
            }
        }
        assert_eq!(
            key(&[("a", "b")]),
            key(&[("a", "b")]),
            "equal ingredients are one key"
        );
    }

    #[test]
    fn the_first_difference_is_named() {
        let of = |parts: &[(&str, &str)]| -> Vec<Ingredient> {
            parts
                .iter()
                .map(|(n, v)| Ingredient {
                    name: (*n).into(),
                    value: (*v).into(),
                })
                .collect()
        };
        let old = of(&[("command", "make"), ("base", "1")]);
        assert_eq!(
            first_difference(&old, &of(&[("command", "make"), ("base", "2")])).unwrap(),
            "base changed"
        );
        assert_eq!(
            first_difference(&old, &of(&[("command", "make")])).unwrap(),
            "base is gone"
        );
        assert_eq!(
            first_difference(&old, &of(&[("command", "make"), ("base", "1"), ("X", "")])).unwrap(),
            "X is new"
        );
        assert_eq!(first_difference(&old, &old), None);
    }
}
