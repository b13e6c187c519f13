//! Data types of the OCI image and distribution specs: digests, references, manifests, image configs, platforms.
//!
//! Level 0. Pure data: no file, no network, no clock. Documents that others wrote keep every field this crate
//! does not know; documents written here are byte-stable and equal to what Go's encoder makes of the same data.
#![forbid(unsafe_code)]

pub mod attestation;
mod config;
mod descriptor;
mod digest;
mod document;
mod go_duration;
pub mod go_json;
pub mod go_url;
pub mod media_type;
mod platform;
mod reference;
mod strict_json;
mod timestamp;

pub use config::{CONFIG_BYTES_MAX, ConfigError, ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, ChainId, DiffId, Digest, DigestError, push_hex};
pub use document::{
    DOCUMENT_BYTES_MAX, Document, DocumentError, INDEX_DEPTH_MAX, Index, MANIFESTS_MAX, Manifest,
    parse_document,
};
pub use go_duration::parse_duration;
pub use platform::{Platform, PlatformError};
pub use reference::{DEFAULT_HOST, DEFAULT_TAG, Reference, ReferenceError};
pub use strict_json::StrictJsonError;
pub use timestamp::{Timestamp, TimestampError};
