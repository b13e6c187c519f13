//! The client's side of BuildKit's control API: what asks a server about itself, and what carries bytes to one.
//!
//! Level 1. [`Address`] says where a server is, [`connect`] gives BuildKit's own clients of the services there, and
//! [`stdio`] joins a server to standard input and output. Builds need a session too, which this does not have.
#![forbid(unsafe_code)]

mod address;
mod connect;
pub mod stdio;

pub use address::{Address, AddressError};
pub use connect::{Bridge, ConnectError, Connection, Control, MESSAGE_BYTES_MAX, Security, connect};
