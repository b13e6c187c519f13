//! Stands on each rung for a moment, in a process of its own that ends with that, and does there what a build does.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rbuild_builder::error::chain_text;
use rbuild_sandbox::{
    ExitStatus, MountKind, MountPlan, Network, OverlayPlan, Plan, RootPlan, Source, WaitError,
};
use rbuild_snapshotter::Means;
use rbuild_sys::userns::{self, Choice, Rung};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::time::Timespec;

use super::advice;
use super::machine::Machine;
use super::report::{Check, Report, RungReport};
use crate::native;

/// Longest time for one rung, in seconds.
const PATIENCE_SECONDS: i64 = 60;
/// Longest report of one rung.
const REPORT_MAX: u64 = 1 << 20;
/// Where this program is in the step.
const PROGRAM: &str = "/rbuild";

/// Tries `rungs`. `near` is where the store is or would be: file systems differ in what they can do, and where there is no place a
/// build cannot begin. Called while the process has one thread.
pub(crate) fn examine(rungs: &[Rung], near: Option<&Path>) -> Report {
    let machine = Machine::read();
    let reports = rungs
        .iter()
        .map(|rung| RungReport::new(*rung, in_a_process(*rung, near, &machine)));
    let reports = reports.collect();
    Report::new(machine, reports)
}

fn in_a_process(rung: Rung, near: Option<&Path>, machine: &Machine) -> Vec<Check> {
    let lost = |found: String| vec![Check::failed("process", found, Vec::new())];
    let (mut read, mut write) = match io::pipe() {
        Ok(pipe) => pipe,
        Err(error) => return lost(error.to_string()),
    };
    match rbuild_sys::process::fork() {
        Err(error) => lost(error.to_string()),
        Ok(None) => {
            drop(read);
            let checks = stand(rung, near, machine);
            let told = serde_json::to_vec(&checks)
                .map_err(io::Error::other)
                .and_then(|text| write.write_all(&text));
            #[expect(clippy::exit, reason = "the probe is a process of its own")]
            std::process::exit(i32::from(told.is_err()))
        }
        Ok(Some(child)) => {
            drop(write);
            let answer = answer(&mut read, child);
            answer.unwrap_or_else(|error| lost(error.to_string()))
        }
    }
}

fn answer(read: &mut io::PipeReader, child: Pid) -> io::Result<Vec<Check>> {
    let patience = Timespec {
        tv_sec: PATIENCE_SECONDS,
        tv_nsec: 0,
    };
    let ready = rustix::event::poll(&mut [PollFd::new(&read.as_fd(), PollFlags::IN)], Some(&patience));
    if ready == Ok(0) {
        rustix::process::kill_process(child, Signal::KILL)?;
    }
    let mut text = Vec::new();
    let done = read.take(REPORT_MAX).read_to_end(&mut text);
    let ended = loop {
        match rustix::process::waitpid(Some(child), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            ended => break ended?,
        }
    };
    done?;
    let signal = ended.and_then(|(_, status)| status.terminating_signal());
    if let Some(signal) = signal.filter(|_| ready != Ok(0)) {
        let found = format!("ended by signal {signal}");
        return Ok(vec![Check::failed("process", found, Vec::new())]);
    }
    if text.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {PATIENCE_SECONDS} s"),
        ));
    }
    serde_json::from_slice(&text).map_err(io::Error::other)
}

/// The checks of one rung, up to the first that fails.
fn stand(rung: Rung, near: Option<&Path>, machine: &Machine) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut push = |check: Check| {
        let passed = check.passed;
        checks.push(check);
        passed
    };
    let entered = userns::enter(Choice::Only(rung));
    let name = "namespaces and ids";
    let check = match &entered {
        Ok(_) => Check::passed(name, rung.summary()),
        Err(error) => {
            let advice = error
                .declined
                .first()
                .map(|declined| advice::to_enter(&declined.error, machine));
            let found = error.declined.first().map(|declined| chain_text(&declined.error));
            Check::failed(
                name,
                found.unwrap_or_else(|| error.to_string()),
                advice.unwrap_or_default(),
            )
        }
    };
    if !push(check) {
        return checks;
    }
    let made = near
        .ok_or_else(|| native::NO_PLACE.to_owned())
        .and_then(|near| Place::make(near).map_err(|(path, error)| format!("{}: {error}", path.display())));
    let place = match made {
        Ok(place) => place,
        Err(found) => {
            let advice = vec!["name a directory of yours with --root".to_owned()];
            push(Check::failed("store", found, advice));
            return checks;
        }
    };
    if matches!(rung, Rung::OneId | Rung::Files) && !push(owners(&place)) {
        return checks;
    }
    if !rung.has_steps() {
        return checks;
    }
    if !rung.has_mounts() {
        push(step(rung, &place, machine));
        return checks;
    }
    let shown = snapshotters(rung, &place);
    if push(shown) {
        push(step(rung, &place, machine));
    }
    checks
}

