//! The engine: takes a request, has the front end make a graph, solves it, and exports what came of it.
//!
//! Level 3. The only crate that joins images, files and processes. Async here, blocking work on bounded threads.
#![forbid(unsafe_code)]

pub mod export;
pub mod ops;
pub mod request;
pub mod secrets;
pub mod solve;
pub mod start_check;
