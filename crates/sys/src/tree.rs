//! Whole trees that others filled: visited and removed by descriptors, whatever their shape.
//!
//! Depth costs heap, never stack; at most [`OPEN_MAX`] descriptors are held, never one a level; no path is ever
//! built, so `PATH_MAX` does not matter; links are never followed and mount points never crossed
//! (`RESOLVE_NO_XDEV`, Linux 5.6). Refuses to go on when a directory was moved away under it.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, IFlags, Mode, OFlags, RawDir, ResolveFlags, Stat};
use rustix::io::Errno;

/// Directory descriptors held at once; levels above them are opened again by `..` on the way back.
const OPEN_MAX: usize = 64;
/// Bytes of one `getdents64`.
const LIST_BYTES: usize = 32 * 1024;
/// Times a directory is listed again because entries appeared in it while it was being emptied.
const RELIST_MAX: u32 = 16;

/// Why a tree could not be visited or removed.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The kernel refused.
    #[error("{verb} {name:?}, {depth} levels down")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// Entry it was tried on (its own name, not a path: the path may be longer than any path can be).
        name: OsString,
        /// Directories above it, counted from the tree's top.
        depth: usize,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Something is mounted there; what is mounted is not the tree's, so nothing of it is touched.
    #[error("{name:?}, {depth} levels down, is a mount point")]
    MountPoint {
        /// The entry.
        name: OsString,
        /// Directories above it.
        depth: usize,
    },
    /// A directory is no longer where it was when it was entered.
    #[error("a directory {depth} levels down was moved while it was visited")]
    Moved {
        /// Directories above it.
        depth: usize,
    },
}

impl TreeError {
    /// The kernel's error number, if that is what it was.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Io { source, .. } => Errno::from_io_error(source),
            Self::MountPoint { .. } | Self::Moved { .. } => None,
        }
    }
}

/// What [`remove_tree`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Entries that are gone.
    pub entries: u64,
    /// Whether the whole tree is gone; otherwise the budget was used up and the call can be repeated.
    pub finished: bool,
}

/// One entry of [`walk_tree`].
#[derive(Debug)]
pub struct TreeEntry<'a> {
    /// The directory it is in.
    pub dir: BorrowedFd<'a>,
    /// Its name there.
    pub name: &'a OsStr,
    /// Its status, not followed.
    pub stat: &'a Stat,
}

struct Frame<T> {
    fd: Option<OwnedFd>,
    id: (u64, u64),
    name: CString,
    dirs: Vec<CString>,
    relisted: u32,
    token: T,
}

/// Removes what `name` in `parent` is, with everything below it. Entries without permission bits, and (for root)
/// with the immutable or append-only flag, are removed too. An absent entry is not an error.
///
/// With `entries_max` the work stops after that many entries and says so.
///
/// # Errors
/// The kernel's; [`TreeError::MountPoint`] if something is mounted inside.
pub fn remove_tree(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    entries_max: Option<u64>,
) -> Result<Removed, TreeError> {
    let budget = entries_max.unwrap_or(u64::MAX);
    let mut entries = 0;
    let top = c_name(name)?;
    let Some(first) = enter(parent, &top, 0, true)? else {
        let gone = remove_file(parent, &top, 0)?;
        return Ok(Removed {
            entries: u64::from(gone),
            finished: true,
        });
    };
    let mut buffer = vec![MaybeUninit::uninit(); LIST_BYTES];
    let mut stack = vec![Frame::new(first, top, ())?];
    empty_of_files(&mut stack, &mut buffer, &mut entries, budget)?;
    loop {
        if entries >= budget {
            return Ok(Removed {
                entries,
                finished: false,
            });
        }
        let depth = stack.len();
        let Some(frame) = stack.last_mut() else {
            return Ok(Removed {
                entries,
                finished: true,
            });
        };
        if let Some(child) = frame.dirs.pop() {
            let Some(fd) = enter(frame.fd(), &child, depth, true)? else {
                match remove_file(frame.fd(), &child, depth) {
                    Ok(gone) => entries += u64::from(gone),
                    // Exchanged meanwhile; found again when this directory turns out not to be empty.
                    Err(error) if error.errno() == Some(Errno::ISDIR) => {}
                    Err(error) => return Err(error),
                }
                continue;
            };
            let next = Frame::new(fd, child, ())?;
            push(&mut stack, next);
            empty_of_files(&mut stack, &mut buffer, &mut entries, budget)?;
            continue;
        }
        let Some(mut done) = stack.pop() else { continue };
        let outcome = match stack.last_mut() {
            None => remove_dir(parent, &done.name, 0)?,
            Some(up) => {
                up.reopen(&done, depth - 2)?;
                remove_dir(up.fd(), &done.name, depth - 1)?
            }
        };
        if outcome {
            entries += 1;
        } else {
            done.relisted += 1;
            if done.relisted > RELIST_MAX {
                return Err(io_error(
                    "remove directory",
                    &done.name,
                    depth - 1,
                    Errno::NOTEMPTY,
                ));
            }
            stack.push(done);
            empty_of_files(&mut stack, &mut buffer, &mut entries, budget)?;
        }
    }
}

