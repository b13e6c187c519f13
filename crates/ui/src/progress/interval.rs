//! Spans of time and their sums. An interval without an end goes on until now.

use std::time::{Duration, SystemTime};

/// From, and until if it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) start: SystemTime,
    pub(super) stop: Option<SystemTime>,
}

impl Interval {
    pub(super) fn duration(self, now: SystemTime) -> Duration {
        since(self.stop.unwrap_or(now), self.start)
    }
}

/// `later - earlier`, zero if the clock was set back.
pub(super) fn since(later: SystemTime, earlier: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}

/// The same time without overlaps, in order.
pub(super) fn merge(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort_by_key(|interval| interval.start);
    let mut merged: Vec<Interval> = Vec::with_capacity(intervals.len());
    for next in intervals {
        match merged.last_mut() {
            Some(Interval { stop: None, .. }) => break,
            Some(Interval { stop: Some(stop), .. }) if *stop >= next.start => match next.stop {
                Some(end) => *stop = end.max(*stop),
                None => {
                    if let Some(last) = merged.last_mut() {
                        last.stop = None;
                    }
                }
            },
            _ => merged.push(next),
        }
    }
    merged
}

/// Sum of merged intervals.
pub(super) fn total(intervals: &[Interval], now: SystemTime) -> Duration {
    intervals.iter().map(|interval| interval.duration(now)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn span(start: u64, stop: Option<u64>) -> Interval {
        Interval {
            start: at(start),
            stop: stop.map(at),
        }
    }

    #[test]
    fn overlaps_are_counted_once() {
        for (given, expected) in [
            (vec![], vec![]),
            (vec![span(0, Some(1))], vec![span(0, Some(1))]),
            (
                vec![span(5, Some(6)), span(0, Some(1))],
                vec![span(0, Some(1)), span(5, Some(6))],
            ),
            (vec![span(0, Some(5)), span(1, Some(2))], vec![span(0, Some(5))]),
            (vec![span(0, Some(2)), span(1, Some(5))], vec![span(0, Some(5))]),
            (vec![span(0, Some(2)), span(2, Some(5))], vec![span(0, Some(5))]),
            (
                vec![span(0, Some(2)), span(1, None), span(4, Some(5))],
                vec![span(0, None)],
            ),
            (vec![span(0, None), span(1, Some(2))], vec![span(0, None)]),
        ] {
            assert_eq!(merge(given.clone()), expected, "{given:?}");
        }
        assert_eq!(
            total(&[span(0, Some(2)), span(5, None)], at(8)),
            Duration::from_secs(5)
        );
        assert_eq!(since(at(1), at(2)), Duration::ZERO);
    }
}
