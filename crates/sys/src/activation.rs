//! Sockets that a service manager opened and handed over (`sd_listen_fds(3)`). Owns the adoption of their descriptors;
//! knows nothing of what is said over them.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first descriptor that is handed over.
const FIRST: RawFd = 3;
/// Most sockets of one service.
const COUNT_MAX: i32 = 64;

/// Why the sockets cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// Nothing was handed to this process.
    #[error("no sockets were handed over (LISTEN_PID and LISTEN_FDS are not for this process)")]
    None,
    /// They have an owner already.
    #[error("the sockets that were handed over are in use already")]
    Taken,
    /// The variable promises what is not there.
    #[error("descriptor {fd} was not handed over")]
    Missing {
        /// Its number.
        fd: RawFd,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// The sockets of `LISTEN_FDS` (`count`), if `LISTEN_PID` (`pid`) says that they are this process's. They are given out
/// once, and no child inherits them.
///
/// # Errors
/// [`ActivationError`].
pub fn listen_fds(pid: Option<&OsStr>, count: Option<&OsStr>) -> Result<Vec<OwnedFd>, ActivationError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |text: Option<&OsStr>| text?.to_str()?.parse::<i32>().ok();
    let own = i32::try_from(std::process::id()).ok();
    let count = number(count).filter(|count| (1..=COUNT_MAX).contains(count));
    let Some(count) = count.filter(|_| own.is_some() && number(pid) == own) else {
        return Err(ActivationError::None);
    };
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(ActivationError::Taken);
    }
    (FIRST..FIRST + count).map(adopt).collect()
}

fn adopt(fd: RawFd) -> Result<OwnedFd, ActivationError> {
    // SAFETY: the call takes a number and no memory, and fails for a number that is no open descriptor.
    // WHY: a descriptor that is not open must not become an owned one, and only a raw call can ask.
    let set = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    if set == -1 {
        return Err(ActivationError::Missing {
            fd,
            source: io::Error::last_os_error(),
        });
    }
    // SAFETY: it is open, was left open for this process by whoever started it, and is adopted here alone and once.
    // WHY: inherited descriptors are known by number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_another_process_are_not_taken() {
        let own = std::process::id().to_string();
        let other = (std::process::id() + 1).to_string();
        let none = |pid: Option<&str>, count: Option<&str>| {
            let taken = listen_fds(pid.map(OsStr::new), count.map(OsStr::new));
            assert!(matches!(taken, Err(ActivationError::None)), "{pid:?} {count:?}");
        };
        none(None, None);
        none(Some(&other), Some("1"));
        none(Some(&own), None);
        none(Some(&own), Some("0"));
        none(Some(&own), Some("65"));
        none(Some(&own), Some("x"));
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_an_error() {
        assert!(matches!(
            adopt(1_000_000),
            Err(ActivationError::Missing { fd: 1_000_000, .. })
        ));
    }
}
