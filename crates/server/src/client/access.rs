//! What a client lends: its ssh agents, and its credentials for registries.

use futures_util::future::BoxFuture;
use rbuild_builder::ssh::{AgentStream, Agents, SshError};
use rbuild_registry::{Credential, CredentialProvider, Secret};
use rbuild_session::Sessions;

use super::SESSION_WAIT;

/// The client's ssh agents.
#[derive(Debug)]
pub(super) struct SessionAgents {
    pub(super) sessions: Sessions,
    pub(super) id: String,
}

impl Agents for SessionAgents {
    fn has<'a>(&'a self, id: &'a str) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let Ok(session) = self.sessions.get(&self.id, SESSION_WAIT).await else {
                return false;
            };
            session.check_agent(id).await.is_ok()
        })
    }

    fn are_given(&self) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let session = self.sessions.get(&self.id, SESSION_WAIT).await;
            session.is_ok_and(|session| session.has_agents())
        })
    }

    fn connect<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Box<dyn AgentStream>, SshError>> {
        Box::pin(async move {
            let fail = |source| SshError::Client {
                id: id.to_owned(),
                source,
            };
            let session = self.sessions.get(&self.id, SESSION_WAIT).await;
            let session = session.map_err(|error| fail(Box::new(error)))?;
            let stream = session.forward_agent(id).map_err(|error| fail(Box::new(error)))?;
            Ok(Box::new(stream) as Box<dyn AgentStream>)
        })
    }
}

/// A client's credentials for registries.
#[derive(Debug)]
pub struct SessionCredentials {
    /// All sessions.
    pub sessions: Sessions,
    /// Id of the client's.
    pub id: String,
}

impl CredentialProvider for SessionCredentials {
    fn credential<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Option<Credential>, String>> {
        Box::pin(async move {
            let session = self.sessions.get(&self.id, SESSION_WAIT).await;
            let session = session.map_err(|error| error.to_string())?;
            let found = session
                .credentials(host)
                .await
                .map_err(|error| error.to_string())?;
            Ok(found.map(|found| {
                let secret = Secret::new(found.secret().to_owned());
                // Docker's way to say that the secret is a refresh token (`auth.go`).
                if found.username().is_empty() || found.username() == "<token>" {
                    Credential::Identity(secret)
                } else {
                    Credential::Basic {
                        username: found.username().to_owned(),
                        password: secret,
                    }
                }
            }))
        })
    }
}
