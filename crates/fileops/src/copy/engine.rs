//! What the threads that copy one match share: options, counters, the first failure; and the end of a directory, which
//! gets its metadata when the last of its entries is there.

use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_graph::{CopyAction, FileTime};
use rustix::fs::{FileType, Mode, Stat};
use rustix::io::Errno;

use crate::copy::{CopyError, CopyReport};
use crate::dest::{both, set_owner, set_times};
use crate::mode::ModeChange;
use crate::owner::Owner;
use crate::source::{Located, SourceTree};
use crate::walk::{self, Dir, Filter, Leaf, Visitor, WalkError};
use crate::xattr::{self, Xattrs};
use rbuild_sys::data::DataCopier;

/// What a copy makes of the metadata of what it copies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dress<'a> {
    /// The owner of everything; each has its own if absent.
    pub(crate) owner: Option<Owner>,
    /// What becomes of the permission bits.
    pub(crate) mode: Option<&'a ModeChange>,
    /// The time of everything; each has its own if absent.
    pub(crate) time: Option<FileTime>,
}

impl Dress<'_> {
    pub(crate) fn owner_of(&self, stat: &Stat) -> Owner {
        self.owner.unwrap_or(Owner {
            uid: stat.st_uid,
            gid: stat.st_gid,
        })
    }

    /// Permission bits, `07777`.
    pub(crate) fn mode_of(&self, stat: &Stat) -> u32 {
        let bits = stat.st_mode & 0o7777;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        self.mode.map_or(bits, |change| change.apply(bits, is_dir))
    }

    pub(crate) fn times_of(&self, stat: &Stat) -> rustix::fs::Timestamps {
        self.time.map_or_else(|| source_times(stat), both)
    }
}

/// What all threads of one match share.
#[derive(Debug)]
pub(super) struct Engine<'a> {
    pub(super) source: &'a SourceTree,
    pub(super) filter: &'a Filter,
    dress: Dress<'a>,
    pub(super) replace: bool,
    base: &'a Path,
    pub(super) target: PathBuf,
    pub(super) data: DataCopier,
    pub(super) files: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) failed: AtomicBool,
    pub(super) failure: Mutex<Option<CopyError>>,
}

/// The directory that the start of a match becomes.
#[derive(Debug)]
pub(super) struct TopDir {
    pub(super) fd: Arc<OwnedFd>,
    /// It was made for the copy and takes the source's metadata. One that was there only takes its times.
    pub(super) created: bool,
    /// Its path, for messages.
    pub(super) path: PathBuf,
}

impl TopDir {
    pub(super) fn existing(fd: OwnedFd, path: PathBuf) -> Self {
        Self {
            fd: Arc::new(fd),
            created: false,
            path,
        }
    }
}

/// What is set on a directory when it is full.
#[derive(Debug)]
pub(super) enum Finish {
    /// Nothing: it was there, and is only passed through.
    Nothing,
    /// Times only.
    Times(Stat),
    /// Everything.
    All(Stat, Xattrs),
}

/// A directory being filled, shared by the walk and the batches that work in it.
#[derive(Debug)]
pub(super) struct Filling {
    /// Batches not done, and one for the walk while it is inside.
    pub(super) users: AtomicUsize,
    pub(super) finish: Mutex<Option<(Arc<OwnedFd>, Finish)>>,
}

/// Files of one directory on their way.
pub(super) struct Batch {
    pub(super) from: Arc<OwnedFd>,
    pub(super) to: Arc<OwnedFd>,
    pub(super) filling: Arc<Filling>,
    /// Relative path of the directory, for messages.
    pub(super) dir: PathBuf,
    pub(super) files: Vec<(CString, Stat)>,
    pub(super) bytes: u64,
}

