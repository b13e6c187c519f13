//! Puts entries of an archive into a directory. One engine for layers ([`crate::unpack`]) and for archives that
//! `ADD` opens ([`crate::extract`]); the two differ in [`Policy`] alone.
//!
//! Nothing is ever looked up by a path of the host. Every look-up starts at one held descriptor and goes down one
//! component at a time with `O_NOFOLLOW` (or all at once with `openat2` and `RESOLVE_NO_SYMLINKS`); links met on
//! the way are resolved by hand, inside the root. What stands in an entry's way is removed, never written through.

mod metadata;
mod parents;
mod remove;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rbuild_sys::overlay::Form;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::entry::{AUFS_PREFIX, Entry, EntryKind, OPAQUE_NAME, Time, WHITEOUT_PREFIX};
use crate::reader::{Piece, ReadError, TarReader, printable};

pub(crate) use metadata::{DEVICE_XATTR, kept_xattr};

/// What to do with device nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DevicePolicy {
    /// Make them. Only real root can; elsewhere unpacking fails with the entry's name.
    Make,
    /// Keep each as an empty regular file that carries the device in the attribute `user.rbuild.device`;
    /// [`crate::write_tar`] turns it back into the device entry. A step sees an empty file.
    Record,
}

impl DevicePolicy {
    /// What the privileges that go with `form` allow.
    #[must_use]
    pub const fn for_form(form: Form) -> Self {
        match form {
            Form::Trusted => Self::Make,
            Form::User => Self::Record,
        }
    }
}

/// Why an archive could not be put into a directory. What was made until then stays; the caller removes it.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The archive could not be read, or passes a limit.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The kernel refused something.
    #[error("entry {path:?}: {verb}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The entry, printable.
        path: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Something else than a directory wants to be the root.
    #[error("entry {path:?} would replace the root directory")]
    ReplacesRoot {
        /// The entry, printable.
        path: String,
    },
    /// A whiteout of nothing, of `.` or of `..`.
    #[error("entry {path:?} is not a valid whiteout")]
    BadWhiteout {
        /// The entry, printable.
        path: String,
    },
    /// An entry below a name that is reserved for whiteouts.
    #[error("entry {path:?} lies below a whiteout")]
    BelowWhiteout {
        /// The entry, printable.
        path: String,
    },
    /// A character device 0:0, which overlayfs would take as a whiteout.
    #[error("entry {path:?} is a character device 0:0")]
    ForgedWhiteout {
        /// The entry, printable.
        path: String,
    },
    /// A hard link to nothing in this archive's root, to a directory or to itself.
    #[error("entry {path:?}: hard link target {target:?} {reason}")]
    HardLink {
        /// The entry, printable.
        path: String,
        /// The target, printable.
        target: String,
        /// Why it cannot be linked to.
        reason: &'static str,
    },
    /// More missing parents than the limit allows.
    #[error("entry {path:?}: archive leaves out more than {max} directories")]
    TooManyImplied {
        /// The entry, printable.
        path: String,
        /// The limit.
        max: usize,
    },
    /// Paths of directories, which are kept until the archive ends, that are too long together.
    #[error(
        "entry {path:?}: the paths of the archive's directories pass the limit of {max} bytes; --archive-limits=directories=NUMBER allows more"
    )]
    DirectoryPaths {
        /// The entry, printable.
        path: String,
        /// The limit.
        max: usize,
    },
}

/// Bytes that the path of a directory may have, on average of as many as an archive may leave out, and what else is kept of one.
const PATH_BYTES: usize = 256;
const KEPT_BYTES: usize = 64;

/// Writes what comes next of a file. Its holes stay holes.
fn write_piece(mut file: &File, piece: Piece<'_>) -> io::Result<()> {
    match piece {
        Piece::Bytes(bytes) => file.write_all(bytes),
        Piece::Hole(bytes) => {
            let bytes = i64::try_from(bytes).map_err(|_too_many| io::ErrorKind::FileTooLarge)?;
            let end = file.seek(SeekFrom::Current(bytes))?;
            file.set_len(end)
        }
    }
}

/// How an archive's entries are meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// `.wh.` names are whiteouts, kept in this form. Without it they are names like any other.
    pub(crate) whiteouts: Option<Form>,
    pub(crate) devices: DevicePolicy,
    /// Owner of everything, in place of the archive's.
    pub(crate) chown: Option<(u32, u32)>,
    pub(crate) max_implied: usize,
}

