//! Addresses as Go reads and writes them (`net/url`): the same host and file are asked for as by BuildKit, or none.
//!
//! The library for URLs mends what browsers mend: no host, blanks that are dropped, escapes that are none, a backslash as a
//! slash. What is left of its mending are `.` and `..` between slashes, which it takes out as RFC 3986, section 6.2.2.3, and
//! every browser do, and Go does not.

use std::fmt::Write as _;

use rbuild_oci::go_url::{percent_decoded, wrong_escape, wrong_port};

use super::UrlError;

/// What stands in a path as it is (`net/url`, `validEncoded`); of an escaped path `[` and `]` as well.
const PLAIN: &[u8] = b"-_.~$&+,/:;=@";
/// What does so in a path that was written with escapes.
const WRITTEN: &[u8] = b"!'()*[]";

/// `text` with its path as Go writes it.
///
/// # Errors
/// [`UrlError`] for what Go refuses.
pub(super) fn written(text: &str) -> Result<String, UrlError> {
    let refused = |reason: String| Err(UrlError::Url(reason));
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return refused("net/url: invalid control character in URL".to_owned());
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok(text.to_owned());
    };
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.is_empty() {
        return Err(UrlError::NoHost);
    }
    if let Some(odd) = ["\\", " "].iter().find(|odd| authority.contains(**odd)) {
        return refused(format!("invalid character {odd:?} in host name"));
    }
    if let Some(reason) = wrong_port(host) {
        return refused(reason);
    }
    let (path, rest) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    let literal = host.starts_with('[');
    // Of a host nothing is escaped that is ASCII.
    let of_host = |byte: u8| !byte.is_ascii();
    if let Some(escape) =
        wrong_escape(if literal { "" } else { host }, of_host).or(wrong_escape(path, |_| true))
    {
        return refused(format!("invalid URL escape {escape:?}"));
    }
    Ok(format!("{scheme}://{authority}{}{rest}", escaped_path(path)))
}

/// Whether there is a user in the address, be it an empty one.
pub(super) fn has_user(text: &str) -> bool {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.contains('@')
}

/// `path` as it was written, if that is a way to write it; else what it means, escaped anew (`URL.EscapedPath`).
fn escaped_path(path: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || PLAIN.contains(&byte);
    if path
        .bytes()
        .all(|byte| is_plain(byte) || byte == b'%' || WRITTEN.contains(&byte))
    {
        return path.to_owned();
    }
    let mut out = String::with_capacity(path.len());
    for byte in percent_decoded(path) {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            // A text takes whatever is written to it.
            write!(out, "%{byte:02X}").ok();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server was asked for by BuildKit 73ed6825.
    #[test]
    fn paths_are_asked_for_as_buildkit_asks() {
        for (written, asked) in [
            ("/a", "/a"),
            ("//a", "//a"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2fb", "/a%2fb"),
            ("/a%20b", "/a%20b"),
            ("/a b", "/a%20b"),
            ("/\u{fc}", "/%C3%BC"),
            ("/%fc", "/%fc"),
            ("/a|b", "/a%7Cb"),
            ("/a^b", "/a%5Eb"),
            ("/a`b", "/a%60b"),
            ("/a{b}", "/a%7Bb%7D"),
            ("/a[b]", "/a[b]"),
            ("/a<b>", "/a%3Cb%3E"),
            ("/a;b", "/a;b"),
            ("/a!b*(c)", "/a!b*(c)"),
            ("/a\\b", "/a%5Cb"),
            ("/a%2Fb|c", "/a/b%7Cc"),
            ("/a%41|b", "/aA%7Cb"),
            ("/a%41", "/a%41"),
            ("/a%25b", "/a%25b"),
            ("/a?x=|^`{}", "/a?x=|^`{}"),
            ("/a?x=%zz", "/a?x=%zz"),
            ("?q", "?q"),
            ("/a?", "/a?"),
        ] {
            assert_eq!(
                super::written(&format!("http://h{written}")).unwrap(),
                format!("http://h{asked}")
            );
        }
    }

    #[test]
    fn an_empty_user_is_one() {
        for (text, expected) in [
            ("http://@h/a", true),
            ("http://u:p@h", true),
            ("http://h/a@b", false),
            ("http://h?a@b", false),
            ("no url", false),
        ] {
            assert_eq!(has_user(text), expected, "{text}");
        }
    }
}
