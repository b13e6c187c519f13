//! Lines of the Dockerfile around a place (BuildKit `solver/errdefs/source.go`).

use rbuild_dockerfile::Span;

use crate::subrequest::bounded::{Bounded, FormError};

const RULER: &str = "--------------------\n";

/// A text cut into lines once, for many excerpts.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    filename: &'a str,
    lines: Vec<&'a [u8]>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(filename: &'a str, text: &'a [u8]) -> Self {
        Self {
            filename,
            lines: text.split(|byte| *byte == b'\n').collect(),
        }
    }

    /// Writes the lines of `span` with some around them; nothing if it is not in the text.
    pub(super) fn excerpt(&self, span: Span, out: &mut Bounded) -> Result<(), FormError> {
        let last = u32::try_from(self.lines.len()).unwrap_or(u32::MAX);
        if span.start < 1 || span.start > last {
            return Ok(());
        }
        let (mut start, mut end) = (span.start, span.end.min(last));
        let wanted = if start == end { 4 } else { 2 };
        let mut added = 0;
        while added < wanted {
            if start > 1 {
                start -= 1;
                added += 1;
            }
            if end != last {
                end += 1;
                added += 1;
            }
            added += 1;
        }
        out.push(format!("{}:{}\n{RULER}", self.filename, span.start).as_bytes())?;
        let shown = self.lines.iter().zip(1u32..);
        for (line, number) in shown.take(end as usize).skip(start as usize - 1) {
            let mark = if (span.start..=span.end).contains(&number) {
                ">>>"
            } else {
                "   "
            };
            out.push(format!(" {number:>3} | {mark} ").as_bytes())?;
            out.push(line)?;
            out.push(b"\n")?;
        }
        out.push(RULER.as_bytes())
    }
}
