//! The values of command line flags: grammar only. What a value means for a build is decided where requests are made.
//!
//! Every reader follows the one buildx uses (`docker/buildx` `util/buildflags`, `docker/cli` `opts`), so the same
//! text is accepted and the same is refused.

pub mod context;
pub mod csv;
pub mod export;
pub mod host;
pub mod key_value;
pub mod resource;
pub mod scalar;
pub mod secret;
pub mod ssh;
pub mod ulimit;
