//! The ladder's rungs: namespaces as root, a user namespace with the caller's subordinate ids, or one with its own id; and
//! none of that, for those who ask for it or where the kernel makes up for most of it; and files alone.
//!
//! Called once, early, while the process has one thread. Afterwards the process is uid 0 with all capabilities in a
//! mount namespace of its own, on every rung but the last two, and the rest of the program is the same for all; where there is
//! one id, [`crate::owner`] keeps the others. On the last rungs nothing changes: it is only asked what there is.

mod chroot;
mod ids;
mod ladder;
mod one_id;
mod root;

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;
use rustix::process::{DumpableBehavior, Pid, WaitOptions};
use rustix::thread::UnshareFlags;

use crate::namespace::unshare;
use crate::process::ForkError;

pub use ids::{IdFile, IdRange};
pub use ladder::{Choice, Declined, Entered, LadderError, Rung};
pub use root::has_all_ids;

/// Why a rung cannot be reached. Each text ends with the least change that helps.
#[derive(Debug, thiserror::Error)]
pub enum UsernsError {
    /// The process has more than one thread.
    #[error("namespaces must be entered before a process has {0} threads")]
    Threads(usize),
    /// Nothing of processes is shown.
    #[error(
        "there is no /proc here: mount one (`mount -t proc proc /proc`), which a step without namespaces cannot"
    )]
    NoProc,
    /// The caller has no subordinate ids, or too few to be of use.
    #[error(
        "{file} gives user {user} no range of ids: have root run `usermod --add-sub{kind}s 100000-165535 {user}`"
    )]
    NoRange {
        /// The file that was read.
        file: &'static str,
        /// The caller's name, or number if it has none.
        user: String,
        /// `uid` or `gid`.
        kind: &'static str,
    },
    /// A helper program is not installed.
    #[error(
        "{program} is not installed: install the package uidmap (Debian, Ubuntu) or shadow-utils (Fedora, Arch: shadow)"
    )]
    NoHelper {
        /// Its name.
        program: &'static str,
    },
    /// A helper program is installed without the right to write maps.
    #[error(
        "{path:?} is neither set-user-id root nor has it cap_setuid/cap_setgid: have root run `chmod u+s {path:?}`"
    )]
    HelperPowerless {
        /// The helper.
        path: PathBuf,
    },
    /// A helper program failed.
    #[error("{path:?} failed: {text}")]
    Helper {
        /// The helper.
        path: PathBuf,
        /// What it wrote.
        text: String,
    },
    /// A sysctl forbids user namespaces to this caller.
    #[error(
        "user namespaces are switched off by {sysctl} = {found}: have root run `sysctl -w {sysctl}={needed}`"
    )]
    Sysctl {
        /// Its name.
        sysctl: &'static str,
        /// Its value.
        found: String,
        /// The value that helps.
        needed: &'static str,
    },
    /// AppArmor forbids user namespaces to programs without a profile (Ubuntu 23.10 and newer).
    #[error(
        "AppArmor lets only named programs make user namespaces: give this program a profile with `userns,`, or have root run `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
    )]
    AppArmor,
    /// Owners cannot be shown to steps.
    #[error("show steps the owners of files")]
    Listener(#[source] crate::seccomp::SeccompError),
    /// The rung is root's, and the caller is not.
    #[error("the caller is not root")]
    NotRoot,
    /// The rung is root's, and the caller is root of a namespace in which there are no others.
    #[error(
        "root of this user namespace can become nobody else: it has one id, or setgroups(2) is denied in it"
    )]
    OneId,
    /// Whoever asks for namespaces dies of it.
    #[error("a seccomp profile kills processes that make namespaces")]
    Killed,
    /// Namespaces can be made, and are of no use.
    #[error(
        "a seccomp profile refuses {0}(2), which steps in namespaces need: start the container with --security-opt seccomp=unconfined"
    )]
    Refused(&'static str),
    /// Root without rights that the last rung needs.
    #[error(
        "the capabilities {} are missing: run as root of a container with docker's default ones",
        .missing.join(", ")
    )]
    Capabilities {
        /// Their names.
        missing: Vec<&'static str>,
    },
    /// A rung tried before could be entered half of the way, from where there is no way back.
    #[error("the process is in a user namespace of no use by now: ask for it, with --rung=files")]
    HalfWay,
    /// The kernel refused for a reason not known here.
    #[error("{step}")]
    Kernel {
        /// What was tried.
        step: &'static str,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// An input file could not be read.
    #[error("read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Enters the highest rung of `wanted` that this caller can stand on. Mounts made from here on are seen by this process
/// and its children only, and end with them.
///
/// # Errors
/// The caller stands on no rung, with the reason for each and the least change that would help. The process may then be
/// in a user namespace of no use: end it.
pub fn enter(wanted: Choice) -> Result<Entered, LadderError> {
    let mut declined = Vec::new();
    let outer = (
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    let mut half_way = false;
    for rung in Rung::ALL.into_iter().filter(|rung| wanted.tries(*rung)) {
        let entered = one_thread().and_then(|()| match rung {
            Rung::RootNamespaces => root::enter(),
            Rung::SubordinateIds => enter_subordinate(&mut half_way),
            Rung::OneId => one_id::enter(outer, half_way),
            Rung::Chroot => chroot::check(),
            Rung::Files => enter_files(outer.0),
        });
        let entered = entered.and_then(|()| if rung.has_mounts() { make_private() } else { Ok(()) });
        match entered {
            Ok(()) => return Ok(Entered { rung, declined }),
            Err(error) => declined.push(Declined { rung, error }),
        }
    }
    Err(LadderError {
        declined,
        can_chroot: !matches!(wanted, Choice::Only(_)) && one_thread().is_ok() && chroot::check().is_ok(),
    })
}

fn one_thread() -> Result<(), UsernsError> {
    let threads = std::fs::read_dir("/proc/self/task").map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => UsernsError::NoProc,
        _ => UsernsError::Read {
            path: "/proc/self/task".into(),
            source,
        },
    })?;
    match threads.count() {
        1 => Ok(()),
        threads => Err(UsernsError::Threads(threads)),
    }
}

