//! Processes: a child in new namespaces by `clone3(2)`, and the settings that keep a process and its secrets apart.
//!
//! Never forks a threaded process: the child may then run ordinary code.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Which namespaces a child gets of its own; it always gets a mount and a pid namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// A network namespace with nothing but a loopback interface that is down.
    pub network: bool,
}

/// Processors this process may use, by its affinity and the quota of its cgroup when it was first asked: reading that takes
/// four files.
#[must_use]
pub fn processors() -> usize {
    static COUNT: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Forked {
    /// The new process: pid 1 of its pid namespace.
    Child,
    /// The caller.
    Parent {
        /// The child as seen from here.
        pid: Pid,
        /// A descriptor that means this child only, however pids are reused.
        pidfd: OwnedFd,
    },
}

/// Why no child could be made.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// The calling process has other threads, whose locks the child would inherit held.
    #[error("a process with {0} threads cannot be forked")]
    Threads(usize),
    /// The thread count could not be read.
    #[error("read /proc/self/task")]
    Tasks(#[source] io::Error),
    /// The namespaces of another process could not be entered.
    #[error("enter namespaces")]
    Enter(#[source] io::Error),
    /// The kernel refused.
    #[error("clone3")]
    Clone(#[source] io::Error),
}

/// Forks into new mount, pid, ipc, uts and cgroup namespaces, into the cgroup that `cgroup` is the directory of
/// if there is one (Linux 5.7).
///
/// # Errors
/// The process has more than one thread, or the kernel's refusal (`EPERM` without `CAP_SYS_ADMIN`).
pub fn fork_into(namespaces: Namespaces, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked, ForkError> {
    single_threaded()?;
    let mut flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    if namespaces.network {
        flags |= libc::CLONE_NEWNET;
    }
    clone(flags, cgroup)
}

/// Enters the namespaces of the process `pidfd` means, its mount namespace's root included, and forks there. `namespaces`
/// are those it does not share with the caller; its pid namespace is the child's only, so that nothing in there sees
/// the caller.
///
/// # Errors
/// The process has more than one thread, or the kernel's refusal: `ESRCH` when that process is gone, `EPERM` without
/// `CAP_SYS_ADMIN`.
pub fn fork_beside(pidfd: BorrowedFd<'_>, namespaces: Namespaces) -> Result<Forked, ForkError> {
    use rustix::thread::ThreadNameSpaceType;
    // Before the namespaces are entered: `/proc` is another one there.
    single_threaded()?;
    let mut entered = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    if namespaces.network {
        entered |= ThreadNameSpaceType::NETWORK;
    }
    rustix::thread::move_into_thread_name_spaces(pidfd, entered).map_err(|e| ForkError::Enter(e.into()))?;
    clone(0, None)
}

/// `clone3(2)` of a process with one thread.
fn clone(flags: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked, ForkError> {
    let mut pidfd: RawFd = -1;
    let mut wide_flags = u64::from((flags | libc::CLONE_PIDFD).cast_unsigned());
    let mut cgroup_fd = 0;
    if let Some(cgroup) = cgroup {
        wide_flags |= CLONE_INTO_CGROUP;
        cgroup_fd = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    let args = CloneArgs {
        flags: wide_flags,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup_fd,
    };
    // SAFETY: without CLONE_VM the child has its own copy of this only thread's memory and returns on the same
    // stack; `args` and `pidfd` outlive the call.
    // WHY: no safe wrapper makes pid 1 of a pid namespace in one step with its pidfd.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match pid {
        -1 => Err(ForkError::Clone(io::Error::last_os_error())),
        0 => Ok(Forked::Child),
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let pid = pid.ok_or_else(|| ForkError::Clone(io::ErrorKind::InvalidData.into()))?;
            // SAFETY: CLONE_PIDFD stored a new descriptor there, which nothing else owns.
            // WHY: clone3 gives it as a number.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Forked::Parent { pid, pidfd })
        }
    }
}

/// Forks in the same namespaces. `None` is the child.
///
/// # Errors
/// The process has more than one thread, or the kernel's refusal.
pub fn fork() -> Result<Option<Pid>, ForkError> {
    single_threaded()?;
    // SAFETY: this is the only thread, so no lock is held that the child could wait for.
    // WHY: the id maps of a user namespace are written by a process outside of it, forked before.
    let forked = unsafe { nix::unistd::fork() };
    match forked.map_err(|e| ForkError::Clone(e.into()))? {
        nix::unistd::ForkResult::Child => Ok(None),
        nix::unistd::ForkResult::Parent { child } => Ok(Pid::from_raw(child.as_raw())),
    }
}

/// Forks in the same namespaces, for where none can be made and `clone3(2)` is not allowed.
///
/// # Errors
/// As [`fork`]; those of `pidfd_open(2)` (Linux 5.3).
pub fn fork_here() -> Result<Forked, ForkError> {
    let Some(pid) = fork()? else {
        return Ok(Forked::Child);
    };
    // The child is not waited for yet, so this means it and no other.
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
    match pidfd {
        Ok(pidfd) => Ok(Forked::Parent { pid, pidfd }),
        Err(error) => {
            // Nobody could stop it.
            rustix::process::kill_process(pid, Signal::KILL).ok();
            Err(ForkError::Clone(error.into()))
        }
    }
}

/// Makes this process the parent of what its descendants leave behind when they end.
///
/// # Errors
/// None in practice; the kernel's.
pub fn adopt_orphans() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(Into::into)
}

/// Kills and buries all children, and what they leave behind, until there are none: for a process that
/// [`adopt_orphans`]. `false` if there are still some after `patience`.
///
/// # Errors
/// `/proc` cannot be read.
pub fn end_descendants(patience: std::time::Duration) -> io::Result<bool> {
    use rustix::process::WaitOptions;
    let until = std::time::Instant::now() + patience;
    loop {
        for pid in children()? {
            // Who is gone already is buried below.
            rustix::process::kill_process(pid, Signal::KILL).ok();
        }
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => break,
                Err(_) => return Ok(true),
            }
        }
        if std::time::Instant::now() > until {
            return Ok(false);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// The children of this process, by its number in what `/proc` says of all.
fn children() -> io::Result<Vec<Pid>> {
    let own = rustix::process::getpid().as_raw_nonzero().get().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name
            .to_str()
            .and_then(|name| name.parse().ok())
            .and_then(Pid::from_raw)
        else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) else {
            continue;
        };
        // `pid (name) state ppid …`, and the name may hold anything.
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1));
        if parent == Some(&own) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn single_threaded() -> Result<(), ForkError> {
    let threads = std::fs::read_dir("/proc/self/task")
        .map_err(ForkError::Tasks)?
        .count();
    if threads == 1 {
        Ok(())
    } else {
        Err(ForkError::Threads(threads))
    }
}

/// `CLONE_INTO_CGROUP` of linux/sched.h; wider than libc's flag type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of linux/sched.h, 88 bytes (`CLONE_ARGS_SIZE_VER2`).
#[repr(C)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Takes this process out of reach of others of the same user: no tracing, no `/proc/PID/{mem,fd,environ}`, no
/// core dumps. Undone by `execve`, and partly by changes of user.
///
/// # Errors
/// None in practice; the kernel's.
pub fn hide() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let none = Rlimit {
        current: Some(0),
        maximum: rustix::process::getrlimit(Resource::Core).maximum,
    };
    rustix::process::setrlimit(Resource::Core, none)?;
    Ok(())
}

/// Asks to be killed when the parent ends. The kernel watches the parent's THREAD, and forgets this at `setuid`
/// and at `execve` of a set-user-id file.
///
/// # Errors
/// None in practice; the kernel's.
pub fn die_with_parent() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(Into::into)
}

