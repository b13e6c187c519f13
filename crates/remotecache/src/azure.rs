//! Block blobs of Azure Storage: requests with the account's shared key ("Authorize with Shared Key" of the REST
//! reference) or with a URL that is signed already, and uploads in blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http::Method;
use jiff::Timestamp;
use rbuild_oci::Descriptor;
use rbuild_registry::{
    Answer, BlobSource, Client, Exchange, Patience, Payload, Progress, RelayError, Secret, ServiceUrl,
    UrlError,
};

use crate::sign::http_date;
use crate::xml;

/// Version of the REST API.
const VERSION: &str = "2021-08-06";
/// Size of a block in bytes; smaller blobs are sent as one request.
const BLOCK_BYTES: u64 = 32 << 20;
/// Blocks under way at once.
const BLOCKS_AT_ONCE: usize = 4;
/// Most blocks of a blob.
const BLOCKS_MAX: u64 = 50_000;

/// An account and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedKey {
    account: String,
    /// Base64, as it is given out.
    key: Secret,
}

impl SharedKey {
    /// Nothing if the key is no base64.
    pub(crate) fn new(account: &str, key: &str) -> Option<Self> {
        STANDARD.decode(key).ok()?;
        Some(Self {
            account: account.to_owned(),
            key: Secret::new(key.to_owned()),
        })
    }

    /// The value of `Authorization` for a request.
    fn authorization(&self, method: &str, url: &ServiceUrl, headers: &[(&str, String)]) -> String {
        let bytes = STANDARD.decode(self.key.reveal()).unwrap_or_default();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let text = string_to_sign(&self.account, method, url, headers);
        let signature = STANDARD.encode(hmac::sign(&key, text.as_bytes()));
        format!("SharedKey {}:{signature}", self.account)
    }
}

/// What is signed. Names of headers are in lower case.
fn string_to_sign(account: &str, method: &str, url: &ServiceUrl, headers: &[(&str, String)]) -> String {
    let value = |name: &str| {
        let found = headers.iter().find(|(known, _)| *known == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    let mut text = format!("{method}\n");
    for name in [
        "content-encoding",
        "content-language",
        "content-length",
        "content-md5",
        "content-type",
        "date",
        "if-modified-since",
        "if-match",
        "if-none-match",
        "if-unmodified-since",
        "range",
    ] {
        // A length of nothing is left out since version 2015-02-21.
        let value = value(name);
        let is_nothing = name == "content-length" && value == "0";
        text.push_str(if is_nothing { "" } else { value });
        text.push('\n');
    }
    let mut own: Vec<String> = headers
        .iter()
        .filter(|(name, _)| name.starts_with("x-ms-"))
        .map(|(name, value)| format!("{name}:{}\n", value.trim()))
        .collect();
    own.sort();
    text.extend(own);
    text.push('/');
    text.push_str(account);
    text.push_str(url.path());
    let decoded =
        |text: &str| String::from_utf8_lossy(&rbuild_oci::go_url::percent_decoded(text)).into_owned();
    let mut query: Vec<(String, String)> = url
        .query()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name).to_lowercase(), decoded(value)))
        .collect();
    query.sort();
    text.extend(query.iter().map(|(name, value)| format!("\n{name}:{value}")));
    text
}

/// How requests to blobs are made: through which client, and by whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) client: &'a Client,
    pub(crate) patience: Patience,
    /// Nobody, where the URL itself is signed.
    pub(crate) key: Option<&'a SharedKey>,
}

