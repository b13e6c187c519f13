//! Processors without a control group: the affinity that a process hands down, and may change.

use std::io;

use rustix::io::Errno;
use rustix::thread::CpuSet;

/// Keeps this process and those it starts to the processors of `list`, such as `0-2,4`.
pub(super) fn keep_to(list: &str) -> io::Result<()> {
    let set = parse(list).ok_or(Errno::INVAL)?;
    rustix::thread::sched_setaffinity(None, &set).map_err(Into::into)
}

fn parse(list: &str) -> Option<CpuSet> {
    let mut set = CpuSet::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high): (usize, usize) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
        if high >= CpuSet::MAX_CPU || low > high {
            return None;
        }
        (low..=high).for_each(|cpu| set.set(cpu));
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_kernel_does() {
        let cpus = |list: &str| -> Option<Vec<usize>> {
            let set = parse(list)?;
            Some((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
        };
        assert_eq!(cpus("0"), Some(vec![0]));
        assert_eq!(cpus(" 0-2, 4,"), Some(vec![0, 1, 2, 4]));
        for wrong in ["a", "2-1", "0-99999", "-1", "1-"] {
            assert_eq!(cpus(wrong), None, "{wrong}");
        }
    }
}
