//! The walk itself: depth first, siblings in byte order, one entry after the other.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rbuild_sys::overlay::Form;
use rustix::fs::{FileType, Mode, RawDir};
use rustix::io::Errno;

use super::compare::is_same;
use super::sink::Sink;
use super::source::{DIRECTORY, Source};
use super::{LateLinks, WriteError, WriteOptions, failed};
use crate::entry::{Entry, EntryKind, OPAQUE_NAME, Time, WHITEOUT_PREFIX};
use crate::reader::printable;

const LISTING_BYTES: usize = 64 << 10;

pub(super) struct Walk<'a, S: Sink> {
    form: Form,
    options: &'a WriteOptions<'a>,
    sink: S,
    entries: u64,
    /// It is a whole file system that is walked: what is only below is gone.
    is_whole: bool,
    /// What was touched at this time or later is no longer what is below.
    touched: Option<Time>,
    is_altered: bool,
    late: LateLinks,
    /// The directory the walk is in, and the same path in the layers below.
    dir: OwnedFd,
    lower: Option<OwnedFd>,
    /// Its path, with a slash at the end; empty for the root.
    path: Vec<u8>,
    levels: Vec<Level>,
    /// First levels whose own entry is written (or that have none).
    written_levels: usize,
    /// Where the content of an inode with several names is in the archive.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Unchanged names, in opaque directories, of inodes whose content is not in the archive yet.
    unchanged_links: HashMap<(u64, u64), Vec<Vec<u8>>>,
}

/// A walk that came to its end.
pub(super) struct Walked<S> {
    pub(super) sink: S,
    /// Entries given to the sink.
    pub(super) entries: u64,
    /// Something in the directory is not a change of what is below, or it hides more than it names.
    pub(super) is_altered: bool,
    /// Names that did not change, given all the same as those of files that did.
    pub(super) late: LateLinks,
}

/// A directory the walk is in, at any depth.
struct Level {
    id: (u64, u64),
    lower_id: Option<(u64, u64)>,
    /// Length of the path without this directory.
    parent_path: usize,
    /// What is left to visit, last name first.
    left: Vec<Name>,
    /// It, or a directory above, hides what is below.
    opaque: bool,
    /// Its own entry, until it is written.
    header: Option<Entry>,
}

struct Name {
    name: Vec<u8>,
    /// It is in the layer; else it is only below, and hidden.
    upper: bool,
}

impl<'a, S: Sink> Walk<'a, S> {
    pub(super) fn new(
        layer: BorrowedFd<'_>,
        form: Form,
        options: &'a WriteOptions<'a>,
        sink: S,
    ) -> Result<Self, WriteError> {
        let open =
            |dir| rustix::fs::openat(dir, ".", DIRECTORY, Mode::empty()).map_err(|e| failed("open", b"/", e));
        let dir = open(layer)?;
        let lower = options.lower.map(|lower| open(lower.as_fd())).transpose()?;
        Ok(Self {
            form,
            options,
            sink,
            entries: 0,
            is_whole: false,
            touched: None,
            is_altered: false,
            late: LateLinks::new(),
            dir,
            lower,
            path: Vec::new(),
            levels: Vec::new(),
            written_levels: 0,
            links: HashMap::new(),
            unchanged_links: HashMap::new(),
        })
    }

    /// Puts everything below the directory `name`, which is written first and looks like the root.
    pub(super) fn below(mut self, name: &str) -> Result<Self, WriteError> {
        let stat = rbuild_sys::owner::fstat(&self.dir).map_err(|e| failed("stat", b"/", e))?;
        let root = Source { stat, fd: None };
        self.path = [name.as_bytes(), b"/"].concat();
        let entry = Entry {
            path: self.path.clone(),
            kind: EntryKind::Directory,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: self.exported_mtime(root.mtime()),
            xattrs: Vec::new(),
        };
        self.emit(&entry)?;
        Ok(self)
    }

    /// Takes the directory for a whole file system, which shows all it has.
    pub(super) fn whole(mut self) -> Self {
        self.is_whole = true;
        self
    }

    /// Takes for changed what was touched at `since` or later.
    pub(super) fn touched(mut self, since: Time) -> Self {
        self.touched = Some(since);
        self
    }

    pub(super) fn run(mut self) -> Result<Walked<S>, WriteError> {
        let root = Source {
            stat: rbuild_sys::owner::fstat(&self.dir).map_err(|e| failed("stat", b"/", e))?,
            fd: Some(self.dir.try_clone().map_err(|source| WriteError::Io {
                verb: "open",
                path: "/".to_owned(),
                source,
            })?),
        };
        let opaque = !self.is_whole && root.overlay_state(self.form, b"/")?;
        self.is_altered |= opaque;
        self.enter(root.id(), opaque || self.is_whole, None, 0)?;
        self.mark_opaque(opaque)?;
        while let Some(level) = self.levels.last_mut() {
            match level.left.pop() {
                Some(Name { name, upper: true }) => self.visit(&name)?,
                Some(Name { name, upper: false }) => self.whiteout(&name)?,
                None => self.leave()?,
            }
        }
        Ok(Walked {
            sink: self.sink,
            entries: self.entries,
            is_altered: self.is_altered,
            late: self.late,
        })
    }

