//! COPY and ADD: from a source tree into a root. Owns which source lands where (BuildKit's `docopy` and
//! `fsutil/copy.Copy`); the tree itself is copied by [`tree`], one file by [`file`], its bytes by [`data`].

mod engine;
mod file;
mod tree;

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_graph::CopyAction;
use rbuild_layer::DevicePolicy;
use rbuild_sys::{RootFd, clean, shown};
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

pub(crate) use crate::copy::engine::Dress;
use crate::copy::engine::{Engine, TopDir};
pub(crate) use crate::copy::file::open_regular;
use crate::dest::{Dest, DestError, NewDir, Place};
use crate::dirstack::DIR_FLAGS;
use crate::missing::MissingSource;
use crate::mode::{ModeChange, ModeError};
use crate::owner::Owner;
use crate::remove::remove_tree;
use crate::select::{self, Match, Required, SelectError, Selector};
use crate::source::{LocateError, SourceTree};
use crate::unpack::{self, UnpackError};
use crate::walk::WalkError;

/// What a copy did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyReport {
    /// Files, links and special files made.
    pub files: u64,
    /// Directories entered, made or not.
    pub dirs: u64,
    /// Bytes of regular files.
    pub bytes: u64,
}

/// Why a copy failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// What is copied could not be found or read.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// The source could not be walked.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// A wildcard names nothing, and that is not allowed.
    #[error("{0} not found")]
    NoMatch(String),
    /// The mode is malformed.
    #[error(transparent)]
    Mode(#[from] ModeError),
    /// A wildcard below a directory of a client matches nothing, and nothing else is asked for there: it is not sent.
    #[error("lstat {path}: no such file or directory", path = .path.display())]
    Unsent {
        /// The directory.
        path: PathBuf,
        /// The source as written.
        src: String,
    },
    /// The destination could not be reached.
    #[error(transparent)]
    Dest(#[from] DestError),
    /// The destination's directory is missing, and was not to be made.
    #[error("{0:?}: destination directory does not exist")]
    NoDestDir(PathBuf),
    /// A directory would have to replace something else.
    #[error("cannot copy to non-directory: {}", shown(.0))]
    DirOverFile(PathBuf),
    /// A file would have to replace a directory.
    #[error("cannot replace to directory {} with file", shown(.0))]
    FileOverDir(PathBuf),
    /// A directory of the destination was exchanged for another one while it was filled.
    #[error("{0:?} changed while it was written")]
    DestMoved(PathBuf),
    /// A file of the source could not be read.
    #[error("{path:?}: {verb}")]
    Read {
        /// What was tried.
        verb: &'static str,
        /// Path inside the source.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error("{path:?}: {verb}")]
    Write {
        /// What was tried.
        verb: &'static str,
        /// Path inside the source of what was being copied.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// An archive could not be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

impl CopyError {
    /// The missing source, if that is what went wrong.
    #[must_use]
    pub fn missing(&self) -> Option<&MissingSource> {
        match self {
            Self::Select(SelectError::Locate(LocateError::Missing(missing))) => Some(missing),
            _ => None,
        }
    }
}

/// Copies what `action` names from `source` into `root`.
///
/// `owner` is the resolved [`CopyAction::owner`]; `devices` says what becomes of device nodes in an unpacked archive. Copied entries keep the source's times unless the action sets one;
/// so does the directory they land in, as in BuildKit.
///
/// # Errors
/// [`CopyError`]; what was copied before it stays.
pub fn copy(
    source: &SourceTree,
    root: &RootFd,
    action: &CopyAction,
    owner: Option<Owner>,
    devices: DevicePolicy,
) -> Result<CopyReport, CopyError> {
    let mode = ModeChange::of(action)?;
    let selector = Selector::from(action);
    let filter = select::filter(&selector)?;
    let matches = match select::matches(source, &selector) {
        // That a pattern is none is told where content is read for a key; to a copy it matches nothing (`fsutil`, copy.go,
        // `resolveWildcards`).
        Err(SelectError::Wildcard { .. }) => Vec::new(),
        matches => matches?,
    };
    if matches.is_empty()
        && let Some(path) = select::unsent(source, &selector)
    {
        return Err(CopyError::Unsent {
            path,
            src: action.src.clone(),
        });
    }
    if matches.is_empty() && !action.allow_empty_wildcard {
        return Err(CopyError::NoMatch(action.src.clone()));
    }
    let new_dir = NewDir {
        mode: ModeChange::of_parents(mode.as_ref()),
        owner,
        time: action.time,
    };
    let mut dest = Dest::new(root, new_dir);
    let target = target_path(&action.dest);
    if !action.create_dest_path && !dest.parent_exists(&target) {
        return Err(CopyError::NoDestDir(target));
    }
    let mut required = Required::new(&selector);
    let mut report = CopyReport::default();
    for matched in &matches {
        if action.attempt_unpack
            && let Some(unpacked) =
                unpack::attempt(source, &matched.located, &mut dest, &target, owner, devices)?
        {
            report.add(unpacked);
            continue;
        }
        // One engine for each match: BuildKit keeps hard links within a match only.
        let mut engine = Engine::new(
            source,
            &filter,
            owner,
            mode.as_ref(),
            action,
            &matched.located.real,
        );
        report.add(copy_match(
            &mut engine,
            &mut dest,
            &target,
            matched,
            action,
            &mut required,
        )?);
    }
    required.check(source).map_err(SelectError::from)?;
    dest.settle()?;
    Ok(report)
}

impl CopyReport {
    fn add(&mut self, other: Self) {
        self.files += other.files;
        self.dirs += other.dirs;
        self.bytes += other.bytes;
    }
}

/// The destination cleaned as text, but with the slash or `/.` at its end that makes it a directory.
pub(crate) fn target_path(dest: &str) -> PathBuf {
    let mut cleaned = clean(Path::new(dest)).into_os_string();
    if (dest.ends_with('/') || dest.ends_with("/.") || dest == "." || dest.is_empty()) && cleaned != "/" {
        cleaned.push("/");
    }
    PathBuf::from(cleaned)
}

fn copy_match(
    engine: &mut Engine<'_>,
    dest: &mut Dest<'_>,
    target: &Path,
    matched: &Match,
    action: &CopyAction,
    required: &mut Required<'_>,
) -> Result<CopyReport, CopyError> {
    let is_dir = FileType::from_raw_mode(matched.located.stat.st_mode) == FileType::Directory;
    let place = dest.place(target)?;
    if !is_dir {
        let (dir, name, path) = match place {
            Place::Dir { fd, path } => (fd, matched.name.clone(), path.join(&matched.name)),
            Place::Entry { dir, name, path, .. } => (dir, name, path),
        };
        return engine.copy_single(&matched.located, &dir, &cstring(&name), path);
    }
    let top = match place {
        Place::Dir { fd, path } if action.dir_copy_contents || matched.name == "." => {
            TopDir::existing(fd, path)
        }
        Place::Dir { fd, path } => engine.top_dir(fd, &cstring(&matched.name), path.join(&matched.name))?,
        Place::Entry {
            dir,
            name,
            stat,
            path,
        } => {
            if stat.is_some() {
                if !action.dir_copy_contents || !action.always_replace_existing {
                    return Err(CopyError::DirOverFile(path));
                }
                remove_tree(&dir, &name).map_err(|e| engine.write_error("remove", b"", e))?;
                engine.top_dir(dir, &cstring(&name), path)?
            } else if action.dir_copy_contents {
                TopDir::existing(dest.make_dirs(&path)?, path)
            } else {
                engine.top_dir(dir, &cstring(&name), path)?
            }
        }
    };
    engine.copy_tree(&matched.located, top, required)
}

fn cstring(name: &OsStr) -> CString {
    CString::new(name.as_bytes()).unwrap_or_default()
}

impl Engine<'_> {
    /// Opens or makes the directory that a source directory becomes (`cp -a` into another name).
    fn top_dir(&self, parent: OwnedFd, name: &CString, path: PathBuf) -> Result<TopDir, CopyError> {
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {
                let fd = rustix::fs::openat(&parent, name, DIR_FLAGS, Mode::empty())
                    .map_err(|e| self.write_error("open", b"", e))?;
                Ok(TopDir {
                    fd: Arc::new(fd),
                    created: true,
                    path,
                })
            }
            Err(Errno::EXIST) => {
                let stat = rbuild_sys::owner::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|e| self.write_error("stat", b"", e))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    let fd = rustix::fs::openat(&parent, name, DIR_FLAGS, Mode::empty())
                        .map_err(|e| self.write_error("open", b"", e))?;
                    return Ok(TopDir::existing(fd, path));
                }
                if !self.replace {
                    return Err(CopyError::DirOverFile(path));
                }
                remove_tree(&parent, OsStr::from_bytes(name.as_bytes()))
                    .map_err(|e| self.write_error("remove", b"", e))?;
                self.top_dir(parent, name, path)
            }
            Err(e) => Err(self.write_error("make directory", b"", e)),
        }
    }
}
