//! Directories whose children are being hashed: what is known so far, and folding a finished one into its parent,
//! upwards without recursion.

use std::ffi::CString;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FileType, Stat, major, minor};
use sha2::{Digest as _, Sha256};

/// Bytes of an entry's header.
const HEADER_BYTES: usize = 33;

/// Type, mode, owner, size and device numbers as they are hashed.
pub(super) type Header = [u8; HEADER_BYTES];

pub(super) fn header(stat: &Stat, as_parent: bool) -> Header {
    let kind = FileType::from_raw_mode(stat.st_mode);
    // A socket is copied as an empty file, so it is hashed as one.
    let (tag, size) = match kind {
        FileType::RegularFile => (b'f', u64::try_from(stat.st_size).unwrap_or(0)),
        FileType::Socket => (b'f', 0),
        FileType::Directory if as_parent => (b'p', 0),
        FileType::Directory => (b'd', 0),
        FileType::Symlink => (b'l', u64::try_from(stat.st_size).unwrap_or(0)),
        FileType::CharacterDevice => (b'c', 0),
        FileType::BlockDevice => (b'b', 0),
        FileType::Fifo => (b'q', 0),
        FileType::Unknown => (b'?', 0),
    };
    let mode = if kind == FileType::Symlink {
        0o777
    } else {
        stat.st_mode & 0o7777
    };
    let is_device = matches!(tag, b'c' | b'b');
    let (major, minor) = if is_device {
        (major(stat.st_rdev), minor(stat.st_rdev))
    } else {
        (0, 0)
    };
    let mut out = [0; HEADER_BYTES];
    out[0] = tag;
    out[1..5].copy_from_slice(&mode.to_le_bytes());
    out[5..9].copy_from_slice(&stat.st_uid.to_le_bytes());
    out[9..13].copy_from_slice(&stat.st_gid.to_le_bytes());
    out[13..21].copy_from_slice(&size.to_le_bytes());
    out[21..25].copy_from_slice(&major.to_le_bytes());
    out[25..29].copy_from_slice(&minor.to_le_bytes());
    out
}

/// A child of a directory, or the start of the match.
#[derive(Debug)]
pub(super) struct Slot {
    name: CString,
    pub(super) header: Header,
    pub(super) digest: [u8; 32],
}

/// A directory whose children are being found out. The start of the match hangs in one too.
#[derive(Debug)]
pub(super) struct Node {
    /// Children not known, and one for the walk while it is inside.
    pub(super) unknown: AtomicUsize,
    /// Digest of its own attributes.
    leaf: [u8; 32],
    pub(super) slots: Mutex<Vec<Slot>>,
    parent: Mutex<Option<(Arc<Node>, usize)>>,
}

impl Node {
    pub(super) fn new(leaf: [u8; 32], parent: Option<(Arc<Self>, usize)>) -> Arc<Self> {
        Arc::new(Self {
            unknown: AtomicUsize::new(1),
            leaf,
            slots: Mutex::new(Vec::new()),
            parent: Mutex::new(parent),
        })
    }

    pub(super) fn add(&self, name: CString, header: Header, digest: [u8; 32]) -> usize {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.push(Slot { name, header, digest });
        slots.len() - 1
    }

    pub(super) fn fill(&self, at: usize, header: Option<Header>, digest: [u8; 32]) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots[at].digest = digest;
        if let Some(header) = header {
            slots[at].header = header;
        }
    }

    fn digest(&self) -> [u8; 32] {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hasher = Sha256::new();
        hasher.update(b"rbuild dir 1\0");
        hasher.update(self.leaf);
        for slot in slots.drain(..) {
            super::framed(&mut hasher, slot.name.as_bytes());
            hasher.update(slot.header);
            hasher.update(slot.digest);
        }
        hasher.finalize().into()
    }

    /// `count` children, or the walk, are done. A directory with nothing unknown is folded into its parent, and so
    /// on upwards, without recursion.
    pub(super) fn done(self: &Arc<Self>, count: usize) {
        let mut node = Arc::clone(self);
        let mut count = count;
        while node.unknown.fetch_sub(count, Ordering::AcqRel) == count {
            let parent = node.parent.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some((parent, at)) = parent else {
                return;
            };
            parent.fill(at, None, node.digest());
            node = parent;
            count = 1;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A deep tree that was given up would free its parents one inside the other.
        let mut parent = self
            .parent
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        while let Some((node, _)) = parent {
            let Some(mut node) = Arc::into_inner(node) else {
                return;
            };
            parent = node
                .parent
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
        }
    }
}
