//! Text as Go's `%q` shows it: error texts and the history of CMD and ENTRYPOINT hold it.

use std::fmt::Write as _;

/// `text` between double quotes with everything unprintable escaped (Go `strconv.Quote`).
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if is_printable(c) => out.push(c),
            c => push_escaped(&mut out, c),
        }
    }
    out.push('"');
    out
}

/// `["a" "b"]`: a list as Go's `%q` shows it.
#[must_use]
pub fn quote_list<S: AsRef<str>>(list: &[S]) -> String {
    let quoted: Vec<String> = list.iter().map(|item| quote(item.as_ref())).collect();
    format!("[{}]", quoted.join(" "))
}

fn push_escaped(out: &mut String, c: char) {
    let code = u32::from(c);
    let written = match code {
        0..0x80 => write!(out, "\\x{code:02x}"),
        0x80..0x1_0000 => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
    assert!(written.is_ok(), "writing to a string cannot fail");
}

/// Go's `unicode.IsPrint`, asked of the standard library: its escaping leaves printable characters alone. A letter
/// goes in front because a combining mark at the start is escaped although it is printable.
fn is_printable(c: char) -> bool {
    let pair: String = ['a', c].iter().collect();
    pair.escape_debug().eq(pair.chars()) || c == '\''
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        for (text, expected) in [
            ("", r#""""#),
            ("a b", r#""a b""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\n\t\x07\x1b\x7f\0", r#""\n\t\a\x1b\x7f\x00""#),
            ("it's ü 한 😀 e\u{301}", "\"it's ü 한 😀 e\u{301}\""),
            ("\u{a0}\u{200b}\u{e000}", r#""\u00a0\u200b\ue000""#),
            ("\u{e0001}", r#""\U000e0001""#),
        ] {
            assert_eq!(quote(text), expected);
        }
        assert_eq!(quote_list(&["/bin/sh", "-c"]), r#"["/bin/sh" "-c"]"#);
        assert_eq!(quote_list::<&str>(&[]), "[]");
    }
}
