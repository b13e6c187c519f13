//! Removing a tree, by descriptors and without recursion: any depth, no link followed, nothing outside reached when
//! names are exchanged meanwhile.

use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use crate::dirstack::{DIR_FLAGS, DirId, DirStack, Lost};
use crate::walk::{Listed, list};

struct Frame {
    name: CString,
    names: Vec<Listed>,
}

/// Removes `name` in `dir` and everything below it. What is not there is removed already.
pub(crate) fn remove_tree(dir: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
    let mut stack: DirStack<Frame> = DirStack::new();
    if let Some((fd, frame)) = remove_or_open(dir, &name, FileType::Unknown)? {
        push(&mut stack, fd, frame)?;
    }
    while let Some((fd, frame)) = stack.top() {
        if let Some(next) = frame.names.pop() {
            let fd = Arc::clone(fd);
            if let Some((below, frame)) = remove_or_open(&fd, &next.name, next.kind)? {
                push(&mut stack, below, frame)?;
            }
            continue;
        }
        let left = stack.pop().map_err(errno)?;
        if let Some((_, frame)) = left {
            let removed = match stack.top() {
                Some((parent, _)) => rustix::fs::unlinkat(&**parent, &frame.name, AtFlags::REMOVEDIR),
                None => rustix::fs::unlinkat(dir, &frame.name, AtFlags::REMOVEDIR),
            };
            match removed {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

fn push(stack: &mut DirStack<Frame>, fd: OwnedFd, frame: Frame) -> Result<(), Errno> {
    let id = DirId::of(&rbuild_sys::owner::fstat(&fd)?);
    stack.push(frame.name.clone(), Arc::new(fd), id, frame);
    Ok(())
}

fn errno(lost: Lost) -> Errno {
    match lost {
        Lost::Errno(errno) => errno,
        Lost::Moved => Errno::STALE,
    }
}

/// Removes what is no directory; opens and lists what is one.
fn remove_or_open(dir: &OwnedFd, name: &CString, kind: FileType) -> Result<Option<(OwnedFd, Frame)>, Errno> {
    if kind != FileType::Directory {
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(None),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(e) => return Err(e),
        }
    }
    let fd = match rustix::fs::openat(dir, name, DIR_FLAGS, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        // Not a directory after all: then the refusal to unlink it was final.
        Err(Errno::NOTDIR | Errno::LOOP) => {
            rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    let names = list(&fd, usize::MAX)?;
    Ok(Some((
        fd,
        Frame {
            name: name.clone(),
            names,
        },
    )))
}
