//! A daemon behind a tool, which begins anew in each room.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rbuild_testkit::machine;

use crate::bench::contexts::Room;
use crate::shell;

/// Longest time a daemon may take to listen, or to end.
const TIME: Duration = Duration::from_secs(30);

/// A program that answers on a socket of the room.
#[derive(Debug)]
pub(super) struct Daemon {
    program: PathBuf,
    /// Its flags in a room.
    args: fn(&Room) -> Vec<String>,
    running: RefCell<Option<Child>>,
    /// The largest peak memory of those that ended, KiB.
    peak_kib: Cell<u64>,
}

impl Daemon {
    pub(super) fn new(program: PathBuf, args: fn(&Room) -> Vec<String>) -> Self {
        Self {
            program,
            args,
            running: RefCell::new(None),
            peak_kib: Cell::new(0),
        }
    }

    pub(super) fn start(&self, room: &Room) -> Result<()> {
        self.stop()?;
        if socket(room).exists() {
            fs::remove_file(socket(room))?;
        }
        // What it mounts ends with it, however it ends.
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .arg(&self.program)
            .args((self.args)(room))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(room.path().join("daemon.log"))?)
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        *self.running.borrow_mut() = Some(child);
        wait_until("the daemon listens", || Ok(socket(room).exists()))
    }

    pub(super) fn stop(&self) -> Result<()> {
        let Some(mut child) = self.running.borrow_mut().take() else {
            return Ok(());
        };
        let peak = self
            .peak_kib
            .get()
            .max(machine::peak_kib(child.id()).unwrap_or(0));
        self.peak_kib.set(peak);
        shell::output(Command::new("kill").arg(child.id().to_string()))?;
        wait_until("the daemon ends", || Ok(child.try_wait()?.is_some()))
    }

    pub(super) fn peak_kib(&self) -> u64 {
        self.peak_kib.get()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{}: {error:#}", self.program.display());
        }
    }
}

fn socket(room: &Room) -> PathBuf {
    room.path().join("daemon.sock")
}

/// Where a room's daemon listens.
pub(super) fn address(room: &Room) -> String {
    format!("unix://{}", socket(room).display())
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !is_so()? {
        ensure!(start.elapsed() < TIME, "{what}: not within {TIME:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
