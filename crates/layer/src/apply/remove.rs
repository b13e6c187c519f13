//! Removes a tree of any depth with two descriptors and no recursion.

use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const LISTING_BYTES: usize = 32 << 10;

/// A directory that is being emptied.
struct Level {
    /// Its own name in the one above.
    name: Vec<u8>,
    /// Its device and inode: the way back up is checked by them.
    id: (u64, u64),
    /// Directories in it that are still there.
    left: Vec<Vec<u8>>,
}

/// Removes `name` in `parent`, whatever it is; links are removed, not followed.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return other,
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        other => return other,
    }
    let mut dir = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
    let mut levels = vec![empty(&dir, name.to_vec())?];
    while let Some(level) = levels.last_mut() {
        if let Some(child) = level.left.pop() {
            match rustix::fs::unlinkat(&dir, child.as_slice(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
            dir = rustix::fs::openat(&dir, child.as_slice(), DIRECTORY, Mode::empty())?;
            levels.push(empty(&dir, child)?);
            continue;
        }
        let Some(done) = levels.pop() else { break };
        let Some(above) = levels.last() else {
            return rustix::fs::unlinkat(parent, done.name.as_slice(), AtFlags::REMOVEDIR);
        };
        let up = rustix::fs::openat(&dir, "..", DIRECTORY, Mode::empty())?;
        if id(&up)? != above.id {
            // Somebody moved the tree while it was removed.
            return Err(Errno::STALE);
        }
        rustix::fs::unlinkat(&up, done.name.as_slice(), AtFlags::REMOVEDIR)?;
        dir = up;
    }
    Ok(())
}

/// Removes everything in `dir` but its directories, which it lists.
fn empty(dir: &OwnedFd, name: Vec<u8>) -> Result<Level, Errno> {
    let mut left = Vec::new();
    let mut others = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); LISTING_BYTES];
    let mut listing = RawDir::new(dir, &mut buffer);
    while let Some(entry) = listing.next() {
        let entry = entry?;
        let entry_name = entry.file_name().to_bytes();
        match entry.file_type() {
            _ if matches!(entry_name, b"." | b"..") => {}
            FileType::Directory => left.push(entry_name.to_vec()),
            _ => others.push(entry_name.to_vec()),
        }
    }
    for other in others {
        match rustix::fs::unlinkat(dir, other.as_slice(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            // A file system that tells no types.
            Err(Errno::ISDIR) => left.push(other),
            Err(e) => return Err(e),
        }
    }
    Ok(Level {
        name,
        id: id(dir)?,
        left,
    })
}

fn id(dir: &OwnedFd) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::fstat(dir)?;
    Ok((stat.st_dev, stat.st_ino))
}
