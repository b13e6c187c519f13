//! What may go wrong, where, and how often.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::Barrier;

/// A rule that changes the answers to some requests.
#[derive(Clone, Debug)]
pub struct Fault {
    pub(super) method: Option<String>,
    pub(super) part: String,
    pub(super) skip: usize,
    pub(super) times: usize,
    pub(super) action: FaultAction,
}

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum FaultAction {
    /// This answer, and nothing is done.
    Respond {
        /// Status.
        status: u16,
        /// Headers.
        headers: Vec<(String, String)>,
        /// Body.
        body: Vec<u8>,
    },
    /// The connection is closed without an answer, and nothing is done.
    Reset,
    /// The right answer, whose body breaks off after so many bytes.
    Truncate(usize),
    /// The right answer with one bit of this byte of its body flipped.
    Flip(usize),
    /// The right answer, with this header set.
    Header(String, String),
    /// The right answer, without this header.
    NoHeader(String),
    /// The right answer, later.
    Delay(Duration),
    /// The right answer, once as many such requests wait as the barrier wants.
    Meet(Arc<Barrier>),
    /// The right answer, of which what follows so many bytes waits until this is true.
    Hold(usize, Arc<AtomicBool>),
}

impl Fault {
    /// For every request of `method` (empty: any) with `part` in its path and query.
    #[must_use]
    pub fn new(method: &str, part: &str, action: FaultAction) -> Self {
        let method = Some(method.to_owned()).filter(|m| !m.is_empty());
        Self {
            method,
            part: part.to_owned(),
            skip: 0,
            times: usize::MAX,
            action,
        }
    }

    /// Only so many times.
    #[must_use]
    pub const fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Not for the first so many.
    #[must_use]
    pub const fn skip(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }

    /// This status with one header and a body.
    #[must_use]
    pub fn status(method: &str, part: &str, status: u16, header: (&str, &str), body: &str) -> Self {
        let headers = vec![(header.0.to_owned(), header.1.to_owned())];
        Self::new(
            method,
            part,
            FaultAction::Respond {
                status,
                headers,
                body: body.as_bytes().to_vec(),
            },
        )
    }

    /// A redirect with 307.
    #[must_use]
    pub fn redirect(method: &str, part: &str, to: &str) -> Self {
        Self::status(method, part, 307, ("location", to), "")
    }

    /// Whether it is for this request; counts it if so.
    pub(super) fn takes(&mut self, method: &str, path: &str) -> bool {
        if self.times == 0 || self.method.as_ref().is_some_and(|m| m != method) || !path.contains(&self.part)
        {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.times -= 1;
        true
    }
}
