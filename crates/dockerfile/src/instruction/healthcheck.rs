//! HEALTHCHECK.

use crate::duration;
use crate::error::{ParseError, ParseErrorKind};
use crate::instruction::command_line;
use crate::instruction::flags::{FlagType, Flags};
use crate::parser::{Arguments, Node};

/// How a container's health is found out. Zero is "as the engine likes".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    pub test: Vec<String>,
    /// Nanoseconds between two checks.
    pub interval_ns: i64,
    /// Nanoseconds a check may take.
    pub timeout_ns: i64,
    /// Nanoseconds in which a failure does not count.
    pub start_period_ns: i64,
    /// Nanoseconds between two checks in that time.
    pub start_interval_ns: i64,
    /// Failures in a row that make it unhealthy.
    pub retries: i32,
}

pub(super) fn healthcheck(node: &Node) -> Result<Healthcheck, ParseError> {
    let fail = |kind| ParseError::new(kind, node.span);
    let Arguments::Healthcheck(kind, command) = &node.arguments else {
        return Err(fail(ParseErrorKind::AtLeastOneArgument("HEALTHCHECK")));
    };
    let kind = kind.to_uppercase();
    let command = command_line(command, &[]);
    if kind == "NONE" {
        // BuildKit does not look at flags here.
        if !command.arguments.is_empty() {
            return Err(fail(ParseErrorKind::HealthcheckNone));
        }
        return Ok(Healthcheck {
            test: vec![kind],
            ..Healthcheck::default()
        });
    }
    let names = ["interval", "timeout", "start-period", "start-interval", "retries"];
    let flags = Flags::parse(node, &names.map(|name| (name, FlagType::Text)))?;
    if kind != "CMD" {
        return Err(fail(ParseErrorKind::HealthcheckType(kind)));
    }
    if command.arguments.is_empty() {
        return Err(fail(ParseErrorKind::HealthcheckCommand));
    }
    let first = if command.prepend_shell { "CMD-SHELL" } else { "CMD" };
    let interval = |name: &'static str| interval(name, flags.text(name)).map_err(fail);
    Ok(Healthcheck {
        test: std::iter::once(first.to_owned())
            .chain(command.arguments)
            .collect(),
        interval_ns: interval("interval")?,
        timeout_ns: interval("timeout")?,
        start_period_ns: interval("start-period")?,
        start_interval_ns: interval("start-interval")?,
        retries: retries(flags.text("retries")).map_err(fail)?,
    })
}

fn interval(name: &str, text: &str) -> Result<i64, ParseErrorKind> {
    if text.is_empty() {
        return Ok(0);
    }
    match duration::parse(text).map_err(ParseErrorKind::Duration)? {
        0 => Ok(0),
        value if value < 1_000_000 => Err(ParseErrorKind::IntervalTooShort(name.to_owned())),
        value => Ok(value),
    }
}

fn retries(text: &str) -> Result<i32, ParseErrorKind> {
    if text.is_empty() {
        return Ok(0);
    }
    let bad = |reason| ParseErrorKind::Number {
        value: text.to_owned(),
        reason,
    };
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad("invalid syntax"));
    }
    let value: i32 = text.parse().map_err(|_| bad("value out of range"))?;
    if value < 0 {
        Err(ParseErrorKind::NegativeRetries(value.into()))
    } else {
        Ok(value)
    }
}
