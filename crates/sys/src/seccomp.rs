//! Loads a seccomp program. What is in it is the sandbox's business.

use std::io;

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
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const filter,
        )
    };
    if done == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOSYS) => Err(SeccompError::Unsupported),
        _ => Err(SeccompError::Load(error)),
    }
}

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    len: u16,
    filter: *const Instruction,
}
