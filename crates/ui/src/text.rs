//! Makes text of strangers safe to print: names, error texts, and the output of steps.
//!
//! [`one_line`] is for what names something (vertex names, errors, tags, labels): no control character passes.
//! `source_line` is for lines of a Dockerfile: the same, but tabs stay. [`LineSplitter`] is for the output of
//! steps: it cuts a byte stream into lines, lets colours (SGR sequences) pass and writes everything else that a
//! terminal would obey as a visible escape.
//!
//! Refuses: cursor movement, window titles, clipboard writes, C1 controls, and the invisible characters that reorder
//! or hide text (security row 44).

use std::borrow::Cow;
use std::fmt::Write as _;

mod splitter;

pub use splitter::{LineSplitter, MAX_LINE_BYTES, Piece, Styles};

/// `text` as one line without any control character.
///
/// A tab becomes a space, as BuildKit does in its names; everything else that is not printable becomes a Rust-like
/// escape (`\n`, `\x1b`, `\u{202e}`).
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| !is_unsafe(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\t' => out.push(' '),
            c if is_unsafe(c) => push_escape(&mut out, c),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// `text` as one line of source: like [`one_line`], but tabs stay and a carriage return at the end is dropped. A byte order mark
/// stands in front of a file's first line, where it hides nothing, and behind its margin where lines are numbered.
#[must_use]
pub(crate) fn source_line(text: &str) -> String {
    let text = text.strip_suffix('\r').unwrap_or(text);
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        if c != '\t' && is_unsafe(c) && !(c == '\u{feff}' && is_margin(&text[..at])) {
            push_escape(&mut out, c);
        } else {
            out.push(c);
        }
    }
    out
}

fn is_margin(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || b" |>".contains(&byte))
}

/// Many lines: each made safe by [`one_line`], line feeds kept.
#[must_use]
pub fn lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            out.push('\n');
        }
        out.push_str(&source_line(line));
    }
    out
}

/// Whether a terminal would obey `c`, or a reader be misled by it: C0, DEL, C1, line separators, and the
/// characters that change direction or take no room (Unicode 15, general category Cf, as far as they can forge text).
#[must_use]
pub(crate) fn is_unsafe(c: char) -> bool {
    matches!(c,
        '\0'..='\x1f'
        | '\x7f'..='\u{9f}'
        | '\u{61c}'
        | '\u{200b}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

/// Appends the visible form of `c`.
pub(crate) fn push_escape(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if u32::from(c) < 0x80 => push_byte_escape(out, c as u8),
        c => {
            // Writing to a String cannot fail.
            let _infallible = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
    }
}

/// Appends the visible form of a byte that is no character.
pub(crate) fn push_byte_escape(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push_str("\\x");
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

/// Columns that `text` takes on a terminal. Wide characters are counted by block, which errs on the wide side.
#[must_use]
pub fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// The longest start of `text` that takes at most `columns`.
#[must_use]
pub fn truncate(text: &str, columns: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += char_width(c);
        if used > columns {
            return &text[..at];
        }
    }
    text
}

const fn char_width(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}'
        | '\u{200c}'
        | '\u{200d}'
        | '\u{20d0}'..='\u{20ff}'
        | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
pub(crate) mod tests;
