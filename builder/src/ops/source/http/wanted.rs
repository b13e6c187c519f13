//! A file behind a URL as its source's attributes ask for it: what goes into keys, and the request with its secrets.

use std::collections::BTreeMap;

use rbuild_frontend::redact_credentials;
use rbuild_graph::SourceOp;
use rbuild_oci::Digest;
use rbuild_registry::{UrlHead, UrlRequest};
use serde::Serialize;

use super::sink::Landed;
use super::{HttpError, file_name};
use crate::job::Job;
use crate::solve::Ingredient;

/// Permissions where none are asked for.
const DEFAULT_MODE: u32 = 0o600;
/// Prefixes of the secrets that are sent to a host without being asked for.
const HEADER_SECRET: &str = "HTTP_AUTH_HEADER_";
const TOKEN_SECRET: &str = "HTTP_AUTH_TOKEN_";

/// The source as its attributes have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Wanted {
    #[serde(skip)]
    pub(super) checksum: Option<Digest>,
    pub(super) url: String,
    pub(super) filename: String,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) auth_secret: String,
    pub(super) headers: BTreeMap<String, String>,
}

impl Wanted {
    pub(super) fn of(source: &SourceOp) -> Result<Self, HttpError> {
        let mut wanted = Self {
            checksum: None,
            url: source.identifier.clone(),
            filename: String::new(),
            mode: DEFAULT_MODE,
            uid: 0,
            gid: 0,
            auth_secret: String::new(),
            headers: BTreeMap::new(),
        };
        for (name, value) in &source.attrs {
            let wrong = || HttpError::Attribute {
                name: name.clone(),
                value: value.clone(),
            };
            let number = || go_integer(value).ok_or_else(wrong);
            match name.as_str() {
                "http.checksum" => wanted.checksum = Some(Digest::parse(value).map_err(|_| wrong())?),
                "http.filename" => wanted.filename.clone_from(value),
                // Zero is "not set" there.
                "http.perm" => {
                    let mode = number()? & 0o7777;
                    wanted.mode = if mode == 0 { DEFAULT_MODE } else { mode };
                }
                "http.uid" => wanted.uid = number()?,
                "http.gid" => wanted.gid = number()?,
                "http.authheadersecret" => wanted.auth_secret.clone_from(value),
                "http.sig.pubkey" | "http.sig.signature" => {
                    return Err(HttpError::Unsupported(name.clone()));
                }
                _ => {
                    let header = name.strip_prefix("http.header.").map(str::to_ascii_lowercase);
                    // The others are dropped without a word, as there.
                    if let Some(header @ ("accept" | "user-agent")) = header.as_deref() {
                        wanted.headers.insert(header.to_owned(), value.clone());
                    }
                }
            }
        }
        Ok(wanted)
    }

    /// Names what is known of this URL asked in this way.
    pub(super) fn name(&self) -> Digest {
        let text = serde_json::to_vec(self);
        assert!(text.is_ok(), "text and numbers always serialise");
        Digest::sha256(&text.unwrap_or_default())
    }

    pub(super) fn file_name(&self, head: Option<&UrlHead>) -> String {
        let header = head.and_then(|head| head.content_disposition.as_deref());
        file_name::of(&self.filename, header, &self.url)
    }

    /// What a key is made of (`formatCacheKey`): the URL itself is no part of it.
    pub(super) fn ingredients(&self, name: &str, digest: &Digest, modified: Option<i64>) -> Vec<Ingredient> {
        let mut parts = vec![
            ("kind", "http".to_owned()),
            ("file name", name.to_owned()),
            ("content", digest.to_string()),
            (
                "permissions",
                format!("{:o} {}:{}", self.mode, self.uid, self.gid),
            ),
        ];
        if let Some(modified) = modified {
            parts.push(("last modified", modified.to_string()));
        }
        if !self.auth_secret.is_empty() {
            parts.push(("authorization", self.auth_secret.clone()));
        }
        let part = |(name, value): (&str, String)| Ingredient {
            name: name.to_owned(),
            value,
        };
        let headers = self.headers.iter().map(|(name, value)| Ingredient {
            name: format!("header {name}"),
            value: value.clone(),
        });
        parts.into_iter().map(part).chain(headers).collect()
    }

