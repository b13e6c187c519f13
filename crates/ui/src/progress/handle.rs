//! The thread that feeds a renderer. Owns when a view is refreshed; the renderer owns how it looks.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use rbuild_graph::progress::{Event, Sink, Warning};

use super::Renderer;
use super::queue::Queue;

/// How often the view is refreshed (BuildKit: `tickerTimeout` and `displayTimeout`, both from `TTY_DISPLAY_RATE`).
#[derive(Debug, Clone, Copy)]
pub struct Cadence {
    /// After this long without an event.
    pub idle: Duration,
    /// Not more often than this.
    pub at_least: Duration,
}

impl Default for Cadence {
    fn default() -> Self {
        Self {
            idle: Duration::from_millis(150),
            at_least: Duration::from_millis(100),
        }
    }
}

impl Cadence {
    /// Both times from `TTY_DISPLAY_RATE` in milliseconds; the default if it is not a number from 1 up.
    #[must_use]
    pub fn from_rate(text: Option<&str>) -> Self {
        match text.and_then(|text| text.parse().ok()) {
            Some(ms @ 1..) => Self {
                idle: Duration::from_millis(ms),
                at_least: Duration::from_millis(ms),
            },
            _ => Self::default(),
        }
    }
}

/// What a build said that outlives its progress.
#[derive(Debug, Default)]
pub struct Summary {
    /// Every warning once, in order.
    pub warnings: Vec<Warning>,
    /// Why nothing more could be shown, if so.
    pub write_error: Option<io::Error>,
}

/// Takes events from any thread and has them rendered on its own.
pub struct ProgressHandle {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<Summary>>,
}

impl fmt::Debug for ProgressHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressHandle").finish_non_exhaustive()
    }
}

impl ProgressHandle {
    /// Starts a renderer. `spool` is a directory for output that piles up (see [`Sink`]: a build is never held up).
    ///
    /// # Errors
    /// What the system says when no thread can be started.
    pub fn start(renderer: Box<dyn Renderer>, cadence: Cadence, spool: &Path) -> io::Result<Self> {
        let queue = Arc::new(Queue::new(spool));
        let taken = Arc::clone(&queue);
        let thread = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || {
                Feeder {
                    queue: taken,
                    renderer,
                    cadence,
                    summary: Summary::default(),
                }
                .run()
            })?;
        Ok(Self {
            queue,
            thread: Some(thread),
        })
    }

    /// A sink for the engine; any number of them may be had.
    #[must_use]
    pub fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(QueueSink(Arc::clone(&self.queue)))
    }

    /// Shows what is left, and the end. Events sent later are dropped.
    #[must_use]
    pub fn finish(mut self) -> Summary {
        self.stop()
    }

    fn stop(&mut self) -> Summary {
        self.queue.close();
        self.thread
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default()
    }
}

impl Drop for ProgressHandle {
    fn drop(&mut self) {
        drop(self.stop());
    }
}

struct QueueSink(Arc<Queue>);

impl Sink for QueueSink {
    fn send(&self, event: Event) {
        self.0.send(event);
    }
}

struct Feeder {
    queue: Arc<Queue>,
    renderer: Box<dyn Renderer>,
    cadence: Cadence,
    summary: Summary,
}

impl Drop for Feeder {
    fn drop(&mut self) {
        // Also when a renderer panicked: a build must not wait for a dead thread.
        self.queue.abandon();
    }
}

impl Feeder {
    fn run(mut self) -> Summary {
        let mut refreshed: Option<Instant> = None;
        let mut dirty = false;
        loop {
            let wait = match refreshed.filter(|_| dirty) {
                Some(last) => self.cadence.at_least.saturating_sub(last.elapsed()),
                None => self.cadence.idle,
            };
            let batch = self.queue.take(wait);
            let idle = batch.events.is_empty();
            self.remember(&batch.events);
            if !idle {
                self.render(|renderer, now| renderer.update(batch.events, now));
                dirty = true;
            }
            if batch.ended {
                self.render(|renderer, now| renderer.finish(now));
                return std::mem::take(&mut self.summary);
            }
            if (idle || dirty) && refreshed.is_none_or(|last| last.elapsed() >= self.cadence.at_least) {
                self.render(|renderer, now| renderer.refresh(now));
                refreshed = Some(Instant::now());
                dirty = false;
            }
        }
    }

    /// Renders unless the writer has failed before: a reader that went away is no reason to stop a build.
    fn render(&mut self, show: impl FnOnce(&mut dyn Renderer, SystemTime) -> io::Result<()>) {
        if self.summary.write_error.is_none() {
            self.summary.write_error = show(self.renderer.as_mut(), SystemTime::now()).err();
        }
    }

    fn remember(&mut self, events: &[Event]) {
        for event in events {
            if let Event::Warning(warning) = event
                && !self.summary.warnings.iter().any(|known| is_same(known, warning))
            {
                self.summary.warnings.push(warning.clone());
            }
        }
    }
}

fn is_same(a: &Warning, b: &Warning) -> bool {
    a.short == b.short && a.url == b.url && a.detail == b.detail && a.location == b.location
}

#[cfg(test)]
mod tests;
