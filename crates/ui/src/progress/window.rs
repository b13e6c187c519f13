//! The last lines a step wrote, for the live view and for the report of a failure. Bounded: old lines go first.

use std::collections::VecDeque;

use super::trace::Output;
use crate::text::Piece;

/// What is kept of one step for the report of a failure.
const KEPT_BYTES: usize = 256 * 1024;

/// Lines of one vertex.
#[derive(Debug, Default)]
pub(super) struct Window {
    lines: VecDeque<Line>,
    kept_bytes: usize,
    /// The last line goes on.
    open: bool,
    /// The next text replaces the open line.
    rewound: bool,
    /// Bytes of text seen in all.
    pub(super) seen_bytes: usize,
    /// Lines that went.
    pub(super) dropped: usize,
}

/// A line and when it began, in seconds since the vertex did.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) seconds: f64,
    pub(super) text: String,
}

impl Window {
    pub(super) fn take(&mut self, outputs: impl Iterator<Item = Output>) {
        for Output { seconds, piece } in outputs {
            match piece {
                Piece::Text(text) => self.text(seconds, &text),
                Piece::End => {
                    if !self.open {
                        self.begin(seconds);
                    }
                    self.open = false;
                    self.rewound = false;
                }
                Piece::Rewind => self.rewound = self.open,
            }
        }
    }

    /// Every line kept, oldest first.
    pub(super) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter()
    }

    /// The last `count` lines that are not blank, oldest first.
    pub(super) fn last(&self, count: usize) -> Vec<&str> {
        let mut last: Vec<&str> = self
            .lines
            .iter()
            .rev()
            .map(|line| line.text.as_str())
            .filter(|text| !text.trim().is_empty())
            .take(count)
            .collect();
        last.reverse();
        last
    }

    /// Gives back the memory.
    pub(super) fn clear(&mut self) {
        *self = Self {
            seen_bytes: self.seen_bytes,
            ..Self::default()
        };
    }

    fn text(&mut self, seconds: f64, text: &str) {
        if !self.open {
            self.begin(seconds);
            self.open = true;
        }
        self.seen_bytes += text.len();
        if let Some(last) = self.lines.back_mut() {
            if std::mem::take(&mut self.rewound) {
                self.kept_bytes -= last.text.len();
                last.text.clear();
                last.seconds = seconds;
            }
            last.text.push_str(text);
            self.kept_bytes += text.len();
        }
    }

    fn begin(&mut self, seconds: f64) {
        self.lines.push_back(Line {
            seconds,
            text: String::new(),
        });
        // An empty line costs too: it is counted as one byte by the number of lines.
        while self.kept_bytes + self.lines.len() > KEPT_BYTES && self.lines.len() > 1 {
            if let Some(line) = self.lines.pop_front() {
                self.kept_bytes -= line.text.len();
                self.dropped += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{LineSplitter, Styles};

    fn window(data: &[u8]) -> Window {
        let mut window = Window::default();
        let mut pieces = Vec::new();
        LineSplitter::new(Styles::Drop).push(data, &mut pieces);
        window.take(pieces.into_iter().map(|piece| Output { seconds: 0.0, piece }));
        window
    }

    #[test]
    fn a_progress_bar_is_one_line() {
        assert_eq!(window(b"a\n10%\r20%\r30%\nb").last(6), ["a", "30%", "b"]);
        assert_eq!(window(b"10%\r").last(6), ["10%"]);
        assert_eq!(window(b"a\n\n \nb\n").last(2), ["a", "b"]);
        assert_eq!(window(b"a\n\nb\n").lines().count(), 3);
    }

    #[test]
    fn memory_is_bounded() {
        let mut data = Vec::new();
        for number in 0..100_000 {
            data.extend_from_slice(format!("line {number}\n").as_bytes());
        }
        let many = window(&data);
        assert!(many.kept_bytes <= KEPT_BYTES + 32);
        assert_eq!(many.lines().count() + many.dropped, 100_000);
        assert_eq!(many.last(1), ["line 99999"]);
        let blank = window(&vec![b'\n'; 2 * KEPT_BYTES]);
        assert!(blank.lines().count() <= KEPT_BYTES);
    }
}
