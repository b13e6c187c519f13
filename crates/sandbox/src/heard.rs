//! The way by which who answers a step's calls gets to hear them: the step loads the program that asks, and sends the listener.

#[cfg(test)]
pub(crate) mod trial;

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rbuild_sys::seccomp::{self, SeccompError};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvFlags, SocketFlags, SocketType};
use rustix::process::{Resource, Rlimit};

use crate::plan::Security;
use crate::wire::{self, During as _, Explained as _, SetupError};
use crate::{owners, sockets};

/// What a step asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// Owners, and sockets too where it is sandboxed.
    Owners,
    /// Sockets that no seccomp program can judge.
    Sockets,
}

/// The step's end.
#[derive(Debug)]
pub(crate) struct Mouth {
    asks: Asks,
    way: OwnedFd,
}

/// The end of who answers.
#[derive(Debug)]
pub(crate) struct Ear(OwnedFd);

/// Both ends.
pub(crate) fn pair(asks: Asks) -> Result<(Ear, Mouth), SetupError> {
    let kind = SocketType::SEQPACKET;
    let (ear, way) = rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .during("make a socket", "")?;
    Ok((Ear(ear), Mouth { asks, way }))
}

impl Ear {
    /// Waits for the listener. Nothing if the step ended on its way.
    pub(crate) fn listener(&self) -> Result<Option<OwnedFd>, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0_u8; 1];
        let message = &mut [IoSliceMut::new(&mut byte)];
        rustix::net::recvmsg(&self.0, message, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        Ok(wire::fds_of(&mut ancillary).pop())
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Ear {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Mouth {
    /// Whether who the step is is for somebody else to tell.
    pub(crate) fn is_about_owners(&self) -> bool {
        self.asks == Asks::Owners
    }

    /// Puts the calling process, which is about to become the step, under the program that asks.
    pub(crate) fn ask_from_now_on(&self, security: Security) -> Result<(), SetupError> {
        let listener = match self.asks {
            Asks::Owners => {
                // Says "as started" until an answer says otherwise.
                let marked = Rlimit {
                    current: Some(0),
                    maximum: rustix::process::getrlimit(Resource::Locks).maximum,
                };
                rustix::process::setrlimit(Resource::Locks, marked).during("set limit", "locks")?;
                seccomp::load_heard(&owners::program(security)).explained("let owners be shown", "")?
            }
            Asks::Sockets => match seccomp::load_heard(&sockets::program_that_asks()) {
                // Who hears the calls of all that run here is not ours to ask.
                Err(SeccompError::Heard) => {
                    return seccomp::load(&sockets::program_that_refuses())
                        .explained("keep sockets from the step", "");
                }
                done => done.explained("keep sockets from the step", "")?,
            },
        };
        wire::send_fds(self.way.as_fd(), b"l", &[listener.as_fd()]).during("hand over", "listener")
    }
}
