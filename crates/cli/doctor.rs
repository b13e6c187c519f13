//! What `rbuild doctor` finds out: for each rung of the ladder whether a step really runs there, and the least change that
//! would make it.
//!
//! Nothing is guessed from versions or settings: each rung is entered by a process of its own, which then does what a
//! build does. Settings are read only to say why something failed.

mod advice;
mod machine;
mod probe;
mod report;

pub(crate) use probe::examine;