    /// The request, with the secrets that are for its host.
    pub(super) async fn request(&self, job: &Job) -> Result<UrlRequest, HttpError> {
        let wrong = |source| HttpError::Request {
            url: redact_credentials(&self.url),
            source,
        };
        let mut request = UrlRequest::new(&self.url).map_err(wrong)?;
        // Such a body is decoded as it lands.
        request = request.with_header("accept-encoding", "gzip").map_err(wrong)?;
        for (name, value) in &self.headers {
            request = request.with_header(name, value).map_err(wrong)?;
        }
        let mut secrets = Vec::new();
        if self.auth_secret.is_empty() {
            secrets.push((format!("{HEADER_SECRET}{}", request.host()), "", true));
            secrets.push((format!("{TOKEN_SECRET}{}", request.host()), "Bearer ", true));
        } else {
            secrets.push((self.auth_secret.clone(), "", false));
        }
        for (id, prefix, optional) in secrets {
            let value = match job.client.secret(&id, optional).await {
                Ok(Some(value)) => value,
                Ok(None) => continue,
                // One that nobody asked for by name is not worth a failure.
                Err(_) if optional => continue,
                Err(source) => return Err(HttpError::Secret { id, source }),
            };
            let text = String::from_utf8_lossy(value.expose());
            request = request
                .with_authorization(&format!("{prefix}{}", text.trim_end_matches(['\r', '\n'])))
                .map_err(wrong)?;
        }
        Ok(request)
    }

    pub(super) fn check(&self, landed: &Landed) -> Result<(), HttpError> {
        match &self.checksum {
            Some(expected) if *expected != landed.digest => Err(HttpError::Mismatch {
                found: landed.digest.clone(),
                expected: expected.clone(),
            }),
            _ => Ok(()),
        }
    }
}

/// A number as Go's `strconv.ParseInt(text, 0, 64)` reads it, as far as it is one of 32 bits.
fn go_integer(text: &str) -> Option<u32> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    // `from_str_radix` takes a sign, which has no place behind a prefix.
    (!digits.starts_with('+')).then(|| u32::from_str_radix(digits, radix).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(attrs: &[(&str, &str)]) -> Result<Wanted, HttpError> {
        Wanted::of(&SourceOp {
            identifier: "https://h/f".into(),
            attrs: attrs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        })
    }

    #[test]
    fn attributes_are_read_as_go_reads_them() {
        let read = wanted(&[
            ("http.perm", "0644"),
            ("http.uid", "0x10"),
            ("http.gid", "7"),
            ("http.header.Accept", "text/plain"),
            ("http.header.Cookie", "dropped"),
        ])
        .unwrap();
        assert_eq!((read.mode, read.uid, read.gid), (0o644, 16, 7));
        assert_eq!(read.headers.keys().collect::<Vec<_>>(), ["accept"]);
        assert_eq!(wanted(&[]).unwrap().mode, 0o600);
        assert_eq!(wanted(&[("http.perm", "0")]).unwrap().mode, 0o600);
        for (name, value) in [
            ("http.perm", "0999"),
            ("http.uid", "-1"),
            ("http.gid", "4294967296"),
            ("http.uid", ""),
            ("http.uid", "0x+1"),
            ("http.checksum", "md5:00"),
        ] {
            assert!(
                matches!(wanted(&[(name, value)]), Err(HttpError::Attribute { .. })),
                "{name}={value}"
            );
        }
        assert!(matches!(
            wanted(&[("http.sig.pubkey", "x")]),
            Err(HttpError::Unsupported(_))
        ));
    }

    #[test]
    fn row46_every_attribute_is_in_the_key_and_the_url_is_not() {
        let digest = Digest::sha256(b"content");
        let key = |attrs: &[(&str, &str)]| wanted(attrs).unwrap().ingredients("f", &digest, Some(1));
        let plain = key(&[]);
        for attr in [
            ("http.perm", "0644"),
            ("http.uid", "1"),
            ("http.gid", "1"),
            ("http.authheadersecret", "s"),
            ("http.header.accept", "x"),
        ] {
            assert_ne!(key(&[attr]), plain, "{attr:?}");
            assert_ne!(
                wanted(&[attr]).unwrap().name(),
                wanted(&[]).unwrap().name(),
                "{attr:?}"
            );
        }
        assert_ne!(wanted(&[]).unwrap().ingredients("g", &digest, Some(1)), plain);
        assert_ne!(wanted(&[]).unwrap().ingredients("f", &digest, None), plain);
        assert!(!plain.iter().any(|part| part.value.contains("https")));
    }
}
