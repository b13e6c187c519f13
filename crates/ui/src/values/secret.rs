//! The grammar of `--secret` (`buildx/util/buildflags/secrets.go`) and the rule for where an unspecific secret is
//! (`buildkit/session/secrets/secretsprovider/store.go`). Reads no secret.

use super::csv::{self, CsvError};

/// Its keys.
pub const KEYS: [&str; 5] = ["id", "src", "source", "env", "type"];
/// What `type` may be.
pub const TYPES: [&str; 2] = ["file", "env"];

/// One `--secret`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecretFlag {
    /// `id`, possibly empty.
    pub id: String,
    /// `src` or `source`.
    pub file: Option<String>,
    /// `env`.
    pub env: Option<String>,
}

/// Why a text is not a secret. The text itself is not repeated but for its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The text is not a record.
    #[error("failed to parse csv secret: {0}")]
    Csv(CsvError),
    /// A field has no value.
    #[error("invalid field '{0}' must be a key=value pair")]
    NoValue(String),
    /// `type` is neither `file` nor `env`.
    #[error("unsupported secret type {0:?}")]
    Type(String),
    /// A key that means nothing.
    #[error("unexpected key '{key}' in '{field}'")]
    Key {
        /// Key, lower-cased.
        key: String,
        /// The field.
        field: String,
    },
    /// There is neither an id nor a source that could be one.
    #[error("secret missing ID")]
    NoId,
}

/// Where the value of a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretPlace {
    /// In a file.
    File(String),
    /// In a variable.
    Env(String),
}

impl SecretFlag {
    /// Reads one `--secret`.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let mut secret = Self::default();
        let mut kind = String::new();
        for field in csv::fields(text).map_err(SecretError::Csv)? {
            let Some((key, value)) = field.split_once('=') else {
                return Err(SecretError::NoValue(field));
            };
            let value = value.to_owned();
            match key.to_lowercase().as_str() {
                "type" if value == "file" || value == "env" => kind = value,
                "type" => return Err(SecretError::Type(value)),
                "id" => secret.id = value,
                "src" | "source" => secret.file = Some(value).filter(|value| !value.is_empty()),
                "env" => secret.env = Some(value).filter(|value| !value.is_empty()),
                key => {
                    return Err(SecretError::Key {
                        key: key.to_owned(),
                        field: field.clone(),
                    });
                }
            }
        }
        if kind == "env" && secret.env.is_none() {
            secret.env = secret.file.take();
        }
        if secret.id.is_empty() {
            return Err(SecretError::NoId);
        }
        Ok(secret)
    }

    /// Where its value is: the variable if one is named, else the file, else the variable named like the id if there
    /// is one, else the file named like the id.
    #[must_use]
    pub fn place(&self, env_is_set: impl Fn(&str) -> bool) -> SecretPlace {
        match (&self.env, &self.file) {
            (Some(name), _) => SecretPlace::Env(name.clone()),
            (None, Some(path)) => SecretPlace::File(path.clone()),
            (None, None) if env_is_set(&self.id) => SecretPlace::Env(self.id.clone()),
            (None, None) => SecretPlace::File(self.id.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets() {
        let file = |path: &str| SecretPlace::File(path.to_owned());
        let env = |name: &str| SecretPlace::Env(name.to_owned());
        for (text, place) in [
            ("id=a,src=/s", file("/s")),
            ("id=a,source=/s", file("/s")),
            ("ID=a,SRC=/s,type=file", file("/s")),
            ("id=a,env=B", env("B")),
            ("id=a,type=env,src=B", env("B")),
            ("id=a,type=env,env=B", env("B")),
            ("id=a,env=B,src=/s", env("B")),
            ("id=SET", env("SET")),
            ("id=a", file("a")),
        ] {
            assert_eq!(
                SecretFlag::parse(text).unwrap().place(|name| name == "SET"),
                place,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_a_secret() {
        for (text, error) in [
            ("id", SecretError::NoValue("id".to_owned())),
            ("id=a,type=vault", SecretError::Type("vault".to_owned())),
            (
                "id=a,mode=1",
                SecretError::Key {
                    key: "mode".to_owned(),
                    field: "mode=1".to_owned(),
                },
            ),
            ("src=/x", SecretError::NoId),
            ("", SecretError::Csv(CsvError::Empty)),
        ] {
            assert_eq!(SecretFlag::parse(text), Err(error), "{text}");
        }
    }
}
