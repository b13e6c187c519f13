//! Sockets of 32-bit programs. Older C libraries of i386 make them by `socketcall(2)`, whose arguments are behind a pointer: no
//! seccomp program sees of which family they are, and one that lets them pass lets every family pass (`AF_ALG`, `AF_VSOCK`, and on
//! the host's network the connector that tells which processes run). Docker refused the call once, and gave it back because
//! such programs had no network any more (moby/moby, 52494 and 52547); where there is AppArmor it denies one family since.
//!
//! Here that one part of the call is heard. The arguments are copied once and judged as those of `socket(2)`, and what
//! passes is not let through, since the caller could change it until the kernel looks: the socket is made on this side, in the
//! caller's network, with no right that the caller does not have, and given to it.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rbuild_sys::seccomp::Instruction;
use rbuild_sys::seccomp::notify::{self, Answer, Call, Listener};
use rustix::event::PollFlags;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::heard::{self, Asks, Ear, Mouth};
use crate::seccomp::bpf::{self, Action, Architecture, Test, audit};
use crate::status;
use crate::wire::{During as _, SetupError};

/// Whether programs run here that make sockets so: the 32-bit ABI of arm has `socket` alone.
pub(crate) const EXIST: bool = cfg!(target_arch = "x86_64");
/// `socketcall` of i386.
const SOCKETCALL: u32 = 102;
/// Its part that makes sockets. `SYS_SOCKETPAIR` makes none of a family that is refused: they have no pairs.
const SYS_SOCKET: u32 = 1;

/// What is asked of the i386 architecture.
pub(crate) fn asked() -> Vec<(u32, Action)> {
    ranges(Action::NotifyIf(vec![Test::Equal(0, SYS_SOCKET)]))
}

fn ranges(action: Action) -> Vec<(u32, Action)> {
    vec![
        (0, Action::Allow),
        (SOCKETCALL, action),
        (SOCKETCALL + 1, Action::Allow),
    ]
}

/// The program that asks. Loaded beside the profile, of which each refusal wins.
pub(crate) fn program_that_asks() -> Vec<Instruction> {
    compile(asked())
}

/// The same where nobody can be asked.
pub(crate) fn program_that_refuses() -> Vec<Instruction> {
    compile(ranges(Action::RefuseIf(
        vec![Test::Equal(0, SYS_SOCKET)],
        Box::new(Action::Allow),
    )))
}

fn compile(narrow: Vec<(u32, Action)>) -> Vec<Instruction> {
    let native = vec![(0, Action::Allow)];
    let both = [(audit::NATIVE, native), (audit::I386, narrow)];
    bpf::compile(&both.map(|(audit, ranges)| Architecture { audit, ranges }))
}

/// Answers a step, in the supervisor, between what else that does.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// The `/proc` in which callers are found: another one may be mounted there when a call comes.
    proc: OwnedFd,
    hearing: Hearing,
}

#[derive(Debug)]
enum Hearing {
    /// The step is on its way.
    Soon(Ear),
    Now(Listener),
    Over,
}

impl Sockets {
    /// Before the step is forked.
    pub(crate) fn start() -> Result<(Self, Mouth), SetupError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open("/proc", flags, Mode::empty()).during("open", "/proc")?;
        let (ear, mouth) = heard::pair(Asks::Sockets)?;
        let hearing = Hearing::Soon(ear);
        Ok((Self { proc, hearing }, mouth))
    }

    /// What to wait for.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.hearing {
            Hearing::Soon(ear) => Some(ear.as_fd()),
            Hearing::Now(listener) => Some(listener.as_fd()),
            Hearing::Over => None,
        }
    }

    /// Does the one thing that `seen` says is to be done. Where that fails nobody is heard any more, and the kernel answers
    /// that there is no such call.
    pub(crate) fn attend(&mut self, seen: PollFlags) {
        match &self.hearing {
            Hearing::Soon(ear) => {
                let heard = ear.listener().ok().flatten();
                self.hearing = heard.map_or(Hearing::Over, |fd| Hearing::Now(Listener::new(fd)));
            }
            Hearing::Now(listener) if seen.contains(PollFlags::IN) => {
                let answered = listener.next().and_then(|call| match call {
                    Some(call) => listener.answer(&call, answer(listener, &call, self.proc.as_fd())),
                    None => Ok(()),
                });
                if answered.is_err() {
                    self.hearing = Hearing::Over;
                }
            }
            // No process is left that could call.
            Hearing::Now(_) => self.hearing = Hearing::Over,
            Hearing::Over => {}
        }
    }
}