/// Counts and side results of one archive.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) implied: Vec<PathBuf>,
    pub(crate) root_opaque: bool,
    pub(crate) skipped_xattrs: u64,
}

pub(crate) struct Applier {
    root: OwnedFd,
    policy: Policy,
    /// The last directory used, by the path it was asked for.
    cached: Option<(Vec<u8>, Arc<OwnedFd>)>,
    /// Times of directories, set when nothing changes them any more. The last entry of a path counts.
    times: BTreeMap<Vec<u8>, Time>,
    /// Bytes of the paths in there, and of those that were left out.
    kept_bytes: usize,
    /// The inode of this layer's whiteouts, once there is one.
    whiteout: Option<OwnedFd>,
    outcome: Outcome,
}

/// Reads all of `reader` into `root`.
pub(crate) fn apply_all<R: Read>(
    reader: &mut TarReader<R>,
    root: BorrowedFd<'_>,
    policy: Policy,
) -> Result<Outcome, ApplyError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(root, ".", flags, Mode::empty()).map_err(|e| failed("open", b"/", e))?;
    let mut applier = Applier {
        root,
        policy,
        cached: None,
        times: BTreeMap::new(),
        kept_bytes: 0,
        whiteout: None,
        outcome: Outcome::default(),
    };
    while let Some(entry) = reader.next_entry()? {
        applier.apply(&entry, reader)?;
    }
    applier.set_directory_times()?;
    Ok(applier.outcome)
}

