//! The engine: solves build graphs and exports what comes of them. (being written)
#![forbid(unsafe_code)]

pub mod request;
