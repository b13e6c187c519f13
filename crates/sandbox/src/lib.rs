//! Runs one process in a sandbox, from a plan that is pure data.
//!
//! Level 1: knows namespaces, mounts and privileges, and nothing of images, layers or the store. See [`Plan`].
//!
//! ```text
//! caller (threads) ── posix_spawn of its own binary, read-only, once ──> zygote ── fork ──> supervisor ── clone3 ──> step, pid 1
//!        └─────────────────────── one socket for each: plan in, reports out ──────────────────┘
//! ```
//! More processes join a sandbox the same way, each with a supervisor of its own; they end with its first process.
//!
//! The supervisor stays outside the step's namespaces. It kills the whole pid namespace when told to and when the
//! socket closes, which it does however the caller ends; the step has no process of ours beside it. Every mount is
//! made in the step's own mount namespace or attached nowhere, so nothing stays mounted either.
//!
//! [`Sandbox::host_command`] runs programs of the host by the same binary, tied to the caller and not sandboxed.
//!
//! A program that uses this crate calls [`init_if_requested`] first thing in `main`.
#![forbid(unsafe_code)]

mod beside;
mod cgroup;
mod chroot;
mod devices;
mod emulator;
mod enter;
mod exec;
mod filters;
mod foreign;
mod heard;
mod host;
mod injected;
mod memory;
mod mounts;
mod owners;
mod places;
mod plan;
mod privileges;
mod program;
mod running;
mod seccomp;
mod sockets;
mod spawn;
mod status;
mod step;
mod stubs;
mod supervisor;
mod supervisors;
mod system;
mod terminal;
mod wire;
mod written;
mod zygote;

pub use emulator::Emulation;
pub use foreign::Machine;
pub use host::CANNOT_START;
pub use plan::{
    Confinement, DeviceKind, DeviceNode, HostTree, Ids, Limits, MountKind, MountPlan, Network, OverlayPlan,
    Plan, Process, Rlimit, RlimitResource, RootPlan, Security, Source, Stdio, Swap, TerminalSize,
};
pub use program::ProgramError;
pub use running::{Entrance, Exit, ExitStatus, Ready, Running, Usage, WaitError};
pub use spawn::{Sandbox, SandboxError, SpawnError};
pub use supervisor::init_if_requested;
