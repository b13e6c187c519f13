//! Archives that `ADD` opens: onto a directory of a merged root, as `tar -x` in a chroot of that directory would.
//!
//! The boundary is the destination, as in BuildKit (which chroots into it): `..`, absolute names and absolute links
//! inside the archive end there. Links on the way *to* the destination are followed inside the root. Names that start
//! with `.wh.` are names like any other (moby/go-archive, archive.go, `Unpack` without a whiteout format).

use std::io::Read;
use std::os::fd::AsFd as _;
use std::path::Path;

use rbuild_sys::{RootFd, RootFdError};
use rustix::fs::{Gid, Mode, Uid};

use crate::apply::{ApplyError, DevicePolicy, Policy, apply_all};
use crate::decompress::decompress_detected;
use crate::limits::{DecompressLimits, Limits};
use crate::reader::TarReader;

/// How to extract an archive.
#[derive(Clone, Copy, Debug)]
pub struct ExtractOptions {
    /// Owner of every entry and of the destination if it is made; without it the archive's, and root.
    pub chown: Option<(u32, u32)>,
    /// What the archive may cost.
    pub limits: Limits,
    /// What to do with device nodes.
    pub devices: DevicePolicy,
}

/// What was extracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extracted {
    /// Entries in the archive.
    pub entries: u64,
    /// Bytes of the uncompressed archive, up to its end.
    pub bytes: u64,
    /// Extended attributes that were not set.
    pub skipped_xattrs: u64,
}

/// Why an archive could not be extracted.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The destination could not be made or opened.
    #[error(transparent)]
    Destination(#[from] RootFdError),
    /// The archive could not be put there.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// Extracts an uncompressed archive to the directory `dest` of `root`, which is made, with its parents, if missing.
///
/// # Errors
/// [`ExtractError`]. What was extracted until then stays.
pub fn extract(
    stream: impl Read,
    root: &RootFd,
    dest: &Path,
    options: &ExtractOptions,
) -> Result<Extracted, ExtractError> {
    let (uid, gid) = options.chown.unwrap_or((0, 0));
    let mode = Mode::from_raw_mode(0o755);
    let dir = root.create_dir_all(dest, mode, |made, _path| {
        rbuild_sys::owner::chown(made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        Ok(())
    })?;
    let mut reader = TarReader::new(stream, options.limits);
    let policy = Policy {
        whiteouts: None,
        devices: options.devices,
        chown: options.chown,
        max_implied: options.limits.max_implied,
    };
    let outcome = apply_all(&mut reader, dir.as_fd(), policy)?;
    Ok(Extracted {
        entries: reader.entries(),
        bytes: reader.position(),
        skipped_xattrs: outcome.skipped_xattrs,
    })
}

/// Whether `ADD` opens this file: it decompresses (or is plain) and a first tar header can be read, as BuildKit's
/// `isArchivePath` has it (solver/llbsolver/file/unpack.go). An archive that is one but will be refused by
/// [`extract`] counts, so that it is refused there and not copied as a file.
#[must_use]
pub fn is_archive(file: impl Read + Send, limits: &DecompressLimits) -> bool {
    let Ok((_compression, stream)) = decompress_detected(file, limits) else {
        return false;
    };
    match TarReader::new(stream, Limits::default()).next_entry() {
        Ok(first) => first.is_some(),
        Err(error) => error.is_refusal(),
    }
}
