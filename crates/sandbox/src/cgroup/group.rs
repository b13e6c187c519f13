//! One control group of a step: a directory that is made, held by a lock as long as its step is there, and taken away. A
//! group whose lock nobody holds was left by a supervisor that was killed; whoever makes the next one beside it takes it
//! away.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

/// What names of groups of steps begin with.
pub(super) const PREFIX: &str = "rbuild-step-";
/// Says of a parent that it was made for steps, and goes with the last of them.
const MARKS: [&str; 2] = ["user.rbuild", "trusted.rbuild"];
/// Longest text read from a file of a group.
const FILE_MAX: u64 = 64 * 1024;
/// Most groups that are looked at for being left over.
const SIBLINGS_MAX: usize = 4096;
/// Depth to which groups that a step made inside its own are taken away; the kernel's `cgroup.max.depth` is of no help.
const DEPTH_MAX: usize = 32;
/// Names tried for a group: another rbuild of another pid namespace may have the same.
const NAMES_MAX: u32 = 64;
/// A group that its last process just left is busy for a moment.
const BUSY_RETRIES: u32 = 50;
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(2);

/// A group that belongs to this process; removed when dropped.
#[derive(Debug)]
pub(super) struct Group {
    parent: OwnedFd,
    name: String,
    dir: OwnedFd,
    /// The way to the parent, if the parent may be taken away too: its own parent, and its name.
    above: Option<(OwnedFd, std::ffi::OsString)>,
}

impl Group {
    /// Makes a group in `parent`, after those were taken away that nobody holds.
    pub(super) fn create(parent: BorrowedFd<'_>) -> io::Result<Self> {
        let parent = reopen(parent)?;
        sweep(parent.as_fd());
        let pid = rustix::process::getpid().as_raw_nonzero();
        for count in 0..NAMES_MAX {
            let name = format!("{PREFIX}{pid}-{count}");
            match rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o755)) {
                Err(Errno::EXIST) => continue,
                done => done?,
            }
            // Between the two calls another process may take it for left over.
            if let Some(dir) = hold(parent.as_fd(), &name)? {
                return Ok(Self {
                    parent,
                    name,
                    dir,
                    above: None,
                });
            }
        }
        Err(Errno::EXIST.into())
    }

    /// Has `name` in `above`, the parent of this group, go with the last group in it if it was marked.
    pub(super) fn with_parent(mut self, above: OwnedFd, name: std::ffi::OsString) -> Self {
        self.above = Some((above, name));
        self
    }

    pub(super) fn write(&self, file: &str, text: &str) -> io::Result<()> {
        write(self.dir.as_fd(), file, text)
    }

    pub(super) fn read(&self, file: &str) -> io::Result<String> {
        read(self.dir.as_fd(), file)
    }

    /// Moves the calling process into the group.
    pub(super) fn enter(&self) -> io::Result<()> {
        self.write("cgroup.procs", "0")
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What cannot be removed is harmless, and the next one here removes it.
        let removed = remove(self.parent.as_fd(), &self.name, DEPTH_MAX, BUSY_RETRIES);
        if let (Ok(()), Some((above, name))) = (removed, &self.above)
            && is_marked(self.parent.as_fd())
        {
            rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR).ok();
        }
    }
}

/// Marks a group that was made to hold steps.
pub(super) fn mark(dir: BorrowedFd<'_>) {
    let Ok(dir) = reopen(dir) else { return };
    // Without the mark it stays, empty.
    MARKS
        .iter()
        .any(|name| rustix::fs::fsetxattr(&dir, *name, b"1", XattrFlags::empty()).is_ok());
}

fn is_marked(dir: BorrowedFd<'_>) -> bool {
    let mut value = [0; 1];
    MARKS
        .iter()
        .any(|name| rustix::fs::fgetxattr(dir, *name, &mut value[..]).is_ok())
}

