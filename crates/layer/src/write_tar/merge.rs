//! Layer directories as one plain directory, for where no overlay can be mounted, and what was changed in such a
//! directory as a layer directory again. The walk is that of [`super::write_tar`]: what an archive of a layer would say is
//! done to the directory.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rbuild_sys::data::{DataCopier, DataError};
use rbuild_sys::overlay::Form;
use rbuild_sys::{RootFd, remove_tree};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use super::changes::{Links, beneath, timestamps};
use super::sink::Sink;
use super::source::DIRECTORY;
use super::unmark::unmark_touched;
use super::walk::Walk;
use super::{WriteError, WriteOptions, failed};
use crate::entry::{Entry, EntryKind, OPAQUE_NAME, Time, WHITEOUT_PREFIX};
use crate::xattr::{list_xattrs, names_of};

/// How the files of a merged directory are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// They are the layers' own files: for a directory that is only read, ever.
    Link,
    /// They are copies, which share blocks with the layers where the file system can do that. Each name has a file of its own:
    /// overlayfs gives it one too when it is written to, and leaves what other names it had below as they are.
    Copy,
}

/// Makes `out`, an empty directory, show what an overlay of `layers` (bottom first) would.
///
/// # Errors
/// [`WriteError`]; `out` holds a useless beginning then.
pub fn merge_layers(
    layers: &[RootFd],
    form: Form,
    contents: Contents,
    out: &RootFd,
) -> Result<(), WriteError> {
    merge(layers, form, contents, None, out)
}

/// Makes `out`, an empty directory, a layer directory that shows and hides what `layers` (bottom first) do on top of each
/// other, whatever is below them. Its files are theirs: it is only read, ever.
///
/// # Errors
/// [`WriteError`]; `out` holds a useless beginning then.
pub fn fold_layers(layers: &[RootFd], form: Form, out: &RootFd) -> Result<(), WriteError> {
    merge(layers, form, Contents::Link, Some(form), out)
}

fn merge(
    layers: &[RootFd],
    form: Form,
    contents: Contents,
    marks: Option<Form>,
    out: &RootFd,
) -> Result<(), WriteError> {
    let options = WriteOptions::default();
    let copier = DataCopier::default();
    for layer in layers {
        let mut merge = Merge {
            layer,
            out,
            contents,
            marks,
            copier: &copier,
            parents: None,
            dirs: Vec::new(),
        };
        merge.metadata_of_root()?;
        let walked = Walk::new(layer.as_fd(), form, &options, merge)?.run()?;
        walked.sink.set_times()?;
    }
    Ok(())
}

/// Makes `out`, an empty directory, a layer directory of all that was changed in `tree`, which [`merge_layers`] made by
/// copies, against `lower`, the same layers still as they were: what differs, and what was touched at `since` or later. The
/// files of `tree` become those of `out`. Marks of overlayfs that somebody set in `tree` are taken away.
///
/// # Errors
/// [`WriteError`]; `out` holds a useless beginning then.
pub fn link_touched(
    tree: &RootFd,
    form: Form,
    lower: &RootFd,
    since: Time,
    out: &RootFd,
) -> Result<(), WriteError> {
    let options = WriteOptions {
        lower: Some(lower),
        ..WriteOptions::default()
    };
    let mut links = Links::new(std::slice::from_ref(tree), out);
    let open = |root: &RootFd| {
        rustix::fs::openat(root, ".", DIRECTORY, Mode::empty()).map_err(|e| failed("open", b"/", e))
    };
    unmark_touched(tree, form, since)?;
    links.copy_metadata(&open(tree)?, &open(out)?, PathBuf::new(), b"/")?;
    let walked = Walk::new(tree.as_fd(), form, &options, links)?
        .whole()
        .touched(since)
        .run()?;
    walked.sink.set_times()
}

