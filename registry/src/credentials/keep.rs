//! Writing credentials: `rbuild login` and `logout`. They go where docker would put them: to the helper that the
//! configuration names for the host, else into `config.json`, whose other keys stay as they are.
//!
//! Refuses to write what it could not read: a file that is malformed, not a file, or anybody's to change is left alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::credential_helper::{Helper, HelperError, TOKEN_USER};
use super::file::{self, FileError};
use super::{CredentialSources, Secret, address};
use crate::config::canonical_host;

/// Why a credential was not stored or removed.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// Neither `DOCKER_CONFIG` nor `HOME` is set.
    #[error("no place for credentials: neither DOCKER_CONFIG nor HOME is set")]
    NoPlace,
    /// The file that is there cannot be used.
    #[error("{path} is not changed: it {error}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        error: FileError,
    },
    /// It is JSON, but no object, or its `auths` is none.
    #[error("{0} is not changed: it is not a configuration of docker's")]
    Form(PathBuf),
    /// It could not be written.
    #[error("write {path}", path = path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The helper failed.
    #[error("credential helper {name}")]
    Helper {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: HelperError,
    },
}

/// Where a credential is now, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In this file, readable by whoever can read it.
    File(PathBuf),
    /// With this helper.
    Helper(String),
}

/// By what a registry knows a user.
#[derive(Debug, Clone, Copy)]
pub enum Proof<'a> {
    /// The password.
    Password(&'a Secret),
    /// A refresh token that the registry's token server gave for it (an identity token).
    Identity(&'a Secret),
}

/// Stores user and proof for `host`.
///
/// # Errors
/// [`KeepError`]; then nothing was changed.
pub fn store(
    sources: &CredentialSources,
    host: &str,
    username: &str,
    proof: Proof<'_>,
) -> Result<Kept, KeepError> {
    let place = Place::find(sources)?;
    let host = canonical_host(host);
    let server = address(&host);
    if let Some(name) = place.helper(&host)? {
        // Helpers know an identity token by its user (docker-credential-helpers).
        let (username, secret) = match proof {
            Proof::Password(password) => (username, password),
            Proof::Identity(token) => (TOKEN_USER, token),
        };
        run(&name, sources, |helper| {
            helper.store(server, username, secret, sources.helper_timeout)
        })?;
        // docker leaves an empty entry, by which it lists who is logged in.
        place.change(|auths| {
            auths.insert(server.to_owned(), json!({}));
        })?;
        return Ok(Kept::Helper(name));
    }
    let auth = |password: &str| STANDARD.encode(format!("{username}:{password}"));
    let entry = match proof {
        Proof::Password(password) => json!({ "auth": auth(password.reveal()) }),
        Proof::Identity(token) => json!({ "auth": auth(""), "identitytoken": token.reveal() }),
    };
    place.change(|auths| {
        auths.insert(server.to_owned(), entry);
    })?;
    Ok(Kept::File(place.path))
}

/// Removes what is stored for `host`; nothing if there was nothing.
///
/// # Errors
/// [`KeepError`].
pub fn erase(sources: &CredentialSources, host: &str) -> Result<Option<Kept>, KeepError> {
    let place = Place::find(sources)?;
    let host = canonical_host(host);
    let server = address(&host).to_owned();
    let helper = place.helper(&host)?;
    let mut found = false;
    if let Some(name) = &helper {
        found = run(name, sources, |helper| {
            helper.erase(&server, sources.helper_timeout)
        })?;
    }
    place.change(|auths| {
        auths.retain(|key, _| {
            let is_it = file::host_of_key(key) == host;
            found |= is_it;
            !is_it
        });
    })?;
    let kept = match helper {
        Some(name) => Kept::Helper(name),
        None => Kept::File(place.path),
    };
    Ok(found.then_some(kept))
}

fn run<T>(
    name: &str,
    sources: &CredentialSources,
    ask: impl FnOnce(Helper) -> Result<T, HelperError>,
) -> Result<T, KeepError> {
    let path = sources.env.get("PATH").map_or("", String::as_str);
    Helper::find(name, path)
        .and_then(ask)
        .map_err(|source| KeepError::Helper {
            name: name.to_owned(),
            source,
        })
}

/// docker's configuration file, there or not.
struct Place {
    path: PathBuf,
}

impl Place {
    fn find(sources: &CredentialSources) -> Result<Self, KeepError> {
        let set = |name: &str| sources.env.get(name).filter(|value| !value.is_empty());
        let dir = set("DOCKER_CONFIG").map(PathBuf::from);
        let dir = dir.or_else(|| set("HOME").map(|home| Path::new(home).join(".docker")));
        let path = dir.ok_or(KeepError::NoPlace)?.join("config.json");
        // People link it to a place that is synchronised: what the link means is written.
        let path = fs::canonicalize(&path).unwrap_or(path);
        Ok(Self { path })
    }

    fn helper(&self, host: &str) -> Result<Option<String>, KeepError> {
        let read = file::read(&self.path).map_err(|error| self.unusable(error))?;
        let helper = read.as_ref().and_then(|file| file.helper_for(host));
        Ok(helper.map(|(name, _)| name.to_owned()))
    }

    /// Changes `auths`; the file is written only if that made a difference.
    fn change(&self, change: impl FnOnce(&mut Map<String, Value>)) -> Result<(), KeepError> {
        let bytes = file::read_bytes(&self.path).map_err(|error| self.unusable(error))?;
        let mut config = match bytes {
            None => json!({}),
            Some(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| self.unusable(FileError::Malformed(error)))?
            }
        };
        let before = config.clone();
        let form = || KeepError::Form(self.path.clone());
        let fields = config.as_object_mut().ok_or_else(form)?;
        let auths = fields.entry("auths").or_insert_with(|| json!({}));
        if auths.is_null() {
            *auths = json!({});
        }
        change(auths.as_object_mut().ok_or_else(form)?);
        if config == before {
            return Ok(());
        }
        let text =
            serde_json::to_vec_pretty(&config).map_err(|error| self.unusable(FileError::Malformed(error)))?;
        self.write(&text).map_err(|source| KeepError::Write {
            path: self.path.clone(),
            source,
        })
    }

    /// Replaces the file: whoever reads it sees the old content or the new, and only the owner sees either.
    fn write(&self, text: &[u8]) -> io::Result<()> {
        let dir = self.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(dir)?;
        let aside = dir.join(format!("config.json.{}.tmp", std::process::id()));
        let write = || {
            let mut file: File = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&aside)?;
            file.write_all(text)?;
            file.sync_all()?;
            fs::rename(&aside, &self.path)
        };
        let written = write();
        if written.is_err() {
            // What failed is told; a draft that stays must not hide it.
            fs::remove_file(&aside).ok();
        }
        written
    }

    fn unusable(&self, error: FileError) -> KeepError {
        KeepError::File {
            path: self.path.clone(),
            error,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use super::*;
    use crate::{Credential, Credentials};

    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn file(&self) -> PathBuf {
            self.0.path().join(".docker/config.json")
        }

        fn with(content: &str) -> Self {
            let home = Self::new();
            fs::create_dir(home.0.path().join(".docker")).unwrap();
            fs::write(home.file(), content).unwrap();
            home
        }

        fn sources(&self) -> CredentialSources {
            let text = |path: &Path| path.display().to_string();
            let env = [("HOME", text(self.0.path())), ("PATH", text(self.0.path()))];
            CredentialSources {
                env: env
                    .into_iter()
                    .map(|(k, v)| (k.to_owned(), v))
                    .collect::<BTreeMap<_, _>>(),
                helper_timeout: Duration::from_secs(10),
            }
        }

        fn read(&self) -> Value {
            serde_json::from_slice(&fs::read(self.file()).unwrap()).unwrap()
        }

        fn store(&self, host: &str) -> Result<Kept, KeepError> {
            let password = Secret::new("pa:ss".to_owned());
            store(&self.sources(), host, "me", Proof::Password(&password))
        }

        async fn found(&self, host: &str) -> Option<Credential> {
            Credentials::load(&self.sources())
                .find(host, "a", true)
                .await
                .credential
        }

        fn helper(&self, script: &str) {
            let path = self.0.path().join("docker-credential-mine");
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_stored_is_found_and_what_is_erased_is_not() {
        let home = Home::new();
        let kept = home.store("example.test:5000").unwrap();
        assert_eq!(kept, Kept::File(home.file()));
        let mode = fs::metadata(home.file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let expected = Credential::Basic {
            username: "me".to_owned(),
            password: Secret::new("pa:ss".to_owned()),
        };
        assert_eq!(home.found("example.test:5000").await, Some(expected));
        assert_eq!(home.found("example.test").await, None);
        assert_eq!(erase(&home.sources(), "example.test:5000").unwrap(), Some(kept));
        assert_eq!(home.found("example.test:5000").await, None);
        assert_eq!(erase(&home.sources(), "example.test:5000").unwrap(), None);
    }

    #[tokio::test]
    async fn docker_hub_has_one_key_whatever_it_is_called() {
        let home = Home::with(r#"{"auths": {"https://index.docker.io/v1/": {"auth": "eDp5"}}}"#);
        home.store("index.docker.io").unwrap();
        let auths = home.read()["auths"].as_object().unwrap().clone();
        assert_eq!(auths.keys().collect::<Vec<_>>(), ["https://index.docker.io/v1/"]);
        assert!(home.found("docker.io").await.is_some());
        assert!(erase(&home.sources(), "docker.io").unwrap().is_some());
    }

    #[test]
    fn other_keys_stay() {
        let home =
            Home::with(r#"{"proxies": {"default": {"httpProxy": "p"}}, "auths": null, "psFormat": "x"}"#);
        home.store("a.test").unwrap();
        let found = home.read();
        assert_eq!(found["proxies"]["default"]["httpProxy"], "p");
        assert_eq!(found["psFormat"], "x");
        assert_eq!(found["auths"]["a.test"]["auth"], "bWU6cGE6c3M=");
        assert_eq!(fs::read_dir(home.0.path().join(".docker")).unwrap().count(), 1);
    }

    #[test]
    fn row35_a_file_that_is_not_understood_is_left_alone() {
        for content in ["{", "[]", r#"{"auths": []}"#] {
            let home = Home::with(content);
            home.store("a.test").unwrap_err();
            assert_eq!(fs::read_to_string(home.file()).unwrap(), content);
        }
        // The legal twin: an empty file is an empty configuration.
        let home = Home::with("");
        home.store("a.test").unwrap();
    }

    #[test]
    fn a_link_stays_a_link() {
        let home = Home::with("{}");
        let real = home.0.path().join("real.json");
        fs::rename(home.file(), &real).unwrap();
        std::os::unix::fs::symlink(&real, home.file()).unwrap();
        home.store("a.test").unwrap();
        assert!(fs::symlink_metadata(home.file()).unwrap().is_symlink());
        assert!(fs::read_to_string(&real).unwrap().contains("a.test"));
    }

    #[test]
    fn a_helper_gets_the_password_and_the_file_does_not() {
        let home = Home::with(r#"{"credHelpers": {"a.test": "mine"}}"#);
        home.helper(r#"cat > "$HOME_OF_TEST/$1""#.replace("$HOME_OF_TEST", &home.0.path().display().to_string()).as_str());
        assert_eq!(home.store("a.test").unwrap(), Kept::Helper("mine".to_owned()));
        let said = fs::read_to_string(home.0.path().join("store")).unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            said,
            json!({"ServerURL": "a.test", "Username": "me", "Secret": "pa:ss"})
        );
        assert_eq!(home.read()["auths"], json!({"a.test": {}}));
        assert_eq!(
            erase(&home.sources(), "a.test").unwrap(),
            Some(Kept::Helper("mine".to_owned()))
        );
        assert_eq!(fs::read_to_string(home.0.path().join("erase")).unwrap(), "a.test");
        assert_eq!(home.read()["auths"], json!({}));
    }

    #[tokio::test]
    async fn an_identity_token_takes_the_place_of_the_password() {
        let token = Secret::new("r3fresh".to_owned());
        let home = Home::new();
        home.store("a.test").unwrap();
        store(&home.sources(), "a.test", "me", Proof::Identity(&token)).unwrap();
        let entry = json!({"auth": "bWU6", "identitytoken": "r3fresh"});
        assert_eq!(home.read()["auths"]["a.test"], entry, "as docker writes it");
        assert_eq!(
            home.found("a.test").await,
            Some(Credential::Identity(token.clone()))
        );

        let home = Home::with(r#"{"credsStore": "mine"}"#);
        let kept = home.0.path().join("kept");
        home.helper(&format!(
            "case $1 in store) cat > {0};; get) cat {0};; esac",
            kept.display()
        ));
        store(&home.sources(), "a.test", "me", Proof::Identity(&token)).unwrap();
        let said: Value = serde_json::from_slice(&fs::read(kept).unwrap()).unwrap();
        let expected = json!({"ServerURL": "a.test", "Username": "<token>", "Secret": "r3fresh"});
        assert_eq!(said, expected);
        assert_eq!(home.read()["auths"], json!({"a.test": {}}));
        assert_eq!(home.found("a.test").await, Some(Credential::Identity(token)));
    }

    #[test]
    fn a_helper_that_knew_nothing_was_not_logged_in() {
        let home = Home::with(r#"{"credsStore": "mine"}"#);
        home.helper("cat > /dev/null; echo 'credentials not found in native keychain'; exit 1");
        assert_eq!(erase(&home.sources(), "a.test").unwrap(), None);
        home.helper("cat > /dev/null");
        assert_eq!(
            erase(&home.sources(), "a.test").unwrap(),
            Some(Kept::Helper("mine".to_owned()))
        );
    }

    #[test]
    fn a_helper_that_fails_is_told_and_nothing_is_written() {
        let home = Home::with(r#"{"credsStore": "mine"}"#);
        home.helper("echo no keychain; exit 1");
        let error = home.store("a.test").unwrap_err();
        assert!(matches!(&error, KeepError::Helper { name, .. } if name == "mine"));
        assert_eq!(home.read(), json!({"credsStore": "mine"}));
    }
}
