//! The names in one directory, by `getdents64(2)`.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

/// A name in a directory.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) name: CString,
    /// Type, if the file system says so in the listing.
    pub(crate) kind: FileType,
}

/// Names of a directory, sorted by bytes; at most `names_max` are read.
pub(crate) fn list(dir: &OwnedFd, names_max: usize) -> Result<Vec<Listed>, Errno> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 32 << 10];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if names.len() == names_max {
            break;
        }
        names.push(Listed {
            name: name.to_owned(),
            kind: entry.file_type(),
        });
    }
    names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(names)
}
