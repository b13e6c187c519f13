//! Loads a seccomp program. What is in it is the sandbox's business.

pub mod notify;

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

/// One instruction of classic BPF, as `struct sock_filter` of linux/filter.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions skipped when the comparison holds.
    pub jump_true: u8,
    /// Instructions skipped when it does not.
    pub jump_false: u8,
    /// The constant.
    pub k: u32,
}

/// The kernel's limit on a program, in instructions (`BPF_MAXINSNS`).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// Why a program could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// Longer than the kernel takes.
    #[error("seccomp program of {0} instructions is longer than {INSTRUCTIONS_MAX}")]
    TooLong(usize),
    /// The kernel was built without seccomp filters; a step must not run without one.
    #[error("this kernel has no seccomp filters (CONFIG_SECCOMP_FILTER)")]
    Unsupported,
    /// A program is in force whose calls somebody hears; the kernel allows one such, and those below have none.
    #[error(
        "a seccomp listener is in force here already, and the kernel allows one (is this a step of rung one-id?)"
    )]
    Heard,
    /// The kernel refused.
    #[error("load seccomp program")]
    Load(#[source] io::Error),
}

/// Puts the calling thread, and all it starts, under `program` for good. Needs `CAP_SYS_ADMIN` or no_new_privs.
///
/// Speculative store bypass is left alone, as runc does (`SECCOMP_FILTER_FLAG_SPEC_ALLOW`).
///
/// # Errors
/// Too long, a kernel without filters, or the kernel's refusal.
pub fn load(program: &[Instruction]) -> Result<(), SeccompError> {
    set_filter(program, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW).map(drop)
}

/// As [`load`]; gives the end at which the calls are heard that the program answers with `SECCOMP_RET_USER_NOTIF`. Calls
/// wait for it, and only death takes them from there where the kernel can do that (Linux 5.19).
///
/// # Errors
/// As [`load`], and [`SeccompError::Heard`] below a program that is heard already: there can be one.
pub fn load_heard(program: &[Instruction]) -> Result<OwnedFd, SeccompError> {
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let killable = flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let fd = match set_filter(program, killable) {
        Err(SeccompError::Load(error)) if error.raw_os_error() == Some(libc::EINVAL) => {
            set_filter(program, flags)?
        }
        done => done?,
    };
    // SAFETY: the kernel made this descriptor for the caller, and nothing else knows of it.
    // WHY: the call gives it as a number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set_filter(program: &[Instruction], flags: libc::c_ulong) -> Result<RawFd, SeccompError> {
    let len = u16::try_from(program.len())
        .ok()
        .filter(|n| usize::from(*n) <= INSTRUCTIONS_MAX);
    let len = len.ok_or(SeccompError::TooLong(program.len()))?;
    let filter = Program {
        len,
        filter: program.as_ptr(),
    };
    // SAFETY: `filter` points to `len` instructions laid out as the kernel's own, alive during the call.
    // WHY: rustix does not load filters.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const filter,
        )
    };
    if let Ok(done) = RawFd::try_from(done)
        && done >= 0
    {
        return Ok(done);
    }
    let error = io::Error::last_os_error();
    Err(match error.raw_os_error() {
        Some(libc::ENOSYS) => SeccompError::Unsupported,
        Some(libc::EBUSY) => SeccompError::Heard,
        _ => SeccompError::Load(error),
    })
}

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    len: u16,
    filter: *const Instruction,
}
