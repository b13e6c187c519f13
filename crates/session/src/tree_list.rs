//! The list of a tree as `fsutil` sends it: every entry once, parents before children, names sorted as bytes
//! (`fsutil/fs.go`, `stat.go`). Reads no content.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::vec::IntoIter;

use prost::bytes::Bytes;
use rbuild_sys::RootFd;
use rustix::fs::{AtFlags, FileType, Stat as Status};
use rustix::io::Errno;

use crate::beneath::{self, join};
use crate::file_mode;
use crate::sync::as_path;
use crate::tree_select::{Above, Selection};
use crate::wire::{Stat, Xattr};

/// Directory descriptors that are held; those above are opened again on the way back.
const HELD_MAX: usize = 32;
/// Most bytes of one attribute and of a list of names; the kernel's limits.
const XATTR_BYTES_MAX: usize = 64 << 10;
const NANOS: i64 = 1_000_000_000;

/// Why a tree could not be listed or read.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {path:?}")]
pub struct ReadTreeError {
    /// What was tried.
    pub verb: &'static str,
    /// Path in the tree.
    pub path: PathBuf,
    /// The kernel's answer.
    #[source]
    pub source: std::io::Error,
}

/// Goes through a tree.
#[derive(Debug)]
pub(crate) struct TreeList<'r> {
    root: &'r RootFd,
    selection: &'r Selection,
    above: Vec<Frame>,
    /// Entries that come next: directories that are sent for what is in them, and that.
    ready: VecDeque<Stat>,
    /// First path of each file with several names.
    linked: HashMap<(u64, u64), Vec<u8>>,
}

#[derive(Debug)]
struct Frame {
    path: Vec<u8>,
    fd: Option<OwnedFd>,
    names: IntoIter<Box<[u8]>>,
    said: Above,
    /// The directory itself, while nothing that is selected was found in it.
    unsent: Option<Stat>,
}

impl<'r> TreeList<'r> {
    pub(crate) fn new(root: &'r RootFd, selection: &'r Selection) -> Result<Self, ReadTreeError> {
        let mut list = Self {
            root,
            selection,
            above: Vec::new(),
            ready: VecDeque::new(),
            linked: HashMap::new(),
        };
        list.enter(Vec::new(), Above::default(), None)?;
        Ok(list)
    }

    /// The next entry; `None` at the end. What disappears meanwhile is left out.
    pub(crate) fn next(&mut self) -> Result<Option<Stat>, ReadTreeError> {
        if let Some(stat) = self.ready.pop_front() {
            return Ok(Some(stat));
        }
        while let Some(frame) = self.above.last_mut() {
            let Some(name) = frame.names.next() else {
                self.above.pop();
                continue;
            };
            let path = join(&frame.path, &name);
            let said = self.selection.judge(&path, &frame.said);
            if !said.is_selected && !said.descend {
                continue;
            }
            if frame.fd.is_none() {
                let fd = beneath::open_dir(self.root.as_fd(), &frame.path);
                frame.fd = Some(fd.map_err(|e| fail("open directory", &path, e))?);
            }
            let Some(fd) = &frame.fd else { continue };
            let status = match rbuild_sys::owner::statat(fd, &*name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(status) => status,
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(fail("stat", &path, e)),
            };
            let mut stat = describe(&status, path);
            if self.selection.as_root {
                (stat.uid, stat.gid) = (0, 0);
            }
            if FileType::from_raw_mode(status.st_mode) != FileType::Directory && !said.is_selected {
                continue;
            }
            match FileType::from_raw_mode(status.st_mode) {
                FileType::Directory => {
                    stat.xattrs = xattrs(fd, &name);
                    let path = stat.path.clone();
                    if !said.is_selected {
                        self.enter(path, said.state, Some(stat))?;
                        continue;
                    }
                    self.announce(stat);
                    self.enter(path, said.state, None)?;
                    return Ok(self.ready.pop_front());
                }
                FileType::Symlink => {
                    let target = rbuild_sys::owner::read_link(fd, &*name)
                        .map_err(|e| fail("read link", &stat.path, e))?;
                    stat.linkname = target.into_bytes();
                }
                kind => {
                    if kind == FileType::RegularFile {
                        stat.xattrs = xattrs(fd, &name);
                    }
                    self.link(&status, &mut stat);
                }
            }
            self.announce(stat);
            return Ok(self.ready.pop_front());
        }
        Ok(None)
    }

