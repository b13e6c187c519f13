//! `WWW-Authenticate`: what a registry asks for when it says 401, and whether that may be answered.
//!
//! The token server's address is chosen by whoever sent the 401, so it is believed only as far as that sender could
//! be: never plain HTTP for a registry behind TLS, never this machine or a link-local address for one elsewhere, no
//! credentials in it (security row 34). Only the first few challenges of a header are read.

use reqwest::Url;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

use crate::net;

/// Longest header looked at, in bytes, and most challenges read.
const HEADER_LEN_MAX: usize = 16 << 10;
const CHALLENGES_MAX: usize = 16;

/// How a registry wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A token of a token server (distribution-spec's token authentication).
    Bearer {
        /// Where tokens are given.
        realm: String,
        /// The registry's name there.
        service: Option<String>,
    },
    /// User and password with each request.
    Basic,
}

/// The best challenge of an answer: a Bearer one, else Basic.
pub(crate) fn find(headers: &HeaderMap) -> Option<Challenge> {
    let mut found = None;
    for value in headers.get_all(WWW_AUTHENTICATE).iter().take(CHALLENGES_MAX) {
        let Some(text) = value.to_str().ok().filter(|t| t.len() <= HEADER_LEN_MAX) else {
            continue;
        };
        for (scheme, parameters) in parse(text) {
            let get = |name: &str| {
                parameters
                    .iter()
                    .find(|(n, _)| n.eq_ignore_ascii_case(name))
                    .map(|(_, v)| v.clone())
            };
            if scheme.eq_ignore_ascii_case("bearer") {
                if let Some(realm) = get("realm") {
                    return Some(Challenge::Bearer {
                        realm,
                        service: get("service"),
                    });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                found = Some(Challenge::Basic);
            }
        }
    }
    found
}

type Parsed = (String, Vec<(String, String)>);

/// Splits a header into schemes and their parameters (RFC 9110, section 11.6.1). What does not parse ends it.
fn parse(text: &str) -> Vec<Parsed> {
    let mut challenges: Vec<Parsed> = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() && challenges.len() < CHALLENGES_MAX {
        let word_end = rest.find([' ', ',', '=', '\t']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(word_end);
        if word.is_empty() {
            break;
        }
        let after_blank = after.trim_start_matches([' ', '\t']);
        match (after_blank.strip_prefix('='), challenges.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let Some((value, after)) = parse_value(value.trim_start_matches([' ', '\t'])) else {
                    break;
                };
                parameters.push((word.to_owned(), value));
                rest = after;
            }
            (Some(_), None) => break,
            (None, _) => {
                challenges.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    challenges
}

/// A token or a quoted string, and what follows it.
fn parse_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', ',', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// Who sent a challenge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Challenger<'a> {
    /// Scheme, host and port of the registry.
    pub(crate) base: &'a Url,
    /// Whether the registry is on this machine.
    pub(crate) loopback: bool,
}

/// A token server that may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Realm {
    pub(crate) url: Url,
    /// Whether the registry's credential may be sent there.
    pub(crate) trusted: bool,
}

/// Checks a realm.
pub(crate) fn check_realm(realm: &str, from: Challenger<'_>) -> Result<Realm, String> {
    let url =
        Url::parse(realm).map_err(|error| format!("its token server's address is malformed: {error}"))?;
    match (from.base.scheme(), url.scheme()) {
        (_, "https") | ("http", "http") => {}
        (_, "http") => return Err("its token server is plain HTTP, and the registry is not".to_owned()),
        _ => return Err("its token server is neither http nor https".to_owned()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("its token server's address contains credentials".to_owned());
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("its token server's address has no host".to_owned());
    }
    net::check_url(&url, from.loopback).map_err(|error| format!("its token server: {error}"))?;
    // Over plain HTTP anyone between could have written the challenge: then the credential stays with the host it was
    // stored for. Over TLS the registry names its token server, as Docker Hub does.
    let trusted = from.base.scheme() == "https" || from.loopback || url.host_str() == from.base.host_str();
    Ok(Realm { url, trusted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).expect("a header"));
        }
        map
    }

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        })
    }

    #[test]
    fn challenges_are_read() {
        for (values, expected) in [
            (
                vec![r#"Bearer realm="https://a/token",service="a",scope="repository:x:pull""#],
                bearer("https://a/token", Some("a")),
            ),
            (
                vec![r#"bearer Realm = "https://a/t" , service=b"#],
                bearer("https://a/t", Some("b")),
            ),
            (
                vec!["Basic realm=\"x, y\"", r#"Bearer realm="https://a""#],
                bearer("https://a", None),
            ),
            (
                vec![r#"Basic realm="q\"uo,te", Bearer realm="https://a/?x=1""#],
                bearer("https://a/?x=1", None),
            ),
            (vec!["Basic"], Some(Challenge::Basic)),
            (vec!["Negotiate", "Digest nonce=\"x\""], None),
            (vec!["Bearer service=\"no realm\""], None),
            (vec!["Bearer realm=\"unterminated"], None),
            (vec![""], None),
            (vec!["= , ="], None),
        ] {
            assert_eq!(find(&headers(&values)), expected, "{values:?}");
        }
    }

    #[test]
    fn row34_only_the_first_challenges_are_read() {
        let many = vec!["Negotiate"; 50].join(", ") + ", Bearer realm=\"https://late\"";
        assert_eq!(find(&headers(&[&many])), None);
        let long = format!("Bearer realm=\"https://a/{}\"", "x".repeat(1 << 20));
        assert_eq!(find(&headers(&[&long])), None);
    }

    #[test]
    fn row34_realms_that_are_refused() {
        let https = Url::parse("https://reg.example/").expect("url");
        let http = Url::parse("http://reg.example:5000/").expect("url");
        for realm in [
            "http://reg.example/token",
            "http://169.254.169.254/",
            "https://169.254.169.254/",
            "https://127.0.0.1:8080/t",
            "https://[::1]/",
            "https://u:p@other.example/",
            "https://u@other.example/",
            "https://:p@other.example/",
            "file:///canary",
            "ftp://x/",
            "nonsense",
            "https://0x7f000001/",
        ] {
            assert!(
                check_realm(
                    realm,
                    Challenger {
                        base: &https,
                        loopback: false
                    }
                )
                .is_err(),
                "{realm}"
            );
        }
        for realm in ["http://127.0.0.1/", "http://169.254.169.254/", "https://u@h/"] {
            assert!(
                check_realm(
                    realm,
                    Challenger {
                        base: &http,
                        loopback: false
                    }
                )
                .is_err(),
                "{realm}"
            );
        }
    }

    #[test]
    fn row34_legal_twins() {
        let hub = Url::parse("https://registry-1.docker.io/").expect("url");
        let realm = check_realm(
            "https://auth.docker.io/token",
            Challenger {
                base: &hub,
                loopback: false,
            },
        );
        assert!(realm.expect("Docker Hub's own").trusted);
        let local = Url::parse("http://127.0.0.1:5000/").expect("url");
        let realm = check_realm(
            "http://127.0.0.1:5001/token",
            Challenger {
                base: &local,
                loopback: true,
            },
        );
        assert!(realm.expect("both are on this machine").trusted);
        let plain = Url::parse("http://reg.example:5000/").expect("url");
        let from = Challenger {
            base: &plain,
            loopback: false,
        };
        assert!(
            check_realm("http://reg.example:5001/token", from)
                .expect("the same host")
                .trusted
        );
        let other = check_realm("https://auth.example/token", from).expect("asked without credentials");
        assert!(!other.trusted);
    }
}
