//! Credentials of registries that the client has, and tokens it fetches with them (`session/auth`).
//!
//! A client that can fetch tokens proves with a signature that another session has the same credentials; the key is
//! made of them, so they never leave the client. Verifying the signature is the caller's, who knows what to do with it.

use std::fmt;

use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use tonic::Code;
use tonic::metadata::MetadataMap;
use zeroize::Zeroizing;

use crate::call::{ANSWER_TIMEOUT, CallError};
use crate::session::Session;

const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const FETCH_TOKEN: &str = "/moby.filesync.v1.Auth/FetchToken";
const GET_AUTHORITY: &str = "/moby.filesync.v1.Auth/GetTokenAuthority";
const VERIFY_AUTHORITY: &str = "/moby.filesync.v1.Auth/VerifyTokenAuthority";
/// Bytes of a signature before the signed text (ed25519, as NaCl's `sign` frames it).
const SIGNATURE_BYTES: usize = 64;

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

/// What a token is to be for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenRequest {
    /// The registry.
    pub host: String,
    /// Where tokens are given, as the registry said.
    pub realm: String,
    /// The service it named.
    pub service: String,
    /// What is to be allowed.
    pub scopes: Vec<String>,
    /// Who asks.
    pub client_id: String,
}

/// A token. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    token: Zeroizing<String>,
    /// Seconds it is good for; 0 if the client does not say.
    pub expires_in: i64,
    /// When it was given, in seconds since 1970; 0 if the client does not say.
    pub issued_at: i64,
}

impl Token {
    /// The token itself.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("expires_in", &self.expires_in)
            .field("issued_at", &self.issued_at)
            .finish_non_exhaustive()
    }
}

/// Why a client's authority over tokens is not known.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The key has not the length of one.
    #[error("invalid pubkey length {0}")]
    KeyLength(usize),
    /// The answer is not a signature followed by what was to be signed.
    #[error("malformed signature")]
    Signature,
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

    /// Lets the client fetch a token, with its credentials if it has some.
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::Unsupported`] if the client does not do that.
    pub async fn fetch_token(&self, request: TokenRequest) -> Result<Token, CallError> {
        let question = FetchTokenRequest {
            client_id: request.client_id,
            host: request.host,
            realm: request.realm,
            service: request.service,
            scopes: request.scopes,
        };
        let answer: FetchTokenResponse = self
            .ask(FETCH_TOKEN, question, MetadataMap::new(), Some(ANSWER_TIMEOUT))
            .await?;
        Ok(Token {
            token: Zeroizing::new(answer.token),
            expires_in: answer.expires_in,
            issued_at: answer.issued_at,
        })
    }

    /// The public key (ed25519) that stands for the client's credentials for a registry under this salt; `None` if
    /// the client fetches no tokens itself, so that [`Session::credentials`] has to be asked.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub async fn token_authority(&self, host: &str, salt: &[u8]) -> Result<Option<[u8; 32]>, VerifyError> {
        let question = GetTokenAuthorityRequest {
            host: host.to_owned(),
            salt: salt.to_vec(),
        };
        let answer: Result<GetTokenAuthorityResponse, CallError> = self
            .ask(GET_AUTHORITY, question, MetadataMap::new(), Some(ANSWER_TIMEOUT))
            .await;
        match answer {
            Ok(answer) => match <[u8; 32]>::try_from(answer.public_key.as_slice()) {
                Ok(key) => Ok(Some(key)),
                Err(_) => Err(VerifyError::KeyLength(answer.public_key.len())),
            },
            Err(error) if matches!(error.code(), Some(Code::Unimplemented | Code::Unavailable)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets the client sign `payload` with the key of [`Session::token_authority`]. Gives the signature; `None` if
    /// the client does not sign. The caller verifies it against the key it holds.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub async fn sign_token_authority(
        &self,
        host: &str,
        salt: &[u8],
        payload: &[u8],
    ) -> Result<Option<[u8; SIGNATURE_BYTES]>, VerifyError> {
        let question = VerifyTokenAuthorityRequest {
            host: host.to_owned(),
            payload: payload.to_vec(),
            salt: salt.to_vec(),
        };
        let answer: Result<VerifyTokenAuthorityResponse, CallError> = self
            .ask(
                VERIFY_AUTHORITY,
                question,
                MetadataMap::new(),
                Some(ANSWER_TIMEOUT),
            )
            .await;
        match answer {
            Ok(answer) => match answer.signed.split_first_chunk::<SIGNATURE_BYTES>() {
                Some((signature, signed)) if signed == payload => Ok(Some(*signature)),
                _ => Err(VerifyError::Signature),
            },
            Err(CallError::Unsupported { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
