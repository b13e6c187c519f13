//! A started process, as the caller sees it: its streams, its end, and the words that kill it or send it a signal. Used from
//! many threads at once.

use std::io::{self, IoSliceMut, PipeReader};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Mutex;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendFlags, Shutdown};
use serde::{Deserialize, Serialize};

use crate::foreign::Machine;
use crate::plan::{Network, Security};
use crate::supervisors::Supervisor;
use crate::wire::{self, Failure, FailureKind, REPORT_MAX, Report, Word};

/// Why it is not known how a step ended, or why it never ran.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The sandbox could not be made.
    #[error("{what} {path:?}{text}")]
    Setup {
        /// What was tried.
        what: String,
        /// On what: a path inside the step's root, of the caller, or a name.
        path: PathBuf,
        /// More words, with their own punctuation; may be empty.
        text: String,
        /// The kernel's answer, if it was asked.
        #[source]
        source: Option<io::Error>,
    },
    /// The sandbox is there, but the program cannot be run in it.
    #[error("run {program:?}{text}")]
    Exec {
        /// The program as the plan names it.
        program: PathBuf,
        /// More words; may be empty.
        text: String,
        /// The processor that it needs, if that is what is wrong.
        machine: Option<Machine>,
        /// The kernel's answer.
        #[source]
        source: Option<io::Error>,
    },
    /// The supervisor ended without a word; somebody killed it. The step is dead too.
    #[error("the supervisor of the step was killed")]
    Lost,
    /// The socket failed.
    #[error("read from the supervisor")]
    Receive(#[source] io::Error),
    /// The supervisor said what this version does not understand.
    #[error("decode the supervisor's report")]
    Decode(#[source] serde_json::Error),
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// By itself or by a signal.
    pub status: ExitStatus,
    /// What it used.
    pub usage: Usage,
    /// What was done otherwise than planned, for the user to read.
    pub warnings: Vec<String>,
    /// Somebody else may still use an overlay that the step could write to, because it passed descriptors on: what is kept
    /// of that has to be a copy. Asked of steps that [meet others](crate::Plan::meets_others) only.
    pub is_in_use: bool,
}

/// What a step used, as far as the kernel told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Whether processes of the step were killed for want of memory; `None` if not known (no cgroup of its own).
    pub oom: Option<bool>,
    /// The limit of memory that held, bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Most memory at once of all its processes, with what they had in the page cache, bytes; `None` without a cgroup.
    pub memory_peak_bytes: Option<u64>,
    /// Most memory of its largest process, bytes, without what is shared with files.
    pub largest_process_bytes: u64,
    /// Processor time, microseconds. Without a cgroup that of processes that others waited for only.
    pub cpu_us: u64,
}

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It returned this, 0 to 255.
    Code(i32),
    /// This signal ended it; 9 also after [`Running::kill`].
    Signal(i32),
}

/// A started step. Dropping it kills the step and waits until that is done.
#[derive(Debug)]
pub struct Running {
    control: OwnedFd,
    stdout: Mutex<Option<PipeReader>>,
    stderr: Mutex<Option<PipeReader>>,
    heard: Mutex<Heard>,
    way: (Security, Network),
}

/// What a supervisor has said so far.
#[derive(Debug, Default)]
struct Heard {
    warnings: Vec<String>,
    is_in_use: bool,
    outcome: Option<Result<(ExitStatus, Usage), WaitError>>,
    supervisor: Option<OwnedFd>,
    process: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    /// Ends when the process runs its program.
    becoming: Option<OwnedFd>,
}

/// A process that runs its program, or did.
#[derive(Debug)]
pub struct Ready {
    /// Where others join it.
    pub entrance: Entrance,
    /// The caller's end of its terminal, if it has one; it does not block.
    pub terminal: Option<OwnedFd>,
}

/// The way into a sandbox that runs.
#[derive(Debug)]
pub struct Entrance {
    /// Means its first process, however pids are reused.
    pub(crate) process: OwnedFd,
    pub(crate) security: Security,
    pub(crate) network: Network,
}

impl Running {
    pub(crate) fn new(supervisor: Supervisor, way: (Security, Network)) -> Self {
        Self {
            control: supervisor.control,
            stdout: Mutex::new(Some(supervisor.stdout)),
            stderr: Mutex::new(Some(supervisor.stderr)),
            heard: Mutex::default(),
            way,
        }
    }

    /// The step's standard output, once. It ends when no process of the step holds it any more.
    pub fn take_stdout(&self) -> Option<PipeReader> {
        lock(&self.stdout).take()
    }

    /// The step's standard error, once.
    pub fn take_stderr(&self) -> Option<PipeReader> {
        lock(&self.stderr).take()
    }

    /// Kills the step and every process it left behind, at once. May be called from any thread, any number of
    /// times, also after the end.
    pub fn kill(&self) {
        self.say(Word::Kill);
    }

    /// Sends the process a signal, from any thread. The kernel keeps from the first process of a sandbox what it has
    /// no handler for, except `SIGKILL` and `SIGSTOP` (pid_namespaces(7)).
    pub fn signal(&self, number: i32) {
        self.say(Word::Signal(number));
    }

    fn say(&self, word: Word) {
        // A supervisor that is gone already has nothing left to do.
        rustix::net::send(&self.control, &word.encode(), SendFlags::NOSIGNAL).ok();
    }

