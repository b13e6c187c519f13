//! Caches in GitHub's cache service (`cache/remotecache/gha`, `go-actions-cache`): entries are reserved, filled and
//! committed once, and never change. A cache config is therefore a row of entries numbered from 1, of which the newest
//! counts; a blob is one entry named by its digest.
//!
//! The token goes to the service alone. Where entries are, the service says with URLs that are signed themselves.

mod api;
mod listing;
mod token;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use rbuild_oci::{Descriptor, Digest};
use rbuild_registry::{
    BlobSink, BlobSource, Client, Patience, Progress, Refusal, RelayError, Secret, ServiceUrl,
};
use tokio::sync::OnceCell;

use crate::attrs::{AttrError, Attrs};
use crate::error::{ServiceError, answer_of, code};
use crate::sign::sha256_hex;
use api::{Api, Reserved};
use token::Scope;
pub use token::TokenError;

/// Version of the layout, a part of every name.
const LAYOUT: &str = "1";
/// How long the service may say that there are too many requests, unless `timeout` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(600);
/// How long another build may take to write the same cache before its entry is passed over; `timeout` if that is less.
const BLOCKED_MAX: Duration = Duration::from_secs(15);
/// How long is waited for it at a time.
const BLOCKED_PAUSE: Duration = Duration::from_secs(2);
/// Most entries that are passed over.
const PASSED_MAX: u64 = 32;

/// Where a cache is in GitHub's service, and the token that opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GhaPlace {
    scope: String,
    url: String,
    v2: bool,
    token: Secret,
    timeout: Duration,
    listing: Option<Listing>,
}

/// How the entries there are can be listed, beside asking for each.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listing {
    api_url: String,
    repository: String,
    token: Secret,
}

/// Adds to attributes what a workflow's environment says, as buildx does it (`addGithubToken`); whether that is enough to
/// reach a service. Outside of a workflow it is not, and buildx leaves the cache out then.
pub fn fill(
    attrs: &mut std::collections::BTreeMap<String, String>,
    env: &dyn Fn(&str) -> Option<String>,
) -> bool {
    let env = |name: &str| env(name).filter(|text| !text.is_empty());
    let is_v2 = match attrs.get("version") {
        Some(version) => version == "2",
        None => env("ACTIONS_CACHE_SERVICE_V2")
            .is_some_and(|text| rbuild_dockerfile::csv::boolean(&text) == Some(true)),
    };
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|_| !attrs.contains_key(key)) {
            attrs.insert(key.to_owned(), value);
        }
    };
    add("token", env("ACTIONS_RUNTIME_TOKEN"));
    if is_v2 {
        add("url_v2", env("ACTIONS_RESULTS_URL"));
    }
    add(
        "url",
        env("ACTIONS_CACHE_URL").or_else(|| env("ACTIONS_RESULTS_URL")),
    );
    let has = |key: &str| attrs.get(key).is_some_and(|text| !text.is_empty());
    has("token") && (has("url") || has("url_v2"))
}

impl GhaPlace {
    /// Reads attributes (`getConfig`).
    ///
    /// # Errors
    /// [`AttrError`].
    pub fn read(attrs: &Attrs<'_>) -> Result<Self, AttrError> {
        let token = attrs.filled("token").ok_or(AttrError::Gha("token"))?;
        let version = attrs.get("version").map(|text| {
            text.parse::<i64>().map_err(|_| AttrError::Value {
                key: "version",
                wanted: "1 or 2",
            })
        });
        let mut version = version.transpose()?.unwrap_or(0);
        let mut url = None;
        if version != 1
            && let Some(text) = attrs.filled("url_v2")
        {
            (url, version) = (Some(text), 2);
        }
        let url = url.or_else(|| attrs.filled("url")).ok_or(AttrError::Gha("url"))?;
        let v2 = match version {
            0 => url.contains("results-receiver.actions.githubusercontent.com"),
            version => version > 1,
        };
        ServiceUrl::given(url).map_err(|error| AttrError::Url {
            key: if v2 { "url_v2" } else { "url" },
            reason: error.to_string(),
        })?;
        let timeout = match attrs.get("timeout") {
            None => TIMEOUT,
            Some(_) => attrs.duration("timeout").ok_or(AttrError::Value {
                key: "timeout",
                wanted: "a time such as 10m",
            })?,
        };
        let listing = attrs.filled("repository").zip(attrs.filled("ghtoken"));
        let listing = listing.map(|(repository, token)| Listing {
            api_url: attrs
                .env("GITHUB_API_URL")
                .unwrap_or_else(|| "https://api.github.com".to_owned()),
            repository: repository.to_owned(),
            token: Secret::new(token.to_owned()),
        });
        Ok(Self {
            scope: attrs.or("scope", "buildkit"),
            url: url.to_owned(),
            v2,
            token: Secret::new(token.to_owned()),
            timeout,
            listing,
        })
    }