struct Merge<'a> {
    layer: &'a RootFd,
    out: &'a RootFd,
    contents: Contents,
    /// There may be layers below: what hides is kept, in this form.
    marks: Option<Form>,
    copier: &'a DataCopier,
    /// The directory of the last entry, in the layer and in what is made.
    parents: Option<(PathBuf, OwnedFd, OwnedFd)>,
    /// Directories whose times are set when nothing is made in them any more.
    dirs: Vec<(PathBuf, Stat)>,
}

impl Sink for Merge<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<(), WriteError> {
        let shown = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
        let path = Path::new(OsStr::from_bytes(shown));
        if matches!(entry.kind, EntryKind::Directory) {
            return self.directory(path, shown);
        }
        self.file(path, shown)
    }

    fn content(&mut self, _: BorrowedFd<'_>, _: u64, _: &[u8]) -> Result<(), WriteError> {
        Ok(())
    }

    fn whiteout(&mut self, dir: &[u8], name: &[u8]) -> Result<(), WriteError> {
        let shown = [dir, name].concat();
        if name == &OPAQUE_NAME[WHITEOUT_PREFIX.len()..] {
            return self.empty(dir);
        }
        let path = Path::new(OsStr::from_bytes(&shown));
        let name = self.enter(path, &shown)?;
        let (_, made) = self.entered(&shown)?;
        remove(made, &name, &shown)?;
        let Some(form) = self.marks else { return Ok(()) };
        let whiteout = rustix::fs::mknodat(made, &name, FileType::CharacterDevice, Mode::empty(), 0);
        whiteout.map_err(|e| failed("make whiteout", &shown, e))?;
        // Nothing below may have this directory, and then the kernel lists it as it is, unless it has an origin: it shows
        // no whiteouts of those (fs/overlayfs/inode.c, `ovl_get_inode`; one of no length is one that is not known).
        mark(made, form, "origin", b"").map_err(|e| failed("mark", &shown, e))
    }
}

