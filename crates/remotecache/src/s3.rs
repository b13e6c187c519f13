//! Caches in a bucket of S3 or of a service that speaks like it (`cache/remotecache/s3`): a blob is an object named by
//! its digest, a cache config one named by the cache.

mod credentials;
mod multipart;
mod sigv4;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use rbuild_oci::{Algorithm, Descriptor, Digest};
use rbuild_registry::{
    Answer, BlobSink, BlobSource, Client, Exchange, Patience, Payload, Progress, Refusal, RelayError,
    ServiceUrl, UrlError,
};

use crate::attrs::{AttrError, Attrs};
use crate::error::{ServiceError, answer_of, code};
use crate::sign::{encoded, parsed_http_date, part_sha256_hex, sha256_hex};
use crate::xml;
pub use credentials::CredentialsError;
pub use sigv4::Keys;
use sigv4::Signer;

/// Blobs of at most this size are sent as one request, in bytes; also the least size of a part of others.
const WHOLE_BYTES_MAX: u64 = 64 << 20;
/// Largest object that is copied in one request, in bytes.
const COPY_BYTES_MAX: u64 = 5 << 30;
/// Uploads at once unless `upload_parallelism` says otherwise.
const UPLOADS: usize = 4;
/// Most uploads at once that can be asked for.
const UPLOADS_MAX: usize = 64;

/// Where a cache is in S3, and who may use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Place {
    bucket: String,
    region: String,
    prefix: String,
    manifests_prefix: String,
    blobs_prefix: String,
    names: Vec<String>,
    touch_refresh: Duration,
    endpoint: Option<String>,
    path_style: bool,
    keys: Result<Keys, CredentialsError>,
    pub(crate) uploads: usize,
    attempts: Option<u32>,
}

