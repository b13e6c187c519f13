//! Both versions of the cache service's protocol: version 1 is REST below `_apis/artifactcache`, version 2 Twirp, whose
//! blobs are Azure's behind signed URLs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http::Method;
use rbuild_oci::Descriptor;
use rbuild_registry::{
    Answer, BlobSink, BlobSource, Client, Exchange, Patience, Payload, Progress, RegistryError, RelayError,
    Secret, ServiceUrl, UrlError,
};
use serde::Deserialize;
use serde_json::json;

use crate::azure::{Asker, Blob};
use crate::error::refusal;
use crate::sign::{encoded, sha256_hex};
use crate::xml;

/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 32 << 10;
/// Bytes of a part that is sent to version 1.
const CHUNK_BYTES: u64 = 32 << 20;
/// Parts under way at once.
const CHUNKS_AT_ONCE: usize = 4;
/// Answers of success of version 1.
const DONE: &[u16] = &[200, 201, 202, 204];

/// The service and who asks it.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) client: Client,
    pub(super) base: ServiceUrl,
    pub(super) token: Secret,
    pub(super) v2: bool,
    pub(super) patience: Patience,
}

/// An entry that is there.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its name, which may be longer than the one that was asked for.
    pub(super) key: String,
    url: ServiceUrl,
}

/// A name that was asked to be reserved.
#[derive(Debug)]
pub(super) enum Reserved {
    /// It is now.
    Upload(Upload),
    /// It was before.
    Exists,
}

/// Where an entry is sent.
#[derive(Debug)]
pub(super) enum Upload {
    /// Number of the entry in version 1.
    Id(u64),
    /// Name of the entry, and the signed URL, in version 2.
    Signed {
        /// Name.
        key: String,
        /// URL.
        url: ServiceUrl,
    },
}

/// What entries have to agree in besides their names; a fact of `go-actions-cache`.
fn version() -> String {
    sha256_hex(b"|go-actionscache-1.0")
}

impl Api {
    /// A request to the service itself.
    fn request(
        &self,
        operation: &'static str,
        method: Method,
        (path, query): (&str, &str),
        body: Option<&serde_json::Value>,
    ) -> Result<Exchange, UrlError> {
        let top = self.base.path().trim_end_matches('/');
        let below = if self.v2 {
            "twirp/github.actions.results.api.v1.CacheService"
        } else {
            "_apis/artifactcache"
        };
        let url = self.base.with(&format!("{top}/{below}/{path}"), query)?;
        let mut request = Exchange::new(operation, method, url, read_error)
            .header("authorization", &format!("Bearer {}", self.token.reveal()))?
            .accepting(DONE);
        if !self.v2 {
            request = request.header("accept", "application/json;api-version=6.0-preview.1")?;
        }
        if let Some(body) = body {
            let body = Payload::Bytes(Bytes::from(body.to_string()));
            request = request.header("content-type", "application/json")?.payload(body);
        }
        Ok(request)
    }

    async fn ask(
        &self,
        make: impl FnMut() -> Result<Exchange, UrlError> + Send,
    ) -> Result<Answer, RelayError> {
        self.client.exchange(self.patience, make).await
    }

    async fn json<T: for<'d> Deserialize<'d>>(&self, answer: Answer) -> Result<T, RelayError> {
        let url = answer.url();
        let body = answer.body(ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&body).map_err(|_| {
            RelayError::Request(RegistryError::Protocol {
                url,
                reason: "the answer is not what the cache service's protocol has".to_owned(),
            })
        })
    }

    fn named(&self, url: &str) -> Result<ServiceUrl, RelayError> {
        Ok(self.base.named(url)?)
    }

    /// The newest entry whose name begins with `key`.
    pub(super) async fn find(&self, key: &str) -> Result<Option<Entry>, RelayError> {
        if self.v2 {
            self.find_v2(key).await
        } else {
            self.find_v1(key).await
        }
    }

