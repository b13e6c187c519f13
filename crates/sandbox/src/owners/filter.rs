//! The program that sends calls to the supervisor. Loaded beside the profile of secure steps, of which each refusal wins.

use std::collections::HashMap;

use rbuild_sys::seccomp::Instruction;
use rustix::fs::OFlags;

use super::calls::{ABSENT, CALLS, Kind};
use crate::plan::Security;
use crate::seccomp::bpf::{self, Action, Architecture, ENOSYS, Test, audit};
use crate::sockets;

/// Number of the resource whose soft limit tells the supervisor who a caller is (`RLIMIT_LOCKS`).
const LOCKS: u32 = 10;

/// Native calls by number.
pub(super) fn numbered() -> HashMap<i32, Kind> {
    let kind = |called: &str| {
        CALLS
            .iter()
            .find(|(name, _)| *name == called)
            .map(|(_, kind)| *kind)
    };
    native()
        .filter_map(|(number, name)| Some((number, kind(name)?)))
        .collect()
}

#[cfg(target_arch = "x86_64")]
fn native() -> impl Iterator<Item = (i32, &'static str)> {
    syscalls::x86_64::Sysno::iter().map(|call| (call.id(), call.name()))
}

#[cfg(target_arch = "aarch64")]
fn native() -> impl Iterator<Item = (i32, &'static str)> {
    syscalls::aarch64::Sysno::iter().map(|call| (call.id(), call.name()))
}

/// The program. Calls of the 32-bit architecture beside the native one are not shown anything and go their way, but for sockets
/// of secure steps (`sockets.rs`): there can be no second program that asks.
pub(crate) fn program(security: Security) -> Vec<Instruction> {
    let mut actions: Vec<(u32, Action)> = native()
        .filter_map(|(number, name)| Some((number.cast_unsigned(), action(name)?)))
        .collect();
    actions.sort_by_key(|(number, _)| *number);
    let mut ranges = vec![(0, Action::Allow)];
    for (number, action) in actions {
        // A range of one call, and what was before goes on behind it.
        if ranges.last().is_some_and(|(first, _)| *first == number) {
            ranges.pop();
        }
        ranges.extend([(number, action), (number + 1, Action::Allow)]);
    }
    #[cfg(target_arch = "x86_64")]
    ranges.push((X32_BIT, Action::Errno(ENOSYS)));
    let other = if sockets::EXIST && security == Security::Sandbox {
        sockets::asked()
    } else {
        vec![(0, Action::Allow)]
    };
    bpf::compile(&architectures(ranges, other))
}

#[cfg(target_arch = "x86_64")]
fn architectures(ranges: Vec<(u32, Action)>, other: Vec<(u32, Action)>) -> [Architecture; 2] {
    [(audit::NATIVE, ranges), (audit::I386, other)].map(of)
}

/// `__X32_SYSCALL_BIT`.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

#[cfg(target_arch = "aarch64")]
fn architectures(ranges: Vec<(u32, Action)>, other: Vec<(u32, Action)>) -> [Architecture; 2] {
    [(audit::NATIVE, ranges), (audit::ARM, other)].map(of)
}

fn of((audit, ranges): (u32, Vec<(u32, Action)>)) -> Architecture {
    Architecture { audit, ranges }
}

fn action(name: &str) -> Option<Action> {
    if ABSENT.contains(&name) {
        return Some(Action::Errno(ENOSYS));
    }
    // The mark is the supervisor's; a caller is told that it was set.
    match name {
        "setrlimit" => return Some(Action::SucceedIf(vec![Test::Equal(0, LOCKS)])),
        "prlimit64" => {
            return Some(Action::SucceedIf(vec![
                Test::Equal(1, LOCKS),
                Test::Greater(2, 0),
            ]));
        }
        _ => {}
    }
    let (_, kind) = CALLS.iter().find(|(called, _)| *called == name)?;
    Some(match kind {
        Kind::Open {
            flags: Some(flags), ..
        } => {
            let making = OFlags::CREATE | OFlags::TMPFILE.difference(OFlags::DIRECTORY);
            Action::NotifyIfAnyOf(u8::try_from(*flags).unwrap_or_default(), making.bits())
        }
        _ => Action::Notify,
    })
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::seccomp::bpf::ASKED;

    const X86_64: u32 = 0xc000_003e;

    #[test]
    fn every_call_of_the_table_is_asked_about_and_nothing_else() {
        let program = program(Security::Sandbox);
        assert!(program.len() < rbuild_sys::seccomp::INSTRUCTIONS_MAX);
        let known = numbered();
        assert_eq!(
            known.len(),
            CALLS.len() - 1,
            "all but fstatat, which is another architecture's"
        );
        let ask = |number: u32, args| bpf::run(&program, X86_64, number, args);
        let create = u64::from(OFlags::CREATE.bits());
        for (number, name) in native() {
            let asked = ask(number.cast_unsigned(), [create; 6]) == Err(ASKED);
            assert_eq!(asked, known.contains_key(&number), "{name}");
        }
        assert_eq!(ask(0, [0; 6]), Ok(()), "read");
        assert_eq!(ask(2, [0; 6]), Ok(()), "open for reading");
        assert_eq!(ask(257, [0, 0, 0x41_0000, 0, 0, 0]), Err(ASKED), "O_TMPFILE");
        assert_eq!(ask(257, [0, 0, 0x1_0000, 0, 0, 0]), Ok(()), "O_DIRECTORY");
        assert_eq!(ask(425, [0; 6]), Err(ENOSYS), "io_uring_setup");
        assert_eq!(ask(0x4000_0000, [0; 6]), Err(ENOSYS), "x32");
        assert_eq!(
            bpf::run(&program, 0x4000_0003, 182, [0; 6]),
            Ok(()),
            "chown of i386"
        );
        for (security, answer) in [(Security::Sandbox, Err(ASKED)), (Security::Insecure, Ok(()))] {
            let program = super::program(security);
            assert_eq!(
                bpf::run(&program, 0x4000_0003, 102, [1; 6]),
                answer,
                "{security:?}"
            );
        }
    }

    #[test]
    fn nobody_changes_the_mark_and_other_limits_are_as_ever() {
        let program = program(Security::Sandbox);
        let ask = |number: u32, args| bpf::run(&program, X86_64, number, args);
        assert_eq!(
            ask(160, [10, 1, 0, 0, 0, 0]),
            Err(0),
            "setrlimit of locks gives 0"
        );
        assert_eq!(ask(160, [7, 1, 0, 0, 0, 0]), Ok(()));
        assert_eq!(
            ask(302, [0, 10, 1, 0, 0, 0]),
            Err(0),
            "prlimit64 of locks gives 0"
        );
        assert_eq!(ask(302, [0, 10, 0, 1, 0, 0]), Ok(()), "asking is let through");
        assert_eq!(ask(302, [0, 7, 1, 0, 0, 0]), Ok(()));
    }
}
