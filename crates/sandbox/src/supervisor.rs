//! The process between the caller and the step: prepares what needs the caller's mount namespace, starts the step,
//! and kills its pid namespace when told to, or when the caller is gone.
//!
//! It stays outside the step's pid namespace, so nothing in there can see, trace or outlive it.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rbuild_sys::RootFd;
use rbuild_sys::process::{self, ForkError, Forked, Namespaces};
use rbuild_sys::seccomp::Instruction;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendFlags};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::beside::Beside;
use crate::cgroup::Cgroups;
use crate::enter::Passage;
use crate::heard::Mouth;
use crate::mounts::{self, Tree};
use crate::plan::{Confinement, MountKind, Network, Plan, Security, Source};
use crate::running::Usage;
use crate::seccomp;
use crate::spawn::{FDS_MAX, PLAN_MAX_BYTES};
use crate::step::{Prepared, become_step, ordered};
use crate::stubs::{StubKind, Stubs};
use crate::wire::{self, During as _, Errand, Explained as _, Joining, Report, SetupError, Task, Word};
use crate::written::Written;
use crate::{chroot, injected, zygote};

/// `argv[0]` that asks for the hidden mode. Not reachable by a command line: the one argument must be this and
/// standard input a socket.
pub(crate) const INIT_NAME: &str = "rbuild-sandbox-init";

/// Runs the hidden mode and ends the process, if this process was started for that. Call this first in `main`,
/// before any thread: it does nothing in every other process.
pub fn init_if_requested() {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    if name.as_bytes() == crate::host::HOST_NAME.as_bytes() {
        let code = crate::host::run(args);
        #[expect(clippy::exit, reason = "the hidden mode is a program of its own")]
        std::process::exit(code.into());
    }
    let asked = name.as_bytes() == INIT_NAME.as_bytes() && args.next().is_none();
    let socket = || {
        rustix::net::sockopt::socket_type(rustix::stdio::stdin()) == Ok(rustix::net::SocketType::SEQPACKET)
    };
    if asked && socket() {
        let code = i32::from(!begin());
        #[expect(clippy::exit, reason = "the hidden mode is a program of its own")]
        std::process::exit(code);
    }
}

/// The zygote, and in its forks the supervisors.
fn begin() -> bool {
    let prepared = || -> std::io::Result<OwnedFd> {
        let requests = take_requests()?;
        rustix::thread::set_name(c"rbuild-sandbox")?;
        process::hide()?;
        rustix::process::chdir("/")?;
        rustix::process::setsid()?;
        Ok(requests)
    };
    // Without words: the caller finds the other end of its socket closed.
    prepared().is_ok_and(zygote::serve)
}

/// Moves the socket from standard input to a descriptor of its own that no program inherits.
fn take_requests() -> Result<OwnedFd, Errno> {
    let requests = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = match rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty()) {
        // A place without devices: a pipe that is at its end.
        Err(Errno::NOENT) => rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?.0,
        opened => opened?,
    };
    rustix::stdio::dup2_stdin(&null)?;
    Ok(requests)
}

/// Looks after one step, told what through `control`; whether that could be reported.
pub(crate) fn supervise(control: OwnedFd, stdout: OwnedFd, stderr: OwnedFd) -> bool {
    let outcome = rustix::stdio::dup2_stdout(stdout)
        .and_then(|()| rustix::stdio::dup2_stderr(stderr))
        .during("take output", "")
        .and_then(|()| rustix::process::setsid().during("leave session", ""))
        .and_then(|_| receive(control.as_fd()))
        .and_then(|(task, order)| match &task {
            Task::Run(plan) if plan.confinement == Confinement::Chroot => {
                run_in_chroot(plan, &order, &control)
            }
            Task::Run(plan) => run(plan, order, &control),
            Task::Join(joining) => join(joining, &order, &control),
        });
    match outcome {
        Ok(report) => send(control.as_fd(), &report),
        Err(error) => send(control.as_fd(), &error.into_report()),
    }
}

/// What the caller sent with a task.
struct Order {
    filter: Vec<Instruction>,
    fds: Vec<OwnedFd>,
}

impl Order {
    fn passage<'a>(
        &'a self,
        security: Security,
        network: Network,
        control: &'a OwnedFd,
        mouth: Option<&'a Mouth>,
    ) -> Passage<'a> {
        Passage {
            security,
            network,
            confinement: Confinement::Namespaces,
            filter: &self.filter,
            fds: &self.fds,
            control: control.as_fd(),
            mouth,
            terminal: None,
        }
    }
}

