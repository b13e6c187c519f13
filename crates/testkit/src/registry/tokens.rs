//! The token server beside the test registry: words that the registry itself knows, or signed tokens (JWT, RFC 7519) for
//! another registry that trusts the certificate's authority (distribution's `auth: token`).

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hyper::HeaderMap;
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::SigningKey;
use serde_json::json;

use super::server::{Reply, basic, find, parse_query};
use super::{RegistryAuth, State, tls};

/// The registry's name at the token server.
pub(super) const SERVICE: &str = "test";
/// Who signs.
pub const ISSUER: &str = "rbuild test token server";

/// Signs tokens with the key of the test certificate.
#[derive(Debug)]
pub(super) struct Signer {
    key: Arc<dyn SigningKey>,
    /// Seconds from now until a token ends; may be less than none, since registries allow for other clocks.
    life_seconds: i64,
}

impl Signer {
    pub(super) fn new(life_seconds: i64) -> Self {
        Self {
            key: any_supported_type(&tls::key()).expect("a key that signs"),
            life_seconds,
        }
    }

    /// A token by which `subject` may do what `granted` says (`repository:PATH:ACTION`).
    fn sign(&self, subject: &str, granted: &[String], id: u64) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock")
            .as_secs();
        let now = i64::try_from(now).expect("a time of these centuries");
        let access = granted.iter().filter_map(|scope| {
            let (name, action) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
            Some(json!({"type": "repository", "name": name, "actions": [action]}))
        });
        let claims = json!({
            "iss": ISSUER, "sub": subject, "aud": SERVICE, "jti": id.to_string(),
            "iat": now - 120, "nbf": now - 120, "exp": now + self.life_seconds,
            "access": access.collect::<Vec<_>>(),
        });
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(tls::certificate())]});
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signer = self.key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]);
        let signature = signer
            .expect("the key is one of P-256")
            .sign(signed.as_bytes())
            .expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(both_numbers(&signature)))
    }
}

/// The two numbers of a DER signature by P-256 with 32 bytes each, as JWS has them (RFC 7518, section 3.4).
fn both_numbers(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut out = Vec::new();
    for _ in 0..2 {
        let len = usize::from(rest[1]);
        let number = &rest[2..2 + len];
        let number = &number[len.saturating_sub(32)..];
        out.resize(out.len() + 32 - number.len(), 0);
        out.extend_from_slice(number);
        rest = &rest[2 + len..];
    }
    out
}

/// A question to the token server.
pub(super) struct Asked {
    is_post: bool,
    authorization: Option<String>,
    pairs: Vec<(String, String)>,
}

impl Asked {
    pub(super) fn new(method: &str, headers: &HeaderMap, query: &[(String, String)], body: &[u8]) -> Self {
        let is_post = method == "POST";
        let authorization = headers.get("authorization").and_then(|v| v.to_str().ok());
        Self {
            is_post,
            authorization: authorization.map(str::to_owned),
            pairs: if is_post {
                parse_query(&String::from_utf8_lossy(body))
            } else {
                query.to_vec()
            },
        }
    }

    fn is(&self, name: &str, value: &str) -> bool {
        find(&self.pairs, name) == Some(value)
    }

    fn scopes(&self) -> impl Iterator<Item = (&str, &str)> {
        let scopes = self.pairs.iter().filter(|(name, _)| name == "scope");
        scopes
            .flat_map(|(_, value)| value.split(' '))
            .filter_map(|scope| scope.rsplit_once(':'))
    }
}

impl State {
    pub(super) fn give_token(&mut self, asked: &Asked) -> Reply {
        let RegistryAuth::Bearer {
            user,
            password,
            identity_token,
            anonymous_pull,
            ..
        } = &self.auth
        else {
            return Reply::error(404, "NOT_FOUND");
        };
        let known = if asked.is_post && asked.is("grant_type", "password") {
            asked.is("username", user) && asked.is("password", password)
        } else if asked.is_post {
            let identity = identity_token.as_deref();
            identity.is_some_and(|token| asked.is("refresh_token", token))
        } else {
            asked.authorization.as_deref() == Some(basic(user, password).as_str())
        };
        if !known && (asked.authorization.is_some() || asked.is_post || !anonymous_pull) {
            return Reply::error(401, "UNAUTHORIZED");
        }
        let mut granted = Vec::new();
        for (name, actions) in asked.scopes() {
            let closed = self
                .closed
                .iter()
                .any(|closed| name == format!("repository:{closed}"));
            let allowed = actions
                .split(',')
                .filter(|action| !closed && (known || *action == "pull"));
            granted.extend(allowed.map(|action| format!("{name}:{action}")));
        }
        let offline = asked.is("offline_token", "true") || asked.is("access_type", "offline");
        let refresh = identity_token.clone().filter(|_| known && offline);
        self.counter += 1;
        let token = match &self.signer {
            Some(signer) => signer.sign(if known { user } else { "" }, &granted, self.counter),
            None => format!("c4n4ry-token-{}", self.counter),
        };
        self.tokens.insert(token.clone(), granted);
        let mut body = json!({ "token": token });
        if let Some(refresh) = refresh {
            body["refresh_token"] = refresh.into();
        }
        Reply::new(200)
            .header("content-type", "application/json")
            .body(body.to_string().into())
    }
}
