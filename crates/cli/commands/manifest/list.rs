//! The lists of `rbuild manifest`: a file each beside docker's configuration.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rbuild_oci::{Descriptor, Digest, Reference};
use rbuild_ui::values::csv;
use serde::{Deserialize, Serialize};

use crate::commands::CommandError;
use crate::env::Env;

/// Directory of the lists, in docker's.
const LISTS: &str = "manifests";
/// Largest list read, bytes.
const LIST_BYTES_MAX: u64 = 4 << 20;

/// Why a list of this machine could not be had or kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListError {
    /// Nobody says where it would be.
    #[error("lists of manifests are kept beside docker's config.json: neither DOCKER_CONFIG nor HOME is set")]
    NoPlace,
    /// There is none of this name.
    #[error("no such manifest list: {0}: begin it with `manifest create`")]
    Unknown(Reference),
    /// It is there already.
    #[error("refusing to amend an existing manifest list with no --amend flag: {0}")]
    Exists(Reference),
    /// It has no such image.
    #[error("manifest for image {image} does not exist in {list}")]
    NotInList {
        /// The image.
        image: Reference,
        /// The list.
        list: Reference,
    },
    /// A list was given where an image is expected.
    #[error("cannot use manifest list {0} as an image of a manifest list")]
    IsList(Reference),
    /// There is no such machine.
    #[error("manifest entry for image has unsupported os/arch combination: {os}/{arch}{hint}")]
    Platform {
        /// Operating system.
        os: String,
        /// Architecture.
        arch: String,
        /// The nearest that there is.
        hint: String,
    },
    /// `--os-features` is a record of comma-separated values.
    #[error("invalid argument {text:?} for --os-features: {error}")]
    Features {
        /// As written.
        text: String,
        /// What is wrong.
        error: csv::CsvError,
    },
    /// An index says of each image what it runs on.
    #[error(
        "manifest {0} must have an OS and Architecture to be pushed to a registry: say it with `manifest annotate`"
    )]
    NoPlatform(String),
    /// The file.
    #[error("{verb} {}: {error}", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The file is not one of ours.
    #[error("{} is not a list of manifests: {error}", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
}

impl From<ListError> for CommandError {
    fn from(error: ListError) -> Self {
        Self::failed(&error)
    }
}

/// A list as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct List {
    pub(super) name: String,
    pub(super) entries: Vec<ListEntry>,
}

/// One image of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ListEntry {
    pub(super) reference: String,
    pub(super) descriptor: Descriptor,
}

/// A list that is here: its file, and what it has.
pub(super) fn known(name: &Reference, env: &Env) -> Result<(PathBuf, List), ListError> {
    let path = place(name, env)?;
    let list = read(&path)?.ok_or_else(|| ListError::Unknown(name.clone()))?;
    Ok((path, list))
}

/// The file of a list. Its name says nothing: names of images may be longer than those of files.
pub(super) fn place(name: &Reference, env: &Env) -> Result<PathBuf, ListError> {
    let directory = match (env.filled("DOCKER_CONFIG"), env.filled("HOME")) {
        (Some(directory), _) => PathBuf::from(directory),
        (None, Some(home)) => PathBuf::from(home).join(".docker"),
        (None, None) => return Err(ListError::NoPlace),
    };
    let digest = Digest::sha256(name.to_string().as_bytes());
    let file = format!("rbuild-{}.json", &digest.hex()[..32]);
    Ok(directory.join(LISTS).join(file))
}

pub(super) fn read(path: &Path) -> Result<Option<List>, ListError> {
    let fail = |error| ListError::File {
        verb: "cannot read",
        path: path.to_owned(),
        error,
    };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    let mut text = Vec::new();
    file.take(LIST_BYTES_MAX).read_to_end(&mut text).map_err(fail)?;
    let list = serde_json::from_slice(&text);
    list.map(Some).map_err(|error| ListError::Format {
        path: path.to_owned(),
        error,
    })
}

/// Replaces the file whole.
pub(super) fn write(path: &Path, list: &List) -> Result<(), ListError> {
    let fail = |error| ListError::File {
        verb: "cannot write",
        path: path.to_owned(),
        error,
    };
    let text = serde_json::to_vec_pretty(list).map_err(|error| fail(error.into()))?;
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let written = || -> io::Result<()> {
        if let Some(directory) = path.parent() {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(directory)?;
        }
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&text)?;
        fs::rename(&new, path)
    };
    written().map_err(|error| {
        // What is left of a write that failed; it may not even have begun.
        let _gone = fs::remove_file(&new);
        fail(error)
    })
}

pub(super) fn forget(path: &Path) -> Result<(), ListError> {
    fs::remove_file(path).map_err(|error| ListError::File {
        verb: "cannot remove",
        path: path.to_owned(),
        error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::testing::env;

    #[test]
    fn a_list_is_kept_beside_dockers_configuration() {
        let room = tempfile::tempdir().unwrap();
        let home = room.path().display().to_string();
        let (surroundings, _, _) = env(&[("HOME", &home)], b"");
        let name = Reference::parse("example.com/a:1").unwrap();
        let path = place(&name, &surroundings).unwrap();
        assert!(path.starts_with(room.path().join(".docker/manifests")));
        assert!(read(&path).unwrap().is_none());
        let list = List {
            name: name.to_string(),
            entries: Vec::new(),
        };
        write(&path, &list).unwrap();
        assert_eq!(read(&path).unwrap().unwrap().name, "example.com/a:1");
        fs::write(&path, "[]").unwrap();
        assert!(matches!(read(&path), Err(ListError::Format { .. })));
        forget(&path).unwrap();
        assert!(matches!(forget(&path), Err(ListError::File { .. })));
        let (nowhere, _, _) = env(&[], b"");
        assert!(matches!(place(&name, &nowhere), Err(ListError::NoPlace)));
    }
}