fn receive(control: BorrowedFd<'_>) -> Result<(Task, Order), SetupError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8; 1];
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::net::recvmsg(control, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags)
        .during("receive plan", "")?;
    let mut fds = wire::fds_of(&mut ancillary);
    if fds.len() < 2 {
        return Err(SetupError::refused(
            "receive plan",
            Path::new(""),
            ": the caller went away",
        ));
    }
    let errand: Errand = serde_json::from_slice(&read(&fds[0])?).explained("read plan", "")?;
    if errand.owners_recorded {
        rbuild_sys::owner::record_owners();
    }
    let task = errand.task;
    let filter = seccomp::decode(&read(&fds[1])?);
    fds.drain(..2);
    Ok((task, Order { filter, fds }))
}

/// Reads a memory file without its offset, which other supervisors share.
fn read(memory: &OwnedFd) -> Result<Vec<u8>, SetupError> {
    let size = rustix::fs::fstat(memory).during("read plan", "")?.st_size;
    let size = usize::try_from(size).unwrap_or(usize::MAX).min(PLAN_MAX_BYTES);
    let mut bytes = vec![0; size];
    let mut at = 0;
    while at < size {
        match rustix::io::pread(memory, &mut bytes[at..], at as u64) {
            Ok(0) => break,
            Ok(len) => at += len,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).during("read plan", ""),
        }
    }
    bytes.truncate(at);
    Ok(bytes)
}

/// Makes a sandbox and runs its first process.
fn run(plan: &Plan, mut order: Order, control: &OwnedFd) -> Result<Report, SetupError> {
    rustix::process::umask(rustix::fs::Mode::empty());
    let root = match plan.root.source {
        // No descriptor of it stays here: its end is the step's.
        Source::Given if !order.fds.is_empty() => order.fds.remove(0),
        _ => mounts::open_source(&plan.root.source, Path::new("/"), &order.fds)?.fd,
    };
    let fds = &order.fds;
    let mut trees = Vec::new();
    for (_, mount) in ordered(plan) {
        trees.push(match &mount.kind {
            MountKind::Bind { source, selector, .. } => Some(mounts::open_source(source, selector, fds)?),
            MountKind::Device(node) => injected::open_node(node)?,
            MountKind::HostTree(tree) => Some(injected::open_tree(tree)?),
            MountKind::Tmpfs { .. } | MountKind::File { .. } => None,
        });
    }
    if let Network::Given(index) = plan.network {
        let namespace = fds.get(index).ok_or(Errno::BADF).during("enter network", "")?;
        rbuild_sys::namespace::enter_network(namespace.as_fd()).during("enter network", "")?;
    }
    let written = Written::of(plan, &root, &trees);
    let mut cgroups = Cgroups::create(plan.cgroup_parent.as_deref(), &plan.limits)?;
    for text in std::mem::take(&mut cgroups.warnings) {
        send(control.as_fd(), &Report::Warning(text));
    }
    let kept = RootFd::from_fd(root.try_clone().during("open", "/")?);
    let mut stubs = Stubs::default();
    let outcome = make_stubs(&mut stubs, &kept, plan, &trees).and_then(|made| {
        let namespaces = Namespaces {
            network: plan.network == Network::None,
        };
        let fork = || match (
            process::fork_into(namespaces, cgroups.unified()),
            cgroups.unified(),
        ) {
            (Err(refused @ ForkError::Clone(_)), Some(_)) => {
                let text = cgroups.not_entered(&refused)?;
                send(control.as_fd(), &Report::Warning(text));
                process::fork_into(namespaces, None).explained("start step", "")
            }
            (done, _) => done.explained("start step", ""),
        };
        let become_program = |mouth: Option<&Mouth>| {
            let prepared = Prepared {
                plan,
                root,
                trees,
                made,
                cgroups: &cgroups,
            };
            become_step(
                prepared,
                order.passage(plan.security, plan.network, control, mouth),
            )
        };
        let beside = Beside::start(&plan.process.ids, plan.security)?;
        let status = bring_up(control, beside, fork, become_program)?;
        Ok(report(status, &cgroups))
    });
    stubs.remove();
    drop(kept);
    if outcome.is_ok() && written.may_be_in_use() {
        send(control.as_fd(), &Report::InUse);
    }
    outcome
}

