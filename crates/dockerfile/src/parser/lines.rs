//! Physical lines, and what ends them.

use std::borrow::Cow;

/// Hands out lines with their line ends. Bytes that are not UTF-8 become U+FFFD: no instruction could hold them anyway.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    rest: &'a [u8],
    number: u32,
    too_long: bool,
}

impl<'a> Lines<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes),
            number: 0,
            too_long: false,
        }
    }

    /// The next line; none at the end or when one is longer than BuildKit reads.
    pub(super) fn next(&mut self) -> Option<Cow<'a, str>> {
        if self.rest.is_empty() || self.too_long {
            return None;
        }
        let end = self
            .rest
            .iter()
            .position(|b| *b == b'\n')
            .map_or(self.rest.len(), |at| at + 1);
        let (line, rest) = self.rest.split_at(end);
        self.number = self.number.saturating_add(1);
        if line.strip_suffix(b"\n").unwrap_or(line).len() > MAX_LINE_BYTES {
            self.too_long = true;
            return None;
        }
        self.rest = rest;
        Some(String::from_utf8_lossy(line))
    }

    /// Number of the line handed out last, 1-based.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn stopped_at_long_line(&self) -> bool {
        self.too_long
    }
}

pub(super) fn without_line_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// `line` without its escape character at the end, and whether there was one. Two of them are an escaped escape.
pub(super) fn cut_continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => (before, true),
        _ => (line, false),
    }
}

/// Go `bufio.MaxScanTokenSize`, less the line end.
const MAX_LINE_BYTES: usize = 65_535;
