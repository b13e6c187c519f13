//! Changes as a layer directory: what [`super::write_tar`] would put into an archive, made of links to the files that
//! are there. The directory is explicit: it hides with whiteouts of names alone, and holds nothing that is as it is
//! below, so it says the same on top of whatever it is stacked (BuildKit's `snapshot/diffapply_linux.go`). Copies no
//! content; refuses to cross file systems.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rbuild_sys::overlay::Form;
use rbuild_sys::{RootFd, RootFdError};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::sink::Sink;
use super::source::DIRECTORY;
use super::walk::Walk;
use super::{LateLinks, WriteError, WriteOptions, failed};
use crate::entry::{Entry, EntryKind};
use crate::reader::printable;
use crate::xattr::{get_xattr, list_xattrs};

/// What a directory of changes is made from.
#[derive(Clone, Copy, Debug)]
pub enum Upper<'a> {
    /// A layer directory: what it does not have is as it is below, unless it hides it.
    Layer(BorrowedFd<'a>),
    /// A whole file system: what it does not have is gone.
    Tree(BorrowedFd<'a>),
}

/// Makes `out`, an empty directory, a layer directory of all that `upper` changes of `lower`. `sources` are the layer
/// directories that `upper` consists of, top first, on the file system of `out`. Gives the names that an archive of
/// `out` has after the others ([`WriteOptions::late`]).
///
/// # Errors
/// [`WriteError`]; `out` holds a useless beginning then.
pub fn link_changes(
    upper: Upper<'_>,
    form: Form,
    lower: &RootFd,
    sources: &[RootFd],
    out: &RootFd,
) -> Result<LateLinks, WriteError> {
    let options = WriteOptions {
        lower: Some(lower),
        ..WriteOptions::default()
    };
    let mut links = Links::new(sources, out);
    let (tree, is_whole) = match upper {
        Upper::Layer(tree) => (tree, false),
        Upper::Tree(tree) => (tree, true),
    };
    let root =
        rustix::fs::openat(tree, ".", DIRECTORY, Mode::empty()).map_err(|e| failed("open", b"/", e))?;
    let made = rustix::fs::openat(out, ".", DIRECTORY, Mode::empty()).map_err(|e| failed("open", b"/", e))?;
    links.copy_metadata(&root, &made, PathBuf::new(), b"/")?;
    let walk = Walk::new(tree, form, &options, links)?;
    let walk = if is_whole { walk.whole() } else { walk };
    let walked = walk.run()?;
    walked.sink.set_times()?;
    Ok(walked.late)
}

/// Makes `out`, an empty directory, a layer directory of the whole file system `tree`, which nothing is below. Owner, mode
/// and times of `out` itself stay.
///
/// # Errors
/// [`WriteError`]; `out` holds a useless beginning then. [`WriteError::is_unlinkable`] if the files have to be copied.
pub fn link_tree(tree: &RootFd, form: Form, out: &RootFd) -> Result<(), WriteError> {
    let links = Links::new(std::slice::from_ref(tree), out);
    let options = WriteOptions::default();
    let walk = Walk::new(tree.as_fd(), form, &options, links)?;
    walk.run()?.sink.set_times()
}

/// Whether the layer directory `layer` is explicit as it is: [`link_changes`] on top of `lower` would make the same.
///
/// # Errors
/// [`WriteError`].
pub fn is_explicit(layer: BorrowedFd<'_>, form: Form, lower: &RootFd) -> Result<bool, WriteError> {
    let options = WriteOptions {
        lower: Some(lower),
        ..WriteOptions::default()
    };
    Ok(!Walk::new(layer, form, &options, Nowhere)?.run()?.is_altered)
}

/// Only the walk itself is of interest.
struct Nowhere;

impl Sink for Nowhere {
    fn entry(&mut self, _: &Entry) -> Result<(), WriteError> {
        Ok(())
    }

    fn content(&mut self, _: BorrowedFd<'_>, _: u64, _: &[u8]) -> Result<(), WriteError> {
        Ok(())
    }

    fn whiteout(&mut self, _: &[u8], _: &[u8]) -> Result<(), WriteError> {
        Ok(())
    }
}

/// Makes a layer directory of links.
pub(super) struct Links<'a> {
    sources: &'a [RootFd],
    out: &'a RootFd,
    /// The inode of all whiteouts, once there is one.
    whiteout: Option<OwnedFd>,
    /// Times of directories, set when nothing is made in them any more.
    times: Vec<(PathBuf, Timestamps)>,
}

