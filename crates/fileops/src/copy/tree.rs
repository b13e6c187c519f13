//! Copying a directory: the walk's visitor that makes directories as it goes and hands small batches of files to other
//! threads. Keeps few descriptors open, however deep it goes.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::copy::engine::{Batch, Engine, Filling, Finish, TopDir};
use crate::copy::{CopyError, CopyReport};
use crate::dirstack::{DIR_FLAGS, DirId, DirStack, Lost};
use crate::remove::remove_tree;
use crate::select::{Required, Watched};
use crate::source::Located;
use crate::walk::{self, Dir, Leaf, Visitor, WalkError};
use crate::workers::Workers;
use crate::xattr;

/// Files handed to another thread at once.
const BATCH_FILES: usize = 32;
/// Bytes after which a batch is handed over, however few files it has.
const BATCH_BYTES: u64 = 1 << 20;
/// Most batches under way at once; each holds two directories and works on two files.
const BATCHES_MAX: usize = 8;

impl Engine<'_> {
    /// Copies what is in a directory into `top`.
    pub(super) fn copy_tree(
        &mut self,
        located: &Located,
        top: TopDir,
        required: &mut Required<'_>,
    ) -> Result<CopyReport, CopyError> {
        let mut dirs = 0;
        self.target.clone_from(&top.path);
        let engine = &*self;
        let run = |batch: Batch| engine.run(&batch);
        let walked = std::thread::scope(|scope| {
            let mut visitor = TreeCopy {
                engine,
                workers: Workers::new(scope, BATCHES_MAX, &run),
                root: top.fd,
                root_created: top.created,
                stack: DirStack::new(),
                batch: None,
                links: HashMap::new(),
                dirs: 0,
            };
            let watched = &mut Watched {
                inner: &mut visitor,
                required,
            };
            let walked = walk::walk(engine.source, located, engine.filter, watched);
            dirs = visitor.dirs;
            walked
        });
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(error) = failure {
            return Err(error);
        }
        walked?;
        Ok(self.report(dirs))
    }
}

/// A directory of the destination on the way down.
struct Frame {
    filling: Arc<Filling>,
    finish: Finish,
}

struct TreeCopy<'scope, 'env, 'a> {
    engine: &'scope Engine<'a>,
    workers: Workers<'scope, 'env, Batch>,
    root: Arc<OwnedFd>,
    root_created: bool,
    stack: DirStack<Frame>,
    batch: Option<Batch>,
    /// First copies of files that have several names, by device and inode: where, and what it became.
    links: HashMap<(u64, u64), (Vec<u8>, DirId)>,
    dirs: u64,
}

impl TreeCopy<'_, '_, '_> {
    fn flush(&mut self) {
        let Some(batch) = self.batch.take() else {
            return;
        };
        let bytes = batch.bytes;
        self.workers.give(batch, bytes);
    }

    fn push(&mut self, name: &CString, fd: Arc<OwnedFd>, finish: Finish) -> Result<(), Errno> {
        let id = DirId::of(&rbuild_sys::owner::fstat(&fd)?);
        let filling = Arc::new(Filling {
            users: AtomicUsize::new(1),
            finish: Mutex::new(None),
        });
        self.stack.push(name.clone(), fd, id, Frame { filling, finish });
        self.dirs += 1;
        Ok(())
    }

    /// Makes or opens the directory `dir` becomes inside the one entered last.
    fn enter_child(&mut self, relative: &[u8], dir: &Dir<'_>) -> Result<(), CopyError> {
        let engine = self.engine;
        let Some((parent, _)) = self.stack.top() else {
            return Err(WalkError::Changed(engine.path(relative)).into());
        };
        let parent = Arc::clone(parent);
        let fail = |verb| move |e| engine.write_error(verb, relative, e);
        let mut created = true;
        if let Err(errno) = rustix::fs::mkdirat(&*parent, dir.name, Mode::from_raw_mode(0o700)) {
            if errno != Errno::EXIST {
                return Err(fail("make directory")(errno));
            }
            let stat = rbuild_sys::owner::statat(&*parent, dir.name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(fail("stat"))?;
            created = FileType::from_raw_mode(stat.st_mode) != FileType::Directory;
            if created {
                if !engine.replace {
                    return Err(CopyError::DirOverFile(
                        engine.target_path(Path::new(OsStr::from_bytes(relative))),
                    ));
                }
                remove_tree(&parent, OsStr::from_bytes(dir.name.as_bytes())).map_err(fail("remove"))?;
                rustix::fs::mkdirat(&*parent, dir.name, Mode::from_raw_mode(0o700))
                    .map_err(fail("make directory"))?;
            }
        }
        let fd = rustix::fs::openat(&*parent, dir.name, DIR_FLAGS, Mode::empty()).map_err(fail("open"))?;
        let finish = if created || !dir.as_parent {
            Finish::All(*dir.stat, xattr::read(dir.fd, engine.source.origin()))
        } else {
            // Passed through on the way to something below: takes the mode alone (`copyDirectoryOnly`).
            let mode = Mode::from_raw_mode(dir.stat.st_mode & 0o7777);
            rbuild_sys::owner::chmod(&fd, mode).map_err(fail("change mode"))?;
            Finish::Nothing
        };
        self.push(dir.name, Arc::new(fd), finish).map_err(fail("stat"))
    }

    /// Makes a second name of a file that was copied already. False if it has to be copied after all.
    fn link(&mut self, relative: &[u8], leaf: &Leaf<'_>) -> Result<bool, CopyError> {
        let Some((path, id)) = self.links.get(&(leaf.stat.st_dev, leaf.stat.st_ino)) else {
            return Ok(false);
        };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let first = rustix::fs::openat2(&*self.root, path.as_slice(), flags, Mode::empty(), resolve);
        // Nothing but the very file we made is given another name.
        let same = |fd: &OwnedFd| rbuild_sys::owner::fstat(fd).is_ok_and(|now| DirId::of(&now) == *id);
        let Some(first) = first.ok().filter(same) else {
            return Ok(false);
        };
        let Some((to, _)) = self.stack.top() else {
            return Ok(false);
        };
        self.engine.clear(to, leaf.name, relative)?;
        let from = xattr::proc_path(&first);
        let linked = rustix::fs::linkat(CWD, &from, &**to, leaf.name, AtFlags::SYMLINK_FOLLOW);
        if linked.is_ok() {
            self.engine.files.fetch_add(1, Ordering::Relaxed);
        }
        // Else the file system's limit of names for one file is reached, or there is no /proc: a copy is right too.
        Ok(linked.is_ok())
    }

    /// Copies the first of several names at once, so that the others can be linked to it.
    fn copy_first(&mut self, relative: &[u8], leaf: &Leaf<'_>) -> Result<(), CopyError> {
        let engine = self.engine;
        let Some((to, _)) = self.stack.top() else {
            return Ok(());
        };
        engine.copy_leaf(
            leaf.parent,
            leaf.name,
            leaf.stat,
            to,
            leaf.name,
            parent_of(relative),
        )?;
        let made = rbuild_sys::owner::statat(&**to, leaf.name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| engine.write_error("stat", relative, e))?;
        let key = (leaf.stat.st_dev, leaf.stat.st_ino);
        self.links.insert(key, (relative.to_vec(), DirId::of(&made)));
        Ok(())
    }
}

