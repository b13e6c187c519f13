//! Supervisors, as the caller sees them: forked by a zygote that is started when the first step needs one, and once a second
//! step came also one ahead, which waits for its orders while the step before it runs.

use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::program::ProtectedProgram;
use crate::running::lock;
use crate::spawn::SpawnError;
use crate::supervisor::INIT_NAME;
use crate::zygote;

/// Has supervisors started. Used from many threads at once.
#[derive(Debug)]
pub(crate) struct Supervisors {
    program: ProtectedProgram,
    zygote: Mutex<Option<Zygote>>,
    is_expected: AtomicBool,
    ahead: Mutex<Ahead>,
}

#[derive(Debug, Default)]
struct Ahead {
    /// A step was started before: another may follow.
    is_worth_it: bool,
    spare: Option<Supervisor>,
}

/// The process that supervisors are forked from. It ends when its socket is closed.
#[derive(Debug)]
struct Zygote {
    requests: OwnedFd,
    child: Child,
}

/// A process that waits for its orders. It ends when its socket is closed.
#[derive(Debug)]
pub(crate) struct Supervisor {
    /// Where it is told what to do.
    pub(crate) control: OwnedFd,
    /// Standard output of it, and of the step.
    pub(crate) stdout: PipeReader,
    /// Standard error of both.
    pub(crate) stderr: PipeReader,
}

/// The other ends of a supervisor's descriptors.
struct Ends {
    control: OwnedFd,
    stdout: PipeWriter,
    stderr: PipeWriter,
}

impl Supervisors {
    pub(crate) fn new(program: ProtectedProgram) -> Self {
        Self {
            program,
            zygote: Mutex::default(),
            is_expected: AtomicBool::default(),
            ahead: Mutex::default(),
        }
    }

    /// Where this process finds the protected program.
    pub(crate) fn program_path(&self) -> PathBuf {
        self.program.path()
    }

    /// The one that was started ahead, or a new one.
    pub(crate) fn next(&self) -> Result<Supervisor, SpawnError> {
        match lock(&self.ahead).spare.take() {
            Some(spare) => Ok(spare),
            None => self.start(),
        }
    }

    /// A new one.
    pub(crate) fn start(&self) -> Result<Supervisor, SpawnError> {
        let (supervisor, ends) = Supervisor::new()?;
        let mut zygote = lock(&self.zygote);
        let known = zygote.as_ref().map(|known| known.request(&ends));
        if known != Some(Ok(())) {
            // None yet, or somebody killed it: supervisors of before live on without it.
            let new = Zygote::new(&self.program)?;
            let asked = new.request(&ends);
            zygote.replace(new);
            asked.map_err(|errno| SpawnError::HandOver {
                verb: "ask for a supervisor",
                source: errno.into(),
            })?;
        }
        Ok(supervisor)
    }

    /// Whether nobody has asked this before.
    pub(crate) fn is_first(&self) -> bool {
        !self.is_expected.swap(true, Ordering::Relaxed)
    }

    /// Starts what the first step would wait for.
    pub(crate) fn get_ready(&self) {
        let mut zygote = lock(&self.zygote);
        if zygote.is_none() {
            // The step tells what is wrong.
            *zygote = Zygote::new(&self.program).ok();
        }
    }

    /// To be called when a step was started: has one wait for the next.
    pub(crate) fn look_ahead(&self) {
        let mut ahead = lock(&self.ahead);
        let is_wanted = std::mem::replace(&mut ahead.is_worth_it, true) && ahead.spare.is_none();
        if is_wanted {
            // The next step tells what is wrong if it cannot be started.
            ahead.spare = self.start().ok();
        }
    }
}

impl Drop for Supervisors {
    fn drop(&mut self) {
        if let Some(spare) = lock(&self.ahead).spare.take() {
            spare.end();
        }
    }
}

impl Zygote {
    fn new(program: &ProtectedProgram) -> Result<Self, SpawnError> {
        let (requests, theirs) = socket_pair()?;
        let (stdout, stderr) = (nowhere()?, nowhere()?);
        // Standard input carries the socket: the child's other descriptors are all close-on-exec, so that none of those
        // of other threads get into it. Nothing more is asked of the library (a directory, say): it would copy the page
        // tables of this process to do it.
        let child = Command::new(program.path())
            .arg0(INIT_NAME)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::from(stderr))
            .spawn()
            .map_err(SpawnError::Start)?;
        Ok(Self { requests, child })
    }

    fn request(&self, ends: &Ends) -> Result<(), Errno> {
        let (stdout, stderr) = (ends.stdout.as_fd(), ends.stderr.as_fd());
        zygote::request(&self.requests, ends.control.as_fd(), stdout, stderr)
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        rustix::net::shutdown(&self.requests, rustix::net::Shutdown::Both).ok();
        self.child.wait().ok();
    }
}

/// What nobody reads. A place without devices (a root by chroot) has no file for that, and steps bring their own devices: there it is a
/// pipe that nobody reads from.
fn nowhere() -> Result<OwnedFd, SpawnError> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::open("/dev/null", flags, Mode::empty()) {
        Err(Errno::NOENT) => std::io::pipe().map(|(_, unread)| unread.into()),
        opened => opened.map_err(std::io::Error::from),
    }
    .map_err(SpawnError::Start)
}

impl Supervisor {
    /// One that is to be, and its own ends of what it speaks through.
    fn new() -> Result<(Self, Ends), SpawnError> {
        let fail = |source| SpawnError::HandOver {
            verb: "make a pipe",
            source,
        };
        let (control, theirs) = socket_pair()?;
        let (stdout, out) = std::io::pipe().map_err(fail)?;
        let (stderr, err) = std::io::pipe().map_err(fail)?;
        let ends = Ends {
            control: theirs,
            stdout: out,
            stderr: err,
        };
        let supervisor = Self {
            control,
            stdout,
            stderr,
        };
        Ok((supervisor, ends))
    }

    /// Ends one that has no orders, and waits until it has let go of everything.
    fn end(self) {
        let Self {
            control, mut stdout, ..
        } = self;
        drop(control);
        std::io::copy(&mut stdout, &mut std::io::sink()).ok();
    }
}

fn socket_pair() -> Result<(OwnedFd, OwnedFd), SpawnError> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|errno| SpawnError::HandOver {
        verb: "make a socket",
        source: errno.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that reads what is asked, and does nothing about it.
    fn deaf() -> Supervisors {
        Supervisors::new(ProtectedProgram::at("/bin/cat".into()).unwrap())
    }

    #[test]
    fn a_zygote_that_is_gone_is_replaced_and_one_that_does_nothing_is_found_out_by_its_silence() {
        let supervisors = deaf();
        supervisors.get_ready();
        let pid = || lock(&supervisors.zygote).as_ref().map(|it| it.child.id());
        let before = pid();
        let mut first = supervisors.start().unwrap();
        assert_eq!(pid(), before);
        // What was asked for has no other end any more.
        assert_eq!(std::io::copy(&mut first.stdout, &mut std::io::sink()).unwrap(), 0);
        {
            let mut zygote = lock(&supervisors.zygote);
            let child = &mut zygote.as_mut().unwrap().child;
            child.kill().unwrap();
            child.wait().unwrap();
        }
        supervisors.start().unwrap();
        assert_ne!(pid(), before);
    }
}
