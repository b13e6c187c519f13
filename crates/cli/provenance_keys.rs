//! What the administrator of a machine wants provenance to say of it: every `.json` file of a directory, each an object
//! whose keys are added (`cmd/buildkitd/main.go`, `loadProvenanceEnv`). Keys that have a meaning are refused.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// Largest file, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Keys that provenance has itself.
const OWN_KEYS: [&str; 4] = ["builderPlatform", "platform", "buildConfig", "dockerfileVersion"];

/// Why the keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    /// It cannot be read.
    #[error("read {path:?}")]
    Read {
        /// File or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no object.
    #[error("failed to parse {path:?}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A key that has a meaning.
    #[error("key {0:?} is builtin and not allowed to be modified in provenance config")]
    Builtin(String),
}

/// Reads the files of `dir` in the order of their names; later ones win. A directory that is not there has none.
///
/// # Errors
/// [`KeysError`].
pub(crate) fn read(dir: &Path) -> Result<Map<String, Value>, KeysError> {
    use std::io::Read as _;
    let mut keys = Map::new();
    for path in files(dir)? {
        let fail = |source| KeysError::Read {
            path: path.clone(),
            source,
        };
        let mut text = String::new();
        let file = std::fs::File::open(&path).map_err(fail)?;
        file.take(FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(fail)?;
        let found: Map<String, Value> = serde_json::from_str(&text).map_err(|source| KeysError::Parse {
            path: path.clone(),
            source,
        })?;
        keys.extend(found);
    }
    match keys.keys().find(|key| OWN_KEYS.contains(&key.as_str())) {
        Some(key) => Err(KeysError::Builtin(key.clone())),
        None => Ok(keys),
    }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, KeysError> {
    let fail = |source| KeysError::Read {
        path: dir.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|ending| ending == "json") && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_in_order_and_what_has_a_meaning_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("b.json", r#"{"foo":"b","n":[1]}"#);
        write("a.json", r#"{"foo":"a"}"#);
        write("c.txt", "no json");
        let found = read(dir.path()).unwrap();
        assert_eq!(found["foo"], "b");
        assert_eq!(found["n"], serde_json::json!([1]));
        assert!(read(&dir.path().join("gone")).unwrap().is_empty());
        write("z.json", r#"{"builderPlatform":"x"}"#);
        assert!(matches!(read(dir.path()), Err(KeysError::Builtin(key)) if key == "builderPlatform"));
        write("z.json", "[]");
        assert!(matches!(read(dir.path()), Err(KeysError::Parse { .. })));
    }
}