impl Applier {
    fn apply<R: Read>(&mut self, entry: &Entry, content: &mut TarReader<R>) -> Result<(), ApplyError> {
        let parts = normalise(&entry.path);
        let Some((name, parents)) = parts.split_last() else {
            return match entry.kind {
                // containerd ignores what an archive says of its root (pkg/archive/tar.go, "resolved to root").
                EntryKind::Directory => Ok(()),
                _ => Err(ApplyError::ReplacesRoot {
                    path: printable(&entry.path),
                }),
            };
        };
        let at = At {
            path: &entry.path,
            name,
        };
        if let Some(form) = self.policy.whiteouts {
            if let Some(bad) = parents.iter().find(|part| part.starts_with(WHITEOUT_PREFIX)) {
                // aufs' own directories were never content; Docker skips them, too.
                if bad.starts_with(AUFS_PREFIX) && *bad != OPAQUE_NAME {
                    return Ok(());
                }
                return Err(ApplyError::BelowWhiteout {
                    path: printable(&entry.path),
                });
            }
            if name.starts_with(WHITEOUT_PREFIX) {
                return self.apply_whiteout(at, parents, form);
            }
        }
        let parent = self.directory(parents, at.path)?;
        let parent = parent.as_fd();
        match &entry.kind {
            EntryKind::File { .. } => {
                let file = self.create_file(parent, at)?;
                let file = File::from(file);
                let failed = |source| io_failed("write", at.path, source);
                content.copy_content(|piece| write_piece(&file, piece).map_err(failed))?;
                self.set_on_fd(file.as_fd(), entry, true)
            }
            EntryKind::Directory => {
                let dir = self.create_directory(parent, at)?;
                self.set_on_fd(dir.as_fd(), entry, false)?;
                let path = parts.join(&b'/');
                self.keep(&path, at.path)?;
                self.times.insert(path.clone(), entry.mtime.bounded());
                self.cached = Some((path, Arc::new(dir)));
                Ok(())
            }
            EntryKind::Symlink { target } => {
                let make = || rbuild_sys::owner::make_link(target, parent, *name);
                self.create(parent, at, "make symbolic link", make)?;
                self.set_on_name(parent, at, entry)
            }
            EntryKind::HardLink { target } => self.apply_hard_link(parent, at, entry, target),
            EntryKind::Fifo => self.make_node(parent, at, entry, FileType::Fifo, 0),
            EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) => {
                let block = matches!(entry.kind, EntryKind::BlockDevice(_));
                if !block && device.is_whiteout() {
                    return Err(ApplyError::ForgedWhiteout {
                        path: printable(at.path),
                    });
                }
                if self.policy.devices == DevicePolicy::Record {
                    let file = self.create_file(parent, at)?;
                    self.record_device(file.as_fd(), at, block, *device)?;
                    return self.set_on_fd(file.as_fd(), entry, true);
                }
                let kind = if block {
                    FileType::BlockDevice
                } else {
                    FileType::CharacterDevice
                };
                let number = rustix::fs::makedev(device.major, device.minor);
                self.make_node(parent, at, entry, kind, number)
            }
        }
    }

    /// Counts a path that is kept until the archive ends: a short entry may name thousands of directories, each with a longer path.
    fn keep(&mut self, path: &[u8], entry: &[u8]) -> Result<(), ApplyError> {
        let max = self.policy.max_implied.saturating_mul(PATH_BYTES);
        self.kept_bytes = self.kept_bytes.saturating_add(path.len() + KEPT_BYTES);
        if self.kept_bytes <= max {
            return Ok(());
        }
        Err(ApplyError::DirectoryPaths {
            path: printable(entry),
            max,
        })
    }

    fn make_node(
        &mut self,
        parent: BorrowedFd<'_>,
        at: At<'_>,
        entry: &Entry,
        kind: FileType,
        number: u64,
    ) -> Result<(), ApplyError> {
        let mode = Mode::from_raw_mode(0o600);
        self.create(parent, at, "make node", || {
            rustix::fs::mknodat(parent, at.name, kind, mode, number)
        })?;
        self.set_on_name(parent, at, entry)
    }

    /// `.wh.name` or `.wh..wh..opq`: hides what lower layers have, never what this one has, in any order.
    fn apply_whiteout(&mut self, at: At<'_>, parents: &[&[u8]], form: Form) -> Result<(), ApplyError> {
        if at.name == OPAQUE_NAME {
            let parent = self.directory(parents, at.path)?;
            self.outcome.root_opaque |= parents.is_empty();
            return set_opaque(parent.as_fd(), form, at.path);
        }
        if at.name.starts_with(AUFS_PREFIX) {
            return Ok(());
        }
        let hidden = &at.name[WHITEOUT_PREFIX.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(ApplyError::BadWhiteout {
                path: printable(at.path),
            });
        }
        let parent = self.directory(parents, at.path)?;
        match self.make_whiteout(parent.as_fd(), hidden) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match rustix::fs::openat(&*parent, hidden, flags, Mode::empty()) {
                    Ok(dir) => set_opaque(dir.as_fd(), form, at.path),
                    // A file of this layer hides lower ones by being there.
                    Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                    Err(e) => Err(failed("open", at.path, e)),
                }
            }
            Err(e) => Err(failed("make whiteout", at.path, e)),
        }
    }

    /// All whiteouts of a layer are one inode, as overlayfs itself has it: on ext4 a link costs a tenth of a node.
    fn make_whiteout(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        if let Some(whiteout) = &self.whiteout {
            let held = format!("/proc/self/fd/{}", whiteout.as_raw_fd());
            match rustix::fs::linkat(CWD, held, parent, name, AtFlags::SYMLINK_FOLLOW) {
                // Too many links, or all of them were replaced by entries: a new node, then.
                Err(Errno::MLINK | Errno::NOENT) => {}
                other => return other,
            }
        }
        rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.whiteout = Some(rustix::fs::openat(parent, name, flags, Mode::empty())?);
        Ok(())
    }

    fn create_file(&mut self, parent: BorrowedFd<'_>, at: At<'_>) -> Result<OwnedFd, ApplyError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        self.create(parent, at, "create", || {
            rustix::fs::openat(parent, at.name, flags, mode)
        })
    }

    /// Makes a directory, or takes the one that is there.
    fn create_directory(&mut self, parent: BorrowedFd<'_>, at: At<'_>) -> Result<OwnedFd, ApplyError> {
        let open = || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(parent, at.name, flags, Mode::empty())
        };
        let mode = Mode::from_raw_mode(0o700);
        let made = match rustix::fs::mkdirat(parent, at.name, mode) {
            Ok(()) => open(),
            Err(Errno::EXIST) => match open() {
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let whiteout = self.clear_way(parent, at)?;
                    rustix::fs::mkdirat(parent, at.name, mode)
                        .map_err(|e| failed("make directory", at.path, e))?;
                    let dir = open().map_err(|e| failed("open", at.path, e))?;
                    if let (true, Some(form)) = (whiteout, self.policy.whiteouts) {
                        set_opaque(dir.as_fd(), form, at.path)?;
                    }
                    return Ok(dir);
                }
                other => other,
            },
            Err(e) => Err(e),
        };
        made.map_err(|e| failed("make directory", at.path, e))
    }

    /// Runs `make`; when something stands in the way, removes it and runs it once more.
    fn create<T>(
        &mut self,
        parent: BorrowedFd<'_>,
        at: At<'_>,
        verb: &'static str,
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, ApplyError> {
        match make() {
            Err(Errno::EXIST) => {
                self.clear_way(parent, at)?;
                make().map_err(|e| failed(verb, at.path, e))
            }
            other => other.map_err(|e| failed(verb, at.path, e)),
        }
    }

    /// Removes what has the entry's name. Whether it was a whiteout (which only this archive can have made).
    fn clear_way(&mut self, parent: BorrowedFd<'_>, at: At<'_>) -> Result<bool, ApplyError> {
        let stat = rustix::fs::statat(parent, at.name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed("stat", at.path, e))?;
        self.cached = None;
        remove::remove(parent, at.name).map_err(|e| failed("remove what is in the way", at.path, e))?;
        Ok(is_whiteout(&stat))
    }

    fn apply_hard_link(
        &mut self,
        parent: BorrowedFd<'_>,
        at: At<'_>,
        entry: &Entry,
        target: &[u8],
    ) -> Result<(), ApplyError> {
        let refuse = |reason| ApplyError::HardLink {
            path: printable(at.path),
            target: printable(target),
            reason,
        };
        let parts = normalise(target);
        let Some((target_name, target_parents)) = parts.split_last() else {
            return Err(refuse("is the root directory"));
        };
        let target_dir = match self.existing_directory(target_parents) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(refuse("is not in this archive")),
            Err(e) => return Err(failed("open hard link target", at.path, e)),
        };
        let stat = match rustix::fs::statat(&*target_dir, *target_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Err(refuse("is not in this archive")),
            Err(e) => return Err(failed("stat hard link target", at.path, e)),
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(refuse("is a directory"));
        }
        if self.policy.whiteouts.is_some() && is_whiteout(&stat) {
            return Err(refuse("is not in this archive"));
        }
        let link = || rustix::fs::linkat(&*target_dir, *target_name, parent, at.name, AtFlags::empty());
        match link() {
            Err(Errno::EXIST) => {
                let there = rustix::fs::statat(parent, at.name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|e| failed("stat", at.path, e))?;
                if (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino) {
                    if stat.st_nlink == 1 {
                        return Err(refuse("is itself"));
                    }
                } else {
                    self.clear_way(parent, at)?;
                    link().map_err(|e| match e {
                        Errno::NOENT => refuse("was replaced by the link"),
                        e => failed("make hard link", at.path, e),
                    })?;
                }
            }
            other => other.map_err(|e| failed("make hard link", at.path, e))?,
        }
        self.set_on_name(parent, at, entry)
    }

    /// Directory times, parents before children; whatever is no directory any more is left alone.
    fn set_directory_times(&mut self) -> Result<(), ApplyError> {
        for (path, time) in std::mem::take(&mut self.times) {
            let parts = normalise(&path);
            let dir = match self.existing_directory(&parts) {
                Ok(dir) => dir,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(e) => return Err(failed("open", &path, e)),
            };
            rustix::fs::futimens(&*dir, &metadata::timestamps(time))
                .map_err(|e| failed("set times", &path, e))?;
        }
        Ok(())
    }
}

/// An entry by its path as written (for messages) and its own name.
#[derive(Clone, Copy)]
struct At<'a> {
    path: &'a [u8],
    name: &'a [u8],
}

/// The components of a path: no empty ones, no `.`; `..` takes one away and ends at the root (Go: `filepath.Clean`,
/// then joined to the root).
fn normalise(path: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn set_opaque(dir: BorrowedFd<'_>, form: Form, path: &[u8]) -> Result<(), ApplyError> {
    let name = format!("{}opaque", form.xattr_prefix());
    rustix::fs::fsetxattr(dir, name.as_str(), b"y", rustix::fs::XattrFlags::empty())
        .map_err(|e| failed("mark directory opaque", path, e))
}

fn failed(verb: &'static str, path: &[u8], errno: Errno) -> ApplyError {
    io_failed(verb, path, errno.into())
}

fn io_failed(verb: &'static str, path: &[u8], source: io::Error) -> ApplyError {
    ApplyError::Io {
        verb,
        path: printable(path),
        source,
    }
}
