//! Runs `rbuild` (or any other program) with nothing of this machine's environment, a time limit, and a transcript.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Search path of every command under test.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a command may take unless its test says otherwise.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Variables that reach a command only by [`RbuildCommand::with_network_of_this_machine`]: what proxies and CA bundles
/// a machine has is its own business.
const NETWORK_VARIABLES: [&str; 11] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "RES_OPTIONS",
];

/// A home directory, a store and room for files, all of one test.
#[derive(Debug)]
pub struct TestHome {
    dir: tempfile::TempDir,
    user: Option<(u32, u32)>,
}

impl TestHome {
    /// Makes one for the user that the tests run as.
    #[track_caller]
    #[must_use]
    pub fn new() -> Self {
        Self::make(None)
    }

    /// Makes one that belongs to another user, whom its commands run as.
    #[track_caller]
    #[must_use]
    pub fn for_user(uid: u32, gid: u32) -> Self {
        Self::make(Some((uid, gid)))
    }

    #[track_caller]
    fn make(user: Option<(u32, u32)>) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("rbuild-test-")
            .tempdir()
            .expect("a temporary directory");
        for name in ["home", "store", "tmp", "work"] {
            fs::create_dir(dir.path().join(name)).expect("a directory below it");
        }
        if let Some((uid, gid)) = user {
            for name in [".", "home", "store", "tmp", "work"] {
                std::os::unix::fs::chown(dir.path().join(name), Some(uid), Some(gid))
                    .expect("chown needs root");
            }
        }
        Self { dir, user }
    }

    /// The directory of the test's own files.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// The store's root.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// The home directory.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// `TMPDIR` of the commands.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.dir.path().join("tmp")
    }

    /// Gives everything below [`TestHome::work`] to the user whose home this is; tests write there as root.
    #[track_caller]
    pub fn hand_over(&self) {
        let Some((uid, gid)) = self.user else { return };
        let mut todo = vec![self.work()];
        while let Some(path) = todo.pop() {
            let given = std::os::unix::fs::lchown(&path, Some(uid), Some(gid));
            assert!(given.is_ok(), "lchown {}: {given:?}", path.display());
            if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
                todo.extend(
                    fs::read_dir(&path)
                        .into_iter()
                        .flatten()
                        .flatten()
                        .map(|entry| entry.path()),
                );
            }
        }
    }

    /// A command with this home.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> RbuildCommand {
        let command = RbuildCommand::new(program)
            .env("HOME", self.home())
            .env("RBUILD_ROOT", self.store())
            .env("TMPDIR", self.tmp())
            .current_dir(self.work());
        match self.user {
            Some((uid, gid)) => command.user(uid, gid),
            None => command,
        }
    }
}

impl Default for TestHome {
    fn default() -> Self {
        Self::new()
    }
}

/// A command being put together.
#[derive(Debug)]
pub struct RbuildCommand {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
    user: Option<(u32, u32)>,
    timeout: Duration,
}

