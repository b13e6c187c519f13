//! Whether anybody still uses a file system that was mounted here: an open file, a directory held, a mapping. The kernel tells
//! by an event of inotify when the last use is gone. Holds no use itself; refuses nothing.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

/// File systems whose end is waited for.
#[derive(Debug)]
pub struct Uses {
    inotify: OwnedFd,
    watched: usize,
}

impl Uses {
    /// Of no file system yet.
    ///
    /// # Errors
    /// The kernel's: a user may have so many of these (`fs.inotify.max_user_instances`).
    pub fn new() -> Result<Self, Errno> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { inotify, watched: 0 })
    }

    /// Adds the file system on which the directory `dir` lies. No use of it is held by that.
    ///
    /// # Errors
    /// The kernel's.
    pub fn watch(&mut self, dir: BorrowedFd<'_>) -> Result<(), Errno> {
        // An event has to be named; the end of the file system is told in any case.
        let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
        inotify::add_watch(&self.inotify, path, WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR)?;
        self.watched += 1;
        Ok(())
    }

    /// Waits until none of them is used any more; `false` if one still is after `limit`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn end_within(&self, limit: Duration) -> Result<bool, Errno> {
        let until = Instant::now() + limit;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut ended = 0;
        while ended < self.watched {
            match events.next() {
                Ok(event) => ended += usize::from(event.events().contains(ReadFlags::UNMOUNT)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(false);
                    }
                    let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
                    match rustix::event::poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], Some(&left)) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(error) => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::{Form, OverlaySpec};
    use std::os::fd::AsFd as _;

    const LIMIT: Duration = Duration::from_millis(200);

    /// An overlay of two directories, if this user may mount one.
    fn overlay(dir: &std::path::Path) -> Option<OwnedFd> {
        for name in ["lower", "upper", "work"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        let spec = OverlaySpec {
            form: Form::Trusted,
            lowers: vec![dir.join("lower")],
            upper_work: Some((dir.join("upper"), dir.join("work"))),
            volatile: false,
        };
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP: mounting an overlay needs root");
            return None;
        }
        Some(spec.mount().unwrap())
    }

    #[test]
    fn privileged_the_end_of_the_last_use_is_seen_and_not_earlier() {
        let dir = tempfile::tempdir().unwrap();
        let Some(root) = overlay(dir.path()) else { return };
        let mut uses = Uses::new().unwrap();
        uses.watch(root.as_fd()).unwrap();
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let held = rustix::fs::openat(&root, ".", flags, rustix::fs::Mode::empty()).unwrap();
        drop(root);
        assert!(!uses.end_within(LIMIT).unwrap(), "a directory is held");
        drop(held);
        assert!(uses.end_within(LIMIT).unwrap());
    }

    #[test]
    fn privileged_what_is_mapped_is_used_after_its_file_was_closed() {
        let dir = tempfile::tempdir().unwrap();
        let Some(root) = overlay(dir.path()) else { return };
        let mut uses = Uses::new().unwrap();
        uses.watch(root.as_fd()).unwrap();
        std::fs::write(dir.path().join("upper/file"), "content").unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
        let file = rustix::fs::openat(&root, "file", flags, rustix::fs::Mode::empty()).unwrap();
        let mapped = Mapped::of(&file);
        drop((file, root));
        assert!(!uses.end_within(LIMIT).unwrap());
        drop(mapped);
        assert!(uses.end_within(LIMIT).unwrap());
    }

    /// A shared mapping of one page.
    struct Mapped(*mut libc::c_void);

    impl Mapped {
        fn of(file: &OwnedFd) -> Self {
            let all = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: a mapping at an address of the kernel's choice overlaps nothing, and nobody reads through it.
            let at = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    4096,
                    all,
                    libc::MAP_SHARED,
                    file.as_raw_fd(),
                    0,
                )
            };
            assert_ne!(at, libc::MAP_FAILED);
            Self(at)
        }
    }

    impl Drop for Mapped {
        fn drop(&mut self) {
            // SAFETY: this is the whole mapping, and no reference into it was ever made.
            assert_eq!(unsafe { libc::munmap(self.0, 4096) }, 0);
        }
    }
}
