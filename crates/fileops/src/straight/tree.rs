//! What one match adds to the archive: the walk's visitor that writes entries as it meets them.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::io::Write;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;

use rbuild_layer::{Entry, EntryKind, LayerTar, Time};
use rustix::fs::{FileType, Stat};

use super::place::Place;
use super::{StraightError, check_name, io};
use crate::copy::{Dress, open_regular};
use crate::dest::open_path;
use crate::source::SourceTree;
use crate::walk::{Dir, Leaf, Visitor};
use crate::xattr;

/// Files with several names that are kept in mind; more are unsuited.
const LINKS_MAX: usize = 1 << 20;

/// The visitor of one match.
pub(super) struct TreePack<'t, 'a, W: Write> {
    tar: &'t mut LayerTar<W>,
    source: &'a SourceTree,
    dress: Dress<'a>,
    place: &'a Place,
    /// Names in the place itself have to be new there.
    is_content: bool,
    /// Path of the start of the walk in the archive, without a slash at the end unless it is the place itself.
    start: Vec<u8>,
    /// Where the first name of a file with several is in the archive (`copy.Copy` keeps links within a match).
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<'t, 'a, W: Write> TreePack<'t, 'a, W> {
    pub(super) fn new(
        tar: &'t mut LayerTar<W>,
        source: &'a SourceTree,
        dress: Dress<'a>,
        place: &'a Place,
        name: Option<&CString>,
    ) -> Self {
        let mut start = place.prefix();
        start.extend_from_slice(name.map_or(b"", |name| name.as_bytes()));
        Self {
            tar,
            source,
            dress,
            place,
            is_content: name.is_none(),
            start,
            links: HashMap::new(),
        }
    }

    fn path(&self, relative: &[u8]) -> Vec<u8> {
        let mut path = self.start.clone();
        if !relative.is_empty() {
            if !self.is_content {
                path.push(b'/');
            }
            path.extend_from_slice(relative);
        }
        path
    }

    fn entry(&self, path: Vec<u8>, kind: EntryKind, stat: &Stat) -> Entry {
        let owner = self.dress.owner_of(stat);
        Entry {
            path,
            kind,
            mode: self.dress.mode_of(stat),
            uid: owner.uid,
            gid: owner.gid,
            mtime: Time {
                seconds: self.dress.times_of(stat).last_modification.tv_sec,
                nanoseconds: 0,
            },
            xattrs: Vec::new(),
        }
    }

    /// What is met directly in a directory that was there must be new.
    fn check(&self, relative: &[u8], name: &CString) -> Result<(), StraightError> {
        check_name(name.as_bytes())?;
        if self.is_content && !relative.is_empty() && !relative.contains(&b'/') {
            self.place.must_lack(name)?;
        }
        Ok(())
    }

    fn regular(&mut self, relative: &[u8], leaf: &Leaf<'_>) -> Result<(), StraightError> {
        let path = self.path(relative);
        if leaf.stat.st_nlink > 1
            && let Some(first) = self.links.get(&(leaf.stat.st_dev, leaf.stat.st_ino))
        {
            let kind = EntryKind::HardLink {
                target: first.clone(),
            };
            return Ok(self.tar.entry(&self.entry(path, kind, leaf.stat))?);
        }
        let opened = open_regular(leaf.parent, leaf.name).map_err(io("open"))?;
        let (file, stat) = opened.ok_or(StraightError::Unsuited("it changes meanwhile"))?;
        if !xattr::read(&file, self.source.origin()).is_empty() {
            return Err(StraightError::Unsuited("a file has attributes"));
        }
        let stat = self.source.seen(stat, false);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let entry = self.entry(path, EntryKind::File { size }, &stat);
        self.tar.file(&entry, file.as_fd(), size)?;
        if stat.st_nlink > 1 {
            if self.links.len() >= LINKS_MAX {
                return Err(StraightError::Unsuited("too many files have several names"));
            }
            self.links.insert((stat.st_dev, stat.st_ino), entry.path);
        }
        Ok(())
    }

    fn symlink(&mut self, relative: &[u8], leaf: &Leaf<'_>) -> Result<(), StraightError> {
        let link = open_path(leaf.parent, OsStr::from_bytes(leaf.name.as_bytes())).map_err(io("open"))?;
        let target = xattr::link_text(&link, self.source.origin()).map_err(io("read link"))?;
        if !xattr::read_path_fd(&link, self.source.origin()).is_empty() {
            return Err(StraightError::Unsuited("a link has attributes"));
        }
        let kind = EntryKind::Symlink {
            target: target.into_bytes(),
        };
        let mut entry = self.entry(self.path(relative), kind, leaf.stat);
        // A link's own bits are nobody's to change.
        entry.mode = 0o777;
        Ok(self.tar.entry(&entry)?)
    }
}

impl<W: Write> Visitor for TreePack<'_, '_, W> {
    type Error = StraightError;

    fn enter(&mut self, relative: &[u8], dir: &Dir<'_>) -> Result<(), StraightError> {
        if dir.is_top && self.is_content {
            // The place's own entry says it all: of a directory that gives its content, the times are taken alone.
            return Ok(());
        }
        if !dir.is_top {
            self.check(relative, dir.name)?;
        }
        if !xattr::read(dir.fd, self.source.origin()).is_empty() {
            return Err(StraightError::Unsuited("a directory has attributes"));
        }
        let mut path = self.path(relative);
        path.push(b'/');
        Ok(self
            .tar
            .entry(&self.entry(path, EntryKind::Directory, dir.stat))?)
    }

    fn leaf(&mut self, relative: &[u8], leaf: &Leaf<'_>) -> Result<(), StraightError> {
        if !relative.is_empty() {
            self.check(relative, leaf.name)?;
        }
        match leaf.kind {
            FileType::RegularFile => self.regular(relative, leaf),
            FileType::Symlink => self.symlink(relative, leaf),
            _ => Err(StraightError::Unsuited(
                "it has files that are neither regular nor links",
            )),
        }
    }

    fn leave(&mut self, _: &[u8]) -> Result<(), StraightError> {
        Ok(())
    }
}