impl RbuildCommand {
    /// A command with an empty environment but for `PATH` and `LANG`.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let env = [("PATH", PATH), ("LANG", "C.UTF-8")]
            .map(|(key, value)| (key.into(), value.into()))
            .to_vec();
        let program = program.as_ref().to_owned();
        Self {
            program,
            args: Vec::new(),
            env,
            dir: None,
            stdin: None,
            user: None,
            timeout: TIMEOUT,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Hands the machine's proxy and CA variables through, for tests whose steps download.
    #[must_use]
    pub fn with_network_of_this_machine(mut self) -> Self {
        for name in NETWORK_VARIABLES {
            if let Some(value) = std::env::var_os(name) {
                self.env.push((name.into(), value));
            }
        }
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Sends bytes to standard input; it is `/dev/null` otherwise.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Runs as this user and group, without supplementary groups. Needs root.
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = Some((uid, gid));
        self
    }

    /// Sets the time limit.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Starts it in a process group of its own.
    #[track_caller]
    #[must_use]
    pub fn spawn(self) -> Running {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(self.env.iter().map(|(k, v)| (k, v)));
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command.stdin(if self.stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        let shown = shell_line(&self.program, &self.args);
        let start = Instant::now();
        let child = command.spawn();
        assert!(child.is_ok(), "cannot start `{shown}`: {:?}", child.err());
        let mut child = child.expect("asserted above");
        let stdin = child.stdin.take().zip(self.stdin).map(|(mut pipe, bytes)| {
            thread::spawn(move || {
                // A program that does not read its input to the end is not an error of the test.
                drop(pipe.write_all(&bytes));
            })
        });
        drop(stdin);
        let stdout = drain(child.stdout.take().expect("piped"));
        let stderr = drain(child.stderr.take().expect("piped"));
        Running {
            child,
            shown,
            start,
            stdout,
            stderr,
            timeout: self.timeout,
        }
    }

    /// Runs it to its end.
    #[track_caller]
    #[must_use]
    pub fn run(self) -> Ran {
        self.spawn().wait()
    }

    /// Runs it and asserts success.
    #[track_caller]
    pub fn ok(self) -> Ran {
        self.run().succeeded()
    }

    /// Runs it and asserts failure by an exit code, not by a signal.
    #[track_caller]
    pub fn fails(self) -> Ran {
        self.run().failed()
    }
}

fn drain(mut pipe: impl std::io::Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth showing.
        drop(pipe.read_to_end(&mut bytes));
        bytes
    })
}

fn shell_line(program: &OsStr, args: &[OsString]) -> String {
    let words = std::iter::once(program).chain(args.iter().map(OsString::as_os_str));
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A command that was started.
#[derive(Debug)]
pub struct Running {
    child: Child,
    shown: String,
    start: Instant,
    stdout: thread::JoinHandle<Vec<u8>>,
    stderr: thread::JoinHandle<Vec<u8>>,
    timeout: Duration,
}

impl Running {
    /// Its process id, which is also that of its group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process alone.
    #[track_caller]
    pub fn signal(&self, signal: rustix::process::Signal) {
        let sent = rustix::process::kill_process(self.rustix_pid(), signal);
        assert!(sent.is_ok(), "signal `{}`: {sent:?}", self.shown);
    }

    /// Sends a signal to the whole group, as a terminal does on Ctrl-C.
    #[track_caller]
    pub fn signal_group(&self, signal: rustix::process::Signal) {
        let sent = rustix::process::kill_process_group(self.rustix_pid(), signal);
        assert!(sent.is_ok(), "signal `{}`: {sent:?}", self.shown);
    }

    fn rustix_pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Waits for its end, kills its group when the time is over.
    #[track_caller]
    #[must_use]
    pub fn wait(mut self) -> Ran {
        let mut timed_out = false;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                break status;
            }
            if self.start.elapsed() > self.timeout && !timed_out {
                timed_out = true;
                self.signal_group(rustix::process::Signal::KILL);
            }
            thread::sleep(Duration::from_millis(2));
        };
        let elapsed = self.start.elapsed();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let stdout = self.stdout.join().expect("reading does not panic");
        let stderr = text(self.stderr.join().expect("reading does not panic"));
        let ran = Ran {
            command: self.shown,
            status,
            stdout,
            stderr,
            elapsed,
        };
        assert!(!timed_out, "not done in {:?}\n{ran}", self.timeout);
        ran
    }
}

/// A command that ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// What was run.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Everything it wrote to standard output.
    pub stdout: Vec<u8>,
    /// Everything it wrote to standard error.
    pub stderr: String,
    /// How long it took.
    pub elapsed: Duration,
}

