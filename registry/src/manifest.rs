//! Pulling manifests: what a tag means, and the bytes of a manifest, verified.
//!
//! The bytes are what the digest says, the size is what the descriptor says, and the media type is what the header,
//! the descriptor and the document all say (security rows 31 and 32).

use rbuild_oci::{
    Algorithm, DOCUMENT_BYTES_MAX, Descriptor, Digest, Document, Reference, media_type, parse_document,
};
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use sha2::{Digest as _, Sha512};

use crate::client::Client;
use crate::reply::Reply;
use crate::token::Scope;
use crate::transport::Call;
use crate::{Endpoint, RegistryError, ShownUrl};

/// Every type that is understood; registries choose by it.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
    */*;q=0.1";

/// What a reference stands for right now.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// Type, digest and size.
    pub descriptor: Descriptor,
    /// Who said so.
    pub endpoint: Endpoint,
}

/// A manifest or index that was pulled.
#[derive(Clone, Debug, PartialEq)]
pub struct PulledManifest {
    /// Type, digest and size.
    pub descriptor: Descriptor,
    /// The bytes, exactly as the registry keeps them.
    pub bytes: Vec<u8>,
    /// What they say.
    pub document: Document,
    /// Who sent it.
    pub endpoint: Endpoint,
}

impl Client {
    /// Finds what `reference` stands for: its digest if it has one (then that it exists), else its tag's.
    ///
    /// # Errors
    /// [`RegistryError`]: `NotFound` where there is no such tag, and what else may fail.
    pub async fn resolve(&self, reference: &Reference) -> Result<Resolved, RegistryError> {
        self.each_endpoint(reference, |endpoint| async move {
            if let Some(descriptor) = self.head(reference, &endpoint).await? {
                return Ok(Resolved { descriptor, endpoint });
            }
            let pulled = self.get(reference, None, endpoint).await?;
            Ok(Resolved {
                descriptor: pulled.descriptor,
                endpoint: pulled.endpoint,
            })
        })
        .await
    }

    /// Pulls the manifest or index that `reference` names by digest or tag.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn manifest(&self, reference: &Reference) -> Result<PulledManifest, RegistryError> {
        self.each_endpoint(reference, |endpoint| self.get(reference, None, endpoint))
            .await
    }

    /// Pulls the manifest or index that `descriptor` describes from the repository of `reference`. Its size and type
    /// must be the descriptor's.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn manifest_of(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<PulledManifest, RegistryError> {
        let reference = reference.repository().with_digest(descriptor.digest.clone());
        self.each_endpoint(&reference, |endpoint| {
            self.get(&reference, Some(descriptor), endpoint)
        })
        .await
    }

    /// Asks for the head of a manifest; nothing when the answer does not say enough.
    async fn head(
        &self,
        reference: &Reference,
        endpoint: &Endpoint,
    ) -> Result<Option<Descriptor>, RegistryError> {
        let ask = || self.request(Method::HEAD, "resolve", reference, endpoint);
        let reply = match self.inner.retry(endpoint, ask).await {
            Ok(reply) => reply,
            // Some registries do not know HEAD; the GET that follows says what is really wrong.
            Err(RegistryError::Refused(refusal)) if matches!(refusal.status.as_u16(), 400 | 405 | 501) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let digest = match (header_digest(&reply)?, reference.digest()) {
            (Some(found), Some(wanted)) if found != *wanted => {
                let url = ShownUrl::from(&reply.url);
                return Err(RegistryError::WrongDigest {
                    url,
                    found,
                    expected: wanted.clone(),
                });
            }
            (_, Some(wanted)) => wanted.clone(),
            (Some(found), None) => found,
            (None, None) => return Ok(None),
        };
        let size = reply
            .header("content-length")
            .and_then(|text| text.parse::<u64>().ok());
        let found_type = media_type::essence(reply.header(CONTENT_TYPE.as_str()).unwrap_or_default());
        let known = media_type::is_index(&found_type) || media_type::is_manifest(&found_type);
        Ok(size
            .filter(|size| known && *size > 0)
            .map(|size| Descriptor::new(&found_type, digest, size)))
    }

    async fn get(
        &self,
        reference: &Reference,
        descriptor: Option<&Descriptor>,
        endpoint: Endpoint,
    ) -> Result<PulledManifest, RegistryError> {
        let (descriptor, bytes, document) = self
            .inner
            .retry(&endpoint, || self.get_once(reference, descriptor, &endpoint))
            .await?;
        Ok(PulledManifest {
            descriptor,
            bytes,
            document,
            endpoint,
        })
    }

    async fn get_once(
        &self,
        reference: &Reference,
        descriptor: Option<&Descriptor>,
        endpoint: &Endpoint,
    ) -> Result<(Descriptor, Vec<u8>, Document), RegistryError> {
        let mut reply = self
            .request(Method::GET, "pull manifest", reference, endpoint)
            .await?;
        let url = ShownUrl::from(&reply.url);
        let said = header_digest(&reply)?;
        let max = descriptor.map_or(DOCUMENT_BYTES_MAX as u64, |d| {
            d.size.min(DOCUMENT_BYTES_MAX as u64)
        });
        let bytes = reply
            .body(usize::try_from(max).unwrap_or(DOCUMENT_BYTES_MAX))
            .await?;
        if let Some(expected) = descriptor
            .map(|d| d.size)
            .filter(|size| *size != bytes.len() as u64)
        {
            return Err(RegistryError::WrongSize {
                url,
                found: bytes.len() as u64,
                more: "",
                expected,
            });
        }
        let expected = reference.digest().cloned().or(said);
        let algorithm = expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let found = digest_of(&bytes, algorithm);
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(RegistryError::WrongDigest { url, found, expected });
        }
        let header_type = reply.header(CONTENT_TYPE.as_str()).map(str::to_owned);
        let parsed = |outer: Option<&str>| {
            parse_document(&bytes, outer).map_err(|source| RegistryError::Document {
                url: url.clone(),
                source: Box::new(source),
            })
        };
        let document = parsed(header_type.as_deref())?;
        if let Some(descriptor) = descriptor {
            parsed(Some(&descriptor.media_type))?;
        }
        Ok((
            Descriptor::new(document.media_type(), found, bytes.len() as u64),
            bytes,
            document,
        ))
    }

    async fn request(
        &self,
        method: Method,
        operation: &'static str,
        reference: &Reference,
        endpoint: &Endpoint,
    ) -> Result<Reply, RegistryError> {
        let scope = Scope::pull(&endpoint.repository);
        let path = format!("{}/manifests/{}", endpoint.repository, reference.object());
        let mut call = Call::new(operation, endpoint, method, path, &scope);
        call.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        self.inner.call_once(&call).await
    }
}

/// The digest a registry says the content has; one that is malformed is refused, not ignored.
pub(crate) fn header_digest(reply: &Reply) -> Result<Option<Digest>, RegistryError> {
    let Some(value) = reply.response.headers().get("docker-content-digest") else {
        return Ok(None);
    };
    let parsed = value.to_str().map_err(|error| error.to_string());
    match parsed.and_then(|text| Digest::parse(text).map_err(|error| error.to_string())) {
        Ok(digest) => Ok(Some(digest)),
        Err(error) => Err(RegistryError::Protocol {
            url: (&reply.url).into(),
            reason: format!("its Docker-Content-Digest is refused: {error}"),
        }),
    }
}

/// The digest of `bytes` by `algorithm`.
fn digest_of(bytes: &[u8], algorithm: Algorithm) -> Digest {
    match algorithm {
        Algorithm::Sha256 => Digest::sha256(bytes),
        Algorithm::Sha512 => Digest::from_sha512(&Sha512::digest(bytes).into()),
    }
}
