//! How a result came to be, as SLSA provenance (`solver/llbsolver/provenance`): what its graph took from the outside, and
//! the request that asked for it. Pure: nothing here reads a file, a clock or a network.
//!
//! Two things are given by the caller, since they are in the words of the API and of an exporter: the build's definition
//! with its source map, and the layers of its steps. Ids of secrets are recorded, values are not known here.

pub mod capture;
pub mod predicate;
pub mod purl;
pub mod redact;
