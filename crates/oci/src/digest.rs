//! Content digests and the identifiers made from them. Owns their syntax; refuses to hold text that was not checked.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};

/// A content digest such as `sha256:9f86…`, checked when made (OCI image-spec, descriptor.md, "Digests").
///
/// There is no conversion from unchecked text: a `Digest` is safe to use as a file name and in a URL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    text: Box<str>,
    algorithm: Algorithm,
}

/// The algorithms the image spec registers and this program verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, 64 hex characters.
    Sha256,
    /// SHA-512, 128 hex characters.
    Sha512,
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no `:` between algorithm and hash.
    #[error("digest has no algorithm")]
    NoAlgorithm,
    /// The algorithm is not one this program verifies.
    #[error("digest algorithm is not sha256 or sha512")]
    UnknownAlgorithm,
    /// The algorithm's name has characters that no algorithm has.
    #[error("digest algorithm is no name")]
    BadAlgorithm,
    /// The hash has another length than its algorithm makes.
    #[error("digest has {found} hex characters, {expected} are needed")]
    WrongLength {
        /// Characters found after the colon.
        found: usize,
        /// Characters the algorithm makes.
        expected: usize,
    },
    /// The hash holds something else than lower-case hex.
    #[error("digest is not lower-case hex")]
    NotHex,
}

impl DigestError {
    /// The words that Docker's library has for it, without numbers.
    #[must_use]
    pub const fn in_docker_words(&self) -> &'static str {
        match self {
            Self::NoAlgorithm | Self::BadAlgorithm | Self::NotHex | Self::WrongLength { found: 0, .. } => {
                "invalid checksum digest format"
            }
            Self::WrongLength { .. } => "invalid checksum digest length",
            Self::UnknownAlgorithm => "unsupported digest algorithm",
        }
    }
}

impl Algorithm {
    /// The name before the colon.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The digest of `bytes`.
    #[must_use]
    pub fn digest(self, bytes: &[u8]) -> Digest {
        match self {
            Self::Sha256 => Digest::sha256(bytes),
            Self::Sha512 => Digest::from_sha512(&Sha512::digest(bytes).into()),
        }
    }

    const fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl Digest {
    /// Checks `text` and makes a digest of it.
    ///
    /// # Errors
    /// [`DigestError`] when it is not exactly `algorithm:lower-case-hex` of a known algorithm.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let (name, hex) = text.split_once(':').ok_or(DigestError::NoAlgorithm)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ if !is_algorithm(name) => return Err(DigestError::BadAlgorithm),
            _ => return Err(DigestError::UnknownAlgorithm),
        };
        if hex.len() != algorithm.hex_len() {
            return Err(DigestError::WrongLength {
                found: hex.len(),
                expected: algorithm.hex_len(),
            });
        }
        if !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::NotHex);
        }
        Ok(Self {
            text: text.into(),
            algorithm,
        })
    }

    /// The SHA-256 digest of `bytes`.
    #[must_use]
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::from_sha256(Sha256::digest(bytes).into())
    }

    /// A digest of 32 raw hash bytes.
    #[must_use]
    pub fn from_sha256(raw: [u8; 32]) -> Self {
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        push_hex(&mut text, &raw);
        Self {
            text: text.into(),
            algorithm: Algorithm::Sha256,
        }
    }

    /// A digest of 64 raw SHA-512 bytes.
    #[must_use]
    pub fn from_sha512(raw: &[u8; 64]) -> Self {
        let mut text = String::with_capacity(135);
        text.push_str("sha512:");
        push_hex(&mut text, raw);
        Self {
            text: text.into(),
            algorithm: Algorithm::Sha512,
        }
    }

    /// Which algorithm made it.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash alone, lower-case hex.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.text[self.algorithm.name().len() + 1..]
    }

    /// The whole text, `algorithm:hex`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Appends `bytes` to `out` as lower-case hex.
pub fn push_hex(out: &mut String, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(char::from(HEX[usize::from(byte >> 4)]));
        out.push(char::from(HEX[usize::from(byte & 15)]));
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::parse(text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

macro_rules! digest_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

digest_newtype! {
    /// Digest of a layer's uncompressed tar (OCI image-spec, config.md, "Layer DiffID").
    DiffId
}
digest_newtype! {
    /// Digest that stands for a layer on top of all layers below it (OCI image-spec, config.md, "Layer ChainID").
    ChainId
}

impl ChainId {
    /// The chain ids of `diff_ids`, bottom first: one for each layer.
    #[must_use]
    pub fn of(diff_ids: &[DiffId]) -> Vec<Self> {
        let mut chain: Vec<Self> = Vec::with_capacity(diff_ids.len());
        for id in diff_ids {
            let next = match chain.last() {
                None => Self(id.0.clone()),
                Some(below) => Self(Digest::sha256(format!("{below} {id}").as_bytes())),
            };
            chain.push(next);
        }
        chain
    }
}

/// Whether a name is one that an algorithm could have (OCI image specification, `descriptor.md`, "Digests").
fn is_algorithm(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let component = |text: &str| !text.is_empty() && text.bytes().all(plain);
    name.split(['+', '.', '_', '-']).all(component)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_of_empty_is_the_known_value() {
        let digest = Digest::sha256(b"");
        assert_eq!(
            digest.as_str(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(digest.hex().len(), 64);
    }

    #[test]
    fn parse_refuses_what_could_leave_a_directory() {
        let hex63 = "a".repeat(63);
        let hex64 = "a".repeat(64);
        for (text, error) in [
            ("sha256:../../../../canary/x".to_owned(), None),
            (
                format!("sha256:{hex63}"),
                Some(DigestError::WrongLength {
                    found: 63,
                    expected: 64,
                }),
            ),
            (
                format!("sha256:{hex64}a"),
                Some(DigestError::WrongLength {
                    found: 65,
                    expected: 64,
                }),
            ),
            (format!("sha256:{}", "A".repeat(64)), Some(DigestError::NotHex)),
            (format!("sha256:{}%2f", "a".repeat(61)), Some(DigestError::NotHex)),
            (
                format!("md5:{}", "a".repeat(32)),
                Some(DigestError::UnknownAlgorithm),
            ),
            (format!("x:{hex64}"), Some(DigestError::UnknownAlgorithm)),
            (format!("x+b64.y:{hex64}"), Some(DigestError::UnknownAlgorithm)),
            (format!("SHA256:{hex64}"), Some(DigestError::BadAlgorithm)),
            (format!("x+:{hex64}"), Some(DigestError::BadAlgorithm)),
            (format!(":{hex64}"), Some(DigestError::BadAlgorithm)),
            (String::new(), Some(DigestError::NoAlgorithm)),
        ] {
            let found = Digest::parse(&text).expect_err(&text);
            if let Some(error) = error {
                assert_eq!(found, error, "{text}");
            }
        }
        assert!(Digest::parse(&format!("sha256:{hex64}")).is_ok());
        assert!(Digest::parse(&format!("sha512:{hex64}{hex64}")).is_ok());
    }

    #[test]
    fn chain_of_one_is_its_diff_id() {
        let a = DiffId(Digest::sha256(b"a"));
        let b = DiffId(Digest::sha256(b"b"));
        let chain = ChainId::of(&[a.clone(), b.clone()]);
        assert_eq!(chain[0].0, a.0);
        assert_eq!(chain[1].0, Digest::sha256(format!("{a} {b}").as_bytes()));
    }
}
