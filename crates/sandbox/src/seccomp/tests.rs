//! What the compiled program answers, call by call, checked in an interpreter of BPF.

use super::bpf::{self, ENOSYS, EPERM};
use super::{Steps, program as program_for};

#[cfg(target_arch = "x86_64")]
const X86_64: u32 = 0xc000_003e;
#[cfg(target_arch = "x86_64")]
const I386: u32 = 0x4000_0003;

fn program() -> &'static [rbuild_sys::seccomp::Instruction] {
    static PROGRAM: std::sync::OnceLock<Vec<rbuild_sys::seccomp::Instruction>> = std::sync::OnceLock::new();
    PROGRAM.get_or_init(|| super::decode(&super::encode(&program_for(Steps::InNamespaces))))
}

fn ask(architecture: u32, number: u32, argument: u64) -> Result<(), u16> {
    bpf::run(program(), architecture, number, [argument, 0, 0, 0, 0, 0])
}

#[test]
fn the_program_fits_the_kernel() {
    assert!(
        program_for(Steps::InNamespaces).len() < rbuild_sys::seccomp::INSTRUCTIONS_MAX,
        "{}",
        program_for(Steps::InNamespaces).len()
    );
}

#[cfg(target_arch = "x86_64")]
#[test]
fn row28_calls_and_their_errors_are_dockers() {
    let expected: &[(&str, u32, Result<(), u16>)] = &[
        ("read", 0, Ok(())),
        ("execve", 59, Ok(())),
        ("ptrace", 101, Ok(())),
        ("arch_prctl", 158, Ok(())),
        ("chroot", 161, Ok(())),
        ("mount", 165, Err(EPERM)),
        ("reboot", 169, Err(EPERM)),
        ("keyctl", 250, Err(EPERM)),
        ("add_key", 248, Err(EPERM)),
        ("unshare", 272, Err(EPERM)),
        ("perf_event_open", 298, Err(EPERM)),
        ("open_by_handle_at", 304, Err(EPERM)),
        ("kcmp", 312, Err(EPERM)),
        ("bpf", 321, Err(EPERM)),
        ("userfaultfd", 323, Err(EPERM)),
        ("io_uring_setup", 425, Err(EPERM)),
        ("clone3", 435, Err(ENOSYS)),
        ("close_range", 436, Ok(())),
        ("openat2", 437, Ok(())),
        ("mount_setattr", 442, Err(EPERM)),
        ("removexattrat", 466, Ok(())),
        ("a call from the future", 600, Err(ENOSYS)),
    ];
    for (name, number, answer) in expected {
        assert_eq!(ask(X86_64, *number, 0), *answer, "{name}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn row28_i386_and_x32_are_filtered_too() {
    for (name, number, answer) in [
        ("socketcall", 102, Ok(())),
        ("mount", 21, Err(EPERM)),
        ("keyctl", 288, Err(EPERM)),
        ("unshare", 310, Err(EPERM)),
        ("clone3", 435, Err(ENOSYS)),
        ("arch_prctl", 384, Err(EPERM)),
        ("clock_gettime64", 403, Ok(())),
        ("a call from the future", 600, Err(ENOSYS)),
    ] {
        assert_eq!(ask(I386, number, 0), answer, "i386 {name}");
    }
    assert_eq!(ask(I386, 359, 38), Err(EPERM), "i386 socket(AF_ALG)");
    assert_eq!(ask(I386, 359, 2), Ok(()), "i386 socket(AF_INET)");
    let x32 = 0x4000_0000;
    for (name, number, answer) in [
        ("read", 0, Ok(())),
        ("execve, the 64-bit number", 59, Err(EPERM)),
        ("execve", 520, Ok(())),
        ("mount", 165, Err(EPERM)),
        ("kexec_load", 528, Err(EPERM)),
        ("clone3", 435, Err(ENOSYS)),
        ("pwritev2", 547, Ok(())),
    ] {
        assert_eq!(ask(X86_64, x32 | number, 0), answer, "x32 {name}");
    }
    assert_eq!(
        ask(0x1234_5678, 0, 0),
        Err(ENOSYS),
        "an unknown architecture runs nothing"
    );
}

#[cfg(target_arch = "x86_64")]
#[test]
fn row28_arguments_decide() {
    const SOCKET: u32 = 41;
    for (family, answer) in [
        (0, Ok(())),
        (2, Ok(())),
        (37, Ok(())),
        (38, Err(EPERM)),
        (39, Ok(())),
        (40, Err(EPERM)),
        (41, Ok(())),
    ] {
        assert_eq!(ask(X86_64, SOCKET, family), answer, "family {family}");
    }
    assert_eq!(
        ask(X86_64, SOCKET, 38 | 1 << 32),
        Err(EPERM),
        "high bits the kernel ignores do not help"
    );
    for (persona, answer) in [
        (0, Ok(())),
        (8, Ok(())),
        (0x2_0000, Ok(())),
        (0x2_0008, Ok(())),
        (0xffff_ffff, Ok(())),
        (0x40000, Err(EPERM)),
    ] {
        assert_eq!(ask(X86_64, 135, persona), answer, "personality {persona:#x}");
    }
    let fork = 0x0120_0011;
    assert_eq!(ask(X86_64, 56, fork), Ok(()), "fork");
    for (name, flag) in [
        ("NEWNS", 0x2_0000),
        ("NEWCGROUP", 0x200_0000),
        ("NEWUTS", 0x400_0000),
        ("NEWIPC", 0x800_0000),
        ("NEWUSER", 0x1000_0000),
        ("NEWPID", 0x2000_0000),
        ("NEWNET", 0x4000_0000),
    ] {
        assert_eq!(ask(X86_64, 56, fork | flag), Err(EPERM), "clone {name}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn row28_no_step_is_told_what_runs_on_the_machine() {
    const SOCKET: u32 = 41;
    for steps in [Steps::InNamespaces, Steps::OnOwnNetwork] {
        let program = program_for(steps);
        for (family, protocol, answer) in [
            (16, 11, Err(EPERM)),
            (16 | 1 << 32, 11 | 1 << 32, Err(EPERM)),
            (16, 0, Ok(())),
            (2, 11, Ok(())),
            (38, 11, Err(EPERM)),
        ] {
            let asked = bpf::run(&program, X86_64, SOCKET, [family, 3, protocol, 0, 0, 0]);
            assert_eq!(
                asked, answer,
                "{steps:?}: family {family:#x}, protocol {protocol:#x}"
            );
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn row28_sockets_are_judged_alike_by_the_program_and_by_the_supervisor() {
    const SOCKET: u32 = 41;
    for family in (0..64).chain([u32::MAX]) {
        for protocol in [0, 11, 15, u32::MAX] {
            let arguments = [family.into(), 3, protocol.into(), 0, 0, 0];
            let program = bpf::run(program(), X86_64, SOCKET, arguments);
            let supervisor = super::gives_socket([family, 3, protocol]);
            assert_eq!(
                program.is_ok(),
                supervisor,
                "family {family}, protocol {protocol}"
            );
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn row28_of_socketcall_the_part_that_makes_sockets_is_asked_about_or_refused() {
    const SOCKETCALL: u32 = 102;
    let (asks, refuses) = (
        crate::sockets::program_that_asks(),
        crate::sockets::program_that_refuses(),
    );
    for part in 0..21 {
        let ask = |program, architecture| bpf::run(program, architecture, SOCKETCALL, [part, 9, 0, 0, 0, 0]);
        let makes = part == 1;
        let (asked, refused) = if makes {
            (Err(bpf::ASKED), Err(EPERM))
        } else {
            (Ok(()), Ok(()))
        };
        assert_eq!(ask(&asks, I386), asked, "part {part}");
        assert_eq!(ask(&refuses, I386), refused, "part {part}");
        assert_eq!(ask(&asks, X86_64), Ok(()), "another call of 64 bits");
    }
    assert_eq!(bpf::run(&asks, I386, 359, [1; 6]), Ok(()), "socket itself");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn row28_without_namespaces_what_reaches_others_is_refused_too() {
    const AF_INET: u64 = 2;
    const AF_UNIX: u64 = 1;
    let programs = [Steps::OnOwnNetwork, Steps::Offline].map(program_for);
    let ask = |program: usize, architecture, number, argument| {
        bpf::run(
            &programs[program],
            architecture,
            number,
            [argument, 0, 0, 0, 0, 0],
        )
    };
    for (name, number, argument, answer) in [
        ("read", 0, 0, Ok(())),
        ("kill", 62, 1, Ok(())),
        ("mknod", 133, 0, Ok(())),
        ("ptrace", 101, 0, Err(EPERM)),
        ("chroot", 161, 0, Err(EPERM)),
        ("setpriority", 141, 0, Err(EPERM)),
        ("process_vm_readv", 310, 0, Err(EPERM)),
        ("process_vm_writev", 311, 0, Err(EPERM)),
        ("prlimit64 of its own", 302, 0, Ok(())),
        ("prlimit64 of another", 302, 1, Err(EPERM)),
        ("mount", 165, 0, Err(EPERM)),
        ("clone3", 435, 0, Err(ENOSYS)),
    ] {
        assert_eq!(ask(0, X86_64, number, argument), answer, "{name}");
        assert_eq!(ask(1, X86_64, number, argument), answer, "{name}, offline");
    }
    let (socket, socketcall) = (41, 102);
    assert_eq!(ask(0, X86_64, socket, AF_INET), Ok(()));
    assert_eq!(ask(1, X86_64, socket, AF_INET), Err(EPERM));
    assert_eq!(ask(1, X86_64, socket, AF_UNIX), Ok(()));
    assert_eq!(ask(1, X86_64, socket, AF_INET | 1 << 32), Err(EPERM));
    assert_eq!(ask(0, I386, socketcall, 1), Ok(()));
    assert_eq!(
        ask(1, I386, socketcall, 1),
        Err(EPERM),
        "its family cannot be seen"
    );
    assert!(
        programs
            .iter()
            .all(|program| program.len() < rbuild_sys::seccomp::INSTRUCTIONS_MAX)
    );
}
