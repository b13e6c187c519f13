//! The threads that answer a step's calls.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex};

use rbuild_sys::seccomp::notify::{Answer, Call, Listener};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::caller::{Caller, Desk};
use super::calls::Kind;
use super::credentials::{Credentials, Table};
use super::{create, files, filter, identity};
use crate::seccomp::bpf::audit;
use crate::sockets;
use crate::wire::{During as _, SetupError};

/// Two processes that look at files at once wait for each other behind a single thread.
const THREADS: usize = 3;
/// What answering takes: to look into the step's processes and to do for them what they may do.
const NEEDED: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::SYS_PTRACE);

/// Answers what is heard by `listener`, until no process of the step is left. `first` is what the step starts with.
pub(super) fn serve(listener: OwnedFd, first: Credentials) -> Result<(), SetupError> {
    let listener = Arc::new(Listener::new(listener));
    let table = Arc::new(Mutex::new(Table::new(first)));
    let known = Arc::new(filter::numbered());
    // One that fails ends the process, and with that the step: a step whose calls fail would go on with that.
    let (tell, told) = std::sync::mpsc::channel();
    for _ in 0..THREADS {
        let (listener, table) = (Arc::clone(&listener), Arc::clone(&table));
        let (known, tell) = (Arc::clone(&known), tell.clone());
        let run = move || {
            // The receiver is there for as long as this process is.
            tell.send(attend(listener, table, &known)).ok();
        };
        std::thread::Builder::new().spawn(run).during("answer", "step")?;
    }
    drop(tell);
    for ended in told {
        if let Err((what, errno)) = ended {
            return Err(errno).during(what, "");
        }
    }
    Ok(())
}

fn attend(
    listener: Arc<Listener>,
    table: Arc<Mutex<Table>>,
    known: &HashMap<i32, Kind>,
) -> Result<(), (&'static str, Errno)> {
    let mut desk = settle(listener, table).map_err(|error| ("make ready to answer the step", error))?;
    let listener = Arc::clone(&desk.listener);
    loop {
        let call = match listener.next() {
            Ok(Some(call)) => call,
            Ok(None) if listener.is_over() => return Ok(()),
            Ok(None) => continue,
            Err(error) => return Err(("hear the step", error)),
        };
        let answer = match known.get(&call.number) {
            _ if call.architecture == audit::I386 => sockets::answer(&listener, &call, desk.proc.as_fd()),
            Some(kind) => answer(&mut desk, &call, *kind),
            None => Answer::Continue,
        };
        listener
            .answer(&call, answer)
            .map_err(|error| ("answer the step", error))?;
    }
}

fn settle(listener: Arc<Listener>, table: Arc<Mutex<Table>>) -> Result<Desk, Errno> {
    rbuild_sys::namespace::unshare_root_of_this_thread()?;
    let desk = Desk::open(listener, table)?;
    let sets = CapabilitySets {
        effective: NEEDED,
        permitted: NEEDED,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets)?;
    Ok(desk)
}

fn answer(desk: &mut Desk, call: &Call, kind: Kind) -> Answer {
    let mut caller = Caller::new(desk, call);
    let caller = &mut caller;
    let answered = match kind {
        // Nobody else can answer these.
        Kind::Identity(which) => {
            return identity::answer(caller, which).unwrap_or_else(Answer::Error);
        }
        Kind::Chown { place, ids } => files::chown(caller, place, ids),
        Kind::Stat { place, buffer } => files::stat(caller, place, buffer),
        Kind::Statx => files::statx(caller),
        Kind::MakeDirectory { name, mode } => create::directory(caller, name, mode),
        Kind::MakeLink { name } => create::link(caller, name),
        Kind::MakeNode { name, mode } => create::node(caller, name, mode),
        Kind::Open { name, flags, mode } => create::file(caller, name, flags, mode),
        Kind::OpenHow => create::how(caller),
        Kind::Execute { place } => files::execute(caller, place),
        Kind::SetAttribute => files::change_attribute(caller, Errno::OPNOTSUPP),
        Kind::RemoveAttribute => files::change_attribute(caller, Errno::NODATA),
        Kind::ListAttributes { place } => files::list_attributes(caller, place),
    };
    answered.unwrap_or(Answer::Continue)
}
