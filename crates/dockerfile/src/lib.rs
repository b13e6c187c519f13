//! Dockerfiles, ignore files and path patterns, with BuildKit's meaning (`frontend/dockerfile/{parser,instructions,shell}`).
//!
//! Level 0. Pure functions over bytes: no file, no network, no clock. Everything here reads hostile text, so every
//! parser is total (a value and the errors found), every matcher takes time linear in pattern and path, and every
//! expansion has a limit.
#![forbid(unsafe_code)]

pub mod glob;
pub mod ignore;
pub mod path;

mod wildcard;
