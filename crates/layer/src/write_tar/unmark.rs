//! Takes overlayfs' marks off what a step left in a plain directory. There the kernel does not keep them for itself, as it does on
//! an overlay: a step can set them, and in the layer they would hide files from whoever stacks it.

use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rbuild_sys::overlay::Form;
use rbuild_sys::{RootFd, walk_tree};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::apart::Failed;
use super::merge::path_in;
use super::{WriteError, failed};
use crate::entry::Time;
use crate::xattr::names_of;

/// Longest list of names (`XATTR_LIST_MAX`).
const LIST_MAX_BYTES: usize = 1 << 16;

/// Takes the marks of `form` off everything in `tree` that was touched at `since` or later, `tree` itself too.
pub(super) fn unmark_touched(tree: &RootFd, form: Form, since: Time) -> Result<(), WriteError> {
    let prefix = form.xattr_prefix().as_bytes();
    let mut buffer = vec![0; LIST_MAX_BYTES];
    let top = path_in(tree.as_fd(), OsStr::new("."));
    unmark(&top, prefix, &mut buffer).map_err(|e| failed("unmark", b"/", e))?;
    let walked = walk_tree::<(), Failed>(tree.as_fd(), (), |(), entry| {
        let kind = FileType::from_raw_mode(entry.stat.st_mode);
        // Nothing else can have them.
        if matches!(kind, FileType::RegularFile | FileType::Directory) && changed(entry.stat) >= since {
            unmark(&path_in(entry.dir, entry.name), prefix, &mut buffer)
                .map_err(|e| Failed(failed("unmark", entry.name.as_bytes(), e)))?;
        }
        Ok(())
    });
    walked.map_err(|Failed(error)| error)
}

/// When attributes were last set, among others.
fn changed(stat: &Stat) -> Time {
    Time {
        seconds: stat.st_ctime,
        nanoseconds: u32::try_from(stat.st_ctime_nsec).unwrap_or_default(),
    }
}

fn unmark(path: &Path, prefix: &[u8], buffer: &mut [u8]) -> Result<(), Errno> {
    let length = match rustix::fs::llistxattr(path, &mut *buffer) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    for name in names_of(&buffer[..length]) {
        if name.starts_with(prefix) {
            match rustix::fs::lremovexattr(path, name.as_slice()) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
