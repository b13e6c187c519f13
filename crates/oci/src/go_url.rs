//! Parts of addresses as Go's `net/url` reads them: where BuildKit finds a host, a repository or a file, so does who asks here.

/// The bytes of `text` with each `%xx` made the byte it stands for; what is no such thing stays.
#[must_use]
pub fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match escaped(bytes, at) {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
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

/// The first escape that is none, as Go shows it, or one whose byte `allowed` does not know (`unescape`).
pub fn wrong_escape(text: &str, allowed: impl Fn(u8) -> bool) -> Option<String> {
    let is_wrong = |at: usize| !escaped(text.as_bytes(), at).is_some_and(&allowed);
    let (at, _) = text.match_indices('%').find(|(at, _)| is_wrong(*at))?;
    Some(text[at..].chars().take(3).collect())
}

/// What is wrong behind a host, where there may be a port (`parseHost`).
#[must_use]
pub fn wrong_port(host: &str) -> Option<String> {
    let behind = match host.strip_prefix('[').map(|literal| literal.rsplit_once(']')) {
        Some(None) => return Some("missing ']' in host".to_owned()),
        Some(Some((_, behind))) => behind,
        None => host.rfind(':').map_or("", |at| &host[at..]),
    };
    let is_port = behind.is_empty()
        || behind
            .strip_prefix(':')
            .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    (!is_port).then(|| format!("invalid port {behind:?} after host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_or_told() {
        for (text, bytes, wrong) in [
            ("a%20b", &b"a b"[..], None),
            ("%41%2f", b"A/", None),
            ("", b"", None),
            ("%ff%zz", b"\xff%zz", Some("%zz")),
            ("%", b"%", Some("%")),
            ("%4", b"%4", Some("%4")),
            ("%+4", b"%+4", Some("%+4")),
            ("%4\u{e9}", b"%4\xc3\xa9", Some("%4\u{e9}")),
        ] {
            assert_eq!(percent_decoded(text), bytes, "{text}");
            assert_eq!(wrong_escape(text, |_| true).as_deref(), wrong, "{text}");
        }
        assert_eq!(
            wrong_escape("%C3%41", |byte| byte >= 0x80).as_deref(),
            Some("%41")
        );
    }

    #[test]
    fn a_port_is_digits_or_nothing() {
        for host in ["h", "h:", "h:80", "[::1]", "[::1]:80"] {
            assert_eq!(wrong_port(host), None, "{host}");
        }
        for (host, why) in [
            ("h:x", "invalid port \":x\" after host"),
            ("[::1]x", "invalid port \"x\" after host"),
            ("[::1", "missing ']' in host"),
        ] {
            assert_eq!(wrong_port(host).as_deref(), Some(why));
        }
    }
}