impl Merge<'_> {
    /// Opens the directory of `path` on both sides; gives the name in it.
    fn enter(&mut self, path: &Path, shown: &[u8]) -> Result<OsString, WriteError> {
        let name = path.file_name().unwrap_or_default().to_owned();
        let parent = path.parent().unwrap_or(Path::new(""));
        if self.parents.as_ref().is_none_or(|(known, ..)| known != parent) {
            let open = |root: &RootFd| {
                root.parent(path)
                    .map_err(|e| beneath("open directory of", shown, e))
            };
            let (from, to) = (open(self.layer)?.0, open(self.out)?.0);
            self.parents = Some((parent.to_owned(), from, to));
        }
        Ok(name)
    }

    fn entered(&self, shown: &[u8]) -> Result<(BorrowedFd<'_>, BorrowedFd<'_>), WriteError> {
        match &self.parents {
            Some((_, from, to)) => Ok((from.as_fd(), to.as_fd())),
            None => Err(failed("open directory of", shown, Errno::NOENT)),
        }
    }

    fn directory(&mut self, path: &Path, shown: &[u8]) -> Result<(), WriteError> {
        let name = self.enter(path, shown)?;
        let (from, to) = self.entered(shown)?;
        let made = match rustix::fs::openat(to, &name, DIRECTORY, Mode::empty()) {
            Ok(there) => there,
            Err(errno @ (Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {
                remove(to, &name, shown)?;
                rustix::fs::mkdirat(to, &name, Mode::RWXU).map_err(|e| failed("make directory", shown, e))?;
                let made = rustix::fs::openat(to, &name, DIRECTORY, Mode::empty())
                    .map_err(|e| failed("open", shown, e))?;
                // What was there, a whiteout too, hid a directory further down.
                if let (Some(form), true) = (self.marks, errno != Errno::NOENT) {
                    mark(made.as_fd(), form, "opaque", b"y").map_err(|e| failed("mark", shown, e))?;
                }
                made
            }
            Err(error) => return Err(failed("open", shown, error)),
        };
        let source = rustix::fs::openat(from, &name, DIRECTORY, Mode::empty());
        let source = source.map_err(|e| failed("open", shown, e))?;
        let stat = copy_directory(&source, &made, Attributes::Own);
        let stat = stat.map_err(|e| failed("copy metadata of", shown, e))?;
        self.dirs.push((path.to_owned(), stat));
        Ok(())
    }

    /// What an opaque directory hides is gone.
    fn empty(&mut self, dir: &[u8]) -> Result<(), WriteError> {
        self.parents = None;
        let path = Path::new("/").join(OsStr::from_bytes(dir));
        let made = self.out.open_in(&path, DIRECTORY, Mode::empty());
        let made = made.map_err(|e| beneath("open", dir, e))?;
        for entry in rustix::fs::Dir::read_from(&made).map_err(|e| failed("list directory", dir, e))? {
            let entry = entry.map_err(|e| failed("list directory", dir, e))?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                remove(made.as_fd(), OsStr::from_bytes(name), dir)?;
            }
        }
        match self.marks {
            Some(form) => mark(made.as_fd(), form, "opaque", b"y").map_err(|e| failed("mark", dir, e)),
            None => Ok(()),
        }
    }

    fn file(&mut self, path: &Path, shown: &[u8]) -> Result<(), WriteError> {
        let name = self.enter(path, shown)?;
        let (from, to) = self.entered(shown)?;
        remove(to, &name, shown)?;
        let linked = match self.contents {
            Contents::Link => rustix::fs::linkat(from, &name, to, &name, AtFlags::empty()),
            Contents::Copy => Err(Errno::XDEV),
        };
        match linked {
            // All the names it may have, a file of another file system, or one that this user may not give a name.
            Err(Errno::MLINK | Errno::XDEV | Errno::PERM) => {
                copy_file((from, to), &name, self.copier, Attributes::Own)
                    .map_err(|e| failed("copy", shown, e))
            }
            linked => linked.map_err(|e| failed("link", shown, e)),
        }
    }

    fn metadata_of_root(&mut self) -> Result<(), WriteError> {
        let open = |root: &RootFd| {
            rustix::fs::openat(root, ".", DIRECTORY, Mode::empty()).map_err(|e| failed("open", b"/", e))
        };
        let (from, to) = (open(self.layer)?, open(self.out)?);
        let stat = copy_directory(&from, &to, Attributes::Own);
        let stat = stat.map_err(|e| failed("copy metadata of", b"/", e))?;
        self.dirs.push((PathBuf::from("/"), stat));
        Ok(())
    }

    fn set_times(&self) -> Result<(), WriteError> {
        for (path, stat) in &self.dirs {
            let shown = path.as_os_str().as_bytes();
            let dir = self.out.open_in(path, DIRECTORY, Mode::empty());
            let dir = dir.map_err(|e| beneath("open", shown, e))?;
            rustix::fs::futimens(&dir, &timestamps(stat)).map_err(|e| failed("set times", shown, e))?;
        }
        Ok(())
    }
}

/// Sets an attribute of overlayfs; the directory need not be open for reading.
fn mark(dir: BorrowedFd<'_>, form: Form, name: &str, value: &[u8]) -> Result<(), Errno> {
    let name = [form.xattr_prefix(), name].concat();
    rustix::fs::setxattr(path_in(dir, OsStr::new(".")), name, value, XattrFlags::empty())
}

fn remove(dir: BorrowedFd<'_>, name: &OsStr, shown: &[u8]) -> Result<(), WriteError> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {
            let removed = remove_tree(dir, name, None).map(drop);
            removed.map_err(|e| failed("remove", shown, e.errno().unwrap_or(Errno::IO)))
        }
        Err(error) => Err(failed("remove", shown, error)),
    }
}

/// Which extended attributes are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attributes {
    /// Those that a file has by itself, not those by which overlayfs marks what a layer hides.
    Own,
    /// All of them.
    All,
}