pub(super) fn write(dir: BorrowedFd<'_>, file: &str, text: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::openat(dir, file, flags, Mode::empty())?;
    // One call: the kernel takes each as a whole.
    let written = rustix::io::write(&fd, text.as_bytes())?;
    if written == text.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

pub(super) fn read(dir: BorrowedFd<'_>, file: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::openat(dir, file, flags, Mode::empty())?;
    let mut text = String::new();
    std::fs::File::from(fd).take(FILE_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// The same directory, to be read, locked and marked.
fn reopen(dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(open(dir, ".")?)
}

fn open(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Takes the lock of a group, unless another has it or the group is gone.
fn hold(parent: BorrowedFd<'_>, name: &str) -> io::Result<Option<OwnedFd>> {
    let dir = match open(parent, name) {
        Err(Errno::NOENT | Errno::NODEV) => return Ok(None),
        done => done?,
    };
    match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        done => done?,
    }
    let is_there = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .and_then(|now| Ok((now.st_ino, rustix::fs::fstat(&dir)?.st_ino)))
        .is_ok_and(|(now, held)| now == held);
    Ok(is_there.then_some(dir))
}

/// Takes away what supervisors that were killed left in `parent`.
pub(super) fn sweep(parent: BorrowedFd<'_>) {
    for name in groups_in(parent) {
        if name.starts_with(PREFIX)
            && let Ok(Some(_held)) = hold(parent, &name)
        {
            // With processes in it, it is not left over: they are about to end.
            remove(parent, &name, DEPTH_MAX, 0).ok();
        }
    }
}

fn groups_in(dir: BorrowedFd<'_>) -> Vec<String> {
    let Ok(entries) = Dir::read_from(dir) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type() == FileType::Directory)
        .filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned))
        .filter(|name| name != "." && name != "..")
        .take(SIBLINGS_MAX)
        .collect()
}

/// Removes a group with those inside it.
fn remove(parent: BorrowedFd<'_>, name: &str, depth: usize, retries: u32) -> Result<(), Errno> {
    let mut tries = 0;
    loop {
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Err(Errno::BUSY | Errno::NOTEMPTY) if depth > 0 => {
                let dir = open(parent, name)?;
                let inner = groups_in(dir.as_fd());
                if tries >= retries.saturating_add(u32::from(!inner.is_empty())) {
                    return Err(Errno::BUSY);
                }
                if inner.is_empty() {
                    std::thread::sleep(BUSY_PAUSE);
                }
                for inner in inner {
                    remove(dir.as_fd(), &inner, depth - 1, 0)?;
                }
                tries += 1;
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        (dir, fd)
    }

    #[test]
    fn a_group_that_nobody_holds_is_taken_away() {
        let (dir, fd) = dir();
        std::fs::create_dir_all(dir.path().join("rbuild-step-1-0/inner/most")).unwrap();
        std::fs::create_dir(dir.path().join("other")).unwrap();
        let held = Group::create(fd.as_fd()).unwrap();
        let second = Group::create(fd.as_fd()).unwrap();
        assert_ne!(held.name, second.name);
        let names = || {
            let mut names = groups_in(reopen(fd.as_fd()).unwrap().as_fd());
            names.sort();
            names
        };
        let mut expected = vec!["other".to_owned(), held.name.clone(), second.name.clone()];
        assert_eq!(names(), expected, "what is held stays, what is not ours stays");
        drop(second);
        expected.pop();
        assert_eq!(names(), expected);
        drop(held);
        assert_eq!(names(), ["other"]);
    }

    #[test]
    fn a_parent_that_was_made_for_steps_goes_with_the_last() {
        let (dir, fd) = dir();
        std::fs::create_dir(dir.path().join("theirs")).unwrap();
        std::fs::create_dir(dir.path().join("ours")).unwrap();
        let within = |name: &str| {
            let place = open(fd.as_fd(), name).unwrap();
            let above = reopen(fd.as_fd()).unwrap();
            let group = Group::create(place.as_fd()).unwrap();
            group.with_parent(above, name.into())
        };
        mark(open(fd.as_fd(), "ours").unwrap().as_fd());
        let (first, second) = (within("ours"), within("ours"));
        drop(first);
        assert!(dir.path().join("ours").exists());
        drop(second);
        assert!(!dir.path().join("ours").exists());
        drop(within("theirs"));
        assert!(dir.path().join("theirs").exists());
    }
}
