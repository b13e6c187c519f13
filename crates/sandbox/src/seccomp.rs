//! Docker's default system call policy as a BPF program of our own making.
//!
//! `profile.rs` is the policy as data, `bpf.rs` the compiler. One program covers the native architecture and the
//! ones the kernel runs beside it (i386 and x32 on x86-64, 32-bit arm on arm64): a foreign call is filtered, not
//! killed. Integer arguments are compared in their low 32 bits, which is what the kernel uses of them; a compare
//! of all 64 would let `socket(AF_ALG | 1 << 32)` through.

mod bpf;
mod profile;

use std::sync::OnceLock;

use rbuild_sys::seccomp::Instruction;

/// The program for a step with the default capabilities.
pub(crate) fn default_program() -> &'static [Instruction] {
    static PROGRAM: OnceLock<Vec<Instruction>> = OnceLock::new();
    PROGRAM.get_or_init(|| bpf::compile(&profile::architectures()))
}

#[cfg(test)]
mod tests;