impl<'a> Engine<'a> {
    pub(super) fn new(
        source: &'a SourceTree,
        filter: &'a Filter,
        owner: Option<Owner>,
        mode: Option<&'a ModeChange>,
        action: &CopyAction,
        base: &'a Path,
    ) -> Self {
        Self {
            source,
            filter,
            dress: Dress {
                owner,
                mode,
                time: action.time,
            },
            replace: action.always_replace_existing,
            base,
            target: PathBuf::new(),
            data: DataCopier::default(),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    /// Copies something that is no directory to `name` in `dir`; `target` is the path of that, for messages.
    pub(super) fn copy_single(
        &mut self,
        located: &Located,
        dir: &OwnedFd,
        name: &CString,
        target: PathBuf,
    ) -> Result<CopyReport, CopyError> {
        struct Single<'e, 'a> {
            engine: &'e Engine<'a>,
            dir: &'e OwnedFd,
            name: &'e CString,
        }
        impl Visitor for Single<'_, '_> {
            type Error = CopyError;
            fn enter(&mut self, _: &[u8], _: &Dir<'_>) -> Result<(), CopyError> {
                Err(WalkError::Changed(self.engine.base.to_owned()).into())
            }
            fn leaf(&mut self, _: &[u8], leaf: &Leaf<'_>) -> Result<(), CopyError> {
                self.engine.copy_leaf(
                    leaf.parent,
                    leaf.name,
                    leaf.stat,
                    self.dir,
                    self.name,
                    Path::new(""),
                )
            }
            fn leave(&mut self, _: &[u8]) -> Result<(), CopyError> {
                Ok(())
            }
        }
        self.target = target.parent().unwrap_or(Path::new("/")).to_owned();
        self.base = self.base.parent().unwrap_or(Path::new("/"));
        walk::walk(
            self.source,
            located,
            self.filter,
            &mut Single {
                engine: self,
                dir,
                name,
            },
        )?;
        Ok(self.report(0))
    }

    pub(super) fn report(&self, dirs: u64) -> CopyReport {
        CopyReport {
            files: self.files.load(Ordering::Relaxed),
            dirs,
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    pub(super) fn owner_of(&self, stat: &Stat) -> Owner {
        self.dress.owner_of(stat)
    }

    pub(super) fn mode_of(&self, stat: &Stat) -> Mode {
        Mode::from_raw_mode(self.dress.mode_of(stat))
    }

    pub(super) fn times_of(&self, stat: &Stat) -> rustix::fs::Timestamps {
        self.dress.times_of(stat)
    }

    pub(super) fn path(&self, relative: &[u8]) -> PathBuf {
        if relative.is_empty() {
            return self.base.to_owned();
        }
        self.base.join(OsStr::from_bytes(relative))
    }

    pub(super) fn target_path(&self, relative: &Path) -> PathBuf {
        if relative.as_os_str().is_empty() {
            self.target.clone()
        } else {
            self.target.join(relative)
        }
    }

    pub(super) fn read_error(&self, verb: &'static str, relative: &[u8], errno: Errno) -> CopyError {
        CopyError::Read {
            verb,
            path: self.path(relative),
            source: errno.into(),
        }
    }

    pub(super) fn write_error(&self, verb: &'static str, relative: &[u8], errno: Errno) -> CopyError {
        CopyError::Write {
            verb,
            path: self.path(relative),
            source: errno.into(),
        }
    }

    pub(super) fn run(&self, batch: &Batch) {
        for (name, stat) in &batch.files {
            if self.failed.load(Ordering::Relaxed) {
                break;
            }
            if let Err(error) = self.copy_leaf(&batch.from, name, stat, &batch.to, name, &batch.dir) {
                self.fail(error);
            }
        }
        if let Err(errno) = self.release(&batch.filling) {
            self.fail(self.write_error("set metadata", batch.dir.as_os_str().as_bytes(), errno));
        }
    }

    fn fail(&self, error: CopyError) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(error);
        self.failed.store(true, Ordering::Relaxed);
    }

    /// One user of a directory is done with it; the last one sets its metadata.
    pub(super) fn release(&self, filling: &Filling) -> Result<(), Errno> {
        if filling.users.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Ok(());
        }
        let finish = filling
            .finish
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match finish {
            None | Some((_, Finish::Nothing)) => Ok(()),
            Some((fd, Finish::Times(stat))) => set_times(&fd, &self.times_of(&stat)),
            Some((fd, Finish::All(stat, xattrs))) => {
                set_owner(&fd, self.owner_of(&stat), &rbuild_sys::owner::fstat(&fd)?)?;
                rbuild_sys::owner::chmod(&fd, self.mode_of(&stat))?;
                xattr::write(&fd, &xattrs);
                set_times(&fd, &self.times_of(&stat))
            }
        }
    }
}

fn source_times(stat: &Stat) -> rustix::fs::Timestamps {
    let spec = |seconds, nanoseconds: u64| rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    rustix::fs::Timestamps {
        last_access: spec(stat.st_atime, stat.st_atime_nsec),
        last_modification: spec(stat.st_mtime, stat.st_mtime_nsec),
    }
}
