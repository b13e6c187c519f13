//! The check that a JSON document can be read in one way only.
//!
//! Go's decoder takes the last of two equal keys and matches struct fields without regard to case; others take the
//! first, or match exactly. A document whose meaning depends on that is refused before anything of it is used
//! (GHSA-mc8v-mgrf-8f4m is this kind of mistake). Refuses duplicate keys at every level, keys that are equal but for
//! case where keys are field names, deep nesting, and text after the document.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Nesting allowed: an index is 5 deep, a config 4; unknown fields may nest a little more.
const DEPTH_MAX: usize = 32;

/// Objects whose keys are data, not field names, so that `A` and `a` are two entries.
const DATA_KEYS: [&str; 4] = ["annotations", "labels", "volumes", "exposedports"];

/// Why a JSON document is refused.
#[derive(Debug, thiserror::Error)]
#[error("document is not unambiguous JSON")]
pub struct StrictJsonError {
    #[from]
    source: serde_json::Error,
}

/// Checks the whole of `bytes`.
///
/// # Errors
/// [`StrictJsonError`] when it is not one JSON document, or could be read in two ways.
pub(crate) fn check(bytes: &[u8]) -> Result<(), StrictJsonError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    Node {
        depth: 0,
        keys: Keys::FieldNames,
    }
    .deserialize(&mut reader)?;
    reader.end()?;
    Ok(())
}

/// The name Go's decoder would match a key with: `foldName` of `encoding/json`, which also folds the two letters
/// outside ASCII whose simple folding is ASCII.
pub(crate) fn fold(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            'ſ' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

#[derive(Clone, Copy)]
enum Keys {
    FieldNames,
    Data,
}

#[derive(Clone, Copy)]
struct Node {
    depth: usize,
    keys: Keys,
}

impl Node {
    fn below<E: serde::de::Error>(self, keys: Keys) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(E::custom("nested too deeply"));
        }
        Ok(Self {
            depth: self.depth + 1,
            keys,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Node {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let below = self.below(self.keys)?;
        while seq.next_element_seed(below)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let folded = fold(&key);
            let keys = if DATA_KEYS.contains(&folded.as_str()) {
                Keys::Data
            } else {
                Keys::FieldNames
            };
            let below = self.below(keys)?;
            let name = match self.keys {
                Keys::FieldNames => folded,
                Keys::Data => key,
            };
            if seen.contains(&name) {
                return Err(A::Error::custom(format_args!("key {name:?} occurs twice")));
            }
            seen.insert(name);
            map.next_value_seed(below)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row32_duplicate_keys_are_refused_at_every_level() {
        for text in [
            r#"{"layers":[],"layers":[]}"#,
            r#"{"layers":[],"Layers":[]}"#,
            r#"{"config":{"digest":"a","digest":"b"}}"#,
            r#"{"layers":[{"digest":"a","dige\u0073t":"b"}]}"#,
            r#"{"layers":[{"digest":"a","digeſt":"b"}]}"#,
            r#"{"annotations":{"a":"1","a":"2"}}"#,
            r#"{"x":{"y":[{"z":1,"z":1}]}}"#,
            r#"{} {}"#,
            r#"{"a":}"#,
            "",
        ] {
            assert!(check(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn row32_legal_twin_keys_that_are_data_may_differ_by_case() {
        for text in [
            r#"{"annotations":{"a":"1","A":"2"},"layers":[{"digest":"a"},{"digest":"a"}]}"#,
            r#"{"config":{"Labels":{"x":"","X":""},"Volumes":{"/a":{},"/A":{}},"ExposedPorts":{}}}"#,
            "[1, -2, 3.5, null, true, \"x\"]\n",
        ] {
            check(text.as_bytes()).expect(text);
        }
    }

    #[test]
    fn row32_deep_nesting_is_refused() {
        let deep = format!("{}{}", "[".repeat(DEPTH_MAX + 1), "]".repeat(DEPTH_MAX + 1));
        assert!(check(deep.as_bytes()).is_err());
        let million = "[".repeat(1_000_000);
        assert!(check(million.as_bytes()).is_err());
        let legal = format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        check(legal.as_bytes()).expect("as deep as allowed");
    }
}