impl Ran {
    /// Standard output as text without the last newline.
    #[must_use]
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Asserts that it succeeded.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert!(self.status.success(), "the command failed\n{self}");
        self
    }

    /// Asserts that it ended with an exit code other than 0, and neither by a signal nor by a panic.
    #[track_caller]
    pub fn failed(self) -> Self {
        assert!(!self.status.success(), "the command should have failed\n{self}");
        assert!(self.status.signal().is_none(), "killed by a signal\n{self}");
        assert!(!self.stderr.contains("panicked at"), "a panic\n{self}");
        self
    }

    /// Asserts that standard error contains `part`.
    #[track_caller]
    pub fn says(self, part: &str) -> Self {
        assert!(
            self.stderr.contains(part),
            "standard error lacks {part:?}\n{self}"
        );
        self
    }

    /// Asserts that neither stream contains `part`.
    #[track_caller]
    pub fn never_says(self, part: &str) -> Self {
        let stdout = String::from_utf8_lossy(&self.stdout);
        assert!(
            !self.stderr.contains(part) && !stdout.contains(part),
            "{part:?} is printed\n{self}"
        );
        self
    }

    /// Names of plain-mode vertices (`#N [stage 1/2] …`) that were taken from the cache, in order of appearance.
    #[must_use]
    pub fn cached(&self) -> Vec<String> {
        self.vertices()
            .into_iter()
            .filter(|(_, cached)| *cached)
            .map(|(name, _)| name)
            .collect()
    }

    /// Names of plain-mode vertices in brackets that ran.
    #[must_use]
    pub fn executed(&self) -> Vec<String> {
        self.vertices()
            .into_iter()
            .filter(|(_, cached)| !cached)
            .map(|(name, _)| name)
            .collect()
    }

    /// Every instruction's vertex of the plain log (`[2/4] RUN …`, `[build 2/4] COPY …`), and whether it was cached.
    #[must_use]
    pub fn vertices(&self) -> Vec<(String, bool)> {
        let mut names: Vec<(String, String, bool)> = Vec::new();
        for line in self.stderr.lines() {
            let Some((number, rest)) = line.strip_prefix('#').and_then(|line| line.split_once(' ')) else {
                continue;
            };
            let step = rest.starts_with('[')
                && !["[internal]", "[context "]
                    .iter()
                    .any(|kind| rest.starts_with(kind));
            if step && !names.iter().any(|(n, ..)| n == number) {
                names.push((number.to_owned(), rest.to_owned(), false));
            } else if rest == "CACHED"
                && let Some(found) = names.iter_mut().find(|(n, ..)| n == number)
            {
                found.2 = true;
            }
        }
        names
            .into_iter()
            .map(|(_, name, cached)| (name, cached))
            .collect()
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}", self.command)?;
        writeln!(f, "({} after {:.2?})", self.status, self.elapsed)?;
        let stdout = String::from_utf8_lossy(&self.stdout);
        writeln!(f, "--- stdout\n{}", tail(&stdout))?;
        write!(f, "--- stderr\n{}", tail(&self.stderr))
    }
}

/// The last part of a long text, enough to see what went wrong.
fn tail(text: &str) -> &str {
    const SHOWN_BYTES_MAX: usize = 16 << 10;
    let start = text.len().saturating_sub(SHOWN_BYTES_MAX);
    let start = (start..=text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    text[start..].trim_end()
}

/// Writes a value to a file for a command to read.
#[track_caller]
pub fn write(path: &Path, content: impl AsRef<[u8]>) {
    let done = fs::write(path, content);
    assert!(done.is_ok(), "write {}: {done:?}", path.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_sees_nothing_of_this_machine() {
        let home = TestHome::new();
        let ran = home.command("env").ok();
        let text = ran.stdout_text();
        let mut names: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["HOME", "LANG", "PATH", "RBUILD_ROOT", "TMPDIR"]);
    }

    #[test]
    #[should_panic(expected = "not done in")]
    fn a_command_that_hangs_is_ended() {
        let _ran = RbuildCommand::new("sleep")
            .arg("60")
            .timeout(Duration::from_millis(50))
            .run();
    }

    #[test]
    fn plain_progress_is_read_by_vertex() {
        let script = "printf '#1 [internal] load x\\n#1 DONE\\n#5 [a 1/2] RUN x\\n#5 CACHED\\n#6 [2/2] COPY\\n#6 DONE 0.1s\\n' >&2";
        let ran = RbuildCommand::new("sh").args(["-c", script]).ok();
        assert_eq!(ran.cached(), ["[a 1/2] RUN x"]);
        assert_eq!(ran.executed(), ["[2/2] COPY"]);
    }
}
