//! Files of a tree that leave it: into a directory of the host, or as one tar. It is not known here whose tree it is.

use std::io::{self, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use rbuild_fileops::{CopyError, Owner, SourceTree};
use rbuild_graph::CopyAction;
use rbuild_layer::{DevicePolicy, ExportedXattrs, WriteError, WriteOptions};
use rbuild_sys::overlay::Form;
use rbuild_sys::{RootFd, TreeError};

/// Why files did not get out.
#[derive(Debug, thiserror::Error)]
pub enum TakeOutError {
    /// A file could not be copied.
    #[error("copy to {path:?}")]
    Copy {
        /// Where to.
        path: PathBuf,
        /// Why.
        #[source]
        source: CopyError,
    },
    /// What was copied could not be given its modes.
    #[error("set modes in {path:?}")]
    Modes {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: TreeError,
    },
    /// The tar could not be made.
    #[error("write tar")]
    Tar(#[from] WriteError),
    /// The end of the tar could not be written.
    #[error("write tar")]
    Flush(#[source] io::Error),
}

/// Whoever runs the build, to whom files belong that it is given.
pub(crate) fn caller() -> Owner {
    let caller = rbuild_sys::owner::caller();
    Owner {
        uid: caller.uid,
        gid: caller.gid,
    }
}

/// Copies from `tree` into `dir`, the open directory `to`.
///
/// # Errors
/// [`TakeOutError::Copy`], [`TakeOutError::Modes`].
pub(crate) fn copy_to(
    (to, dir): (&RootFd, &Path),
    tree: &SourceTree,
    action: &CopyAction,
    owner: Option<Owner>,
    devices: DevicePolicy,
) -> Result<(), TakeOutError> {
    let copied = rbuild_fileops::copy(tree, to, action, owner, devices);
    copied.map_err(|source| TakeOutError::Copy {
        path: match action.dest.trim_start_matches('/') {
            "" => dir.to_owned(),
            name => dir.join(name),
        },
        source,
    })?;
    rbuild_sys::owner::make_real(to.as_fd()).map_err(|source| TakeOutError::Modes {
        path: dir.to_owned(),
        source,
    })
}

/// Writes trees as one tar, each below its name and with the owners it has, every file with the time `mtime` if that is
/// given (seconds since 1970).
///
/// # Errors
/// [`TakeOutError::Tar`], [`TakeOutError::Flush`].
pub(crate) fn write_tar(
    trees: &[(String, BorrowedFd<'_>)],
    form: Form,
    mtime: Option<i64>,
    mut out: impl Write,
) -> Result<(), TakeOutError> {
    let options = WriteOptions {
        mtime,
        xattrs: ExportedXattrs::CapabilityAndUser,
        ..WriteOptions::default()
    };
    rbuild_layer::write_trees(trees, form, &options, &mut out)?;
    out.flush().map_err(TakeOutError::Flush)
}
