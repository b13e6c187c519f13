//! A vertex that several consumers work on at once: the layers of one base image, the files of one context. It is
//! shown as one, beginning with the first piece of work and ending when none is left; what comes later is not shown
//! again.

use std::sync::{Mutex, PoisonError};

use super::report::Reporter;

/// Work on one vertex by many.
#[derive(Debug)]
pub struct SharedVertex {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    reporter: Reporter,
    running: usize,
    ended: bool,
}

impl SharedVertex {
    /// Work that is reported as `reporter`.
    #[must_use]
    pub const fn new(reporter: Reporter) -> Self {
        Self {
            state: Mutex::new(State {
                reporter,
                running: 0,
                ended: false,
            }),
        }
    }

    /// Begins a piece of work. `None` if the vertex has ended: the work is done without being shown.
    pub fn enter(&self) -> Option<Reporter> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.ended && !state.reporter.is_running() {
            state.reporter.start(None);
        }
        state.running += 1;
        (!state.ended).then(|| state.reporter.clone())
    }

    /// Ends a piece of work that began with [`SharedVertex::enter`].
    pub fn leave(&self, error: Option<String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.running -= 1;
        if state.ended {
            return;
        }
        if let Some(error) = error {
            state.ended = true;
            state.reporter.failed(error);
        } else if state.running == 0 {
            state.ended = true;
            state.reporter.done();
        }
    }
}
