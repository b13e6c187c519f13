//! BuildKit's API on rbuild's engine: what `buildctl`, `docker buildx` and other clients of `buildkitd` call.
//!
//! Level 4. One [`core::Core`] behind four services: [`control`] (builds, progress, cache, history), [`bridge`] (front
//! ends that run in the client), [`content`] (blobs of the history) and health. A client's directories, secrets and outputs are reached through its session
//! ([`client`]); front ends are run and definitions are solved by [`front_end`], results leave by [`export`].
//!
//! Clients are not trusted: what they send is bounded, what they wait for ends with their connection, and one client's
//! failure is an error for that client alone.
#![forbid(unsafe_code)]
// The compiler looks through all that a build awaits, from a call of the API down to a socket, for what is not `Send`.
#![recursion_limit = "256"]

pub mod answer;
pub mod attest;
pub mod attestation_chain;
pub mod bridge;
pub mod builds;
pub mod cache;
pub mod caps;
pub mod client;
pub mod container;
pub mod content;
pub mod control;
pub mod core;
pub mod errors;
pub mod events;
pub mod export;
pub mod failed;
pub mod filter;
pub mod forwarder;
pub mod front_end;
pub mod gc;
pub mod history;
pub mod info;
pub mod listen;
pub mod meta;
pub mod newer;
pub mod notify;
pub mod platforms;
pub mod policy;
pub mod policy_session;
pub mod producers;
pub mod read_ref;
pub mod resources;
pub mod run;
pub mod running;
pub mod scope;
pub mod serve;
pub mod session_export;
pub mod usage;
pub mod verify;