    /// What a user is told it is called; also what it is told apart by. Which repository's cache it is, only the token
    /// says, so a piece of its hash is in the name.
    #[must_use]
    pub fn name(&self) -> String {
        let which = sha256_hex(self.token.reveal().as_bytes());
        format!("gha:{}:{}", self.scope, &which[..8])
    }

    /// Name of the entries that hold the cache's config for a scope of the token.
    fn index_key(&self, scope: &str) -> String {
        let scope = sha256_hex(scope.as_bytes());
        format!("index-{}-{LAYOUT}-{}", self.scope, &scope[..8])
    }
}

/// What the names of blobs begin with.
const BLOB_PREFIX: &str = "buildkit-blob-1-";

fn blob_key(digest: &Digest) -> String {
    format!("{BLOB_PREFIX}{digest}")
}

/// The service that is asked.
#[derive(Debug)]
pub(crate) struct Gha {
    api: Api,
    place: GhaPlace,
    scopes: Vec<Scope>,
    /// Names of all blobs there are, if they could be listed.
    listed: OnceCell<Option<HashSet<String>>>,
}

impl Gha {
    pub(crate) fn new(client: &Client, place: &GhaPlace) -> Result<Self, ServiceError> {
        let scopes = token::scopes(place.token.reveal(), Timestamp::now())?;
        let base = ServiceUrl::given(&place.url).map_err(|source| ServiceError::Unaskable {
            place: place.name(),
            source,
        })?;
        Ok(Self {
            api: Api {
                client: client.clone(),
                base,
                token: place.token.clone(),
                v2: place.v2,
                patience: Patience {
                    attempts: None,
                    busy: Some(place.timeout),
                },
            },
            place: place.clone(),
            scopes,
            listed: OnceCell::new(),
        })
    }

    fn failed(&self, error: RelayError) -> ServiceError {
        ServiceError::of("the github actions cache", error, |refusal| {
            advice(refusal, self.place.v2)
        })
    }

    /// Lists the blobs there are, if that was allowed. That it cannot be done only means a question for each blob.
    pub(crate) async fn prepare(&self) {
        let Some(listing) = &self.place.listing else {
            return;
        };
        let listed = || listing::all(&self.api.client, listing, &self.scopes, BLOB_PREFIX);
        self.listed.get_or_init(async || listed().await.ok()).await;
    }

    pub(crate) async fn configs(&self, bytes_max: usize) -> Result<Vec<Vec<u8>>, ServiceError> {
        let mut found = Vec::new();
        for scope in &self.scopes {
            let key = format!("{}#", self.place.index_key(&scope.scope));
            let entry = self.api.find(&key).await.map_err(|error| self.failed(error))?;
            let Some(entry) = entry.filter(|entry| entry.key.starts_with(&key)) else {
                continue;
            };
            let answer = self.api.get(&entry).await.map_err(|error| self.failed(error))?;
            found.push(answer.body(bytes_max).await?);
        }
        Ok(found)
    }

    async fn blob(&self, digest: &Digest) -> Result<Option<api::Entry>, ServiceError> {
        let key = blob_key(digest);
        let entry = self.api.find(&key).await.map_err(|error| self.failed(error))?;
        Ok(entry.filter(|entry| entry.key == key))
    }

