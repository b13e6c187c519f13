//! The kernel interface: the only crate with unsafe code.
//!
//! Level 0. Safe signatures over what rustix and nix do not offer, and [`RootFd`], the one way by which this
//! program touches paths that came from outside.
#![expect(
    unsafe_code,
    reason = "the one home of unsafe code: syscalls without a safe wrapper elsewhere"
)]

pub mod activation;
pub mod data;
pub mod landlock;
pub mod mount_attr;
pub mod namespace;
pub mod overlay;
pub mod owner;
pub mod process;
mod random;
mod regular;
mod rootfd;
pub mod seccomp;
mod severed;
pub mod status_image;
mod tree;
pub mod userdb;
pub mod userns;
mod uses;

pub use random::random_bytes;
pub use regular::open_regular;
pub use rootfd::{RootFd, RootFdError, clean, shown};
pub use severed::sever_links;
pub use tree::{Removed, TreeEntry, TreeError, remove_tree, walk_tree};
pub use uses::Uses;