/// Runs a process in a directory that is its root.
fn run_in_chroot(plan: &Plan, order: &Order, control: &OwnedFd) -> Result<Report, SetupError> {
    rustix::process::umask(rustix::fs::Mode::empty());
    let mut cgroups = Cgroups::create(plan.cgroup_parent.as_deref(), &plan.limits)?;
    for text in std::mem::take(&mut cgroups.warnings) {
        send(control.as_fd(), &Report::Warning(text));
    }
    let prepared = chroot::Prepared::new(plan)?;
    let beside = Beside::start(&plan.process.ids, plan.security);
    let status = beside.and_then(|beside| {
        bring_up(
            control,
            beside,
            || process::fork_here().explained("start step", ""),
            |mouth| {
                let passage = Passage {
                    confinement: Confinement::Chroot,
                    ..order.passage(plan.security, plan.network, control, mouth)
                };
                chroot::become_step(prepared.root(), plan, &cgroups, passage)
            },
        )
    });
    let finished = prepared.finish();
    let report = report(status?, &cgroups);
    finished.map(|()| report)
}

/// Runs one more process in a sandbox.
fn join(joining: &Joining, order: &Order, control: &OwnedFd) -> Result<Report, SetupError> {
    let (home, fds) = order
        .fds
        .split_first()
        .ok_or(Errno::BADF)
        .during("join", "sandbox")?;
    let namespaces = Namespaces {
        network: joining.network != Network::Host,
    };
    let status = bring_up(
        control,
        Beside::start(&joining.process.ids, joining.security)?,
        || process::fork_beside(home.as_fd(), namespaces).explained("start step", ""),
        |mouth| {
            let passage = Passage {
                fds,
                ..order.passage(joining.security, joining.network, control, mouth)
            };
            passage.enter(&joining.process)
        },
    )?;
    Ok(report(status, &Cgroups::default()))
}

/// Forks, and stays with the child until it ends.
fn bring_up(
    control: &OwnedFd,
    (beside, mouth): (Beside, Option<Mouth>),
    fork: impl FnOnce() -> Result<Forked, SetupError>,
    become_program: impl FnOnce(Option<&Mouth>) -> SetupError,
) -> Result<WaitStatus, SetupError> {
    let (watch, watched) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).during("watch", "")?;
    match fork()? {
        Forked::Child => {
            drop(watched);
            child(|| become_program(mouth.as_ref()), &watch, control)
        }
        Forked::Parent { pid, pidfd } => {
            // What the child has of these is its own copy; here they would keep file systems busy.
            drop((become_program, watch, mouth));
            wire::send_with(control.as_fd(), &Report::Forked, pidfd.as_fd()).during("tell", "caller")?;
            let status = attend(pid, &pidfd, control, beside)?;
            drop(watched);
            Ok(status)
        }
    }
}

/// Makes the mountpoints that belong to the root itself; those inside other mounts are made once these exist. Of each mount
/// whether its place was made.
fn make_stubs(
    stubs: &mut Stubs,
    root: &RootFd,
    plan: &Plan,
    trees: &[Option<Tree>],
) -> Result<Vec<bool>, SetupError> {
    // These three stay in the layer if the image has none: BuildKit leaves them too (runc makes them, and
    // executor/stubs.go knows only of the mounts beyond them).
    let mut kept = Stubs::default();
    for path in ["/proc", "/sys", "/dev"] {
        kept.ensure(root, Path::new(path), StubKind::Directory)?;
    }
    for (path, content) in [
        ("/etc/resolv.conf", &plan.resolv_conf),
        ("/etc/hosts", &plan.hosts),
    ] {
        if content.is_some() {
            stubs.ensure(root, Path::new(path), StubKind::File)?;
        }
    }
    let mut covered = vec![Path::new("/proc").to_owned(), "/sys".into(), "/dev".into()];
    let mut made = Vec::new();
    for ((_, mount), tree) in ordered(plan).into_iter().zip(trees) {
        let dest = rbuild_sys::clean(&mount.dest);
        let of_the_root = !covered.iter().any(|parent| dest.starts_with(parent));
        made.push(if of_the_root {
            let kind = match (&mount.kind, tree) {
                (MountKind::Bind { .. } | MountKind::HostTree(_), Some(tree)) => mounts::kind_of(tree)?,
                (MountKind::File { .. } | MountKind::Device(_), _) => StubKind::File,
                _ => StubKind::Directory,
            };
            stubs.ensure(root, &dest, kind)?
        } else {
            false
        });
        covered.push(dest);
    }
    Ok(made)
}

