//! Where a group for a step is made: below the parent its user names, else below the group that rbuild itself is in, or
//! the nearest one above that hands controllers down.
//!
//! In version 2 a group that hands controllers down has no processes of its own, but for the top of all. So rbuild's
//! own group serves only where rbuild can leave it: see [`vacate`].

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rbuild_sys::RootFd;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::group::{self, Group};
use super::hierarchy::Hierarchy;
use super::values::{Controller, Version};

/// A group of rbuild's own processes, inside the group that they were in.
const LEAF: &str = "rbuild-self";
/// Times processes are moved before it is given up: each may start another meanwhile.
const MOVES_MAX: usize = 16;
/// Processes whose descent is followed to find out whether they are rbuild's.
const GENERATIONS_MAX: usize = 64;

/// Makes a group below `parent`, a path of the whole tree that is made if missing.
pub(super) fn below_named(tree: &Hierarchy, parent: &Path, wanted: &[Controller]) -> io::Result<Group> {
    let top = root(&tree.mount)?;
    let clean = rbuild_sys::clean(parent);
    // Another step that ends may take a parent away that is about to be used.
    for again in [true, false] {
        match try_below_named(tree, &top, &clean, wanted) {
            Err(error) if again && Errno::from_io_error(&error) == Some(Errno::NOENT) => {}
            done => return done,
        }
    }
    Err(Errno::NOENT.into())
}

fn try_below_named(
    tree: &Hierarchy,
    top: &RootFd,
    parent: &Path,
    wanted: &[Controller],
) -> io::Result<Group> {
    let mode = Mode::from_raw_mode(0o755);
    let made = top.create_dir_all(parent, mode, |dir, _| {
        group::mark(dir);
        Ok(())
    });
    let dir = made.map_err(|error| failed(&error))?;
    let mut at = PathBuf::from("/");
    for part in std::iter::once(None).chain(parent.components().skip(1).map(Some)) {
        if let Some(part) = part {
            let above = open(top, &at)?;
            at.push(part);
            if tree.has(Controller::Cpuset) {
                inherit_cpuset(above.as_fd(), open(top, &at)?.as_fd());
            }
        }
        if tree.version == Version::V2 {
            let dir = open(top, &at)?;
            for controller in wanted {
                // What did not work shows in the group itself.
                hand_down(dir.as_fd(), *controller).ok();
            }
        }
    }
    let group = make(tree, dir.as_fd())?;
    Ok(match top.parent(parent) {
        Ok((above, name)) => group.with_parent(above, name),
        Err(_) => group,
    })
}

/// Makes a group where rbuild may. In version 2 with as many of `wanted` as can be had.
pub(super) fn below_own(tree: &Hierarchy, wanted: &[Controller]) -> io::Result<Group> {
    let top = root(&tree.mount)?;
    let own = open(&top, &tree.own)?;
    if tree.version == Version::V1 {
        return make(tree, own.as_fd());
    }
    let mut refusal = None;
    let mut best: Option<(usize, OwnedFd)> = None;
    for place in tree.own.ancestors() {
        let Ok(dir) = open(&top, place) else { continue };
        let mut given = 0;
        for controller in wanted {
            let mut handed = hand_down(dir.as_fd(), *controller);
            if is_busy(&handed) && place == tree.own && vacate(dir.as_fd()).is_ok() {
                handed = hand_down(dir.as_fd(), *controller);
            }
            match handed {
                Ok(()) => given += 1,
                Err(error) => drop(refusal.get_or_insert(error)),
            }
        }
        if given > best.as_ref().map_or(0, |(most, _)| *most) && may_make(dir.as_fd()) {
            best = Some((given, dir));
        }
        if best.as_ref().is_some_and(|(most, _)| *most == wanted.len()) {
            break;
        }
    }
    match best {
        Some((_, dir)) => make(tree, dir.as_fd()),
        None => Err(refusal.unwrap_or_else(|| Errno::ACCESS.into())),
    }
}

fn make(tree: &Hierarchy, parent: BorrowedFd<'_>) -> io::Result<Group> {
    let group = Group::create(parent)?;
    if tree.has(Controller::Cpuset) {
        inherit_cpuset(parent, group.as_fd());
    }
    Ok(group)
}

