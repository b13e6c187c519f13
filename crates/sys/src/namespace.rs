//! Namespaces of the calling thread or process: `unshare(2)` behind names that say what changes.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// Gives the calling thread a mount namespace and working directory of its own. For short-lived threads: the
/// namespace goes with the thread.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; `ENOSPC` at the limit of mount namespaces.
pub(crate) fn unshare_mounts_of_this_thread() -> Result<(), Errno> {
    unshare(UnshareFlags::NEWNS | UnshareFlags::FS)
}

/// Makes the control groups that the calling process is in now the top of all that it sees.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; `ENOSPC` at the limit of such namespaces.
pub fn unshare_cgroups() -> Result<(), Errno> {
    unshare(UnshareFlags::NEWCGROUP)
}

/// A new network namespace, in which nothing is up. It is there as long as a descriptor of it, or a process in it, is.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; `ENOSPC` at the limit of such namespaces; no thread.
pub fn new_network() -> io::Result<OwnedFd> {
    let make = || -> io::Result<OwnedFd> {
        unshare(UnshareFlags::NEWNET)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(
            "/proc/thread-self/ns/net",
            flags,
            Mode::empty(),
        )?)
    };
    // The namespace of a thread that ends is nobody's but the descriptor's.
    match std::thread::Builder::new().spawn(make)?.join() {
        Ok(made) => made,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Puts the calling thread into a network namespace. For short-lived threads, and processes with one.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` there; `EINVAL` for a descriptor of something else.
pub fn enter_network(namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
}

/// Gives the calling thread a root, a working directory and a umask of its own.
///
/// # Errors
/// The kernel's, for want of memory.
pub fn unshare_root_of_this_thread() -> Result<(), Errno> {
    unshare(UnshareFlags::FS)
}

pub(crate) fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: CLONE_FILES is never among the flags given in this crate, so no other thread's descriptors change
    // meaning.
    // WHY: rustix marks every unshare unsafe for the sake of that one flag.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}
