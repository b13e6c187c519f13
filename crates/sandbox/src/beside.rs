//! Who answers a step's calls, as the supervisor sees it.

use std::os::fd::BorrowedFd;

use rustix::event::PollFlags;

use crate::heard::Mouth;
use crate::owners::{self, Answerer, Credentials};
use crate::plan::{Ids, Security};
use crate::sockets::{self, Sockets};
use crate::wire::SetupError;

/// Who answers calls of the step.
pub(crate) enum Beside {
    Nobody,
    /// A process of its own, about owners and sockets.
    Answerer(Answerer),
    /// The supervisor, about sockets.
    Sockets(Sockets),
}

impl Beside {
    /// Begins, before the step is forked.
    pub(crate) fn start(ids: &Ids, security: Security) -> Result<(Self, Option<Mouth>), SetupError> {
        Ok(if rbuild_sys::owner::are_recorded() {
            let first = Credentials::of(ids.uid, ids.gid, &ids.groups);
            let (answerer, mouth) = owners::start(first)?;
            (Self::Answerer(answerer), Some(mouth))
        } else if sockets::EXIST && security == Security::Sandbox {
            let (sockets, mouth) = Sockets::start()?;
            (Self::Sockets(sockets), Some(mouth))
        } else {
            (Self::Nobody, None)
        })
    }

    /// What to wait for beside the step.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Nobody => None,
            Self::Answerer(answerer) => Some(answerer.as_fd()),
            Self::Sockets(sockets) => sockets.as_fd(),
        }
    }

    /// Looks at what was waited for. Whether calls of the step would fail from now on.
    pub(crate) fn attend(&mut self, seen: PollFlags) -> bool {
        match self {
            Self::Nobody => false,
            Self::Answerer(_) => true,
            Self::Sockets(sockets) => {
                sockets.attend(seen);
                false
            }
        }
    }

    /// Why the step could not go on, if it had to be `ended` for that; it may have been `killed` by then.
    pub(crate) fn failure(self, ended: bool, killed: bool) -> Option<SetupError> {
        match self {
            Self::Answerer(answerer) => answerer.failure(ended, killed),
            Self::Nobody | Self::Sockets(_) => None,
        }
    }
}
