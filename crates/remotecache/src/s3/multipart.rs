//! Objects that are sent or copied in parts: begun, every part named by the tag the service gives it, and ended by their
//! list; given up if a part fails, since parts of nothing cost money.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http::Method;
use rbuild_oci::Descriptor;
use rbuild_registry::{BlobSource, Payload, Progress};

use super::{Asked, COPY_BYTES_MAX, S3, WHOLE_BYTES_MAX};
use crate::error::ServiceError;
use crate::sign::{encoded, sha256_hex};
use crate::xml::{element, escaped};

/// Most parts of an object.
const PARTS_MAX: u64 = 10_000;
/// Parts under way at once.
const PARTS_AT_ONCE: usize = 4;

/// A part: number from 1, first byte, size.
type Span = (u64, u64, u64);

/// The parts of an object of `size` bytes that have at most `bytes` each.
fn spans(size: u64, bytes: u64) -> Vec<Span> {
    (0..size.div_ceil(bytes))
        .map(|number| {
            let offset = number * bytes;
            (number + 1, offset, bytes.min(size - offset))
        })
        .collect()
}

impl S3 {
    pub(super) async fn put_in_parts(
        &self,
        key: &str,
        descriptor: &Descriptor,
        source: &Arc<dyn BlobSource>,
        progress: &Progress,
    ) -> Result<(), ServiceError> {
        let size = descriptor.size;
        let spans = spans(size, WHOLE_BYTES_MAX.max(size.div_ceil(PARTS_MAX)));
        let done = AtomicU64::new(0);
        let send = |id: String, (number, offset, bytes): Span| {
            let done = &done;
            async move {
                let hash = self.hash_of(source, descriptor, offset, bytes).await?;
                let sent = self.ask(|| {
                    let mut asked = Asked::new("put cache blob", Method::PUT, key);
                    asked.query = format!("partNumber={number}&uploadId={id}");
                    asked.payload_sha256.clone_from(&hash);
                    Ok(self.request(&asked)?.payload(Payload::Part {
                        source: Arc::clone(source),
                        digest: descriptor.digest.clone(),
                        size,
                        offset,
                        bytes,
                        // Parts end in any order: what is shown is the sum of those that are there.
                        progress: Arc::new(|_, _| {}),
                    }))
                });
                let answer = sent.await.map_err(|error| self.failed(error))?;
                let tag = answer.header("etag").map(str::to_owned);
                let tag = tag.ok_or_else(|| ServiceError::Answer {
                    url: answer.url(),
                    lacks: "an ETag",
                })?;
                progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, size);
                Ok((number, tag))
            }
        };
        self.in_parts(key, spans, send).await
    }

    /// Copies an object onto itself.
    pub(super) async fn copy_in_parts(&self, key: &str, size: u64) -> Result<(), ServiceError> {
        let copy = |id: String, (number, offset, bytes): Span| async move {
            let copied = self.ask(|| {
                let mut asked = Asked::new("touch cache blob", Method::PUT, key);
                asked.query = format!("partNumber={number}&uploadId={id}");
                asked.headers = vec![
                    ("x-amz-copy-source", self.copy_source(key)),
                    (
                        "x-amz-copy-source-range",
                        format!("bytes={offset}-{}", offset + bytes - 1),
                    ),
                ];
                self.request(&asked)
            });
            let answer = copied.await.map_err(|error| self.failed(error))?;
            let url = answer.url();
            let tag = element(&self.checked(answer).await?, "ETag");
            let tag = tag.ok_or(ServiceError::Answer {
                url,
                lacks: "an ETag",
            })?;
            Ok((number, tag))
        };
        self.in_parts(key, spans(size, COPY_BYTES_MAX), copy).await
    }

    async fn in_parts<F, R>(&self, key: &str, spans: Vec<Span>, send: F) -> Result<(), ServiceError>
    where
        F: Fn(String, Span) -> R,
        R: Future<Output = Result<(u64, String), ServiceError>>,
    {
        let begun = self.ask(|| {
            let mut asked = Asked::new("begin cache blob", Method::POST, key);
            "uploads=".clone_into(&mut asked.query);
            self.request(&asked)
        });
        let answer = begun.await.map_err(|error| self.failed(error))?;
        let url = answer.url();
        let id = element(&self.checked(answer).await?, "UploadId").filter(|id| !id.is_empty());
        let id = id.ok_or(ServiceError::Answer {
            url,
            lacks: "an UploadId",
        })?;
        let id = encoded(&id, b"");
        let sent: Vec<_> = spans.into_iter().map(|span| send(id.clone(), span)).collect();
        let sent = stream::iter(sent).buffered(PARTS_AT_ONCE);
        let sent: Result<Vec<(u64, String)>, ServiceError> = sent.try_collect().await;
        let ended = match sent {
            Ok(parts) => self.end(key, &id, &parts).await,
            Err(error) => Err(error),
        };
        if ended.is_err() {
            let given_up = self.ask(|| {
                let mut asked = Asked::new("give up cache blob", Method::DELETE, key);
                asked.query = format!("uploadId={id}");
                Ok(self.request(&asked)?.accepting(&[200, 204]))
            });
            // What failed before is what the user is told.
            given_up.await.ok();
        }
        ended
    }

    async fn end(&self, key: &str, id: &str, parts: &[(u64, String)]) -> Result<(), ServiceError> {
        let parts = parts.iter().map(|(number, tag)| {
            let tag = escaped(tag);
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>")
        });
        let list: String = parts.collect();
        let list = Bytes::from(format!(
            "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{list}</CompleteMultipartUpload>"
        ));
        let hash = sha256_hex(&list);
        let ended = self.ask(|| {
            let mut asked = Asked::new("end cache blob", Method::POST, key);
            asked.query = format!("uploadId={id}");
            asked.payload_sha256.clone_from(&hash);
            Ok(self.request(&asked)?.payload(Payload::Bytes(list.clone())))
        });
        let answer = ended.await.map_err(|error| self.failed(error))?;
        self.checked(answer).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_an_object() {
        assert_eq!(spans(10, 4), [(1, 0, 4), (2, 4, 4), (3, 8, 2)]);
        assert_eq!(spans(8, 4), [(1, 0, 4), (2, 4, 4)]);
        let large = 5 << 40;
        let parts = spans(large, WHOLE_BYTES_MAX.max(u64::div_ceil(large, PARTS_MAX)));
        assert!(parts.len() as u64 <= PARTS_MAX);
        assert_eq!(parts.iter().map(|part| part.2).sum::<u64>(), large);
    }
}
