//! Namespaces of the calling thread or process: `unshare(2)` behind names that say what changes.

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// Gives the calling thread a mount namespace and working directory of its own. For short-lived threads: the
/// namespace goes with the thread.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; `ENOSPC` at the limit of mount namespaces.
pub fn unshare_mounts_of_this_thread() -> Result<(), Errno> {
    unshare(UnshareFlags::NEWNS | UnshareFlags::FS)
}

/// Makes the control groups that the calling process is in now the top of all that it sees.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; `ENOSPC` at the limit of such namespaces.
pub fn unshare_cgroups() -> Result<(), Errno> {
    unshare(UnshareFlags::NEWCGROUP)
}

pub(crate) fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: CLONE_FILES is never among the flags given in this crate, so no other thread's descriptors change
    // meaning.
    // WHY: rustix marks every unshare unsafe for the sake of that one flag.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}
