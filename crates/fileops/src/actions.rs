//! The actions of a file operation, each on one root: copy, make a directory or file or link, remove
//! (`solver/llbsolver/file/backend.go`). Order, inputs and outputs of the actions are the builder's.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rbuild_dockerfile::glob::has_wildcards;
use rbuild_graph::{ChownOpt, FileActionKind, FileTime, MkDirAction, MkFileAction, RmAction, SymlinkAction};
use rbuild_layer::DevicePolicy;
use rbuild_sys::{RootFd, clean};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use crate::copy::{CopyError, CopyReport, copy};
use crate::dest::{Dest, DestError, NewDir, Place, both, io_error, set_owner, set_times};
use crate::owner::{Owner, OwnerError, resolve};
use crate::remove::remove_tree;
use crate::select::{self, SelectError, Selector};
use crate::source::{LocateError, SourceTree};
use rbuild_sys::data::{DataError, write_all};

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// The owner could not be resolved.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// A copy failed.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A copy has nothing to copy from.
    #[error("copy without a source")]
    NoSource,
    /// The path could not be reached or made.
    #[error(transparent)]
    Dest(#[from] DestError),
    /// What is to be removed could not be found.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// Nothing has the path that is to be removed.
    #[error("{0:?}: no such file or directory")]
    NotFound(PathBuf),
    /// The root itself cannot be removed, written or linked.
    #[error("{0:?} names the root directory")]
    IsRoot(PathBuf),
    /// A file is to be written where a directory or special file is.
    #[error("{0:?} is no regular file")]
    NotRegular(PathBuf),
}

/// Performs one action on `root`.
///
/// `source` is what a copy reads (its secondary input). Owners given by name are looked up in `users`: the changed
/// root itself, or the input the action names for it. `devices` says what becomes of device nodes in an archive that
/// is unpacked.
///
/// # Errors
/// [`ActionError`]; what the action did before it failed stays.
pub fn apply(
    kind: &FileActionKind,
    root: &RootFd,
    source: Option<&SourceTree>,
    users: &RootFd,
    devices: DevicePolicy,
) -> Result<CopyReport, ActionError> {
    let owner = |owner: &Option<ChownOpt>| owner.as_ref().map(|spec| resolve(spec, users)).transpose();
    let one = |files, dirs, bytes| CopyReport { files, dirs, bytes };
    match kind {
        FileActionKind::Copy(action) => {
            let source = source.ok_or(ActionError::NoSource)?;
            Ok(copy(source, root, action, owner(&action.owner)?, devices)?)
        }
        FileActionKind::MkDir(action) => {
            make_dir(root, action, owner(&action.owner)?)?;
            Ok(one(0, 1, 0))
        }
        FileActionKind::MkFile(action) => {
            make_file(root, action, owner(&action.owner)?)?;
            Ok(one(1, 0, action.data.len() as u64))
        }
        FileActionKind::Symlink(action) => {
            make_symlink(root, action, owner(&action.owner)?)?;
            Ok(one(1, 0, 0))
        }
        FileActionKind::Rm(action) => {
            remove(root, action)?;
            Ok(CopyReport::default())
        }
    }
}

const fn new_dir(mode: u32, owner: Option<Owner>, time: Option<FileTime>) -> NewDir {
    NewDir {
        mode: mode & 0o777,
        owner,
        time,
    }
}

/// Makes a directory. One that is there keeps its owner and mode.
fn make_dir(root: &RootFd, action: &MkDirAction, owner: Option<Owner>) -> Result<(), ActionError> {
    let path = clean(Path::new(&action.path));
    let mut dest = Dest::new(root, new_dir(action.mode, owner, action.time));
    if action.make_parents {
        dest.make_dirs(&path)?;
        return Ok(dest.settle()?);
    }
    if !dest.parent_exists(&path) {
        return Err(missing_parent(&path));
    }
    // With its parent there, at most one directory is made. What is there, of whatever type, is left as it is.
    match dest.place(&path)? {
        Place::Dir { .. } | Place::Entry { stat: Some(_), .. } => Ok(()),
        Place::Entry { path, .. } => {
            dest.make_dirs(&path)?;
            Ok(dest.settle()?)
        }
    }
}

/// Where a file or link is to be made: links followed to the end, parents not made.
fn entry(root: &RootFd, path: &str) -> Result<(OwnedFd, OsString, PathBuf), ActionError> {
    let path = clean(Path::new(path));
    if path == Path::new("/") {
        return Err(ActionError::IsRoot(path));
    }
    let mut dest = Dest::new(root, new_dir(0o755, None, None));
    if !dest.parent_exists(&path) {
        return Err(missing_parent(&path));
    }
    match dest.place(&path)? {
        Place::Dir { path, .. } => Err(ActionError::NotRegular(path)),
        Place::Entry { dir, name, path, .. } => Ok((dir, name, path)),
    }
}

