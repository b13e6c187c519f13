//! The token of a workflow's run: a JSON Web Token that says until when it is good and which scopes of the cache it may
//! read and write. Its signature is the service's to check.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;

/// Most scopes that are read.
const SCOPES_MAX: usize = 64;
const WRITE: u32 = 2;

/// Why a token is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not of the form of a token.
    #[error("the token of the github actions cache (ACTIONS_RUNTIME_TOKEN) is malformed: {0}")]
    Malformed(&'static str),
    /// Its time is over.
    #[error("cache token expired at {0}: the job runs longer than the token is good for")]
    Expired(Timestamp),
    /// Its time has not come.
    #[error("invalid token with future issue time {0}: the clock of this machine is wrong")]
    Future(Timestamp),
}

/// A part of the cache that a token opens, such as a branch.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Scope {
    #[serde(alias = "Scope")]
    pub(super) scope: String,
    #[serde(alias = "Permission")]
    permission: u32,
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scope, self.permission)
    }
}

impl Scope {
    pub(super) const fn may_write(&self) -> bool {
        self.permission & WRITE != 0
    }
}

#[derive(Deserialize)]
struct Claims {
    ac: String,
    exp: f64,
    nbf: f64,
}

/// The scopes of a token.
///
/// # Errors
/// [`TokenError`]. The token is in no error.
pub(super) fn scopes(token: &str, now: Timestamp) -> Result<Vec<Scope>, TokenError> {
    let parts: Vec<&str> = token.split('.').collect();
    let [_, payload, _] = parts.as_slice() else {
        return Err(TokenError::Malformed("it does not have three parts"));
    };
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('='));
    let payload = payload.map_err(|_| TokenError::Malformed("its claims are no base64"))?;
    let claims: Claims = serde_json::from_slice(&payload)
        .map_err(|_| TokenError::Malformed("its claims are not ac, exp and nbf"))?;
    let ended = time_of(claims.exp).ok_or(TokenError::Malformed("exp is no time"))?;
    if now > ended {
        return Err(TokenError::Expired(ended));
    }
    let begun = time_of(claims.nbf).ok_or(TokenError::Malformed("nbf is no time"))?;
    if now < begun {
        return Err(TokenError::Future(begun));
    }
    let scopes: Vec<Scope> =
        serde_json::from_str(&claims.ac).map_err(|_| TokenError::Malformed("ac is no list of scopes"))?;
    if scopes.len() > SCOPES_MAX {
        return Err(TokenError::Malformed("it has too many scopes"));
    }
    Ok(scopes)
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "what is out of range saturates, and is no time then"
)]
fn time_of(seconds: f64) -> Option<Timestamp> {
    Timestamp::from_second(seconds as i64).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn scopes_are_read_and_times_are_kept() {
        let now = Timestamp::from_second(1000).unwrap();
        let claims = r#"{"ac":"[{\"Scope\":\"refs/heads/a\",\"Permission\":3},{\"Scope\":\"refs/heads/main\",\"Permission\":1}]","exp":1001,"nbf":999,"x":1}"#;
        let read = scopes(&token(claims), now).unwrap();
        assert_eq!(read[0].scope, "refs/heads/a");
        assert!(read[0].may_write() && !read[1].may_write());
        let at = |second| scopes(&token(claims), Timestamp::from_second(second).unwrap());
        assert!(matches!(at(1002), Err(TokenError::Expired(_))));
        assert!(matches!(at(998), Err(TokenError::Future(_))));
    }

    #[test]
    fn row42_a_malformed_token_is_not_shown() {
        let now = Timestamp::UNIX_EPOCH;
        let none = r#"{"ac":"secret","exp":1e300,"nbf":0}"#;
        for text in [
            "secret",
            "secret.secret",
            "a.secret!.c",
            &token("{}"),
            &token("secret"),
            &token(none),
        ] {
            let error = scopes(text, now).unwrap_err();
            assert!(matches!(error, TokenError::Malformed(_)), "{error:?}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
