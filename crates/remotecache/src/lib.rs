//! Services that keep caches and are no registries: S3, Azure Blob Storage, GitHub's cache service
//! (`cache/remotecache/{s3,azblob,gha}`). Names of objects, requests and signatures are here; every byte goes through
//! [`rbuild_registry`]'s connections.
//!
//! Level 2, async; knows blobs by their digests and cache configs as bytes. Refuses to know what is in a config, where
//! blobs are on this machine, and what a build is. Blobs are believed by their digests, configs by whoever reads them;
//! every answer has a limit. Keys and tokens are [`rbuild_registry::Secret`]s: they are in no error, name or debug text.
#![forbid(unsafe_code)]

pub mod attrs;
pub mod azblob;
mod azure;
mod error;
pub mod gha;
pub mod s3;
mod service;
mod sign;
mod xml;

pub use attrs::{AttrError, Attrs};
pub use error::ServiceError;
pub use service::{Place, Service};
