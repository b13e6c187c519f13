//! `mount_setattr(2)` (Linux 5.12): flags and propagation of a mount by descriptor, recursively if asked.
//!
//! Only adds restrictions; it cannot take read-only, nosuid, nodev or noexec away from a mount.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// What a mount gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountAttr {
    /// No writes through this mount.
    pub read_only: bool,
    /// Set-user-id bits and file capabilities have no effect.
    pub no_suid: bool,
    /// Device nodes cannot be opened.
    pub no_dev: bool,
    /// Nothing can be executed.
    pub no_exec: bool,
    /// Where mount events go; `None` leaves it.
    pub propagation: Option<Propagation>,
}

/// Whether mounts and unmounts below this one are seen elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Neither sent nor received.
    Private,
    /// Received, not sent.
    Slave,
}

impl MountAttr {
    /// Read-only and nothing else.
    pub const READ_ONLY: Self = Self {
        read_only: true,
        no_suid: false,
        no_dev: false,
        no_exec: false,
        propagation: None,
    };
    /// Private propagation and nothing else.
    pub const PRIVATE: Self = Self {
        read_only: false,
        no_suid: false,
        no_dev: false,
        no_exec: false,
        propagation: Some(Propagation::Private),
    };

    /// Applies this to the mount `fd` is the root of, and with `recursive` to all mounts below it.
    ///
    /// # Errors
    /// The kernel's: `EINVAL` if `fd` is not the root of a mount, `EPERM` without rights over it.
    pub fn apply(&self, fd: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
        let mut set = 0;
        for (wanted, flag) in [
            (self.read_only, libc::MOUNT_ATTR_RDONLY),
            (self.no_suid, libc::MOUNT_ATTR_NOSUID),
            (self.no_dev, libc::MOUNT_ATTR_NODEV),
            (self.no_exec, libc::MOUNT_ATTR_NOEXEC),
        ] {
            if wanted {
                set |= flag;
            }
        }
        let propagation = match self.propagation {
            None => 0,
            Some(Propagation::Private) => libc::MS_PRIVATE,
            Some(Propagation::Slave) => libc::MS_SLAVE,
        };
        let attr = libc::mount_attr {
            attr_set: set,
            attr_clr: 0,
            propagation,
            userns_fd: 0,
        };
        let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
        // SAFETY: the path is an empty C string and `attr` outlives the call; its size is passed with it.
        // WHY: rustix 1.1 has no mount_setattr.
        let done = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                fd.as_raw_fd(),
                c"".as_ptr(),
                flags,
                &raw const attr,
                size_of::<libc::mount_attr>(),
            )
        };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}
