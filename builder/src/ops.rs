//! The operations: what each is made of (its key) and how it runs. One file for each kind.

pub mod define;
pub mod host_ca;
pub mod network_files;
