//! The program as BuildKit's daemon and client: started and asked by their names and flags, as drivers of buildx do.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::e2e::RBUILD;

/// Longer than anything that is not stuck.
const LONG: Duration = Duration::from_secs(20);
/// What a client of HTTP/2 says first, with an empty frame of settings.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A server with a directory of its own.
pub(crate) struct Daemon {
    pub(crate) dir: tempfile::TempDir,
    server: Child,
}

impl Daemon {
    pub(crate) fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["buildkitd", "buildctl"] {
            symlink(RBUILD, dir.path().join(name)).expect("a link");
        }
        let server = Command::new(dir.path().join("buildkitd"))
            .arg("--root")
            .arg(dir.path().join("root"))
            .arg("--addr")
            .arg(format!("unix://{}", dir.path().join("s.sock").display()))
            .args(args)
            .env("XDG_RUNTIME_DIR", dir.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        Self { dir, server }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("s.sock")
    }

    pub(crate) fn buildctl(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.dir.path().join("buildctl"));
        command
            .env("BUILDKIT_HOST", format!("unix://{}", self.socket().display()))
            .args(args);
        command
    }

    #[track_caller]
    pub(crate) fn asked(&self, args: &[&str]) -> String {
        let output = self.buildctl(args).output().expect("buildctl runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// The server's end by itself, and what it said.
    #[track_caller]
    fn ends(mut self) -> String {
        let since = Instant::now();
        loop {
            if let Some(status) = self.server.try_wait().expect("the server is a child") {
                assert!(status.success(), "{status}");
                break;
            }
            assert!(since.elapsed() < LONG, "the server goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!self.socket().exists(), "the socket goes with its server");
        let mut said = String::new();
        let stderr = self.server.stderr.as_mut().expect("it is a pipe");
        stderr.read_to_string(&mut said).expect("it is text");
        said
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended.
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

#[test]
fn what_buildx_runs_in_a_container_is_answered() {
    let daemon = Daemon::start(&["--allow-insecure-entitlement=network.host"]);
    let ready = daemon.asked(&["--wait", "--timeout=20", "debug", "workers"]);
    assert!(ready.starts_with("ID") && ready.contains("linux/"), "{ready}");
    let workers = daemon.asked(&["debug", "workers", "--format", "{{json .}}"]);
    assert!(
        workers.starts_with("[{") && workers.contains("\"gcPolicy\":[{"),
        "{workers}"
    );
    let versions = daemon.asked(&["debug", "info"]);
    let version = daemon.asked(&["--version"]);
    let number = version.split_whitespace().nth(2).expect("four words");
    assert!(versions.contains(number), "{versions} {version}");
    assert!(daemon.asked(&["du"]).contains("Total:"));
    assert!(daemon.asked(&["prune", "--all"]).contains("Total:"));
    assert!(daemon.asked(&["debug", "histories"]).starts_with("TYPE"));
    assert!(daemon.asked(&["prune-histories"]).starts_with("TYPE"));
}

#[test]
fn a_connection_is_carried_over_standard_input_and_output() {
    let daemon = Daemon::start(&[]);
    daemon.asked(&["--wait", "--timeout=20", "debug", "workers"]);
    let mut carried = daemon
        .buildctl(&["dial-stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("buildctl runs");
    let mut stdin = carried.stdin.take().expect("it is a pipe");
    stdin.write_all(PREFACE).expect("it is read");
    let mut frame = [0; 9];
    let stdout = carried.stdout.as_mut().expect("it is a pipe");
    stdout.read_exact(&mut frame).expect("an answer");
    assert_eq!(
        frame[3], 4,
        "the first frame of a server is its settings: {frame:?}"
    );
    drop(stdin);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).expect("the end");
    assert!(carried.wait().expect("buildctl ends").success());
}

#[test]
fn an_idle_server_ends_by_itself_and_says_where_it_listened() {
    let daemon = Daemon::start(&["--idle-timeout=1s"]);
    let address = format!("unix://{}", daemon.socket().display());
    let said = daemon.ends();
    assert!(said.contains(&format!("running server on {address}")), "{said}");
}

#[test]
fn a_server_that_is_told_to_stop_does_at_once() {
    let daemon = Daemon::start(&[]);
    daemon.asked(&["--wait", "--timeout=20", "debug", "workers"]);
    let pid = rustix::process::Pid::from_child(&daemon.server);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is ours");
    daemon.ends();
}

#[test]
fn row48_a_server_on_the_network_without_certificates_does_not_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let link = dir.path().join("buildkitd");
    symlink(RBUILD, &link).expect("a link");
    let refused = |args: &[&str]| {
        let output = Command::new(Path::new(&link))
            .arg("--root")
            .arg(dir.path().join("root"))
            .args(args)
            .output()
            .expect("the program runs");
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let plain = refused(&["--addr=tcp://127.0.0.1:0"]);
    assert!(plain.contains("--tlscacert"), "{plain}");
    let half = refused(&["--addr=tcp://127.0.0.1:0", "--tlscert=/c", "--tlskey=/k"]);
    assert!(
        half.contains("clients without a certificate are never served"),
        "{half}"
    );
}
