//! The mounts of a step beside those of runc's container, both ways: what a step has keeps from it what runc's keeps, each of runc's
//! is there, and keeps no more than runc's but for what is listed here with its reason.

use std::collections::{BTreeMap, BTreeSet};

use crate::e2e::hostile::canary::Rung;

/// What keeps a mount from being of use to a step.
const KEPT: [&str; 4] = ["ro", "nosuid", "nodev", "noexec"];

/// Mounts of both that keep more from a step: where, what, and why.
const STRICTER: [(&[&str], &[&str], &str); 5] = [
    (
        &["/"],
        &["nodev"],
        "a step has `CAP_MKNOD` and no control group for devices",
    ),
    (
        &["/dev"],
        &["nodev"],
        "each device is a mount of its own, and nothing else there opens",
    ),
    (
        &[
            "/dev/full",
            "/dev/null",
            "/dev/random",
            "/dev/tty",
            "/dev/urandom",
            "/dev/zero",
        ],
        &["nosuid", "noexec"],
        "in a user namespace runc binds nodes with the options of the host's `/dev`",
    ),
    (
        &["/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/firmware"],
        &["nosuid", "nodev", "noexec"],
        "the mask is our own empty directory, runc's a file system that is read-only",
    ),
    (
        &[
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/sched_debug",
            "/proc/timer_list",
            "/proc/timer_stats",
        ],
        &["nosuid", "noexec"],
        "the mask is our null device, runc's that of its own `/dev`",
    ),
];

/// What is not the same, on all rungs.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Rows of the list that were needed.
    listed: BTreeSet<usize>,
    unlisted: Vec<String>,
}

/// The mounts among facts, with what each keeps from the step.
fn mounts(facts: &BTreeSet<String>) -> BTreeMap<&str, BTreeSet<&str>> {
    let lines = facts.iter().filter_map(|fact| fact.strip_prefix("mount "));
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(place, options)| {
            let kept = options.split(',').filter(|option| KEPT.contains(option));
            (place, kept.collect())
        })
        .collect()
}

impl Compared {
    pub(super) fn compare(&mut self, rung: Rung, ours: &BTreeSet<String>, theirs: &BTreeSet<String>) {
        let (ours, theirs) = (mounts(ours), mounts(theirs));
        for (place, kept) in &ours {
            // Below these each place is a device, or is masked by one.
            let device = place.starts_with("/dev/") || place.starts_with("/proc/");
            let wanted: BTreeSet<&str> = match theirs.get(place) {
                Some(theirs) => theirs.clone(),
                None if device => BTreeSet::from(["nosuid", "noexec"]),
                None => BTreeSet::from(KEPT),
            };
            let looser: Vec<_> = wanted.difference(kept).collect();
            if !looser.is_empty() {
                self.unlisted
                    .push(format!("{rung:?}: {place} is not {looser:?}: {kept:?}"));
            }
        }
        for (place, kept) in theirs {
            let Some(ours) = ours.get(place) else {
                self.unlisted.push(format!("{rung:?}: {place} is not there"));
                continue;
            };
            for more in ours.difference(&kept) {
                let is_of = |row: &(&[&str], &[&str], &str)| row.0.contains(&place) && row.1.contains(more);
                match STRICTER.iter().position(is_of) {
                    Some(row) => drop(self.listed.insert(row)),
                    None => self.unlisted.push(format!("{rung:?}: {place} is {more}")),
                }
            }
        }
    }

    /// Everything found is listed, and where every rung was looked at everything listed was found.
    #[track_caller]
    pub(super) fn assert_listed(&self, all: bool) {
        assert!(self.unlisted.is_empty(), "{:#?}", self.unlisted);
        for (row, (places, _, why)) in STRICTER.iter().enumerate() {
            assert!(
                self.listed.contains(&row) || !all,
                "{places:?} are as runc's on every rung: {why}"
            );
        }
    }
}
