//! What limits are in the files of a kernel: pure text, for both versions of control groups
//! (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/).

use crate::plan::{Limits, Swap};

/// A controller that limits are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Controller {
    Memory,
    Cpu,
    Cpuset,
}

impl Controller {
    pub(super) const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Cpuset];

    /// The kernel's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
        }
    }
}

/// The two interfaces to control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// One limit: as its user knows it, and as files of a group, in the order in which they are written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) controller: Controller,
    /// `memory=64m`.
    pub(super) shown: String,
    /// File and text, or why there is none.
    pub(super) writes: Result<Vec<(&'static str, String)>, &'static str>,
}

/// Microseconds after which a quota begins anew, where nobody says otherwise (the kernel's own).
const CPU_PERIOD_US: u64 = 100_000;

/// All settings of `limits`.
pub(super) fn settings(limits: &Limits, version: Version) -> Vec<Setting> {
    let mut all = Vec::new();
    let mut add = |controller, shown: String, writes| {
        all.push(Setting {
            controller,
            shown,
            writes,
        });
    };
    let v1 = version == Version::V1;
    let file = |old: &'static str, new: &'static str| if v1 { old } else { new };
    if let Some(bytes) = limits.memory_bytes {
        let name = file("memory.limit_in_bytes", "memory.max");
        let writes = Ok(vec![(name, bytes.to_string())]);
        add(Controller::Memory, format!("memory={bytes}"), writes);
    }
    if let Some(swap) = limits.memory_swap {
        let name = file("memory.memsw.limit_in_bytes", "memory.swap.max");
        let shown = match swap {
            Swap::Unlimited => "memory-swap=-1".to_owned(),
            Swap::Bytes(bytes) => format!("memory-swap={bytes}"),
        };
        let text = swap_text(limits.memory_bytes, swap, version);
        add(Controller::Memory, shown, text.map(|text| vec![(name, text)]));
    }
    if let Some(shares) = limits.cpu_shares {
        let text = if v1 { shares } else { weight(shares) };
        let writes = Ok(vec![(file("cpu.shares", "cpu.weight"), text.to_string())]);
        add(Controller::Cpu, format!("cpu-shares={shares}"), writes);
    }
    if limits.cpu_period_us.is_some() || limits.cpu_quota_us.is_some() {
        let (period, quota) = (limits.cpu_period_us, limits.cpu_quota_us);
        let part = |name: &str, value: Option<u64>| value.map(|value| format!("{name}={value}"));
        let shown: Vec<String> = part("cpu-period", period)
            .into_iter()
            .chain(part("cpu-quota", quota))
            .collect();
        add(
            Controller::Cpu,
            shown.join(" "),
            Ok(bandwidth(period, quota, version)),
        );
    }
    let sets = [
        ("cpuset-cpus", "cpuset.cpus", &limits.cpuset_cpus),
        ("cpuset-mems", "cpuset.mems", &limits.cpuset_mems),
    ];
    for (name, file, set) in sets {
        if let Some(set) = set {
            add(
                Controller::Cpuset,
                format!("{name}={set}"),
                Ok(vec![(file, set.clone())]),
            );
        }
    }
    all
}

/// Version 2 counts swap apart, version 1 together with memory.
fn swap_text(memory: Option<u64>, swap: Swap, version: Version) -> Result<String, &'static str> {
    match (swap, version) {
        (Swap::Unlimited, Version::V1) => Ok("-1".to_owned()),
        (Swap::Unlimited, Version::V2) => Ok("max".to_owned()),
        (Swap::Bytes(bytes), _) => {
            let memory = memory.ok_or("it needs a limit of memory beside it")?;
            let swap = bytes
                .checked_sub(memory)
                .ok_or("it is less than the limit of memory, which it includes")?;
            Ok(if version == Version::V1 { bytes } else { swap }.to_string())
        }
    }
}

