//! A layer's tar stream to a layer directory: whiteouts as overlayfs keeps them, one directory for one layer.
//!
//! **What of lower layers matters here.** A layer is unpacked alone, so any number of layers unpack at once and one
//! directory serves every image that has the layer. containerd (as root) and Docker's overlay2 do the same: they apply
//! a layer to its own upper directory, where links of lower layers are not visible (containerd, core/diff/apply/
//! apply_linux.go). So `var/run/x` in a layer whose lower one has the link `var/run → /run` makes a real directory
//! `var/run`, which hides the link; a link of the *same* layer is followed, inside the root. Tools that make layers
//! from a running tree name every parent, so this only meets layers assembled by hand.
//!
//! What containerd does take from below are owner, mode and attributes of parents that the archive leaves out. These
//! are listed in [`Unpacked::implied`]; [`adopt_implied`] copies them from a merged view of the layers below. A
//! directory that was so treated belongs to its chain, not to its layer alone.

use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use rbuild_oci::DiffId;
use rbuild_sys::overlay::Form;
use rbuild_sys::{RootFd, RootFdError};
use rustix::fs::{FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::apply::{ApplyError, DevicePolicy, Policy, apply_all, kept_xattr};
use crate::digesting::Digesting;
use crate::limits::Limits;
use crate::reader::TarReader;
use crate::xattr::{get_xattr, list_xattrs};

/// How to unpack a layer.
#[derive(Clone, Copy, Debug)]
pub struct UnpackOptions {
    /// How whiteouts and opaque directories are kept.
    pub form: Form,
    /// What the archive may cost.
    pub limits: Limits,
    /// What to do with device nodes.
    pub devices: DevicePolicy,
}

impl UnpackOptions {
    /// The usual options of a form: the process's limits, and devices as its privileges allow.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self {
            form,
            limits: Limits::allowed(),
            devices: DevicePolicy::for_form(form),
        }
    }
}

/// What was unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the whole uncompressed stream, what follows the archive's end included.
    pub diff_id: DiffId,
    /// Bytes of that stream.
    pub bytes: u64,
    /// Entries in the archive.
    pub entries: u64,
    /// Parents that the archive leaves out, as paths in the layer, in the order they were made: 0755, root, 1970.
    pub implied: Vec<PathBuf>,
    /// The archive makes its root opaque. overlayfs does not heed the mark there: nothing below this layer counts.
    pub root_opaque: bool,
    /// Extended attributes that were not set: those of overlayfs, `trusted.*`, and what the file system lacks.
    pub skipped_xattrs: u64,
}

/// Unpacks an uncompressed layer into the empty directory `dir`, which keeps its own owner, mode and times.
///
/// # Errors
/// [`ApplyError`]. The directory then holds a part of the layer and must be thrown away.
pub fn unpack(
    stream: impl Read,
    dir: BorrowedFd<'_>,
    options: &UnpackOptions,
) -> Result<Unpacked, ApplyError> {
    let mut reader = TarReader::new(Digesting::new(stream), options.limits);
    let policy = Policy {
        whiteouts: Some(options.form),
        devices: options.devices,
        chown: None,
        max_implied: options.limits.max_implied,
    };
    let outcome = apply_all(&mut reader, dir, policy)?;
    reader.drain()?;
    let entries = reader.entries();
    let (_stream, digest, bytes) = reader.into_inner().finish();
    Ok(Unpacked {
        diff_id: DiffId(digest),
        bytes,
        entries,
        implied: outcome.implied,
        root_opaque: outcome.root_opaque,
        skipped_xattrs: outcome.skipped_xattrs,
    })
}

/// Why implied parents could not take over from below.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The view of the layers below, or the layer itself, could not be looked into.
    #[error(transparent)]
    Look(#[from] RootFdError),
    /// The kernel refused.
    #[error("implied directory {path:?}: {verb}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// Path in the layer.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

/// Gives each of the `implied` directories of `layer` the owner, mode, extended attributes and times that the same
/// path has in `lower`, a merged view of the layers below. What is missing there, or no directory, changes nothing.
///
/// # Errors
/// [`AdoptError`].
pub fn adopt_implied(layer: &RootFd, implied: &[PathBuf], lower: &RootFd) -> Result<(), AdoptError> {
    // Children first, so that no time is set before something below it changes.
    for path in implied.iter().rev() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let from = match lower.open_in(path, flags, Mode::empty()) {
            Ok(from) => from,
            Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => continue,
            Err(e) => return Err(e.into()),
        };
        let to = layer.open_in(path, flags | OFlags::NOFOLLOW, Mode::empty())?;
        let fail = |verb| {
            move |e: Errno| AdoptError::Io {
                verb,
                path: path.clone(),
                source: e.into(),
            }
        };
        let stat = rbuild_sys::owner::fstat(&from).map_err(fail("stat"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            continue;
        }
        let (uid, gid) = (
            rustix::fs::Uid::from_raw(stat.st_uid),
            rustix::fs::Gid::from_raw(stat.st_gid),
        );
        rbuild_sys::owner::chown(&to, Some(uid), Some(gid)).map_err(fail("change owner"))?;
        rbuild_sys::owner::chmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))
            .map_err(fail("change mode"))?;
        for name in list_xattrs(&from).map_err(fail("list extended attributes"))? {
            if !kept_xattr(&name) {
                continue;
            }
            let Some(value) = get_xattr(&from, &name).map_err(fail("read extended attribute"))? else {
                continue;
            };
            match rustix::fs::fsetxattr(&to, name.as_slice(), &value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => {}
                Err(e) => return Err(fail("set extended attribute")(e)),
            }
        }
        let time = Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: stat.st_mtime_nsec.cast_signed(),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::futimens(&to, &times).map_err(fail("set times"))?;
    }
    Ok(())
}
