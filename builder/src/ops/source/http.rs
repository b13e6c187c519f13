//! Files behind URLs, as BuildKit's `source/http/source.go` has them: one file in a root of its own, named by the
//! front end, the server or the URL; 0600, of the time the server says.
//!
//! A URL without a checksum is asked in every build, by its `ETag` where one is known, and its key is the digest of what
//! is behind it now: an unchanged file reruns nothing. With a checksum the key is known without asking.

mod file_name;
mod sink;

use std::collections::BTreeMap;
use std::sync::Arc;

use rbuild_frontend::redact_credentials;
use rbuild_graph::{SourceOp, Vertex};
use rbuild_oci::Digest;
use rbuild_registry::{FetchError, ShownUrl, UrlError, UrlHead, UrlRequest};
use rbuild_store::Record;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::sink::{Landed, Landing};
use crate::job::Job;
use crate::ops::{OpError, blocking, layer_entry};
use crate::secrets::SecretError;
use crate::solve::{Definition, Executor as _, Ingredient, Key, KeyBuilder, Reporter};
use crate::value::{Chain, Value};

/// Most of a body read, bytes; less where the store's disk has less room.
const BODY_BYTES_MAX: u64 = 64 << 30;
/// Table of the store with what is known of URLs.
const KNOWN_SPACE: &str = "http";
/// Answers remembered for one URL.
const KNOWN_MAX: usize = 8;
/// Permissions where none are asked for.
const DEFAULT_MODE: u32 = 0o600;
/// Prefixes of the secrets that are sent to a host without being asked for.
const HEADER_SECRET: &str = "HTTP_AUTH_HEADER_";
const TOKEN_SECRET: &str = "HTTP_AUTH_TOKEN_";

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not a URL that can be asked for, or a header that cannot be sent.
    #[error("invalid http source {url}")]
    Request {
        /// The URL, without credentials.
        url: String,
        /// Why.
        #[source]
        source: UrlError,
    },
    /// An attribute that cannot be read.
    #[error("invalid value {value:?} of source attribute {name}")]
    Attribute {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// An attribute that is not served yet.
    #[error("source attribute {0} is not supported yet")]
    Unsupported(String),
    /// The secret that is to be sent is not there.
    #[error("failed to retrieve HTTP auth secret {id}")]
    Secret {
        /// Its id.
        id: String,
        /// Why.
        #[source]
        source: SecretError,
    },
    /// It could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It is another file than the one asked for.
    #[error("digest mismatch for {url}: {found} (expected: {expected})")]
    Mismatch {
        /// The URL.
        url: ShownUrl,
        /// Digest of what came.
        found: Digest,
        /// Digest asked for.
        expected: Digest,
    },
    /// The file could not be finished.
    #[error("keep {url}")]
    Keep {
        /// The URL.
        url: ShownUrl,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A file that was fetched, in this build or an earlier one.
#[derive(Debug, Clone)]
pub(super) struct Fetched {
    chain: Chain,
    digest: Digest,
    name: String,
    modified: Option<i64>,
}

/// What an earlier answer said. Kept in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    /// Without the mark of weakness.
    etag: Option<String>,
    digest: Digest,
    name: String,
    /// Seconds since 1970.
    modified: Option<i64>,
}

/// The source as its attributes have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Wanted {
    #[serde(skip)]
    checksum: Option<Digest>,
    url: String,
    filename: String,
    mode: u32,
    uid: u32,
    gid: u32,
    auth_secret: String,
    headers: BTreeMap<String, String>,
}

/// The key of a source, and the file itself if that had to be asked for.
pub(super) async fn define(
    job: &Job,
    vertex: &Vertex,
    source: &SourceOp,
    reporter: &mut Reporter,
) -> Result<Definition<Value>, OpError> {
    let wanted = Wanted::of(source)?;
    let definition = |ingredients, values| Definition {
        ingredients,
        content: Vec::new(),
        values,
        volatile: false,
    };
    if let Some(checksum) = &wanted.checksum {
        let name = wanted.file_name(None);
        return Ok(definition(wanted.ingredients(&name, checksum, None), None));
    }
    let fetched = asked(job, vertex, &wanted, reporter).await?;
    let ingredients = wanted.ingredients(&fetched.name, &fetched.digest, fetched.modified);
    Ok(definition(ingredients, Some(vec![Value::Chain(fetched.chain)])))
}

/// What is known of a file without a step that needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpMeta {
    /// Its digest.
    pub digest: Digest,
    /// Its name, which comes from the front end, the server or the URL.
    pub name: String,
    /// When it was last changed, in seconds since 1970; `None` if the server does not say, or was not asked.
    pub modified: Option<i64>,
}

