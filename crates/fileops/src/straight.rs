//! Copies that become a layer's archive without becoming files first: the archive that [`crate::copy()`] and a walk over
//! what it made would give, byte for byte. Owns which copies that can be said of beforehand: those that only add, to a
//! place that is reached without links. Everything else is [`StraightError::Unsuited`], as is whatever goes wrong: the
//! caller copies then, and has the right error from that.
//!
//! What the archive cannot hold (extended attributes, nanoseconds) is lost to steps that later unpack it. So files with
//! attributes are unsuited; fractions of seconds are gone, as they are from every layer that was pulled.

mod place;
mod tree;

use std::ffi::{CString, OsStr};
use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rbuild_graph::CopyAction;
use rbuild_layer::{LayerTar, WHITEOUT_PREFIX, WriteError, Written};
use rbuild_sys::RootFd;
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::copy::{Dress, target_path};
use crate::mode::{ModeChange, ModeError};
use crate::owner::Owner;
use crate::select::{self, Match, Required, SelectError, Selector, Watched};
use crate::source::{LocateError, SourceTree};
use crate::walk::{self, Filter, WalkError};
use place::{Place, Target};
use tree::TreePack;

/// A copy, its source and the owner it gives.
#[derive(Debug, Clone, Copy)]
pub struct StraightCopy<'a> {
    /// What is copied where.
    pub action: &'a CopyAction,
    /// From what.
    pub source: &'a SourceTree,
    /// The resolved [`CopyAction::owner`].
    pub owner: Option<Owner>,
}

