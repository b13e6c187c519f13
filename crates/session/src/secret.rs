//! Secrets of the client (`session/secrets`). Owns that their bytes are wiped when nobody needs them any more.

use std::collections::HashMap;
use std::fmt;

use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use tonic::Code;
use tonic::metadata::MetadataMap;
use zeroize::Zeroizing;

use crate::call::{ANSWER_TIMEOUT, CallError};
use crate::session::Session;

const METHOD: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
/// Most bytes of a secret (`session/secrets/secretsprovider`, `MaxSecretSize`).
pub const SECRET_BYTES_MAX: usize = 500 << 10;

/// Why a secret could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It is larger than secrets may be.
    #[error("secret {id}: larger than {SECRET_BYTES_MAX} bytes")]
    TooLarge {
        /// Its id.
        id: String,
    },
}

/// A secret's bytes. Wiped when dropped; what the connection's own buffers held of them is not.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// The bytes. Do not keep them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(****)")
    }
}

impl Session {
    /// The secret `id`; `None` if the client has none of that name, or no secrets at all.
    ///
    /// # Errors
    /// [`SecretError`].
    pub async fn secret(&self, id: &str) -> Result<Option<SecretBytes>, SecretError> {
        let question = GetSecretRequest {
            id: id.to_owned(),
            annotations: HashMap::new(),
        };
        let answer: Result<GetSecretResponse, CallError> = self
            .ask(METHOD, question, MetadataMap::new(), Some(ANSWER_TIMEOUT))
            .await;
        match answer {
            Ok(answer) => {
                let secret = SecretBytes::new(answer.data);
                if secret.expose().len() > SECRET_BYTES_MAX {
                    return Err(SecretError::TooLarge { id: id.to_owned() });
                }
                Ok(Some(secret))
            }
            Err(error) if matches!(error.code(), Some(Code::NotFound | Code::Unimplemented)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
