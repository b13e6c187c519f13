//! Response bodies that can end too early.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// Between the last byte and the break: an error at once would make the server drop what it has not yet sent.
const BREAK_DELAY: Duration = Duration::from_millis(30);
/// Between looks at whether what is held may go on.
const HOLD_DELAY: Duration = Duration::from_millis(5);

/// Bytes, and whether the connection breaks after them.
#[derive(Debug)]
pub(super) struct TestBody {
    bytes: Option<Bytes>,
    /// What comes later, and when.
    held: Option<(Bytes, Arc<AtomicBool>)>,
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
            held: None,
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

impl TestBody {
    /// The first `at` bytes, and the others once `go_on` is true.
    pub(super) fn held_at(mut self, at: usize, go_on: Arc<AtomicBool>) -> Self {
        if let Some(bytes) = &mut self.bytes {
            let rest = bytes.split_off(at.min(bytes.len()));
            self.held = Some((rest, go_on));
        }
        self
    }

    /// Waits for what is held.
    fn poll_held(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if self
                .held
                .as_ref()
                .is_none_or(|(_, go_on)| go_on.load(Ordering::Relaxed))
            {
                self.delay = None;
                return Poll::Ready(self.held.take().map(|(rest, _)| rest));
            }
            let delay = self.delay.get_or_insert_with(|| Box::pin(sleep(HOLD_DELAY)));
            std::task::ready!(delay.as_mut().poll(context));
            self.delay = None;
        }
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
            None if self.held.is_some() => self
                .poll_held(context)
                .map(|rest| rest.map(|bytes| Ok(Frame::data(bytes)))),
            None if self.breaks => {
                let delay = self.delay.get_or_insert_with(|| Box::pin(sleep(BREAK_DELAY)));
                delay.as_mut().poll(context).map(|()| Some(Err(Broken)))
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.breaks && self.held.is_none() && self.bytes.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.announced)
    }
}
