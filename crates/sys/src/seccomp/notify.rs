//! The hearing end of a seccomp program: calls that wait for an answer, and what there is to know of the callers.
//!
//! A caller is named by a thread id, which may mean another thread as soon as the caller is dead. Whatever was learned by
//! it counts only if [`Listener::is_waiting`] says afterwards that the call still waits; [`Memory`] is bound to the
//! caller once it is open.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::io::Errno;

/// Hears calls. Several threads may share one.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// A call that waits.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Names it to the kernel.
    pub id: u64,
    /// The calling thread, as this process sees it.
    pub thread: i32,
    /// `AUDIT_ARCH_*`: whose numbers of calls are meant.
    pub architecture: u32,
    /// Number of the call.
    pub number: i32,
    /// Its arguments.
    pub args: [u64; 6],
}

/// What becomes of a call.
#[derive(Debug)]
pub enum Answer {
    /// The kernel runs it, with whatever its arguments point to by then.
    Continue,
    /// It gives this and is not run.
    Value(i64),
    /// It fails with this and is not run.
    Error(Errno),
    /// It gives a new descriptor of the caller for this file and is not run.
    Descriptor {
        /// The file.
        file: OwnedFd,
        /// Closed when the caller starts another program.
        close_on_exec: bool,
    },
}

