//! Renderers of a build's events. Each takes batches of [`Event`]s and writes to the writer it was given; none reads
//! a clock, an environment variable or the terminal by itself, so what it writes is a function of what it was told.
//!
//! [`ProgressHandle`] owns the thread that feeds one, and is the only part that waits.

use std::io;
use std::time::SystemTime;

use rbuild_graph::progress::Event;

mod colors;
mod handle;
mod interval;
mod plain;
mod queue;
mod rawjson;
mod steps;
mod trace;
mod tty;
mod window;

pub use colors::{Colors, ColorsWarning};
pub use handle::{Cadence, ProgressHandle, Summary};
pub use plain::{Plain, PlainOptions};
pub use rawjson::RawJson;
pub use steps::Steps;
pub use tty::{DEFAULT_LOG_LINES, Tty, TtyOptions};

/// Shows a build.
pub trait Renderer: Send {
    /// Takes what happened, in order.
    ///
    /// # Errors
    /// What the writer says.
    fn update(&mut self, events: Vec<Event>, now: SystemTime) -> io::Result<()>;

    /// Shows where things are now.
    ///
    /// # Errors
    /// What the writer says.
    fn refresh(&mut self, now: SystemTime) -> io::Result<()>;

    /// Shows the end; called once, last.
    ///
    /// # Errors
    /// What the writer says.
    fn finish(&mut self, now: SystemTime) -> io::Result<()>;
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Renderer for Quiet {
    fn update(&mut self, _events: Vec<Event>, _now: SystemTime) -> io::Result<()> {
        Ok(())
    }

    fn refresh(&mut self, _now: SystemTime) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, _now: SystemTime) -> io::Result<()> {
        Ok(())
    }
}

/// `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// [`Mode::Tty`] on a terminal, else [`Mode::Plain`].
    #[default]
    Auto,
    /// Lines.
    Plain,
    /// A live view.
    Tty,
    /// JSON, one object a line.
    RawJson,
    /// Nothing, and the image id at the end.
    Quiet,
    /// Nothing.
    None,
}

impl Mode {
    /// Reads a value of `--progress` or `BUILDKIT_PROGRESS`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "auto" | "" => Self::Auto,
            "plain" => Self::Plain,
            "tty" => Self::Tty,
            "rawjson" => Self::RawJson,
            "quiet" => Self::Quiet,
            "none" => Self::None,
            _ => return None,
        })
    }
}

/// An error text of a step that was stopped, not one that failed (Go's `context.Canceled`).
fn is_cancelled(error: &str) -> bool {
    error.ends_with("context canceled")
}

#[cfg(test)]
mod testing;
