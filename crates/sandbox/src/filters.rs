//! The seccomp programs of steps, each compiled when the first step needs it and kept in memory: a build that runs nothing
//! compiles none, and that is a third of all it would compute.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use crate::seccomp::{self, Steps};
use crate::spawn::in_memory;

/// Sealed memory files, one for each kind of steps.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    in_namespaces: OnceLock<OwnedFd>,
    on_own_network: OnceLock<OwnedFd>,
    offline: OnceLock<OwnedFd>,
}

impl Filters {
    /// The program for such steps.
    ///
    /// # Errors
    /// It could not be kept in memory.
    pub(crate) fn of(&self, steps: Steps) -> io::Result<BorrowedFd<'_>> {
        let made = match steps {
            Steps::InNamespaces => &self.in_namespaces,
            Steps::OnOwnNetwork => &self.on_own_network,
            Steps::Offline => &self.offline,
        };
        if let Some(filter) = made.get() {
            return Ok(filter.as_fd());
        }
        // Two that begin at once make two alike, of which one is kept.
        let filter = in_memory("filter", &seccomp::encode(&seccomp::program(steps)))?;
        Ok(made.get_or_init(|| filter).as_fd())
    }
}