fn bandwidth(period: Option<u64>, quota: Option<u64>, version: Version) -> Vec<(&'static str, String)> {
    match version {
        Version::V1 => {
            let period = period.map(|us| ("cpu.cfs_period_us", us.to_string()));
            let quota = quota.map(|us| ("cpu.cfs_quota_us", us.to_string()));
            period.into_iter().chain(quota).collect()
        }
        Version::V2 => {
            let quota = quota.map_or_else(|| "max".to_owned(), |us| us.to_string());
            let period = period.unwrap_or(CPU_PERIOD_US);
            vec![("cpu.max", format!("{quota} {period}"))]
        }
    }
}

/// Shares as a weight: least, usual and most of the one are those of the other (`ConvertCPUSharesToCgroupV2Value` of
/// opencontainers/cgroups).
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "2 to 262144 in, 1 to 10000 out"
)]
fn weight(shares: u64) -> u64 {
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10_f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(limits: &Limits, version: Version) -> Vec<(&'static str, String)> {
        let settings = settings(limits, version).into_iter();
        settings.flat_map(|setting| setting.writes.unwrap()).collect()
    }

    fn pairs(all: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        all.iter()
            .map(|(file, text)| (*file, (*text).to_owned()))
            .collect()
    }

    fn full() -> Limits {
        Limits {
            memory_bytes: Some(64 << 20),
            memory_swap: Some(Swap::Bytes(96 << 20)),
            cpu_shares: Some(1024),
            cpu_period_us: Some(50_000),
            cpu_quota_us: Some(25_000),
            cpuset_cpus: Some("0-1".to_owned()),
            cpuset_mems: Some("0".to_owned()),
            strict: false,
        }
    }

    #[test]
    fn every_limit_has_its_file_in_both_versions() {
        let v1 = pairs(&[
            ("memory.limit_in_bytes", "67108864"),
            ("memory.memsw.limit_in_bytes", "100663296"),
            ("cpu.shares", "1024"),
            ("cpu.cfs_period_us", "50000"),
            ("cpu.cfs_quota_us", "25000"),
            ("cpuset.cpus", "0-1"),
            ("cpuset.mems", "0"),
        ]);
        assert_eq!(texts(&full(), Version::V1), v1);
        let v2 = pairs(&[
            ("memory.max", "67108864"),
            ("memory.swap.max", "33554432"),
            ("cpu.weight", "100"),
            ("cpu.max", "25000 50000"),
            ("cpuset.cpus", "0-1"),
            ("cpuset.mems", "0"),
        ]);
        assert_eq!(texts(&full(), Version::V2), v2);
        assert_eq!(texts(&Limits::default(), Version::V1), []);
    }

    #[test]
    fn a_quota_has_the_usual_period_and_a_period_no_quota() {
        let quota = Limits {
            cpu_quota_us: Some(5000),
            ..Limits::default()
        };
        assert_eq!(texts(&quota, Version::V2), pairs(&[("cpu.max", "5000 100000")]));
        assert_eq!(texts(&quota, Version::V1), pairs(&[("cpu.cfs_quota_us", "5000")]));
        let period = Limits {
            cpu_period_us: Some(5000),
            ..Limits::default()
        };
        assert_eq!(texts(&period, Version::V2), pairs(&[("cpu.max", "max 5000")]));
    }

    #[test]
    fn swap_includes_memory() {
        let swap = |memory, swap, version| swap_text(memory, swap, version);
        assert_eq!(swap(None, Swap::Unlimited, Version::V2), Ok("max".to_owned()));
        assert_eq!(swap(None, Swap::Unlimited, Version::V1), Ok("-1".to_owned()));
        assert_eq!(swap(Some(5), Swap::Bytes(5), Version::V2), Ok("0".to_owned()));
        for version in [Version::V1, Version::V2] {
            assert!(
                swap(None, Swap::Bytes(5), version)
                    .unwrap_err()
                    .contains("beside")
            );
            assert!(
                swap(Some(6), Swap::Bytes(5), version)
                    .unwrap_err()
                    .contains("less")
            );
        }
    }

    #[test]
    fn weights_span_the_whole_range() {
        let known = [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)];
        for (shares, expected) in known {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        assert!(weight(512) < weight(1024) && weight(1024) < weight(2048));
    }
}
