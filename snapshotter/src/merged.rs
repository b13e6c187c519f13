//! Stacks as directories, where the kernel mounts no overlay: merged by links for those who only read, by copies for those
//! who write, or shown by `fuse-overlayfs`. What was written becomes an upper directory, as overlayfs would leave it, so
//! nobody else knows the difference.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rbuild_layer::{Contents, Time};
use rbuild_store::Lease;
use rbuild_sys::RootFd;
use rbuild_sys::overlay::OverlaySpec;

use crate::dir::open_root;
use crate::stack::StackError;
use crate::{Means, Snapshotter, Tree, fuse};

/// Views that are remembered; of others one more is made.
const VIEWS_MAX: usize = 256;
/// Shortest time that file systems tell apart, at most.
const TICK: Duration = Duration::from_millis(1);
/// Ticks waited for.
const TICKS_MAX: usize = 2_000;

/// Views by their lease and layers: a lease's directory goes with it, and its views too.
#[derive(Debug, Default)]
pub(crate) struct Views(Mutex<HashMap<(PathBuf, Vec<PathBuf>), PathBuf>>);

/// A stack that is written to.
#[derive(Debug)]
pub(crate) struct Merged {
    dir: PathBuf,
    how: How,
}

#[derive(Debug)]
enum How {
    /// What was touched at this time or later is a change of these layers, top first.
    Copies {
        lowers: Vec<PathBuf>,
        since: Time,
    },
    Fuse(fuse::Mounted),
}

impl Merged {
    /// Makes it in `dir`, which must not exist.
    pub(crate) fn new(
        snapshotter: &Snapshotter,
        spec: &OverlaySpec,
        dir: PathBuf,
    ) -> Result<Self, StackError> {
        std::fs::create_dir(&dir).map_err(failed("make directory", &dir))?;
        let how = if snapshotter.means() == Means::FuseOverlayfs {
            How::Fuse(fuse::Mounted::new(spec, &dir)?)
        } else {
            snapshotter.merge(&spec.lowers, Contents::Copy, &dir)?;
            if let Some((upper, _)) = &spec.upper_work {
                adopt(upper, &dir)?;
            }
            How::Copies {
                lowers: spec.lowers.clone(),
                since: next_tick(&dir)?,
            }
        };
        Ok(Self { dir, how })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Puts what was changed into `upper`.
    pub(crate) fn settle(
        self,
        snapshotter: &Snapshotter,
        lease: &Lease,
        upper: &Path,
    ) -> Result<(), StackError> {
        match self.how {
            How::Fuse(mounted) => {
                mounted.unmount()?;
                fuse::translate(upper, snapshotter.form())
            }
            How::Copies { lowers, since } => {
                let lower = snapshotter.linked(lease, lowers)?;
                let (tree, out) = (open_root(&self.dir)?, open_root(upper)?);
                rbuild_layer::link_touched(&tree, snapshotter.form(), &lower, since, &out).map_err(|source| {
                    StackError::Merge {
                        path: self.dir.clone(),
                        source: Box::new(source),
                    }
                })
            }
        }
    }
}

impl Snapshotter {
    /// Layers for those who only read, and cannot write: what is shown may be the layers' own files.
    ///
    /// # Errors
    /// [`StackError`].
    pub fn read_only(&self, lease: &Lease, lowers: Vec<PathBuf>) -> Result<Tree, StackError> {
        if self.means() == Means::Overlayfs {
            return Ok(Tree::Overlay(self.spec(lowers, None)));
        }
        self.linked_dir(lease, lowers).map(Tree::Directory)
    }

    /// Layers for somebody whose changes nobody will see.
    ///
    /// # Errors
    /// [`StackError`].
    pub fn discarded(&self, lease: &Lease, lowers: Vec<PathBuf>) -> Result<Tree, StackError> {
        if self.means() == Means::Overlayfs {
            let upper_work = (lease.new_dir("discard")?, lease.new_dir("work")?);
            return Ok(Tree::Overlay(self.spec(lowers, Some(upper_work))));
        }
        let dir = lease.new_dir("discard")?;
        self.merge(&lowers, Contents::Copy, &dir)?;
        Ok(Tree::Directory(dir))
    }

    /// An overlay of this snapshotter's form.
    pub(crate) fn spec(&self, lowers: Vec<PathBuf>, upper_work: Option<(PathBuf, PathBuf)>) -> OverlaySpec {
        OverlaySpec {
            form: self.form(),
            lowers,
            upper_work,
            volatile: true,
        }
    }

    /// Layers, top first, as one directory of links.
    pub(crate) fn linked(&self, lease: &Lease, lowers: Vec<PathBuf>) -> Result<RootFd, StackError> {
        open_root(&self.linked_dir(lease, lowers)?)
    }

    /// The same, where it is. Made once for as long as the lease is there.
    pub(crate) fn linked_dir(&self, lease: &Lease, lowers: Vec<PathBuf>) -> Result<PathBuf, StackError> {
        let key = (lease.dir().to_owned(), lowers);
        let known = |views: &HashMap<_, PathBuf>| views.get(&key).filter(|dir| dir.is_dir()).cloned();
        if let Some(dir) = known(&self.views.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(dir);
        }
        let dir = lease.new_dir("view")?;
        self.merge(&key.1, Contents::Link, &dir)?;
        let mut views = self.views.0.lock().unwrap_or_else(PoisonError::into_inner);
        if views.len() >= VIEWS_MAX {
            views.clear();
        }
        views.insert(key, dir.clone());
        Ok(dir)
    }

    fn merge(&self, lowers: &[PathBuf], contents: Contents, out: &Path) -> Result<(), StackError> {
        let layers: Vec<RootFd> = lowers
            .iter()
            .rev()
            .map(|dir| open_root(dir))
            .collect::<Result<_, _>>()?;
        rbuild_layer::merge_layers(&layers, self.form(), contents, &open_root(out)?).map_err(|source| {
            StackError::Merge {
                path: out.to_owned(),
                source: Box::new(source),
            }
        })
    }
}

/// The root shows what the upper directory was given, not what the layers have.
fn adopt(upper: &Path, dir: &Path) -> Result<(), StackError> {
    let fail = |source| failed("set owner and mode of", dir)(source);
    let found = std::fs::metadata(upper).map_err(fail)?;
    std::os::unix::fs::chown(dir, Some(found.uid()), Some(found.gid())).map_err(fail)?;
    std::fs::set_permissions(dir, found.permissions()).map_err(fail)
}

/// A time that is after all that was done in `dir`'s file system, and not after anything that will be done.
fn next_tick(dir: &Path) -> Result<Time, StackError> {
    let mark = dir.with_extension("mark");
    let fail = |source| failed("read the time of", &mark)(source);
    let now = || -> io::Result<Time> {
        std::fs::write(&mark, "")?;
        let found = std::fs::metadata(&mark)?;
        std::fs::remove_file(&mark)?;
        Ok(Time {
            seconds: found.ctime(),
            nanoseconds: u32::try_from(found.ctime_nsec()).unwrap_or_default(),
        })
    };
    let first = now().map_err(fail)?;
    for _ in 0..TICKS_MAX {
        let later = now().map_err(fail)?;
        if later > first {
            return Ok(later);
        }
        std::thread::sleep(TICK);
    }
    // A clock that stands still: everything counts as touched, and only what differs is in the layer's archive.
    Ok(first)
}

fn failed(verb: &'static str, path: &Path) -> impl Fn(io::Error) -> StackError {
    move |source| StackError::Io {
        verb,
        path: path.to_owned(),
        source,
    }
}
