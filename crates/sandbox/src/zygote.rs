//! The process that supervisors are forked from: started once by a program that runs steps, it stays as it was then. A fork
//! of it is a supervisor that was never started: no program is loaded, no libraries are set up, and nothing of one step is
//! left for the next. It holds no step's descriptors.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rbuild_sys::process::{self, Forked};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags};
use rustix::process::WaitOptions;

use crate::supervisor;
use crate::wire::{self, Explained as _, Report};

/// Descriptors of a request: the supervisor's socket, its standard output and its standard error.
const REQUEST_FDS: usize = 3;

/// Asks the zygote behind `zygote` for a supervisor that hears and speaks through `control`.
///
/// # Errors
/// The zygote is gone.
pub(crate) fn request(
    zygote: &OwnedFd,
    control: BorrowedFd<'_>,
    stdout: BorrowedFd<'_>,
    stderr: BorrowedFd<'_>,
) -> Result<(), Errno> {
    wire::send_fds(zygote.as_fd(), b"s", &[control, stdout, stderr])
}

/// Forks supervisors until the caller is gone. Those that still look after a step do so to its end. Whether all went well.
pub(crate) fn serve(requests: OwnedFd) -> bool {
    while let Some(fds) = next(requests.as_fd()) {
        bury();
        // Whoever asks in another way than `request` gets nothing.
        let Ok([control, stdout, stderr]) = <[OwnedFd; REQUEST_FDS]>::try_from(fds) else {
            continue;
        };
        match process::fork_here().explained("start supervisor", "") {
            Ok(Forked::Child) => {
                drop(requests);
                return supervisor::supervise(control, stdout, stderr);
            }
            Ok(Forked::Parent { pidfd, .. }) => {
                // A caller that does not listen any more has closed the supervisor's socket too.
                wire::send_with(control.as_fd(), &Report::Started, pidfd.as_fd()).ok();
            }
            Err(error) => {
                supervisor::send(control.as_fd(), &error.into_report());
            }
        }
    }
    bury();
    true
}

/// The descriptors of the next request; `None` when there will be no more.
fn next(requests: BorrowedFd<'_>) -> Option<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(REQUEST_FDS))];
    loop {
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0_u8; 1];
        let parts = &mut [IoSliceMut::new(&mut byte)];
        match rustix::net::recvmsg(requests, parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) if message.bytes == 0 => return None,
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return None,
        }
        return Some(wire::fds_of(&mut ancillary));
    }
}

/// Takes supervisors that ended out of the process table.
fn bury() {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return,
        }
    }
}
