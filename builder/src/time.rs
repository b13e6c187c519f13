//! The clock, in the units documents want.

use std::time::{SystemTime, UNIX_EPOCH};

use rbuild_oci::Timestamp;

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `milliseconds` since 1970 as documents write it; nothing outside of the years a document can name.
#[must_use]
pub fn from_ms(milliseconds: i64) -> Option<Timestamp> {
    let below = u32::try_from(milliseconds.rem_euclid(1000)).ok()?;
    Timestamp::from_unix(milliseconds.div_euclid(1000), below * 1_000_000)
}

/// A document's time as milliseconds since 1970.
#[must_use]
pub(crate) fn to_ms(time: Timestamp) -> i64 {
    time.unix_seconds()
        .saturating_mul(1000)
        .saturating_add(i64::from(time.subsec_nanoseconds() / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_both_ways() {
        for milliseconds in [0, 1, 999, 1000, -1, -1000, 1_700_000_000_123] {
            assert_eq!(from_ms(milliseconds).map(to_ms), Some(milliseconds));
        }
        assert_eq!(from_ms(i64::MAX), None);
    }
}
