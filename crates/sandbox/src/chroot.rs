//! Steps without namespaces: a directory as their root, and rights given up, in a container that allows no more.
//!
//! What keeps such a step in is that it has a root of its own and neither the right nor the call to leave it, a Landlock domain
//! around that root (files, tracing, and with Linux 6.12 signals and abstract sockets), no new privileges, no devices but six,
//! and a seccomp program without the calls that reach other processes. It shares processes, network and System V memory with
//! whoever runs rbuild: that is why nobody gets here who did not ask, unless the kernel has Landlock's scopes. Refuses what would
//! lift any of it.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rbuild_sys::RootFd;
use rbuild_sys::landlock::{self, Confined};
use rbuild_sys::process;
use rustix::fs::{Mode, OFlags};

use crate::cgroup::Cgroups;
use crate::enter::Passage;
use crate::places::Places;
use crate::plan::{Network, Plan, Security, Source, Stdio};
use crate::terminal::Terminal;
use crate::wire::{During as _, Explained as _, Report, SetupError};

/// How long what a step leaves behind is killed before that is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a step without namespaces runs on, made by the supervisor.
pub(crate) struct Prepared {
    root: RootFd,
    places: Places,
}

impl Prepared {
    /// Puts everything where the step expects it.
    pub(crate) fn new(plan: &Plan) -> Result<Self, SetupError> {
        refuse(plan)?;
        process::adopt_orphans().during("adopt what the step leaves behind", "")?;
        let Source::Path(dir) = &plan.root.source else {
            return Err(refusal(
                "the root of a step must be a directory: use --snapshotter=native",
            ));
        };
        let root = RootFd::open(dir).explained("open", dir)?;
        let mut places = Places::beside(dir)?;
        match places.fill(&root, plan) {
            Ok(()) => Ok(Self { root, places }),
            Err(error) => {
                // The first error counts.
                places.clear().ok();
                Err(error)
            }
        }
    }

    /// The root, for the child.
    pub(crate) const fn root(&self) -> &RootFd {
        &self.root
    }

    /// Ends whatever is left of the step, and takes everything back.
    pub(crate) fn finish(self) -> Result<(), SetupError> {
        let ended = process::end_descendants(PATIENCE).during("end what the step left behind", "")?;
        if !ended {
            return Err(refusal(
                "processes that the step left behind could not be killed, so its files are still being written",
            ));
        }
        self.places.clear()
    }
}

/// The child: makes the root its root and becomes the step. Returns only with what went wrong.
pub(crate) fn become_step(
    root: &RootFd,
    plan: &Plan,
    cgroups: &Cgroups,
    mut passage: Passage<'_>,
) -> SetupError {
    let mut change = || -> Result<OwnedFd, SetupError> {
        for text in cgroups.enter()? {
            passage.tell(&Report::Warning(text));
        }
        // The supervisor's group and session are not the step's: it may send signals to all of its own.
        rustix::process::setsid().during("make a session", "")?;
        if matches!(plan.process.stdio, Stdio::Terminal(_)) {
            passage.terminal = Some(Terminal::of_caller(plan.process.ids.uid)?);
        }
        rustix::process::fchdir(root).during("enter root", "/")?;
        rustix::process::chroot(".").during("change root to", "/")?;
        rustix::process::chdir("/").during("enter root", "/")?;
        rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .during("open", "/dev/null")
    };
    match change().and_then(|null| rustix::stdio::dup2_stdin(&null).during("open", "/dev/null")) {
        Ok(()) => passage.enter(&plan.process),
        Err(error) => error,
    }
}

/// Gives up, for good, what is outside of the root. The root is the step's already.
pub(crate) fn confine(passage: &Passage<'_>) -> Result<(), SetupError> {
    rustix::thread::set_no_new_privs(true).during("give up new privileges", "")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).during("open", "/")?;
    match landlock::confine_to(root.as_fd()).during("confine to", "/")? {
        Confined::FilesAndSignals => {}
        Confined::Files => passage.tell(&Report::Warning(
            "this kernel keeps no step without namespaces from sending signals to this container (Linux 6.12 does)"
                .to_owned(),
        )),
        Confined::Not => passage.tell(&Report::Warning(
            "this kernel or its profile has no Landlock: a root directory alone keeps steps in".to_owned(),
        )),
    }
    Ok(())
}

fn refuse(plan: &Plan) -> Result<(), SetupError> {
    let text = if plan.security == Security::Insecure {
        "--security=insecure would leave nothing between the step and this container"
    } else if matches!(plan.network, Network::Given(_)) {
        "a network of its own needs namespaces; --network=host and --network=none work"
    } else {
        return Ok(());
    };
    Err(refusal(text))
}

fn refusal(text: &str) -> SetupError {
    SetupError::refused("run without namespaces", Path::new("/"), format!(": {text}"))
}