    fn visit(&mut self, name: &[u8]) -> Result<(), WriteError> {
        let path = [self.path.as_slice(), name].concat();
        let source = Source::open(self.dir.as_fd(), name).map_err(|e| failed("open", &path, e))?;
        let lower = self.lower_source(name, &path)?;
        if source.is_whiteout() {
            // Nothing to hide: BuildKit leaves it out.
            let hides_nothing = self.options.lower.is_some() && lower.is_none();
            self.is_altered |= hides_nothing;
            return if hides_nothing {
                Ok(())
            } else {
                self.whiteout(name)
            };
        }
        // In a whole file system such marks are nobody's but who made them.
        let opaque = !self.is_whole && source.overlay_state(self.form, &path)?;
        self.is_altered |= opaque;
        let Some(kind) = source.kind(self.dir.as_fd(), name, &path, self.form)? else {
            return Ok(());
        };
        let same = match (&lower, &self.lower) {
            (Some(below), Some(lower_dir)) => {
                is_same(self.dir.as_fd(), &source, lower_dir.as_fd(), below, name)
                    .map_err(|e| failed("compare with the layers below", &path, e))?
            }
            _ => false,
        };
        let same = same && self.touched.is_none_or(|since| source.ctime() < since);
        let entry = Entry {
            path,
            kind,
            mode: source.stat.st_mode & 0o7777,
            uid: source.stat.st_uid,
            gid: source.stat.st_gid,
            mtime: self.exported_mtime(source.mtime()),
            xattrs: Vec::new(),
        };
        if source.file_type() == FileType::Directory {
            return self.visit_directory(name, source, lower, entry, opaque, same);
        }
        self.visit_file(&source, entry, same)
    }

    /// What is no directory. It may have other names: the first of those that the archive needs has the content.
    fn visit_file(&mut self, source: &Source, mut entry: Entry, same: bool) -> Result<(), WriteError> {
        let many_names = source.stat.st_nlink > 1;
        let is_late = self.options.late.is_some_and(|late| late.contains(&entry.path));
        let is_wanted = is_late || self.levels.last().is_some_and(|level| level.opaque);
        let same = same || is_late;
        self.is_altered |= same;
        if same && !(many_names && is_wanted) {
            return Ok(());
        }
        entry.xattrs = source.xattrs(self.options.xattrs, &entry.path)?;
        if many_names {
            if let Some(first) = self.links.get(&source.id()) {
                entry.kind = EntryKind::HardLink {
                    target: first.clone(),
                };
                self.emit(&entry)?;
                if same {
                    self.late.insert(entry.path);
                }
                return Ok(());
            }
            if same {
                self.unchanged_links
                    .entry(source.id())
                    .or_default()
                    .push(entry.path);
                return Ok(());
            }
            self.links.insert(source.id(), entry.path.clone());
        }
        self.emit(&entry)?;
        if let (EntryKind::File { size }, Some(fd)) = (&entry.kind, &source.fd) {
            self.sink.content(fd.as_fd(), *size, &entry.path)?;
        }
        if many_names && let Some(others) = self.unchanged_links.remove(&source.id()) {
            entry.kind = EntryKind::HardLink {
                target: entry.path.clone(),
            };
            for other in others {
                entry.path = other;
                self.emit(&entry)?;
                self.late.insert(entry.path.clone());
            }
        }
        Ok(())
    }

    fn visit_directory(
        &mut self,
        name: &[u8],
        source: Source,
        lower: Option<Source>,
        mut entry: Entry,
        opaque: bool,
        same: bool,
    ) -> Result<(), WriteError> {
        entry.path.push(b'/');
        entry.xattrs = source.xattrs(self.options.xattrs, &entry.path)?;
        let inherited = self.levels.last().is_some_and(|level| level.opaque);
        let parent_path = self.path.len();
        self.path.extend_from_slice(name);
        self.path.push(b'/');
        let id = source.id();
        let Some(fd) = source.fd else {
            return Err(WriteError::Changed {
                path: printable(&self.path),
            });
        };
        self.dir = fd;
        self.lower = lower
            .filter(|below| below.file_type() == FileType::Directory)
            .and_then(|below| below.fd);
        self.enter(id, opaque || inherited, Some(entry), parent_path)?;
        if !same {
            self.write_headers()?;
        }
        self.mark_opaque(opaque)
    }

