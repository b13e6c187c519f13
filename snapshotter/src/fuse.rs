//! Overlays that the program `fuse-overlayfs` shows, for kernels and file systems that mount none in a user namespace, and
//! its marks in an upper directory as those that the kernel's overlay makes.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rbuild_sys::overlay::{Form, OverlaySpec};
use rbuild_sys::{RootFd, TreeEntry, TreeError, walk_tree};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::stack::StackError;

/// The program, looked for in `PATH`.
const PROGRAM: &str = "fuse-overlayfs";
/// Its files for a directory that hides what is below.
const OPAQUE_FILES: [&[u8]; 2] = [b".wh..opq", b".wh..wh..opq"];
/// Its files for names that are gone, where it cannot make devices.
const WHITEOUT: &[u8] = b".wh.";
/// Attributes that mark a directory which hides what is below, whoever made it.
const OPAQUE: [&str; 3] = [
    "user.fuseoverlayfs.opaque",
    "user.overlay.opaque",
    "trusted.overlay.opaque",
];
/// Its other attributes.
const OWN: [&str; 2] = ["user.fuseoverlayfs.origin", "user.fuseoverlayfs.redirect"];
/// Longest text of it that is shown.
const TOLD_MAX: usize = 512;

/// A mount in this process's mount namespace, gone at the latest with it.
#[derive(Debug)]
pub(crate) struct Mounted {
    /// Empty when it is not mounted any more.
    at: PathBuf,
}

impl Mounted {
    /// Mounts the stack on `at`.
    pub(crate) fn new(spec: &OverlaySpec, at: &Path) -> Result<Self, StackError> {
        let fail = |source| StackError::Io {
            verb: "run fuse-overlayfs for",
            path: at.to_owned(),
            source,
        };
        let ran = Command::new(PROGRAM)
            .arg("-o")
            .arg(options(spec).map_err(fail)?)
            .arg(at)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .and_then(started)
            .map_err(fail)?;
        match ran {
            None => Ok(Self { at: at.to_owned() }),
            Some(told) => Err(fail(io::Error::other(told))),
        }
    }

    pub(crate) fn unmount(mut self) -> Result<(), StackError> {
        let at = std::mem::take(&mut self.at);
        rustix::mount::unmount(&at, UnmountFlags::empty()).map_err(|error| StackError::Io {
            verb: "unmount",
            path: at,
            source: error.into(),
        })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !self.at.as_os_str().is_empty() {
            // Whoever still uses it keeps it until then.
            rustix::mount::unmount(&self.at, UnmountFlags::DETACH).ok();
        }
    }
}

/// Waits for the program to go into the background, which it does when the mount is there; gives what it said if it failed.
fn started(mut child: std::process::Child) -> io::Result<Option<String>> {
    use std::io::Read as _;
    let status = child.wait()?;
    if status.success() {
        return Ok(None);
    }
    let mut told = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(TOLD_MAX as u64).read_to_end(&mut told)?;
    }
    let told = String::from_utf8_lossy(&told);
    Ok(Some(format!("{status}: {}", told.trim())))
}

fn options(spec: &OverlaySpec) -> io::Result<OsString> {
    let mut text = OsString::from("lowerdir=");
    for (at, lower) in spec.lowers.iter().enumerate() {
        if at > 0 {
            text.push(":");
        }
        text.push(plain(lower)?);
    }
    if let Some((upper, work)) = &spec.upper_work {
        text.push(",upperdir=");
        text.push(plain(upper)?);
        text.push(",workdir=");
        text.push(plain(work)?);
    }
    Ok(text)
}

/// Paths go into a list of options, in which some bytes mean something.
fn plain(path: &Path) -> io::Result<&OsStr> {
    let path = path.as_os_str();
    if path.as_bytes().iter().any(|byte| b":,\\\"".contains(byte)) {
        let text = format!("{path:?} has one of : , \\ in it, which fuse-overlayfs cannot be given");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(path)
}

/// Makes an upper directory that the program left what overlayfs would have left.
pub(crate) fn translate(upper: &Path, form: Form) -> Result<(), StackError> {
    let fail = |source| StackError::Io {
        verb: "read what fuse-overlayfs left in",
        path: upper.to_owned(),
        source,
    };
    let root = RootFd::open(upper).map_err(|error| fail(io::Error::other(error)))?;
    let walked = walk_tree(root.as_fd(), (), |(): &(), entry| {
        translate_one(entry, form).map_err(|errno| TreeFailure(errno.into()))
    });
    walked.map_err(|TreeFailure(source)| fail(source))
}

fn translate_one(entry: &TreeEntry<'_>, form: Form) -> Result<(), Errno> {
    let name = entry.name.as_bytes();
    if OPAQUE_FILES.contains(&name) {
        mark_opaque(entry.dir, form)?;
        return rustix::fs::unlinkat(entry.dir, entry.name, AtFlags::empty());
    }
    if let Some(gone) = name.strip_prefix(WHITEOUT) {
        rustix::fs::unlinkat(entry.dir, entry.name, AtFlags::empty())?;
        return match rustix::fs::mknodat(entry.dir, gone, FileType::CharacterDevice, Mode::empty(), 0) {
            Err(Errno::EXIST) => Ok(()),
            made => made,
        };
    }
    if FileType::from_raw_mode(entry.stat.st_mode) != FileType::Directory {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(entry.dir, entry.name, flags, Mode::empty())?;
    let mut opaque = false;
    for mark in OPAQUE {
        opaque |= forget(dir.as_fd(), mark)?;
    }
    for own in OWN {
        forget(dir.as_fd(), own)?;
    }
    if opaque {
        mark_opaque(dir.as_fd(), form)
    } else {
        Ok(())
    }
}

fn mark_opaque(dir: BorrowedFd<'_>, form: Form) -> Result<(), Errno> {
    let mark = CString::new(format!("{}opaque", form.xattr_prefix())).map_err(|_| Errno::INVAL)?;
    rustix::fs::fsetxattr(dir, &*mark, b"y", XattrFlags::empty())
}

/// Takes an attribute away; whether it was there.
fn forget(dir: BorrowedFd<'_>, name: &str) -> Result<bool, Errno> {
    match rustix::fs::fremovexattr(dir, name) {
        Ok(()) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => Ok(false),
        Err(error) => Err(error),
    }
}

struct TreeFailure(io::Error);

impl From<TreeError> for TreeFailure {
    fn from(error: TreeError) -> Self {
        Self(io::Error::other(error))
    }
}
