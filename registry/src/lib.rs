//! Talks to image registries: resolve, pull, push, with mirrors, credentials, retries and resumption.
//!
//! Level 1, async; knows documents ([`rbuild_oci`]) and the network, no store and no build. Nothing is believed that
//! is not verified: digests, sizes and media types are checked here. A credential goes to the host it was stored for
//! and to the token server that host names, to nobody else; there is no default header and no automatic redirect.
#![forbid(unsafe_code)]

mod config;
mod credentials;
mod error;
mod escape;

pub use config::{ConfigError, ConfigSources, Endpoint, RegistryConfig, SchemePolicy};
pub use credentials::{Credential, CredentialSources, Credentials, FileError, Found, HelperError, Secret};
pub use error::{ApiError, ErrorClass, Refusal, RegistryError, ShownUrl};
pub use escape::Excerpt;