/// The answer to a call that [`asked`] is about; `proc` is where its caller is found.
pub(crate) fn answer(listener: &Listener, call: &Call, proc: BorrowedFd<'_>) -> Answer {
    let wanted = Arguments::of(call);
    if matches!(wanted, Err(Errno::PERM)) && !may_look() {
        // In a container without that right: what its own profile lets pass is all that can be said.
        return Answer::Continue;
    }
    let made = wanted.and_then(|wanted| {
        let caller = Caller::of(listener, call, proc)?;
        if !crate::seccomp::gives_socket(wanted.0) {
            return Err(Errno::PERM);
        }
        caller.enter_network(proc)?;
        let file = caller.with_rights(|| wanted.make())??;
        Ok(Answer::Descriptor {
            file,
            close_on_exec: wanted.close_on_exec(),
        })
    });
    made.unwrap_or_else(Answer::Error)
}

/// Whether this process may look into every process of a step, such as one that has changed its user.
fn may_look() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|own| own.effective.contains(CapabilitySet::SYS_PTRACE))
}

/// Family, kind and protocol as they were when the call was heard.
#[derive(Clone, Copy)]
struct Arguments([u32; 3]);

impl Arguments {
    fn of(call: &Call) -> Result<Self, Errno> {
        let mut bytes = [0; 12];
        let address = call.args[1] & u64::from(u32::MAX);
        if notify::peek(call.thread, address, &mut bytes)? != bytes.len() {
            return Err(Errno::FAULT);
        }
        let (words, _) = bytes.as_chunks::<4>();
        let word = |at: usize| u32::from_ne_bytes(words[at]);
        Ok(Self([word(0), word(1), word(2)]))
    }

    const fn close_on_exec(self) -> bool {
        self.0[1] & SocketFlags::CLOEXEC.bits() != 0
    }

    fn make(self) -> Result<OwnedFd, Errno> {
        let [family, kind, protocol] = self.0;
        let family = u16::try_from(family).map_err(|_| Errno::AFNOSUPPORT)?;
        rustix::net::socket_with(
            AddressFamily::from_raw(family),
            SocketType::from_raw(kind),
            SocketFlags::CLOEXEC,
            std::num::NonZeroU32::new(protocol).map(Protocol::from_raw),
        )
    }
}

/// Who calls.
struct Caller {
    /// Its network; holds it.
    network: OwnedFd,
    user: u32,
    group: u32,
    capabilities: CapabilitySet,
}

impl Caller {
    fn of(listener: &Listener, call: &Call, proc: BorrowedFd<'_>) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let process = rustix::fs::openat(proc, call.thread.to_string(), flags, Mode::empty())?;
        let read = OFlags::RDONLY | OFlags::CLOEXEC;
        let network = rustix::fs::openat(&process, "ns/net", read, Mode::empty())?;
        let status = status::read(process.as_fd())?;
        // All of that, and the arguments, were the caller's only if it still waits.
        if !listener.is_waiting(call) {
            return Err(Errno::SRCH);
        }
        // The last of four is the one that counts for files.
        let id = |name| {
            let ids = status::field(&status, name)?;
            ids.split_whitespace().last()?.parse().ok()
        };
        let capabilities =
            status::field(&status, "CapEff:").and_then(|bits| u64::from_str_radix(bits, 16).ok());
        Ok(Self {
            network,
            user: id("Uid:").ok_or(Errno::INVAL)?,
            group: id("Gid:").ok_or(Errno::INVAL)?,
            capabilities: CapabilitySet::from_bits_retain(capabilities.ok_or(Errno::INVAL)?),
        })
    }

    /// Puts this thread into the caller's network, if it is another one.
    fn enter_network(&self, proc: BorrowedFd<'_>) -> Result<(), Errno> {
        let own = rustix::fs::statat(proc, "thread-self/ns/net", AtFlags::empty())?;
        let there = rustix::fs::fstat(&self.network)?;
        if (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino) {
            return Ok(());
        }
        rbuild_sys::namespace::enter_network(self.network.as_fd())
    }

    /// Does `work` with the ids that the caller has for files, and with those capabilities that both have.
    fn with_rights<T>(&self, work: impl FnOnce() -> T) -> Result<T, Errno> {
        let own = rustix::thread::capabilities(None)?;
        let lowered = CapabilitySets {
            effective: own.effective & self.capabilities,
            ..own
        };
        let (group, user) = (
            setfsgid(Gid::from_raw(self.group)),
            setfsuid(Uid::from_raw(self.user)),
        );
        // Both give what was before, also where they change nothing: asked for what they have, they tell it.
        let is_caller = setfsgid(Gid::from_raw(self.group)).as_raw() == self.group
            && setfsuid(Uid::from_raw(self.user)).as_raw() == self.user;
        let worked = rustix::thread::set_capabilities(None, lowered).map(|()| work());
        let raised = rustix::thread::set_capabilities(None, own);
        setfsuid(user);
        setfsgid(group);
        // A change of the user's id has taken some away and given them back; this is all of them.
        raised.and_then(|()| rustix::thread::set_capabilities(None, own))?;
        if is_caller { worked } else { Err(Errno::PERM) }
    }
}

#[cfg(test)]
mod tests;
