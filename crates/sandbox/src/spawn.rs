//! The caller's side: starts a supervisor and hands it the plan. Used from many threads at once.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, SealFlags};

use crate::emulator::{Emulation, Emulators};
use crate::filters::Filters;
use crate::foreign::Machine;
use crate::plan::{Confinement, Network, Plan, Process, Security};
use crate::program::{ProgramError, ProtectedProgram};
use crate::running::{Entrance, Running};
use crate::seccomp::Steps;
use crate::supervisors::{Supervisor, Supervisors};
use crate::wire::{self, ErrandRef, Joining, TaskRef};

/// Starts steps. One is enough for a process.
#[derive(Debug)]
pub struct Sandbox {
    supervisors: Supervisors,
    filters: Filters,
    /// Steps without namespaces were asked for.
    for_chroot: bool,
    /// Why there are no steps at all.
    without_steps: Option<String>,
    /// Of the user namespace, if that is the caller's own.
    emulators: Option<Emulators>,
}

/// Why no steps can be started.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The program that starts them cannot be protected from them.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// Why a step was not started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The seccomp program could not be kept in memory.
    #[error("keep the seccomp program")]
    Filter(#[source] io::Error),
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
    /// Nothing gives a step a root of its own here.
    #[error(
        "no way to run steps here{0}; what needs none can be built: FROM, COPY, ADD, WORKDIR, and what is said of the image"
    )]
    NoSteps(String),
    /// The starter was not made for steps without namespaces.
    #[error("this starter of steps is not for those without namespaces")]
    NotForChroot,
    /// More descriptors than one message carries.
    #[error("{0} descriptors are more than a plan can have")]
    TooManyDescriptors(usize),
}

