//! File operations of a build: COPY, ADD, and making, removing and linking files, with BuildKit's exact meaning
//! (`solver/llbsolver/file`, `tonistiigi/fsutil/copy`), and the content hashes of what they read
//! (`cache/contenthash`).
//!
//! Level 2. Knows roots by descriptor ([`rbuild_sys::RootFd`]) and nothing of images, layers or mounts. All of it is
//! synchronous; large copies and hashes start threads of their own. Nothing is read or written outside the roots
//! it is given, whatever links are in them and whoever exchanges names meanwhile.
#![forbid(unsafe_code)]

mod actions;
mod context;
mod copy;
mod dest;
mod dirstack;
mod follow;
mod hash;
mod missing;
mod mode;
mod owner;
mod remove;
mod select;
mod source;
mod straight;
mod survey;
mod unpack;
mod walk;
mod workers;
mod xattr;

pub use actions::{ActionError, apply};
pub use context::{ContextError, DockerfileAt, IGNORE_FILE, TarContextError, ignore_rules, spool_tar};
pub use copy::{CopyError, CopyReport, copy};
pub use dest::DestError;
pub use hash::{ContentHash, ContextStats, HashError, NoStatCache, StatCache, StatKey, StatTable};
pub use missing::{IgnoredBy, MissingSource};
pub use mode::{ModeChange, ModeError};
pub use owner::{Owner, OwnerError, resolve as resolve_owner};
pub use select::{SelectError, Selector};
pub use source::{IgnoreRules, IgnoreRulesError, LocalContext, LocateError, SourceTree};
pub use straight::{StraightCopy, StraightError, pack_copies};
pub use survey::{Surveyed, survey};
pub use unpack::UnpackError;
pub use walk::WalkError;
