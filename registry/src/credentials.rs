//! Who we are to a registry: Docker's `config.json`, containers' `auth.json`, and credential helpers.
//!
//! A credential belongs to exactly one host and port (or to a repository there), and is found for no other; a helper
//! that fails means anonymous, never another entry (security row 35). Only the helper of the host in use is run.

mod credential_helper;
mod file;
pub mod keep;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::causes::chain_text;
use crate::config::{canonical_host, environment};
use crate::escape::Excerpt;
use credential_helper::Helper;
pub use credential_helper::HelperError;
pub use file::FileError;
use file::{AuthFile, Entry};

/// The address Docker stores Docker Hub's credentials under.
pub(crate) const HUB_ADDRESS: &str = "https://index.docker.io/v1/";

/// A secret text: never printed, not even by `Debug`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text`.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, to be sent and not to be shown.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a registry accepts as proof of who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// User and password.
    Basic {
        /// User.
        username: String,
        /// Password or access token.
        password: Secret,
    },
    /// A refresh token for the registry's token server (`identitytoken`).
    Identity(Secret),
    /// A token for the registry itself (`registrytoken`).
    Bearer(Secret),
}

/// Where credentials are looked for.
#[derive(Clone, Debug)]
pub struct CredentialSources {
    /// The environment: `DOCKER_AUTH_CONFIG`, `DOCKER_CONFIG`, `REGISTRY_AUTH_FILE`, `XDG_RUNTIME_DIR`,
    /// `XDG_CONFIG_HOME`, `HOME`, and `PATH` to find helpers.
    pub env: BTreeMap<String, String>,
    /// How long a helper may take.
    pub helper_timeout: Duration,
}

impl CredentialSources {
    /// The environment of this process. Variables that are not UTF-8 are left out.
    #[must_use]
    pub fn from_process() -> Self {
        Self {
            env: environment(),
            helper_timeout: Duration::from_secs(30),
        }
    }
}

/// Gives credentials that are in no file of this machine: those of a remote client.
pub trait CredentialProvider: Send + Sync + fmt::Debug {
    /// The credential for `host` (Docker Hub by the address its credentials are stored under). An error is told to the
    /// user when the registry says no; the request is anonymous then.
    fn credential<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Option<Credential>, String>>;
}

/// All credentials there are, not yet looked up.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Asked instead of the files.
    provider: Option<Arc<dyn CredentialProvider>>,
    files: Vec<AuthFile>,
    broken: Vec<String>,
    path: String,
    helper_timeout: Duration,
}

/// What a look-up found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The credential; nothing means anonymous.
    pub credential: Option<Credential>,
    /// Where it came from, or where it was looked for: for the message when the registry says no.
    pub tried: String,
}

impl Credentials {
    /// Those that `provider` has, and no others.
    #[must_use]
    pub fn of_provider(provider: Arc<dyn CredentialProvider>) -> Self {
        Self {
            provider: Some(provider),
            ..Self::default()
        }
    }