/// Why copies were not packed.
#[derive(Debug, thiserror::Error)]
pub enum StraightError {
    /// They, or what they copy, are not of the kind of which the archive is known beforehand.
    #[error("not packed straight from its sources: {0}")]
    Unsuited(&'static str),
    /// A mode is malformed.
    #[error(transparent)]
    Mode(#[from] ModeError),
    /// A source could not be found.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// A source could not be walked.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// A required path is not there.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// The kernel refused.
    #[error("{0}")]
    Io(&'static str, #[source] std::io::Error),
    /// The archive could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

fn io(verb: &'static str) -> impl FnOnce(Errno) -> StraightError {
    move |errno| StraightError::Io(verb, errno.into())
}

/// Writes to `out` the layer that `copies`, one after the other, make on top of the file system `below`. Paths of
/// `programs` (absolute) must stay what they are below.
///
/// # Errors
/// [`StraightError`]; `out` holds a useless beginning then.
pub fn pack_copies(
    copies: &[StraightCopy<'_>],
    below: &RootFd,
    programs: &[PathBuf],
    out: impl Write,
) -> Result<Written, StraightError> {
    let plan = Plan::of(copies, below)?;
    if plan.has_one_of(programs) {
        return Err(StraightError::Unsuited("it brings the image's program"));
    }
    let mut tar = LayerTar::new(out);
    plan.write(&mut tar)?;
    Ok(tar.finish()?)
}

/// One match of a copy, as it lands in the place all copies share.
struct Block<'a> {
    copy: StraightCopy<'a>,
    selector: Selector<'a>,
    filter: Filter,
    mode: Option<ModeChange>,
    found: Match,
    /// Its name there; absent if its content lands there.
    name: Option<CString>,
}

/// What the archive will hold.
struct Plan<'a> {
    place: Place,
    blocks: Vec<Block<'a>>,
}

impl<'a> Plan<'a> {
    fn of(copies: &[StraightCopy<'a>], below: &RootFd) -> Result<Self, StraightError> {
        let mut place: Option<Place> = None;
        let mut blocks: Vec<Block<'a>> = Vec::new();
        for copy in copies {
            let mode = ModeChange::of(copy.action)?;
            let selector = Selector::from(copy.action);
            let matches = select::matches(copy.source, &selector)?;
            if matches.is_empty() {
                return Err(StraightError::Unsuited("it names nothing"));
            }
            for found in matches {
                let is_dir = FileType::from_raw_mode(found.located.stat.st_mode) == FileType::Directory;
                if copy.action.attempt_unpack && !is_dir {
                    return Err(StraightError::Unsuited("it may be an archive"));
                }
                let known = place.as_ref().filter(|place| place.is_made());
                let target = Target::of(&target_path(&copy.action.dest), below, known)?;
                let (dir, name) = landing(target, &found, is_dir, copy.action.dir_copy_contents);
                match &place {
                    Some(place) if place.path != dir => {
                        return Err(StraightError::Unsuited("it goes to several places"));
                    }
                    Some(_) => {}
                    None if !copy.action.create_dest_path && !dir_is_there(below, &dir) => {
                        return Err(StraightError::Unsuited("its destination is missing"));
                    }
                    None => place = Some(Place::of(dir, below, copy, mode.as_ref())?),
                }
                blocks.push(Block {
                    copy: *copy,
                    selector,
                    filter: select::filter(&selector)?,
                    mode: mode.clone(),
                    found,
                    name,
                });
            }
        }
        let place = place.ok_or(StraightError::Unsuited("there is none"))?;
        let plan = Self { place, blocks };
        plan.sorted()
    }

    /// The blocks in the order of the archive, if no two have to do with each other or with what is below.
    fn sorted(mut self) -> Result<Self, StraightError> {
        if self.blocks.len() > 1 && self.blocks.iter().any(|block| block.name.is_none()) {
            return Err(StraightError::Unsuited("trees are laid over each other"));
        }
        self.blocks.sort_by(|a, b| a.name.cmp(&b.name));
        if self.blocks.windows(2).any(|pair| pair[0].name == pair[1].name) {
            return Err(StraightError::Unsuited("it is copied over itself"));
        }
        for name in self.blocks.iter().filter_map(|block| block.name.as_ref()) {
            self.place.must_lack(name)?;
            check_name(name.as_bytes())?;
        }
        Ok(self)
    }

    fn has_one_of(&self, programs: &[PathBuf]) -> bool {
        let brings = |program: &PathBuf| {
            self.blocks.iter().any(|block| match &block.name {
                Some(name) => program.starts_with(self.place.path.join(OsStr::from_bytes(name.as_bytes()))),
                None => program.starts_with(&self.place.path) && !self.place.has(program),
            })
        };
        programs.iter().any(brings)
    }

    fn write<W: Write>(&self, tar: &mut LayerTar<W>) -> Result<(), StraightError> {
        for entry in self.place.entries(&self.blocks) {
            tar.entry(&entry)?;
        }
        for block in &self.blocks {
            let before = tar.entries();
            let dress = block.dress();
            let mut required = Required::new(&block.selector);
            let mut visitor = TreePack::new(tar, block.copy.source, dress, &self.place, block.name.as_ref());
            let watched = &mut Watched {
                inner: &mut visitor,
                required: &mut required,
            };
            walk::walk(block.copy.source, &block.found.located, &block.filter, watched)?;
            required.check(block.copy.source)?;
            if tar.entries() == before && !self.place.is_made() {
                return Err(StraightError::Unsuited("nothing is copied"));
            }
        }
        Ok(())
    }
}

impl Block<'_> {
    fn dress(&self) -> Dress<'_> {
        Dress {
            owner: self.copy.owner,
            mode: self.mode.as_ref(),
            time: self.copy.action.time,
        }
    }
}

/// The directory a match lands in, and its name there ([`crate::copy()`] does the same on files).
fn landing(target: Target, found: &Match, is_dir: bool, copies_content: bool) -> (PathBuf, Option<CString>) {
    let name = |name: &OsStr| CString::new(name.as_bytes()).ok();
    match target {
        Target::Dir(path) if is_dir && (copies_content || found.name == ".") => (path, None),
        Target::Dir(path) => (path, name(&found.name)),
        Target::Entry(dir, last) if is_dir && copies_content => (dir.join(last), None),
        Target::Entry(dir, last) => (dir, name(&last)),
    }
}

fn dir_is_there(below: &RootFd, dir: &Path) -> bool {
    below.stat(dir).is_ok()
}

/// A name that means something else in a layer cannot be unpacked again.
fn check_name(name: &[u8]) -> Result<(), StraightError> {
    if name.starts_with(WHITEOUT_PREFIX) {
        return Err(StraightError::Unsuited("a name is a whiteout's"));
    }
    Ok(())
}
