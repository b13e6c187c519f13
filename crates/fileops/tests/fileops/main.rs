//! What COPY, ADD and the other file actions do, from outside: one test for each behaviour that copies of BuildKit
//! get wrong, and the attacks on trees that change while they are read or written.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "all of it is test code, its short ways included"
)]

mod actions;
mod context;
mod copy;
mod copy_meta;
mod hash;
mod hostile;
mod patterns;
mod speed;
mod straight;
mod support;
