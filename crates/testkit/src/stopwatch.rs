//! How long something took for its own part: what a busy machine kept from it does not count.

use std::fs;
use std::time::{Duration, Instant};

/// Measures from its start.
#[derive(Debug)]
pub struct Stopwatch {
    start: Instant,
    stalled: Duration,
}

impl Stopwatch {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            stalled: stalled(),
        }
    }

    /// All the time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The time since the start but for that in which some process of the machine waited for a processor or a disk: on an
    /// idle machine all of it, beside other work less, so that a limit on it does not tell how busy the machine is.
    #[must_use]
    pub fn own(&self) -> Duration {
        let waited = stalled().saturating_sub(self.stalled);
        self.elapsed().saturating_sub(waited)
    }
}

/// For how long since boot some process waited for a processor or a disk; none where the kernel does not count it.
fn stalled() -> Duration {
    ["cpu", "io"]
        .iter()
        .filter_map(|kind| fs::read_to_string(format!("/proc/pressure/{kind}")).ok())
        .filter_map(|text| some_total(&text))
        .sum()
}

/// The total of the line `some` (the kernel's `Documentation/accounting/psi.rst`).
fn some_total(pressure: &str) -> Option<Duration> {
    let line = pressure.lines().find(|line| line.starts_with("some "))?;
    let total = line.split(' ').find_map(|word| word.strip_prefix("total="))?;
    total.parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_some_is_read_in_microseconds() {
        let text = "some avg10=86.83 avg60=78.38 avg300=74.89 total=2500000\nfull avg10=0.00 total=7\n";
        assert_eq!(some_total(text), Some(Duration::from_millis(2500)));
        for none in ["", "full avg10=0.00 total=7\n", "some total=x\n"] {
            assert_eq!(some_total(none), None, "{none:?}");
        }
    }

    #[test]
    fn what_others_kept_from_it_does_not_count() {
        let now = stalled();
        let watch = |stalled| Stopwatch {
            start: Instant::now() - Duration::from_secs(60),
            stalled,
        };
        // A minute in which nobody waited, and one in which all that was waited since boot falls.
        assert!(watch(now + Duration::from_secs(3600)).own() >= Duration::from_secs(60));
        let busy = watch(Duration::ZERO).own();
        assert!(busy <= Duration::from_secs(61).saturating_sub(now), "{busy:?}");
    }
}
