//! Image references: `[host/]path[:tag][@digest]`, normalised as Docker does (distribution/reference v0.6).
//!
//! A [`Reference`] is always complete: its host and path are known. Refuses names that are only a digest's hex,
//! upper case in paths, and hosts that are neither a name, an IPv4 address nor a bracketed IPv6 address.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Digest, DigestError};

/// The host that names without one belong to.
pub const DEFAULT_HOST: &str = "docker.io";
/// The tag a reference without tag and digest means.
pub const DEFAULT_TAG: &str = "latest";
/// Longest repository path, in bytes.
const PATH_LEN_MAX: usize = 255;
const TAG_LEN_MAX: usize = 128;
const LEGACY_DEFAULT_HOST: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";

/// A checked and normalised image reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing at all, or nothing but a tag.
    #[error("invalid reference format: repository name must have at least one component")]
    Empty,
    /// 64 hex characters, which commands take for an image id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    HexOnly(String),
    /// Upper case in the path.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// The host is no host.
    #[error("invalid reference format: {0:?} is not a registry host")]
    Host(String),
    /// The path has a character or separator where none may be.
    #[error("invalid reference format: {0:?} is not a repository name")]
    Path(String),
    /// The path is too long.
    #[error("repository name must not be more than {PATH_LEN_MAX} characters")]
    TooLong,
    /// The tag is empty, too long or has a character that no tag has.
    #[error("invalid reference format: {0:?} is not a tag")]
    Tag(String),
    /// The part after `@` is no digest that can be verified.
    #[error("invalid reference format: invalid digest")]
    Digest(#[source] DigestError),
}

impl ReferenceError {
    /// The words that Docker's library has for it: those of a malformed part name neither the part nor its kind.
    #[must_use]
    pub fn in_docker_words(&self) -> String {
        match self {
            Self::Host(_) | Self::Path(_) | Self::Tag(_) | Self::Digest(_) => {
                "invalid reference format".to_owned()
            }
            other => other.to_string(),
        }
    }
}

impl Reference {
    /// Reads a reference; `debian` becomes `docker.io/library/debian`. No tag is added.
    ///
    /// # Errors
    /// [`ReferenceError`].
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::HexOnly(text.to_owned()));
        }
        let (host, rest) = split_host(text);
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest).map_err(ReferenceError::Digest)?)),
            None => (rest, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        let path = if host == DEFAULT_HOST && !path.contains('/') && !path.is_empty() {
            format!("{OFFICIAL_PREFIX}{path}")
        } else {
            path.to_owned()
        };
        if path.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if path.to_lowercase() != path {
            return Err(ReferenceError::Uppercase(path));
        }
        if !is_host(host) {
            return Err(ReferenceError::Host(host.to_owned()));
        }
        if !path.split('/').all(is_path_component) {
            return Err(ReferenceError::Path(path));
        }
        if path.len() > PATH_LEN_MAX {
            return Err(ReferenceError::TooLong);
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag(tag.chars().take(TAG_LEN_MAX + 1).collect()));
        }
        Ok(Self {
            host: host.to_owned(),
            path,
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// The registry as it is named, with its port: `docker.io`, `localhost:5000`, `[::1]:5000`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository inside the registry: `library/debian`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Host and path: `docker.io/library/debian`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// The tag, if one is written.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one is written.
    #[must_use]
    pub const fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same with `:latest` when it has neither tag nor digest (Go: `TagNameOnly`).
    #[must_use]
    pub fn or_latest(self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            Self {
                tag: Some(DEFAULT_TAG.to_owned()),
                ..self
            }
        } else {
            self
        }
    }

    /// The same repository without tag and digest.
    #[must_use]
    pub fn repository(&self) -> Self {
        Self {
            host: self.host.clone(),
            path: self.path.clone(),
            tag: None,
            digest: None,
        }
    }

    /// The same with this digest; a tag stays.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// The same repository with this tag and no digest.
    ///
    /// # Errors
    /// [`ReferenceError::Tag`].
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Tag(tag.chars().take(TAG_LEN_MAX + 1).collect()));
        }
        Ok(Self {
            tag: Some(tag.to_owned()),
            ..self.repository()
        })
    }

    /// What a registry is asked for: the digest if there is one, else the tag, else `latest`.
    #[must_use]
    pub fn object(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => DEFAULT_TAG,
        }
    }

    /// The short form users write: without `docker.io/` and `library/`. Unlike Go's it always reads back as the
    /// same reference: the host stays where the path begins like a host (`docker.io/localhost/x`).
    #[must_use]
    pub fn familiar(&self) -> String {
        let mut text = if self.host == DEFAULT_HOST && split_host(&self.path).1.len() == self.path.len() {
            match self.path.strip_prefix(OFFICIAL_PREFIX) {
                Some(name) if !name.contains('/') => name.to_owned(),
                _ => self.path.clone(),
            }
        } else {
            self.name()
        };
        self.push_suffix(&mut text);
        text
    }

    fn push_suffix(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
    }
}

