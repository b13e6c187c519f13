//! How a result came to be, as SLSA provenance (`solver/llbsolver/provenance`): what its graph took from the outside, and
//! the request that asked for it. Ids of secrets are recorded, values are not known here.
//!
//! Only [`draft`] knows a build; everything else is pure and reads neither file nor clock nor network.

pub mod capture;
pub mod draft;
mod materials;
pub mod options;
pub mod predicate;
pub mod purl;
pub mod redact;
pub mod request;
pub mod usage;
