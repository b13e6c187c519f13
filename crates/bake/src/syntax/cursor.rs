//! A text that is being read, character by character: where it stands, how deep it is, and what means nothing in it.

use super::{DEPTH_MAX, Span};
use crate::error::Fault;

/// A text that is being read.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    pub(super) file: usize,
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) depth: usize,
    /// How many brackets are open: line breaks mean nothing within them.
    pub(super) brackets: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: usize, text: &'a str, (line, column): (u32, u32)) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self {
            text,
            at: 0,
            file,
            line,
            column,
            depth: 0,
            brackets: 0,
        }
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let found = self.peek()?;
        self.at += found.len_utf8();
        if found == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        Some(found)
    }

    pub(super) fn skip(&mut self, count: usize) {
        for _ in 0..count {
            self.next();
        }
    }

    pub(super) fn takes(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.skip(text.chars().count());
        }
        found
    }

    pub(super) const fn here(&self) -> Span {
        let here = (self.line, self.column);
        Span {
            file: self.file,
            start: here,
            end: here,
        }
    }

    pub(super) fn fault(&self, summary: &'static str, detail: impl Into<String>) -> Fault {
        let mut span = self.here();
        span.end.1 += 1;
        Fault::new(span, summary, detail)
    }

    pub(super) fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.fault(
                "Too much nesting",
                format!("more than {DEPTH_MAX} levels are not read."),
            ));
        }
        let read = read(self)?;
        self.depth -= 1;
        Ok(read)
    }

    /// Reads with line breaks that mean nothing.
    pub(super) fn bracketed<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let outer = std::mem::replace(&mut self.brackets, 1);
        let read = self.deeper(read)?;
        self.brackets = outer;
        Ok(read)
    }

    pub(super) fn newlines_matter<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let outer = std::mem::take(&mut self.brackets);
        let read = self.deeper(read)?;
        self.brackets = outer;
        Ok(read)
    }

    /// Skips spaces and comments, and line breaks where they mean nothing.
    pub(super) fn space(&mut self) -> Result<(), Fault> {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r') => self.skip(1),
                Some('\n') if self.brackets > 0 => self.skip(1),
                Some('#') => self.line_comment(),
                Some('/') if self.rest().starts_with("//") => self.line_comment(),
                Some('/') if self.rest().starts_with("/*") => {
                    let Some(end) = self.rest().find("*/") else {
                        return Err(self.fault("Unterminated comment", "a comment has no end."));
                    };
                    let count = self.rest()[..end + 2].chars().count();
                    self.skip(count);
                }
                _ => return Ok(()),
            }
        }
    }

    fn line_comment(&mut self) {
        while self.peek().is_some_and(|next| next != '\n') {
            self.skip(1);
        }
    }

    pub(super) fn lines(&mut self) -> Result<(), Fault> {
        loop {
            self.space()?;
            if self.peek() != Some('\n') {
                return Ok(());
            }
            self.skip(1);
        }
    }

    pub(super) fn identifier(&mut self) -> Option<(String, Span)> {
        let start = self.here();
        let rest = self.rest();
        let is_start = |next: char| next.is_alphabetic() || next == '_';
        if !rest.starts_with(is_start) {
            return None;
        }
        let end = rest
            .find(|next: char| !(next.is_alphanumeric() || matches!(next, '_' | '-')))
            .unwrap_or(rest.len());
        let name = rest[..end].to_owned();
        self.skip(name.chars().count());
        Some((name, start.to(self.here())))
    }
}