/// Whoever the process is, it stays.
fn enter_files(outer: u32) -> Result<(), UsernsError> {
    if rustix::process::getuid().as_raw() != outer {
        return Err(UsernsError::HalfWay);
    }
    crate::owner::record_all();
    crate::process::hide().map_err(|source| UsernsError::Kernel { step: "hide", source })
}

/// What `run` gives, in a process that ends with it.
fn probe(run: impl FnOnce() -> i32) -> Result<Option<i32>, UsernsError> {
    let forked = crate::process::fork().map_err(|source| UsernsError::Kernel {
        step: "fork",
        source: io::Error::other(source),
    })?;
    let Some(child) = forked else {
        #[expect(clippy::exit, reason = "the probe is a process of its own")]
        std::process::exit(run())
    };
    loop {
        match rustix::process::waitpid(Some(child), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(status.exit_status()),
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => return Err(kernel("wait for a probe", error)),
        }
    }
}

/// Where this process is under a seccomp profile: whether it would outlive asking for these namespaces, and could mount there.
/// Docker's profile gives a container with `CAP_SYS_ADMIN` all of that but `pivot_root`, older ones no call that is newer.
fn ask_first(namespaces: UnshareFlags) -> Result<(), UsernsError> {
    use rustix::thread::SecureComputingMode;
    if rustix::thread::secure_computing_mode() != Ok(SecureComputingMode::Filter) {
        return Ok(());
    }
    let ended = probe(|| match unshare(namespaces) {
        Ok(()) => refused_call().map_or(0, |at| i32::try_from(at).unwrap_or_default() + 1),
        // What the kernel answers is told when it is asked in earnest.
        Err(_) => 0,
    })?;
    let refused = |ended: i32| CALLS.get(usize::try_from(ended - 1).ok()?);
    match ended {
        None => Err(UsernsError::Killed),
        Some(ended) => refused(ended).map_or(Ok(()), |name| Err(UsernsError::Refused(name))),
    }
}

/// What a step is mounted by.
const CALLS: [&str; 5] = ["pivot_root", "fsopen", "open_tree", "move_mount", "mount_setattr"];

