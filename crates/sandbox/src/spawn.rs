//! The caller's side: starts a supervisor, hands it the plan, and watches it. Used from many threads at once.

use std::io::{self, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::Shutdown;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::plan::Plan;
use crate::program::{ProgramError, ProtectedProgram};
use crate::seccomp;
use crate::supervisor::INIT_NAME;
use crate::wire::{FailureKind, REPORT_MAX, Report};

/// Starts steps. One is enough for a process.
#[derive(Debug)]
pub struct Sandbox {
    program: ProtectedProgram,
    /// The seccomp program of secure steps, in memory.
    filter: OwnedFd,
}

/// Why no steps can be started.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The program that starts them cannot be protected from them.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The seccomp program could not be kept in memory.
    #[error("keep the seccomp program")]
    Filter(#[source] io::Error),
}

/// Why a step was not started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The plan could not be handed over.
    #[error("hand the plan to the supervisor: {verb}")]
    HandOver {
        /// What was tried.
        verb: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The supervisor process could not be started.
    #[error("start the supervisor of a step")]
    Start(#[source] io::Error),
    /// The plan could not be written down.
    #[error("encode the plan")]
    Encode(#[source] serde_json::Error),
    /// The plan is longer than a supervisor reads.
    #[error("a plan of {bytes} bytes is longer than {PLAN_MAX_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// More descriptors than one message carries.
    #[error("{0} descriptors are more than a plan can have")]
    TooManyDescriptors(usize),
}

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
    /// Whether processes of the step were killed for want of memory; `None` if not known (no cgroup of its own).
    pub oom: Option<bool>,
    /// What was done otherwise than planned, for the user to read.
    pub warnings: Vec<String>,
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
    supervisor: Mutex<Option<Child>>,
    stdout: Mutex<Option<ChildStdout>>,
    stderr: Mutex<Option<ChildStderr>>,
}

/// Longest plan, encoded: arguments and environment have their own limit of about 6 MiB in the kernel, secrets are
/// 500 KiB each.
pub(crate) const PLAN_MAX_BYTES: usize = 256 << 20;
/// `SCM_MAX_FD` of the kernel.
pub(crate) const FDS_MAX: usize = 253;
/// Descriptors sent before the plan's own: the plan and the seccomp program.
pub(crate) const OWN_FDS: usize = 2;

impl Sandbox {
    /// A starter of steps by this program's own binary, which must call [`crate::init_if_requested`] in `main`.
    ///
    /// # Errors
    /// The binary cannot be protected from the steps.
    pub fn new() -> Result<Self, SandboxError> {
        Self::of(ProtectedProgram::own()?)
    }

    /// The same by another binary that calls [`crate::init_if_requested`]. For test programs, whose `main` is not
    /// theirs.
    ///
    /// # Errors
    /// The binary cannot be opened or protected.
    pub fn with_program(path: impl Into<PathBuf>) -> Result<Self, SandboxError> {
        Self::of(ProtectedProgram::at(path.into())?)
    }

    fn of(program: ProtectedProgram) -> Result<Self, SandboxError> {
        let filter = seccomp::encode(&seccomp::default_program());
        let filter = in_memory("filter", &filter).map_err(SandboxError::Filter)?;
        Ok(Self { program, filter })
    }

    /// Where this process finds the protected program.
    pub(crate) fn program_path(&self) -> PathBuf {
        self.program.path()
    }

    /// Starts the plan's process. `fds` are what [`crate::Source::Fd`] counts in. Returns before the sandbox is
    /// made: what goes wrong then is told by [`Running::wait`].
    ///
    /// # Errors
    /// The supervisor cannot be started or given the plan.
    pub fn spawn(&self, plan: &Plan, fds: &[BorrowedFd<'_>]) -> Result<Running, SpawnError> {
        let fail = |verb, errno: Errno| SpawnError::HandOver {
            verb,
            source: errno.into(),
        };
        if fds.len() > FDS_MAX - OWN_FDS {
            return Err(SpawnError::TooManyDescriptors(fds.len()));
        }
        let memory = encode(plan)?;
        let (control, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|e| fail("make a socket", e))?;
        // Standard input carries the socket: the child's other descriptors are all close-on-exec, so two threads
        // that start steps at once cannot leak theirs into each other's supervisor.
        let mut child = arg0(Command::new(self.program.path()))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(SpawnError::Start)?;
        let running = Running {
            control,
            stdout: Mutex::new(child.stdout.take()),
            stderr: Mutex::new(child.stderr.take()),
            supervisor: Mutex::new(Some(child)),
        };
        let mut all = vec![memory.as_fd(), self.filter.as_fd()];
        all.extend(fds);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&all)) {
            return Err(SpawnError::TooManyDescriptors(fds.len()));
        }
        rustix::net::sendmsg(
            &running.control,
            &[IoSlice::new(b"p")],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
        .map_err(|e| fail("send", e))?;
        Ok(running)
    }
}

fn arg0(mut command: Command) -> Command {
    use std::os::unix::process::CommandExt as _;
    command.arg0(INIT_NAME);
    command
}

fn encode(plan: &Plan) -> Result<OwnedFd, SpawnError> {
    let bytes = serde_json::to_vec(plan).map_err(SpawnError::Encode)?;
    if bytes.len() > PLAN_MAX_BYTES {
        return Err(SpawnError::TooLong { bytes: bytes.len() });
    }
    in_memory("plan", &bytes).map_err(|source| SpawnError::HandOver {
        verb: "write",
        source,
    })
}

/// A sealed memory file.
fn in_memory(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = std::fs::File::from(rustix::fs::memfd_create(name, flags)?);
    file.write_all(bytes)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

impl Running {
    /// The step's standard output, once. It ends when no process of the step holds it any more.
    pub fn take_stdout(&self) -> Option<ChildStdout> {
        lock(&self.stdout).take()
    }

    /// The step's standard error, once.
    pub fn take_stderr(&self) -> Option<ChildStderr> {
        lock(&self.stderr).take()
    }

    /// Kills the step and every process it left behind, at once. May be called from any thread, any number of
    /// times, also after the end.
    pub fn kill(&self) {
        // A supervisor that is gone already has nothing left to kill.
        rustix::net::send(&self.control, b"k", SendFlags::NOSIGNAL).ok();
    }

    /// Waits for the end of the step. All its processes are dead then, and its layer is free of mountpoints. Output
    /// must be read meanwhile by others, or the step waits for it. Call it once.
    ///
    /// # Errors
    /// The step never ran, or its supervisor was killed.
    pub fn wait(&self) -> Result<Exit, WaitError> {
        let mut warnings = Vec::new();
        let mut outcome = None;
        let mut buffer = vec![0_u8; REPORT_MAX];
        loop {
            let len = match rustix::net::recv(&self.control, &mut buffer[..], RecvFlags::empty()) {
                Ok((_, len)) => len,
                // A supervisor that ends with our word to kill unread resets the socket. The kernel says that once,
                // and then gives what was sent before.
                Err(Errno::INTR | Errno::CONNRESET) => continue,
                Err(errno) => return Err(WaitError::Receive(errno.into())),
            };
            if len == 0 {
                break;
            }
            let end = match serde_json::from_slice(&buffer[..len]).map_err(WaitError::Decode)? {
                Report::Warning(text) => {
                    warnings.push(text);
                    continue;
                }
                Report::Failed(failure) => {
                    let source = failure.errno.map(io::Error::from_raw_os_error);
                    let (path, text) = (failure.path, failure.text);
                    Err(match failure.kind {
                        FailureKind::Setup => WaitError::Setup {
                            what: failure.what,
                            path,
                            text,
                            source,
                        },
                        FailureKind::Exec => WaitError::Exec {
                            program: path,
                            text,
                            source,
                        },
                    })
                }
                Report::Exited { code, oom } => Ok((ExitStatus::Code(code), oom)),
                Report::Signaled { signal, oom } => Ok((ExitStatus::Signal(signal), oom)),
            };
            // A child that could not become the step tells why before its own exit is reported.
            outcome.get_or_insert(end);
        }
        self.reap();
        let (status, oom) = outcome.unwrap_or(Err(WaitError::Lost))?;
        Ok(Exit {
            status,
            oom,
            warnings,
        })
    }

    fn reap(&self) {
        if let Some(mut child) = lock(&self.supervisor).take() {
            // Its end is known by the socket; this only takes its entry out of the process table.
            drop(child.wait());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        rustix::net::shutdown(&self.control, Shutdown::Both).ok();
        self.reap();
    }
}

/// The values behind these locks are single moves, whole whatever panicked meanwhile.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