    /// Reads the files there are, in the order they are asked: `DOCKER_AUTH_CONFIG`, Docker's `config.json`,
    /// `REGISTRY_AUTH_FILE`, the runtime directory's and the user's `containers/auth.json`. A file that cannot be
    /// used is left out and named in [`Found::tried`].
    #[must_use]
    pub fn load(sources: &CredentialSources) -> Self {
        let var = |name: &str| sources.env.get(name).filter(|v| !v.is_empty());
        let home = var("HOME").map(PathBuf::from);
        let config_home = var("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| home.as_ref().map(|h| h.join(".config")));
        let docker = var("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| home.as_ref().map(|h| h.join(".docker")));
        let mut credentials = Self {
            path: var("PATH").cloned().unwrap_or_default(),
            helper_timeout: sources.helper_timeout,
            ..Self::default()
        };
        if let Some(text) = var("DOCKER_AUTH_CONFIG") {
            credentials.add(
                "DOCKER_AUTH_CONFIG",
                file::parse("DOCKER_AUTH_CONFIG", text.as_bytes()).map(Some),
            );
        }
        let paths = [
            docker.map(|d| d.join("config.json")),
            var("REGISTRY_AUTH_FILE").map(PathBuf::from),
            var("XDG_RUNTIME_DIR").map(|d| Path::new(d).join("containers/auth.json")),
            config_home.map(|c| c.join("containers/auth.json")),
        ];
        for path in paths.into_iter().flatten() {
            credentials.add(&path.display().to_string(), file::read(&path));
        }
        credentials
    }

    fn add(&mut self, name: &str, read: Result<Option<AuthFile>, FileError>) {
        match read {
            Ok(Some(file)) => self.files.push(file),
            Ok(None) => {}
            Err(error) => self.broken.push(format!(
                "{name} is not used ({})",
                Excerpt::from(chain_text(&error).as_str())
            )),
        }
    }

    /// The credential for `repository` at `host` (with its port), for requests over TLS or not.
    ///
    /// Runs a helper if the first file that knows the host says so; that blocks, so it is done on a thread of its own.
    pub async fn find(&self, host: &str, repository: &str, tls: bool) -> Found {
        if let Some(provider) = &self.provider {
            return provided(&**provider, &canonical_host(host)).await;
        }
        let this = self.clone();
        let (host, repository) = (canonical_host(host), repository.to_owned());
        let task = tokio::task::spawn_blocking(move || this.find_blocking(&host, &repository, tls));
        match task.await {
            Ok(found) => found,
            Err(error) => Found {
                credential: None,
                tried: format!("the look-up of credentials failed: {error}"),
            },
        }
    }

    fn find_blocking(&self, host: &str, repository: &str, tls: bool) -> Found {
        let mut notes = self.broken.clone();
        for file in &self.files {
            if let Some((helper, explicit)) = file.helper_for(host) {
                match self.run_helper(helper, host) {
                    Ok(Some(credential)) => {
                        let tried = format!(
                            "credentials of helper {} ({}) were used",
                            Excerpt::from(helper),
                            file.name
                        );
                        return Found {
                            credential: Some(credential),
                            tried,
                        };
                    }
                    Ok(None) if explicit => {
                        notes.push(format!(
                            "helper {} ({}) has none for {host}",
                            Excerpt::from(helper),
                            file.name
                        ));
                        return anonymous(host, &notes);
                    }
                    Ok(None) => notes.push(format!(
                        "helper {} ({}) has none for {host}",
                        Excerpt::from(helper),
                        file.name
                    )),
                    Err(error) => {
                        let shown = Excerpt::from(helper);
                        notes.push(format!(
                            "helper {shown} ({}) failed: {}",
                            file.name,
                            Excerpt::from(chain_text(&error).as_str())
                        ));
                        return anonymous(host, &notes);
                    }
                }
            }
            match file.entry_for(host, repository, tls) {
                Entry::Found(credential, key) => {
                    let tried = format!(
                        "credentials for {} of {} were used",
                        Excerpt::from(key.as_str()),
                        file.name
                    );
                    return Found {
                        credential: Some(credential),
                        tried,
                    };
                }
                Entry::Unusable(reason) => notes.push(format!("{}: {}", file.name, reason)),
                Entry::None => notes.push(format!("{} has none for {host}", file.name)),
            }
        }
        if notes.is_empty() {
            notes.push("no credential file was found".to_owned());
        }
        anonymous(host, &notes)
    }

    fn run_helper(&self, name: &str, host: &str) -> Result<Option<Credential>, HelperError> {
        Helper::find(name, &self.path)?.get(address(host), self.helper_timeout)
    }
}

/// The address a host's credentials are stored under.
pub(crate) fn address(host: &str) -> &str {
    if host == rbuild_oci::DEFAULT_HOST {
        HUB_ADDRESS
    } else {
        host
    }
}

async fn provided(provider: &dyn CredentialProvider, host: &str) -> Found {
    match provider.credential(address(host)).await {
        Ok(Some(credential)) => Found {
            credential: Some(credential),
            tried: format!("credentials of the client for {host} were used"),
        },
        Ok(None) => anonymous(host, &["the client has none".to_owned()]),
        Err(error) => {
            let shown = Excerpt::from(error.as_str());
            anonymous(host, &[format!("the client could not be asked: {shown}")])
        }
    }
}

fn anonymous(host: &str, notes: &[String]) -> Found {
    Found {
        credential: None,
        tried: format!("no credentials for {host} were used: {}", notes.join("; ")),
    }
}

#[cfg(test)]
mod tests;
