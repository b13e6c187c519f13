//! Attributes of a cache as a user or a client of the API writes them, with the environment as the second place to look.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use rbuild_dockerfile::csv;
use rbuild_oci::parse_duration;

/// Most names of one cache.
const NAMES_MAX: usize = 64;

/// Why a cache's attributes do not say where it is. Sentences are BuildKit's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttrError {
    /// An attribute is missing that can come from the environment.
    #[error("{key} (${variable}) not set for {kind} cache")]
    NotSet {
        /// Attribute.
        key: &'static str,
        /// Variable that gives it too.
        variable: &'static str,
        /// Kind of cache.
        kind: &'static str,
    },
    /// A URL to the Azure account is missing.
    #[error(
        "failed to create azblob config: either ${{BUILDKIT_AZURE_STORAGE_ACCOUNT_URL}} or account_url attribute is required for azblob cache"
    )]
    NoAccountUrl,
    /// Nothing tells the name of the Azure account.
    #[error(
        "failed to create azblob config: unable to retrieve account name from account url or ${{BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME}} or account_name attribute for azblob cache"
    )]
    NoAccountName,
    /// What the GitHub cache needs is missing.
    #[error("{0} not set for github actions cache")]
    Gha(&'static str),
    /// A value that an attribute cannot have.
    #[error("{key} must be {wanted}")]
    Value {
        /// Attribute.
        key: &'static str,
        /// What it may be.
        wanted: &'static str,
    },
    /// A URL that is none.
    #[error("{key} is not the URL of a service: {reason}")]
    Url {
        /// Attribute.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A URL of the Azure account that is none.
    #[error("failed to create azblob config: azure storage account url provided is not a valid url: {0}")]
    AccountUrl(String),
    /// A key that is no base64.
    #[error(
        "failed to create container client: failed to create shared key: secret_access_key is not the base64 of an account key"
    )]
    AccountKey,
    /// Azure without a key of the account.
    #[error(
        "failed to create container client: azblob cache needs secret_access_key: identities of Microsoft Entra ID (Azure AD), such as those of a managed \
         identity or of `az login`, are not served"
    )]
    NoAccountKey,
    /// More names than are written or read.
    #[error("more than {NAMES_MAX} names for one cache")]
    Names,
}

/// The attributes that a kind of cache reads; nothing of a kind that is none of ours.
#[must_use]
pub fn known(kind: &str) -> &'static [&'static str] {
    match kind {
        "s3" => &[
            "access_key_id",
            "blobs_prefix",
            "bucket",
            "endpoint_url",
            "manifests_prefix",
            "name",
            "prefix",
            "region",
            "retry_max_attempts",
            "retry_mode",
            "secret_access_key",
            "session_token",
            "touch_refresh",
            "upload_parallelism",
            "use_path_style",
        ],
        "azblob" => &[
            "account_name",
            "account_url",
            "blobs_prefix",
            "container",
            "manifests_prefix",
            "name",
            "prefix",
            "secret_access_key",
        ],
        "gha" => &[
            "ghtoken",
            "repository",
            "scope",
            "timeout",
            "token",
            "url",
            "url_v2",
            "version",
        ],
        _ => &[],
    }
}

/// Attributes and the environment beside them.
#[derive(Clone, Copy)]
pub struct Attrs<'a> {
    attrs: &'a BTreeMap<String, String>,
    env: &'a dyn Fn(&str) -> Option<String>,
}

impl std::fmt::Debug for Attrs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.attrs.keys()).finish()
    }
}

impl<'a> Attrs<'a> {
    /// Attributes, and what reads a variable of the environment.
    #[must_use]
    pub const fn new(attrs: &'a BTreeMap<String, String>, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { attrs, env }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a str> {
        self.attrs.get(key).map(String::as_str)
    }

    /// An attribute that says something.
    pub(crate) fn filled(&self, key: &str) -> Option<&'a str> {
        self.get(key).filter(|text| !text.is_empty())
    }

    /// A variable that says something.
    pub(crate) fn env(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|text| !text.is_empty())
    }

    /// An attribute, or the variable in its place.
    pub(crate) fn or_env(&self, key: &str, variable: &str) -> Option<String> {
        self.filled(key).map(str::to_owned).or_else(|| self.env(variable))
    }

    /// An attribute, though it says nothing, or the variable in its place.
    pub(crate) fn given_or_env(&self, key: &str, variable: &str) -> Option<String> {
        self.get(key).map(str::to_owned).or_else(|| self.env(variable))
    }

    /// An attribute, or its default.
    pub(crate) fn or(&self, key: &str, default: &str) -> String {
        self.get(key).unwrap_or(default).to_owned()
    }

    /// Names of a cache, separated by `;`.
    pub(crate) fn names(&self) -> Result<Vec<String>, AttrError> {
        let names: Vec<String> = self
            .or("name", "buildkit")
            .split(';')
            .map(str::to_owned)
            .collect();
        if names.len() > NAMES_MAX {
            return Err(AttrError::Names);
        }
        Ok(names)
    }

    /// A truth value; one that cannot be read is `false`, as in BuildKit.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.get(key).and_then(csv::boolean).unwrap_or(false)
    }

    /// A duration; nothing if it is absent or cannot be read.
    pub(crate) fn duration(&self, key: &str) -> Option<Duration> {
        self.get(key).and_then(parse_duration)
    }

    pub(crate) fn positive(&self, key: &'static str) -> Result<Option<NonZeroUsize>, AttrError> {
        let wanted = AttrError::Value {
            key,
            wanted: "a positive integer",
        };
        self.get(key)
            .map(|text| text.parse().map_err(|_| wanted.clone()))
            .transpose()
    }
}

/// The attributes of all kinds whose values are secrets.
pub const SECRET_KEYS: [&str; 5] = [
    "token",
    "ghtoken",
    "access_key_id",
    "secret_access_key",
    "session_token",
];
