//! The way to a store. Whoever may rename what is in a directory above it can put something else in its place, between any two
//! of its files that are opened by name. That is told and not refused: OpenSSH and sudo refuse such a way, docker and buildah do
//! not look at it, and CI services mount their volumes so, where the other user is nobody (git's `safe.directory` broke those).

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A directory above a store by which others reach it.
#[derive(Debug, PartialEq, Eq)]
pub struct Exposed {
    /// The directory.
    pub dir: PathBuf,
    /// Who owns it; `None` if everybody may write to it.
    pub owner: Option<u32>,
}

/// What a directory without a number in this user namespace seems to belong to (`/proc/sys/kernel/overflowuid`).
const OVERFLOW: &str = "/proc/sys/kernel/overflowuid";

/// The topmost directory above the store at `root`, made or not, by which somebody who is neither root nor this user could put
/// another one in its place. Asked before a user namespace is entered: there owners cannot be told from each other. Groups are
/// not looked at, as many a user's own directories are open to a group of that user alone.
#[must_use]
pub fn exposed(root: &Path) -> Option<Exposed> {
    let there = root
        .ancestors()
        .find_map(|dir| Some((dir, dir.canonicalize().ok()?)));
    let (dir, resolved) = there?;
    // What is to be made will be this user's.
    let above = usize::from(dir == root);
    let own = rustix::process::geteuid().as_raw();
    let mut dirs: Vec<&Path> = resolved.ancestors().skip(above).collect();
    dirs.reverse();
    dirs.into_iter().find_map(|dir| {
        let stat = dir.metadata().ok()?;
        let owner = if ![0, own].contains(&stat.uid()) && Some(stat.uid()) != unknown() {
            Some(stat.uid())
        } else if stat.mode() & 0o1002 == 0o002 {
            None
        } else {
            return None;
        };
        let dir = dir.to_owned();
        Some(Exposed { dir, owner })
    })
}

/// The owner that stands for those that are not known here, root of the machine among them.
fn unknown() -> Option<u32> {
    let has_all = rbuild_sys::userns::has_all_ids().ok()?;
    let overflow = std::fs::read_to_string(OVERFLOW).ok()?;
    overflow.trim().parse().ok().filter(|_| !has_all)
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dir = &self.dir;
        match self.owner {
            Some(owner) => write!(
                f,
                "{dir:?} above the store belongs to user {owner}, who could put another store in its place: \
                 name a directory of your own with --root or RBUILD_ROOT"
            ),
            None => write!(
                f,
                "everybody can write to {dir:?} above the store, and could put another one in its place: \
                 `chmod +t` it, or name another directory with --root or RBUILD_ROOT"
            ),
        }
    }
}
