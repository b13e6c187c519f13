//! The cache is cleared by itself: after builds, by the rules of `[worker.oci]` in `buildkitd.toml` or by BuildKit's
//! own (`cmd/buildkitd/config/gcpolicy.go`). Owns when and by which rules; what a rule means is what it means to a client
//! that prunes by it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::PruneRequest;
use bollard_buildkit_proto::moby::buildkit::v1::types::GcPolicy;

use crate::core::Core;
use crate::usage;

/// Builds that end within this time are followed by one collection.
const PAUSE: Duration = Duration::from_secs(60);
/// Data that is made again most easily goes after this long without use, and when it takes this much.
const EASY_UNUSED: Duration = Duration::from_secs(48 * 3600);
const EASY_BYTES: u64 = 512_000_000;
/// Everything goes after this long without use.
const UNUSED: Duration = Duration::from_secs(60 * 24 * 3600);
/// What is kept, and what is left free, where the file says nothing: a part of the disk, or a number if that is less.
const RESERVED: (Space, u64) = (Space::Percent(10), 10_000_000_000);
const MAX_USED: (Space, u64) = (Space::Percent(80), 100_000_000_000);
const MIN_FREE: Space = Space::Percent(20);
/// A part of a disk whose size is not known.
const UNKNOWN_DISK: u64 = 2_000_000_000;

/// An amount of disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// So many bytes.
    Bytes(u64),
    /// This part of the disk.
    Percent(u64),
}

impl Default for Space {
    /// No limit.
    fn default() -> Self {
        Self::Bytes(0)
    }
}

impl Space {
    fn bytes(self, disk: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(0) => 0,
            Self::Percent(_) if disk == 0 => UNKNOWN_DISK,
            // BuildKit's rounding: to whole billions, upwards.
            Self::Percent(part) => (disk.saturating_mul(part) / 100 / (1 << 30) + 1) * 1_000_000_000,
        }
    }
}

/// How much is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// This much always is.
    pub reserved: Space,
    /// No more than this.
    pub max_used: Space,
    /// Less, until this much of the disk is free.
    pub min_free: Space,
}

/// A rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Records of internal use too.
    pub all: bool,
    /// Which records; every one if there are none.
    pub filters: Vec<String>,
    /// Only what was not used for this long.
    pub keep_duration: Duration,
    /// How much is kept.
    pub limits: Limits,
}

/// What the configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Rules {
    /// Nothing is collected.
    #[default]
    Off,
    /// BuildKit's own rules with these limits, or with limits that follow from the disk.
    Standard(Option<Limits>),
    /// These.
    Listed(Vec<Rule>),
}

impl Rules {
    /// The rules for the store at `root`, in the order in which they are followed.
    #[must_use]
    pub fn policies(&self, root: &Path) -> Vec<GcPolicy> {
        let disk = rustix::fs::statvfs(root).map_or(0, |stat| stat.f_blocks.saturating_mul(stat.f_frsize));
        let rules = match self {
            Self::Off => Vec::new(),
            Self::Standard(limits) => standard(limits.unwrap_or_else(|| detected(disk))),
            Self::Listed(rules) => rules.clone(),
        };
        rules.iter().map(|rule| policy(rule, disk)).collect()
    }
}

fn detected(disk: u64) -> Limits {
    let least = |(part, number): (Space, u64)| Space::Bytes(part.bytes(disk).min(number));
    Limits {
        reserved: least(RESERVED),
        max_used: least(MAX_USED),
        min_free: MIN_FREE,
    }
}

fn standard(limits: Limits) -> Vec<Rule> {
    let easy = [
        "type==source.local",
        "type==exec.cachemount",
        "type==source.git.checkout",
    ];
    let within = |keep_duration, all| Rule {
        all,
        keep_duration,
        limits,
        filters: Vec::new(),
    };
    vec![
        Rule {
            filters: easy.map(str::to_owned).to_vec(),
            keep_duration: EASY_UNUSED,
            limits: Limits {
                max_used: Space::Bytes(EASY_BYTES),
                ..Limits::default()
            },
            all: false,
        },
        within(UNUSED, false),
        within(Duration::ZERO, false),
        within(Duration::ZERO, true),
    ]
}

fn policy(rule: &Rule, disk: u64) -> GcPolicy {
    let bytes = |space: Space| i64::try_from(space.bytes(disk)).unwrap_or(i64::MAX);
    GcPolicy {
        all: rule.all,
        keep_duration: i64::try_from(rule.keep_duration.as_nanos()).unwrap_or(i64::MAX),
        filters: rule.filters.clone(),
        reserved_space: bytes(rule.limits.reserved),
        max_used_space: bytes(rule.limits.max_used),
        min_free_space: bytes(rule.limits.min_free),
    }
}

/// Collects once now, and then after builds, for as long as it is polled.
pub(crate) async fn keep_collecting(core: Arc<Core>) {
    if core.gc.is_empty() {
        return std::future::pending().await;
    }
    loop {
        for policy in &core.gc {
            // What cannot be removed now is tried again after the next build.
            drop(usage::prune(&core, &request(policy)).await);
        }
        tokio::time::sleep(PAUSE).await;
        core.builds.ended().await;
    }
}

fn request(policy: &GcPolicy) -> PruneRequest {
    PruneRequest {
        filter: policy.filters.clone(),
        all: policy.all,
        keep_duration: policy.keep_duration,
        reserved_space: policy.reserved_space,
        max_used_space: policy.max_used_space,
        min_free_space: policy.min_free_space,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_rules_are_those_of_buildkit() {
        // What buildkitd 73ed6825 says of itself on a disk of 252 GiB.
        let disk = 270_000_000_000;
        let rules = standard(detected(disk));
        let policies: Vec<_> = rules.iter().map(|rule| policy(rule, disk)).collect();
        assert_eq!(policies.len(), 4);
        assert_eq!(policies[0].filters.len(), 3);
        assert_eq!(policies[0].keep_duration, 48 * 3600 * 1_000_000_000);
        assert_eq!(
            (policies[0].max_used_space, policies[0].reserved_space),
            (512_000_000, 0)
        );
        for policy in &policies[1..] {
            assert_eq!(policy.reserved_space, 10_000_000_000);
            assert_eq!(policy.max_used_space, 100_000_000_000);
            assert_eq!(policy.min_free_space, 51_000_000_000);
        }
        assert_eq!([policies[2].all, policies[3].all], [false, true]);
    }

    #[test]
    fn parts_of_a_disk_are_rounded_up_and_of_an_unknown_one_a_guess() {
        assert_eq!(Space::Percent(10).bytes(100 << 30), 11_000_000_000);
        assert_eq!(Space::Percent(10).bytes(1 << 30), 1_000_000_000);
        assert_eq!(Space::Percent(10).bytes(0), UNKNOWN_DISK);
        assert_eq!((Space::Percent(0).bytes(0), Space::Bytes(7).bytes(0)), (0, 7));
    }

    #[test]
    fn limits_of_the_file_take_the_place_of_detected_ones() {
        let limits = Limits {
            max_used: Space::Bytes(5),
            ..Limits::default()
        };
        let dir = tempfile::tempdir().unwrap();
        let policies = Rules::Standard(Some(limits)).policies(dir.path());
        assert_eq!((policies[1].max_used_space, policies[1].reserved_space), (5, 0));
        assert!(Rules::Off.policies(dir.path()).is_empty());
        let listed = Rules::Listed(vec![Rule::default()]).policies(dir.path());
        assert_eq!(listed, [GcPolicy::default()]);
    }
}
