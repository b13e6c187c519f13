//! Pushing manifests and indexes, under a tag or by digest. What they name must be pushed before. Of one that refers to
//! another the registry, or the tag that stands in for its list of referrers, knows afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use rbuild_oci::{Descriptor, Reference};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Body, Method};

use crate::client::Client;
use crate::manifest::header_digest;
use crate::reply::Reply;
use crate::token::Scope;
use crate::transport::{Call, MakeBody};
use crate::{Endpoint, RegistryError, ShownUrl};

struct Bytes(Vec<u8>);

impl MakeBody for Bytes {
    fn make(&self, sent: Arc<AtomicU64>) -> Body {
        sent.fetch_add(self.0.len() as u64, Ordering::Relaxed);
        Body::from(self.0.clone())
    }
}

impl Client {
    /// Pushes `bytes` under the tag of `reference`, or by digest where it has none.
    ///
    /// # Errors
    /// [`RegistryError`]: `WrongDigest` when `reference` has another digest than `bytes`, or the registry says that
    /// it stored something else.
    pub fn push_manifest<'a>(
        &'a self,
        reference: &'a Reference,
        media_type: &'a str,
        bytes: &'a [u8],
    ) -> BoxFuture<'a, Result<Descriptor, RegistryError>> {
        Box::pin(self.push_manifest_unboxed(reference, media_type, bytes))
    }

    async fn push_manifest_unboxed(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Descriptor, RegistryError> {
        let descriptor = Descriptor::of(media_type, bytes);
        let endpoint = self.inner.config.push_endpoint(reference)?;
        let url = ShownUrl::from_parts(&endpoint.host, &endpoint.repository, &descriptor.digest);
        if let Some(expected) = reference.digest().filter(|digest| **digest != descriptor.digest) {
            return Err(RegistryError::WrongDigest {
                url,
                found: descriptor.digest,
                expected: expected.clone(),
            });
        }
        let object = reference.tag().unwrap_or(descriptor.digest.as_str());
        let reply = self.put_manifest(&endpoint, object, media_type, bytes).await?;
        let said = header_digest(&reply)?;
        if let Some(found) = said
            .filter(|found| found.algorithm() == descriptor.digest.algorithm() && *found != descriptor.digest)
        {
            return Err(RegistryError::WrongDigest {
                url,
                found,
                expected: descriptor.digest,
            });
        }
        let is_known = reply.header("oci-subject").is_some();
        drop(reply);
        self.note_subject(&endpoint, &descriptor, bytes, is_known).await?;
        Ok(descriptor)
    }

    /// Puts `bytes` under a tag or a digest.
    pub(crate) async fn put_manifest(
        &self,
        endpoint: &Endpoint,
        object: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Reply, RegistryError> {
        let scope = Scope::push(&endpoint.repository);
        let path = format!("{}/manifests/{object}", endpoint.repository);
        let body = Bytes(bytes.to_vec());
        let mut call = Call::new("push manifest", endpoint, Method::PUT, path, &scope);
        let Ok(content_type) = HeaderValue::from_str(media_type) else {
            let digest = Descriptor::of(media_type, bytes).digest;
            return Err(RegistryError::Protocol {
                url: ShownUrl::from_parts(&endpoint.host, &endpoint.repository, &digest),
                reason: format!("{media_type:?} is no media type"),
            });
        };
        call.headers.insert(CONTENT_TYPE, content_type);
        call.body = Some(&body);
        call.accepted = &[200, 201, 202];
        self.inner.call(&call).await
    }
}
