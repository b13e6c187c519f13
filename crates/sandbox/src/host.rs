//! Programs of the host, such as git: not sandboxed, but tied to this process. Each is pid 1 of a pid namespace, so that
//! whatever it started ends with it, and it ends with the caller, however that ends. No terminal, no descriptor of the
//! caller's but the standard ones, files made with a umask of 022.
//!
//! Where no namespace can be made, in a container with the default profiles, a process between the two does the same: it
//! inherits what the program leaves behind, and kills that when the program or the caller has ended.
//!
//! What such a program may do to the host is its caller's affair: arguments, environment and directory are set there.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use rbuild_sys::process::{self, ForkError, Forked, Namespaces};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};

use crate::spawn::Sandbox;

/// `argv[0]` that asks for this mode.
pub(crate) const HOST_NAME: &str = "rbuild-host-program";
/// Exit code of a program that could not be started, as shells have it.
pub const CANNOT_START: u8 = 127;
/// Exit code where the machine has no process for it.
const CANNOT_FORK: u8 = 126;
/// How long what a program left behind is killed before that is given up.
const PATIENCE: Duration = Duration::from_secs(10);

impl Sandbox {
    /// A command that runs `program`, looked for in the `PATH` it is given, to be started before this sandbox is dropped.
    /// Ends with the thread that starts it. Exit
    /// code [`CANNOT_START`] and a line on standard error if there is no such program; 128 and the signal's number if
    /// a signal ended it.
    #[must_use]
    pub fn host_command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(self.program_path());
        command.arg0(HOST_NAME).arg(program).env_clear();
        command
    }
}

/// Runs the program that `args` name, and gives what it ended with.
pub(crate) fn run(mut args: impl Iterator<Item = OsString>) -> u8 {
    let Some(program) = args.next() else {
        return CANNOT_START;
    };
    start(&program, args).unwrap_or_else(|error| {
        use std::io::Write as _;
        // Standard error is a pipe to the caller; if nobody listens there is nobody to tell.
        writeln!(std::io::stderr(), "{}: {error}", program.display()).ok();
        CANNOT_FORK
    })
}

fn start(program: &OsStr, args: impl Iterator<Item = OsString>) -> std::io::Result<u8> {
    process::die_with_parent()?;
    // No terminal to ask anything on, and a group of its own to be stopped with.
    rustix::process::setsid()?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    match process::fork_into(Namespaces::default(), None) {
        Ok(Forked::Child) => Ok(run_program(program, args)),
        Ok(Forked::Parent { pid, .. }) => wait(pid),
        Err(ForkError::Clone(_)) => start_looked_after(program, args),
        Err(error) => Err(std::io::Error::other(error)),
    }
}

/// The same without a pid namespace. This process may be killed at any time and looks after nothing; what does is killed by
/// nobody, and sees the end of this one.
fn start_looked_after(program: &OsStr, args: impl Iterator<Item = OsString>) -> std::io::Result<u8> {
    let (watched, held) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match process::fork_here().map_err(std::io::Error::other)? {
        Forked::Child => {
            drop(held);
            look_after(program, args, &watched)
        }
        Forked::Parent { pid, .. } => {
            drop(watched);
            let code = wait(pid);
            drop(held);
            code
        }
    }
}

/// Runs the program until it ends, or until nobody holds the other end of `watched`.
fn look_after(
    program: &OsStr,
    args: impl Iterator<Item = OsString>,
    watched: &OwnedFd,
) -> std::io::Result<u8> {
    process::adopt_orphans()?;
    let (pid, pidfd) = match process::fork_here().map_err(std::io::Error::other)? {
        Forked::Child => return Ok(run_program(program, args)),
        Forked::Parent { pid, pidfd } => (pid, pidfd),
    };
    let mut polled = [
        PollFd::new(&pidfd, PollFlags::IN),
        PollFd::new(watched, PollFlags::empty()),
    ];
    while rustix::event::poll(&mut polled, None) == Err(Errno::INTR) {}
    // Too late is not too late: it is not waited for yet, so the number is still its own.
    rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).ok();
    let code = wait(pid);
    process::end_descendants(PATIENCE)?;
    code
}

/// Becomes the program, or says why not.
fn run_program(program: &OsStr, args: impl Iterator<Item = OsString>) -> u8 {
    match become_program(program, args) {
        Ok(never) => match never {},
        Err(error) => {
            use std::io::Write as _;
            writeln!(std::io::stderr(), "{}: {error}", program.display()).ok();
            CANNOT_START
        }
    }
}

fn become_program(program: &OsStr, args: impl Iterator<Item = OsString>) -> std::io::Result<Infallible> {
    process::die_with_parent()?;
    process::reset_signals()?;
    Err(Command::new(program).args(args).exec())
}

fn wait(pid: Pid) -> std::io::Result<u8> {
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                let code = status
                    .exit_status()
                    .or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                if let Some(code) = code {
                    return Ok(u8::try_from(code).unwrap_or(u8::MAX));
                }
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
