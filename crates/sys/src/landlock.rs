//! Landlock (landlock(7)): rights that a process gives up for good, with all that it starts. Rules for files forbid mounts, so
//! they are for steps that can have none.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// `struct landlock_ruleset_attr` of linux/landlock.h, as of ABI 6.
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`, which has no padding.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// `LANDLOCK_RULE_PATH_BENEATH`.
const RULE_PATH_BENEATH: libc::c_long = 1;
/// `LANDLOCK_SCOPE_SIGNAL`.
const SCOPE_SIGNAL: u64 = 2;
/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET`.
const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
/// `LANDLOCK_CREATE_RULESET_VERSION`.
const CREATE_RULESET_VERSION: libc::c_long = 1;
/// The first version with scopes (Linux 6.12).
const SCOPES_ABI: libc::c_long = 6;

/// Which version of Landlock this kernel has; 0 for none.
#[must_use]
pub fn version() -> i64 {
    let none = std::ptr::null::<RulesetAttr>();
    // SAFETY: with this flag the kernel reads nothing and answers a number.
    // WHY: no crate of ours wraps Landlock.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, CREATE_RULESET_VERSION) };
    version.max(0)
}

/// Whether the kernel has scopes.
#[must_use]
pub fn has_scopes() -> bool {
    version() >= SCOPES_ABI
}

/// From here on the calling thread and what it starts connects only to abstract sockets that were made by such processes too.
/// `false` where the kernel has no scopes, or as many domains inside each other as it allows.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` and without `no_new_privs`.
pub fn scope_abstract_sockets() -> io::Result<bool> {
    if !has_scopes() {
        return Ok(false);
    }
    restrict(&ruleset(&RulesetAttr {
        handled_access_fs: 0,
        handled_access_net: 0,
        scoped: SCOPE_ABSTRACT_UNIX_SOCKET,
    })?)
}

/// How much of [`confine_to`] the kernel did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confined {
    /// Nothing: it has no Landlock, or one that would forbid renames between directories (before Linux 5.19).
    Not,
    /// Files only, and tracing.
    Files,
    /// Signals and abstract sockets too (Linux 6.12).
    FilesAndSignals,
}

/// From here on the calling thread and what it starts reaches no file outside of the directory `root`, traces no process that
/// is not so confined, and, where the kernel has scopes, sends none a signal and reaches none of their abstract sockets.
/// Descriptors that are open stay so.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` and without `no_new_privs`.
pub fn confine_to(root: BorrowedFd<'_>) -> io::Result<Confined> {
    let version = version();
    let Some(handled) = files_of(version) else {
        return Ok(Confined::Not);
    };
    let scoped = if version >= SCOPES_ABI {
        SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL
    } else {
        0
    };
    let ruleset = ruleset(&RulesetAttr {
        handled_access_fs: handled,
        handled_access_net: 0,
        scoped,
    })?;
    let beneath = PathBeneath {
        allowed_access: handled,
        parent_fd: root.as_raw_fd(),
    };
    // SAFETY: the kernel reads `beneath`, which outlives the call; both descriptors are open.
    // WHY: no crate of ours wraps Landlock.
    let added = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            RULE_PATH_BENEATH,
            &raw const beneath,
            0,
        )
    };
    if added != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(match (restrict(&ruleset)?, scoped) {
        (false, _) => Confined::Not,
        (true, 0) => Confined::Files,
        (true, _) => Confined::FilesAndSignals,
    })
}

/// All accesses to files that a version knows, but for `ioctl` on devices; none of a version that cannot allow renames
/// between directories.
const fn files_of(version: i64) -> Option<u64> {
    match version {
        ..=1 => None,
        // `LANDLOCK_ACCESS_FS_EXECUTE` to `LANDLOCK_ACCESS_FS_REFER`.
        2 => Some((1 << 14) - 1),
        // And `LANDLOCK_ACCESS_FS_TRUNCATE`.
        3.. => Some((1 << 15) - 1),
    }
}

fn ruleset(attr: &RulesetAttr) -> io::Result<OwnedFd> {
    // Older kernels know less of the structure.
    let size = match version() {
        ..=3 => 8,
        4..=5 => 16,
        6.. => size_of::<RulesetAttr>(),
    };
    // SAFETY: the kernel reads `attr`, which outlives the call, in the size given.
    // WHY: as above.
    let fd = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const *attr, size, 0) };
    let fd = i32::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call gave a new descriptor, which nothing else owns.
    // WHY: it gives it as a number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `false` where there are as many domains inside each other as the kernel allows.
fn restrict(ruleset: &OwnedFd) -> io::Result<bool> {
    // SAFETY: the descriptor is open; no memory is read.
    // WHY: as above.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    match done {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::E2BIG) => Ok(false),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    #[test]
    fn an_abstract_socket_from_outside_is_out_of_reach() {
        if !has_scopes() {
            return;
        }
        let name = |of: &str| {
            let name = format!("rbuild-landlock-{of}-{}", std::process::id());
            SocketAddr::from_abstract_name(name).unwrap()
        };
        let outside = UnixListener::bind_addr(&name("out")).unwrap();
        UnixStream::connect_addr(&name("out")).unwrap();
        // The rights go with the thread.
        let tried = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            assert!(scope_abstract_sockets().unwrap());
            let _inside = UnixListener::bind_addr(&name("in")).unwrap();
            UnixStream::connect_addr(&name("in")).unwrap();
            UnixStream::connect_addr(&name("out")).map(drop)
        });
        let refused = tried.join().unwrap().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        drop(outside);
    }

    #[test]
    fn who_is_confined_reaches_no_file_outside_and_no_process() {
        use std::os::fd::AsFd as _;
        if files_of(version()).is_none() {
            return;
        }
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(inside.path().join("own"), "own").unwrap();
        std::fs::create_dir(inside.path().join("dir")).unwrap();
        std::fs::write(outside.path().join("other"), "other").unwrap();
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let (root, other) = (inside.path().to_owned(), outside.path().to_owned());
        let held = std::fs::File::open(&root).unwrap();
        let tried = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            let confined = confine_to(held.as_fd()).unwrap();
            assert_eq!(std::fs::read_to_string(root.join("own")).unwrap(), "own");
            // Between directories too: package managers do.
            std::fs::rename(root.join("own"), root.join("dir/moved")).unwrap();
            let denied = [
                std::fs::read(other.join("other")).map(drop),
                std::fs::write(other.join("new"), ""),
                std::fs::remove_file(other.join("other")),
                std::fs::rename(root.join("dir/moved"), other.join("moved")),
                std::fs::hard_link(root.join("dir/moved"), other.join("linked")),
            ];
            let signal = rustix::process::kill_process(pid, rustix::process::Signal::CONT);
            (confined, denied.map(|denied| denied.is_err()), signal)
        });
        let (confined, denied, signal) = tried.join().unwrap();
        assert_eq!(denied, [true; 5]);
        assert_ne!(confined, Confined::Not);
        assert_eq!(confined == Confined::FilesAndSignals, signal.is_err());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