impl Sink for Links<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<(), WriteError> {
        let bytes = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
        let path = Path::new(OsStr::from_bytes(bytes));
        if matches!(entry.kind, EntryKind::Directory) {
            self.directory(path, bytes)
        } else {
            self.link(path, bytes)
        }
    }

    fn content(&mut self, _: BorrowedFd<'_>, _: u64, _: &[u8]) -> Result<(), WriteError> {
        Ok(())
    }

    fn whiteout(&mut self, dir: &[u8], name: &[u8]) -> Result<(), WriteError> {
        let path = [dir, name].concat();
        let (parent, name) = self.made_parent(Path::new(OsStr::from_bytes(&path)), &path)?;
        if let Some(whiteout) = &self.whiteout {
            let held = format!("/proc/self/fd/{}", whiteout.as_raw_fd());
            match rustix::fs::linkat(CWD, held, &parent, &name, AtFlags::SYMLINK_FOLLOW) {
                Err(Errno::MLINK) => {}
                other => return other.map_err(|e| failed("link whiteout", &path, e)),
            }
        }
        rustix::fs::mknodat(&parent, &name, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(|e| failed("make whiteout", &path, e))?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&parent, &name, flags, Mode::empty());
        self.whiteout = Some(made.map_err(|e| failed("open whiteout", &path, e))?);
        Ok(())
    }
}

impl<'a> Links<'a> {
    pub(super) const fn new(sources: &'a [RootFd], out: &'a RootFd) -> Self {
        Self {
            sources,
            out,
            whiteout: None,
            times: Vec::new(),
        }
    }
}

impl Links<'_> {
    fn link(&self, path: &Path, shown: &[u8]) -> Result<(), WriteError> {
        let (source, _) = self.source(path, OFlags::PATH, shown)?;
        let (from, name) = source
            .parent(path)
            .map_err(|e| beneath("open directory of", shown, e))?;
        let (parent, _) = self.made_parent(path, shown)?;
        rustix::fs::linkat(&from, &name, &parent, &name, AtFlags::empty())
            .map_err(|e| failed("link", shown, e))
    }

    fn directory(&mut self, path: &Path, shown: &[u8]) -> Result<(), WriteError> {
        let (_, source) = self.source(path, OFlags::RDONLY | OFlags::DIRECTORY, shown)?;
        let (parent, name) = self.made_parent(path, shown)?;
        rustix::fs::mkdirat(&parent, &name, Mode::RWXU).map_err(|e| failed("make directory", shown, e))?;
        let made = rustix::fs::openat(&parent, &name, DIRECTORY, Mode::empty())
            .map_err(|e| failed("open", shown, e))?;
        self.copy_metadata(&source, &made, path.to_owned(), shown)
    }

    /// The topmost source that has `path`, and what it has there: of what a stack shows, that is what it shows.
    fn source(&self, path: &Path, flags: OFlags, shown: &[u8]) -> Result<(&RootFd, OwnedFd), WriteError> {
        for root in self.sources {
            match root.open_in(path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
                Ok(found) => return Ok((root, found)),
                Err(error) if matches!(error.errno(), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {}
                Err(error) => return Err(beneath("open", shown, error)),
            }
        }
        Err(WriteError::Changed {
            path: printable(shown),
        })
    }

    fn made_parent(&self, path: &Path, shown: &[u8]) -> Result<(OwnedFd, std::ffi::OsString), WriteError> {
        self.out
            .parent(path)
            .map_err(|e| beneath("open directory of", shown, e))
    }

    /// Everything but overlayfs' own attributes: the directory is explicit. Times are kept for later.
    pub(super) fn copy_metadata(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        path: PathBuf,
        shown: &[u8],
    ) -> Result<(), WriteError> {
        let stat = rustix::fs::fstat(from).map_err(|e| failed("stat", shown, e))?;
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::fchown(to, Some(uid), Some(gid)).map_err(|e| failed("change owner", shown, e))?;
        rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))
            .map_err(|e| failed("change mode", shown, e))?;
        for name in list_xattrs(from).map_err(|e| failed("list attributes", shown, e))? {
            if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
                continue;
            }
            let value = get_xattr(from, &name).map_err(|e| failed("read attribute", shown, e))?;
            let Some(value) = value else { continue };
            match rustix::fs::fsetxattr(to.as_fd(), name.as_slice(), &value, XattrFlags::empty()) {
                // Not for this user, as `security.*` may be: it is no part of an archive either.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => {}
                Err(e) => return Err(failed("set attribute", shown, e)),
            }
        }
        self.times.push((path, timestamps(&stat)));
        Ok(())
    }

    pub(super) fn set_times(&self) -> Result<(), WriteError> {
        for (path, times) in &self.times {
            let shown = path.as_os_str().as_bytes();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let place = if path.as_os_str().is_empty() {
                Path::new("/")
            } else {
                path
            };
            let dir = self
                .out
                .open_in(place, flags, Mode::empty())
                .map_err(|e| beneath("open", shown, e))?;
            rustix::fs::futimens(&dir, times).map_err(|e| failed("set times", shown, e))?;
        }
        Ok(())
    }
}

pub(super) fn timestamps(stat: &Stat) -> Timestamps {
    let time = |tv_sec, nanoseconds: u64| Timespec {
        tv_sec,
        tv_nsec: nanoseconds.cast_signed(),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

pub(super) fn beneath(verb: &'static str, path: &[u8], error: RootFdError) -> WriteError {
    let source = error
        .errno()
        .map_or_else(|| std::io::Error::other(error), Into::into);
    WriteError::Io {
        verb,
        path: printable(path),
        source,
    }
}
