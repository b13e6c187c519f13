//! Talks to image registries: resolve, pull, push, with mirrors, credentials, retries and resumption; and fetches files
//! behind URLs over the same connections.
//!
//! Level 1, async; knows documents ([`rbuild_oci`]) and the network, no store and no build. Nothing is believed that
//! is not verified: digests, sizes and media types are checked here. A credential goes to the host it was stored for
//! and to the token server that host names, to nobody else; there is no default header and no automatic redirect.
#![forbid(unsafe_code)]

mod authorize;
mod believed;
mod blob;
mod body;
mod causes;
mod challenge;
mod client;
mod config;
mod credentials;
mod error;
mod escape;
mod exchange;
mod fetch;
mod login;
mod manifest;
mod net;
mod push_blob;
mod push_manifest;
mod referrers;
mod relay;
mod reply;
mod token;
mod transport;
mod unreachable;

pub use blob::{BlobSink, Progress};
pub use causes::chain_text;
pub use client::{Client, ClientOptions, USER_AGENT};
pub use config::{ConfigError, ConfigSources, Endpoint, RegistryConfig, SchemePolicy};
pub use credentials::{
    Credential, CredentialProvider, CredentialSources, Credentials, FileError, Found, HelperError, Secret,
    keep,
};
pub use error::{ApiError, ErrorClass, Refusal, RegistryError, ShownUrl};
pub use escape::Excerpt;
pub use exchange::{Answer, Exchange, Patience, Payload, ServiceUrl};
pub use fetch::{FetchError, UrlError, UrlHead, UrlRequest, UrlSink};
pub use manifest::{PulledManifest, Resolved};
pub use push_blob::{BlobSource, PushBlobOptions, PushedBlob};
pub use relay::{RelayBody, RelayError, RelayRequest, Relayed};
