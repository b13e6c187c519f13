//! The last part of the way into a sandbox, the same for its first process and for those that join it: streams, limits,
//! working directory, rights, and then the program.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, IntoRawFd as _, OwnedFd};
use std::path::{Component, Path};

use rbuild_sys::RootFd;
use rbuild_sys::seccomp::Instruction;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::pipe::PipeFlags;
use rustix::thread::CapabilitySet;

use crate::exec::Program;
use crate::heard::Mouth;
use crate::plan::{Confinement, Network, Process, Security, Stdio};
use crate::terminal::{self, Terminal};
use crate::wire::{self, During as _, Explained as _, Report, SetupError};
use crate::{chroot, privileges};

/// What the way in needs beside the process.
pub(crate) struct Passage<'a> {
    pub(crate) security: Security,
    pub(crate) network: Network,
    pub(crate) confinement: Confinement,
    /// The seccomp program.
    pub(crate) filter: &'a [Instruction],
    /// The descriptors of the plan.
    pub(crate) fds: &'a [OwnedFd],
    /// The caller.
    pub(crate) control: BorrowedFd<'a>,
    /// The way to who answers the step's calls, where there is somebody.
    pub(crate) mouth: Option<&'a Mouth>,
    /// For a process in whose root no terminal can be made.
    pub(crate) terminal: Option<Terminal>,
}

impl Passage<'_> {
    /// Becomes the program of `process`. The calling process is in the namespaces already, and the root is the sandbox's.
    /// Returns only with what went wrong.
    pub(crate) fn enter(mut self, process: &Process) -> SetupError {
        let terminal = self.terminal.take();
        let run = || -> Result<SetupError, SetupError> {
            self.streams(process, terminal)?;
            for text in privileges::limit(process)? {
                self.tell(&Report::Warning(text));
            }
            enter_cwd(process)?;
            let program = Program::of(process)?;
            if self.confinement == Confinement::Chroot {
                chroot::confine(&self)?;
            } else if self.security == Security::Sandbox && self.network == Network::Host {
                privileges::leave_host_sockets()?;
            }
            self.becoming()?;
            privileges::drop_rights(
                &process.ids,
                self.granted(),
                self.security,
                self.filter,
                self.mouth,
            )?;
            Ok(program.exec())
        };
        match run() {
            Ok(error) | Err(error) => error,
        }
    }

    /// The capabilities that are left.
    const fn granted(&self) -> CapabilitySet {
        match (self.security, self.confinement) {
            (Security::Insecure, Confinement::Namespaces) => CapabilitySet::from_bits_retain(u64::MAX),
            (Security::Sandbox, Confinement::Namespaces) => privileges::DEFAULT,
            (_, Confinement::Chroot) => privileges::WITHOUT_NAMESPACES,
        }
    }

    fn streams(&self, process: &Process, terminal: Option<Terminal>) -> Result<(), SetupError> {
        match process.stdio {
            Stdio::Pipes { stdin: None } => Ok(()),
            Stdio::Pipes { stdin: Some(index) } => {
                let stdin = self.fds.get(index).ok_or(Errno::BADF).during("open", "stdin")?;
                rustix::stdio::dup2_stdin(stdin).during("open", "stdin")
            }
            Stdio::Terminal(size) => {
                let master = match terminal {
                    Some(terminal) => terminal.take(size)?,
                    None => terminal::attach(process.ids.uid, size)?,
                };
                wire::send_with(self.control, &Report::Terminal, master.as_fd())
                    .during("hand over", "terminal")
            }
        }
    }

    /// Gives the caller a pipe that ends when this process is the program, or is no more: the kernel closes the other end as
    /// it is closed on `execve`. It stays open here, so that what goes wrong is told before the pipe ends.
    fn becoming(&self) -> Result<(), SetupError> {
        let (ends, held) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).during("make", "pipe")?;
        wire::send_with(self.control, &Report::Becoming, ends.as_fd()).during("hand over", "pipe")?;
        let _until_exec = held.into_raw_fd();
        Ok(())
    }

    /// Tells the caller.
    pub(crate) fn tell(&self, report: &Report) {
        // A caller that is gone has this process killed; there is nobody else to tell.
        drop(
            serde_json::to_vec(report)
                .map(|bytes| rustix::net::send(self.control, &bytes, SendFlags::NOSIGNAL)),
        );
    }
}

/// Enters the working directory, making it if need be. Magic links are not followed, and the directory must be
/// reachable from the root (CVE-2024-21626).
fn enter_cwd(process: &Process) -> Result<(), SetupError> {
    let root = RootFd::open(Path::new("/")).explained("open", "/")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let enter = |path: &Path, uid: u32, gid: u32| match root.open_in(path, flags, Mode::empty()) {
        Err(error) if error.is_not_found() => {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            root.create_dir_all(path, Mode::from_raw_mode(0o755), |made, _| {
                rbuild_sys::owner::chown(made, Some(uid), Some(gid)).map_err(io::Error::from)
            })
        }
        done => done,
    };
    let plain = rbuild_sys::clean(&process.cwd);
    let mut dir = enter(&plain, process.ids.uid, process.ids.gid);
    // What `..` goes back through is made too, and is root's: the executor makes the one, and runc the other
    // (`executor/runcexecutor/executor.go`).
    if dir.is_ok() && process.cwd.components().any(|part| part == Component::ParentDir) {
        dir = enter(&process.cwd, 0, 0);
    }
    let dir = dir.explained("enter working directory", &process.cwd)?;
    rustix::process::fchdir(&dir).during("enter working directory", &process.cwd)?;
    let cwd = rustix::process::getcwd(Vec::new()).during("enter working directory", &process.cwd)?;
    if !cwd.as_bytes().starts_with(b"/") {
        return Err(SetupError::refused(
            "enter working directory",
            &process.cwd,
            ": it is outside the root",
        ));
    }
    Ok(())
}
