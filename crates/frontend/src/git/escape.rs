//! Percent-encoding as Go's `net/url` reads it.

/// A part of a URL with an escape that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// `text` with each `%xx` made the byte it stands for; `None` for an escape that is none.
pub(super) fn decoded(text: &str) -> Option<String> {
    is_escaped(text).then(|| String::from_utf8_lossy(&bytes(text)).into_owned())
}

/// The pairs of a query, in their order. Go reads no pair with a semicolon, nor one with a wrong escape (`parseQuery`).
pub(super) fn pairs(query: &str) -> impl Iterator<Item = Result<(String, String), Malformed>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        if pair.contains(';') {
            return Err(Malformed);
        }
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let part = |text: &str| decoded(&text.replace('+', " ")).ok_or(Malformed);
        Ok((part(key)?, part(value)?))
    })
}

/// The bytes of `text` with each `%xx` made the byte it stands for; what is no such thing stays.
pub(super) fn bytes(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match escaped(bytes, at) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

fn is_escaped(text: &str) -> bool {
    let bytes = text.as_bytes();
    (0..bytes.len()).all(|at| bytes[at] != b'%' || escaped(bytes, at).is_some())
}

/// What the escape at `at` stands for, if there is one.
fn escaped(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| {
        let digit = char::from(*bytes.get(at)?).to_digit(16)?;
        u8::try_from(digit).ok()
    };
    match bytes.get(at) {
        Some(b'%') => Some(digit(at + 1)? << 4 | digit(at + 2)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_or_refused() {
        for (text, expected) in [
            ("a%20b", Some("a b")),
            ("%41%2f", Some("A/")),
            ("", Some("")),
            ("%", None),
            ("%4", None),
            ("%zz", None),
            ("%+4", None),
            ("%4\u{e9}", None),
        ] {
            assert_eq!(decoded(text).as_deref(), expected, "{text}");
        }
        assert_eq!(bytes("%ff%zz"), b"\xff%zz");
        let found: Vec<_> = pairs("a=1&&b&c=%zz&d=x;y&e+f=g%20h&=").collect();
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(
            found,
            [
                pair("a", "1"),
                pair("b", ""),
                Err(Malformed),
                Err(Malformed),
                pair("e f", "g h"),
                pair("", "")
            ]
        );
    }
}