/// Longest plan, encoded: arguments and environment have their own limit of about 6 MiB in the kernel, secrets are
/// 500 KiB each.
pub(crate) const PLAN_MAX_BYTES: usize = 256 << 20;
/// `SCM_MAX_FD` of the kernel.
pub(crate) const FDS_MAX: usize = 253;
/// Most descriptors sent before the plan's own: the plan, the seccomp program, and the process whose sandbox is joined.
pub(crate) const OWN_FDS: usize = 3;

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
        Ok(Self {
            supervisors: Supervisors::new(program),
            filters: Filters::default(),
            for_chroot: false,
            without_steps: None,
            emulators: None,
        })
    }

    /// The same, for steps without namespaces ([`Confinement::Chroot`]) too.
    #[must_use]
    pub const fn for_chroot(mut self) -> Self {
        self.for_chroot = true;
        self
    }

    /// The same that refuses every step, and says `why`: what was tried, each begun by `; `.
    #[must_use]
    pub fn without_steps(mut self, why: Option<String>) -> Self {
        self.without_steps = why;
        self
    }

    /// Whether steps can be started at all, before anything is made for one.
    ///
    /// # Errors
    /// [`SpawnError::NoSteps`].
    pub fn check(&self) -> Result<(), SpawnError> {
        match &self.without_steps {
            Some(why) => Err(SpawnError::NoSteps(why.clone())),
            None => Ok(()),
        }
    }

    /// Whether a step is about to come for the first time, and [`Sandbox::get_ready`] should be called meanwhile.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.without_steps.is_none() && self.supervisors.is_first()
    }

    /// Begins what every first step waits for. Blocks for a millisecond or two.
    pub fn get_ready(&self) {
        self.supervisors.get_ready();
    }

    /// The seccomp program for a plan.
    fn filter_of(&self, plan: &Plan) -> Result<BorrowedFd<'_>, SpawnError> {
        let steps = match plan.confinement {
            Confinement::Namespaces => Steps::InNamespaces,
            Confinement::Chroot if !self.for_chroot => return Err(SpawnError::NotForChroot),
            Confinement::Chroot if plan.network == Network::None => Steps::Offline,
            Confinement::Chroot => Steps::OnOwnNetwork,
        };
        self.filters.of(steps).map_err(SpawnError::Filter)
    }

    /// The same where the user namespace is the caller's own: handlers that [`Sandbox::emulate`] registers there end with it.
    #[must_use]
    pub fn in_own_user_namespace(mut self) -> Self {
        self.emulators = Some(Emulators::default());
        self
    }

    /// Has programs for another processor run by an emulator of this machine, from now on.
    ///
    /// # Errors
    /// The kernel's: it is older than 6.7, or has no `binfmt_misc`.
    pub fn emulate(&self, machine: Machine) -> io::Result<Emulation> {
        match &self.emulators {
            Some(emulators) => emulators.begin(machine),
            None => Ok(Emulation::NotOurs),
        }
    }

    /// Where this process finds the protected program.
    pub(crate) fn program_path(&self) -> PathBuf {
        self.supervisors.program_path()
    }

    /// Starts the plan's process. `fds` are what [`crate::Source::Fd`] counts in. Returns before the sandbox is
    /// made: what goes wrong then is told by [`Running::wait`].
    ///
    /// # Errors
    /// The supervisor cannot be started or given the plan.
    pub fn spawn(&self, plan: &Plan, fds: &[BorrowedFd<'_>]) -> Result<Running, SpawnError> {
        let way = (plan.security, plan.network);
        self.start(&TaskRef::Run(plan), self.filter_of(plan)?, None, fds, way)
    }

    /// Starts the plan's process on `root`, a mount that is attached nowhere and used for nothing else: the
    /// plan's root says [`crate::Source::Given`]. The caller closes its own descriptors of it when this returns; the mount is
    /// gone with the step then. Nobody finds out whether it still [is in use](crate::Exit::is_in_use), which is assumed.
    ///
    /// # Errors
    /// As [`Sandbox::spawn`].
    pub fn spawn_on(
        &self,
        root: BorrowedFd<'_>,
        plan: &Plan,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Running, SpawnError> {
        let way = (plan.security, plan.network);
        self.start(&TaskRef::Run(plan), self.filter_of(plan)?, Some(root), fds, way)
    }

    /// Starts one more process in the sandbox that `entrance` leads to. It ends with that sandbox; killed, it alone does.
    /// Limits of the plan's cgroup are not its own. `fds` are what its [`crate::Stdio`] counts in.
    ///
    /// # Errors
    /// As [`Sandbox::spawn`]; that the sandbox is gone is told by [`Running::wait`].
    pub fn join(
        &self,
        entrance: &Entrance,
        process: &Process,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Running, SpawnError> {
        let joining = Joining {
            process: process.clone(),
            security: entrance.security,
            network: entrance.network,
        };
        let way = (entrance.security, entrance.network);
        let home = Some(entrance.process.as_fd());
        let filter = self.filters.of(Steps::InNamespaces).map_err(SpawnError::Filter)?;
        self.start(&TaskRef::Join(&joining), filter, home, fds, way)
    }

    fn start(
        &self,
        task: &TaskRef<'_>,
        filter: BorrowedFd<'_>,
        first: Option<BorrowedFd<'_>>,
        fds: &[BorrowedFd<'_>],
        way: (Security, Network),
    ) -> Result<Running, SpawnError> {
        self.check()?;
        if fds.len() > FDS_MAX - OWN_FDS {
            return Err(SpawnError::TooManyDescriptors(fds.len()));
        }
        let memory = encode(task)?;
        let mut all = vec![memory.as_fd(), filter];
        all.extend(first);
        all.extend(fds);
        let supervisor = match hand_over(self.supervisors.next()?, &all) {
            // Whatever became of one that had waited, it has done nothing yet.
            Err(_) => hand_over(self.supervisors.start()?, &all)?,
            Ok(supervisor) => supervisor,
        };
        let running = Running::new(supervisor, way);
        self.supervisors.look_ahead();
        Ok(running)
    }
}

/// Sends the orders. A supervisor that does not take them is let go.
fn hand_over(to: Supervisor, fds: &[BorrowedFd<'_>]) -> Result<Supervisor, SpawnError> {
    match wire::send_fds(to.control.as_fd(), b"p", fds) {
        Ok(()) => Ok(to),
        Err(errno) => Err(SpawnError::HandOver {
            verb: "send",
            source: errno.into(),
        }),
    }
}

fn encode(task: &TaskRef<'_>) -> Result<OwnedFd, SpawnError> {
    let errand = ErrandRef {
        owners_recorded: rbuild_sys::owner::are_recorded(),
        task,
    };
    let bytes = serde_json::to_vec(&errand).map_err(SpawnError::Encode)?;
    if bytes.len() > PLAN_MAX_BYTES {
        return Err(SpawnError::TooLong { bytes: bytes.len() });
    }
    in_memory("plan", &bytes).map_err(|source| SpawnError::HandOver {
        verb: "write",
        source,
    })
}

/// A sealed memory file.
pub(crate) fn in_memory(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = std::fs::File::from(rustix::fs::memfd_create(name, flags)?);
    file.write_all(bytes)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}
