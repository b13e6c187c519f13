//! `rbuild login`: whether a registry takes a credential. Nothing is stored here.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use rbuild_oci::Reference;
use reqwest::Method;

use crate::config::canonical_host;
use crate::credentials::{Credential, CredentialProvider, Credentials, Secret, address};
use crate::token::Scope;
use crate::transport::Call;
use crate::{Client, RegistryError};

/// The one credential that is being tried, for its host and no other.
#[derive(Debug)]
struct Tried {
    address: String,
    credential: Credential,
}

impl CredentialProvider for Tried {
    fn credential<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Option<Credential>, String>> {
        let found = (host == self.address).then(|| self.credential.clone());
        Box::pin(std::future::ready(Ok(found)))
    }
}

impl Credentials {
    /// `credential` for `host`, nothing for others.
    #[must_use]
    pub fn one(host: &str, credential: Credential) -> Self {
        Self::of_provider(Arc::new(Tried {
            address: address(&canonical_host(host)).to_owned(),
            credential,
        }))
    }
}

impl Client {
    /// Asks the registry at `host` (with its port) for its version, which only those it knows are told
    /// (distribution spec, `end-1`). A registry that asks for nothing takes everything. Answers the refresh token that its
    /// token server gave for the credential, if it gave one: that can be kept, and the password forgotten.
    ///
    /// # Errors
    /// [`RegistryError`]: what it says of the credential, or why it could not be asked.
    pub async fn check_login(&self, host: &str) -> Result<Option<Secret>, RegistryError> {
        // Mirrors and rules are kept by repository; a registry's own address is that of any of its repositories.
        let name = format!("{host}/login");
        let reference = Reference::parse(&name).map_err(|error| RegistryError::Host {
            host: host.to_owned(),
            reason: error.to_string(),
        })?;
        let endpoint = self.inner.config.push_endpoint(&reference)?;
        let scope = Scope::login();
        let call = Call::new("log in", &endpoint, Method::GET, String::new(), &scope);
        self.inner.call(&call).await?;
        let cell = self.inner.base_cell(&endpoint);
        let Some(base) = cell.get() else { return Ok(None) };
        let slot = self.inner.tokens.slot(base.url.as_str(), &scope);
        let held = slot.lock().await;
        Ok(held.as_ref().and_then(|held| held.identity.clone()))
    }
}