/// A directory for the trial, which goes with it.
struct Place(PathBuf);

impl Place {
    /// In `near` if that is there, else where it would be made.
    fn make(near: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let parent = near
            .ancestors()
            .find(|path| path.is_dir())
            .unwrap_or_else(|| Path::new("/"));
        let path = parent.join(format!(".rbuild-doctor-{}", std::process::id()));
        let made = std::fs::create_dir(&path).and_then(|()| {
            let place = Self(path.clone());
            for name in ["lower", "upper", "work"] {
                std::fs::create_dir(place.0.join(name))?;
            }
            std::fs::write(place.0.join("lower/file"), "below\n")?;
            std::fs::write(place.0.join("lower").join(PROGRAM.trim_start_matches('/')), "")?;
            Ok(place)
        });
        made.map_err(|error| (path, error))
    }

    fn plan(&self, rung: Rung) -> OverlayPlan {
        OverlayPlan {
            form: rung.form(),
            lowers: vec![self.0.join("lower")],
            upper: Some(self.0.join("upper")),
            work: Some(self.0.join("work")),
            volatile: false,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed is an empty trial, and there is nobody to tell.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn owners(place: &Place) -> Check {
    let name = "records of owners";
    let probed = std::fs::File::open(&place.0)
        .and_then(|dir| rbuild_sys::owner::probe(dir.as_fd()).map_err(io::Error::from));
    match probed {
        Ok(()) => Check::passed(name, "the file system of the store keeps them"),
        Err(error) => Check::failed(
            name,
            format!("{}: {error}", place.0.display()),
            vec!["name a directory on a local file system (ext4, xfs, btrfs) with --root".to_owned()],
        ),
    }
}

/// Each way to show layers, tried where the store is: it takes one.
fn snapshotters(rung: Rung, place: &Place) -> Check {
    let name = "snapshotters";
    let tried = Means::ALL.map(|means| (means, means.probe(&place.0, rung.form())));
    let told: Vec<String> = tried
        .iter()
        .map(|(means, tried)| match tried {
            Ok(()) => format!("{means} works ({})", means.summary()),
            Err(error) => format!("{means} does not: {}", chain_text(error)),
        })
        .collect();
    let mut check = Check::passed(name, told.join("; "));
    if let (_, Err(_)) = &tried[0] {
        check.advice = vec![
            "the kernel's overlay is the fastest: name a directory on ext4, xfs or btrfs with --root; in a container, \
             a volume"
                .to_owned(),
        ];
    }
    check
}

/// A step as a build has them, with this program in it.
fn step(rung: Rung, place: &Place, machine: &Machine) -> Check {
    let name = "step";
    let source = match Means::Overlayfs.probe(&place.0, rung.form()) {
        Ok(()) if rung.has_mounts() => Source::Overlay(place.plan(rung)),
        _ => Source::Path(place.0.join("lower")),
    };
    let root = RootPlan {
        source,
        readonly: false,
    };
    let args = [PROGRAM, "version"].map(OsString::from).to_vec();
    let mut plan = Plan::new(root, args);
    plan.confinement = native::confinement(rung);
    plan.mounts.push(MountPlan {
        dest: PROGRAM.into(),
        kind: MountKind::Bind {
            source: Source::Path(machine.program.clone()),
            selector: PathBuf::from("/"),
            readonly: true,
        },
    });
    let around = if rung.has_mounts() {
        "in pid, mount, network, ipc and uts namespaces of its own, with proc, under seccomp".to_owned()
    } else {
        let landlock = match rbuild_sys::landlock::version() {
            ..=1 => "no Landlock",
            2..=5 => "Landlock for files",
            6.. => "Landlock for files and signals",
        };
        let taken = if rung.is_automatic() {
            "taken last, and refused by --rung=namespaces"
        } else {
            "so it is taken only when it is asked for: --rung=chroot"
        };
        format!(
            "in a root directory, under seccomp, with {landlock}, without proc; processes and network are this \
             container's, {taken}"
        )
    };
    if !rung.has_mounts() {
        plan.network = Network::Host;
    }
    let ran = native::sandbox(rung)
        .map_err(|error| chain_text(&error))
        .and_then(|sandbox| sandbox.spawn(&plan, &[]).map_err(|error| chain_text(&error)))
        .and_then(|running| match running.wait() {
            // The sandbox was complete, and this program is a dynamic one, without its libraries there.
            Err(WaitError::Exec { .. }) => Ok(None),
            ended => ended.map(Some).map_err(|error| chain_text(&error)),
        });
    match ran {
        Ok(None) => Check::passed(name, format!("was made ready {around}")),
        Ok(Some(exit)) if exit.status == ExitStatus::Code(0) => Check::passed(name, format!("ran {around}")),
        Ok(Some(exit)) => Check::failed(name, format!("ended with {:?}", exit.status), Vec::new()),
        Err(error) => {
            let advice = advice::to_run(&error, machine);
            Check::failed(name, error, advice)
        }
    }
}
