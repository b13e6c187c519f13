//! The one part of docker's `config.json` a build reads: the proxies, which become build arguments. Credentials are
//! the registry client's.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

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
    /// It is too large.
    #[error("cannot read {path}: it has more than {MAX_BYTES} bytes")]
    TooLarge {
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

fn read(path: &Path) -> Result<Option<Vec<u8>>, ConfigError> {
    let failed = |error| ConfigError::Read {
        path: path.to_owned(),
        error,
    };
    let file = match rbuild_sys::open_regular(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
        });
    }
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
        let path = dir.path().join("config.json");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        let error = with().unwrap_err().to_string();
        assert_eq!(
            error,
            format!("cannot read {}: not a regular file", path.display())
        );
        std::fs::remove_file(&path).unwrap();
        let padded = |bytes: u64| format!("{{}}{}", " ".repeat(usize::try_from(bytes).unwrap() - 2));
        std::fs::write(&path, padded(MAX_BYTES + 1)).unwrap();
        assert!(matches!(with(), Err(ConfigError::TooLarge { .. })));
        std::fs::write(&path, padded(MAX_BYTES)).unwrap();
        assert!(with().unwrap().is_empty(), "the limit itself");
    }
}
