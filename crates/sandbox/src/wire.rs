//! How a plan and what came of it cross process boundaries: JSON, with bytes that need not be UTF-8 as text of
//! one character per byte. Both ends are the same binary, so there is no version.

use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rbuild_sys::overlay::Form;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::foreign::Machine;
use crate::plan::{Network, Plan, Process, Security};
use crate::running::Usage;
use crate::spawn::FDS_MAX;

/// What the processes of a sandbox tell the caller. One message each on a `SOCK_SEQPACKET` socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// There is a supervisor; with a descriptor that means it.
    Started,
    /// Something was done otherwise than the plan says, and the step runs.
    Warning(String),
    /// What the step could write to may still be used by somebody else.
    InUse,
    /// The process is there, and on its way in; with a descriptor that means it.
    Forked,
    /// The process has a terminal; with the master of it.
    Terminal,
    /// Everything is in place but rights that go and the program itself; with a pipe that ends when it runs.
    Becoming,
    /// The step could not be started.
    Failed(Failure),
    /// The step ended by itself.
    Exited {
        /// Its exit status.
        code: i32,
        /// What it used.
        usage: Usage,
    },
    /// The step was ended by a signal.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// What it used.
        usage: Usage,
    },
}

/// What a supervisor is given.
#[derive(Debug, Deserialize)]
pub(crate) struct Errand {
    /// Owners are recorded: the caller is in a user namespace with one id.
    pub(crate) owners_recorded: bool,
    pub(crate) task: Task,
}

/// The same, to be written.
#[derive(Debug, Serialize)]
pub(crate) struct ErrandRef<'a> {
    pub(crate) owners_recorded: bool,
    pub(crate) task: &'a TaskRef<'a>,
}

/// What a supervisor is started for.
#[derive(Debug, Deserialize)]
pub(crate) enum Task {
    /// A sandbox.
    Run(Box<Plan>),
    /// One more process in the sandbox of the process that the first descriptor means.
    Join(Joining),
}

/// The same, to be written.
#[derive(Debug, Serialize)]
pub(crate) enum TaskRef<'a> {
    Run(&'a Plan),
    Join(&'a Joining),
}

/// A process that joins a sandbox.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Joining {
    pub(crate) process: Process,
    /// Those of the sandbox.
    pub(crate) security: Security,
    pub(crate) network: Network,
}

/// What the caller tells a supervisor, one message each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Kill the process, and all of its sandbox if it is the first one there.
    Kill,
    /// Send it this signal.
    Signal(i32),
}

impl Word {
    pub(crate) fn encode(self) -> Vec<u8> {
        match self {
            Self::Kill => b"k".to_vec(),
            Self::Signal(number) => [b"s", number.to_ne_bytes().as_slice()].concat(),
        }
    }

    /// The end of the caller, and anything that is not understood, is the word to kill.
    pub(crate) fn decode(message: &[u8]) -> Self {
        match message.split_first() {
            Some((b's', number)) => number
                .try_into()
                .map_or(Self::Kill, |number| Self::Signal(i32::from_ne_bytes(number))),
            _ => Self::Kill,
        }
    }
}

/// Sends a report with a descriptor.
pub(crate) fn send_with(control: BorrowedFd<'_>, report: &Report, fd: BorrowedFd<'_>) -> io::Result<()> {
    let bytes = serde_json::to_vec(report).map_err(io::Error::other)?;
    send_fds(control, &bytes, &[fd]).map_err(io::Error::from)
}

/// Sends a message with descriptors, at most [`FDS_MAX`].
pub(crate) fn send_fds(to: BorrowedFd<'_>, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOMANYREFS);
    }
    let parts = [IoSlice::new(message)];
    rustix::net::sendmsg(to, &parts, &mut ancillary, SendFlags::NOSIGNAL).map(drop)
}

/// The descriptors that came with a message.
pub(crate) fn fds_of(ancillary: &mut RecvAncillaryBuffer<'_>) -> Vec<OwnedFd> {
    let messages = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    messages.flatten().collect()
}

/// Longest message in bytes: a path, a name and a kernel log fit.
pub(crate) const REPORT_MAX: usize = 64 * 1024;

/// Why a step could not be started.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) what: String,
    #[serde(with = "path")]
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) machine: Option<Machine>,
    pub(crate) errno: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FailureKind {
    Setup,
    Exec,
}

/// One failed operation while a sandbox is made.
#[derive(Debug, thiserror::Error)]
#[error("{what} {path:?}{text}")]
pub(crate) struct SetupError {
    pub(crate) kind: FailureKind,
    pub(crate) what: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// The processor that a program needs and this machine is not.
    pub(crate) machine: Option<Machine>,
    #[source]
    pub(crate) source: Option<io::Error>,
}

impl SetupError {
    pub(crate) fn into_report(self) -> Report {
        Report::Failed(Failure {
            kind: self.kind,
            what: self.what.to_owned(),
            path: self.path,
            text: self.text,
            machine: self.machine,
            errno: self.source.and_then(|source| source.raw_os_error()),
        })
    }

    /// An operation refused by a rule of ours rather than by the kernel.
    pub(crate) fn refused(what: &'static str, path: &Path, why: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Setup,
            what,
            path: path.to_owned(),
            text: why.into(),
            machine: None,
            source: None,
        }
    }
}

