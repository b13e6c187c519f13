//! Steps on the machine's own kernel, in a small root of static busybox. `privileged_` needs root.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: a skipped test says so, and a failed one panics"
)]

mod devices;
mod fixture;
mod host;
mod isolation;
mod joining;
mod limits;
mod mounts;
mod one_id;
mod racing;
mod rootless;
mod running;
