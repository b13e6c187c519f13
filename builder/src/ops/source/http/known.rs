//! What earlier answers said of a URL: a file is fetched only if the server's `ETag` is none of them, and is a new layer
//! only if it is another file.

use std::collections::BTreeSet;
use std::sync::Arc;

use rbuild_graph::Vertex;
use rbuild_oci::Digest;
use rbuild_registry::{UrlHead, UrlRequest};
use rbuild_store::Record;
use serde::{Deserialize, Serialize};

use super::sink::{Landed, Landing};
use super::wanted::Wanted;
use super::{Fetched, HttpError};
use crate::job::Job;
use crate::ops::{OpError, blocking, layer_entry};
use crate::solve::{Executor as _, Key, KeyBuilder, Reporter};
use crate::value::{Chain, Value};

/// Most of a body read, bytes; less where the store's disk has less room.
const BODY_BYTES_MAX: u64 = 64 << 30;
/// Table of the store with what is known of URLs.
const KNOWN_SPACE: &str = "http";
/// Answers remembered for one URL.
const KNOWN_MAX: usize = 8;
/// What an earlier answer said. Kept in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Known {
    /// Without the mark of weakness.
    etag: Option<String>,
    digest: Digest,
    name: String,
    /// Seconds since 1970.
    modified: Option<i64>,
}

/// Asks for a file without a checksum: what is known of it is compared first.
pub(super) async fn resolve(
    job: &Job,
    vertex: &Vertex,
    wanted: &Wanted,
    reporter: &mut Reporter,
) -> Result<Fetched, OpError> {
    reporter.start(None);
    let mut known = Vec::new();
    for entry in load_known(job, &wanted.name()) {
        if let Some(chain) = wanted.stored(job, vertex, &entry).await {
            known.push((entry, chain));
        }
    }
    let etags: Vec<&str> = known
        .iter()
        .filter_map(|(entry, _)| entry.etag.as_deref())
        .collect();
    let mut request = wanted.request(job).await?;
    if !etags.is_empty()
        && let Ok(asking) = request.clone().with_header("if-none-match", &etags.join(", "))
    {
        request = asking;
        // Servers that give out an ETag and do not compare it are common: so it is compared here first.
        if let Ok(head) = job.engine.images.client().head_url(&request).await
            && let Some(found) = unchanged(&known, &head)
        {
            reporter.cached();
            return Ok(found);
        }
    }
    let (head, landed) = fetch(job, wanted, &request).await?;
    let Some(landed) = landed else {
        let found = unchanged(&known, &head).ok_or_else(|| not_modified(&request))?;
        reporter.cached();
        return Ok(found);
    };
    let fetched = keep(job, vertex, wanted, &head, landed, known).await?;
    reporter.done();
    Ok(fetched)
}

/// A server that says "not modified" of something it was not asked about.
fn not_modified(request: &UrlRequest) -> HttpError {
    HttpError::Keep {
        url: request.shown(),
        source: std::io::Error::other("the server says that it is unchanged, and not of what"),
    }
}

/// The known answer that `head` names: by its `ETag`, or as the only one that was asked about.
fn unchanged(known: &[(Known, Chain)], head: &UrlHead) -> Option<Fetched> {
    if head.status != 200 && !head.is_unchanged() {
        return None;
    }
    let with_etag = || known.iter().filter(|(entry, _)| entry.etag.is_some());
    let (entry, chain) = match head.etag.as_deref().map(strong) {
        Some(etag) => with_etag().find(|(entry, _)| entry.etag.as_deref() == Some(etag))?,
        None if head.is_unchanged() && with_etag().count() == 1 => with_etag().next()?,
        None => return None,
    };
    Some(Fetched {
        chain: chain.clone(),
        digest: entry.digest.clone(),
        name: entry.name.clone(),
        modified: entry.modified,
    })
}

/// An `ETag` without the mark of weakness.
fn strong(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}

/// The answer, and the file if there is one in it.
pub(super) async fn fetch(
    job: &Job,
    wanted: &Wanted,
    request: &UrlRequest,
) -> Result<(UrlHead, Option<Landed>), OpError> {
    let (engine, lease) = (Arc::clone(&job.engine), Arc::clone(&job.lease));
    let workspace = blocking(move || engine.snapshotter.workspace(&lease, &[])).await?;
    let max_bytes = BODY_BYTES_MAX.min(job.engine.store.free_bytes());
    let mut landing = Landing::new(wanted.clone(), max_bytes, workspace)?;
    let client = job.engine.images.client();
    let head = client
        .get_url(request, max_bytes, &mut landing)
        .await
        .map_err(HttpError::from)?;
    if head.is_unchanged() {
        return Ok((head, None));
    }
    let landed = landing.finish().map_err(|source| HttpError::Keep {
        url: request.shown(),
        source,
    })?;
    Ok((head, Some(landed)))
}

