//! `SecretInValue`: values that are secrets by their form, and names that BuildKit's `SecretsUsedInArgOrEnv` does not
//! take for one because the telling word is not set off by `_`.

use crate::validate::sounds_secret;

/// What a value is taken for; `None` if it is nothing to worry about, or BuildKit's rule already speaks of its name.
pub(super) fn found(name: &str, value: &str) -> Option<&'static str> {
    let value = value.trim_matches(['"', '\'']);
    if value.is_empty() {
        return None;
    }
    by_form(value).or_else(|| (by_name(name) && !sounds_secret(name) && literal(value)).then_some("a secret"))
}

/// Secrets that their issuers made easy to tell: how they begin, how many further characters there are at least.
const FORMS: [(&str, usize, &str); 17] = [
    ("AKIA", 16, "an AWS access key"),
    ("ASIA", 16, "an AWS access key"),
    ("ghp_", 36, "a GitHub token"),
    ("gho_", 36, "a GitHub token"),
    ("ghs_", 36, "a GitHub token"),
    ("ghu_", 36, "a GitHub token"),
    ("github_pat_", 22, "a GitHub token"),
    ("glpat-", 20, "a GitLab token"),
    ("xoxb-", 20, "a Slack token"),
    ("xoxp-", 20, "a Slack token"),
    ("sk_live_", 16, "a Stripe key"),
    ("rk_live_", 16, "a Stripe key"),
    ("AIza", 35, "a Google API key"),
    ("npm_", 36, "an npm token"),
    ("pypi-", 40, "a PyPI token"),
    ("dckr_pat_", 20, "a Docker token"),
    ("hf_", 34, "a Hugging Face token"),
];

fn by_form(value: &str) -> Option<&'static str> {
    if value.contains("-----BEGIN ") && value.contains("PRIVATE KEY-----") {
        return Some("a private key");
    }
    if has_password(value) {
        return Some("a URL with a password");
    }
    let token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    for word in value.split(|c: char| !token(c)).filter(|word| !word.is_empty()) {
        let is = |(prefix, least, _): &&(&str, usize, &str)| {
            word.strip_prefix(prefix).is_some_and(|rest| rest.len() >= *least)
        };
        if let Some((_, _, what)) = FORMS.iter().find(is) {
            return Some(what);
        }
    }
    None
}

/// `scheme://user:password@host`, the password being no variable.
fn has_password(value: &str) -> bool {
    let Some((_, rest)) = value.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((user, _)) = authority.rsplit_once('@') else {
        return false;
    };
    user.split_once(':')
        .is_some_and(|(_, password)| literal(password))
}

/// A name that ends in a telling word, written together: `PGPASSWORD`, `dbPassword`, `apiKey`.
fn by_name(name: &str) -> bool {
    const ENDS: [&str; 7] = [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "apikey",
        "privatekey",
    ];
    let name = name.to_ascii_lowercase();
    ENDS.iter().any(|end| name.ends_with(end))
}

/// Neither empty, nor a variable, nor a path, nor a switch.
fn literal(value: &str) -> bool {
    !value.is_empty()
        && !value.contains('$')
        && !value.starts_with('/')
        && !matches!(
            value,
            "true" | "false" | "yes" | "no" | "0" | "1" | "none" | "null"
        )
}