impl S3Place {
    /// Reads attributes (`getConfig`).
    ///
    /// # Errors
    /// [`AttrError`]. That there are no credentials is no error yet: it fails the transfer, not the build.
    pub fn read(attrs: &Attrs<'_>) -> Result<Self, AttrError> {
        let needed = |key, variable| {
            attrs.or_env(key, variable).ok_or(AttrError::NotSet {
                key,
                variable,
                kind: "s3",
            })
        };
        let bucket = needed("bucket", "AWS_BUCKET")?;
        let region = needed("region", "AWS_REGION")?;
        let is_name = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        for (key, text) in [("bucket", &bucket), ("region", &region)] {
            if !is_name(text) {
                let wanted = "letters, digits, dots, hyphens and underscores";
                return Err(AttrError::Value { key, wanted });
            }
        }
        match attrs.get("retry_mode") {
            None | Some("standard" | "adaptive") => {}
            Some(_) => {
                let wanted = "\"standard\" or \"adaptive\"";
                return Err(AttrError::Value {
                    key: "retry_mode",
                    wanted,
                });
            }
        }
        let endpoint = attrs.filled("endpoint_url").map(str::to_owned);
        let named = endpoint.is_some();
        let endpoint = endpoint
            .or_else(|| attrs.env("AWS_ENDPOINT_URL_S3"))
            .or_else(|| attrs.env("AWS_ENDPOINT_URL"));
        if let Some(text) = &endpoint {
            ServiceUrl::given(text).map_err(|error| AttrError::Url {
                key: "endpoint_url",
                reason: error.to_string(),
            })?;
        }
        let uploads = attrs
            .positive("upload_parallelism")?
            .map_or(UPLOADS, NonZeroUsize::get);
        let attempts = attrs.positive("retry_max_attempts")?;
        Ok(Self {
            bucket,
            region,
            prefix: attrs.or("prefix", ""),
            manifests_prefix: attrs.or("manifests_prefix", "manifests/"),
            blobs_prefix: attrs.or("blobs_prefix", "blobs/"),
            names: attrs.names()?,
            touch_refresh: attrs
                .duration("touch_refresh")
                .unwrap_or(Duration::from_secs(24 * 3600)),
            endpoint,
            path_style: named && attrs.flag("use_path_style"),
            keys: credentials::find(attrs),
            uploads: uploads.min(UPLOADS_MAX),
            attempts: attempts.map(|count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        })
    }

    /// What a user is told it is called; also what it is told apart by.
    #[must_use]
    pub fn name(&self) -> String {
        let at = self
            .endpoint
            .as_deref()
            .map(|url| format!(" at {url}"))
            .unwrap_or_default();
        let (prefix, manifests, names) = (&self.prefix, &self.manifests_prefix, self.names.join(";"));
        format!("s3:{}/{prefix}{manifests}{names}{at}", self.bucket)
    }

    /// Where the bucket's objects are.
    fn base(&self) -> Result<(ServiceUrl, String), UrlError> {
        let Self { bucket, region, .. } = self;
        let Some(endpoint) = &self.endpoint else {
            let top = if region.starts_with("cn-") {
                "amazonaws.com.cn"
            } else {
                "amazonaws.com"
            };
            // A bucket with dots has no certificate as a host.
            return if bucket.contains('.') {
                Ok((
                    ServiceUrl::given(&format!("https://s3.{region}.{top}"))?,
                    format!("/{bucket}/"),
                ))
            } else {
                let host = format!("https://{bucket}.s3.{region}.{top}");
                Ok((ServiceUrl::given(&host)?, "/".to_owned()))
            };
        };
        let url = ServiceUrl::given(endpoint)?;
        let path = url.path().trim_end_matches('/').to_owned();
        if self.path_style || url.is_address() {
            return Ok((url, format!("{path}/{bucket}/")));
        }
        let host = format!("{}://{bucket}.{}", url.scheme(), url.authority());
        Ok((ServiceUrl::given(&host)?, format!("{path}/")))
    }
}

/// A bucket that is asked.
#[derive(Debug)]
pub(crate) struct S3 {
    client: Client,
    place: S3Place,
    keys: Keys,
    base: ServiceUrl,
    /// Path of every object before its key.
    path: String,
}

impl S3 {
    pub(crate) fn new(client: &Client, place: &S3Place) -> Result<Self, ServiceError> {
        let keys = place.keys.clone()?;
        let (base, path) = place.base().map_err(|source| ServiceError::Unaskable {
            place: place.name(),
            source,
        })?;
        Ok(Self {
            client: client.clone(),
            place: place.clone(),
            keys,
            base,
            path,
        })
    }

    fn blob_key(&self, digest: &Digest) -> String {
        format!("{}{}{digest}", self.place.prefix, self.place.blobs_prefix)
    }

    fn manifest_key(&self, name: &str) -> String {
        format!("{}{}{name}", self.place.prefix, self.place.manifests_prefix)
    }

    fn url(&self, key: &str, query: &str) -> Result<ServiceUrl, UrlError> {
        self.base
            .with(&format!("{}{}", self.path, encoded(key, b"/")), query)
    }

    /// A signed request.
    fn request(&self, what: &Asked<'_>) -> Result<Exchange, UrlError> {
        let url = self.url(what.key, &what.query)?;
        let signer = Signer {
            keys: &self.keys,
            region: &self.place.region,
            time: Timestamp::now(),
        };
        let signed = signer.sign(what.method.as_str(), &url, &what.headers, &what.payload_sha256);
        let request = Exchange::new(what.operation, what.method.clone(), url, xml::error);
        signed
            .iter()
            .try_fold(request, |request, (name, value)| request.header(name, value))
    }

    const fn patience(&self) -> Patience {
        Patience {
            attempts: self.place.attempts,
            busy: None,
        }
    }

    async fn ask(
        &self,
        make: impl FnMut() -> Result<Exchange, UrlError> + Send,
    ) -> Result<Answer, RelayError> {
        self.client.exchange(self.patience(), make).await
    }

    fn failed(&self, error: RelayError) -> ServiceError {
        ServiceError::of(&format!("bucket {}", self.place.bucket), error, advice)
    }

