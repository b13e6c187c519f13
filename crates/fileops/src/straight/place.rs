//! Where copies land: the directories on the way, those that are below and those that will be made, and what the archive
//! says of each. Reads the file system below and changes nothing.

use std::ffi::{CString, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rbuild_layer::{Entry, EntryKind, Time};
use rbuild_sys::{RootFd, clean};
use rustix::fs::{AtFlags, FileType, Mode, Stat};
use rustix::io::Errno;

use super::{Block, StraightCopy, StraightError, io};
use crate::dest::split;
use crate::dirstack::DIR_FLAGS;
use crate::mode::ModeChange;
use crate::owner::Owner;
use crate::xattr::{self, Origin};

/// What a destination names.
pub(super) enum Target {
    /// A directory that is there, or is to be: the path ends in a slash.
    Dir(PathBuf),
    /// Nothing yet, in this directory.
    Entry(PathBuf, OsString),
}

impl Target {
    /// What `path` names below; `made` is a directory that an earlier copy makes.
    pub(super) fn of(path: &Path, below: &RootFd, made: Option<&Place>) -> Result<Self, StraightError> {
        if path.as_os_str().as_bytes().ends_with(b"/") {
            return Ok(Self::Dir(clean(path)));
        }
        let Some((parent, name)) = split(path) else {
            return Ok(Self::Dir(clean(path)));
        };
        let parent = clean(&parent);
        if made.is_some_and(|made| made.path == path) {
            return Ok(Self::Dir(path.to_owned()));
        }
        let (found, end) = descend(below, &parent)?;
        if found.len() < parent.iter().skip(1).count() {
            return Ok(Self::Entry(parent, name));
        }
        match rbuild_sys::owner::statat(&end, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(Self::Entry(parent, name)),
            Err(e) => Err(io("stat destination")(e)),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                Ok(Self::Dir(path.to_owned()))
            }
            Ok(_) => Err(StraightError::Unsuited("it replaces a file, or follows a link")),
        }
    }
}

/// A directory, and the way to it.
pub(super) struct Place {
    /// Its path; no part of it is a link.
    pub(super) path: PathBuf,
    /// What is there of the way, from the first part on.
    found: Vec<Stat>,
    /// The last directory that is there.
    end: OwnedFd,
    /// Owner, mode and time of what is made.
    owner: Owner,
    mode: u32,
    time: Option<i64>,
}

impl Place {
    /// The directory `path`, made by `copy` as far as it is missing.
    pub(super) fn of(
        path: PathBuf,
        below: &RootFd,
        copy: &StraightCopy<'_>,
        mode: Option<&ModeChange>,
    ) -> Result<Self, StraightError> {
        let (found, end) = descend(below, &path)?;
        for part in path.iter().skip(1) {
            super::check_name(part.as_bytes())?;
        }
        Ok(Self {
            path,
            found,
            end,
            owner: copy.owner.unwrap_or(Owner::ROOT),
            mode: ModeChange::of_parents(mode),
            time: copy.action.time.map(|time| time.seconds),
        })
    }

    /// Whether it is made by the copies.
    pub(super) fn is_made(&self) -> bool {
        self.found.len() < self.path.iter().skip(1).count()
    }

    /// Fails if it has `name` already.
    pub(super) fn must_lack(&self, name: &CString) -> Result<(), StraightError> {
        if self.is_made() {
            return Ok(());
        }
        match rbuild_sys::owner::statat(&self.end, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(io("stat destination")(e)),
            Ok(_) => Err(StraightError::Unsuited("it replaces what is there")),
        }
    }

    /// Whether `program`, a path below it, has its first part there already.
    pub(super) fn has(&self, program: &Path) -> bool {
        let first = program
            .strip_prefix(&self.path)
            .ok()
            .and_then(|rest| rest.iter().next());
        let first = first.and_then(|first| CString::new(first.as_bytes()).ok());
        first.is_some_and(|first| self.must_lack(&first).is_err())
    }

    /// The path of what is in it, as an archive has it.
    pub(super) fn prefix(&self) -> Vec<u8> {
        let mut prefix = self.path.as_os_str().as_bytes()[1..].to_vec();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        prefix
    }

    /// The directories on the way and the place itself, in which `blocks` land.
    pub(super) fn entries(&self, blocks: &[Block<'_>]) -> Vec<Entry> {
        let content = blocks.iter().find(|block| block.name.is_none());
        // The time that one copy sets, another takes away by putting something in.
        let is_one_copy = blocks
            .windows(2)
            .all(|pair| std::ptr::eq(pair[0].copy.action, pair[1].copy.action));
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |passed| i64::try_from(passed.as_secs()).unwrap_or(0));
        let depth = self.path.iter().skip(1).count();
        let mut entries = Vec::with_capacity(depth);
        let mut path = Vec::new();
        for (at, part) in self.path.iter().skip(1).enumerate() {
            path.extend_from_slice(part.as_bytes());
            path.push(b'/');
            let is_last = at + 1 == depth;
            let there = self.found.get(at);
            let (owner, mode) = match there {
                Some(stat) => (
                    Owner {
                        uid: stat.st_uid,
                        gid: stat.st_gid,
                    },
                    stat.st_mode & 0o7777,
                ),
                None => (self.owner, self.mode),
            };
            let seconds = match (content, there) {
                // A directory takes the times of the one whose content it takes.
                (Some(block), _) if is_last => {
                    let times = block.dress().times_of(&block.found.located.stat);
                    times.last_modification.tv_sec
                }
                // Nothing is made in it: only in one further down.
                (_, Some(stat)) if at + 1 < self.found.len() => stat.st_mtime,
                (_, Some(_)) => now,
                (_, None) if is_last && !is_one_copy => now,
                (_, None) => self.time.unwrap_or(now),
            };
            entries.push(Entry {
                path: path.clone(),
                kind: EntryKind::Directory,
                mode,
                uid: owner.uid,
                gid: owner.gid,
                mtime: Time {
                    seconds,
                    nanoseconds: 0,
                },
                xattrs: Vec::new(),
            });
        }
        entries
    }
}

/// Goes down `path` as far as it is there: what was met, and the last directory. Refuses links and files on the way.
fn descend(below: &RootFd, path: &Path) -> Result<(Vec<Stat>, OwnedFd), StraightError> {
    let open = below.open_in(Path::new("/"), DIR_FLAGS, Mode::empty());
    let mut dir = open.map_err(|e| io("open root")(e.errno().unwrap_or(Errno::IO)))?;
    let mut found = Vec::new();
    for part in path.iter().skip(1) {
        let stat = match rbuild_sys::owner::statat(&dir, part, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => break,
            Err(e) => return Err(io("stat destination")(e)),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(StraightError::Unsuited("the way leads through a link or a file"));
        }
        dir = rustix::fs::openat(&dir, part, DIR_FLAGS, Mode::empty()).map_err(io("open destination"))?;
        if !xattr::read(&dir, Origin::Snapshot).is_empty() {
            return Err(StraightError::Unsuited("a directory has attributes"));
        }
        found.push(stat);
    }
    Ok((found, dir))
}
