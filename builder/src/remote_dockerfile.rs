//! A Dockerfile behind a URL (`--file=URL`; buildx, `createTempDockerfileFromURL`): fetched before anything is opened, and
//! from then on a text like one of standard input. Refuses to keep it: it is asked for each time.

use std::io;
use std::sync::Arc;

use rbuild_registry::{FetchError, UrlHead, UrlSink};

use crate::context::{DOCKERFILE_BYTES_MAX, OpenContextError};
use crate::engine::Engine;
use crate::request::{BuildRequest, DockerfileSource};

/// The request with the text in the place of its URL, if it has one.
///
/// # Errors
/// [`OpenContextError::FetchDockerfile`].
pub(crate) async fn fetched(
    engine: &Engine,
    request: Arc<BuildRequest>,
) -> Result<Arc<BuildRequest>, OpenContextError> {
    let DockerfileSource::Url(url) = &request.dockerfile else {
        return Ok(request);
    };
    let mut text = Text::default();
    let client = engine.images.client();
    client
        .get_url(url, DOCKERFILE_BYTES_MAX, &mut text)
        .await
        .map_err(|source: FetchError| OpenContextError::FetchDockerfile {
            url: url.shown().to_string(),
            source,
        })?;
    let mut request = Arc::unwrap_or_clone(request);
    request.dockerfile = DockerfileSource::Text(text.0);
    Ok(Arc::new(request))
}

/// A small body in memory.
#[derive(Default)]
struct Text(Vec<u8>);

impl UrlSink for Text {
    fn begin(&mut self, _: &UrlHead) -> io::Result<()> {
        self.0.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}
