//! Docker's default system call policy as a BPF program of our own making.
//!
//! `profile.rs` is the policy as data, `bpf.rs` the compiler. One program covers the native architecture and the
//! ones the kernel runs beside it (i386 and x32 on x86-64, 32-bit arm on arm64): a foreign call is filtered, not
//! killed. Integer arguments are compared in their low 32 bits, which is what the kernel uses of them; a compare
//! of all 64 would let `socket(AF_ALG | 1 << 32)` through.

pub(crate) mod bpf;
mod profile;

pub(crate) use profile::Steps;
use rbuild_sys::seccomp::Instruction;

/// The program for steps of a kind.
pub(crate) fn program(steps: Steps) -> Vec<Instruction> {
    bpf::compile(&profile::architectures(steps))
}

/// Whether steps get a socket of this family, kind and protocol.
pub(crate) fn gives_socket(arguments: [u32; 3]) -> bool {
    profile::socket().allows(arguments)
}

/// One instruction on the wire: eight bytes as the kernel has them in memory.
const WIRE_BYTES: usize = 8;

/// The program as bytes.
pub(crate) fn encode(program: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * WIRE_BYTES);
    for one in program {
        bytes.extend(one.code.to_ne_bytes());
        bytes.extend([one.jump_true, one.jump_false]);
        bytes.extend(one.k.to_ne_bytes());
    }
    bytes
}

/// The program of such bytes; a rest too short for an instruction is left out.
pub(crate) fn decode(bytes: &[u8]) -> Vec<Instruction> {
    let instruction = |chunk: &[u8; WIRE_BYTES]| {
        let [c0, c1, jump_true, jump_false, k0, k1, k2, k3] = *chunk;
        let code = u16::from_ne_bytes([c0, c1]);
        Instruction {
            code,
            jump_true,
            jump_false,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        }
    };
    bytes
        .as_chunks::<WIRE_BYTES>()
        .0
        .iter()
        .map(instruction)
        .collect()
}

#[cfg(test)]
mod tests;
