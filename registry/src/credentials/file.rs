//! Docker's `config.json` and containers' `auth.json`: the same format, but for repository keys.
//!
//! Refuses what is not a regular file, files that others may write, and keys that only resemble a host.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;

use super::{Credential, Secret};
use crate::config::canonical_host;

/// Largest credential file read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a credential file is not used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot be read")]
    Read(#[source] io::Error),
    /// It is a FIFO, a device or a directory.
    #[error("is not a regular file")]
    NotRegular,
    /// Anyone may write it, and it is another user's.
    #[error("belongs to uid {owner} and is writable by everyone")]
    Writable {
        /// The owner.
        owner: u32,
    },
    /// It is larger than any such file.
    #[error("is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// It is not JSON, or has fields of the wrong type.
    #[error("is malformed")]
    Malformed(#[source] serde_json::Error),
}

/// One parsed file.
#[derive(Clone, Debug)]
pub(super) struct AuthFile {
    /// Path or variable, for messages.
    pub(super) name: String,
    keys: BTreeMap<Key, Auth>,
    helpers: BTreeMap<String, String>,
    store: Option<String>,
}

/// What an entry is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    host: String,
    /// Empty: the whole host.
    path: String,
    /// Written with `http://` or `https://`: for that scheme only.
    tls: Option<bool>,
}

/// The outcome of a look-up in one file.
#[derive(Debug)]
pub(super) enum Entry {
    /// A credential and the key it was under.
    Found(Credential, String),
    /// An entry for the host that holds nothing usable, and why.
    Unusable(&'static str),
    /// No entry.
    None,
}

#[derive(Deserialize)]
struct Json {
    #[serde(default)]
    auths: Option<BTreeMap<String, Auth>>,
    #[serde(default, rename = "credHelpers")]
    cred_helpers: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "credsStore")]
    creds_store: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
struct Auth {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
    #[serde(default)]
    registrytoken: Option<String>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth(…)")
    }
}

/// Reads a file if it is there.
pub(super) fn read(path: &Path) -> Result<Option<AuthFile>, FileError> {
    let bytes = read_bytes(path)?;
    bytes
        .map(|bytes| parse(&path.display().to_string(), &bytes))
        .transpose()
}

/// The host that a key of `auths` is for.
pub(super) fn host_of_key(key: &str) -> String {
    Key::parse(key).host
}

/// The content of a file if it is there and not empty.
pub(super) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    // NONBLOCK: opening a FIFO must not wait for a writer.
    let file = match rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(FileError::Read(error.into())),
    };
    let meta = file.metadata().map_err(FileError::Read)?;
    if !meta.is_file() {
        return Err(FileError::NotRegular);
    }
    if meta.mode() & 0o002 != 0 && meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(FileError::Writable { owner: meta.uid() });
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(FileError::Read)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLarge);
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    Ok(Some(bytes))
}

/// Reads the content of a file called `name`.
pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<AuthFile, FileError> {
    let json: Json = serde_json::from_slice(bytes).map_err(FileError::Malformed)?;
    let keys = json
        .auths
        .unwrap_or_default()
        .into_iter()
        .map(|(key, auth)| (Key::parse(&key), auth))
        .collect();
    let helpers = json.cred_helpers.unwrap_or_default();
    Ok(AuthFile {
        name: name.to_owned(),
        keys,
        helpers: helpers
            .into_iter()
            .map(|(host, helper)| (Key::parse(&host).host, helper))
            .collect(),
        store: json.creds_store.filter(|s| !s.is_empty()),
    })
}

impl Key {
    /// `host`, `host:port`, `https://host/v1/`, or (containers only, without scheme) `host/repository`.
    fn parse(text: &str) -> Self {
        let (tls, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(!scheme.eq_ignore_ascii_case("http")), rest),
            None => (None, text),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_end_matches('/');
        // A URL's path, and Docker's API version, are no repository.
        let path = if tls.is_some() || matches!(path, "v1" | "v2") {
            ""
        } else {
            path
        };
        Self {
            host: canonical_host(host),
            path: path.to_owned(),
            tls,
        }
    }
}

impl AuthFile {
    /// The helper for a host, and whether it is named for just this host.
    pub(super) fn helper_for(&self, host: &str) -> Option<(&str, bool)> {
        let explicit = self.helpers.get(host).map(|helper| (helper.as_str(), true));
        explicit.or_else(|| self.store.as_deref().map(|store| (store, false)))
    }

    /// The entry for the longest part of `host/repository`.
    pub(super) fn entry_for(&self, host: &str, repository: &str, tls: bool) -> Entry {
        let matching = self.keys.iter().filter(|(key, _)| {
            let rest = repository.strip_prefix(key.path.as_str());
            key.host == host
                && key.tls.is_none_or(|wanted| wanted == tls)
                && (key.path.is_empty() || rest.is_some_and(|r| r.is_empty() || r.starts_with('/')))
        });
        let mut unusable = Entry::None;
        let mut matching: Vec<_> = matching.collect();
        matching.sort_by_key(|(key, _)| std::cmp::Reverse((key.path.len(), key.tls.is_some())));
        for (key, auth) in matching {
            let shown = if key.path.is_empty() {
                key.host.clone()
            } else {
                format!("{}/{}", key.host, key.path)
            };
            match auth.credential() {
                Ok(Some(credential)) => return Entry::Found(credential, shown),
                Ok(None) => {}
                Err(reason) => unusable = Entry::Unusable(reason),
            }
        }
        unusable
    }
}

impl Auth {
    /// The credential of an entry; nothing for an empty entry, which Docker writes beside a helper's.
    fn credential(&self) -> Result<Option<Credential>, &'static str> {
        let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
        if let Some(token) = given(&self.registrytoken) {
            return Ok(Some(Credential::Bearer(Secret::new(token))));
        }
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Credential::Identity(Secret::new(token))));
        }
        if let Some(encoded) = given(&self.auth) {
            let encoded = encoded.trim();
            let bytes = STANDARD
                .decode(encoded)
                .or_else(|_| STANDARD_NO_PAD.decode(encoded));
            let bytes = bytes.map_err(|_| "its entry's auth is not base64")?;
            let text = String::from_utf8(bytes).map_err(|_| "its entry's auth is not UTF-8")?;
            let (username, password) = text.split_once(':').ok_or("its entry's auth has no colon")?;
            let password = password.trim_end_matches('\0').to_owned();
            return Ok(Some(Credential::Basic {
                username: username.to_owned(),
                password: Secret::new(password),
            }));
        }
        Ok(given(&self.username).map(|username| Credential::Basic {
            username,
            password: Secret::new(self.password.clone().unwrap_or_default()),
        }))
    }
}