/// A new group of version 1 has no processors and no memory, and no process can enter it.
fn inherit_cpuset(parent: BorrowedFd<'_>, dir: BorrowedFd<'_>) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let is_empty = group::read(dir, file).is_ok_and(|text| text.trim().is_empty());
        if is_empty && let Ok(text) = group::read(parent, file) {
            // If this fails, entering the group does too, and tells.
            group::write(dir, file, text.trim()).ok();
        }
    }
}

/// Gives groups inside `dir` a controller.
fn hand_down(dir: BorrowedFd<'_>, controller: Controller) -> io::Result<()> {
    let lists = |file: &str| {
        let text = group::read(dir, file).unwrap_or_default();
        text.split_whitespace().any(|name| name == controller.name())
    };
    if lists("cgroup.subtree_control") {
        return Ok(());
    }
    if !lists("cgroup.controllers") {
        return Err(Errno::NOENT.into());
    }
    group::write(dir, "cgroup.subtree_control", &format!("+{}", controller.name()))
}

fn is_busy(done: &io::Result<()>) -> bool {
    let busy = |error| Errno::from_io_error(error) == Some(Errno::BUSY);
    done.as_ref().err().is_some_and(busy)
}

/// Moves all processes of `dir` into a group inside it, if all of them are rbuild's: the one that asked for the step, and
/// what it started.
fn vacate(dir: BorrowedFd<'_>) -> io::Result<()> {
    let caller = rustix::process::getppid()
        .ok_or(Errno::SRCH)?
        .as_raw_nonzero()
        .get();
    for _ in 0..MOVES_MAX {
        let text = group::read(dir, "cgroup.procs")?;
        let pids: Vec<i32> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
        if pids.is_empty() {
            return Ok(());
        }
        // A process of another pid namespace is shown as 0.
        if !pids.iter().all(|pid| *pid > 0 && descends_from(*pid, caller)) {
            return Err(Errno::BUSY.into());
        }
        match rustix::fs::mkdirat(dir, LEAF, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => {}
            done => done?,
        }
        let leaf = rustix::fs::openat(dir, LEAF, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        for pid in pids {
            match group::write(leaf.as_fd(), "cgroup.procs", &pid.to_string()) {
                // It ended.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => {}
                done => done?,
            }
        }
    }
    Err(Errno::BUSY.into())
}

fn descends_from(pid: i32, ancestor: i32) -> bool {
    let mut at = pid;
    for _ in 0..GENERATIONS_MAX {
        if at == ancestor {
            return true;
        }
        match parent_of(at) {
            Some(parent) if parent > 0 => at = parent,
            _ => return false,
        }
    }
    false
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn may_make(dir: BorrowedFd<'_>) -> bool {
    rustix::fs::accessat(dir, ".", rustix::fs::Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

fn root(mount: &Path) -> io::Result<RootFd> {
    RootFd::open(mount).map_err(|error| failed(&error))
}

fn open(top: &RootFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    top.open_in(path, flags, Mode::empty())
        .map_err(|error| failed(&error))
}

fn failed(error: &rbuild_sys::RootFdError) -> io::Error {
    error.errno().unwrap_or(Errno::INVAL).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descent_is_followed_to_its_end() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        assert!(descends_from(own, own) && descends_from(own, parent));
        assert!(!descends_from(parent, own));
        assert!(!descends_from(1, own), "the first process is nobody's child");
    }

    #[test]
    fn a_group_of_version_2_hands_down_what_it_has() {
        // A directory with the kernel's files: what is written where, without the kernel's answers.
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cgroup.controllers"), "memory cpuset\n").unwrap();
        std::fs::write(dir.path().join("cgroup.subtree_control"), "cpuset\n").unwrap();
        let fd = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let fd = fd.as_fd();
        hand_down(fd, Controller::Cpuset).unwrap();
        let control = || std::fs::read_to_string(dir.path().join("cgroup.subtree_control")).unwrap();
        assert_eq!(control(), "cpuset\n", "nothing to do");
        let missing = hand_down(fd, Controller::Cpu).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        hand_down(fd, Controller::Memory).unwrap();
        assert!(control().starts_with("+memory"), "{}", control());
    }
}
