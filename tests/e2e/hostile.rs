//! Whole builds that attack, on each rung of the ladder: rows of the security list that only a whole build can show. Rows
//! about the unpacker, the archive reader and the sandbox alone are tests of those crates too.
//!
//! The canary directory lies on the same file system as the store and belongs to the user that builds.

mod agents;
mod archives;
mod beyond;
mod bounds;
pub(crate) mod canary;
mod contexts;
mod image_data;
mod layers;
mod marks;
mod mounts;
pub(crate) mod narrow;
mod neighbours;
mod passing;
mod reaching;
mod registries;
mod repositories;
mod servers;
mod steps;
mod targets;
mod terminals;
mod texts;
