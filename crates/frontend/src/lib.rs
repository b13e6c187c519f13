//! The Dockerfile front end: a Dockerfile becomes a graph of operations, an image config with history, and warnings,
//! as BuildKit's `frontend/dockerfile/dockerfile2llb` makes them.
//!
//! Level 2. Opens no file and no connection: what it must know of images and other contexts it asks through
//! [`MetaResolver`], about all bases at once and only about those the target needs.
#![forbid(unsafe_code)]

mod advice;
mod budget;
mod context;
mod convert;
mod dispatch;
mod env;
mod error;
mod git;
mod hint;
mod image;
mod input;
mod lint;
mod local_paths;
mod lowering;
mod options;
mod origins;
mod outline;
mod remote;
mod resolver;
mod scan;
mod stage;
pub mod subrequest;
mod validate;

pub use convert::{EpochError, LANGUAGE, Lowered, StageInfo, lower};
pub use dispatch::{DriveError, PortError};
pub use error::{FrontendError, FrontendErrorKind};
pub use git::GitUrlError;
pub use input::{ClientContexts, ContextOrigin, InputGraph};
pub use lint::{CheckError, LintWarning, Origin, Rule};
pub use options::{FrontendOptions, ImageResolveMode, NoCache};
pub use remote::{RemoteContext, add_subdirectory, redact_credentials};
pub use resolver::{
    IgnoreFilePlace, IgnoreFileRequest, ImageRequest, LayoutPlace, LayoutRequest, MetaResolver, NotAnImage,
    ResolveError, ResolvedImage, SourceTimeRequest,
};