/// Makes a layer of a new answer, or takes the one that is the same already, and remembers it.
async fn keep(
    job: &Job,
    vertex: &Vertex,
    wanted: &Wanted,
    head: &UrlHead,
    landed: Landed,
    known: Vec<(Known, Chain)>,
) -> Result<Fetched, OpError> {
    let entry = Known {
        etag: head.etag.as_deref().map(|etag| strong(etag).to_owned()),
        digest: landed.digest.clone(),
        name: landed.name.clone(),
        modified: landed.modified,
    };
    let same =
        |old: &Known| old.digest == entry.digest && old.name == entry.name && old.modified == entry.modified;
    let chain = match known.iter().find(|(old, _)| same(old)) {
        Some((_, chain)) => chain.clone(),
        None => {
            let chain = commit(landed).await?;
            wanted.remember(job, vertex, &entry, &chain)?;
            chain
        }
    };
    let fetched = Fetched {
        chain,
        digest: entry.digest.clone(),
        name: entry.name.clone(),
        modified: entry.modified,
    };
    let older = known
        .into_iter()
        .map(|(old, _)| old)
        .filter(|old| old.etag != entry.etag && (old.etag.is_some() || !same(old)));
    let kept: Vec<Known> = std::iter::once(entry.clone())
        .chain(older)
        .take(KNOWN_MAX)
        .collect();
    if let Ok(bytes) = serde_json::to_vec(&kept) {
        job.engine
            .store
            .put_kv(KNOWN_SPACE, wanted.name().as_str(), &bytes)?;
    }
    Ok(fetched)
}

pub(super) async fn commit(landed: Landed) -> Result<Chain, OpError> {
    let committed = blocking(move || landed.workspace.commit()).await?;
    Ok(Chain::new(vec![committed.id]))
}

fn load_known(job: &Job, name: &Digest) -> Vec<Known> {
    // What cannot be read is not known: the file is fetched again.
    let stored = job.engine.store.kv(KNOWN_SPACE, name.as_str()).ok().flatten();
    stored
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

impl Wanted {
    fn key(&self, known: &Known) -> Key {
        let mut key = KeyBuilder::default();
        for part in self.ingredients(&known.name, &known.digest, known.modified) {
            key.add(part.name, part.value);
        }
        key.finish().0
    }

    async fn stored(&self, job: &Job, vertex: &Vertex, known: &Known) -> Option<Chain> {
        match job
            .load(vertex, &self.key(known), &BTreeSet::from([0]))
            .await?
            .values
            .pop()
        {
            Some(Value::Chain(chain)) => Some(chain),
            _ => None,
        }
    }

    fn remember(&self, job: &Job, vertex: &Vertex, known: &Known, chain: &Chain) -> Result<(), OpError> {
        let ingredients = self.ingredients(&known.name, &known.digest, known.modified);
        job.engine.store.put_record(&Record {
            key: self.key(known).0,
            site: job.site_of(vertex),
            vertex: vertex.meta.name.clone(),
            layers: chain.layers().iter().map(|id| layer_entry(job, id, 0)).collect(),
            ingredients: ingredients
                .into_iter()
                .map(|part| (part.name, part.value))
                .collect(),
            created_ms: crate::time::now_ms(),
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_about_a_known_etag_is_unchanged() {
        let entry = |etag: &str| {
            (
                Known {
                    etag: (!etag.is_empty()).then(|| etag.to_owned()),
                    digest: Digest::sha256(etag.as_bytes()),
                    name: "f".into(),
                    modified: None,
                },
                Chain::default(),
            )
        };
        let head = |status, etag: &str| UrlHead {
            status,
            etag: (!etag.is_empty()).then(|| etag.to_owned()),
            ..UrlHead::default()
        };
        let two = [entry("\"a\""), entry("\"b\""), entry("")];
        let found = |known: &[_], head| unchanged(known, &head).map(|found| found.digest);
        assert_eq!(found(&two, head(200, "W/\"b\"")), Some(Digest::sha256(b"\"b\"")));
        assert_eq!(found(&two, head(304, "\"a\"")), Some(Digest::sha256(b"\"a\"")));
        assert_eq!(found(&two, head(304, "")), None, "of which?");
        assert_eq!(
            found(&two[1..], head(304, "")),
            Some(Digest::sha256(b"\"b\"")),
            "of the only one asked about"
        );
        assert_eq!(found(&two[1..], head(200, "")), None);
        assert_eq!(found(&two, head(200, "\"c\"")), None);
        assert_eq!(found(&two, head(404, "\"a\"")), None);
    }
}
