//! The API as its clients use it: services called in this process, clients of our own behind real sessions.
#![expect(
    clippy::unwrap_used,
    reason = "clippy allows them in #[test] functions only, and this is nothing but tests"
)]

#[path = "server/attestations.rs"]
mod attestations;
#[path = "server/bench.rs"]
mod bench;
#[path = "server/builds.rs"]
mod builds;
#[path = "server/caches.rs"]
mod caches;
#[path = "server/devices.rs"]
mod devices;
#[path = "server/gateway.rs"]
mod gateway;
#[path = "server/history.rs"]
mod history;
#[path = "server/hostile.rs"]
mod hostile;
#[path = "server/layouts.rs"]
mod layouts;
#[path = "server/listening.rs"]
mod listening;
#[path = "server/local.rs"]
mod local;
#[path = "server/operations.rs"]
mod operations;
#[path = "server/session_policy.rs"]
mod session_policy;
#[path = "server/sources.rs"]
mod sources;
#[path = "server/tls.rs"]
mod tls;
#[path = "server/trees.rs"]
mod trees;
#[path = "server/wire.rs"]
mod wire;
