//! Dockerfiles, ignore files and path patterns, with BuildKit's meaning (`frontend/dockerfile/{parser,instructions,shell}`).
//!
//! Level 0. Pure functions over bytes: no file, no network, no clock. Everything here reads hostile text, so every
//! parser is total (a value and the errors found), every matcher takes time linear in pattern and path, and every
//! expansion has a limit.
#![forbid(unsafe_code)]

pub mod csv;
pub mod directive;
pub mod duration;
pub mod glob;
pub mod ignore;
pub mod path;
pub mod quote;
pub mod shell;
pub mod suggest;

mod dockerfile;
mod error;
mod instruction;
mod json;
mod parser;
mod span;
mod wildcard;

pub use dockerfile::{Dockerfile, FromLine, parse, parse_trigger};
pub use error::{ParseError, ParseErrorKind};
pub use instruction::{
    Add, ArgDefinition, CommandLine, Copy, Device, DeviceError, Healthcheck, InlineFile, Instruction,
    InstructionKind, KeyValue, MountError, MountOptions, MountType, Run, RunNetwork, RunSecurity, Sharing,
    SourcesAndDestination, Stage,
};
pub use parser::{Heredoc, chomp, is_heredoc};
pub use span::Span;

/// Largest Dockerfile that is read, bytes. BuildKit's own limit is that of a gRPC message.
pub const MAX_DOCKERFILE_BYTES: usize = 16 << 20;

/// Most instructions that are read from one Dockerfile.
pub const MAX_INSTRUCTIONS: usize = 200_000;
