//! `--iidfile` and `--metadata-file`. The first is removed when the build starts, so a failed build leaves none; the
//! second is replaced whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rbuild_builder::request::BuildOutcome;

/// Why a file is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResultFileError {
    /// The old image id is still there.
    #[error("removing image ID file {path}: {error}")]
    Remove {
        /// File.
        path: PathBuf,
        /// Cause.
        error: io::Error,
    },
    /// It could not be written.
    #[error("writing {path}: {error}")]
    Write {
        /// File.
        path: PathBuf,
        /// Cause.
        error: io::Error,
    },
    /// There is no image to name.
    #[error("the build made no image, so {path} cannot hold its ID")]
    NoImage {
        /// File.
        path: PathBuf,
    },
}

/// The text that stands for the image: the config's digest, or the manifest's if there are several configs.
pub(crate) fn image_id(outcome: &BuildOutcome) -> Option<&str> {
    outcome
        .config_digest
        .as_ref()
        .or(outcome.manifest_digest.as_ref())
        .map(rbuild_oci::Digest::as_str)
}

/// Leaves the manifest's digest as the only id: that of an engine that knows images by it (buildx's
/// `prefer-image-digest`).
pub(crate) fn forget_config(outcome: &mut BuildOutcome) {
    if outcome.manifest_digest.is_some() {
        outcome.config_digest = None;
        outcome.metadata.remove("containerimage.config.digest");
    }
}

/// Removes a stale image id. What is no regular file stays: docker removes `/dev/stdout` where it may.
pub(crate) fn remove_iidfile(path: &Path) -> Result<(), ResultFileError> {
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
        return Err(ResultFileError::Remove {
            path: path.to_owned(),
            error: io::Error::other("it is no regular file"),
        });
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ResultFileError::Remove {
            path: path.to_owned(),
            error,
        }),
        _ => Ok(()),
    }
}

/// Writes the image id, without a line end.
pub(crate) fn write_iidfile(path: &Path, outcome: &BuildOutcome) -> Result<(), ResultFileError> {
    let id = image_id(outcome).ok_or_else(|| ResultFileError::NoImage {
        path: path.to_owned(),
    })?;
    fs::write(path, id).map_err(|error| ResultFileError::Write {
        path: path.to_owned(),
        error,
    })
}

/// Writes the metadata: sorted keys, two spaces, no line end, mode 0644.
pub(crate) fn write_metadata(
    path: &Path,
    metadata: &BTreeMap<String, serde_json::Value>,
) -> Result<(), ResultFileError> {
    let failed = |error| ResultFileError::Write {
        path: path.to_owned(),
        error,
    };
    is_replaceable(path).map_err(failed)?;
    let text = serde_json::to_vec_pretty(metadata).map_err(|error| failed(error.into()))?;
    replace(path, &text).map_err(failed)
}

/// Whether something else may be put into the place of `path`: what is there is no link, and nothing but a file
/// (`moby/sys/atomicwriter`).
fn is_replaceable(path: &Path) -> io::Result<()> {
    let what = match fs::symlink_metadata(path).map(|meta| meta.file_type()) {
        // A directory refuses by itself.
        Ok(kind) if kind.is_file() || kind.is_dir() => return Ok(()),
        Err(_) => return Ok(()),
        Ok(kind) if kind.is_symlink() => "a symbolic link directly",
        Ok(kind) if kind.is_fifo() => "a named pipe (FIFO)",
        Ok(kind) if kind.is_socket() => "a socket",
        Ok(_) => "a device file",
    };
    Err(io::Error::other(format!("cannot write to {what}")))
}

/// Puts `text` in the place of `path`: whoever reads it sees the old content or the new.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or(io::ErrorKind::InvalidInput)?
        .to_string_lossy();
    let aside = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = write_new(&aside, text).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        // What failed is told; that the draft stays behind too would hide it.
        let _draft = fs::remove_file(&aside);
    }
    written
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rbuild_oci::Digest;

    use super::*;

    fn outcome() -> BuildOutcome {
        BuildOutcome {
            manifest_digest: Some(Digest::sha256(b"manifest")),
            config_digest: Some(Digest::sha256(b"config")),
            ..BuildOutcome::default()
        }
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let room = tempfile::tempdir().unwrap();
        let (file, link, pipe) = (
            room.path().join("f"),
            room.path().join("l"),
            room.path().join("p"),
        );
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        for (path, says) in [
            (&link, "cannot write to a symbolic link directly"),
            (&pipe, "cannot write to a named pipe (FIFO)"),
            (&PathBuf::from("/dev/null"), "cannot write to a device file"),
        ] {
            let error = write_metadata(path, &BTreeMap::new()).unwrap_err().to_string();
            assert!(error.ends_with(says), "{error}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"old");
        write_metadata(&file, &BTreeMap::new()).unwrap();
        // A link to a file is replaced, as by docker; a link to something else is not.
        remove_iidfile(&link).unwrap();
        assert!(fs::symlink_metadata(&link).is_err() && file.exists());
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        for path in [&link, &pipe] {
            remove_iidfile(path).unwrap_err();
            assert!(fs::symlink_metadata(path).is_ok());
        }
    }

    #[test]
    fn the_id_is_the_config_of_one_image_and_the_index_of_many() {
        let one = outcome();
        assert_eq!(image_id(&one), Some(Digest::sha256(b"config").as_str()));
        let many = BuildOutcome {
            config_digest: None,
            ..one
        };
        assert_eq!(image_id(&many), Some(Digest::sha256(b"manifest").as_str()));
        assert_eq!(image_id(&BuildOutcome::default()), None);
    }

    #[test]
    fn the_image_id_file_has_no_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("iid");
        remove_iidfile(&path).unwrap();
        write_iidfile(&path, &outcome()).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            Digest::sha256(b"config").as_str()
        );
        remove_iidfile(&path).unwrap();
        assert!(!path.exists());
        assert!(matches!(
            write_iidfile(&path, &BuildOutcome::default()),
            Err(ResultFileError::NoImage { .. })
        ));
        assert!(matches!(
            remove_iidfile(dir.path()),
            Err(ResultFileError::Remove { .. })
        ));
    }

    #[test]
    fn metadata_is_sorted_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.json");
        fs::write(&path, "old").unwrap();
        let metadata = BTreeMap::from([
            (
                "image.name".to_owned(),
                serde_json::json!("docker.io/library/a:latest"),
            ),
            ("containerimage.digest".to_owned(), serde_json::json!("sha256:x")),
            (
                "containerimage.descriptor".to_owned(),
                serde_json::json!({"size": 1}),
            ),
        ]);
        write_metadata(&path, &metadata).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\n  \"containerimage.descriptor\": {\n    \"size\": 1\n  },\n  \
             \"containerimage.digest\": \"sha256:x\",\n  \"image.name\": \"docker.io/library/a:latest\"\n}"
        );
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o600, 0o600);
        assert_eq!(mode & !0o644, 0, "not more than 0644: {mode:o}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
        assert!(write_metadata(&dir.path().join("no/dir"), &metadata).is_err());
    }
}
