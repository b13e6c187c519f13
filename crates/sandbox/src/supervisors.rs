//! Supervisors: started when a step needs one, and once a second step came also one ahead, which waits for its orders while the
//! step before it runs. To start this program takes about as long as to make a sandbox.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::program::ProtectedProgram;
use crate::spawn::SpawnError;
use crate::supervisor::INIT_NAME;

/// Starts supervisors. Used from many threads at once.
#[derive(Debug)]
pub(crate) struct Supervisors {
    program: ProtectedProgram,
    ahead: Mutex<Ahead>,
}

#[derive(Debug, Default)]
struct Ahead {
    /// A step was started before: another may follow.
    is_worth_it: bool,
    spare: Option<Supervisor>,
}

/// A process that waits for its orders.
#[derive(Debug)]
pub(crate) struct Supervisor {
    /// Where it is told what to do.
    pub(crate) control: OwnedFd,
    pub(crate) child: Child,
}

impl Supervisors {
    pub(crate) fn new(program: ProtectedProgram) -> Self {
        Self {
            program,
            ahead: Mutex::default(),
        }
    }

    /// Where this process finds the protected program.
    pub(crate) fn program_path(&self) -> PathBuf {
        self.program.path()
    }

    /// The one that was started ahead, or a new one.
    pub(crate) fn next(&self) -> Result<Supervisor, SpawnError> {
        match self.ahead().spare.take() {
            Some(spare) => Ok(spare),
            None => self.start(),
        }
    }

    /// A new one.
    pub(crate) fn start(&self) -> Result<Supervisor, SpawnError> {
        let (control, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|errno| SpawnError::HandOver {
            verb: "make a socket",
            source: errno.into(),
        })?;
        // Standard input carries the socket: the child's other descriptors are all close-on-exec, so two threads
        // that start steps at once cannot leak theirs into each other's supervisor. Nothing more is asked of the library (a
        // directory, say): it would copy the page tables of this process to do it.
        let child = Command::new(self.program.path())
            .arg0(INIT_NAME)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(SpawnError::Start)?;
        Ok(Supervisor { control, child })
    }

    /// To be called when a step was started: has one wait for the next.
    pub(crate) fn look_ahead(&self) {
        let is_wanted = {
            let mut ahead = self.ahead();
            std::mem::replace(&mut ahead.is_worth_it, true) && ahead.spare.is_none()
        };
        // Without the lock, so that no step waits for this one; the next tells what is wrong if it cannot be started.
        if is_wanted && let Ok(spare) = self.start() {
            let unneeded = self.ahead().spare.replace(spare);
            if let Some(unneeded) = unneeded {
                unneeded.end();
            }
        }
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Supervisors {
    fn drop(&mut self) {
        if let Some(spare) = self.ahead().spare.take() {
            spare.end();
        }
    }
}

impl Supervisor {
    /// Ends it, and waits until it is gone.
    pub(crate) fn end(mut self) {
        // Closed, the socket would tell it as well; what is killed does not take its time.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that waits for its standard input, as a supervisor does.
    fn waiting() -> Supervisors {
        Supervisors::new(ProtectedProgram::at("/bin/cat".into()).unwrap())
    }

    fn is_there(pid: u32) -> bool {
        std::path::Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn one_waits_for_the_step_after_the_second_and_is_the_one_that_is_taken() {
        let supervisors = waiting();
        let first = supervisors.next().unwrap();
        supervisors.look_ahead();
        assert!(supervisors.ahead().spare.is_none(), "one step may be all");
        let second = supervisors.next().unwrap();
        supervisors.look_ahead();
        supervisors.look_ahead();
        let spare = supervisors.ahead().spare.as_ref().map(|spare| spare.child.id());
        let third = supervisors.next().unwrap();
        assert_eq!(Some(third.child.id()), spare);
        assert!(supervisors.ahead().spare.is_none());
        let fourth = supervisors.next().unwrap();
        let mut ids = [&first, &second, &third, &fourth].map(|one| one.child.id());
        ids.sort_unstable();
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
        for one in [first, second, third, fourth] {
            one.end();
        }
        assert!(ids.iter().all(|id| !is_there(*id)));
    }

    #[test]
    fn one_that_nobody_needed_is_gone_with_what_started_it() {
        let supervisors = waiting();
        supervisors.look_ahead();
        supervisors.look_ahead();
        let spare = supervisors.ahead().spare.as_ref().unwrap().child.id();
        assert!(is_there(spare));
        drop(supervisors);
        assert!(!is_there(spare));
    }
}