/// Which of [`CALLS`] is refused whatever it is asked: in a new namespace the kernel itself complains of the place.
fn refused_call() -> Option<usize> {
    use rustix::fs::CWD;
    use rustix::mount::{FsOpenFlags, MoveMountFlags, OpenTreeFlags};
    const NOWHERE: &str = "/proc/self/nowhere";
    let no_flags = FsOpenFlags::from_bits_retain(u32::MAX);
    // No mount begins at this directory.
    let restricted = std::fs::File::open("/proc/self/task")
        .and_then(|dir| crate::mount_attr::MountAttr::READ_ONLY.apply(dir.as_fd(), false));
    let answers = [
        rustix::process::pivot_root(NOWHERE, NOWHERE),
        rustix::mount::fsopen("none", no_flags).map(drop),
        rustix::mount::open_tree(CWD, NOWHERE, OpenTreeFlags::OPEN_TREE_CLONE).map(drop),
        rustix::mount::move_mount(CWD, NOWHERE, CWD, NOWHERE, MoveMountFlags::empty()),
        restricted.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    ];
    let refused = |answer: &Result<(), Errno>| matches!(answer, Err(Errno::PERM | Errno::NOSYS));
    answers.iter().position(refused)
}

/// What a user namespace of a build takes.
const OWN_NAMESPACES: UnshareFlags = UnshareFlags::NEWUSER.union(UnshareFlags::NEWNS);

fn make_private() -> Result<(), UsernsError> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(|e| kernel("make mounts private", e))
}

/// `half_way` is set when the namespace was made and could not be used.
fn enter_subordinate(half_way: &mut bool) -> Result<(), UsernsError> {
    let maps = Maps::find()?;
    // newuidmap compares the owner of /proc/PID with its caller, and that is root for a hidden process.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(|e| kernel("prctl", e))?;
    ask_first(OWN_NAMESPACES)?;
    let writer = maps.start()?;
    unshare(OWN_NAMESPACES).map_err(refusal)?;
    *half_way = true;
    writer.write_maps()?;
    crate::process::become_user(0, 0, &[]).map_err(|source| match source.raw_os_error() {
        Some(libc::EPERM) if apparmor_restricts() => UsernsError::AppArmor,
        _ => UsernsError::Kernel {
            step: "become root of the user namespace",
            source,
        },
    })?;
    crate::process::hide().map_err(|source| UsernsError::Kernel { step: "hide", source })
}

/// The ids to map and the programs that may.
struct Maps {
    uid: Helper,
    gid: Helper,
}

struct Helper {
    path: PathBuf,
    args: Vec<String>,
}

impl Maps {
    fn find() -> Result<Self, UsernsError> {
        let uid = rustix::process::getuid();
        let gid = rustix::process::getgid();
        let name = ids::user_name(uid.as_raw())?;
        let helper = |file: IdFile, own: u32, program: &'static str| {
            let ranges = file.ranges(name.as_deref(), uid.as_raw())?;
            if ranges.is_empty() {
                let user = name.clone().unwrap_or_else(|| uid.as_raw().to_string());
                return Err(UsernsError::NoRange {
                    file: file.path(),
                    user,
                    kind: file.kind(),
                });
            }
            Ok(Helper {
                path: find_helper(program)?,
                args: ids::map_arguments(own, &ranges),
            })
        };
        Ok(Self {
            uid: helper(IdFile::Uid, uid.as_raw(), "newuidmap")?,
            gid: helper(IdFile::Gid, gid.as_raw(), "newgidmap")?,
        })
    }

    /// Forks the process that will write the maps: a child of the outer namespace, since the programs must run there.
    fn start(self) -> Result<Writer, UsernsError> {
        let pipe = || {
            io::pipe().map_err(|source| UsernsError::Kernel {
                step: "make a pipe",
                source,
            })
        };
        let (mut wait, go) = pipe()?;
        let (answer, mut tell) = pipe()?;
        let caller = rustix::process::getpid();
        let forked = crate::process::fork().map_err(|error| match error {
            ForkError::Threads(threads) => UsernsError::Threads(threads),
            ForkError::Tasks(source) | ForkError::Enter(source) | ForkError::Clone(source) => {
                UsernsError::Kernel { step: "fork", source }
            }
        })?;
        let Some(child) = forked else {
            drop((go, answer));
            let mut byte = [0];
            let text = match wait.read_exact(&mut byte) {
                Ok(()) => self.write(caller),
                Err(_) => "the caller went away".to_owned(),
            };
            // A caller that no longer listens is gone, and its namespace with it.
            let code = i32::from(tell.write_all(text.as_bytes()).is_err());
            std::process::exit(code)
        };
        Ok(Writer { child, go, answer })
    }

    /// Runs both programs; gives what went wrong as `path`, NUL, words, or [`DONE`].
    fn write(&self, caller: Pid) -> String {
        for helper in [&self.uid, &self.gid] {
            let run = Command::new(&helper.path)
                .arg(caller.as_raw_nonzero().to_string())
                .args(&helper.args)
                .env_clear()
                .stdin(Stdio::null())
                .output();
            let text = match run {
                Ok(output) if output.status.success() => continue,
                Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                Err(error) => error.to_string(),
            };
            return format!("{}\0{text}", helper.path.display());
        }
        DONE.to_owned()
    }
}