fn missing_parent(path: &Path) -> ActionError {
    io_error("make", path, Errno::NOENT).into()
}

/// Writes a file. One that is there keeps its inode and mode and loses its content, as `os.WriteFile` does.
fn make_file(root: &RootFd, action: &MkFileAction, owner: Option<Owner>) -> Result<(), ActionError> {
    let (dir, name, path) = entry(root, &action.path)?;
    let fail = |verb| {
        let path = &path;
        move |e| ActionError::from(io_error(verb, path, e))
    };
    let base = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(action.mode & 0o777);
    let file = match rustix::fs::openat(&dir, &name, base | OFlags::CREATE | OFlags::EXCL, mode) {
        Ok(file) => {
            rbuild_sys::owner::chmod(&file, mode).map_err(fail("change mode"))?;
            file
        }
        Err(Errno::EXIST) => {
            let is_regular = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            // A device of the image is one of the host here, and to open it is an act already (a watchdog begins to count).
            let there =
                rbuild_sys::owner::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail("stat"))?;
            if !is_regular(&there) {
                return Err(ActionError::NotRegular(path));
            }
            let file = rustix::fs::openat(&dir, &name, base, Mode::empty()).map_err(fail("open"))?;
            if !is_regular(&rbuild_sys::owner::fstat(&file).map_err(fail("stat"))?) {
                return Err(ActionError::NotRegular(path));
            }
            rustix::fs::ftruncate(&file, 0).map_err(fail("truncate"))?;
            file
        }
        Err(e) => return Err(fail("create")(e)),
    };
    write_all(&file, &action.data).map_err(|error| match error {
        DataError::Read(e) | DataError::Write(e) => fail("write")(e),
    })?;
    if let Some(owner) = owner {
        let now = rbuild_sys::owner::fstat(&file).map_err(fail("stat"))?;
        set_owner(&file, owner, &now).map_err(fail("change owner"))?;
    }
    match action.time {
        Some(time) => set_times(&file, &both(time)).map_err(fail("set times")),
        None => Ok(()),
    }
}

fn make_symlink(root: &RootFd, action: &SymlinkAction, owner: Option<Owner>) -> Result<(), ActionError> {
    let (dir, name, path) = entry(root, &action.path)?;
    let fail = |verb| {
        let path = &path;
        move |e| ActionError::from(io_error(verb, path, e))
    };
    rbuild_sys::owner::make_link(action.target.as_bytes(), &dir, &name).map_err(fail("make link"))?;
    if let Some(owner) = owner {
        let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
        rbuild_sys::owner::chown_at(&dir, &name, uid, gid).map_err(fail("change owner"))?;
    }
    match action.time {
        Some(time) => rustix::fs::utimensat(&dir, &name, &both(time), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(fail("set times")),
        None => Ok(()),
    }
}

/// Removes a path and what is below it. The last part of a path is never followed.
fn remove(root: &RootFd, action: &RmAction) -> Result<(), ActionError> {
    let path = clean(Path::new(&action.path));
    if !action.allow_wildcard || !path.iter().any(|part| part.to_str().is_some_and(has_wildcards)) {
        return remove_one(root, &path, action.allow_not_found);
    }
    let fd = root.open_in(
        Path::new("/"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let tree = SourceTree::Snapshot(RootFd::from_fd(fd.map_err(DestError::from)?));
    let selector = Selector {
        allow_wildcard: true,
        follow_symlink: false,
        ..Selector::path(&action.path)
    };
    match select::matches(&tree, &selector) {
        Ok(matches) => matches
            .iter()
            .try_for_each(|found| remove_one(root, &found.located.real, action.allow_not_found)),
        Err(SelectError::Locate(LocateError::Missing(_))) if action.allow_not_found => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn remove_one(root: &RootFd, path: &Path, allow_not_found: bool) -> Result<(), ActionError> {
    let Some(name) = path.file_name() else {
        return Err(ActionError::IsRoot(path.to_owned()));
    };
    let gone = || {
        if allow_not_found {
            Ok(())
        } else {
            Err(ActionError::NotFound(path.to_owned()))
        }
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = match root.open_in(path.parent().unwrap_or(Path::new("/")), flags, Mode::empty()) {
        Ok(dir) => dir,
        Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::NOTDIR)) => return gone(),
        Err(e) => return Err(DestError::from(e).into()),
    };
    match rbuild_sys::owner::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => remove_tree(&dir, name).map_err(|e| io_error("remove", path, e).into()),
        Err(Errno::NOENT) => gone(),
        Err(e) => Err(io_error("stat", path, e).into()),
    }
}
