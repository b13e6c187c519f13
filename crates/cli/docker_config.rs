//! The one part of docker's `config.json` a build reads: the proxies, which become build arguments. Credentials are
//! the registry client's.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use serde::Deserialize;

use crate::env::Env;

/// A configuration is not larger than this.
const MAX_BYTES: u64 = 1024 * 1024;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Config {
    proxies: BTreeMap<String, Proxies>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Proxies {
    http_proxy: String,
    https_proxy: String,
    ftp_proxy: String,
    no_proxy: String,
    all_proxy: String,
}

/// Why a configuration was not used. It is told as a warning: docker builds without it too.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// It could not be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// File.
        path: PathBuf,
        /// Cause.
        error: std::io::Error,
    },
    /// It is not a file, or too large.
    #[error("{path} is not a file of at most 1 MiB")]
    NotAFile {
        /// File.
        path: PathBuf,
    },
    /// It is not JSON, or not of the expected form.
    #[error("cannot understand {path}: {error}")]
    Json {
        /// File.
        path: PathBuf,
        /// Cause; holds no content of the file.
        error: serde_json::Error,
    },
}

/// Proxies of the `default` entry as variables, each in upper and lower case (docker CLI, `ParseProxyConfig`).
pub(crate) fn proxies(env: &Env) -> Result<BTreeMap<String, String>, ConfigError> {
    let directory = match (env.filled("DOCKER_CONFIG"), env.filled("HOME")) {
        (Some(directory), _) => PathBuf::from(directory),
        (None, Some(home)) => PathBuf::from(home).join(".docker"),
        (None, None) => return Ok(BTreeMap::new()),
    };
    let path = directory.join("config.json");
    let Some(text) = read(&path)? else {
        return Ok(BTreeMap::new());
    };
    let mut config: Config =
        serde_json::from_slice(&text).map_err(|error| ConfigError::Json { path, error })?;
    let found = config.proxies.remove("default").unwrap_or_default();
    let named = [
        ("HTTP_PROXY", found.http_proxy),
        ("HTTPS_PROXY", found.https_proxy),
        ("FTP_PROXY", found.ftp_proxy),
        ("NO_PROXY", found.no_proxy),
        ("ALL_PROXY", found.all_proxy),
    ];
    Ok(named
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .flat_map(|(name, value)| [(name.to_owned(), value.clone()), (name.to_lowercase(), value)])
        .collect())
}

fn read(path: &std::path::Path) -> Result<Option<Vec<u8>>, ConfigError> {
    let failed = |error| ConfigError::Read {
        path: path.to_owned(),
        error,
    };
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    // A pipe in the place of the file must not hold up a build.
    let file = match OpenOptions::new().read(true).custom_flags(nonblocking).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(ConfigError::NotAFile {
            path: path.to_owned(),
        });
    }
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text).map_err(failed)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::testing::env;

    fn of(content: &str) -> Result<BTreeMap<String, String>, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), content).unwrap();
        proxies(&env(&[("DOCKER_CONFIG", dir.path().to_str().unwrap())], b"").0)
    }

    #[test]
    fn proxies_in_both_cases() {
        let found = of(
            r#"{"auths":{"x":{"auth":"zz"}},"proxies":{"default":{"httpProxy":"http://p","noProxy":"a,b"},
            "tcp://other":{"httpProxy":"http://q"}}}"#,
        )
        .unwrap();
        let pairs: Vec<(&str, &str)> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("HTTP_PROXY", "http://p"),
                ("NO_PROXY", "a,b"),
                ("http_proxy", "http://p"),
                ("no_proxy", "a,b")
            ]
        );
        assert!(of("{}").unwrap().is_empty());
        assert!(matches!(of("{"), Err(ConfigError::Json { .. })));
    }

    #[test]
    fn row35_a_configuration_that_is_no_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let with = || proxies(&env(&[("DOCKER_CONFIG", dir.path().to_str().unwrap())], b"").0);
        assert!(with().unwrap().is_empty(), "there is none");
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            dir.path().join("config.json"),
            rustix::fs::Mode::RUSR,
        )
        .unwrap();
        assert!(matches!(with(), Err(ConfigError::NotAFile { .. })));
    }
}
