//! Credentials of registries that the client has (`session/auth`).
//!
//! Every session is asked for its own, and tokens are fetched here with them: a client is never asked to fetch one
//! (`FetchToken`), nor to show that it has what another client has (`GetTokenAuthority`, `VerifyTokenAuthority`).

use std::fmt;

use bollard_buildkit_proto::moby::filesync::v1::{CredentialsRequest, CredentialsResponse};
use tonic::metadata::MetadataMap;
use zeroize::Zeroizing;

use crate::call::{ANSWER_TIMEOUT, CallError};
use crate::session::Session;

const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";

/// A user's name and password, or with an empty name an identity token. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    username: String,
    secret: Zeroizing<String>,
}

impl Credentials {
    /// The user's name; empty if the secret is an identity token.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The password or token.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// The client's credentials for a registry; `None` if it has none, or shares none.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn credentials(&self, host: &str) -> Result<Option<Credentials>, CallError> {
        let question = CredentialsRequest {
            host: host.to_owned(),
        };
        let answer: Result<CredentialsResponse, CallError> = self
            .ask(CREDENTIALS, question, MetadataMap::new(), Some(ANSWER_TIMEOUT))
            .await;
        match answer {
            Ok(answer) => {
                let secret = Zeroizing::new(answer.secret);
                Ok((!secret.is_empty()).then_some(Credentials {
                    username: answer.username,
                    secret,
                }))
            }
            Err(CallError::Unsupported { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
