//! Whole flows between the server's side and a client of our own, over the tunnel a real client uses. What is refused in `hostile` has its
//! legal twin in `sync`: links, hard links, pipes, files that grow, and names of every kind are kept.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside test functions")]

mod attach;
mod calls;
mod exports;
mod hostile;
mod lifetime;
mod setting;
mod sync;