    /// The entry comes next, after the directories above it that were not worth sending without it.
    fn announce(&mut self, stat: Stat) {
        let above = self.above.iter_mut().filter_map(|frame| frame.unsent.take());
        self.ready.extend(above);
        self.ready.push_back(stat);
    }

    fn link(&mut self, status: &Status, stat: &mut Stat) {
        if status.st_nlink < 2 {
            return;
        }
        let id = (status.st_dev, status.st_ino);
        match self.linked.get(&id) {
            Some(first) => {
                stat.linkname.clone_from(first);
                stat.size = 0;
            }
            None => {
                self.linked.insert(id, stat.path.clone());
            }
        }
    }

    fn enter(&mut self, path: Vec<u8>, said: Above, unsent: Option<Stat>) -> Result<(), ReadTreeError> {
        let fd = beneath::open_dir(self.root.as_fd(), &path).map_err(|e| fail("open directory", &path, e))?;
        let names = beneath::names(&fd).map_err(|e| fail("list", &path, e))?;
        self.above.push(Frame {
            path,
            fd: Some(fd),
            names: names.into_iter(),
            said,
            unsent,
        });
        if let Some(far) = self.above.len().checked_sub(HELD_MAX + 1) {
            self.above[far].fd = None;
        }
        Ok(())
    }
}

fn describe(status: &Status, path: Vec<u8>) -> Stat {
    let is_dir = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
    let is_device = matches!(
        FileType::from_raw_mode(status.st_mode),
        FileType::CharacterDevice | FileType::BlockDevice
    );
    let (major, minor) = match is_device {
        true => (
            rustix::fs::major(status.st_rdev),
            rustix::fs::minor(status.st_rdev),
        ),
        false => (0, 0),
    };
    Stat {
        path,
        mode: file_mode::from_raw(status.st_mode),
        uid: status.st_uid,
        gid: status.st_gid,
        size: if is_dir { 0 } else { status.st_size },
        mod_time: status
            .st_mtime
            .saturating_mul(NANOS)
            .saturating_add(i64::try_from(status.st_mtime_nsec).unwrap_or(0)),
        linkname: Vec::new(),
        devmajor: major.into(),
        devminor: minor.into(),
        xattrs: Vec::new(),
    }
}

/// Attributes of an entry in a held directory, the overlay's own and Finder's left out. What cannot be read is left
/// out too, as in `fsutil`.
fn xattrs(dir: &OwnedFd, name: &[u8]) -> Vec<Xattr> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let mut probe = [0_u8; 256];
    let names = match rustix::fs::llistxattr(path.as_slice(), &mut probe[..]) {
        Ok(length) => probe[..length].to_vec(),
        Err(Errno::RANGE) => {
            let mut names = vec![0; XATTR_BYTES_MAX];
            match rustix::fs::llistxattr(path.as_slice(), &mut names[..]) {
                Ok(length) => names.truncate(length),
                Err(_) => return Vec::new(),
            }
            names
        }
        Err(_) => return Vec::new(),
    };
    let ours = |name: &&[u8]| {
        let hidden: [&[u8]; 3] = [b"trusted.overlay.", b"user.overlay.", b"com.apple."];
        !name.is_empty() && !hidden.iter().any(|prefix| name.starts_with(prefix))
    };
    let mut found = Vec::new();
    for name in names.split(|b| *b == 0).filter(ours) {
        let mut value = vec![0; XATTR_BYTES_MAX];
        if let Ok(length) = rustix::fs::lgetxattr(path.as_slice(), name, &mut value[..]) {
            value.truncate(length);
            found.push(Xattr {
                name: name.to_vec(),
                value: Bytes::from(value),
            });
        }
    }
    found
}

pub(crate) fn fail(verb: &'static str, path: &[u8], errno: Errno) -> ReadTreeError {
    ReadTreeError {
        verb,
        path: as_path(path),
        source: errno.into(),
    }
}