    /// The cache configs there are: the one of the first name, as BuildKit reads it.
    pub(crate) async fn configs(&self, bytes_max: usize) -> Result<Vec<Vec<u8>>, ServiceError> {
        let key = self.manifest_key(self.place.names.first().map_or("", String::as_str));
        match self
            .ask(|| self.request(&Asked::new("get cache", Method::GET, &key)))
            .await
        {
            Ok(answer) => Ok(vec![answer.body(bytes_max).await?]),
            Err(error) if is_missing(&error) => Ok(Vec::new()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Whether the blob is there. One that was there for long is marked as new, so that rules of the bucket that throw
    /// old objects away keep it.
    pub(crate) async fn has(&self, digest: &Digest) -> Result<bool, ServiceError> {
        let key = self.blob_key(digest);
        let asked = || self.request(&Asked::new("find cache blob", Method::HEAD, &key));
        let answer = match self.ask(asked).await {
            Ok(answer) => answer,
            Err(error) if is_missing(&error) => return Ok(false),
            Err(error) => return Err(self.explained(error).await),
        };
        let modified = answer.header("last-modified").and_then(parsed_http_date);
        let size = answer
            .header("content-length")
            .and_then(|text| text.parse::<u64>().ok());
        let limit = self.place.touch_refresh;
        let is_old = modified.is_some_and(|time| {
            let age = Timestamp::now().duration_since(time);
            Duration::try_from(age).is_ok_and(|age| age > limit)
        });
        if is_old {
            self.touch(&key, size.unwrap_or(0)).await?;
        }
        Ok(true)
    }

    /// What a failed HEAD means. Its answer has no code, so the same is asked in a way that has one.
    async fn explained(&self, error: RelayError) -> ServiceError {
        if !matches!(answer_of(&error), Some((300..500, ""))) {
            return self.failed(error);
        }
        match self.configs(DOCUMENT_BYTES_MAX).await {
            Err(told @ ServiceError::Refused { .. }) => told,
            _ => self.failed(error),
        }
    }

    async fn touch(&self, key: &str, size: u64) -> Result<(), ServiceError> {
        if size >= COPY_BYTES_MAX {
            return self.copy_in_parts(key, size).await;
        }
        let now = Timestamp::now().to_string();
        let copied = self.ask(|| {
            let mut asked = Asked::new("touch cache blob", Method::PUT, key);
            asked.headers = vec![
                ("x-amz-copy-source", self.copy_source(key)),
                ("x-amz-meta-updated-at", now.clone()),
                ("x-amz-metadata-directive", "REPLACE".to_owned()),
            ];
            self.request(&asked)
        });
        let answer = copied.await.map_err(|error| self.failed(error))?;
        self.checked(answer).await.map(drop)
    }

    /// The body of an answer that may say only there that something failed.
    async fn checked(&self, answer: Answer) -> Result<String, ServiceError> {
        let url = answer.url();
        let body = answer.body(DOCUMENT_BYTES_MAX).await?;
        if xml::error(&body).is_some() {
            return Err(ServiceError::Answer {
                url,
                lacks: "success",
            });
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    fn copy_source(&self, key: &str) -> String {
        format!("{}/{}", self.place.bucket, encoded(key, b"/"))
    }

    /// Sends a blob.
    pub(crate) async fn put_blob(
        &self,
        descriptor: &Descriptor,
        source: &Arc<dyn BlobSource>,
        progress: &Progress,
    ) -> Result<(), ServiceError> {
        let key = self.blob_key(&descriptor.digest);
        if descriptor.size > WHOLE_BYTES_MAX {
            return self.put_in_parts(&key, descriptor, source, progress).await;
        }
        let hash = self.hash_of(source, descriptor, 0, descriptor.size).await?;
        let sent = self.ask(|| {
            let mut asked = Asked::new("put cache blob", Method::PUT, &key);
            asked.payload_sha256.clone_from(&hash);
            Ok(self.request(&asked)?.payload(Payload::Part {
                source: Arc::clone(source),
                digest: descriptor.digest.clone(),
                size: descriptor.size,
                offset: 0,
                bytes: descriptor.size,
                progress: Arc::clone(progress),
            }))
        });
        sent.await.map(drop).map_err(|error| self.failed(error))
    }

    /// What a signature says of a part's bytes. A whole blob's is its name.
    async fn hash_of(
        &self,
        source: &Arc<dyn BlobSource>,
        descriptor: &Descriptor,
        offset: u64,
        bytes: u64,
    ) -> Result<String, ServiceError> {
        let digest = &descriptor.digest;
        if bytes == descriptor.size && digest.algorithm() == Algorithm::Sha256 {
            return Ok(digest.hex().to_owned());
        }
        let source = Arc::clone(source);
        let hashed =
            tokio::task::spawn_blocking(move || part_sha256_hex(source.as_ref(), offset, bytes)).await;
        let hashed = hashed.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped)));
        hashed.map_err(|source| ServiceError::Source {
            digest: digest.clone(),
            source,
        })
    }

    /// Sends a cache config under every name.
    pub(crate) async fn put_config(&self, config: &Bytes) -> Result<(), ServiceError> {
        let hash = sha256_hex(config);
        for name in &self.place.names {
            let key = self.manifest_key(name);
            let sent = self.ask(|| {
                let mut asked = Asked::new("put cache", Method::PUT, &key);
                asked.payload_sha256.clone_from(&hash);
                Ok(self.request(&asked)?.payload(Payload::Bytes(config.clone())))
            });
            sent.await.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// Fetches a blob, verified.
    pub(crate) async fn fetch(
        &self,
        descriptor: &Descriptor,
        sink: &mut dyn BlobSink,
        progress: &Progress,
    ) -> Result<(), ServiceError> {
        let key = self.blob_key(&descriptor.digest);
        let make = |from: Option<u64>| {
            let request = self.request(&Asked::new("get cache blob", Method::GET, &key))?;
            match from {
                Some(from) => request.header("range", &format!("bytes={from}-")),
                None => Ok(request),
            }
        };
        let fetched = self.client.fetch_exchange(descriptor, sink, progress, make).await;
        fetched.map_err(|error| self.failed(error))
    }
}

/// Most of an answer that is a document, in bytes.
const DOCUMENT_BYTES_MAX: usize = 64 << 10;

/// What is asked of one object.
struct Asked<'a> {
    operation: &'static str,
    method: Method,
    key: &'a str,
    query: String,
    headers: Vec<(&'static str, String)>,
    payload_sha256: String,
}

impl<'a> Asked<'a> {
    fn new(operation: &'static str, method: Method, key: &'a str) -> Self {
        Self {
            operation,
            method,
            key,
            query: String::new(),
            headers: Vec::new(),
            payload_sha256: sha256_hex(b""),
        }
    }
}

/// Whether there is no such object, though there is the bucket.
fn is_missing(error: &RelayError) -> bool {
    // The answer to HEAD has no code.
    matches!(answer_of(error), Some((404, "" | "NoSuchKey" | "NotFound")))
}

/// What to do about an answer ("Error responses" of Amazon S3's API reference).
fn advice(refusal: &Refusal) -> Option<&'static str> {
    Some(match (refusal.status.as_u16(), code(refusal)) {
        (_, "NoSuchBucket") => "it does not exist: make it, or name another by bucket=",
        (_, "InvalidAccessKeyId") => {
            "the access key is not known there: check access_key_id (AWS_ACCESS_KEY_ID)"
        }
        (_, "SignatureDoesNotMatch") => {
            "the secret key is not that of the access key: check secret_access_key (AWS_SECRET_ACCESS_KEY)"
        }
        (_, "ExpiredToken" | "TokenRefreshRequired" | "InvalidToken") => {
            "the credentials have ended: get new ones, and a session_token (AWS_SESSION_TOKEN) that goes with them"
        }
        (_, "RequestTimeTooSkewed") => "the clock of this machine is wrong",
        (301 | 307, _)
        | (_, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException") => {
            "it is in another region: check region= (AWS_REGION)"
        }
        (401 | 403, _) => {
            "the credentials do not allow this: they need s3:ListBucket of the bucket, s3:GetObject and s3:PutObject of \
             what is in it"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