    /// Waits until the process runs its program: signals are the program's from then on. `None` if it does not come to that: [`Running::wait`] knows
    /// why. Call it once, if at all, before [`Running::wait`].
    pub fn ready(&self) -> Option<Ready> {
        let mut heard = lock(&self.heard);
        while heard.becoming.is_none() || heard.process.is_none() {
            if !self.hears(&mut heard) {
                return None;
            }
        }
        ended(&heard.becoming.take()?);
        // A process that did not become its program has said why before.
        while says(&self.control) && self.hears(&mut heard) {}
        if matches!(heard.outcome, Some(Err(_))) {
            return None;
        }
        let (security, network) = self.way;
        Some(Ready {
            entrance: Entrance {
                process: heard.process.take()?,
                security,
                network,
            },
            terminal: heard.terminal.take(),
        })
    }

    /// Waits for the end of the step. All its processes are dead then, and its layer is free of mountpoints. Output
    /// must be read meanwhile by others, or the step waits for it. Call it once.
    ///
    /// # Errors
    /// The step never ran, or its supervisor was killed.
    pub fn wait(&self) -> Result<Exit, WaitError> {
        let mut heard = lock(&self.heard);
        while self.listen(&mut heard)? {}
        gone(&heard);
        let (status, usage) = heard.outcome.take().unwrap_or(Err(WaitError::Lost))?;
        Ok(Exit {
            status,
            usage,
            warnings: std::mem::take(&mut heard.warnings),
            is_in_use: heard.is_in_use,
        })
    }

    /// Takes one message in, keeping what went wrong with that for [`Running::wait`]; `false` when there will be no more.
    fn hears(&self, heard: &mut Heard) -> bool {
        self.listen(heard).unwrap_or_else(|error| {
            heard.outcome.get_or_insert(Err(error));
            false
        })
    }

    /// Takes one message in; `false` when there will be no more.
    fn listen(&self, heard: &mut Heard) -> Result<bool, WaitError> {
        let mut buffer = vec![0_u8; REPORT_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut buffer)];
        let received = rustix::net::recvmsg(&self.control, parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC);
        let len = match received {
            Ok(message) => message.bytes,
            // A supervisor that ends with our word to kill unread resets the socket. The kernel says that once,
            // and then gives what was sent before.
            Err(Errno::INTR | Errno::CONNRESET) => return Ok(true),
            Err(errno) => return Err(WaitError::Receive(errno.into())),
        };
        let fd = wire::fds_of(&mut ancillary).into_iter().next();
        if len == 0 {
            return Ok(false);
        }
        let end = match serde_json::from_slice(&buffer[..len]).map_err(WaitError::Decode)? {
            Report::Started => {
                heard.supervisor = fd;
                return Ok(true);
            }
            Report::Warning(text) => {
                heard.warnings.push(text);
                return Ok(true);
            }
            Report::InUse => {
                heard.is_in_use = true;
                return Ok(true);
            }
            Report::Forked => {
                heard.process = fd;
                return Ok(true);
            }
            Report::Terminal => {
                heard.terminal = fd;
                return Ok(true);
            }
            Report::Becoming => {
                heard.becoming = fd;
                return Ok(true);
            }
            Report::Failed(failure) => Err(failure.into()),
            Report::Exited { code, usage } => Ok((ExitStatus::Code(code), usage)),
            Report::Signaled { signal, usage } => Ok((ExitStatus::Signal(signal), usage)),
        };
        // A child that could not become the step tells why before its own exit is reported.
        heard.outcome.get_or_insert(end);
        Ok(true)
    }
}

/// Waits until the supervisor is gone, whose socket is closed: what it held open is then, too.
fn gone(heard: &Heard) {
    let Some(supervisor) = &heard.supervisor else {
        return;
    };
    let polled = &mut [PollFd::new(supervisor, PollFlags::IN)];
    while rustix::event::poll(polled, None) == Err(Errno::INTR) {}
}

/// Waits for the end of a pipe into which nobody writes.
fn ended(pipe: &OwnedFd) {
    while rustix::io::read(pipe, &mut [0]) == Err(Errno::INTR) {}
}

/// Whether something can be read at once; the end of all can be, too.
fn says(control: &OwnedFd) -> bool {
    let polled = &mut [PollFd::new(control, PollFlags::IN)];
    matches!(rustix::event::poll(polled, Some(&Timespec::default())), Ok(1..))
}

impl From<Failure> for WaitError {
    fn from(failure: Failure) -> Self {
        let source = failure.errno.map(io::Error::from_raw_os_error);
        let (path, text) = (failure.path, failure.text);
        match failure.kind {
            FailureKind::Setup => Self::Setup {
                what: failure.what,
                path,
                text,
                source,
            },
            FailureKind::Exec => Self::Exec {
                program: path,
                text,
                machine: failure.machine,
                source,
            },
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It hears that nobody speaks to it any more, and has still to be heard.
        rustix::net::shutdown(&self.control, Shutdown::Write).ok();
        let mut heard = lock(&self.heard);
        while self.listen(&mut heard).unwrap_or(false) {}
        gone(&heard);
    }
}

/// The values behind these locks are single moves, whole whatever panicked meanwhile.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