    /// Starts a level for the directory the walk is now in.
    fn enter(
        &mut self,
        id: (u64, u64),
        opaque: bool,
        header: Option<Entry>,
        parent_path: usize,
    ) -> Result<(), WriteError> {
        let list = |dir: &OwnedFd| list(dir).map_err(|e| failed("list directory", &self.path, e));
        let mut left: Vec<Name> = list(&self.dir)?
            .into_iter()
            .map(|name| Name { name, upper: true })
            .collect();
        let mut lower_id = None;
        if let Some(lower) = &self.lower {
            let stat = rustix::fs::fstat(lower).map_err(|e| failed("stat", &self.path, e))?;
            lower_id = Some((stat.st_dev, stat.st_ino));
            if opaque {
                let known: std::collections::HashSet<&[u8]> =
                    left.iter().map(|name| name.name.as_slice()).collect();
                let hidden: Vec<Vec<u8>> = list(lower)?
                    .into_iter()
                    .filter(|name| !known.contains(name.as_slice()))
                    .collect();
                left.extend(hidden.into_iter().map(|name| Name { name, upper: false }));
            }
        }
        left.sort_unstable_by(|a, b| b.name.cmp(&a.name));
        if header.is_none() {
            self.written_levels = self.levels.len() + 1;
        }
        self.levels.push(Level {
            id,
            lower_id,
            parent_path,
            left,
            opaque,
            header,
        });
        Ok(())
    }

    /// Goes back up.
    fn leave(&mut self) -> Result<(), WriteError> {
        let Some(level) = self.levels.pop() else {
            return Ok(());
        };
        self.is_altered |= level.header.is_some();
        self.written_levels = self.written_levels.min(self.levels.len());
        let Some(above) = self.levels.last() else {
            return Ok(());
        };
        self.dir = up(&self.dir, above.id, &self.path)?;
        self.lower = match (above.lower_id, self.lower.take()) {
            (Some(id), Some(lower)) => Some(up(&lower, id, &self.path)?),
            // The path ended below, or was no directory there: start again where both have it.
            (Some(id), None) => Some(self.reopen_lower(level.parent_path, id)?),
            (None, _) => None,
        };
        self.path.truncate(level.parent_path);
        Ok(())
    }

    /// The directory below that belongs to the first `length` bytes of the path.
    fn reopen_lower(&self, length: usize, id: (u64, u64)) -> Result<OwnedFd, WriteError> {
        let path = &self.path[..length];
        let fail = |e| failed("open in the layers below", path, e);
        let root = self.options.lower.ok_or_else(|| fail(Errno::NOENT))?;
        let mut dir = rustix::fs::openat(root, ".", DIRECTORY, Mode::empty()).map_err(fail)?;
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            dir = rustix::fs::openat(&dir, part, DIRECTORY, Mode::empty()).map_err(fail)?;
        }
        check_id(&dir, id, path)?;
        Ok(dir)
    }

    fn lower_source(&self, name: &[u8], path: &[u8]) -> Result<Option<Source>, WriteError> {
        let Some(lower) = &self.lower else { return Ok(None) };
        match Source::open(lower.as_fd(), name) {
            Ok(source) => Ok(Some(source)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(failed("open in the layers below", path, e)),
        }
    }

    /// Without a view of the layers below, an opaque directory is marked as one.
    fn mark_opaque(&mut self, opaque: bool) -> Result<(), WriteError> {
        if !opaque || self.options.lower.is_some() {
            return Ok(());
        }
        self.whiteout(&OPAQUE_NAME[WHITEOUT_PREFIX.len()..])
    }

    fn whiteout(&mut self, name: &[u8]) -> Result<(), WriteError> {
        self.write_headers()?;
        self.sink.whiteout(&self.path, name)?;
        self.entries += 1;
        Ok(())
    }

    /// Writes an entry, and before it those of the directories it is in.
    fn emit(&mut self, entry: &Entry) -> Result<(), WriteError> {
        self.write_headers()?;
        self.sink.entry(entry)?;
        self.entries += 1;
        Ok(())
    }

    fn write_headers(&mut self) -> Result<(), WriteError> {
        while let Some(level) = self.levels.get_mut(self.written_levels) {
            if let Some(header) = level.header.take() {
                self.sink.entry(&header)?;
                self.entries += 1;
            }
            self.written_levels += 1;
        }
        Ok(())
    }

    /// Whole seconds, as containerd truncates them, or what is asked for.
    fn exported_mtime(&self, mtime: Time) -> Time {
        Time {
            seconds: self.options.mtime.unwrap_or(mtime.seconds),
            nanoseconds: 0,
        }
    }
}

fn list(dir: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    let mut buffer: Vec<u8> = Vec::with_capacity(LISTING_BYTES);
    let mut listing = RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = listing.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

fn up(dir: &OwnedFd, id: (u64, u64), path: &[u8]) -> Result<OwnedFd, WriteError> {
    let above =
        rustix::fs::openat(dir, "..", DIRECTORY, Mode::empty()).map_err(|e| failed("go up", path, e))?;
    check_id(&above, id, path)?;
    Ok(above)
}

fn check_id(dir: &OwnedFd, id: (u64, u64), path: &[u8]) -> Result<(), WriteError> {
    let stat = rustix::fs::fstat(dir).map_err(|e| failed("stat", path, e))?;
    if (stat.st_dev, stat.st_ino) != id {
        return Err(WriteError::Changed {
            path: printable(path),
        });
    }
    Ok(())
}
