//! Percent-encoded texts as Go's `net/url` reads them.

use rbuild_oci::go_url::{percent_decoded, wrong_escape};

/// A part of a URL with an escape that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// `text` with each `%xx` made the byte it stands for; `None` for an escape that is none.
pub(super) fn decoded(text: &str) -> Option<String> {
    let is_sound = wrong_escape(text, |_| true).is_none();
    is_sound.then(|| String::from_utf8_lossy(&percent_decoded(text)).into_owned())
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
