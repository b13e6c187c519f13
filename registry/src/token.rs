//! Tokens: getting one from a registry's token server, keeping it until it ends.
//!
//! Docker's protocol (distribution-spec, "Token Authentication"): GET with user and password, POST with a refresh
//! token. Tokens live in memory only. No redirect is followed; an answer is read up to a megabyte.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use crate::RegistryError;
use crate::challenge::Realm;
use crate::credentials::{Credential, Secret};

/// Largest answer of a token server read, in bytes.
pub(crate) const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Largest refresh token kept, in bytes.
const IDENTITY_BYTES_MAX: usize = 16 << 10;
/// How long a token lives when its server does not say, and the least that is believed (as Docker does).
const LIFE_SECONDS_MIN: u64 = 60;
/// The most that is believed.
const LIFE_SECONDS_MAX: u64 = 24 * 3600;

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Scope {
    /// `repository:PATH:pull,push` texts.
    repositories: Vec<String>,
    /// A refresh token is wanted beside it, to be kept instead of the password (`offline_token` of Docker's token
    /// protocol, `access_type=offline` of its OAuth 2 form).
    offline: bool,
}

impl Scope {
    /// Nothing: only who is asking, and something to ask by from now on.
    pub(crate) const fn login() -> Self {
        Self {
            repositories: Vec::new(),
            offline: true,
        }
    }

    /// Reading a repository.
    pub(crate) fn pull(repository: &str) -> Self {
        Self::of(format!("repository:{repository}:pull"))
    }

    /// Writing a repository.
    pub(crate) fn push(repository: &str) -> Self {
        Self::of(format!("repository:{repository}:pull,push"))
    }

    fn of(repository: String) -> Self {
        Self {
            repositories: vec![repository],
            offline: false,
        }
    }

    /// The same, and reading another repository too, to mount a blob of it.
    pub(crate) fn and_pull(mut self, repository: &str) -> Self {
        self.repositories.push(format!("repository:{repository}:pull"));
        self
    }
}

/// An authorization that worked or should.
#[derive(Clone)]
pub(crate) struct Authorization {
    pub(crate) header: HeaderValue,
    ends: Option<Instant>,
    /// The refresh token that came with it.
    pub(crate) identity: Option<Secret>,
}

impl Authorization {
    /// A header that does not end.
    pub(crate) fn lasting(text: &str) -> Option<Self> {
        Some(Self {
            header: sensitive(text)?,
            ends: None,
            identity: None,
        })
    }

    /// User and password with each request.
    pub(crate) fn basic(username: &str, password: &Secret) -> Option<Self> {
        Self::lasting(&basic_text(username, password))
    }
}

/// One slot for each (endpoint, scope): whoever needs an authorization waits for the one who is getting it.
type Slot = Arc<tokio::sync::Mutex<Option<Authorization>>>;

/// The authorizations of a client.
#[derive(Default)]
pub(crate) struct Tokens {
    slots: Mutex<HashMap<(String, Scope), Slot>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(…)")
    }
}

impl Tokens {
    /// The slot of a scope at an endpoint (scheme, host and port).
    pub(crate) fn slot(&self, origin: &str, scope: &Scope) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry((origin.to_owned(), scope.clone())).or_default())
    }
}

/// What is in a slot and has not ended.
pub(crate) fn current(slot: &Option<Authorization>) -> Option<HeaderValue> {
    let held = slot.as_ref()?;
    held.ends
        .is_none_or(|ends| Instant::now() < ends)
        .then(|| held.header.clone())
}

/// The request for a token.
pub(crate) fn request(
    client: &reqwest::Client,
    realm: &Realm,
    service: Option<&str>,
    scope: &Scope,
    credential: Option<&Credential>,
    client_id: &str,
) -> reqwest::RequestBuilder {
    if let Some(Credential::Identity(token)) = credential {
        let proof = [("refresh_token", token.reveal())];
        return exchange(client, realm, service, scope, "refresh_token", &proof, client_id);
    }
    let mut url: Url = realm.url.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        for repository in &scope.repositories {
            query.append_pair("scope", repository);
        }
        if scope.offline && credential.is_some() {
            query.append_pair("offline_token", "true");
        }
        if let Some(Credential::Basic { username, .. }) = credential {
            query.append_pair("account", username);
        }
        query.append_pair("client_id", client_id);
    }
    let request = client.get(url).header(ACCEPT, "application/json");
    match credential {
        Some(Credential::Basic { username, password }) => match sensitive(&basic_text(username, password)) {
            Some(header) => request.header(AUTHORIZATION, header),
            None => request,
        },
        _ => request,
    }
}

