//! What the tests stand on: images made from Debian's packages, a hermetic command, and readers of images that share
//! no code with the product.
//!
//! Nothing here may call the product's own layer, store or snapshot code: these modules are the second opinion. An
//! image that the product wrote is read with the `tar` crate, checked against `oci-spec`'s types, and run under runc.
//! Nothing in the product depends on this crate except as a development dependency.
#![forbid(unsafe_code)]

pub mod base;
pub mod cloud;
pub mod command;
pub mod conformance;
pub mod context;
pub mod debian;
pub mod facts;
pub mod image;
pub mod layout;
pub mod leak;
mod listening;
pub mod machine;
pub mod noise;
pub mod peer;
pub mod racing;
#[cfg(feature = "registry")]
pub mod registry;
pub mod residue;
pub mod run;
pub mod stopwatch;
pub mod validate;
pub mod web;
