//! What a user types and what a user sees: the values of command line flags, the progress of a build, diagnostics,
//! tables.
//!
//! Level 2. It knows the vocabulary of [`rbuild_graph::progress`] and nothing of the engine: no store, no registry,
//! no sandbox. Everything that comes from a Dockerfile, an image, a registry or a step passes through [`text`]
//! before it reaches a terminal.
#![forbid(unsafe_code)]

pub mod diagnostic;
pub mod documents;
pub mod progress;
pub mod table;
pub mod template;
pub mod text;
pub mod units;
pub mod values;
