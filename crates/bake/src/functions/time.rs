//! Functions of times. The clock is that of whoever reads the files.

use std::collections::BTreeMap;

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

use super::{Args, Function, Outcome};
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    ("formatdate", |args| {
        formatted(&args.text(0)?, &parsed(&args.text(1)?)?)
    }),
    ("formattimestamp", |args| {
        let (format, time) = (args.text(0)?, time(args, 1)?);
        if format == "X" {
            return Ok(Value::String(time.timestamp().as_second().to_string()));
        }
        formatted(&format, &time)
    }),
    ("timeadd", |args| {
        let (time, by) = (parsed(&args.text(0)?)?, duration(&args.text(1)?)?);
        let moved = time.checked_add(by).map_err(|error| error.to_string())?;
        Ok(Value::String(rfc3339(&moved)))
    }),
    ("timestamp", |args| {
        let now = at(args.names.clock_and_home().0)?;
        Ok(Value::String(rfc3339(&now)))
    }),
    ("unixtimestampparse", |args| {
        let time = at(args.integer(0)?)?;
        let week = time.date().iso_week_date();
        let number = |value: i64| Value::integer(value);
        let month = time.strftime("%B").to_string();
        let weekday = time.strftime("%A").to_string();
        let fields = [
            ("year", number(time.year().into())),
            ("year_day", number(time.day_of_year().into())),
            ("day", number(time.day().into())),
            ("month", number(time.month().into())),
            ("month_name", Value::String(month)),
            ("weekday", number(time.weekday().to_sunday_zero_offset().into())),
            ("weekday_name", Value::String(weekday)),
            ("hour", number(time.hour().into())),
            ("minute", number(time.minute().into())),
            ("second", number(time.second().into())),
            ("rfc3339", Value::String(rfc3339(&time))),
            ("iso_year", number(week.year().into())),
            ("iso_week", number(week.week().into())),
        ];
        let fields: BTreeMap<String, Value> = fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        Ok(Value::Object(fields))
    }),
];

fn at(seconds: i64) -> Result<Zoned, String> {
    let time = Timestamp::from_second(seconds).map_err(|error| error.to_string())?;
    Ok(time.to_zoned(TimeZone::UTC))
}

/// A text as RFC 3339 has times, or a number of seconds since 1970.
fn time(args: &Args<'_>, position: usize) -> Result<Zoned, String> {
    match args.any(position)? {
        Value::String(text) => parsed(text),
        Value::Number(_) => at(args.integer(position)?),
        _ => Err("must be a string timestamp or a unix timestamp number".to_owned()),
    }
}

fn parsed(text: &str) -> Result<Zoned, String> {
    let invalid = || format!("not a valid RFC3339 timestamp: {text}");
    let time: Timestamp = text.parse().map_err(|_| invalid())?;
    let pieces = jiff::fmt::temporal::DateTimeParser::new()
        .parse_pieces(text)
        .map_err(|_| invalid())?;
    let zone = pieces.to_numeric_offset().map_or(TimeZone::UTC, TimeZone::fixed);
    Ok(time.to_zoned(zone))
}

fn rfc3339(time: &Zoned) -> String {
    let text = time.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    match time.offset().seconds() {
        0 => text + "Z",
        _ => text + &time.strftime("%:z").to_string(),
    }
}

/// `1h30m`, `-10s`, as Go reads durations.
fn duration(text: &str) -> Result<SignedDuration, String> {
    let invalid = || format!("invalid duration {text:?}");
    let is_negative = text.starts_with('-');
    let mut rest = text.trim_start_matches(['+', '-']);
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest
            .find(|next: char| !next.is_ascii_digit() && next != '.')
            .ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let unit = rest
            .find(|next: char| next.is_ascii_digit())
            .unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(invalid()),
            };
        rest = &rest[unit..];
    }
    let span = SignedDuration::try_from_secs_f64(if is_negative { -seconds } else { seconds });
    span.map_err(|_| invalid())
}

fn formatted(format: &str, time: &Zoned) -> Outcome {
    let mut out = String::new();
    let mut rest = format;
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            let mut quoted = rest[1..].splitn(2, '\'');
            out.push_str(quoted.next().unwrap_or_default());
            rest = quoted.next().ok_or("unterminated literal quote")?;
            continue;
        }
        let length = rest.find(|next| next != first).unwrap_or(rest.len());
        let verb = &rest[..length];
        rest = &rest[length..];
        if first.is_ascii_alphabetic() {
            out.push_str(&part(verb, time)?);
        } else {
            out.push_str(verb);
        }
    }
    Ok(Value::String(out))
}

fn part(verb: &str, time: &Zoned) -> Result<String, String> {
    let hour = match time.hour() % 12 {
        0 => 12,
        hour => hour,
    };
    let half = if time.hour() < 12 { "am" } else { "pm" };
    let is_utc = time.offset().seconds() == 0;
    Ok(match verb {
        "YYYY" => format!("{:04}", time.year()),
        "YY" => format!("{:02}", time.year().rem_euclid(100)),
        "MMMM" => time.strftime("%B").to_string(),
        "MMM" => time.strftime("%b").to_string(),
        "MM" => format!("{:02}", time.month()),
        "M" => time.month().to_string(),
        "DD" => format!("{:02}", time.day()),
        "D" => time.day().to_string(),
        "EEEE" => time.strftime("%A").to_string(),
        "EEE" => weekday(time.weekday()).to_owned(),
        "hh" => format!("{:02}", time.hour()),
        "h" => time.hour().to_string(),
        "HH" => format!("{hour:02}"),
        "H" => hour.to_string(),
        "AA" => half.to_uppercase(),
        "aa" => half.to_owned(),
        "mm" => format!("{:02}", time.minute()),
        "m" => time.minute().to_string(),
        "ss" => format!("{:02}", time.second()),
        "s" => time.second().to_string(),
        "Z" if is_utc => "Z".to_owned(),
        "ZZZ" if is_utc => "UTC".to_owned(),
        "ZZZZ" | "ZZZ" => time.strftime("%z").to_string(),
        "ZZZZZ" | "Z" => time.strftime("%:z").to_string(),
        _ => return Err(format!("invalid date format verb {verb:?}")),
    })
}

const fn weekday(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "Mon",
        Weekday::Tuesday => "Tue",
        Weekday::Wednesday => "Wed",
        Weekday::Thursday => "Thu",
        Weekday::Friday => "Fri",
        Weekday::Saturday => "Sat",
        Weekday::Sunday => "Sun",
    }
}
