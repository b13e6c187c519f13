//! Names that become file names: checked when made. Refuses everything a path could misunderstand.

use std::fmt;

use rbuild_oci::{DiffId, Digest, push_hex};
use rbuild_sys::random_bytes;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not a name of the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not `sha256-` or `sha512-` and that hash in lower-case hex, nor `s-` and 32 characters of it.
    #[error("{0:?} is not a layer id")]
    LayerId(String),
    /// Not 1 to 64 of `a-z`, `0-9` and inner `-`.
    #[error("{0:?} is not a form name")]
    FormName(String),
    /// No name, over 512 bytes, or with control characters.
    #[error("{0:?} is not an image name")]
    ImageName(String),
}

/// Name of a layer directory: `sha256-<hex>` of the layer's diff id where that is known when the directory is made
/// (unpacked layers), `s-<32 hex>` with random digits where it is not (steps), `x-<32 hex>` where it is made on nothing
/// or of other layers and says all by itself (explicit layers): random digits, or those of a hash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(Box<str>);

impl LayerId {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`NameError::LayerId`] unless it is exactly one of the three forms.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let hex_of = |hex: &str, len: usize| {
            hex.len() == len && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let good = match text.split_once('-') {
            Some(("sha256", hex)) => hex_of(hex, 64),
            Some(("sha512", hex)) => hex_of(hex, 128),
            Some(("s" | "x", hex)) => hex_of(hex, 32),
            _ => false,
        };
        if good {
            Ok(Self(text.into()))
        } else {
            Err(NameError::LayerId(text.to_owned()))
        }
    }

    /// The id of the layer whose uncompressed tar has this digest.
    #[must_use]
    pub fn of_diff_id(diff_id: &DiffId) -> Self {
        Self(format!("{}-{}", diff_id.0.algorithm().name(), diff_id.0.hex()).into())
    }

    /// A new id for a layer that has no diff id yet.
    ///
    /// # Errors
    /// The kernel's, if it has no random numbers.
    pub fn random() -> std::io::Result<Self> {
        let mut text = String::from("s-");
        push_hex(&mut text, &random_bytes::<16>()?);
        Ok(Self(text.into()))
    }

    /// A new id for an explicit layer that has no diff id yet.
    ///
    /// # Errors
    /// The kernel's, if it has no random numbers.
    pub fn random_explicit() -> std::io::Result<Self> {
        let mut text = String::from("x-");
        push_hex(&mut text, &random_bytes::<16>()?);
        Ok(Self(text.into()))
    }

    /// The id of the explicit layer that is made in the way `recipe` says: a layer directory that hides with whiteouts
    /// alone and holds nothing that is as it is below, so that it means the same on whatever it is stacked.
    #[must_use]
    pub fn explicit(recipe: &str) -> Self {
        let digest = Digest::sha256(recipe.as_bytes());
        Self(format!("x-{}", &digest.hex()[..32]).into())
    }

    /// Whether the name says that the layer is explicit. What was pulled is: its archive means the same wherever it is
    /// unpacked. Others may be, too.
    #[must_use]
    pub fn is_explicit(&self) -> bool {
        self.0.starts_with("x-") || self.diff_id().is_some()
    }

    /// The diff id in the name, for layers that are named by it.
    #[must_use]
    pub fn diff_id(&self) -> Option<DiffId> {
        let (algorithm, hex) = self.0.split_once('-')?;
        Digest::parse(&format!("{algorithm}:{hex}")).ok().map(DiffId)
    }

    /// The text, safe as a file name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Name of the way layer directories keep owners and whiteouts: `root`, `sub-<first id>`, … given by whoever knows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FormName(Box<str>);

impl FormName {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`NameError::FormName`] unless it is 1 to 64 of `a-z`, `0-9` and inner `-`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let good = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'z' | b'-'))
            && !text.starts_with('-')
            && !text.ends_with('-');
        if good {
            Ok(Self(text.into()))
        } else {
            Err(NameError::FormName(text.to_owned()))
        }
    }

    /// The text, safe as a file name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// 32 random hex characters.
pub(crate) fn random_name() -> std::io::Result<String> {
    let mut text = String::with_capacity(32);
    push_hex(&mut text, &random_bytes::<16>()?);
    Ok(text)
}

macro_rules! text_name {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }

        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::from(self.as_str()))
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                Self::parse(value.as_str()?).map_err(|e| FromSqlError::Other(Box::new(e)))
            }
        }
    };
}

text_name!(LayerId);
text_name!(FormName);

/// A digest in a column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct DigestColumn(pub(crate) Digest);

impl FromSql for DigestColumn {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Digest::parse(value.as_str()?)
            .map(Self)
            .map_err(|e| FromSqlError::Other(Box::new(e)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row31_layer_ids_that_could_leave_the_directory_are_refused() {
        let hex = "a".repeat(64);
        for bad in [
            "",
            ".",
            "..",
            "s-",
            "s-../../../../canary",
            "sha256-../../x",
            &format!("sha256-{}", "a".repeat(63)),
            &format!("sha256-{}", "A".repeat(64)),
            &format!("sha256:{hex}"),
            &format!("sha256-{hex}/"),
            &format!("s-{}\n", "a".repeat(31)),
            &format!("md5-{}", "a".repeat(32)),
        ] {
            assert_eq!(LayerId::parse(bad), Err(NameError::LayerId(bad.to_owned())));
        }
        let named = LayerId::parse(&format!("sha256-{hex}")).unwrap();
        assert_eq!(named.diff_id().unwrap().0.hex(), hex);
        assert_eq!(LayerId::of_diff_id(&named.diff_id().unwrap()), named);
        let random = LayerId::random().unwrap();
        assert_eq!(LayerId::parse(random.as_str()), Ok(random.clone()));
        assert_eq!(random.diff_id(), None);
        assert_ne!(LayerId::random().unwrap(), random);
        assert!(named.is_explicit() && !random.is_explicit());
        for explicit in [LayerId::explicit("a over b"), LayerId::random_explicit().unwrap()] {
            assert_eq!(LayerId::parse(explicit.as_str()), Ok(explicit.clone()));
            assert!(explicit.is_explicit() && explicit.diff_id().is_none());
        }
        assert_eq!(LayerId::explicit("a"), LayerId::explicit("a"));
        assert_ne!(LayerId::explicit("a"), LayerId::explicit("b"));
    }

    #[test]
    fn form_names_are_plain_words() {
        for bad in ["", ".", "..", "a/b", "-a", "a-", "A", "a_b", &"a".repeat(65)] {
            assert_eq!(FormName::parse(bad), Err(NameError::FormName(bad.to_owned())));
        }
        for good in ["root", "sub-100000", "one"] {
            assert_eq!(FormName::parse(good).unwrap().as_str(), good);
        }
    }
}
