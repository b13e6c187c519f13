//! Whether a file of the layer is the one below it, as BuildKit's `sameDirent` decides
//! (util/overlay/overlay_linux.go): metadata first, content only where the times tell nothing.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::source::Source;

const COMPARE_BYTES: usize = 64 << 10;

/// Whether `upper` and `lower`, both called `name`, are the same to BuildKit.
pub(super) fn is_same(
    upper_dir: BorrowedFd<'_>,
    upper: &Source,
    lower_dir: BorrowedFd<'_>,
    lower: &Source,
    name: &[u8],
) -> Result<bool, Errno> {
    let (above, below) = (&upper.stat, &lower.stat);
    let owner = |stat: &rustix::fs::Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
    if owner(above) != owner(below) || upper.capability()? != lower.capability()? {
        return Ok(false);
    }
    if upper.file_type() == FileType::Directory {
        return Ok(true);
    }
    if above.st_size != below.st_size || upper.mtime() != lower.mtime() {
        return Ok(false);
    }
    // Whole seconds may come from an archive, and two different files can have them.
    if above.st_mtime_nsec != 0 {
        return Ok(true);
    }
    match (upper.file_type(), &upper.fd, &lower.fd) {
        (FileType::Symlink, ..) => {
            let text = |dir| rbuild_sys::owner::read_link(dir, name);
            Ok(text(upper_dir)? == text(lower_dir)?)
        }
        (_, Some(upper), Some(lower)) if above.st_size > 0 => same_content(upper.as_fd(), lower.as_fd()),
        _ => Ok(true),
    }
}

fn same_content(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut buffers = (vec![0; COMPARE_BYTES], vec![0; COMPARE_BYTES]);
    let mut offset = 0;
    loop {
        let first = read_full(one, &mut buffers.0, offset)?;
        let second = read_full(other, &mut buffers.1, offset)?;
        if buffers.0[..first] != buffers.1[..second] {
            return Ok(false);
        }
        if first < COMPARE_BYTES {
            return Ok(true);
        }
        offset += first as u64;
    }
}

fn read_full(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(fd, &mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
