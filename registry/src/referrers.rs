//! What refers to a manifest (its signatures, its attestations): asked of the registry's API, or read from the tag that stands
//! in for it where there is none, which is then also kept up to date by whoever pushes (OCI distribution 1.1, "Listing
//! Referrers" and "Pushing Manifests with Subject").

use rbuild_oci::{
    DOCUMENT_BYTES_MAX, Descriptor, Digest, Document, Index, Reference, media_type, parse_document,
};
use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderValue};

use crate::client::Client;
use crate::reply::{Reply, join};
use crate::token::Scope;
use crate::transport::{Call, Target};
use crate::{Endpoint, RegistryError, ShownUrl};

/// Most pages of a list, and most entries in all.
const PAGES_MAX: usize = 100;
const REFERRERS_MAX: usize = 10_000;

impl Client {
    /// What the repository of `reference` has that refers to `subject`.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        self.each_endpoint(reference, |endpoint| async move {
            let scope = Scope::pull(&endpoint.repository);
            let listed = self.referrers_at(&endpoint, subject, &scope).await?;
            match listed {
                Some(listed) => Ok(listed),
                None => self.tagged_referrers(&endpoint, subject, &scope).await,
            }
        })
        .await
    }

    /// What the API says; nothing where there is none.
    async fn referrers_at(
        &self,
        endpoint: &Endpoint,
        subject: &Digest,
        scope: &Scope,
    ) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        let path = format!("{}/referrers/{subject}", endpoint.repository);
        let mut target = Target::Path(path);
        let mut all = Vec::new();
        let mut last = None;
        for _ in 0..PAGES_MAX {
            let Some(mut reply) = self.index_at(endpoint, target, scope).await? else {
                return Ok(None);
            };
            let next = next_page(&reply)?;
            all.extend(index(&mut reply).await?.manifests);
            let url = ShownUrl::from(&reply.url);
            match next {
                Some(url) if all.len() <= REFERRERS_MAX => target = Target::Url(url),
                None if all.len() <= REFERRERS_MAX => return Ok(Some(all)),
                _ => return Err(too_many(url)),
            }
            last = Some(url);
        }
        Err(too_many(last.unwrap_or_else(|| {
            ShownUrl::from_parts(&endpoint.host, &endpoint.repository, subject)
        })))
    }

    /// What the tag says that stands in for the API.
    async fn tagged_referrers(
        &self,
        endpoint: &Endpoint,
        subject: &Digest,
        scope: &Scope,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let path = format!("{}/manifests/{}", endpoint.repository, fallback_tag(subject));
        match self.index_at(endpoint, Target::Path(path), scope).await? {
            Some(mut reply) => Ok(index(&mut reply).await?.manifests),
            None => Ok(Vec::new()),
        }
    }

    /// Asks for an index; nothing where the registry knows none.
    async fn index_at(
        &self,
        endpoint: &Endpoint,
        target: Target,
        scope: &Scope,
    ) -> Result<Option<Reply>, RegistryError> {
        let mut call = Call::new("list referrers", endpoint, Method::GET, String::new(), scope);
        call.target = target;
        call.headers
            .insert(ACCEPT, HeaderValue::from_static(media_type::OCI_INDEX));
        call.accepted = &[200, 404];
        let reply = self.inner.call(&call).await?;
        Ok((reply.response.status().as_u16() == 200).then_some(reply))
    }

    /// Notes that `document`, which was pushed as `pushed`, refers to another, if it does and the registry did not say
    /// (`OCI-Subject`) that it knows.
    pub(crate) async fn note_subject(
        &self,
        endpoint: &Endpoint,
        pushed: &Descriptor,
        bytes: &[u8],
        is_known: bool,
    ) -> Result<(), RegistryError> {
        let Some((subject, referrer)) = referrer(pushed, bytes).filter(|_| !is_known) else {
            return Ok(());
        };
        let scope = Scope::push(&endpoint.repository);
        let mut listed = self.tagged_referrers(endpoint, &subject, &scope).await?;
        if listed.iter().any(|known| known.digest == referrer.digest) {
            return Ok(());
        }
        listed.push(referrer);
        let index = Index::new(media_type::OCI_INDEX, listed).to_bytes();
        self.put_manifest(endpoint, &fallback_tag(&subject), media_type::OCI_INDEX, &index)
            .await
            .map(drop)
    }
}

/// What a document refers to, and how a list shows it.
fn referrer(pushed: &Descriptor, bytes: &[u8]) -> Option<(Digest, Descriptor)> {
    let document = parse_document(bytes, Some(&pushed.media_type)).ok()?;
    let (subject, artifact_type, annotations) = match document {
        Document::Manifest(manifest) => {
            let config = manifest.config.media_type;
            let artifact_type = manifest.artifact_type.or(Some(config));
            (manifest.subject?, artifact_type, manifest.annotations)
        }
        Document::Index(index) => (index.subject?, index.artifact_type, index.annotations),
    };
    let shown = Descriptor {
        artifact_type,
        annotations,
        ..Descriptor::new(&pushed.media_type, pushed.digest.clone(), pushed.size)
    };
    Some((subject.digest, shown))
}

/// The tag that stands in for the API (`sha256-…`).
fn fallback_tag(subject: &Digest) -> String {
    subject.to_string().replacen(':', "-", 1)
}

fn too_many(url: ShownUrl) -> RegistryError {
    RegistryError::Protocol {
        url,
        reason: format!("it lists more than {REFERRERS_MAX} referrers, or {PAGES_MAX} pages of them"),
    }
}

async fn index(reply: &mut Reply) -> Result<Index, RegistryError> {
    let bytes = reply.body(DOCUMENT_BYTES_MAX).await?;
    let url = ShownUrl::from(&reply.url);
    let parsed = parse_document(&bytes, Some(media_type::OCI_INDEX));
    match parsed {
        Ok(Document::Index(index)) => Ok(*index),
        Ok(Document::Manifest(_)) => Err(RegistryError::Protocol {
            url,
            reason: "its list of referrers is no index".to_owned(),
        }),
        Err(source) => Err(RegistryError::Document {
            url,
            source: Box::new(source),
        }),
    }
}

/// Where a list goes on (RFC 8288): at the same registry only.
fn next_page(reply: &Reply) -> Result<Option<reqwest::Url>, RegistryError> {
    let Some(link) = reply.header("link") else {
        return Ok(None);
    };
    let is_next = |parameters: &str| {
        let mut parameters = parameters.split(';').map(str::trim);
        parameters.any(|parameter| matches!(parameter, "rel=next" | "rel=\"next\""))
    };
    let target = link
        .split(',')
        .filter_map(|one| one.trim().strip_prefix('<')?.split_once('>'))
        .find_map(|(target, parameters)| is_next(parameters).then_some(target));
    let Some(target) = target else {
        return Ok(None);
    };
    let url = join(&reply.url, target)?;
    if url.origin() != reply.url.origin() {
        return Err(RegistryError::Protocol {
            url: ShownUrl::from(&reply.url),
            reason: "its list of referrers goes on at another place".to_owned(),
        });
    }
    Ok(Some(url))
}
