//! The engine: takes a request, has the front end make a graph, solves it, and exports what came of it.
//!
//! Level 3. The only crate that joins images, files and processes. Async here, blocking work on bounded threads.
#![forbid(unsafe_code)]

pub mod attestation;
pub mod build;
pub mod cache_transfer;
pub mod cdi;
pub mod client;
pub mod container;
pub mod context;
pub mod context_report;
pub mod created;
pub mod engine;
pub mod engine_load;
pub mod entry_point;
pub mod error;
pub mod export;
pub mod failed;
pub mod failed_step;
pub mod front_ends;
pub mod git;
pub mod image_files;
pub mod images;
pub mod imagetools;
pub mod job;
pub mod load;
pub mod local_image;
pub mod ops;
pub mod private_network;
pub mod provenance;
pub mod proxy_network;
pub mod pull;
mod remote_context;
mod remote_dockerfile;
pub mod request;
pub mod resolve;
pub mod run;
pub mod save;
pub mod secrets;
pub mod solve;
pub mod source_meta;
pub mod source_policy;
pub mod source_time;
pub mod ssh;
mod start_check;
pub mod stored;
mod straight;
pub mod subrequest;
mod taken_out;
pub mod time;
pub mod transfer;
pub mod value;
