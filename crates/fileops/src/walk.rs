//! The one walk under copies and hashes: what of a source takes part, in which order. Owns the include, exclude and
//! ignore patterns' effect on a tree, so that a hash covers exactly what a copy would copy. Goes down by held
//! descriptors and `O_NOFOLLOW`, one name at a time, without recursion.

mod filter;
mod listing;

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_dockerfile::ignore::MatchState;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::dirstack::{DIR_FLAGS, DirId, DirStack, Lost};
use crate::source::{Located, SourceTree, relative};
pub(crate) use crate::walk::filter::Filter;
use crate::walk::filter::{Judged, judge};
pub(crate) use crate::walk::listing::{Listed, list};

/// Why a source could not be walked.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// The kernel refused.
    #[error("{path:?}: {verb}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// Path inside the source.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A directory was exchanged for another one during the walk.
    #[error("{0:?} changed while it was read")]
    Changed(PathBuf),
}

/// Something a walk met that is not a directory.
#[derive(Debug)]
pub(crate) struct Leaf<'a> {
    /// The directory it is in.
    pub(crate) parent: &'a Arc<OwnedFd>,
    /// Its name there.
    pub(crate) name: &'a CString,
    /// Its status as the copy sees it.
    pub(crate) stat: &'a Stat,
    /// Its type.
    pub(crate) kind: FileType,
}

/// A directory a walk goes into.
#[derive(Debug)]
pub(crate) struct Dir<'a> {
    /// The directory.
    pub(crate) fd: &'a Arc<OwnedFd>,
    /// Its name in its parent.
    pub(crate) name: &'a CString,
    /// Its status as the copy sees it.
    pub(crate) stat: &'a Stat,
    /// It takes part only as the parent of something that does.
    pub(crate) as_parent: bool,
    /// It is where the walk began.
    pub(crate) is_top: bool,
}

/// What is done with what takes part. Calls come in order of bytes of the names, parents first; `relative` is the
/// path below the start of the walk, empty for the start itself.
pub(crate) trait Visitor {
    /// Why it gives up.
    type Error: From<WalkError>;
    /// Before anything in the directory.
    fn enter(&mut self, relative: &[u8], dir: &Dir<'_>) -> Result<(), Self::Error>;
    /// A file, link or special file in the directory entered last (or the start of the walk).
    fn leaf(&mut self, relative: &[u8], leaf: &Leaf<'_>) -> Result<(), Self::Error>;
    /// After everything in the directory entered last.
    fn leave(&mut self, relative: &[u8]) -> Result<(), Self::Error>;
}

/// What is kept for each directory on the way down.
struct Frame {
    stat: Stat,
    /// Length of its relative path.
    relative_len: usize,
    /// What is left to visit, last first.
    names: Vec<Listed>,
    ignore: MatchState,
    include: MatchState,
    exclude: MatchState,
    /// Not ignored, or something below it is not.
    exists: bool,
    /// Takes part by itself.
    selected: bool,
    entered: bool,
    /// Everything in it is selected and nothing ignored: no pattern is asked any more.
    unfiltered: bool,
}

struct Walk<'a, V: Visitor> {
    tree: &'a SourceTree,
    filter: &'a Filter,
    base: &'a Path,
    /// `base` as the ignore rules want it, with a slash behind unless it is empty.
    ignore_prefix: String,
    relative: Vec<u8>,
    stack: DirStack<Frame>,
    visitor: &'a mut V,
}

enum Failure<E> {
    Visitor(E),
    Lost(Lost),
}

impl<E> From<Lost> for Failure<E> {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

/// Walks from a located path. The start always takes part, whatever the patterns say (`fsutil/copy`).
pub(crate) fn walk<V: Visitor>(
    tree: &SourceTree,
    start: &Located,
    filter: &Filter,
    visitor: &mut V,
) -> Result<(), V::Error> {
    let base = start.real.as_path();
    let fail = |verb, errno: Errno| WalkError::Io {
        verb,
        path: base.to_owned(),
        source: errno.into(),
    };
    let name = CString::new(base.file_name().unwrap_or_default().as_bytes()).unwrap_or_default();
    let kind = FileType::from_raw_mode(start.stat.st_mode);
    if kind != FileType::Directory {
        let dir = base.parent().unwrap_or(Path::new("/"));
        let parent = tree.open(dir, DIR_FLAGS).map_err(|e| fail("open", e))?;
        return visitor.leaf(
            b"",
            &Leaf {
                parent: &Arc::new(parent),
                name: &name,
                stat: &start.stat,
                kind,
            },
        );
    }
    let fd = Arc::new(tree.open(base, DIR_FLAGS).map_err(|e| fail("open", e))?);
    let stat = rbuild_sys::owner::fstat(&fd).map_err(|e| fail("stat", e))?;
    let id = DirId::of(&stat);
    let stat = tree.seen(stat, base == Path::new("/"));
    let names = list(&fd, usize::MAX).map_err(|e| fail("list", e))?;
    visitor.enter(
        b"",
        &Dir {
            fd: &fd,
            name: &name,
            stat: &stat,
            as_parent: false,
            is_top: true,
        },
    )?;
    let ignore_prefix = relative(base);
    let ignore_prefix = if ignore_prefix.is_empty() {
        ignore_prefix
    } else {
        ignore_prefix + "/"
    };
    let frame = Frame {
        stat,
        relative_len: 0,
        names: reversed(names),
        ignore: start.ignore.clone(),
        include: MatchState::default(),
        exclude: MatchState::default(),
        exists: true,
        selected: true,
        entered: true,
        unfiltered: tree.rules().is_none() && filter.include.is_none() && filter.exclude.is_none(),
    };
    let mut walk = Walk {
        tree,
        filter,
        base,
        ignore_prefix,
        relative: Vec::new(),
        stack: DirStack::new(),
        visitor,
    };
    walk.stack.push(name, fd, id, frame);
    walk.run()
}

fn reversed(mut names: Vec<Listed>) -> Vec<Listed> {
    names.reverse();
    names
}

impl<V: Visitor> Walk<'_, V> {
    fn run(&mut self) -> Result<(), V::Error> {
        while let Some((_, frame)) = self.stack.top() {
            let parent_len = frame.relative_len;
            if let Some(listed) = frame.names.pop() {
                self.relative.truncate(parent_len);
                if parent_len > 0 {
                    self.relative.push(b'/');
                }
                self.relative.extend_from_slice(listed.name.as_bytes());
                self.step(listed)?;
            } else {
                self.relative.truncate(parent_len);
                if frame.entered {
                    self.visitor.leave(&self.relative)?;
                }
                self.stack.pop().map_err(|lost| self.lost(lost))?;
            }
        }
        Ok(())
    }

