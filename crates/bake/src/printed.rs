//! JSON as Go's `encoding/json` prints it, byte for byte: fields in the order of the struct, two spaces a level, `<`, `>` and
//! `&` escaped.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A document to be printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Printed {
    /// A text.
    Text(String),
    /// A number, a truth value, `null`.
    Bare(String),
    /// Several.
    List(Vec<Printed>),
    /// Several with names, in order.
    Fields(Vec<(String, Printed)>),
}

impl Printed {
    /// A text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// Several texts.
    #[must_use]
    pub fn texts(texts: &[String]) -> Self {
        Self::List(texts.iter().map(|text| Self::text(text)).collect())
    }

    /// The document, without a line break at its end.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, 0);
        out
    }

    fn write(&self, out: &mut String, depth: usize) {
        match self {
            Self::Text(text) => write_text(text, out),
            Self::Bare(text) => out.push_str(text),
            Self::List(values) if values.is_empty() => out.push_str("[]"),
            Self::Fields(fields) if fields.is_empty() => out.push_str("{}"),
            Self::List(values) => {
                out.push('[');
                for (at, value) in values.iter().enumerate() {
                    line(out, at, depth + 1);
                    value.write(out, depth + 1);
                }
                line(out, 0, depth);
                out.push(']');
            }
            Self::Fields(fields) => {
                out.push('{');
                for (at, (name, value)) in fields.iter().enumerate() {
                    line(out, at, depth + 1);
                    write_text(name, out);
                    out.push_str(": ");
                    value.write(out, depth + 1);
                }
                line(out, 0, depth);
                out.push('}');
            }
        }
    }
}

impl From<BTreeMap<String, Self>> for Printed {
    fn from(fields: BTreeMap<String, Self>) -> Self {
        Self::Fields(fields.into_iter().collect())
    }
}

fn line(out: &mut String, at: usize, depth: usize) {
    if at > 0 {
        out.push(',');
    }
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for next in text.chars() {
        match next {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                // A text takes whatever is written to it.
                let _written = write!(out, "\\u{:04x}", u32::from(next));
            }
            next => out.push(next),
        }
    }
    out.push('"');
}
