//! One client's session: who it is, what it offers, and when it ended. What can be asked of it stands in one file each.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::call::Http2;

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client ended its stream, or its connection broke.
    ClientLeft,
    /// The client did not answer health checks.
    Unhealthy,
    /// The client broke the protocol of the connection inside the stream.
    Protocol,
    /// This side ended it.
    Ended,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientLeft => "the client has left",
            Self::Unhealthy => "session healthcheck failed fatally",
            Self::Protocol => "the client broke the protocol",
            Self::Ended => "ended by the server",
        })
    }
}

/// A live connection to a client. Cheap to clone; calls on one session run side by side.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    id: String,
    /// For people, in what is shown of it; often empty.
    name: String,
    shared_key: String,
    methods: HashSet<String>,
    http: Http2,
    over: CancellationToken,
    reason: OnceLock<CloseReason>,
}

/// What a client says of itself when it opens a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Introduction {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) shared_key: String,
    pub(crate) methods: HashSet<String>,
}

impl Session {
    pub(crate) fn new(client: Introduction, http: Http2) -> Self {
        Self(Arc::new(Inner {
            id: client.id,
            name: client.name,
            shared_key: client.shared_key,
            methods: client.methods,
            http,
            over: CancellationToken::new(),
            reason: OnceLock::new(),
        }))
    }

    /// The id the client chose.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// What tells one client's directories from another's with the same names (`source/local`).
    #[must_use]
    pub fn shared_key(&self) -> &str {
        &self.0.shared_key
    }

    /// Whether the client serves a method, such as `/moby.filesync.v1.FileSync/DiffCopy`. Case does not matter.
    #[must_use]
    pub fn supports(&self, method: &str) -> bool {
        self.0.methods.contains(&method.to_ascii_lowercase())
    }

    /// Waits until the session is over.
    pub async fn closed(&self) -> CloseReason {
        self.0.over.cancelled().await;
        self.close_reason()
    }

    /// Whether the session is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.over.is_cancelled()
    }

    /// Ends the session: every call on it fails, and the client's stream ends.
    pub fn close(&self) {
        self.end(CloseReason::Ended);
    }

    /// Ends the session for a reason; the first reason stays.
    pub(crate) fn end(&self, reason: CloseReason) {
        self.0.reason.get_or_init(|| reason);
        self.0.over.cancel();
    }

    pub(crate) fn close_reason(&self) -> CloseReason {
        *self.0.reason.get().unwrap_or(&CloseReason::Ended)
    }

    pub(crate) fn over(&self) -> &CancellationToken {
        &self.0.over
    }

    pub(crate) fn http(&self) -> Http2 {
        self.0.http.clone()
    }

    /// Whether both are the same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.0.id)
            .field("name", &self.0.name)
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