impl Asker<'_> {
    /// A request for one attempt; `bytes` is the length of what is sent, if anything is.
    pub(crate) fn request(
        &self,
        operation: &'static str,
        method: &Method,
        url: &ServiceUrl,
        bytes: Option<u64>,
        more: &[(&'static str, String)],
    ) -> Result<Exchange, UrlError> {
        let mut headers = vec![("x-ms-version", VERSION.to_owned())];
        headers.extend(more.iter().cloned());
        let mut request = Exchange::new(operation, method.clone(), url.clone(), xml::error);
        if let Some(key) = self.key {
            headers.push(("x-ms-date", http_date(Timestamp::now())));
            let mut signed = headers.clone();
            signed.extend(bytes.map(|bytes| ("content-length", bytes.to_string())));
            request = request.header("authorization", &key.authorization(method.as_str(), url, &signed))?;
        }
        for (name, value) in &headers {
            request = request.header(name, value)?;
        }
        Ok(request)
    }

    pub(crate) async fn ask(
        &self,
        make: impl FnMut() -> Result<Exchange, UrlError> + Send,
    ) -> Result<Answer, RelayError> {
        self.client.exchange(self.patience, make).await
    }

    /// Sends bytes as a blob, in the place of any other.
    pub(crate) async fn put_bytes(
        &self,
        operation: &'static str,
        url: &ServiceUrl,
        bytes: &Bytes,
    ) -> Result<(), RelayError> {
        let more = [("x-ms-blob-type", "BlockBlob".to_owned())];
        let length = bytes.len() as u64;
        let sent = self.ask(|| {
            let request = self.request(operation, &Method::PUT, url, Some(length), &more)?;
            Ok(request.payload(Payload::Bytes(bytes.clone())).accepting(&[201]))
        });
        sent.await.map(drop)
    }

    /// Sends a blob; with `only_new` not in the place of another, which is an answer of 409.
    pub(crate) async fn put_blob(
        &self,
        url: &ServiceUrl,
        blob: &Blob<'_>,
        only_new: bool,
    ) -> Result<(), RelayError> {
        let size = blob.descriptor.size;
        let guard = only_new.then(|| ("if-none-match", "*".to_owned()));
        if size <= BLOCK_BYTES {
            let mut more = vec![("x-ms-blob-type", "BlockBlob".to_owned())];
            more.extend(guard);
            let sent = self.ask(|| {
                let request = self.request("put cache blob", &Method::PUT, url, Some(size), &more)?;
                let payload = blob.part(0, size, Arc::clone(blob.progress));
                Ok(request.payload(payload).accepting(&[201]))
            });
            return sent.await.map(drop);
        }
        let block_bytes = BLOCK_BYTES.max(size.div_ceil(BLOCKS_MAX));
        let (count, done) = (size.div_ceil(block_bytes), AtomicU64::new(0));
        let send = |number: u64| {
            let done = &done;
            async move {
                let offset = number * block_bytes;
                let bytes = block_bytes.min(size - offset);
                let url = url.and_query(&format!("comp=block&blockid={}", block_id(number, true)));
                let sent = self.ask(|| {
                    let request = self.request("put cache blob", &Method::PUT, &url, Some(bytes), &[])?;
                    // Blocks end in any order: what is shown is the sum of those that are there.
                    Ok(request
                        .payload(blob.part(offset, bytes, Arc::new(|_, _| {})))
                        .accepting(&[201]))
                });
                sent.await?;
                (blob.progress)(done.fetch_add(bytes, Ordering::Relaxed) + bytes, size);
                Ok::<(), RelayError>(())
            }
        };
        let sent: Vec<_> = (0..count).map(send).collect();
        let sent = stream::iter(sent).buffer_unordered(BLOCKS_AT_ONCE);
        sent.try_collect::<()>().await?;
        let blocks: String = (0..count)
            .map(|number| format!("<Latest>{}</Latest>", block_id(number, false)))
            .collect();
        let list = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{blocks}</BlockList>");
        let (list, url) = (Bytes::from(list), url.and_query("comp=blocklist"));
        let more: Vec<_> = guard.into_iter().collect();
        let ended = self.ask(|| {
            let length = Some(list.len() as u64);
            let request = self.request("end cache blob", &Method::PUT, &url, length, &more)?;
            Ok(request.payload(Payload::Bytes(list.clone())).accepting(&[201]))
        });
        ended.await.map(drop)
    }
}

/// Name of a block: those of one blob have one length. In a query, `=` would be read as part of it anyway, `+` not.
fn block_id(number: u64, in_query: bool) -> String {
    let id = STANDARD.encode(format!("block-{number:010}"));
    if in_query {
        crate::sign::encoded(&id, b"")
    } else {
        id
    }
}

/// A blob of this machine that is sent.
pub(crate) struct Blob<'a> {
    pub(crate) descriptor: &'a Descriptor,
    pub(crate) source: &'a Arc<dyn BlobSource>,
    pub(crate) progress: &'a Progress,
}

impl Blob<'_> {
    pub(crate) fn part(&self, offset: u64, bytes: u64, progress: Progress) -> Payload {
        Payload::Part {
            source: Arc::clone(self.source),
            digest: self.descriptor.digest.clone(),
            size: self.descriptor.size,
            offset,
            bytes,
            progress,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(url: &str, headers: &[(&str, &str)], method: &str) -> String {
        let headers: Vec<(&str, String)> = headers.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        string_to_sign("myaccount", method, &ServiceUrl::given(url).unwrap(), &headers)
    }

    /// The examples of the REST reference.
    #[test]
    fn strings_to_sign_are_those_of_the_published_examples() {
        let headers = [
            ("x-ms-version", "2015-02-21"),
            ("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT"),
        ];
        let url =
            "https://myaccount.blob.core.windows.net/mycontainer?restype=container&comp=metadata&timeout=20";
        assert_eq!(
            text(url, &headers, "GET"),
            "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
             /myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
        );
        let url = "https://myaccount.blob.core.windows.net/mycontainer?restype=container&timeout=30";
        let headers = [
            ("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT"),
            ("x-ms-version", "2015-02-21"),
            ("content-length", "0"),
        ];
        assert_eq!(
            text(url, &headers, "PUT"),
            "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
             /myaccount/mycontainer\nrestype:container\ntimeout:30"
        );
        let with = text(
            "http://127.0.0.1:10000/myaccount/c/b?blockid=YQ%3D%3D&comp=block",
            &[
                ("content-length", "11"),
                ("if-none-match", "*"),
                ("range", "bytes=1-"),
            ],
            "PUT",
        );
        assert_eq!(
            with,
            "PUT\n\n\n11\n\n\n\n\n\n*\n\nbytes=1-\n/myaccount/myaccount/c/b\nblockid:YQ==\ncomp:block"
        );
    }

    #[test]
    fn a_key_is_base64_and_is_not_shown() {
        assert!(SharedKey::new("a", "not base64!").is_none());
        let key = SharedKey::new("a", "c2VjcmV0").unwrap();
        assert!(!format!("{key:?}").contains("c2VjcmV0"));
        assert_eq!(block_id(1, false).len(), block_id(49_999, false).len());
    }
}
