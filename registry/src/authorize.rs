//! Answering a registry's challenge: with a stored credential, or with a token that its token server gives for one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use reqwest::{RequestBuilder, StatusCode, Url};

use crate::challenge::{self, Challenge, Challenger, Realm};
use crate::client::Inner;
use crate::credentials::{Credential, Found};
use crate::net::connect_error;
use crate::reply::Reply;
use crate::token::{self, Authorization};
use crate::transport::{Base, Call, unauthorized};
use crate::{Excerpt, Refusal, RegistryError};

/// Who asks, as token servers are told.
const CLIENT_ID: &str = "rbuild";

impl Inner {
    /// Answers a challenge: an authorization, and a remark on where it came from.
    pub(crate) async fn authorize(
        &self,
        call: &Call<'_>,
        base: &Base,
        asked: &Challenge,
        refusal: &Refusal,
    ) -> Result<(Authorization, String), RegistryError> {
        let endpoint = call.endpoint;
        let tls = base.url.scheme() == "https";
        let found = self
            .credentials
            .find(&endpoint.registry, &endpoint.repository, tls)
            .await;
        if let Some(Credential::Bearer(token)) = &found.credential
            && let Some(lasting) = Authorization::lasting(&format!("Bearer {}", token.reveal()))
        {
            return Ok((lasting, found.tried));
        }
        let (realm, service) = match asked {
            Challenge::Basic => {
                let basic = match &found.credential {
                    Some(Credential::Basic { username, password }) => {
                        Authorization::basic(username, password)
                    }
                    _ => None,
                };
                return match basic {
                    Some(basic) => Ok((basic, found.tried)),
                    None => Err(unauthorized(refusal.clone(), found.tried)),
                };
            }
            Challenge::Bearer { realm, service } => (realm, service),
        };
        let from = Challenger {
            base: &base.url,
            loopback: base.loopback.load(Ordering::Relaxed),
        };
        let realm = challenge::check_realm(realm, from).map_err(|reason| RegistryError::Challenge {
            host: endpoint.host.clone(),
            reason: Excerpt::from(reason.as_str()).as_str().to_owned(),
        })?;
        let (credential, tried) = for_realm(found, &realm);
        let got = self
            .fetch_token(
                call,
                base,
                &realm,
                service.as_deref(),
                credential.as_ref(),
                &tried,
            )
            .await?;
        Ok((got, tried))
    }

    async fn fetch_token(
        &self,
        call: &Call<'_>,
        base: &Base,
        realm: &Realm,
        service: Option<&str>,
        credential: Option<&Credential>,
        tried: &str,
    ) -> Result<Authorization, RegistryError> {
        let url = &realm.url;
        let own = url.origin() == base.url.origin();
        let host = url.host_str().unwrap_or_default();
        let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
        let loopback = base.loopback.load(Ordering::Relaxed);
        let kind = self.kind(call.endpoint, &format!("{host}{port}"), url, own, loopback);
        let client = self.clients.get(&kind, host, &self.config)?;
        let asked = Instant::now();
        let request = token::request(&client, realm, service, call.scope, credential, CLIENT_ID);
        let mut reply = self.ask_for_token(url, request).await?;
        let status = reply.response.status();
        if status != StatusCode::OK {
            let refusal = Box::new(self.refused("get token", reply).await);
            // Where the form is not known either, the first answer says what was wrong.
            let second = match credential {
                Some(Credential::Basic { username, password }) if token::wants_form(status) => {
                    let user = (username.as_str(), password);
                    let request =
                        token::password_request(&client, realm, service, call.scope, user, CLIENT_ID);
                    let second = self.ask_for_token(url, request).await?;
                    Some(second).filter(|second| second.response.status() == StatusCode::OK)
                }
                _ => None,
            };
            let Some(second) = second else {
                return Err(RegistryError::Token {
                    host: call.endpoint.host.clone(),
                    refusal,
                    tried: tried.to_owned(),
                });
            };
            reply = second;
        }
        let body = reply.body(token::ANSWER_BYTES_MAX).await?;
        token::read(url, &body, asked)
    }

    async fn ask_for_token(&self, url: &Url, request: RequestBuilder) -> Result<Reply, RegistryError> {
        let sent = AtomicU64::new(0);
        let response = match self.watch(url, &sent, request.send()).await? {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                return Err(connect_error(url, "failed to do request: ", String::new(), error));
            }
            Err(error) => {
                return Err(RegistryError::broken(url, error));
            }
        };
        let host = url.host_str().unwrap_or_default();
        let permit = self.permit(&format!("token server {host}")).await;
        Ok(Reply::new(response, url, permit, self.options.idle_timeout))
    }
}

/// What of a look-up goes to a token server, and the remark on it.
fn for_realm(found: Found, realm: &Realm) -> (Option<Credential>, String) {
    if realm.trusted || found.credential.is_none() {
        return (found.credential, found.tried);
    }
    let tried = format!(
        "{}, but not sent to its token server: another host, named over plain HTTP",
        found.tried
    );
    (None, tried)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Secret;

    #[test]
    fn row34_a_token_server_that_is_not_trusted_gets_no_credential() {
        let found = || Found {
            credential: Some(Credential::Basic {
                username: "u".to_owned(),
                password: Secret::new("p".to_owned()),
            }),
            tried: "credentials of x were used".to_owned(),
        };
        let realm = |trusted| Realm {
            url: Url::parse("http://elsewhere.example/token").unwrap(),
            trusted,
        };
        let (credential, tried) = for_realm(found(), &realm(false));
        assert_eq!(credential, None);
        assert!(tried.contains("not sent to its token server"), "{tried}");
        let (credential, tried) = for_realm(found(), &realm(true));
        assert_eq!((credential, tried), (found().credential, found().tried));
        // Nothing is said to be kept back where there is nothing.
        let none = for_realm(Found::default(), &realm(false));
        assert_eq!(none, (None, String::new()));
    }
}