/// Splits the host off, the first part being one if it looks like one: it is `localhost`, has a dot or a colon, or
/// has an upper-case letter, which no path has (Go: `splitDockerDomain`).
fn split_host(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((LEGACY_DEFAULT_HOST, rest)) => (DEFAULT_HOST, rest),
        Some((first, rest))
            if first == "localhost" || first.contains(['.', ':']) || first.to_lowercase() != first =>
        {
            (first, rest)
        }
        _ => (DEFAULT_HOST, text),
    }
}

/// `name`, `1.2.3.4` or `[v6]`, with an optional port.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.rfind(']') {
        Some(end) => (&host[..=end], &host[end + 1..]),
        None => host.find(':').map_or((host, ""), |colon| host.split_at(colon)),
    };
    let port_ok = match port.strip_prefix(':') {
        Some(digits) => !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()),
        None => port.is_empty(),
    };
    let name_ok = match name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        Some(v6) => !v6.is_empty() && v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => name.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }),
    };
    port_ok && name_ok
}

/// Lower-case letters and digits, with one `.`, one or two `_`, or any number of `-` between them.
fn is_path_component(part: &str) -> bool {
    let is_word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut rest = part.as_bytes();
    loop {
        let word = rest.iter().take_while(|b| is_word(b)).count();
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        let separator = match rest {
            [] => return true,
            [b'_', b'_', ..] => 2,
            [b'.' | b'_', ..] => 1,
            _ => rest.iter().take_while(|b| **b == b'-').count(),
        };
        if separator == 0 {
            return false;
        }
        rest = &rest[separator..];
    }
}

