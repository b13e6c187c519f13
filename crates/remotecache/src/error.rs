//! Why a service did not keep a cache or did not give it, with what can be done about that.

use rbuild_oci::Digest;
use rbuild_registry::{Refusal, RegistryError, RelayError, ShownUrl, UrlError};

use crate::gha::TokenError;
use crate::s3::CredentialsError;

/// Why a service did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The service said no, and there is something to do about it.
    #[error("{place}: {advice}")]
    Refused {
        /// The service, as the user knows it.
        place: String,
        /// What to do.
        advice: &'static str,
        /// What it said.
        #[source]
        source: Box<RegistryError>,
    },
    /// The network, or an answer that explains itself.
    #[error("{0}")]
    Request(#[source] Box<RegistryError>),
    /// A name or a secret that no request can be made of.
    #[error("no request can be made to {place}")]
    Unaskable {
        /// The service.
        place: String,
        /// Why.
        #[source]
        source: UrlError,
    },
    /// An answer of success that breaks the protocol.
    #[error("{url} answered without {lacks}")]
    Answer {
        /// The request.
        url: ShownUrl,
        /// What is missing from it.
        lacks: &'static str,
    },
    /// There are no credentials for S3.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The token of GitHub's cache service is not one.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A blob of this machine could not be read.
    #[error("cannot read blob {digest} to upload it")]
    Source {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A cache names a blob that the service does not have any more.
    #[error("{place} does not have blob {digest} any more")]
    Gone {
        /// The service.
        place: String,
        /// The blob.
        digest: Digest,
    },
    /// Another build is writing the same cache.
    #[error("{place}: the cache is being written by another build, and was so for {seconds} s")]
    Busy {
        /// The service.
        place: String,
        /// How long.
        seconds: u64,
    },
}

impl From<RegistryError> for ServiceError {
    fn from(error: RegistryError) -> Self {
        Self::Request(Box::new(error))
    }
}

impl ServiceError {
    /// What a failed request means; `advise` knows what to do about answers without success.
    pub(crate) fn of(
        place: &str,
        error: RelayError,
        advise: impl Fn(&Refusal) -> Option<&'static str>,
    ) -> Self {
        match error {
            RelayError::Url(source) => Self::Unaskable {
                place: place.to_owned(),
                source,
            },
            RelayError::Request(error) => match refusal(&error).and_then(advise) {
                Some(advice) => Self::Refused {
                    place: place.to_owned(),
                    advice,
                    source: Box::new(error),
                },
                None => Self::Request(Box::new(error)),
            },
        }
    }
}

/// The answer in an error, if it was one.
pub(crate) fn refusal(error: &RegistryError) -> Option<&Refusal> {
    match error {
        RegistryError::NotFound(refusal) | RegistryError::Refused(refusal) => Some(refusal),
        _ => None,
    }
}

/// The code in an answer without success; empty if it had none.
pub(crate) fn code(refusal: &Refusal) -> &str {
    refusal.errors.first().map_or("", |error| error.code.as_str())
}

/// Status and code of the answer that a failed request got.
pub(crate) fn answer_of(error: &RelayError) -> Option<(u16, &str)> {
    match error {
        RelayError::Request(error) => refusal(error).map(|refusal| (refusal.status.as_u16(), code(refusal))),
        RelayError::Url(_) => None,
    }
}