/// What is known of the file. One whose checksum was given is not asked for.
pub(crate) async fn meta(
    job: &Job,
    vertex: &Vertex,
    source: &SourceOp,
    reporter: &mut Reporter,
) -> Result<HttpMeta, OpError> {
    let wanted = Wanted::of(source)?;
    if let Some(checksum) = &wanted.checksum {
        return Ok(HttpMeta {
            digest: checksum.clone(),
            name: wanted.file_name(None),
            modified: None,
        });
    }
    let fetched = asked(job, vertex, &wanted, reporter).await?;
    Ok(HttpMeta {
        digest: fetched.digest,
        name: fetched.name,
        modified: fetched.modified,
    })
}

/// What the server answers, once in a build.
async fn asked(
    job: &Job,
    vertex: &Vertex,
    wanted: &Wanted,
    reporter: &mut Reporter,
) -> Result<Fetched, OpError> {
    let cell = job.sources.http(&wanted.name());
    let mut asked = false;
    let fetched = cell
        .get_or_try_init(|| {
            asked = true;
            resolve(job, vertex, wanted, reporter)
        })
        .await?
        .clone();
    if !asked {
        reporter.cached();
    }
    Ok(fetched)
}

/// Fetches a file whose checksum was given.
pub(super) async fn run(job: &Job, source: &SourceOp, cancel: &CancellationToken) -> Result<Chain, OpError> {
    let wanted = Wanted::of(source)?;
    let request = wanted.request(job).await?;
    let (_, landed) = tokio::select! {
        fetched = fetch(job, &wanted, &request) => fetched?,
        () = cancel.cancelled() => return Err(OpError::Canceled),
    };
    let landed = landed.ok_or(OpError::NoSuchInput(None))?;
    wanted.check(&request, &landed)?;
    commit(landed).await
}

