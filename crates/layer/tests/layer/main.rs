//! Hostile and ordinary archives, built byte by byte, against a canary tree on the same file system.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests, outside test functions"
)]

mod archive;
mod bytes;
mod canary;
mod compression;
mod estargz;
mod extracting;
mod limits;
mod measuring;
mod packing;
mod reading;
mod rootless;
mod sparse;
mod unpacking;
mod writing;
