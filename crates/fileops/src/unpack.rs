//! ADD of an archive: whether a source is one is decided by its content, never by its name. The archive itself is
//! read and written by `rbuild_layer`; this is the one place that joins the two.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rbuild_layer::{
    DecompressError, DecompressLimits, DevicePolicy, ExtractError, ExtractOptions, Limits,
    decompress_detected, extract, is_archive,
};
use rbuild_sys::RootFd;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::copy::CopyReport;
use crate::dest::{Dest, DestError};
use crate::owner::Owner;
use crate::source::{LocateError, Located, SourceTree};

/// Why an archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The source could not be found.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// The source could not be read.
    #[error("{path:?}: {verb}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// Path inside the source.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The destination could not be made.
    #[error(transparent)]
    Dest(#[from] DestError),
    /// It is compressed in a way that cannot be read.
    #[error("{path:?}: decompress")]
    Decompress {
        /// Path inside the source.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: DecompressError,
    },
    /// The archive was refused, or could not be written.
    #[error("{path:?}: unpack")]
    Extract {
        /// Path inside the source.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ExtractError,
    },
}

/// Unpacks the source into the directory `target` if it is an archive. `None` if it is not, and is to be copied.
pub(crate) fn attempt(
    source: &SourceTree,
    located: &Located,
    dest: &mut Dest<'_>,
    target: &Path,
    owner: Option<Owner>,
    devices: DevicePolicy,
) -> Result<Option<CopyReport>, UnpackError> {
    let followed;
    let mut located = located;
    // An archive is looked for behind a link even where a copy would not follow it (`unpack.go`).
    if FileType::from_raw_mode(located.stat.st_mode) == FileType::Symlink {
        match source.locate(&located.real, true) {
            Ok(found) => followed = found,
            Err(LocateError::Missing(_)) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        located = &followed;
    }
    let path = &located.real;
    let Some(file) = open(source, path)? else {
        return Ok(None);
    };
    let limits = DecompressLimits::allowed();
    if !is_archive(&file, &limits) {
        return Ok(None);
    }
    let dir = dest.make_unpack_dirs(target)?;
    let again = open(source, path)?.ok_or_else(|| io_error("open", path, Errno::STALE))?;
    let options = ExtractOptions {
        chown: owner.map(|owner| (owner.uid, owner.gid)),
        limits: Limits::allowed(),
        devices,
    };
    let (_, stream) = decompress_detected(again, &limits).map_err(|source| UnpackError::Decompress {
        path: path.clone(),
        source,
    })?;
    let extracted = extract(stream, &RootFd::from_fd(dir), Path::new("/"), &options).map_err(|source| {
        UnpackError::Extract {
            path: path.clone(),
            source,
        }
    })?;
    Ok(Some(CopyReport {
        files: extracted.entries,
        dirs: 0,
        bytes: extracted.bytes,
    }))
}

/// Opens a regular file; `None` if it is anything else.
fn open(source: &SourceTree, path: &Path) -> Result<Option<File>, UnpackError> {
    let fd: OwnedFd = match source.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
        Ok(fd) => fd,
        Err(Errno::LOOP | Errno::NXIO) => return Ok(None),
        Err(e) => return Err(io_error("open", path, e)),
    };
    let stat = rbuild_sys::owner::fstat(&fd).map_err(|e| io_error("stat", path, e))?;
    let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    Ok(is_regular.then(|| File::from(fd)))
}

fn io_error(verb: &'static str, path: &Path, errno: Errno) -> UnpackError {
    UnpackError::Io {
        verb,
        path: path.to_owned(),
        source: errno.into(),
    }
}
