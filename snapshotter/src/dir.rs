//! Directories of layers and of leases, by their paths in the store.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use rbuild_store::Lease;
use rbuild_sys::RootFd;

use crate::stack::StackError;

pub(crate) fn open_dir(path: &Path) -> Result<File, StackError> {
    File::open(path).map_err(|source| StackError::Io {
        verb: "open",
        path: path.to_owned(),
        source,
    })
}

/// The same as the root of what is resolved below it.
pub(crate) fn open_root(path: &Path) -> Result<RootFd, StackError> {
    RootFd::open(path).map_err(|error| StackError::Io {
        verb: "open",
        path: path.to_owned(),
        source: io::Error::other(error),
    })
}

/// Removes a directory of the lease.
pub(crate) fn discard(lease: &Lease, dir: &Path) {
    // What cannot be removed now goes with the lease.
    if let (Ok(parent), Some(name)) = (File::open(lease.dir()), dir.file_name()) {
        drop(rbuild_sys::remove_tree(parent.as_fd(), name, None));
    }
}