/// The request for a token by a password in a form, for token servers that answer nothing else.
pub(crate) fn password_request(
    client: &reqwest::Client,
    realm: &Realm,
    service: Option<&str>,
    scope: &Scope,
    user: (&str, &Secret),
    client_id: &str,
) -> reqwest::RequestBuilder {
    let proof = [("username", user.0), ("password", user.1.reveal())];
    exchange(client, realm, service, scope, "password", &proof, client_id)
}

/// Whether a token server may only know the form: this many say so to a question in the URL
/// (`util/resolver/authorizer.go`).
pub(crate) const fn wants_form(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 404 | 405)
}

/// OAuth 2: a proof for a token.
fn exchange(
    client: &reqwest::Client,
    realm: &Realm,
    service: Option<&str>,
    scope: &Scope,
    grant_type: &str,
    proof: &[(&str, &str)],
    client_id: &str,
) -> reqwest::RequestBuilder {
    let mut form = form_urlencoded(&[("grant_type", grant_type), ("client_id", client_id)]);
    for (name, value) in proof {
        push_pair(&mut form, name, value);
    }
    push_pair(&mut form, "scope", &scope.repositories.join(" "));
    if scope.offline {
        push_pair(&mut form, "access_type", "offline");
    }
    if let Some(service) = service {
        push_pair(&mut form, "service", service);
    }
    client
        .post(realm.url.clone())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, "application/json")
        .body(form)
}

/// Reads a token server's answer.
pub(crate) fn read(url: &Url, body: &[u8], asked: Instant) -> Result<Authorization, RegistryError> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        refresh_token: Option<String>,
        expires_in: Option<serde_json::Value>,
    }
    let failed = |reason| RegistryError::TokenContent {
        url: url.into(),
        reason,
    };
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| failed("the answer is not the JSON of a token"))?;
    let given = |token: Option<String>| token.filter(|token| !token.is_empty());
    let Some(token) = given(answer.token).or(given(answer.access_token)) else {
        return Err(failed("the answer has no token"));
    };
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(failed("the token has characters that no token has"));
    }
    // Azure's token servers write it as text.
    let seconds = answer.expires_in.and_then(|said| match said {
        serde_json::Value::String(text) => text.parse().ok(),
        said => said.as_f64(),
    });
    let seconds: f64 = seconds
        .filter(|s: &f64| s.is_finite() && *s > 0.0)
        .unwrap_or_default();
    let life = Duration::from_secs_f64(seconds.min(1e9))
        .as_secs()
        .clamp(LIFE_SECONDS_MIN, LIFE_SECONDS_MAX);
    // The last tenth is for requests under way.
    let ends = asked + Duration::from_secs(life - life / 10);
    let header =
        sensitive(&format!("Bearer {token}")).ok_or_else(|| failed("the token is no header value"))?;
    Ok(Authorization {
        header,
        ends: Some(ends),
        identity: answer
            .refresh_token
            .filter(|token| is_kept(token))
            .map(Secret::new),
    })
}

/// Whether a refresh token is one, and no larger than a file or a helper for credentials should have to hold.
fn is_kept(token: &str) -> bool {
    (1..=IDENTITY_BYTES_MAX).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic())
}

