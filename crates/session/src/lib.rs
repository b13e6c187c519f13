//! Everything the server says to a BuildKit client over the client's session.
//!
//! A client opens `moby.buildkit.v1.Control/Session`, a stream of bytes in both directions that carries an HTTP/2
//! connection the other way round: here the server calls, and the client serves its directories, credentials,
//! secrets, agents and places to export to. [`Sessions`] accepts such streams and hands out [`Session`]s; each method
//! of a session is one thing to ask a client for.
//!
//! [`attach`] is the other end: what our own client of a server serves there.
//!
//! Level 2. Knows nothing of vertices, images or the store: callers say what to ask for and where to put it. The
//! client is not trusted: every answer has a budget, every wait ends with the session, with the caller's
//! cancellation or with a time limit, and names from a client are only used below a held descriptor.
#![forbid(unsafe_code)]

mod accept;
pub mod attach;
mod beneath;
mod call;
mod content;
mod credentials;
mod exporters;
#[cfg(feature = "fake-client")]
pub mod fake;
mod file_mode;
mod header;
mod health;
pub mod policy;
mod secret;
mod send_bytes;
mod send_tree;
pub mod serve;
mod session;
mod sessions;
mod ssh;
mod sync;
mod tree_list;
mod tree_select;
mod tunnel;
mod upload;
mod whole_body;
pub mod wire;
mod write_content;

pub use accept::{AcceptError, Outgoing};
pub use call::CallError;
pub use content::{BlobInfo, BlobReader, ContentError, ContentStore};
pub use credentials::Credentials;
pub use exporters::ExporterRequest;
pub use header::HeaderError;
pub use secret::{SECRET_BYTES_MAX, SecretBytes, SecretError};
pub use send_bytes::{BlockingSender, BytesSender, SendError};
pub use send_tree::{ExtraFile, SendTree, SendTreeError, SendTreeReport, TreeSource};
pub use session::{CloseReason, Session};
pub use sessions::{GetError, Sessions};
pub use ssh::AgentStream;
pub use sync::{
    Differ, METADATA_FILE, MetadataOnly, PathFault, SyncError, SyncLimits, SyncReport, SyncRequest,
};
pub use tree_list::ReadTreeError;
pub use tree_select::{Selection, SelectionError};
pub use upload::{UploadError, UploadReader};
pub use write_content::WriteError;