/// Calls `visit` for every entry below `top`, directories before what is in them, in the order of the directory
/// (none that means anything). `visit` gets the token of the directory and gives that of the entry, which is handed
/// on to the entries in it if it is a directory.
///
/// # Errors
/// The kernel's, a mount point inside, and those of `visit`.
pub fn walk_tree<T: Clone, E: From<TreeError>>(
    top: BorrowedFd<'_>,
    token: T,
    mut visit: impl FnMut(&T, &TreeEntry<'_>) -> Result<T, E>,
) -> Result<(), E> {
    walk(top, token, &mut visit)
}

/// What [`walk_tree`] is told of each entry.
type Visit<'a, T, E> = &'a mut dyn FnMut(&T, &TreeEntry<'_>) -> Result<T, E>;

fn walk<T: Clone, E: From<TreeError>>(
    top: BorrowedFd<'_>,
    token: T,
    visit: Visit<'_, T, E>,
) -> Result<(), E> {
    let mut buffer = vec![MaybeUninit::uninit(); LIST_BYTES];
    let Some(fd) = enter(top, c".", 0, false)? else {
        return Ok(());
    };
    let mut first = Frame::new(fd, c".".to_owned(), token.clone())?;
    let mut tokens: Vec<Vec<T>> = Vec::new();
    let mut list = |frame: &mut Frame<T>, depth: usize| -> Result<Vec<T>, E> {
        let mut found = Vec::new();
        let mut names = Vec::new();
        for_names(frame.fd(), &frame.name, depth, &mut buffer, |name, _| {
            names.push(name.to_owned());
            Ok(())
        })?;
        for name in names {
            let dir = frame.fd();
            let stat = match rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(io_error("stat", &name, depth, e).into()),
            };
            let entry = TreeEntry {
                dir,
                name: OsStr::from_bytes(name.to_bytes()),
                stat: &stat,
            };
            let token = visit(&frame.token, &entry)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                frame.dirs.push(name);
                found.push(token);
            }
        }
        Ok(found)
    };
    tokens.push(list(&mut first, 1)?);
    let mut stack = vec![first];
    loop {
        let depth = stack.len();
        let Some(frame) = stack.last_mut() else {
            return Ok(());
        };
        if let (Some(child), Some(token)) = (frame.dirs.pop(), tokens.last_mut().and_then(Vec::pop)) {
            let Some(fd) = enter(frame.fd(), &child, depth, false)? else {
                continue;
            };
            let mut next = Frame::new(fd, child, token)?;
            tokens.push(list(&mut next, depth + 1)?);
            push(&mut stack, next);
            continue;
        }
        let Some(done) = stack.pop() else { continue };
        tokens.pop();
        if let Some(up) = stack.last_mut() {
            up.reopen(&done, depth - 2)?;
        }
    }
}

impl<T> Frame<T> {
    fn new(fd: OwnedFd, name: CString, token: T) -> Result<Self, TreeError> {
        let stat = rustix::fs::fstat(&fd).map_err(|e| io_error("stat", &name, 0, e))?;
        Ok(Self {
            id: (stat.st_dev, stat.st_ino),
            fd: Some(fd),
            name,
            dirs: Vec::new(),
            relisted: 0,
            token,
        })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd
            .as_ref()
            .map(AsFd::as_fd)
            .unwrap_or_else(|| unreachable!("the innermost level is always open"))
    }

    /// Opens this level again through the level below it, if it was closed.
    fn reopen(&mut self, below: &Self, depth: usize) -> Result<(), TreeError> {
        if self.fd.is_some() {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat2(below.fd(), c"..", flags, Mode::empty(), ResolveFlags::NO_XDEV)
            .map_err(|e| io_error("open parent of", &below.name, depth + 1, e))?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| io_error("stat", &self.name, depth, e))?;
        if (stat.st_dev, stat.st_ino) != self.id {
            return Err(TreeError::Moved { depth: depth + 1 });
        }
        self.fd = Some(fd);
        Ok(())
    }
}

fn push<T>(stack: &mut Vec<Frame<T>>, frame: Frame<T>) {
    if let Some(far) = stack.len().checked_sub(OPEN_MAX - 1) {
        stack[far].fd = None;
    }
    stack.push(frame);
}

/// Opens a directory to list it; `None` if the entry is no directory or is gone. With `force`, permission bits in
/// the way are lifted.
fn enter(dir: BorrowedFd<'_>, name: &CStr, depth: usize, force: bool) -> Result<Option<OwnedFd>, TreeError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    let mut forced = !force;
    loop {
        match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
            Ok(fd) => return Ok(Some(fd)),
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Ok(None),
            Err(Errno::XDEV) => {
                return Err(TreeError::MountPoint {
                    name: os(name),
                    depth,
                });
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::ACCESS) if !forced => {
                forced = true;
                let probe = flags.difference(OFlags::RDONLY) | OFlags::PATH;
                let fd = rustix::fs::openat2(dir, name, probe, Mode::empty(), resolve)
                    .map_err(|e| io_error("open directory", name, depth, e))?;
                allow_all(fd.as_fd()).map_err(|e| io_error("change mode of", name, depth, e))?;
            }
            Err(e) => return Err(io_error("open directory", name, depth, e)),
        }
    }
}

