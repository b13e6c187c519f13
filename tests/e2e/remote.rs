//! Sources from the network: files behind URLs, git repositories, contexts that are either, and ssh agents.

mod addresses;
mod context;
mod epoch;
pub(crate) mod git;
mod http;
pub(crate) mod ssh;
mod told_git;