/// The waiting child.
struct Writer {
    child: Pid,
    go: io::PipeWriter,
    answer: io::PipeReader,
}

const DONE: &str = "done";
/// Longest answer read: a path and a line of a helper.
const ANSWER_MAX: u64 = 16 * 1024;

impl Writer {
    fn write_maps(mut self) -> Result<(), UsernsError> {
        let fail = |source| UsernsError::Kernel {
            step: "talk to the writer of id maps",
            source,
        };
        self.go.write_all(b"g").map_err(fail)?;
        let mut text = String::new();
        self.answer
            .take(ANSWER_MAX)
            .read_to_string(&mut text)
            .map_err(fail)?;
        while matches!(
            rustix::process::waitpid(Some(self.child), WaitOptions::empty()),
            Err(Errno::INTR)
        ) {}
        match text.split_once('\0') {
            None if text == DONE => Ok(()),
            Some((path, text)) => Err(UsernsError::Helper {
                path: path.into(),
                text: text.to_owned(),
            }),
            None => Err(UsernsError::Helper {
                path: "newuidmap".into(),
                text,
            }),
        }
    }
}

fn find_helper(program: &'static str) -> Result<PathBuf, UsernsError> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = HELPER_DIRS.iter().map(PathBuf::from).collect();
    dirs.extend(std::env::split_paths(&own).filter(|dir| dir.is_absolute()));
    let mut powerless = None;
    for path in dirs.iter().map(|dir| dir.join(program)) {
        let Ok(meta) = std::fs::metadata(&path) else {
            continue;
        };
        let set_uid = meta.uid() == 0 && meta.mode() & 0o4000 != 0;
        let mut space = [0_u8; 64];
        let capable = rustix::fs::getxattr(&path, "security.capability", &mut space).is_ok();
        if set_uid || capable {
            return Ok(path);
        }
        powerless.get_or_insert(path);
    }
    Err(match powerless {
        Some(path) => UsernsError::HelperPowerless { path },
        None => UsernsError::NoHelper { program },
    })
}

/// Looked through before the caller's own `PATH`; the last is NixOS's.
const HELPER_DIRS: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"];

/// Why the kernel would not make a user namespace.
fn refusal(errno: Errno) -> UsernsError {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    let off = |sysctl, path, needed| {
        let found = read(path);
        (found == "0").then_some(UsernsError::Sysctl {
            sysctl,
            found,
            needed,
        })
    };
    off(
        "kernel.unprivileged_userns_clone",
        "/proc/sys/kernel/unprivileged_userns_clone",
        "1",
    )
    .or_else(|| {
        off(
            "user.max_user_namespaces",
            "/proc/sys/user/max_user_namespaces",
            "15000",
        )
    })
    .or_else(|| apparmor_restricts().then_some(UsernsError::AppArmor))
    .unwrap_or_else(|| kernel("make a user namespace", errno))
}

/// With this set the namespace can be made, but its root has no capabilities.
fn apparmor_restricts() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
        .is_ok_and(|text| text.trim() == "1")
}

fn kernel(step: &'static str, errno: Errno) -> UsernsError {
    UsernsError::Kernel {
        step,
        source: errno.into(),
    }
}
