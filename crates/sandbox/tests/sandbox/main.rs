//! Steps on the machine's own kernel, in a small root of static busybox. `privileged_` needs root.
#![forbid(unsafe_code)]

mod fixture;
mod isolation;
mod mounts;
mod rootless;
mod running;
