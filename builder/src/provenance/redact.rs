//! Credentials in URLs, masked as BuildKit masks them (`util/urlutil/redact.go`). Masks also where Go would call the text
//! no URL: a text that only looks like one may still hold a password.

const MASK: &str = "xxxxx";

/// `text` with user and password masked, if it is a URL that has any.
#[must_use]
pub fn credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let Some((user, host)) = authority.rsplit_once('@').filter(|_| is_scheme) else {
        return text.to_owned();
    };
    let masked = match user.split_once(':') {
        Some(("", _)) => format!(":{MASK}"),
        Some(_) => format!("{MASK}:{MASK}"),
        None if user.is_empty() => String::new(),
        None => MASK.to_owned(),
    };
    format!("{scheme}://{masked}@{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row41_users_and_passwords_are_masked() {
        for (text, expected) in [
            (
                "https://user:password@host.tld/this:that",
                "https://xxxxx:xxxxx@host.tld/this:that",
            ),
            (
                "https://user@host.tld/this:that",
                "https://xxxxx@host.tld/this:that",
            ),
            (
                "https://:password@host.tld/this:that",
                "https://:xxxxx@host.tld/this:that",
            ),
            (
                "https://user:pa@ss@host.tld#ref:dir",
                "https://xxxxx:xxxxx@host.tld#ref:dir",
            ),
            ("http://u:@h?q=a@b", "http://xxxxx:xxxxx@h?q=a@b"),
        ] {
            assert_eq!(credentials(text), expected);
        }
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        for text in [
            "https://host.tld/this:that",
            "1https://a:b@foo.com",
            "git@host:path",
            "dir/a@b",
            "http://h/a@b",
            "",
        ] {
            assert_eq!(credentials(text), text);
        }
    }
}
