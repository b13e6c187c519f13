//! `--name=value` flags of one instruction.

use crate::error::{ParseError, ParseErrorKind};
use crate::parser::Node;
use crate::suggest;

/// How often a flag may stand and what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlagType {
    Boolean,
    Text,
    List,
}

/// The flags an instruction was given, checked against those it knows.
#[derive(Debug)]
pub(super) struct Flags<'a> {
    given: Vec<(&'static str, &'a str)>,
}

impl<'a> Flags<'a> {
    /// Checks that there are none.
    pub(super) fn none(node: &Node) -> Result<(), ParseError> {
        Flags::parse(node, &[]).map(|_| ())
    }

    /// Reads the flags of `node`, which may be those in `known`.
    pub(super) fn parse(node: &'a Node, known: &[(&'static str, FlagType)]) -> Result<Self, ParseError> {
        let fail = |kind| ParseError::new(kind, node.span);
        let mut given: Vec<(&'static str, &'a str)> = Vec::new();
        for flag in &node.flags {
            let flag = flag.strip_prefix("--").unwrap_or(flag);
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag, None),
            };
            let Some((known_name, flag_type)) = known.iter().copied().find(|(known, _)| *known == name)
            else {
                let mut error = fail(ParseErrorKind::UnknownFlag(name.to_owned()));
                error.suggestion = suggest::nearest(name, known.iter().map(|(known, _)| *known), true);
                return Err(error);
            };
            if flag_type != FlagType::List && given.iter().any(|(seen, _)| *seen == name) {
                return Err(fail(ParseErrorKind::DuplicateFlag(name.to_owned())));
            }
            let missing = || fail(ParseErrorKind::FlagWithoutValue(name.to_owned()));
            let value = match (flag_type, value) {
                (FlagType::Boolean, None) => "true",
                (FlagType::Boolean, Some("")) | (_, None) => return Err(missing()),
                (FlagType::Boolean, Some(value)) => boolean(value).ok_or_else(|| {
                    fail(ParseErrorKind::NotBoolean {
                        flag: name.to_owned(),
                        value: value.to_owned(),
                    })
                })?,
                (_, Some(value)) => value,
            };
            given.push((known_name, value));
        }
        Ok(Self { given })
    }

    /// Value of a text flag; empty if it was not given.
    pub(super) fn text(&self, name: &str) -> &'a str {
        self.given
            .iter()
            .find(|(given, _)| *given == name)
            .map_or("", |(_, value)| value)
    }

    /// Value of a boolean flag, if it was given.
    pub(super) fn boolean(&self, name: &str) -> Option<bool> {
        self.given
            .iter()
            .find(|(given, _)| *given == name)
            .map(|(_, value)| *value == "true")
    }

    /// Values of a list flag.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        self.given
            .iter()
            .filter(|(given, _)| *given == name)
            .map(|(_, value)| (*value).to_owned())
            .collect()
    }

    /// Whether the flag was given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| *given == name)
    }
}

fn boolean(value: &str) -> Option<&'static str> {
    if value.eq_ignore_ascii_case("true") {
        Some("true")
    } else if value.eq_ignore_ascii_case("false") {
        Some("false")
    } else {
        None
    }
}
