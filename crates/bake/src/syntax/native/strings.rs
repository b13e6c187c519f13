//! Quoted templates and heredocs.

use super::super::Expr;
use super::super::cursor::Cursor;
use super::super::template::{Ends, template};
use crate::error::Fault;

impl Cursor<'_> {
    /// `"…"`.
    pub(super) fn quoted(&mut self) -> Result<Expr, Fault> {
        let start = self.here();
        self.skip(1);
        let node = self.deeper(|cursor| template(cursor, &Ends::Quote))?;
        Ok(Expr {
            span: start.to(self.here()),
            node,
        })
    }

    pub(super) fn heredoc(&mut self) -> Result<Expr, Fault> {
        let start = self.here();
        self.skip(2);
        let is_flush = self.takes("-");
        let Some((marker, _)) = self.identifier() else {
            return Err(self.fault(
                "Invalid heredoc",
                "Expected an identifier as the marker of the heredoc.",
            ));
        };
        while matches!(self.peek(), Some(' ' | '\t' | '\r')) {
            self.skip(1);
        }
        if !self.takes("\n") {
            return Err(self.fault(
                "Invalid heredoc",
                "Expected a newline behind the marker of the heredoc.",
            ));
        }
        let mut length = 0;
        let mut end = None;
        for line in self.rest().split_inclusive('\n') {
            if line.trim() == marker {
                end = Some(line.len() - line.trim_start().len() + marker.len());
                break;
            }
            length += line.len();
        }
        let Some(end) = end else {
            return Err(self.fault(
                "Unterminated template string",
                format!("No line is {marker}, which would end the heredoc."),
            ));
        };
        let text = &self.rest()[..length];
        let dedented;
        let text = if is_flush {
            dedented = flush(text);
            dedented.as_str()
        } else {
            text
        };
        let mut inner = Cursor::new(self.file, text, (self.line, self.column));
        inner.depth = self.depth;
        let node = inner.deeper(|cursor| template(cursor, &Ends::File))?;
        let count = self.rest()[..length + end].chars().count();
        self.skip(count);
        Ok(Expr {
            span: start.to(self.here()),
            node,
        })
    }
}

/// The lines without the spaces that all of them begin with.
fn flush(text: &str) -> String {
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let least = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(indent)
        .min()
        .unwrap_or(0);
    text.split_inclusive('\n')
        .map(|line| &line[least.min(indent(line))..])
        .collect()
}
