//! The process that answers a step's calls, and how it gets to hear them.
//!
//! It is forked from the supervisor before the step is, and stays in the namespaces that the supervisor was started in: in
//! those the machine's `/proc` shows the step's processes, and threads can be made, which a process that is about to
//! fork into another pid namespace cannot. It ends with the supervisor.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rbuild_sys::{process, seccomp};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions};

use super::{Credentials, program, serve};
use crate::wire::{During as _, Explained as _, SetupError};

/// Longest reason for an end.
const REASON_MAX: u64 = 4096;

/// The step's way to it.
#[derive(Debug)]
pub(crate) struct Mouth(OwnedFd);

/// The supervisor's view of it. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Answerer {
    pid: Pid,
    /// Closed when it ends; what is written before is the reason.
    reason: io::PipeReader,
}

/// Starts it, for a step that starts as `first`. The caller has one thread.
pub(crate) fn start(first: Credentials) -> Result<(Answerer, Mouth), SetupError> {
    let kind = SocketType::SEQPACKET;
    let (ear, mouth) = rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .during("make a socket", "")?;
    let (reason, tell) = io::pipe().during("make a pipe", "")?;
    match process::fork().explained("start the answerer", "")? {
        Some(pid) => Ok((Answerer { pid, reason }, Mouth(mouth))),
        None => {
            // The other ends are this process's only until it has closed everything else.
            drop((mouth, reason));
            let told = answer(&ear, &tell, first).map_or_else(|error| describe(&error), |()| String::new());
            let mut tell = tell;
            let code = i32::from(tell.write_all(told.as_bytes()).is_err());
            #[expect(clippy::exit, reason = "the answerer is a process of its own")]
            std::process::exit(code)
        }
    }
}

fn describe(error: &SetupError) -> String {
    match &error.source {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Answers until no process of the step is left.
fn answer(ear: &OwnedFd, tell: &io::PipeWriter, first: Credentials) -> Result<(), SetupError> {
    process::die_with_parent().during("tie to supervisor", "")?;
    // The step's output ends with the step.
    let null = rustix::stdio::stdin();
    rustix::stdio::dup2_stdout(null).during("close output", "")?;
    rustix::stdio::dup2_stderr(null).during("close output", "")?;
    // Whatever else the supervisor holds is the step's, or the caller's: it must end when they let it go.
    process::close_all_but(&[ear.as_raw_fd(), tell.as_raw_fd()]).during("close descriptors", "")?;
    match receive(ear).during("hear the step", "")? {
        Some(heard) => serve::serve(heard, first),
        // The step ended on its way.
        None => Ok(()),
    }
}

fn receive(ear: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8; 1];
    let message = &mut [IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(ear, message, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let heard = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok(heard)
}

impl Mouth {
    /// Puts the calling process, which is about to become the step, under the program that asks.
    pub(crate) fn ask_from_now_on(&self) -> Result<(), SetupError> {
        // Says "as started" until an answer says otherwise.
        let marked = Rlimit {
            current: Some(0),
            maximum: rustix::process::getrlimit(Resource::Locks).maximum,
        };
        rustix::process::setrlimit(Resource::Locks, marked).during("set limit", "locks")?;
        let heard = seccomp::load_heard(&program()).explained("let owners be shown", "")?;
        let fds = [heard.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        let message = [IoSlice::new(b"l")];
        rustix::net::sendmsg(&self.0, &message, &mut ancillary, SendFlags::NOSIGNAL)
            .map(drop)
            .during("let owners be shown", "")
    }
}

impl Answerer {
    /// To wait for its end.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.reason.as_fd()
    }

    /// Why it ended, if it did while it was needed. `killed`: the step was ended by `SIGKILL`.
    pub(crate) fn failure(mut self, ended: bool, killed: bool) -> Option<SetupError> {
        if !ended {
            return None;
        }
        let mut reason = String::new();
        let read = self.reason.by_ref().take(REASON_MAX).read_to_string(&mut reason);
        if reason.is_empty() && !killed && read.is_ok() {
            return None;
        }
        let text = if reason.is_empty() {
            "it was ended"
        } else {
            &reason
        };
        Some(SetupError::refused(
            "show owners to the step",
            std::path::Path::new(""),
            format!(": {text}"),
        ))
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        // It is a child that nobody else waits for: its number cannot have come to mean anything else.
        rustix::process::kill_process(self.pid, Signal::KILL).ok();
        while matches!(
            rustix::process::waitpid(Some(self.pid), WaitOptions::empty()),
            Err(Errno::INTR)
        ) {}
    }
}