/// Room for the kernel's `struct seccomp_notif`, which may be longer than the one known here.
#[repr(C)]
union Heard {
    known: libc::seccomp_notif,
    room: [u64; 32],
}

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` (Linux 6.6).
const SYNC_WAKE_UP: u64 = 1;

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener {
    /// Takes what [`super::load_heard`] gave.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        // SAFETY: the argument is a number.
        // WHY: rustix has no such ioctl. Older kernels refuse it, and are slower.
        unsafe { libc::ioctl(fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
        Self(fd)
    }

    /// Waits for the next call. Nothing if its caller died meanwhile.
    ///
    /// # Errors
    /// The kernel's.
    pub fn next(&self) -> Result<Option<Call>, Errno> {
        let mut heard = Heard { room: [0; 32] };
        // SAFETY: `heard` is zeroed, as the kernel demands, and longer than what it writes.
        // WHY: rustix has no such ioctl.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut heard) };
        if done < 0 {
            return match last_errno() {
                Errno::NOENT | Errno::INTR => Ok(None),
                error => Err(error),
            };
        }
        // SAFETY: every byte is initialised, and the structure is of integers.
        // WHY: the kernel's structure may be longer than libc's.
        let known = unsafe { heard.known };
        Ok(Some(Call {
            id: known.id,
            thread: known.pid.cast_signed(),
            architecture: known.data.arch,
            number: known.data.nr,
            args: known.data.args,
        }))
    }

    /// Whether nobody is left who could call.
    #[must_use]
    pub fn is_over(&self) -> bool {
        use rustix::event::{PollFd, PollFlags};
        let now = rustix::time::Timespec::default();
        let mut polled = [PollFd::new(&self.0, PollFlags::empty())];
        rustix::event::poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().contains(PollFlags::HUP)
    }

    /// Whether the call still waits, so that its thread id means its caller.
    #[must_use]
    pub fn is_waiting(&self, call: &Call) -> bool {
        // SAFETY: the argument points to a number that outlives the call.
        // WHY: rustix has no such ioctl.
        let done = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
                &raw const call.id,
            )
        };
        done == 0
    }

    /// Answers. A caller that died meanwhile has no use for it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn answer(&self, call: &Call, answer: Answer) -> Result<(), Errno> {
        let (val, error, flags) = match answer {
            Answer::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Answer::Value(value) => (value, 0, 0),
            Answer::Error(errno) => (0, -errno.raw_os_error(), 0),
            Answer::Descriptor { file, close_on_exec } => {
                let at_once = libc::SECCOMP_ADDFD_FLAG_SEND as u32;
                let given = match self.give(call, &file, close_on_exec, at_once) {
                    // Before Linux 5.14 in two steps: the descriptor, and then its number.
                    Err(Errno::INVAL) => self.give(call, &file, close_on_exec, 0),
                    Ok(_) => return Ok(()),
                    error => error,
                };
                match given {
                    Ok(number) => (number.into(), 0, 0),
                    // The caller's table is full, as it would be told by the call itself.
                    Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => {
                        (0, -error.raw_os_error(), 0)
                    }
                    Err(Errno::NOENT | Errno::SRCH | Errno::INPROGRESS) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        };
        let mut response = libc::seccomp_notif_resp {
            id: call.id,
            val,
            error,
            flags,
        };
        // SAFETY: `response` is the kernel's own structure and outlives the call.
        // WHY: rustix has no such ioctl.
        let done = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SEND,
                &raw mut response,
            )
        };
        match done {
            0 => Ok(()),
            _ => match last_errno() {
                Errno::NOENT => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Gives the number that the file has there now.
    fn give(&self, call: &Call, file: &OwnedFd, close_on_exec: bool, flags: u32) -> Result<i32, Errno> {
        let request = libc::seccomp_notif_addfd {
            id: call.id,
            flags,
            srcfd: file.as_raw_fd().cast_unsigned(),
            newfd: 0,
            newfd_flags: if close_on_exec {
                libc::O_CLOEXEC.cast_unsigned()
            } else {
                0
            },
        };
        // SAFETY: `request` is the kernel's own structure and outlives the call.
        // WHY: rustix has no such ioctl.
        let done = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ADDFD,
                &raw const request,
            )
        };
        if done < 0 { Err(last_errno()) } else { Ok(done) }
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Reads memory of `thread` at `address`, as much as there is up to the length of `buffer`. See the head of this file.
///
/// # Errors
/// The kernel's: `EFAULT` where there is nothing, `EPERM` where the caller is not to be looked into.
pub fn peek(thread: i32, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: buffer.len(),
    };
    // SAFETY: the kernel writes at most `iov_len` bytes to `buffer`; the remote address is not of this process.
    // WHY: neither rustix nor nix, as configured, reads other processes.
    let read = unsafe { libc::process_vm_readv(thread, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(read).map_err(|_| last_errno())
}

/// The memory of one process, whatever its ids come to mean.
#[derive(Debug)]
pub struct Memory(File);

impl Memory {
    /// `process` is the caller's directory in `/proc`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(process: BorrowedFd<'_>) -> Result<Self, Errno> {
        use rustix::fs::{Mode, OFlags};
        rustix::fs::openat(process, "mem", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map(|fd| Self(fd.into()))
    }

    /// Writes all of `bytes` there.
    ///
    /// # Errors
    /// `EFAULT`, also where the process itself may not write: `/proc/PID/mem` is for debuggers and forces its way into
    /// read-only pages, which is the process's own business.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.0.write_all_at(bytes, address).map_err(|_| Errno::FAULT)
    }
}

/// The soft limit of a resource the kernel no longer looks at (`RLIMIT_LOCKS`, since Linux 2.4.24): a number that a process
/// hands on to its children and keeps when it starts another program.
///
/// # Errors
/// The kernel's.
pub fn mark(thread: i32) -> Result<u64, Errno> {
    limit(thread, None).map(|limit| limit.rlim_cur)
}

/// Sets what [`mark`] reads.
///
/// # Errors
/// The kernel's; `EINVAL` above the hard limit.
pub fn set_mark(thread: i32, mark: u64) -> Result<(), Errno> {
    let old = limit(thread, None)?;
    if mark > old.rlim_max {
        return Err(Errno::INVAL);
    }
    let new = libc::rlimit {
        rlim_cur: mark,
        rlim_max: old.rlim_max,
    };
    limit(thread, Some(new)).map(drop)
}

fn limit(thread: i32, new: Option<libc::rlimit>) -> Result<libc::rlimit, Errno> {
    let mut old = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both pointers are null or to structures that outlive the call.
    // WHY: rustix cannot ask for the limits of another process.
    let done = unsafe { libc::prlimit(thread, libc::RLIMIT_LOCKS, new, &raw mut old) };
    if done == 0 { Ok(old) } else { Err(last_errno()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_marks_of_a_process_are_read_and_written() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let text = *b"something";
        let mut read = [0_u8; 9];
        assert_eq!(peek(own, text.as_ptr() as u64, &mut read), Ok(9));
        assert_eq!(read, text);
        assert_eq!(peek(own, 8, &mut read), Err(Errno::FAULT));
        let before = mark(own).unwrap();
        set_mark(own, 12).unwrap();
        assert_eq!(mark(own), Ok(12));
        set_mark(own, before).unwrap();
    }
}