/// A word character, then up to 127 of those, dots and dashes.
fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= TAG_LEN_MAX
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.name();
        self.push_suffix(&mut text);
        f.write_str(&text)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

    #[test]
    fn names_are_normalised_as_docker_does() {
        for (text, canonical, familiar) in [
            ("debian", "docker.io/library/debian", "debian"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("library/debian", "docker.io/library/debian", "debian"),
            ("docker.io/debian", "docker.io/library/debian", "debian"),
            ("index.docker.io/debian", "docker.io/library/debian", "debian"),
            ("index.docker.io/a/b", "docker.io/a/b", "a/b"),
            ("docker/docker", "docker.io/docker/docker", "docker/docker"),
            ("library/a/b", "docker.io/library/a/b", "library/a/b"),
            (
                "foo_bar.com:8080",
                "docker.io/library/foo_bar.com:8080",
                "foo_bar.com:8080",
            ),
            ("localhost/x", "localhost/x", "localhost/x"),
            ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
            ("localhost", "docker.io/library/localhost", "localhost"),
            ("LOCALHOST/x", "LOCALHOST/x", "LOCALHOST/x"),
            ("Foo/bar", "Foo/bar", "Foo/bar"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b"),
            ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
            ("[2001:db8::1]/x:1", "[2001:db8::1]/x:1", "[2001:db8::1]/x:1"),
            (
                "xn--n3h.com/my:xn--n3h.com",
                "xn--n3h.com/my:xn--n3h.com",
                "xn--n3h.com/my:xn--n3h.com",
            ),
            (
                "a/b__c/d--e/f.g/h_i",
                "docker.io/a/b__c/d--e/f.g/h_i",
                "a/b__c/d--e/f.g/h_i",
            ),
            (
                "test.com:80/a:T_A-g.1",
                "test.com:80/a:T_A-g.1",
                "test.com:80/a:T_A-g.1",
            ),
            (
                "docker.io/localhost/x",
                "docker.io/localhost/x",
                "docker.io/localhost/x",
            ),
            ("docker.io/a.b/x", "docker.io/a.b/x", "docker.io/a.b/x"),
        ] {
            let reference = Reference::parse(text).expect(text);
            assert_eq!(reference.to_string(), canonical, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
            assert_eq!(Reference::parse(canonical).expect("canonical"), reference);
        }
    }

    #[test]
    fn digests_and_tags() {
        let text = format!("x:y@sha256:{HEX}");
        let reference = Reference::parse(&text).expect("both");
        assert_eq!(reference.tag(), Some("y"));
        assert_eq!(reference.object(), format!("sha256:{HEX}"));
        assert_eq!(reference.familiar(), text);
        assert_eq!(reference.clone().or_latest(), reference);
        assert_eq!(reference.repository().to_string(), "docker.io/library/x");
        assert_eq!(
            Reference::parse("x").expect("x").or_latest().tag(),
            Some("latest")
        );
        assert_eq!(Reference::parse("x").expect("x").object(), "latest");
        assert!(reference.with_tag("-").is_err());
        assert_eq!(
            reference.with_tag("z").expect("tag").to_string(),
            "docker.io/library/x:z"
        );
        for bad in [
            format!("x@sha256:{HEX}0"),
            "x@sha256:abc".to_owned(),
            "x@".to_owned(),
            format!("x@sha256:{}", HEX.to_uppercase()),
        ] {
            assert!(
                matches!(Reference::parse(&bad), Err(ReferenceError::Digest(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn names_docker_refuses_are_refused() {
        for text in [
            "",
            ":justtag",
            "@sha256:ffff",
            "https://github.com/docker/docker",
            "docker/Docker",
            "-docker",
            "-docker/docker",
            "-docker.io/docker/docker",
            "docker///docker",
            "docker.io/docker/Docker",
            "docker.io/docker///docker",
            HEX,
            "Uppercase:tag",
            "test:5000/Uppercase/x",
            "a//b",
            "a/",
            "/a",
            "a..b",
            "a___b",
            "a.",
            "a_-b",
            "x:",
            "x:-a",
            "x:.a",
            "x:ü",
            "[::1/x",
            "[::1]x/y",
            "[]/x",
            "[fe80::1%25eth0]/x",
            "::1/x",
            "a:b:c/d",
            "a.com:/x",
            "a.com:80a/x",
            "a..com/x",
            "a_b.com/x",
            "x y",
            "x\ny",
            "a/..",
            "../a",
            "docker.io/",
            "x%2fy",
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
        assert!(matches!(
            Reference::parse(&format!("a/{}", "a".repeat(254))),
            Err(ReferenceError::TooLong)
        ));
        assert!(Reference::parse(&format!("a/{}", "a".repeat(253))).is_ok());
        assert!(Reference::parse(&format!("x:{}", "a".repeat(129))).is_err());
        assert!(Reference::parse(&format!("x:{}", "a".repeat(128))).is_ok());
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_what_is_accepted_round_trips(text in "[a-zA-Z0-9:/@._\\-\\[\\]é ]{0,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(Reference::parse(&reference.to_string()).expect("canonical"), reference.clone());
                prop_assert_eq!(Reference::parse(&reference.familiar()).expect("familiar"), reference);
            }
        }
    }
}
