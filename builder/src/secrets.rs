//! Secrets of a build: read when a step needs one, wiped from memory when the step has it, and never shown.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};

use crate::request::{SecretSource, SecretSpec};

/// Largest secret, bytes (BuildKit's `session/secrets/secretsprovider/store.go`).
pub const SECRET_BYTES_MAX: u64 = 500 * 1024;

/// Why a secret could not be given to a step.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The build has no secret of that id.
    #[error("secret {0}: not found")]
    NotFound(String),
    /// Its file could not be read.
    #[error("secret {id}: read its file")]
    Read {
        /// Secret id.
        id: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The client could not be asked.
    #[error("secret {id}")]
    Client {
        /// Secret id.
        id: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its file is too large.
    #[error("secret {0}: larger than {SECRET_BYTES_MAX} bytes")]
    TooLarge(String),
}

/// A secret's bytes; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Vec<u8>);

impl SecretValue {
    /// Takes a secret's bytes.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes. Do not keep them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretValue(****)")
    }
}

impl Drop for SecretValue {
    fn drop(&mut self) {
        self.0.fill(0);
        // Keeps the wiping: the compiler may otherwise drop writes that nothing reads.
        std::hint::black_box(&self.0);
    }
}

/// The secrets a build may use, by id.
#[derive(Debug, Default)]
pub struct Secrets(HashMap<String, SecretSource>);

impl Secrets {
    /// Takes the secrets of a request; of two with one id the later holds.
    #[must_use]
    pub fn new(specs: &[SecretSpec]) -> Self {
        Self(
            specs
                .iter()
                .map(|spec| (spec.id.clone(), spec.source.clone()))
                .collect(),
        )
    }

    /// The value of `id`; `None` if there is none and `optional` allows that.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn get(&self, id: &str, optional: bool) -> Result<Option<SecretValue>, SecretError> {
        let absent = || {
            if optional {
                Ok(None)
            } else {
                Err(SecretError::NotFound(id.to_owned()))
            }
        };
        match self.0.get(id) {
            None => absent(),
            Some(SecretSource::Env(name)) => match std::env::var_os(name) {
                None => absent(),
                Some(value) => Ok(Some(SecretValue(std::os::unix::ffi::OsStringExt::into_vec(
                    value,
                )))),
            },
            Some(SecretSource::File(path)) => {
                let fail = |source| SecretError::Read {
                    id: id.to_owned(),
                    source,
                };
                let mut bytes = Vec::new();
                let read =
                    File::open(path).and_then(|f| f.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes));
                let value = SecretValue(bytes);
                read.map_err(fail)?;
                if value.0.len() as u64 > SECRET_BYTES_MAX {
                    return Err(SecretError::TooLarge(id.to_owned()));
                }
                Ok(Some(value))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(path: &std::path::Path) -> Secrets {
        Secrets::new(&[
            SecretSpec {
                id: "file".into(),
                source: SecretSource::File(path.to_owned()),
            },
            SecretSpec {
                id: "unset".into(),
                source: SecretSource::Env("RBUILD_TEST_UNSET".into()),
            },
        ])
    }

    #[test]
    fn row42_values_are_read_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, "hunter2").unwrap();
        let value = secrets(&path).get("file", false).unwrap().unwrap();
        assert_eq!(value.expose(), b"hunter2");
        assert!(!format!("{value:?} {:?}", secrets(&path)).contains("hunter2"));
    }

    #[test]
    fn row42_a_missing_secret_is_an_error_only_where_it_is_required() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = secrets(&dir.path().join("absent"));
        assert_eq!(secrets.get("unset", true).unwrap(), None);
        assert_eq!(secrets.get("other", true).unwrap(), None);
        assert!(matches!(secrets.get("other", false), Err(SecretError::NotFound(id)) if id == "other"));
        assert!(
            matches!(secrets.get("file", true), Err(SecretError::Read { .. })),
            "given but unreadable"
        );
    }

    #[test]
    fn row42_a_large_secret_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, vec![b'x'; usize::try_from(SECRET_BYTES_MAX).unwrap() + 1]).unwrap();
        assert!(matches!(
            secrets(&path).get("file", false),
            Err(SecretError::TooLarge(_))
        ));
    }
}
