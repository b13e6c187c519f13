//! The name of a fetched file: what was asked for, else what `Content-Disposition` says, else the end of the URL's path;
//! always one harmless component (BuildKit `getFileName`, `source/util/pathutil`; security row 36).

use rbuild_oci::go_url::percent_decoded;

/// The name of what has no usable one.
const UNNAMED: &str = "download";

/// The name, given `manual` (empty if none), the `Content-Disposition` header, and the URL.
pub(super) fn of(manual: &str, header: Option<&str>, url: &str) -> String {
    if !manual.is_empty() {
        return safe(manual);
    }
    if let Some(name) = header.and_then(disposition).filter(|name| !name.ends_with('/')) {
        return safe(base(&name));
    }
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or("", |(_, rest)| rest);
    let path = path.find('/').map_or("", |at| &path[at..]);
    let decoded = percent_decoded(path);
    safe(base(&String::from_utf8_lossy(&decoded)))
}

/// The last component; empty if there is none.
fn base(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

fn safe(text: &str) -> String {
    let name = base(text.trim());
    if matches!(name, "" | "." | "..") || name.chars().any(char::is_control) {
        return UNNAMED.to_owned();
    }
    name.to_owned()
}

/// The `filename` of a `Content-Disposition` header; `None` if the header is malformed or has none. The extended form
/// (RFC 6266, `filename*`) counts where there is no plain one.
fn disposition(header: &str) -> Option<String> {
    let (_, mut rest) = header.split_once(';')?;
    let (mut plain, mut extended) = (None, None);
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            break;
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = value(after.trim_start())?;
        match name.trim_end().to_ascii_lowercase().as_str() {
            "filename" if plain.is_none() => plain = Some(value),
            "filename*" if extended.is_none() => extended = Some(decoded(&value)?),
            "filename" | "filename*" => return None,
            _ => {}
        }
        let after = after.trim_start();
        rest = match after.strip_prefix(';') {
            Some(more) => more,
            None if after.is_empty() => after,
            None => return None,
        };
    }
    plain.or(extended).filter(|name| !name.is_empty())
}

/// A token or a quoted string, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text
            .find(|c: char| c == ';' || c.is_whitespace())
            .unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut out = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &quoted[at + 1..])),
            // Only a quote or a backslash is escaped: `C:\dev` is what a broken browser sends (Go `mime`).
            '\\' => match quoted[at + 1..].chars().next() {
                Some(escaped @ ('"' | '\\')) => {
                    out.push(escaped);
                    chars.next();
                }
                _ => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    None
}

/// `charset'language'percent-encoded` of RFC 5987.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.splitn(3, '\'');
    let (charset, _language, value) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes = percent_decoded(value);
    match charset.to_ascii_lowercase().as_str() {
        "utf-8" | "us-ascii" => String::from_utf8(bytes).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_first_that_has_one() {
        for (manual, header, url, expected) in [
            (
                "asked",
                Some("attachment; filename=sent"),
                "https://h/url",
                "asked",
            ),
            ("", Some("attachment; filename=sent"), "https://h/url", "sent"),
            (
                "",
                Some("attachment; filename=\"a b.tar\"; size=3"),
                "https://h/url",
                "a b.tar",
            ),
            (
                "",
                Some("attachment; filename=\"a\\\"b\""),
                "https://h/url",
                "a\"b",
            ),
            (
                "",
                Some("attachment; filename*=UTF-8''%c3%a4.txt"),
                "https://h/url",
                "ä.txt",
            ),
            ("", Some("attachment; filename=\"dir/\""), "https://h/url", "url"),
            (
                "",
                Some("attachment; filename=a; filename=b"),
                "https://h/url",
                "url",
            ),
            ("", Some("attachment; filename=\"open"), "https://h/url", "url"),
            ("", Some("inline"), "https://h/url", "url"),
            ("", None, "https://h/a/b.tar?x=/y#z", "b.tar"),
            ("", None, "https://h/a%20b", "a b"),
            ("", None, "https://h/a/", "a"),
            ("", None, "https://h", "download"),
            ("", None, "https://h/", "download"),
        ] {
            assert_eq!(of(manual, header, url), expected, "{manual:?} {header:?} {url}");
        }
    }

    #[test]
    fn row36_no_name_leaves_its_directory() {
        for (manual, header, url, expected) in [
            (
                "",
                Some("attachment; filename=\"../../canary/x\""),
                "https://h/u",
                "x",
            ),
            (
                "",
                Some("attachment; filename*=UTF-8''..%2f..%2fx"),
                "https://h/u",
                "x",
            ),
            ("", Some("attachment; filename=\"..\""), "https://h/u", "download"),
            ("", Some("attachment; filename=."), "https://h/u", "download"),
            ("", Some("attachment; filename=\"\""), "https://h/u", "u"),
            (
                "",
                Some("attachment; filename=\"a\u{0}b\""),
                "https://h/u",
                "download",
            ),
            (
                "",
                Some("attachment; filename*=UTF-8''a%0ab"),
                "https://h/u",
                "download",
            ),
            (
                "",
                Some("attachment; filename=\"a/.dockerignore\""),
                "https://h/u",
                ".dockerignore",
            ),
            ("../../x", None, "https://h/u", "x"),
            ("..", None, "https://h/u", "download"),
            ("", None, "https://h/a/..", "download"),
            ("", None, "https://h/..;/x", "x"),
            ("", None, "https://h/a%2f..%2f..", "download"),
        ] {
            let name = of(manual, header, url);
            assert_eq!(name, expected, "{manual:?} {header:?} {url}");
            assert!(!name.contains('/') && name != "." && name != "..");
        }
    }
}