impl Attributes {
    fn has(self, name: &[u8]) -> bool {
        self == Self::All || !is_overlays(name)
    }
}

/// Owner, mode and attributes, which are then those of `from` alone; its times are given.
pub(super) fn copy_directory(from: &OwnedFd, to: &OwnedFd, attributes: Attributes) -> Result<Stat, Errno> {
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchown(
        to,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    for name in list_xattrs(to)? {
        if !is_overlays(&name) {
            allowed(rustix::fs::fremovexattr(to, name.as_slice()))?;
        }
    }
    copy_xattrs(&own_path(from), &own_path(to), attributes)?;
    Ok(stat)
}

/// A file that is no directory, with everything that belongs to it; the name must be free.
pub(super) fn copy_file(
    (from, to): (BorrowedFd<'_>, BorrowedFd<'_>),
    name: &OsStr,
    copier: &DataCopier,
    attributes: Attributes,
) -> Result<(), Errno> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let (kind, mode) = (
        FileType::from_raw_mode(stat.st_mode),
        Mode::from_raw_mode(stat.st_mode & 0o7777),
    );
    match kind {
        FileType::RegularFile => {
            let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let source = open_regular(from, name)?;
            let made = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | flags;
            let made = rustix::fs::openat(to, name, made, Mode::RUSR | Mode::WUSR)?;
            let stat = rustix::fs::fstat(&source)?;
            if stat.st_size > 0 {
                copier.copy(&source, &stat, &made).map_err(|error| match error {
                    DataError::Read(errno) | DataError::Write(errno) => errno,
                })?;
            }
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new());
            // What is no link any more is not there as one.
            let target = target.map_err(|e| if e == Errno::INVAL { Errno::NOENT } else { e })?;
            rustix::fs::symlinkat(&target, to, name)?;
        }
        FileType::Directory => return Err(Errno::NOENT),
        _ => rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?,
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if kind != FileType::Symlink {
        // The name was free a moment ago, and nobody else works in this directory.
        rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
    }
    copy_xattrs(&path_in(from, name), &path_in(to, name), attributes)?;
    rustix::fs::utimensat(to, name, &timestamps(&stat), AtFlags::SYMLINK_NOFOLLOW)
}

/// Opens for reading what is a regular file at that moment: a device that somebody puts into its place is not touched.
fn open_regular(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&held)?.st_mode) != FileType::RegularFile {
        return Err(Errno::NOENT);
    }
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// By paths through `/proc`, of which the last part is not followed: links and pipes cannot be opened to be asked.
fn copy_xattrs(from: &Path, to: &Path, attributes: Attributes) -> Result<(), Errno> {
    let mut buffer = vec![0; 1 << 16];
    let length = match rustix::fs::llistxattr(from, &mut buffer[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    for name in names_of(&buffer[..length]) {
        if !attributes.has(&name) {
            continue;
        }
        let mut value = vec![0; 1 << 16];
        let length = match rustix::fs::lgetxattr(from, name.as_slice(), &mut value[..]) {
            Err(Errno::NODATA) => continue,
            length => length?,
        };
        let set = rustix::fs::lsetxattr(to, name.as_slice(), &value[..length], XattrFlags::empty());
        // Owners may be recorded in these.
        let is_needed = name.starts_with(b"user.") || name == b"security.capability";
        if is_needed { set? } else { allowed(set)? }
    }
    Ok(())
}

fn is_overlays(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Attributes that are not for this user are no part of a layer either.
const fn allowed(done: Result<(), Errno>) -> Result<(), Errno> {
    match done {
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::NODATA) => Ok(()),
        done => done,
    }
}

/// A held directory by a path that ends in it.
fn own_path(dir: &OwnedFd) -> PathBuf {
    path_in(dir.as_fd(), OsStr::new("."))
}

pub(super) fn path_in(dir: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name)
}

#[cfg(test)]
mod tests;
