//! Response bodies that can end too early.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// Between the last byte and the break: an error at once would make the server drop what it has not yet sent.
const BREAK_DELAY: Duration = Duration::from_millis(30);

/// Bytes, and whether the connection breaks after them.
#[derive(Debug)]
pub(super) struct TestBody {
    bytes: Option<Bytes>,
    announced: u64,
    breaks: bool,
    delay: Option<Pin<Box<Sleep>>>,
}

/// The connection is to be broken here.
#[derive(Debug)]
pub(super) struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the test breaks the connection here")
    }
}

impl std::error::Error for Broken {}

impl TestBody {
    /// All of `bytes`.
    pub(super) fn whole(bytes: Vec<u8>) -> Self {
        Self {
            announced: bytes.len() as u64,
            bytes: Some(bytes.into()),
            breaks: false,
            delay: None,
        }
    }

    /// The first `keep` bytes, then a broken connection; all of them are announced.
    pub(super) fn cut_to(mut self, keep: usize) -> Self {
        if let Some(bytes) = &mut self.bytes {
            bytes.truncate(keep);
        }
        self.breaks = true;
        self
    }
}

impl Body for TestBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.bytes.take().filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None if self.breaks => {
                let delay = self.delay.get_or_insert_with(|| Box::pin(sleep(BREAK_DELAY)));
                delay.as_mut().poll(context).map(|()| Some(Err(Broken)))
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.breaks && self.bytes.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.announced)
    }
}
