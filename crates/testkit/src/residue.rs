//! Shows that a command left nothing behind: no mounts, no processes, no temporary files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// What existed at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Residue {
    mounts: BTreeSet<String>,
    processes: BTreeMap<u32, String>,
    temporary: BTreeSet<String>,
}

impl Residue {
    /// Looks at the mount table of this process, at processes whose program or arguments contain `mark`, and at the
    /// entries of `temporary`, which is the test's own. What others mount in their own temporary directories does not count: they
    /// may come and go beside this test.
    #[must_use]
    pub fn snapshot(mark: &str, temporary: &Path) -> Self {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let (all, own) = (std::env::temp_dir(), temporary.parent().unwrap_or(temporary));
        // Fields 1 to 3 are numbers that may be reused; the rest tells what is mounted where.
        let mounts = table
            .lines()
            .filter(|line| !is_of_others(line, &all, own))
            .map(|line| line.splitn(4, ' ').last().unwrap_or(line).to_owned())
            .collect();
        let entries = fs::read_dir(temporary).into_iter().flatten().flatten();
        let temporary = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        Self {
            mounts,
            processes: processes(mark),
            temporary,
        }
    }

    /// What is there now and was not then.
    #[must_use]
    pub fn new_since(&self, before: &Self) -> Vec<String> {
        let mounts = self
            .mounts
            .difference(&before.mounts)
            .map(|mount| format!("mount {mount}"));
        let files = self
            .temporary
            .difference(&before.temporary)
            .map(|name| format!("temporary file {name}"));
        let processes = self
            .processes
            .iter()
            .filter(|(pid, _)| !before.processes.contains_key(pid))
            .map(|(pid, command)| format!("process {pid}: {command}"));
        mounts.chain(files).chain(processes).collect()
    }

    /// Asserts that nothing new stays; processes get `grace` to end.
    #[track_caller]
    pub fn assert_nothing_new(before: &Self, mark: &str, temporary: &Path, grace: Duration) {
        let deadline = Instant::now() + grace;
        loop {
            let left = Self::snapshot(mark, temporary).new_since(before);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind:\n  {}", left.join("\n  "));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Whether a line of the mount table names temporary directories below `all`, and none of them is `own` or below it.
fn is_of_others(line: &str, all: &Path, own: &Path) -> bool {
    let names = |dir: &Path| line.contains(&format!("{}/", dir.display()));
    names(all) && !names(own)
}

/// Processes whose command line contains `mark`.
#[must_use]
pub fn processes(mark: &str) -> BTreeMap<u32, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let raw = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&raw).replace('\0', " ").trim().to_owned();
        if pid != std::process::id() && command.contains(mark) {
            found.insert(pid, command);
        }
    }
    found
}

/// `whole` seconds and a little more: a number that nobody else on this machine sleeps, whatever tests run beside this one, so that
/// its processes can be told apart. `place` is one of this test's own.
#[must_use]
pub fn own_sleep(whole: u32, place: u32) -> String {
    format!("{whole}.{place}{:07}", std::process::id())
}

/// Waits until a process runs whose command line contains `mark`; gives its id.
///
/// # Panics
/// It does not start.
#[track_caller]
#[must_use]
pub fn wait_for_process(mark: &str) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some((pid, _)) = processes(mark).first_key_value() {
            return *pid;
        }
        assert!(Instant::now() < deadline, "no process with {mark:?} starts");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until no process is left whose command line contains `mark`, for less than any of [`own_sleep`]'s that are meant to be ended.
///
/// # Panics
/// One stays.
#[track_caller]
pub fn wait_until_gone(mark: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let left = processes(mark);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "still running: {left:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_others_do_not_count() {
        let is_of_others = |line: &str| is_of_others(line, Path::new("/tmp"), Path::new("/tmp/own"));
        for (line, expected) in [
            ("/ /tmp/own/store/m rw - tmpfs none rw", false),
            (
                "/ /mnt rw - overlay o rw,lowerdir=/tmp/own/store/l:/tmp/other/l",
                false,
            ),
            ("/ /mnt rw - tmpfs none rw", false),
            ("/ /tmp/other/store/m rw - tmpfs none rw", true),
            ("/ /tmp/own2/m rw - tmpfs none rw", true),
        ] {
            assert_eq!(is_of_others(line), expected, "{line}");
        }
    }

    #[test]
    fn a_process_and_a_file_left_behind_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let temporary = dir.path().join("tmp");
        fs::create_dir(&temporary).unwrap();
        let mark = format!("--rbuild-residue-{}", std::process::id());
        let before = Residue::snapshot(&mark, &temporary);
        fs::write(temporary.join("left"), b"").unwrap();
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read line; :", &mark])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let started = wait_for_process(&mark);
        assert_eq!(started, child.id());
        let left = Residue::snapshot(&mark, &temporary).new_since(&before);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(
            left[0].contains("left") && left[1].contains("read line"),
            "{left:?}"
        );
    }
}