/// Gives the owner every right on what `fd` is. Through `/proc`, as `fchmod` refuses `O_PATH` (until `fchmodat2`,
/// Linux 6.6); the descriptor is held, so nothing can be put in its place.
fn allow_all(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::chmod(
        format!("/proc/self/fd/{}", fd.as_raw_fd()),
        Mode::from_raw_mode(0o700),
    )
}

fn empty_of_files(
    stack: &mut [Frame<()>],
    buffer: &mut [MaybeUninit<u8>],
    entries: &mut u64,
    budget: u64,
) -> Result<(), TreeError> {
    let depth = stack.len();
    let Some(frame) = stack.last_mut() else {
        return Ok(());
    };
    let mut dirs = Vec::new();
    let dir = frame.fd();
    for_names(dir, &frame.name, depth, buffer, |name, kind| {
        if kind == FileType::Directory {
            dirs.push(name.to_owned());
        } else if *entries < budget {
            match remove_file(dir, name, depth) {
                Ok(gone) => *entries += u64::from(gone),
                Err(error) if error.errno() == Some(Errno::ISDIR) => dirs.push(name.to_owned()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })?;
    frame.dirs = dirs;
    Ok(())
}

fn for_names(
    dir: BorrowedFd<'_>,
    dir_name: &CStr,
    depth: usize,
    buffer: &mut [MaybeUninit<u8>],
    mut each: impl FnMut(&CStr, FileType) -> Result<(), TreeError>,
) -> Result<(), TreeError> {
    let fail = |e| io_error("list", dir_name, depth, e);
    rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0)).map_err(fail)?;
    let mut entries = RawDir::new(dir, buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            // Somebody else removed the directory meanwhile.
            Err(Errno::NOENT) => break,
            Err(e) => return Err(fail(e)),
        };
        let name = entry.file_name();
        if name != c"." && name != c".." {
            each(name, entry.file_type())?;
        }
    }
    Ok(())
}

/// Whether the entry was there.
fn remove_file(dir: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<bool, TreeError> {
    remove_entry(dir, name, AtFlags::empty()).map_err(|e| io_error("remove", name, depth, e))
}

/// Whether the directory is gone; `false` if it is not empty.
fn remove_dir(dir: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<bool, TreeError> {
    match remove_entry(dir, name, AtFlags::REMOVEDIR) {
        Ok(_) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        // Exchanged for something else meanwhile: that goes too, and is not followed.
        Err(Errno::NOTDIR) => remove_file(dir, name, depth).map(|_| true),
        Err(Errno::BUSY) => Err(TreeError::MountPoint {
            name: os(name),
            depth,
        }),
        Err(e) => Err(io_error("remove directory", name, depth, e)),
    }
}

fn remove_entry(dir: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> Result<bool, Errno> {
    match rustix::fs::unlinkat(dir, name, flags) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(refused @ (Errno::ACCESS | Errno::PERM)) => {
            clear_flags(dir, c".");
            clear_flags(dir, name);
            if refused == Errno::ACCESS {
                allow_all(dir)?;
            }
            rustix::fs::unlinkat(dir, name, flags).map(|()| true)
        }
        Err(e) => Err(e),
    }
}

/// Takes the immutable and append-only flags off; where that is not possible the removal that follows says why.
fn clear_flags(dir: BorrowedFd<'_>, name: &CStr) {
    let open = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(stat) = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else {
        return;
    };
    if !matches!(
        FileType::from_raw_mode(stat.st_mode),
        FileType::RegularFile | FileType::Directory
    ) {
        return;
    }
    let Ok(fd) = rustix::fs::openat2(dir, name, open, Mode::empty(), ResolveFlags::NO_XDEV) else {
        return;
    };
    let Ok(flags) = rustix::fs::ioctl_getflags(&fd) else {
        return;
    };
    let locked = IFlags::IMMUTABLE | IFlags::APPEND;
    if flags.intersects(locked) {
        rustix::fs::ioctl_setflags(&fd, flags.difference(locked)).ok();
    }
}

fn c_name(name: &OsStr) -> Result<CString, TreeError> {
    CString::new(name.as_bytes()).map_err(|_| TreeError::Io {
        verb: "use the name",
        name: name.to_owned(),
        depth: 0,
        source: Errno::INVAL.into(),
    })
}

fn os(name: &CStr) -> OsString {
    OsStr::from_bytes(name.to_bytes()).to_owned()
}

fn io_error(verb: &'static str, name: &CStr, depth: usize, errno: Errno) -> TreeError {
    TreeError::Io {
        verb,
        name: os(name),
        depth,
        source: errno.into(),
    }
}

#[cfg(test)]
mod tests;
