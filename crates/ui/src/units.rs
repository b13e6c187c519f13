//! Sizes and ages as people read and write them, in the forms of `docker` and BuildKit. Refuses negative sizes and
//! what does not fit.

use std::time::{Duration, SystemTime};

/// `12.34MB`: BuildKit's progress form, decimal units, two places; whole bytes below 1 kB
/// (`vendor/github.com/tonistiigi/units/bytes.go`).
#[must_use]
pub(crate) fn progress_size(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    let (value, unit) = scaled(bytes);
    format!("{value:.2}{unit}")
}

/// `12.3MB`: docker's table form, decimal units, four significant digits
/// (`vendor/github.com/docker/go-units/size.go`, `HumanSize`).
#[must_use]
pub fn human_size(bytes: u64) -> String {
    let (value, unit) = scaled(bytes);
    format!("{}{unit}", significant(value, 4))
}

#[allow(
    clippy::cast_precision_loss,
    reason = "sizes are shown with at most five digits"
)]
fn scaled(bytes: u64) -> (f64, &'static str) {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    (value, UNITS[unit])
}

/// Go's `%.Ng` for values from 0 up to 10^N: N significant digits without zeros at the end.
fn significant(value: f64, digits: usize) -> String {
    let mut whole = 1;
    let mut limit = 10.0;
    while value >= limit && whole < digits {
        whole += 1;
        limit *= 10.0;
    }
    // Below one, zeros after the point are not significant.
    let mut places = digits - whole;
    let mut threshold = 1.0;
    while value > 0.0 && value < threshold && places < 12 {
        places += 1;
        threshold /= 10.0;
    }
    let text = format!("{value:.places$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// There is no number, or it is negative.
    #[error("invalid size: '{0}'")]
    Size(String),
    /// The number is followed by something else than a unit.
    #[error("invalid suffix: '{0}'")]
    Suffix(String),
}

/// Reads a size with binary units: `64`, `64k`, `64KiB`, `1.5g`, `2 MB` (docker's `RAMInBytes`: every unit is a
/// power of 1024, letter case does not matter).
///
/// # Errors
/// [`SizeError`] for anything else, including negative sizes.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let invalid = || SizeError::Size(text.to_owned());
    let split = text
        .rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')
        .ok_or_else(invalid)?;
    let (number, suffix) = match text.as_bytes()[split] {
        b' ' => (&text[..split], &text[split + 1..]),
        _ => (&text[..=split], &text[split + 1..]),
    };
    let number = without_separators(number).ok_or_else(invalid)?;
    let value: f64 = number.parse().map_err(|_not_a_number| invalid())?;
    if !value.is_finite() || value.is_sign_negative() {
        return Err(invalid());
    }
    let bad_suffix = || SizeError::Suffix(suffix.to_owned());
    let lower = suffix.to_ascii_lowercase();
    let (unit, tail) = match lower.chars().next() {
        None => ('b', ""),
        Some(first) => (first, &lower[first.len_utf8()..]),
    };
    let shift = match unit {
        'b' if tail.is_empty() => 0,
        'k' => 10,
        'm' => 20,
        'g' => 30,
        't' => 40,
        'p' => 50,
        _ => return Err(bad_suffix()),
    };
    if !matches!(tail, "" | "b" | "ib") {
        return Err(bad_suffix());
    }
    let bytes = value * 2f64.powi(shift);
    if bytes >= 9_223_372_036_854_775_807.0 {
        return Err(invalid());
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "in range: checked above"
    )]
    Ok(bytes as u64)
}

/// A number without the `_` that Go's `ParseFloat` takes between digits; nothing if one stands elsewhere.
fn without_separators(number: &str) -> Option<String> {
    let bytes = number.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut separators = number.match_indices('_');
    let stand_right = separators.all(|(at, _)| at > 0 && is_digit(at - 1) && is_digit(at + 1));
    stand_right.then(|| number.replace('_', ""))
}

/// `3 days`, `About an hour`: docker's words for an age (`go-units`, `HumanDuration`).
#[must_use]
pub fn human_duration(age: Duration) -> String {
    let seconds = age.as_secs();
    let minutes = seconds / 60;
    // Hours are rounded, everything else is cut off.
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// RFC 3339 in UTC with as many places as are not zero, as Go's `RFC3339Nano`.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

/// `2026-11-23 00:37:29 +0000 UTC`: Go's words for a time in whole seconds, in UTC.
#[must_use]
pub fn go_time(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .strftime("%Y-%m-%d %H:%M:%S +0000 UTC")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_buildkit_prints_them() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (1234, "1.23kB"),
            (12_345_678, "12.35MB"),
            (2_000_000_000, "2.00GB"),
        ] {
            assert_eq!(progress_size(bytes), text);
        }
    }

    #[test]
    fn sizes_as_docker_prints_them() {
        for (bytes, text) in [
            (0, "0B"),
            (1, "1B"),
            (999, "999B"),
            (1000, "1kB"),
            (1024, "1.024kB"),
            (2_746_000, "2.746MB"),
            (123_456_789, "123.5MB"),
            (796_000, "796kB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn sizes_as_docker_reads_them() {
        for (text, bytes) in [
            ("32", 32),
            ("32b", 32),
            ("32k", 32 << 10),
            ("32K", 32 << 10),
            ("32kb", 32 << 10),
            ("32KiB", 32 << 10),
            ("32 mb", 32 << 20),
            ("1.5g", 1_610_612_736),
            ("2T", 2 << 40),
            ("1p", 1 << 50),
            ("1_000", 1000),
            ("1_0.2_5k", 10_496),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size() {
        for text in [
            "", "hello", "-32", "-32k", " 32 ", "32kib x", "1e400", "nan", "9999999p", "_1", "1_", "1__0",
            "1_.5",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        for text in ["32z", "32bb", "32kx", "32kibb", "32é"] {
            assert!(matches!(parse_size(text), Err(SizeError::Suffix(_))), "{text}");
        }
    }

    #[test]
    fn times_as_go_prints_them() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_394_249_037);
        assert_eq!(go_time(time), "2026-11-23 00:37:29 +0000 UTC");
    }

    #[test]
    fn ages() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (180, "3 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86400, "3 days"),
            (21 * 86400, "3 weeks"),
            (90 * 86400, "3 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(human_duration(Duration::from_secs(seconds)), text);
        }
    }
}