    pub(crate) async fn has(&self, digest: &Digest) -> Result<bool, ServiceError> {
        if let Some(Some(listed)) = self.listed.get() {
            return Ok(listed.contains(&blob_key(digest)));
        }
        Ok(self.blob(digest).await?.is_some())
    }

    pub(crate) async fn put_blob(
        &self,
        descriptor: &Descriptor,
        source: &Arc<dyn BlobSource>,
        progress: &Progress,
    ) -> Result<(), ServiceError> {
        let key = blob_key(&descriptor.digest);
        match self.api.reserve(&key).await.map_err(|error| self.failed(error))? {
            Reserved::Exists => Ok(()),
            Reserved::Upload(place) => {
                let sent = self.api.send(&place, descriptor, source, progress).await;
                sent.map_err(|error| self.failed(error))
            }
        }
    }

    /// Writes the next entry of the row (`SaveMutable`). While another build has it reserved, it is waited for; one that
    /// stays reserved for too long is passed over.
    pub(crate) async fn put_config(&self, config: &Bytes) -> Result<(), ServiceError> {
        let writable = self.scopes.iter().rfind(|scope| scope.may_write());
        let row = format!(
            "{}#",
            self.place.index_key(writable.map_or("", |scope| &scope.scope))
        );
        let begun = Instant::now();
        let blocked_max = BLOCKED_MAX.min(self.place.timeout);
        let mut passed = 0;
        let place = loop {
            let newest = self.api.find(&row).await.map_err(|error| self.failed(error))?;
            let newest = newest.and_then(|entry| entry.key.strip_prefix(&row)?.parse::<u64>().ok());
            let next = newest.unwrap_or(0).saturating_add(1 + passed);
            let reserved = self.api.reserve(&format!("{row}{next}")).await;
            match reserved.map_err(|error| self.failed(error))? {
                Reserved::Upload(place) => break place,
                Reserved::Exists if begun.elapsed() <= blocked_max => tokio::time::sleep(BLOCKED_PAUSE).await,
                Reserved::Exists if passed < PASSED_MAX => passed += 1,
                Reserved::Exists => {
                    return Err(ServiceError::Busy {
                        place: self.place.name(),
                        seconds: begun.elapsed().as_secs(),
                    });
                }
            }
        };
        let descriptor = Descriptor::of("application/json", config);
        let source: Arc<dyn BlobSource> = Arc::new(config.to_vec());
        let quiet: Progress = Arc::new(|_, _| {});
        let sent = self.api.send(&place, &descriptor, &source, &quiet).await;
        sent.map_err(|error| self.failed(error))
    }

    pub(crate) async fn fetch(
        &self,
        descriptor: &Descriptor,
        sink: &mut dyn BlobSink,
        progress: &Progress,
    ) -> Result<(), ServiceError> {
        // A signed URL is good for minutes: one that is not any more is asked for anew, once.
        let mut again = true;
        loop {
            let entry = self
                .blob(&descriptor.digest)
                .await?
                .ok_or_else(|| ServiceError::Gone {
                    place: "the github actions cache".to_owned(),
                    digest: descriptor.digest.clone(),
                })?;
            match self.api.fetch(&entry, descriptor, sink, progress).await {
                Err(error) if again && matches!(answer_of(&error), Some((401 | 403, _))) => again = false,
                done => return done.map_err(|error| self.failed(error)),
            }
        }
    }
}

/// What to do about an answer.
fn advice(refusal: &Refusal, v2: bool) -> Option<&'static str> {
    Some(match (refusal.status.as_u16(), code(refusal)) {
        (401 | 403, _) => {
            "the token is not accepted: it is good for one job only, and steps of `run:` get it from an action that \
             hands ACTIONS_RUNTIME_TOKEN and ACTIONS_RESULTS_URL on"
        }
        (404 | 410, _) if v2 => {
            "no cache service of version 2 is there: check url_v2 (ACTIONS_RESULTS_URL), or set version=1"
        }
        (404 | 410, _) => {
            "no cache service of version 1 is there: set version=2 and url_v2 (ACTIONS_RESULTS_URL)"
        }
        (429, _) => "too many requests: wait longer by timeout=, or write fewer layers by mode=min",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
