//! How a stream becomes a session: what the client says of itself is read and bounded, the tunnel is made, and one
//! task keeps it going until either side ends it.

use std::collections::HashSet;
use std::pin::Pin;
use std::task::{Context, Poll};

use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage;
use futures_util::{Stream, StreamExt as _};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::header::first;
use crate::health::{self, HealthLimits};
use crate::session::{CloseReason, Introduction, Session};
use crate::sessions::{Rejection, Sessions};
use crate::tunnel::{self, Outward, Tunnel};

const ID: &str = "x-docker-expose-session-uuid";
const NAME: &str = "x-docker-expose-session-name";
const SHARED_KEY: &str = "x-docker-expose-session-sharedkey";
const METHOD: &str = "x-docker-expose-session-grpc-method";
const HEALTH_TIMEOUT: &str = "x-buildkit-session-health-custom-timeout";

/// Most bytes of an id, a name or a key.
const FIELD_BYTES_MAX: usize = 1024;
/// Most methods a client may offer, and bytes of one.
const METHODS_MAX: usize = 512;
const METHOD_BYTES_MAX: usize = 256;

/// Why a stream does not become a session.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// A header is missing or too long.
    #[error("session header {0} is missing or malformed")]
    Header(&'static str),
    /// There is a live session with this id.
    #[error("session {0} already exists")]
    Exists(String),
    /// There are too many sessions.
    #[error("too many sessions")]
    Full,
    /// The connection inside the stream could not be made.
    #[error("failed to create grpc client")]
    Connection(#[source] hyper::Error),
}

impl From<AcceptError> for Status {
    fn from(error: AcceptError) -> Self {
        let text = error.to_string();
        match error {
            AcceptError::Header(_) => Self::invalid_argument(text),
            AcceptError::Exists(_) => Self::already_exists(text),
            AcceptError::Full => Self::resource_exhausted(text),
            AcceptError::Connection(_) => Self::internal(text),
        }
    }
}

/// What goes back to the client on `Control/Session`. Ends when the session is over; dropping it ends the session.
#[derive(Debug)]
pub struct Outgoing {
    bytes: Outward,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
    session: Session,
}

impl Sessions {
    /// Takes a client's `Control/Session` call: its metadata and its stream. The session can be found as soon as this
    /// returns, and until the stream ends.
    ///
    /// # Errors
    /// [`AcceptError`], which can be given to the client as a [`Status`].
    pub async fn accept<S>(&self, metadata: &MetadataMap, incoming: S) -> Result<Outgoing, AcceptError>
    where
        S: Stream<Item = Result<BytesMessage, Status>> + Send + Unpin + 'static,
    {
        let client = introduction(metadata)?;
        let limits = HealthLimits::with_header(first(metadata, HEALTH_TIMEOUT));
        let Tunnel {
            http,
            connection,
            inward,
            outward,
        } = tunnel::open().await.map_err(AcceptError::Connection)?;
        let session = Session::new(client, http);
        self.admit(&session).map_err(|rejection| match rejection {
            Rejection::Exists => AcceptError::Exists(session.id().to_owned()),
            Rejection::Full => AcceptError::Full,
        })?;
        let over = session.over().clone();
        let outgoing = Outgoing {
            bytes: outward,
            over: Box::pin(over.cancelled_owned()),
            session: session.clone(),
        };
        let sessions = self.clone();
        tokio::spawn(async move {
            let reason = tokio::select! {
                () = session.over().cancelled() => CloseReason::Ended,
                () = tunnel::carry_in(incoming, inward) => CloseReason::ClientLeft,
                _ = connection => CloseReason::Protocol,
                () = health::watch(&session, limits) => CloseReason::Unhealthy,
            };
            session.end(reason);
            sessions.forget(&session);
        });
        Ok(outgoing)
    }
}

impl Outgoing {
    /// The session that was opened.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.session
    }
}

impl Stream for Outgoing {
    type Item = Result<BytesMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        self.bytes.poll_next_unpin(cx)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.session.end(CloseReason::ClientLeft);
    }
}

fn introduction(metadata: &MetadataMap) -> Result<Introduction, AcceptError> {
    let field = |key: &'static str| match metadata.get(key) {
        None => Ok(String::new()),
        Some(value) => match value.to_str() {
            Ok(text) if text.len() <= FIELD_BYTES_MAX => Ok(text.to_owned()),
            _ => Err(AcceptError::Header(key)),
        },
    };
    let id = field(ID)?;
    if id.is_empty() {
        return Err(AcceptError::Header(ID));
    }
    let mut methods = HashSet::new();
    for value in metadata.get_all(METHOD).iter() {
        let method = value.to_str().map_err(|_| AcceptError::Header(METHOD))?;
        if method.len() > METHOD_BYTES_MAX || methods.len() >= METHODS_MAX {
            return Err(AcceptError::Header(METHOD));
        }
        methods.insert(method.to_ascii_lowercase());
    }
    Ok(Introduction {
        id,
        name: field(NAME)?,
        shared_key: field(SHARED_KEY)?,
        methods,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_introduces_itself_within_limits() {
        let mut metadata = MetadataMap::new();
        assert!(matches!(introduction(&metadata), Err(AcceptError::Header(ID))));
        metadata.insert(ID, "one".parse().unwrap());
        metadata.insert(SHARED_KEY, "key".parse().unwrap());
        metadata.append(METHOD, "/a.B/C".parse().unwrap());
        metadata.append(METHOD, "/a.B/D".parse().unwrap());
        let client = introduction(&metadata).unwrap();
        assert_eq!((client.id.as_str(), client.shared_key.as_str()), ("one", "key"));
        assert!(client.methods.contains("/a.b/c") && client.methods.contains("/a.b/d"));
        metadata.insert(NAME, "x".repeat(FIELD_BYTES_MAX + 1).parse().unwrap());
        assert!(matches!(introduction(&metadata), Err(AcceptError::Header(NAME))));
        metadata.remove(NAME);
        for n in 0..METHODS_MAX {
            metadata.append(METHOD, format!("/x/{n}").parse().unwrap());
        }
        assert!(matches!(
            introduction(&metadata),
            Err(AcceptError::Header(METHOD))
        ));
    }
}
