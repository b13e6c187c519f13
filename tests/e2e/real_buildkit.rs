//! buildx before a real buildkitd: where both are installed they answer for themselves. Debian 12 has neither.

use std::time::{Duration, Instant};

use rbuild_testkit::command::{RbuildCommand, Running};
use rbuild_testkit::machine;
use rustix::process::Signal;

use crate::e2e::buildx;
use crate::e2e::fixture::Fixture;

/// How long it may take to answer.
const START: Duration = Duration::from_secs(30);
/// How long it may be there.
const LIFE: Duration = Duration::from_secs(900);

/// A server with all that steps may be allowed, and buildx that builds with it.
pub(crate) struct RealBuildkit {
    /// Where both keep what they have.
    fixture: Fixture,
    program: std::path::PathBuf,
    process: Option<Running>,
}

impl RealBuildkit {
    /// Starts it, or says that it is not there.
    pub(crate) fn start() -> Option<Self> {
        let program = buildx::program()?;
        let Some(buildkitd) = machine::program("buildkitd") else {
            println!("SKIP: buildkitd is not installed");
            return None;
        };
        if !machine::is_root() {
            machine::skip("buildkitd runs as root here");
            return None;
        }
        let fixture = Fixture::new("");
        let room = fixture.home.work();
        let address = format!("unix://{}", room.join("b.sock").display());
        let command = RbuildCommand::new(buildkitd)
            .timeout(LIFE)
            .arg("--root")
            .arg(room.join("buildkit"));
        let allowed = ["network.host", "security.insecure", "device"];
        let allowed = allowed.map(|name| format!("--allow-insecure-entitlement={name}"));
        let process = command.args(["--addr", &address]).args(allowed).spawn();
        let this = Self {
            fixture,
            program,
            process: Some(process),
        };
        this.buildx()
            .args(["create", "--name=real", "--driver=remote", &address])
            .ok();
        let deadline = Instant::now() + START;
        while !this
            .buildx()
            .args(["inspect", "real"])
            .run()
            .stdout_text()
            .contains("running")
        {
            assert!(Instant::now() < deadline, "buildkitd does not come up");
            std::thread::sleep(Duration::from_millis(200));
        }
        Some(this)
    }

    fn buildx(&self) -> RbuildCommand {
        self.fixture.home.command(&self.program)
    }

    /// `buildx build` with it.
    pub(crate) fn build(&self) -> RbuildCommand {
        self.buildx().args(["build", "--builder=real"])
    }
}

impl Drop for RealBuildkit {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.signal(Signal::TERM);
            drop(process.wait());
        }
    }
}
