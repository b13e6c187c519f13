//! Hostile and ordinary archives, built byte by byte, against a canary tree on the same file system.

mod archive;
mod bytes;
mod canary;
mod compression;
mod extracting;
mod limits;
mod packing;
mod reading;
mod rootless;
mod unpacking;
mod writing;
