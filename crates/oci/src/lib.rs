//! Data types of the OCI image and distribution specs: digests, references, manifests, image configs, platforms.
//!
//! Level 0. Pure data: no file, no network, no clock. Documents that others wrote keep every field this crate
//! does not know; documents written here are byte-stable and equal to what Go's encoder makes of the same data.
#![forbid(unsafe_code)]

mod digest;

pub use digest::{Algorithm, ChainId, DiffId, Digest, DigestError, push_hex};