fn basic_text(username: &str, password: &Secret) -> String {
    format!(
        "Basic {}",
        STANDARD.encode(format!("{username}:{}", password.reveal()))
    )
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

fn form_urlencoded(pairs: &[(&str, &str)]) -> String {
    let mut form = String::new();
    for (name, value) in pairs {
        push_pair(&mut form, name, value);
    }
    form
}

fn push_pair(form: &mut String, name: &str, value: &str) {
    if !form.is_empty() {
        form.push('&');
    }
    form.push_str(name);
    form.push('=');
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            form.push(char::from(byte));
        } else {
            form.push('%');
            for nibble in [byte >> 4, byte & 15] {
                form.push(char::from(b"0123456789ABCDEF"[usize::from(nibble)]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url() -> Url {
        Url::parse("https://auth.example/token").expect("url")
    }

    #[test]
    fn row34_tokens_that_are_no_tokens_are_refused() {
        for body in [
            "",
            "{}",
            "[]",
            r#"{"token":""}"#,
            r#"{"token":"a\nb"}"#,
            r#"{"token":"a b"}"#,
            r#"{"token":"ü"}"#,
            r#"{"token":5}"#,
        ] {
            assert!(read(&url(), body.as_bytes(), Instant::now()).is_err(), "{body}");
        }
    }

    #[test]
    fn tokens_end_before_their_server_says() {
        let asked = Instant::now();
        for (body, seconds) in [
            (r#"{"token":"t"}"#, 54),
            (r#"{"access_token":"t","expires_in":300}"#, 270),
            (r#"{"token":"t","expires_in":1}"#, 54),
            (r#"{"token":"t","expires_in":-5}"#, 54),
            (r#"{"token":"t","expires_in":1e300}"#, 77_760),
            (r#"{"token":null,"access_token":"t","expires_in":null}"#, 54),
            (r#"{"token":"","access_token":"t","expires_in":"300"}"#, 270),
            (r#"{"token":"t","expires_in":"soon"}"#, 54),
            (r#"{"token":"t","expires_in":{}}"#, 54),
        ] {
            let held = read(&url(), body.as_bytes(), asked).expect(body);
            assert_eq!(held.ends, Some(asked + Duration::from_secs(seconds)), "{body}");
            assert_eq!(held.header, "Bearer t");
        }
        let ended = read(
            &url(),
            br#"{"token":"t"}"#,
            asked.checked_sub(Duration::from_secs(60)).expect("time"),
        );
        assert!(current(&ended.ok()).is_none());
    }

    #[test]
    fn row35_refresh_tokens_that_are_none_are_not_kept() {
        let identity = |refresh: &str| {
            let body = serde_json::json!({"token": "t", "refresh_token": refresh}).to_string();
            read(&url(), body.as_bytes(), Instant::now())
                .expect("a token all the same")
                .identity
        };
        let long = "x".repeat(IDENTITY_BYTES_MAX + 1);
        for refresh in ["", "a b", "a\nb", "\u{1b}[2J", "ü", long.as_str()] {
            assert_eq!(identity(refresh), None, "{refresh:?}");
        }
        for refresh in ["r", &long[1..]] {
            assert_eq!(identity(refresh), Some(Secret::new(refresh.to_owned())));
        }
    }

    #[test]
    fn row34_parameters_are_escaped() {
        let realm = Realm {
            url: url(),
            trusted: true,
        };
        let scope = Scope::push("a/b").and_pull("c");
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(
                rustls::ClientConfig::builder_with_provider(
                    rustls::crypto::aws_lc_rs::default_provider().into(),
                )
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
            )
            .build()
            .expect("a client");
        let get = request(&client, &realm, Some("s&account=x"), &scope, None, "rbuild")
            .build()
            .expect("request");
        assert_eq!(
            get.url().query(),
            Some(
                "service=s%26account%3Dx&scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository%3Ac%3Apull&client_id=rbuild"
            )
        );
        let identity = Credential::Identity(Secret::new("r&t".to_owned()));
        let post = request(&client, &realm, None, &scope, Some(&identity), "rbuild")
            .build()
            .expect("request");
        let body = post.body().and_then(reqwest::Body::as_bytes).expect("a body");
        assert_eq!(
            String::from_utf8_lossy(body),
            "grant_type=refresh_token&client_id=rbuild&refresh_token=r%26t&scope=repository%3Aa%2Fb%3Apull%2Cpush%20repository%3Ac%3Apull"
        );
    }
}
