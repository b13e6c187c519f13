//! Bodies of answers, piece by piece. hyper 1 ends the body of an HTTP/2 answer without an error when its stream is reset
//! with `CANCEL` or `NO_ERROR`; what `END_STREAM` did not end (RFC 9113, section 8.1) is broken off here, as in Go's client.
//! Without it half a file that announced no length would be taken for a whole one.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use reqwest::{Body, Url};
use tokio::time::timeout;

use crate::RegistryError;

/// The head of an answer, and its body.
pub(crate) type Answer = Response<Body>;

/// The next piece of a body from `url`, which must not be waited for longer than `limit`.
///
/// # Errors
/// [`RegistryError::Broken`], [`RegistryError::BrokenOff`], [`RegistryError::Timeout`].
pub(crate) async fn next_piece(
    answer: &mut Answer,
    url: &Url,
    limit: Duration,
) -> Result<Option<Bytes>, RegistryError> {
    loop {
        match timeout(limit, answer.body_mut().frame()).await {
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(piece) => return Ok(Some(piece)),
                Err(_trailers) => {}
            },
            Ok(Some(Err(source))) => {
                return Err(RegistryError::broken(url, source));
            }
            Ok(None) if is_broken_off(answer) => return Err(RegistryError::BrokenOff { url: url.into() }),
            Ok(None) => return Ok(None),
            Err(_elapsed) => {
                return Err(RegistryError::Timeout {
                    url: url.into(),
                    direction: "received",
                    seconds: limit.as_secs(),
                });
            }
        }
    }
}

/// Whether a body that is over was not ended by who sent it. HTTP/1 says so by itself.
fn is_broken_off(answer: &Answer) -> bool {
    answer.version() == Version::HTTP_2 && !answer.body().is_end_stream()
}