/// The new process, until it is the step. Ends the process if it cannot become it.
fn child(become_program: impl FnOnce() -> SetupError, watch: &OwnedFd, control: &OwnedFd) -> ! {
    let failed = match process::die_with_parent().during("tie to parent", "") {
        Ok(()) if gone(watch) => SetupError::refused("start step", Path::new(""), ": the supervisor is gone"),
        Ok(()) => become_program(),
        Err(error) => error,
    };
    send(control.as_fd(), &failed.into_report());
    #[expect(
        clippy::exit,
        reason = "a child that is not the step must not return into the supervisor"
    )]
    std::process::exit(1)
}

/// The other end of the pipe closed before the kernel was asked to tie this process to the supervisor.
fn gone(watch: &OwnedFd) -> bool {
    let now = rustix::time::Timespec::default();
    rustix::event::poll(&mut [PollFd::new(watch, PollFlags::empty())], Some(&now)) != Ok(0)
}

/// Waits for the step; answers its calls, does what the caller says, and kills it at the end of the caller.
/// With an answerer, its end is that of the step.
fn attend(
    pid: Pid,
    pidfd: &OwnedFd,
    control: &OwnedFd,
    mut beside: Beside,
) -> Result<WaitStatus, SetupError> {
    // The pipes must close when the step's own processes have closed them. Standard input is the null device.
    let null = rustix::stdio::stdin();
    rustix::stdio::dup2_stdout(null).during("close output", "")?;
    rustix::stdio::dup2_stderr(null).during("close output", "")?;
    let mut ended = false;
    loop {
        let mut polled = vec![
            PollFd::new(pidfd, PollFlags::IN),
            PollFd::new(control, PollFlags::IN),
        ];
        if let Some(fd) = beside.as_fd() {
            polled.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        match rustix::event::poll(&mut polled, None) {
            Err(Errno::INTR) => continue,
            done => done.during("wait for step", "")?,
        };
        if !polled[0].revents().is_empty() {
            break;
        }
        let seen = polled
            .get(2)
            .map_or(PollFlags::empty(), |beside| beside.revents());
        let heard = !polled[1].revents().is_empty();
        if !seen.is_empty() && beside.attend(seen) {
            // Calls would fail from now on, and the step would go on with that.
            rustix::process::pidfd_send_signal(pidfd, Signal::KILL).during("kill step", "")?;
            ended = true;
            break;
        }
        if !heard {
            continue;
        }
        match hear(control) {
            Word::Kill => {
                // Killing pid 1 kills all of its namespace, and it can be waited for only when they are gone.
                rustix::process::pidfd_send_signal(pidfd, Signal::KILL).during("kill step", "")?;
                break;
            }
            Word::Signal(number) => {
                // A number that is no signal has no effect, nor has one that comes too late.
                if let Some(signal) = Signal::from_named_raw(number) {
                    rustix::process::pidfd_send_signal(pidfd, signal).ok();
                }
            }
        }
    }
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                let killed = status.terminating_signal() == Some(Signal::KILL.as_raw());
                let failure = beside.failure(ended, killed);
                return failure.map_or(Ok(status), Err);
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).during("wait for step", ""),
        }
    }
}

fn hear(control: &OwnedFd) -> Word {
    let mut message = [0_u8; 8];
    match rustix::net::recv(control, &mut message[..], RecvFlags::empty()) {
        Ok((len, _)) => Word::decode(&message[..len]),
        Err(_) => Word::Kill,
    }
}

fn report(status: WaitStatus, cgroups: &Cgroups) -> Report {
    let waited = process::children_usage();
    let usage = cgroups.usage(Usage {
        largest_process_bytes: waited.largest_bytes,
        cpu_us: waited.cpu_us,
        ..Usage::default()
    });
    match status.terminating_signal() {
        Some(signal) => Report::Signaled { signal, usage },
        None => Report::Exited {
            code: status.exit_status().unwrap_or_default(),
            usage,
        },
    }
}

/// Tells the caller; whether it could be told.
pub(crate) fn send(control: BorrowedFd<'_>, report: &Report) -> bool {
    serde_json::to_vec(report)
        .is_ok_and(|bytes| rustix::net::send(control, &bytes, SendFlags::NOSIGNAL).is_ok())
}