/// Asks for a file without a checksum: what is known of it is compared first.
async fn resolve(
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
async fn fetch(
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

async fn commit(landed: Landed) -> Result<Chain, OpError> {
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
    fn of(source: &SourceOp) -> Result<Self, HttpError> {
        let mut wanted = Self {
            checksum: None,
            url: source.identifier.clone(),
            filename: String::new(),
            mode: DEFAULT_MODE,
            uid: 0,
            gid: 0,
            auth_secret: String::new(),
            headers: BTreeMap::new(),
        };
        for (name, value) in &source.attrs {
            let wrong = || HttpError::Attribute {
                name: name.clone(),
                value: value.clone(),
            };
            let number = || go_integer(value).ok_or_else(wrong);
            match name.as_str() {
                "http.checksum" => wanted.checksum = Some(Digest::parse(value).map_err(|_| wrong())?),
                "http.filename" => wanted.filename.clone_from(value),
                // Zero is "not set" there.
                "http.perm" => {
                    let mode = number()? & 0o7777;
                    wanted.mode = if mode == 0 { DEFAULT_MODE } else { mode };
                }
                "http.uid" => wanted.uid = number()?,
                "http.gid" => wanted.gid = number()?,
                "http.authheadersecret" => wanted.auth_secret.clone_from(value),
                "http.sig.pubkey" | "http.sig.signature" => {
                    return Err(HttpError::Unsupported(name.clone()));
                }
                _ => {
                    let header = name.strip_prefix("http.header.").map(str::to_ascii_lowercase);
                    // The others are dropped without a word, as there.
                    if let Some(header @ ("accept" | "user-agent")) = header.as_deref() {
                        wanted.headers.insert(header.to_owned(), value.clone());
                    }
                }
            }
        }
        Ok(wanted)
    }

    /// Names what is known of this URL asked in this way.
    fn name(&self) -> Digest {
        let text = serde_json::to_vec(self);
        assert!(text.is_ok(), "text and numbers always serialise");
        Digest::sha256(&text.unwrap_or_default())
    }

    fn file_name(&self, head: Option<&UrlHead>) -> String {
        let header = head.and_then(|head| head.content_disposition.as_deref());
        file_name::of(&self.filename, header, &self.url)
    }

    /// What a key is made of (`formatCacheKey`): the URL itself is no part of it.
    fn ingredients(&self, name: &str, digest: &Digest, modified: Option<i64>) -> Vec<Ingredient> {
        let mut parts = vec![
            ("kind", "http".to_owned()),
            ("file name", name.to_owned()),
            ("content", digest.to_string()),
            (
                "permissions",
                format!("{:o} {}:{}", self.mode, self.uid, self.gid),
            ),
        ];
        if let Some(modified) = modified {
            parts.push(("last modified", modified.to_string()));
        }
        if !self.auth_secret.is_empty() {
            parts.push(("authorization", self.auth_secret.clone()));
        }
        let part = |(name, value): (&str, String)| Ingredient {
            name: name.to_owned(),
            value,
        };
        let headers = self.headers.iter().map(|(name, value)| Ingredient {
            name: format!("header {name}"),
            value: value.clone(),
        });
        parts.into_iter().map(part).chain(headers).collect()
    }

    fn key(&self, known: &Known) -> Key {
        let mut key = KeyBuilder::default();
        for part in self.ingredients(&known.name, &known.digest, known.modified) {
            key.add(part.name, part.value);
        }
        key.finish().0
    }

    async fn stored(&self, job: &Job, vertex: &Vertex, known: &Known) -> Option<Chain> {
        match job.load(vertex, &self.key(known)).await?.values.pop() {
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

    /// The request, with the secrets that are for its host.
    async fn request(&self, job: &Job) -> Result<UrlRequest, HttpError> {
        let wrong = |source| HttpError::Request {
            url: redact_credentials(&self.url),
            source,
        };
        let mut request = UrlRequest::new(&self.url).map_err(wrong)?;
        for (name, value) in &self.headers {
            request = request.with_header(name, value).map_err(wrong)?;
        }
        let mut secrets = Vec::new();
        if self.auth_secret.is_empty() {
            secrets.push((format!("{HEADER_SECRET}{}", request.host()), "", true));
            secrets.push((format!("{TOKEN_SECRET}{}", request.host()), "Bearer ", true));
        } else {
            secrets.push((self.auth_secret.clone(), "", false));
        }
        for (id, prefix, optional) in secrets {
            let value = match job.client.secret(&id, optional).await {
                Ok(Some(value)) => value,
                Ok(None) => continue,
                // One that nobody asked for by name is not worth a failure.
                Err(_) if optional => continue,
                Err(source) => return Err(HttpError::Secret { id, source }),
            };
            let text = String::from_utf8_lossy(value.expose());
            request = request
                .with_authorization(&format!("{prefix}{}", text.trim_end_matches(['\r', '\n'])))
                .map_err(wrong)?;
        }
        Ok(request)
    }

    fn check(&self, request: &UrlRequest, landed: &Landed) -> Result<(), HttpError> {
        match &self.checksum {
            Some(expected) if *expected != landed.digest => Err(HttpError::Mismatch {
                url: request.shown(),
                found: landed.digest.clone(),
                expected: expected.clone(),
            }),
            _ => Ok(()),
        }
    }
}

/// A number as Go's `strconv.ParseInt(text, 0, 64)` reads it, as far as it is one of 32 bits.
fn go_integer(text: &str) -> Option<u32> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    // `from_str_radix` takes a sign, which has no place behind a prefix.
    (!digits.starts_with('+')).then(|| u32::from_str_radix(digits, radix).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(attrs: &[(&str, &str)]) -> Result<Wanted, HttpError> {
        Wanted::of(&SourceOp {
            identifier: "https://h/f".into(),
            attrs: attrs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        })
    }

    #[test]
    fn attributes_are_read_as_go_reads_them() {
        let read = wanted(&[
            ("http.perm", "0644"),
            ("http.uid", "0x10"),
            ("http.gid", "7"),
            ("http.header.Accept", "text/plain"),
            ("http.header.Cookie", "dropped"),
        ])
        .unwrap();
        assert_eq!((read.mode, read.uid, read.gid), (0o644, 16, 7));
        assert_eq!(read.headers.keys().collect::<Vec<_>>(), ["accept"]);
        assert_eq!(wanted(&[]).unwrap().mode, 0o600);
        assert_eq!(wanted(&[("http.perm", "0")]).unwrap().mode, 0o600);
        for (name, value) in [
            ("http.perm", "0999"),
            ("http.uid", "-1"),
            ("http.gid", "4294967296"),
            ("http.uid", ""),
            ("http.uid", "0x+1"),
            ("http.checksum", "md5:00"),
        ] {
            assert!(
                matches!(wanted(&[(name, value)]), Err(HttpError::Attribute { .. })),
                "{name}={value}"
            );
        }
        assert!(matches!(
            wanted(&[("http.sig.pubkey", "x")]),
            Err(HttpError::Unsupported(_))
        ));
    }

    #[test]
    fn row46_every_attribute_is_in_the_key_and_the_url_is_not() {
        let digest = Digest::sha256(b"content");
        let key = |attrs: &[(&str, &str)]| wanted(attrs).unwrap().ingredients("f", &digest, Some(1));
        let plain = key(&[]);
        for attr in [
            ("http.perm", "0644"),
            ("http.uid", "1"),
            ("http.gid", "1"),
            ("http.authheadersecret", "s"),
            ("http.header.accept", "x"),
        ] {
            assert_ne!(key(&[attr]), plain, "{attr:?}");
            assert_ne!(
                wanted(&[attr]).unwrap().name(),
                wanted(&[]).unwrap().name(),
                "{attr:?}"
            );
        }
        assert_ne!(wanted(&[]).unwrap().ingredients("g", &digest, Some(1)), plain);
        assert_ne!(wanted(&[]).unwrap().ingredients("f", &digest, None), plain);
        assert!(!plain.iter().any(|part| part.value.contains("https")));
    }

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
