//! A real engine (Debian's `dockerd`) without networks, for what it reads and writes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rbuild_testkit::command::{RbuildCommand, Running};
use rbuild_testkit::machine;
use rustix::process::Signal;

/// How long it may take to answer.
const START: Duration = Duration::from_secs(60);

/// runc, without the capability that builds do not need and containers that run tests may lack.
const RUNTIME: &str = r#"#!/bin/sh
for word; do
    case $before in
        --bundle) sed -i 's/"CAP_SYS_RESOURCE",//g' "$word/config.json" ;;
        --process) sed -i 's/"CAP_SYS_RESOURCE",//g' "$word" ;;
    esac
    before=$word
done
exec runc "$@"
"#;

/// The engine, until it is stopped.
#[derive(Debug)]
pub(crate) struct DockerEngine {
    room: PathBuf,
    process: Running,
}

impl DockerEngine {
    /// Starts one that keeps everything below `room`.
    #[track_caller]
    pub(crate) fn start(room: &Path) -> Self {
        Self::start_with(room, &[], &["--bridge=none"])
    }

    /// The same as [`Self::start`], with a bridge in a network of its own: what BuildKit inside it wants for its steps.
    #[track_caller]
    pub(crate) fn start_with_bridge(room: &Path) -> Self {
        Self::start_with(room, &["--net"], &[])
    }

    /// Starts one in a directory `engine` of its own among the files of a test.
    #[track_caller]
    pub(crate) fn start_in(work: &Path) -> Self {
        let room = work.join("engine");
        fs::create_dir_all(&room).expect("a directory");
        Self::start(&room)
    }

    /// The same as [`Self::start`]. Containers may be privileged even where root lacks a capability.
    #[track_caller]
    pub(crate) fn start_privileging(room: &Path) -> Self {
        let runtime = room.join("runc");
        fs::write(&runtime, RUNTIME).expect("a file");
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o755)).expect("a mode");
        let added = format!("--add-runtime=lesser={}", runtime.display());
        Self::start_with(room, &[], &["--bridge=none", &added, "--default-runtime=lesser"])
    }

    #[track_caller]
    fn start_with(room: &Path, apart: &[&str], more: &[&str]) -> Self {
        let at = |name: &str| room.join(name).display().to_string();
        let socket = socket(room);
        // What it mounts (a network's namespace, containers) is its own and ends with it, however the test ends.
        let process = tool("unshare")
            .args(["--mount", "--propagation", "private"])
            .args(apart)
            .args(["dockerd", "--iptables=false", "--ip6tables=false", "-H", &socket])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec")])
            .args(["--pidfile", &at("pid")])
            .args(more)
            .spawn();
        let engine = Self {
            room: room.to_owned(),
            process,
        };
        let deadline = Instant::now() + START;
        while !engine.docker(["info"]).run().status.success() {
            assert!(Instant::now() < deadline, "the engine does not come up");
            std::thread::sleep(Duration::from_millis(200));
        }
        engine
    }

    /// A command of its client.
    pub(crate) fn docker<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> RbuildCommand {
        tool("docker").args(["-H", &socket(&self.room)]).args(args)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        socket(&self.room)
    }

    /// Ends it, and waits for that.
    pub(crate) fn stop(self) {
        self.process.signal(Signal::TERM);
        drop(self.process.wait());
    }
}

fn socket(room: &Path) -> String {
    format!("unix://{}", room.join("d.sock").display())
}

fn tool(name: &str) -> RbuildCommand {
    RbuildCommand::new(machine::required(name, name).expect("a tool of the tests"))
}