    fn step(&mut self, listed: Listed) -> Result<(), V::Error> {
        let Some((parent, frame)) = self.stack.top() else {
            return Ok(());
        };
        let parent = Arc::clone(parent);
        let parent_exists = frame.exists;
        let judged = if frame.unfiltered {
            Judged::everything()
        } else {
            let (ignore, include, exclude) = (&frame.ignore, &frame.include, &frame.exclude);
            judge(
                self.tree,
                self.filter,
                &self.ignore_prefix,
                &self.relative,
                [ignore, include, exclude],
            )
        };
        let known_file = !matches!(listed.kind, FileType::Directory | FileType::Unknown);
        let dir_matters = judged.selected || judged.descend || (judged.ignored && !parent_exists);
        if judged.ignored && (known_file || !judged.ignore_descend) {
            return Ok(());
        }
        if known_file && !judged.selected {
            return self.activate(false);
        }
        let stat = match rbuild_sys::owner::statat(&*parent, &listed.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // A context is the user's and lives on while it is read (`fsutil` `fs.Walk`).
            Err(Errno::NOENT) if matches!(self.tree, SourceTree::Context(_)) => return Ok(()),
            Err(e) => return Err(self.io("stat", e).into()),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            if !judged.ignored {
                self.activate(judged.selected)?;
            }
            if dir_matters {
                return self.go_down(&parent, listed.name, judged);
            }
            return Ok(());
        }
        if judged.ignored {
            return Ok(());
        }
        self.activate(judged.selected)?;
        if !judged.selected {
            return Ok(());
        }
        let stat = self.tree.seen(stat, false);
        let leaf = Leaf {
            parent: &parent,
            name: &listed.name,
            stat: &stat,
            kind,
        };
        self.visitor.leaf(&self.relative, &leaf)
    }