pub(super) fn parent_of(relative: &[u8]) -> &Path {
    let at = relative.iter().rposition(|b| *b == b'/').unwrap_or(0);
    Path::new(OsStr::from_bytes(&relative[..at]))
}

impl Visitor for TreeCopy<'_, '_, '_> {
    type Error = CopyError;

    fn enter(&mut self, relative: &[u8], dir: &Dir<'_>) -> Result<(), CopyError> {
        self.flush();
        if !dir.is_top {
            return self.enter_child(relative, dir);
        }
        let finish = if self.root_created {
            Finish::All(*dir.stat, xattr::read(dir.fd, self.engine.source.origin()))
        } else {
            Finish::Times(*dir.stat)
        };
        let root = Arc::clone(&self.root);
        self.push(dir.name, root, finish)
            .map_err(|e| self.engine.write_error("stat", relative, e))
    }

    fn leaf(&mut self, relative: &[u8], leaf: &Leaf<'_>) -> Result<(), CopyError> {
        if self.engine.failed.load(Ordering::Relaxed) {
            return Err(WalkError::Changed(self.engine.path(relative)).into());
        }
        if leaf.kind == FileType::RegularFile && leaf.stat.st_nlink > 1 {
            if !self.link(relative, leaf)? {
                self.copy_first(relative, leaf)?;
            }
            return Ok(());
        }
        let Some((to, frame)) = self.stack.top() else {
            return Ok(());
        };
        let batch = self.batch.get_or_insert_with(|| {
            frame.filling.users.fetch_add(1, Ordering::AcqRel);
            Batch {
                from: Arc::clone(leaf.parent),
                to: Arc::clone(to),
                filling: Arc::clone(&frame.filling),
                dir: parent_of(relative).to_owned(),
                files: Vec::with_capacity(BATCH_FILES),
                bytes: 0,
            }
        });
        batch.files.push((leaf.name.clone(), *leaf.stat));
        batch.bytes += u64::try_from(leaf.stat.st_size).unwrap_or(0);
        if batch.files.len() >= BATCH_FILES || batch.bytes >= BATCH_BYTES {
            self.flush();
        }
        Ok(())
    }

    fn leave(&mut self, relative: &[u8]) -> Result<(), CopyError> {
        self.flush();
        let engine = self.engine;
        let popped = self.stack.pop().map_err(|lost| match lost {
            Lost::Errno(errno) => engine.write_error("reopen", relative, errno),
            Lost::Moved => CopyError::DestMoved(engine.target_path(Path::new(OsStr::from_bytes(relative)))),
        })?;
        if let Some((fd, frame)) = popped {
            *frame
                .filling
                .finish
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some((fd, frame.finish));
            engine
                .release(&frame.filling)
                .map_err(|e| engine.write_error("set metadata", relative, e))?;
        }
        Ok(())
    }
}