/// Marks every descriptor from `first` on to be closed at `execve` (`close_range(2)`, Linux 5.11 for this flag).
///
/// # Errors
/// None in practice; the kernel's.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC no descriptor is closed now, so no owner loses one.
    // WHY: rustix has no close_range.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Gives the process a new, empty session keyring (`KEYCTL_JOIN_SESSION_KEYRING`), so that keys of the caller's
/// session cannot be found.
///
/// # Errors
/// `ENOSYS` on kernels without keys, `EDQUOT` at the user's key quota.
pub fn join_new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // As wide as the pointer that the kernel takes it for.
    const NO_NAME: libc::c_long = 0;
    // SAFETY: a null name asks for an anonymous keyring; no memory is read or written.
    // WHY: rustix has no keyctl.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NO_NAME) };
    if done >= 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes every descriptor from 3 on but these. For a forked process that ends without returning to who holds the others.
///
/// # Errors
/// The kernel's, which has none for this (Linux 5.9).
pub fn close_all_but(kept: &[RawFd]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.into_iter().filter(|fd| *fd >= 3) {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the arguments are numbers. Owners of these descriptors are the caller's concern, who never runs their drops.
    // WHY: no safe wrapper closes what it does not own.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Becomes user `uid` and group `gid` with exactly the supplementary `groups`. Affects the calling thread only.
///
/// # Errors
/// `EPERM` without the capabilities, `EINVAL` for an id that is not mapped in this user namespace.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    if uid == u32::MAX || gid == u32::MAX || groups.contains(&u32::MAX) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let groups: Vec<_> = groups
        .iter()
        .map(|g| rustix::process::Gid::from_raw(*g))
        .collect();
    set_thread_groups(&groups)?;
    let gid = rustix::process::Gid::from_raw(gid);
    set_thread_res_gid(gid, gid, gid)?;
    let uid = rustix::process::Uid::from_raw(uid);
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Drops every capability that is not in `kept` from the bounding set. Capabilities the kernel does not know are
/// left out.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`.
pub fn limit_bounding_set(kept: CapabilitySet) -> io::Result<()> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Sets the permitted and effective sets to what of `wanted` is permitted now, and empties the inheritable and
/// ambient sets.
///
/// # Errors
/// None in practice; the kernel's.
pub fn set_capabilities(wanted: CapabilitySet) -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let now = rustix::thread::capabilities(None)?;
    let kept = now.permitted & wanted;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(Into::into)
}

/// Gives every signal its default action and blocks none. Rust's runtime ignores `SIGPIPE`, and ignored signals
/// stay ignored across `execve`.
///
/// # Errors
/// None in practice; the kernel's.
pub fn reset_signals() -> io::Result<()> {
    use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
    for number in Signal::iterator().filter(|s| !matches!(s, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default action is no handler, so no code of ours runs in signal context.
        // WHY: nix marks every change of a signal's action unsafe for the sake of handlers.
        unsafe { signal(number, SigHandler::SigDfl) }?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// What processes used that this one waited for, with those that they waited for (getrusage(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildrenUsage {
    /// Processor time, microseconds.
    pub cpu_us: u64,
    /// Most memory of the largest of them, bytes.
    pub largest_bytes: u64,
}

/// What this process's children used.
#[must_use]
pub fn children_usage() -> ChildrenUsage {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike as _;
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else {
        return ChildrenUsage::default();
    };
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    ChildrenUsage {
        cpu_us: u64::try_from(us).unwrap_or_default(),
        largest_bytes: u64::try_from(usage.max_rss()).unwrap_or_default() << 10,
    }
}

/// Brings the loopback interface of this network namespace up.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` over the namespace.
pub fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all fields are plain data for which zero is valid.
    // WHY: `ifreq` holds a union.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    let up = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = up as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    // WHY: rustix has no interface ioctls.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threaded_process_is_never_forked() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            let _closed = wait.recv();
        });
        let refused = fork_into(Namespaces::default(), None);
        assert!(
            matches!(refused, Err(ForkError::Threads(n)) if n > 1),
            "{refused:?}"
        );
        drop(stop);
        other.join().unwrap();
    }

    #[test]
    fn the_invalid_id_is_refused() {
        for (uid, gid, groups) in [
            (u32::MAX, 0, vec![]),
            (0, u32::MAX, vec![]),
            (0, 0, vec![u32::MAX]),
        ] {
            let refused = become_user(uid, gid, &groups).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
