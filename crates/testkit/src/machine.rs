//! What the machine under the tests has: where made images are kept, which tools there are, free ports.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, Result};

/// Names a directory for made base images in place of the target directory.
const BASES_VARIABLE: &str = "RBUILD_BASES_DIR";

/// Where base images made for tests are kept: below the target directory that holds the running program.
///
/// # Errors
/// The program lies in no target directory and the variable is not set either.
pub fn bases_dir() -> Result<PathBuf> {
    let dir = match std::env::var_os(BASES_VARIABLE) {
        Some(dir) => PathBuf::from(dir),
        None => {
            let program = std::env::current_exe()?;
            let target = program
                .ancestors()
                .skip(1)
                .find(|dir| dir.join("CACHEDIR.TAG").exists());
            target
                .with_context(|| format!("{} is in no target directory", program.display()))?
                .join("rbuild-bases")
        }
    };
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Gives a directory that was made aside its name; another process that was faster wins.
///
/// # Errors
/// The file system's.
pub fn publish(aside: tempfile::TempDir, name: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    // mkdtemp makes 0700 directories; unprivileged tests read the bases too.
    std::fs::set_permissions(aside.path(), std::fs::Permissions::from_mode(0o755))?;
    match std::fs::rename(aside.path(), name) {
        Ok(()) => {
            let _gone = aside.keep();
            Ok(())
        }
        Err(_) if name.join("index.json").exists() => Ok(()),
        Err(error) => Err(error).with_context(|| format!("rename to {}", name.display())),
    }
}

/// Finds a program on the search path, the system directories of Debian included.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// Finds a program that a test cannot do without.
///
/// # Errors
/// Absent; the text names the Debian package.
pub fn required(name: &str, package: &str) -> Result<PathBuf> {
    program(name).with_context(|| {
        format!("{name} is missing: install Debian's package {package} (`cargo xtask ci` does)")
    })
}

/// Ports that are no client's: the kernel gives those from 32768 on to whoever connects (`ip_local_port_range`).
const SERVERS_PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A TCP port of the loopback interface that nothing listened on a moment ago, and that the kernel gives to nobody else.
///
/// # Errors
/// All are taken.
pub fn free_port() -> io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = SERVERS_PORTS.end - SERVERS_PORTS.start;
    // Processes that run at once begin in different places.
    let begin = u16::try_from(std::process::id().wrapping_mul(61) % u32::from(count)).unwrap_or_default();
    for _ in 0..count {
        let at = (begin + NEXT.fetch_add(1, Ordering::Relaxed) % count) % count;
        let port = SERVERS_PORTS.start + at;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Whether the tests run as root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Names a file that [`skip`] adds its reasons to, so that `cargo xtask ci` can count them.
pub const SKIP_LOG_VARIABLE: &str = "RBUILD_SKIP_LOG";

/// Prints why a test does not run here and notes it for `cargo xtask ci`, which fails if it promised that tier.
#[expect(
    clippy::print_stderr,
    reason = "this is the line that makes a skipped test visible"
)]
pub fn skip(reason: &str) {
    use std::io::Write as _;
    eprintln!("SKIP: {reason}");
    if let Some(path) = std::env::var_os(SKIP_LOG_VARIABLE) {
        let noted = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .and_then(|mut file| writeln!(file, "SKIP: {reason}"));
        if let Err(error) = noted {
            eprintln!(
                "SKIP: and {} cannot be written: {error}",
                Path::new(&path).display()
            );
        }
    }
}

/// An ordinary user of this machine with subordinate ids, for the rootless tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrdinaryUser {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
}

/// Name of the user that `cargo xtask ci` makes for the rootless tests.
pub const TEST_USER: &str = "rbuild-test";

/// Finds [`TEST_USER`] and checks that it may map at least 65,536 subordinate ids.
#[must_use]
pub fn ordinary_user() -> Option<OrdinaryUser> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|f| f[0] == TEST_USER)?
        .into_iter();
    let user = OrdinaryUser {
        uid: fields.nth(2)?.parse().ok()?,
        gid: fields.next()?.parse().ok()?,
    };
    let enough = |path: &str| {
        let ranges = std::fs::read_to_string(path).unwrap_or_default();
        let counts = ranges.lines().filter_map(|line| {
            let mut parts = line.split(':');
            (parts.next() == Some(TEST_USER))
                .then(|| parts.nth(1).and_then(|count| count.parse::<u64>().ok()))?
        });
        counts.sum::<u64>() >= 65_536
    };
    (enough("/etc/subuid") && enough("/etc/subgid") && program("newuidmap").is_some()).then_some(user)
}

/// Largest resident set of a process so far, KiB (`VmHWM`, proc_pid_status(5)); `None` of one that has ended.
#[must_use]
pub fn peak_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
