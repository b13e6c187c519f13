//! How a transfer fails.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rbuild_sys::TreeError;

use crate::call::CallError;

/// Why a directory was not brought here.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The call itself failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The caller stopped it.
    #[error("cancelled")]
    Cancelled,
    /// The client says that it failed.
    #[error("error from sender: {0}")]
    Sender(String),
    /// The client ended the call too early.
    #[error("the client ended the transfer before it was complete")]
    Ended,
    /// The client did not end the call although everything is here.
    #[error("the client did not end the transfer")]
    Stalled,
    /// A path that cannot be in a list.
    #[error("{path:?}: {fault}")]
    Path {
        /// As the client sent it.
        path: PathBuf,
        /// What is wrong with it.
        fault: PathFault,
    },
    /// The list is not sorted, names something twice, or names something in what it did not name as a directory.
    #[error("changes out of order: {path:?} {last:?}")]
    OutOfOrder {
        /// As the client sent it.
        path: PathBuf,
        /// What came before it in the nearest directory.
        last: PathBuf,
    },
    /// A hard link to what was not listed before it as a file.
    #[error("invalid link {path:?} to unknown path: {target:?}")]
    Link {
        /// The link.
        path: PathBuf,
        /// What it is to be a further name of.
        target: PathBuf,
    },
    /// No type of file, or one that is not sent.
    #[error("{path:?}: file mode {mode:#o} is of no known type")]
    Mode {
        /// The entry.
        path: PathBuf,
        /// Go's mode.
        mode: u32,
    },
    /// A device that is not made here: 0:0 would hide files of lower layers.
    #[error("{path:?}: device {major}:{minor} is not accepted")]
    Device {
        /// The entry.
        path: PathBuf,
        /// Major number.
        major: i64,
        /// Minor number.
        minor: i64,
    },
    /// Content of something that was not asked for, or is already complete.
    #[error("invalid file request {0}")]
    UnknownId(u32),
    /// A packet that has no place here.
    #[error("unexpected packet {0} from the client")]
    Unexpected(&'static str),
    /// The client sends more than the caller allows.
    #[error("the client sends more than {max} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// The budget.
        max: u64,
    },
    /// The directory here could not be read or written.
    #[error("{verb} {path:?}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// Path in the directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// What was there before could not be removed.
    #[error("remove {path:?}")]
    Remove {
        /// Path in the directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: TreeError,
    },
}

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathFault {
    /// Empty, or with empty parts, `.` or a slash at its end.
    Unclean,
    /// It begins with a slash.
    Absolute,
    /// It has a part `..`.
    Escapes,
    /// It holds a byte 0.
    Nul,
    /// It is longer than the kernel takes.
    TooLong,
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unclean => "unclean path",
            Self::Absolute => "absolute path",
            Self::Escapes => "escape check",
            Self::Nul => "path with a byte 0",
            Self::TooLong => "path too long",
        })
    }
}

impl SyncError {
    /// Whether this side found it, so that the client has yet to be told.
    pub(crate) const fn is_ours(&self) -> bool {
        !matches!(
            self,
            Self::Call(_) | Self::Sender(_) | Self::Ended | Self::Stalled
        )
    }
}