/// Names the operation and the path of an error.
pub(crate) trait During<T> {
    fn during(self, what: &'static str, path: impl AsRef<Path>) -> Result<T, SetupError>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, what: &'static str, path: impl AsRef<Path>) -> Result<T, SetupError> {
        self.map_err(|error| SetupError {
            kind: FailureKind::Setup,
            what,
            path: path.as_ref().to_owned(),
            text: String::new(),
            machine: None,
            source: Some(error.into()),
        })
    }
}

/// Names the operation and the path of an error that explains itself in words, keeping the words and the number.
pub(crate) trait Explained<T> {
    fn explained(self, what: &'static str, path: impl AsRef<Path>) -> Result<T, SetupError>;
}

impl<T, E: std::error::Error + 'static> Explained<T> for Result<T, E> {
    fn explained(self, what: &'static str, path: impl AsRef<Path>) -> Result<T, SetupError> {
        self.map_err(|error| {
            let mut text = String::new();
            let mut source = None;
            let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
            while let Some(error) = next {
                match error
                    .downcast_ref::<io::Error>()
                    .and_then(io::Error::raw_os_error)
                {
                    // The number itself is printed by whoever prints the report.
                    Some(errno) => source = Some(io::Error::from_raw_os_error(errno)),
                    None => text = text + ": " + &error.to_string(),
                }
                next = error.source();
            }
            SetupError {
                kind: FailureKind::Setup,
                what,
                path: path.as_ref().to_owned(),
                text,
                machine: None,
                source,
            }
        })
    }
}

fn to_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn from_text<E: serde::de::Error>(text: &str) -> Result<Vec<u8>, E> {
    text.chars()
        .map(|c| u8::try_from(c).map_err(|_| E::custom("not a byte")))
        .collect()
}

macro_rules! codec {
    ($(#[$doc:meta])* $module:ident, $type:ty, $mirror:ty, |$value:ident| $to:expr, |$read:ident| $from:expr) => {
        $(#[$doc])*
        #[allow(clippy::ptr_arg, reason = "serde gives the field as it is declared")]
        pub(crate) mod $module {
            use super::*;
            pub(crate) fn serialize<S: Serializer>($value: &$type, to: S) -> Result<S::Ok, S::Error> {
                let mirror: $mirror = $to;
                mirror.serialize(to)
            }
            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
                let $read = <$mirror>::deserialize(from)?;
                $from
            }
        }
    };
}

fn path_text(path: &Path) -> String {
    to_text(path.as_os_str().as_bytes())
}

fn text_path<E: serde::de::Error>(text: &str) -> Result<PathBuf, E> {
    from_text(text).map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
}

codec!(bytes, Vec<u8>, String, |v| to_text(v), |t| from_text(&t));
codec!(path, PathBuf, String, |v| path_text(v), |t| text_path(&t));
codec!(
    paths,
    Vec<PathBuf>,
    Vec<String>,
    |v| v.iter().map(|path| path_text(path)).collect(),
    |t| t.iter().map(|text| text_path(text)).collect()
);
codec!(
    optional_bytes,
    Option<Vec<u8>>,
    Option<String>,
    |v| v.as_ref().map(|bytes| to_text(bytes)),
    |t| t.map(|text| from_text(&text)).transpose()
);
codec!(
    optional_path,
    Option<PathBuf>,
    Option<String>,
    |v| v.as_ref().map(|path| path_text(path)),
    |t| t.map(|text| text_path(&text)).transpose()
);
codec!(
    os_strings,
    Vec<OsString>,
    Vec<String>,
    |v| v.iter().map(|text| to_text(OsStr::as_bytes(text))).collect(),
    |t| t
        .iter()
        .map(|text| from_text(text).map(OsString::from_vec))
        .collect()
);
codec!(form, Form, bool, |v| *v == Form::User, |t| Ok(if t {
    Form::User
} else {
    Form::Trusted
}));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{MountKind, MountPlan, OverlayPlan, RootPlan, Source};

    #[test]
    fn a_plan_survives_the_wire_byte_for_byte() {
        let odd = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let overlay = OverlayPlan {
            form: Form::User,
            lowers: vec![odd(b"/a\xff,b").into(), odd(b"/\"\\\n").into()],
            upper: Some(odd(b"/u\x80").into()),
            work: None,
            volatile: true,
        };
        let root = RootPlan {
            source: Source::Overlay(overlay),
            readonly: false,
        };
        let mut plan = Plan::new(root, vec![odd(b"\xf0\x28\x8c"), odd("ä€".as_bytes())]);
        plan.process.env = vec![odd(b"A=\xfe"), odd(b"")];
        let all: Vec<u8> = (0..=255).collect();
        plan.mounts = vec![MountPlan {
            dest: "/s".into(),
            kind: MountKind::File {
                content: all.clone(),
                uid: 1,
                gid: 2,
                mode: 0o400,
            },
        }];
        plan.hosts = Some(all);
        let text = serde_json::to_vec(&plan).unwrap();
        let back: Plan = serde_json::from_slice(&text).unwrap();
        assert_eq!(format!("{plan:?}"), format!("{back:?}"));
        assert_eq!(text, serde_json::to_vec(&back).unwrap());
    }

    #[test]
    fn words_survive_the_wire_and_everything_else_kills() {
        for word in [Word::Kill, Word::Signal(15), Word::Signal(-1)] {
            assert_eq!(Word::decode(&word.encode()), word);
        }
        for message in [&b""[..], b"s", b"s123", b"s12345", b"x"] {
            assert_eq!(Word::decode(message), Word::Kill, "{message:?}");
        }
    }
}
