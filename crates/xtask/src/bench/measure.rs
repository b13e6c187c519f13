//! Timing: whole processes, under `time(1)`, tools in turn so that a noisy minute hits all of them.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rbuild_testkit::machine;

use super::cases::Case;
use super::contexts::Room;
use super::tools::Tool;

/// The builds of one timed run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sample {
    /// From the start of the first to the end of the last.
    pub(super) wall_ms: f64,
    /// User and system time of the processes and those they waited for.
    pub(super) cpu_ms: f64,
    /// Largest resident set of one process, KiB.
    pub(super) peak_kib: u64,
}

/// An ext4 without a journal gives a deleted file's inode to nobody for a minute (`recently_deleted`), and whoever makes
/// files meanwhile searches past all of them: after tens of thousands, as the case before may have had, a build of 60 ms takes 100.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(66);

/// Times every tool in turn, `runs` times; a list for each tool, empty of one that cannot do the case.
pub(super) fn measure(case: &Case, tools: &[Tool], base: &str, runs: usize) -> Result<Vec<Vec<Sample>>> {
    let mut rooms = Vec::new();
    for (at, tool) in tools.iter().enumerate().filter(|(_, tool)| tool.can(case)) {
        let room = Room::new(case.at_once)?;
        (case.fill)(&room, base)?;
        tool.start(&room)?;
        if case.warm {
            let warmed = timed(tool, case, &room)?;
            println!("  {} warmed in {:.0} ms", tool.name, warmed.wall_ms);
        }
        rooms.push((at, tool, room));
    }
    wait_for_what_was_deleted();
    let mut samples = vec![Vec::new(); tools.len()];
    for run in 0..runs {
        for (at, tool, room) in &rooms {
            if !case.warm {
                tool.forget(room)?;
            }
            (case.before_run)(room, run)?;
            let sample = timed(tool, case, room)?;
            println!(
                "  {} {:.0} ms, {} KiB",
                tool.name, sample.wall_ms, sample.peak_kib
            );
            samples[*at].push(sample);
        }
    }
    for (_, tool, room) in &rooms {
        tool.forget(room)?;
        tool.stop()?;
    }
    Ok(samples)
}

/// Waits until what was deleted slows nobody any more.
pub(super) fn wait_for_what_was_deleted() {
    println!("  waiting for what was deleted before to be forgotten: {FORGOTTEN_AFTER:?}");
    std::thread::sleep(FORGOTTEN_AFTER);
}

/// One build of each of the room's contexts, all at once.
pub(super) fn timed(tool: &Tool, case: &Case, room: &Room) -> Result<Sample> {
    let start = Instant::now();
    let mut under_way = Vec::new();
    for context in 0..case.at_once {
        under_way.push(Build::start(tool.commands(room, case, context), room, context)?);
    }
    let mut sample = Sample::default();
    for mut build in under_way {
        build.finish(&mut sample)?;
    }
    sample.wall_ms = start.elapsed().as_secs_f64() * 1000.0;
    Ok(sample)
}

/// The commands of one build, of which the first runs.
struct Build {
    left: std::vec::IntoIter<Vec<OsString>>,
    running: Option<(Child, Vec<OsString>)>,
    report: std::path::PathBuf,
}

impl Build {
    fn start(commands: Vec<Vec<OsString>>, room: &Room, context: usize) -> Result<Self> {
        let mut build = Self {
            left: commands.into_iter(),
            running: None,
            report: room.path().join(format!("time{context}")),
        };
        build.next()?;
        Ok(build)
    }

    fn next(&mut self) -> Result<()> {
        self.running = match self.left.next() {
            None => None,
            Some(argv) => {
                let child = under_time(&self.report, &argv)?
                    .spawn()
                    .with_context(|| format!("start {argv:?}"))?;
                Some((child, argv))
            }
        };
        Ok(())
    }

    /// Waits for this build's commands, one after the other.
    fn finish(&mut self, sample: &mut Sample) -> Result<()> {
        while let Some((child, argv)) = self.running.take() {
            let output = child.wait_with_output()?;
            ensure!(
                output.status.success(),
                "{argv:?} failed:\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let (cpu_ms, peak_kib) = reported(&self.report)?;
            sample.cpu_ms += cpu_ms;
            sample.peak_kib = sample.peak_kib.max(peak_kib);
            self.next()?;
        }
        Ok(())
    }
}

/// The command under `time(1)`, which adds well under a millisecond.
fn under_time(report: &Path, argv: &[OsString]) -> Result<Command> {
    let mut command = Command::new(machine::required("time", "time")?);
    command
        .args(["-f", "%U %S %M", "-o"])
        .arg(report)
        .args(argv)
        .env_remove("RBUILD_ROOT")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    Ok(command)
}

/// Processor time in ms and largest resident set in KiB.
fn reported(report: &Path) -> Result<(f64, u64)> {
    let text = fs::read_to_string(report)?;
    let numbers: Vec<f64> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    ensure!(numbers.len() == 3, "time(1) says {text:?}");
    let peak = text.split_whitespace().last().and_then(|word| word.parse().ok());
    Ok(((numbers[0] + numbers[1]) * 1000.0, peak.unwrap_or(0)))
}

/// Median, smallest and largest.
pub(super) fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    (values[values.len() / 2], values[0], values[last])
}
