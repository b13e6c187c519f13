//! Points in time as Go's `time.Time` writes them in JSON: RFC 3339 with as many fraction digits as needed.
//!
//! Refuses what Go's decoder refuses, so that a config read here is one BuildKit reads.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A time with its offset from UTC, for the years 0 to 9999. Ordered by the instant, then by offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: i64,
    nanoseconds: u32,
    offset_minutes: i32,
}

/// A text is not a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an RFC 3339 time")]
pub struct TimestampError(String);

const DAY_SECONDS: i64 = 86_400;

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const UNIX_EPOCH: Self = Self {
        seconds: 0,
        nanoseconds: 0,
        offset_minutes: 0,
    };

    /// `seconds` and `nanoseconds` after 1970-01-01T00:00:00Z, in UTC. Nothing outside of the years 0 to 9999 or
    /// for a billion nanoseconds and more.
    #[must_use]
    pub fn from_unix(seconds: i64, nanoseconds: u32) -> Option<Self> {
        let range = -62_167_219_200..253_402_300_800;
        (range.contains(&seconds) && nanoseconds < 1_000_000_000).then_some(Self {
            seconds,
            nanoseconds,
            offset_minutes: 0,
        })
    }

    /// Whole seconds since 1970-01-01T00:00:00Z, rounded down.
    #[must_use]
    pub const fn unix_seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds after [`Self::unix_seconds`].
    #[must_use]
    pub const fn subsec_nanoseconds(self) -> u32 {
        self.nanoseconds
    }

    /// The same instant in UTC.
    #[must_use]
    pub const fn utc(self) -> Self {
        Self {
            offset_minutes: 0,
            ..self
        }
    }

    /// Reads `2006-01-02T15:04:05.999999999Z` or with `+07:00` for the zone.
    ///
    /// # Errors
    /// [`TimestampError`].
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        parse(text.as_bytes()).ok_or_else(|| TimestampError(text.chars().take(64).collect()))
    }
}

fn parse(text: &[u8]) -> Option<Timestamp> {
    let number = |from: usize, len: usize| -> Option<i64> {
        text.get(from..from + len)?
            .iter()
            .try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
    };
    for (at, byte) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
        if text.get(at) != Some(&byte) {
            return None;
        }
    }
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    if !(1..=12).contains(&month) || !(1..=days_in_month(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = &text[19..];
    let mut nanoseconds = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        // Go truncates beyond nanoseconds.
        for at in 0..9 {
            let digit = fraction
                .get(at)
                .filter(|_| at < digits)
                .map_or(0, |b| u32::from(b - b'0'));
            nanoseconds = nanoseconds * 10 + digit;
        }
        rest = &fraction[digits..];
    }
    let offset_minutes = match rest {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2]
            if [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()) =>
        {
            let two = |a: &u8, b: &u8| i32::from(a - b'0') * 10 + i32::from(b - b'0');
            let (hours, minutes) = (two(h1, h2), two(m1, m2));
            if hours > 23 || minutes > 59 {
                return None;
            }
            if *sign == b'-' {
                -(hours * 60 + minutes)
            } else {
                hours * 60 + minutes
            }
        }
        _ => return None,
    };
    let local = days_from_civil(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second;
    let seconds = local - i64::from(offset_minutes) * 60;
    Some(Timestamp {
        seconds,
        nanoseconds,
        offset_minutes,
    })
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar (years counted from March, eras of 400 years).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`]: (year, month, day).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = self.seconds + i64::from(self.offset_minutes) * 60;
        let (year, month, day) = civil_from_days(local.div_euclid(DAY_SECONDS));
        let second = local.rem_euclid(DAY_SECONDS);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )?;
        if self.nanoseconds != 0 {
            let digits = format!("{:09}", self.nanoseconds);
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        if self.offset_minutes == 0 {
            return f.write_str("Z");
        }
        let sign = if self.offset_minutes < 0 { '-' } else { '+' };
        let offset = self.offset_minutes.abs();
        write!(f, "{sign}{:02}:{:02}", offset / 60, offset % 60)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        Self::parse(text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants() {
        for (text, seconds, nanoseconds) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("0001-01-01T00:00:00Z", -62_135_596_800, 0),
            ("2000-02-29T12:30:45.5Z", 951_827_445, 500_000_000),
            ("2024-12-31T23:59:59.000000001Z", 1_735_689_599, 1),
            ("2024-01-01T05:30:00+05:30", 1_704_067_200, 0),
            ("2023-12-31T16:00:00-08:00", 1_704_067_200, 0),
            ("9999-12-31T23:59:59.999999999Z", 253_402_300_799, 999_999_999),
        ] {
            let time = Timestamp::parse(text).expect(text);
            assert_eq!(
                (time.unix_seconds(), time.subsec_nanoseconds()),
                (seconds, nanoseconds),
                "{text}"
            );
            assert_eq!(time.to_string(), text);
        }
    }

    #[test]
    fn written_as_go_writes_it() {
        for (text, written) in [
            ("2020-01-01T00:00:00.000Z", "2020-01-01T00:00:00Z"),
            ("2020-01-01T00:00:00.1200Z", "2020-01-01T00:00:00.12Z"),
            ("2020-01-01T00:00:00+00:00", "2020-01-01T00:00:00Z"),
            (
                "2020-01-01T00:00:00.1234567891Z",
                "2020-01-01T00:00:00.123456789Z",
            ),
        ] {
            assert_eq!(Timestamp::parse(text).expect(text).to_string(), written);
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in [
            "",
            "2020-01-01",
            "2020-01-01 00:00:00Z",
            "2020-02-30T00:00:00Z",
            "2021-02-29T00:00:00Z",
            "2020-13-01T00:00:00Z",
            "2020-01-01T24:00:00Z",
            "2020-01-01T00:60:00Z",
            "2020-01-01T00:00:60Z",
            "2020-01-01T00:00:00",
            "2020-01-01T00:00:00.Z",
            "2020-01-01T00:00:00+24:00",
            "2020-01-01T00:00:00+0100",
            "+020-01-01T00:00:00Z",
            "2020-01-01T00:00:00Zx",
            "２020-01-01T00:00:00Z",
        ] {
            assert!(Timestamp::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_day_of_eight_centuries_round_trips() {
        let mut days = days_from_civil(1600, 1, 1);
        for year in 1600..2400 {
            for month in 1..=12 {
                for day in 1..=days_in_month(year, month) {
                    assert_eq!(days_from_civil(year, month, day), days);
                    assert_eq!(civil_from_days(days), (year, month, day));
                    days += 1;
                }
            }
        }
    }

    #[test]
    fn instants_are_ordered_whatever_their_zone() {
        let early = Timestamp::parse("2024-01-01T01:00:00+05:30").expect("time");
        let late = Timestamp::parse("2024-01-01T00:00:00Z").expect("time");
        assert!(early < late);
        assert_eq!(Timestamp::from_unix(253_402_300_800, 0), None);
        assert_eq!(Timestamp::from_unix(0, 1_000_000_000), None);
        assert_eq!(early.utc().to_string(), "2023-12-31T19:30:00Z");
    }
}
