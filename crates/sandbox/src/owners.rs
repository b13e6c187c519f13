//! What a step sees of owners where there is one id: it is told of recorded owners, devices and its own credentials as if
//! they were real, and what it changes of them is recorded ([`rbuild_sys::owner`]).
//!
//! A seccomp program sends the calls that matter to a process beside the step's supervisor; its threads answer them. Nothing here is a
//! boundary: a call that is let through has just the rights that the step has anyway, so a caller that changes the text
//! of a path after it was read gets a wrong owner in its own layer and nothing else. What must hold is that an answering
//! thread, which sees the machine's processes and has capabilities, never acts on anything but the caller's own:
//! - whatever was read by a thread id is dropped unless the call still waits afterwards;
//! - files are reached through the caller's directory in `/proc`, opened once and verified, and below the caller's own
//!   root, which the thread has entered with `chroot(2)`, with no descriptor of the machine in reach by a name;
//! - texts are copied once, with a limit, and only the copy is used; lengths and counts from a caller have limits;
//! - memory is written through a descriptor that is bound to the caller's.
//!
//! Not shown: who may do what. Every file is the one id's, so no owner keeps anybody out.

mod answerer;
mod caller;
mod calls;
mod create;
mod credentials;
mod files;
mod filter;
mod identity;
mod serve;

pub(crate) use answerer::{Answerer, start};
pub(crate) use credentials::Credentials;
pub(crate) use filter::program;