    async fn find_v1(&self, key: &str) -> Result<Option<Entry>, RelayError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Found {
            #[serde(default)]
            cache_key: String,
            #[serde(default)]
            archive_location: String,
        }
        let query = format!("keys={}&version={}", encoded(key, b""), version());
        let asked = self.ask(|| self.request("find cache entry", Method::GET, ("cache", &query), None));
        let answer = asked.await?;
        if answer.status() == 204 {
            return Ok(None);
        }
        let found: Found = self.json(answer).await?;
        if found.cache_key.is_empty() {
            return Ok(None);
        }
        let url = self.named(&found.archive_location)?;
        Ok(Some(Entry {
            key: found.cache_key,
            url,
        }))
    }

    async fn find_v2(&self, key: &str) -> Result<Option<Entry>, RelayError> {
        #[derive(Deserialize)]
        struct Found {
            #[serde(default)]
            ok: bool,
            #[serde(default, alias = "signedDownloadUrl")]
            signed_download_url: String,
            #[serde(default, alias = "matchedKey")]
            matched_key: String,
        }
        let body = json!({"key": key, "restore_keys": [key], "version": version()});
        let path = ("GetCacheEntryDownloadURL", "");
        let answer = self
            .ask(|| self.request("find cache entry", Method::POST, path, Some(&body)))
            .await?;
        let found: Found = self.json(answer).await?;
        if !found.ok {
            return Ok(None);
        }
        let url = self.named(&found.signed_download_url)?;
        Ok(Some(Entry {
            key: found.matched_key,
            url,
        }))
    }

    /// Reserves a name.
    pub(super) async fn reserve(&self, key: &str) -> Result<Reserved, RelayError> {
        let body = json!({"key": key, "version": version()});
        let path = if self.v2 { "CreateCacheEntry" } else { "caches" };
        let asked = self.ask(|| self.request("reserve cache entry", Method::POST, (path, ""), Some(&body)));
        let answer = match asked.await {
            Ok(answer) => answer,
            Err(error) if is_taken(&error) => return Ok(Reserved::Exists),
            Err(error) => return Err(error),
        };
        if self.v2 {
            #[derive(Deserialize)]
            struct Made {
                #[serde(default)]
                ok: bool,
                #[serde(default, alias = "signedUploadUrl")]
                signed_upload_url: String,
            }
            let made: Made = self.json(answer).await?;
            if !made.ok {
                return Ok(Reserved::Exists);
            }
            let (key, url) = (key.to_owned(), self.named(&made.signed_upload_url)?);
            return Ok(Reserved::Upload(Upload::Signed { key, url }));
        }
        #[derive(Deserialize)]
        struct Made {
            #[serde(rename = "cacheId", alias = "cacheID")]
            cache_id: u64,
        }
        let made: Made = self.json(answer).await?;
        Ok(Reserved::Upload(Upload::Id(made.cache_id)))
    }

    /// Sends what a name was reserved for, and commits it.
    pub(super) async fn send(
        &self,
        place: &Upload,
        descriptor: &Descriptor,
        source: &Arc<dyn BlobSource>,
        progress: &Progress,
    ) -> Result<(), RelayError> {
        let blob = Blob {
            descriptor,
            source,
            progress,
        };
        let (path, body) = match place {
            Upload::Id(id) => {
                self.send_chunks(*id, &blob).await?;
                (format!("caches/{id}"), json!({"size": descriptor.size}))
            }
            Upload::Signed { key, url } => {
                let asker = Asker {
                    client: &self.client,
                    patience: self.patience,
                    key: None,
                };
                asker.put_blob(url, &blob, false).await?;
                let body = json!({"key": key, "size_bytes": descriptor.size, "version": version()});
                ("FinalizeCacheEntryUpload".to_owned(), body)
            }
        };
        let asked = self.ask(|| self.request("commit cache entry", Method::POST, (&path, ""), Some(&body)));
        let answer = asked.await?;
        if self.v2 {
            #[derive(Deserialize)]
            struct Done {
                #[serde(default)]
                ok: bool,
            }
            let url = answer.url();
            let done: Done = self.json(answer).await?;
            if !done.ok {
                return Err(RelayError::Request(RegistryError::Protocol {
                    url,
                    reason: "the service did not commit the cache entry".to_owned(),
                }));
            }
        }
        Ok(())
    }

    async fn send_chunks(&self, id: u64, blob: &Blob<'_>) -> Result<(), RelayError> {
        let (size, done) = (blob.descriptor.size, AtomicU64::new(0));
        let path = format!("caches/{id}");
        let send = |number: u64| {
            let (done, path) = (&done, &path);
            async move {
                let offset = number * CHUNK_BYTES;
                let bytes = CHUNK_BYTES.min(size - offset);
                let range = format!("bytes {offset}-{}/*", offset + bytes - 1);
                let sent = self.ask(|| {
                    let request = self.request("put cache entry", Method::PATCH, (path, ""), None)?;
                    let request = request
                        .header("content-type", "application/octet-stream")?
                        .header("content-range", &range)?;
                    // Parts end in any order: what is shown is the sum of those that are there.
                    Ok(request.payload(blob.part(offset, bytes, Arc::new(|_, _| {}))))
                });
                sent.await?;
                (blob.progress)(done.fetch_add(bytes, Ordering::Relaxed) + bytes, size);
                Ok::<(), RelayError>(())
            }
        };
        let sent: Vec<_> = (0..size.div_ceil(CHUNK_BYTES)).map(send).collect();
        stream::iter(sent)
            .buffer_unordered(CHUNKS_AT_ONCE)
            .try_collect()
            .await
    }

    fn get_request(entry: &Entry, from: Option<u64>) -> Result<Exchange, UrlError> {
        let request = Exchange::new("get cache entry", Method::GET, entry.url.clone(), read_error);
        match from {
            Some(from) => request.header("range", &format!("bytes={from}-")),
            None => Ok(request),
        }
    }

    /// The content of an entry.
    pub(super) async fn get(&self, entry: &Entry) -> Result<Answer, RelayError> {
        self.ask(|| Self::get_request(entry, None)).await
    }

    /// Fetches an entry that is a blob, verified.
    pub(super) async fn fetch(
        &self,
        entry: &Entry,
        descriptor: &Descriptor,
        sink: &mut dyn BlobSink,
        progress: &Progress,
    ) -> Result<(), RelayError> {
        let make = |from: Option<u64>| Self::get_request(entry, from);
        self.client.fetch_exchange(descriptor, sink, progress, make).await
    }
}

/// Code and message in an answer of either version, or of the storage behind them.
pub(super) fn read_error(body: &[u8]) -> Option<(String, String)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Told {
        #[serde(default)]
        type_key: String,
        #[serde(default)]
        code: String,
        #[serde(default, alias = "msg")]
        message: String,
    }
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let told = serde_json::from_slice::<Told>(text).ok().map(|told| {
        let code = if told.type_key.is_empty() {
            told.code
        } else {
            told.type_key
        };
        (code, told.message)
    });
    told.or_else(|| xml::error(body))
}

/// Whether a name could not be reserved since it was before.
fn is_taken(error: &RelayError) -> bool {
    let RelayError::Request(error) = error else {
        return false;
    };
    let told = refusal(error).and_then(|refusal| refusal.errors.first());
    told.is_some_and(|told| {
        let code = told.code.as_str();
        let message = told.message.as_str().to_lowercase();
        code.contains("AlreadyExists") || code == "already_exists" || message.contains("already exists")
    })
}