    fn go_down(&mut self, parent: &OwnedFd, name: CString, judged: Judged) -> Result<(), V::Error> {
        let takes_part = judged.selected && !judged.ignored;
        let opened = rustix::fs::openat(parent, &name, DIR_FLAGS, Mode::empty()).and_then(|fd| {
            let stat = rbuild_sys::owner::fstat(&fd)?;
            let names = if judged.descend || judged.ignored {
                list(&fd, usize::MAX)?
            } else {
                Vec::new()
            };
            Ok((Arc::new(fd), stat, names))
        });
        let (fd, stat, names) = match opened {
            Ok(opened) => opened,
            Err(Errno::ACCESS) if !takes_part => return Ok(()),
            Err(Errno::NOENT) if matches!(self.tree, SourceTree::Context(_)) => return Ok(()),
            // What was a directory a moment ago is a link or a file now.
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(WalkError::Changed(self.path()).into()),
            Err(e) => return Err(self.io("open", e).into()),
        };
        let id = DirId::of(&stat);
        let stat = self.tree.seen(stat, false);
        if takes_part {
            let dir = Dir {
                fd: &fd,
                name: &name,
                stat: &stat,
                as_parent: false,
                is_top: false,
            };
            self.visitor.enter(&self.relative, &dir)?;
        }
        let [ignore, include, exclude] = judged.states;
        let frame = Frame {
            stat,
            relative_len: self.relative.len(),
            names: reversed(names),
            ignore,
            include,
            exclude,
            exists: !judged.ignored,
            selected: judged.selected,
            entered: takes_part,
            unfiltered: judged.unfiltered,
        };
        self.stack.push(name, fd, id, frame);
        Ok(())
    }

    /// Something that is not ignored was met below the top of the stack: directories that waited for it begin to
    /// exist, and are entered if they, or what was met, take part.
    fn activate(&mut self, selected: bool) -> Result<(), V::Error> {
        let depth = self.stack.len();
        let top = self.stack.data(depth - 1);
        if top.entered || (!selected && top.exists) {
            return Ok(());
        }
        let mut upto = if selected { depth } else { 0 };
        let mut first = depth;
        for level in (0..depth).rev() {
            let frame = self.stack.data_mut(level);
            frame.exists = true;
            if frame.entered {
                break;
            }
            first = level;
            if frame.selected {
                upto = upto.max(level + 1);
            }
        }
        if upto <= first {
            return Ok(());
        }
        let visitor = &mut *self.visitor;
        let path = &self.relative;
        let mut level = first;
        let entered = self.stack.visit_from(first, |name, fd, frame| {
            if level < upto {
                let as_parent = !frame.selected;
                let dir = Dir {
                    fd,
                    name,
                    stat: &frame.stat,
                    as_parent,
                    is_top: false,
                };
                visitor
                    .enter(&path[..frame.relative_len], &dir)
                    .map_err(Failure::Visitor)?;
                frame.entered = true;
            }
            level += 1;
            Ok(())
        });
        entered.map_err(|failure| match failure {
            Failure::Visitor(error) => error,
            Failure::Lost(lost) => self.lost(lost).into(),
        })
    }

    fn path(&self) -> PathBuf {
        self.base.join(OsStr::from_bytes(&self.relative))
    }

    fn io(&self, verb: &'static str, errno: Errno) -> WalkError {
        WalkError::Io {
            verb,
            path: self.path(),
            source: errno.into(),
        }
    }

    fn lost(&self, lost: Lost) -> WalkError {
        match lost {
            Lost::Errno(errno) => self.io("reopen", errno),
            Lost::Moved => WalkError::Changed(self.path()),
        }
    }
}

/// Whether the ignore rules leave anything below a directory.
pub(crate) fn holds_anything(tree: &SourceTree, real: &Path, ignore: &MatchState) -> Result<bool, WalkError> {
    struct Found(Option<WalkError>);
    impl From<WalkError> for Found {
        fn from(error: WalkError) -> Self {
            Self(Some(error))
        }
    }
    struct First;
    impl Visitor for First {
        type Error = Found;
        fn enter(&mut self, _: &[u8], dir: &Dir<'_>) -> Result<(), Found> {
            if dir.is_top { Ok(()) } else { Err(Found(None)) }
        }
        fn leaf(&mut self, _: &[u8], _: &Leaf<'_>) -> Result<(), Found> {
            Err(Found(None))
        }
        fn leave(&mut self, _: &[u8]) -> Result<(), Found> {
            Ok(())
        }
    }
    let fail = |errno: Errno| WalkError::Io {
        verb: "open",
        path: real.to_owned(),
        source: errno.into(),
    };
    let stat = tree
        .open(real, OFlags::PATH | OFlags::DIRECTORY)
        .and_then(|fd| rbuild_sys::owner::fstat(&fd))
        .map_err(fail)?;
    let start = Located {
        real: real.to_owned(),
        stat,
        ignore: ignore.clone(),
    };
    match walk(tree, &start, &Filter::default(), &mut First) {
        Ok(()) => Ok(false),
        Err(Found(None)) => Ok(true),
        Err(Found(Some(error))) => Err(error),
    }
}
