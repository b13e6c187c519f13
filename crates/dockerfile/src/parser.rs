//! Bytes of a Dockerfile to instructions as they stand there: continuation lines joined, flags and arguments cut,
//! here-documents collected (BuildKit `frontend/dockerfile/parser`). Does not know what an instruction means.
//!
//! Total: whatever the bytes are, the result is all instructions that could be read and all errors.

mod arguments;
mod heredoc;
mod lines;
mod words;

use crate::directive::{Directive, DirectiveName, DirectiveParser};
use crate::error::{ParseError, ParseErrorKind};
pub(crate) use crate::parser::heredoc::parse_heredoc;
pub use crate::parser::heredoc::{Heredoc, chomp, is_heredoc};
use crate::parser::lines::Lines;
use crate::{MAX_DOCKERFILE_BYTES, MAX_INSTRUCTIONS, Span};

/// An instruction as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Node {
    /// Keyword as written.
    pub keyword: String,
    /// The whole instruction on one line, here-documents left out.
    pub original: String,
    /// Flags, each `--name` or `--name=value`, quotes removed.
    pub flags: Vec<String>,
    /// Arguments; their form depends on the keyword.
    pub arguments: Arguments,
    /// Here-documents in the order they are announced.
    pub heredocs: Vec<Heredoc>,
    /// Lines, here-documents included.
    pub span: Span,
    /// The comment lines right above, `#` and blanks removed.
    pub comments: Vec<String>,
}

/// Arguments of an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arguments {
    /// Words, or one word that is the whole rest of the line.
    Words(Vec<String>),
    /// A JSON array.
    Json(Vec<String>),
    /// `name=value` pairs. The last field says that a blank stood between them (the old form).
    Pairs(Vec<(String, String, bool)>),
    /// `CMD …` or `NONE` of HEALTHCHECK, with what follows.
    Healthcheck(String, Box<Arguments>),
    /// What ONBUILD delays: its keyword and arguments.
    Nested(Box<Node>),
}

impl Default for Arguments {
    fn default() -> Self {
        Self::Words(Vec::new())
    }
}

/// A Dockerfile cut into instructions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// Instructions in order.
    pub nodes: Vec<Node>,
    /// Directives at the top.
    pub directives: Vec<Directive>,
    /// The escape character, `\` or `` ` ``.
    pub escape: char,
    /// Last lines of instructions that have an empty continuation line.
    pub empty_continuations: Vec<u32>,
}

/// Cuts a Dockerfile into instructions.
#[must_use]
pub(crate) fn parse(bytes: &[u8]) -> (Parsed, Vec<ParseError>) {
    let mut parser = Parser {
        lines: Lines::new(bytes),
        directives: DirectiveParser::default(),
        comments: Vec::new(),
        parsed: Parsed {
            nodes: Vec::new(),
            directives: Vec::new(),
            escape: '\\',
            empty_continuations: Vec::new(),
        },
        errors: Vec::new(),
    };
    if bytes.is_empty() {
        parser.error(ParseErrorKind::Empty, Span::default());
    } else if bytes.len() > MAX_DOCKERFILE_BYTES {
        parser.error(ParseErrorKind::TooLarge, Span::default());
    } else {
        parser.run();
    }
    (parser.parsed, parser.errors)
}

struct Parser<'a> {
    lines: Lines<'a>,
    directives: DirectiveParser<'static>,
    comments: Vec<String>,
    parsed: Parsed,
    errors: Vec<ParseError>,
}

impl Parser<'_> {
    fn error(&mut self, kind: ParseErrorKind, span: Span) {
        self.errors.push(ParseError::new(kind, span));
    }

    fn run(&mut self) {
        while let Some(raw) = self.lines.next() {
            let trimmed = lines::without_line_end(&raw).trim_start();
            self.note_comment(&raw);
            self.directive(trimmed);
            let start = self.lines.number();
            if trimmed.starts_with('#') {
                continue;
            }
            if self.parsed.nodes.len() == MAX_INSTRUCTIONS && !trimmed.is_empty() {
                return self.error(ParseErrorKind::TooManyInstructions, Span::new(start, start));
            }
            let (text, continues) = lines::cut_continuation(trimmed, self.parsed.escape);
            if !continues && text.is_empty() {
                continue;
            }
            let mut text = text.to_owned();
            if continues {
                self.join_lines(&mut text);
            }
            self.instruction(text, start);
        }
        let too_long = self.lines.stopped_at_long_line();
        // A line that is too long is not counted, so that the one before is marked.
        let line = self.lines.number() - u32::from(too_long);
        // BuildKit looks at what it has before it asks why there is no more.
        if self.parsed.nodes.is_empty() && self.errors.is_empty() {
            self.error(ParseErrorKind::NoInstructions, Span::new(line, line));
        } else if too_long {
            self.error(ParseErrorKind::LineTooLong, Span::new(line, line));
        }
    }

    fn note_comment(&mut self, raw: &str) {
        if raw.trim_start().starts_with('#') {
            let mut rest = raw.chars();
            // One character goes, whatever it is: with a blank in front, the `#` is part of the comment.
            rest.next();
            let comment = rest.as_str().trim();
            if comment.is_empty() {
                self.comments.clear();
            } else {
                self.comments.push(comment.to_owned());
            }
        }
    }

    fn directive(&mut self, line: &str) {
        match self.directives.line(line) {
            Ok(None) => {}
            Ok(Some(directive)) => {
                self.comments.pop();
                if directive.name == DirectiveName::Escape {
                    match directive.value.as_str() {
                        "\\" => self.parsed.escape = '\\',
                        "`" => self.parsed.escape = '`',
                        other => {
                            let kind = ParseErrorKind::BadEscape {
                                token: other.to_owned(),
                            };
                            self.error(kind, directive.span);
                        }
                    }
                }
                self.parsed.directives.push(directive);
            }
            Err(kind) => {
                // BuildKit counts this line only once it has looked at it, and so marks the one before.
                let line = self.lines.number().saturating_sub(1);
                self.error(kind, Span::new(line, line));
            }
        }
    }

    /// Appends continuation lines to `text`. Comment lines between them vanish, and so do empty ones, with a lint.
    fn join_lines(&mut self, text: &mut String) {
        let mut had_empty = false;
        while let Some(raw) = self.lines.next() {
            let line = lines::without_line_end(&raw);
            let trimmed = line.trim_start();
            if trimmed.starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                had_empty = true;
                continue;
            }
            let (piece, continues) = lines::cut_continuation(line, self.parsed.escape);
            text.push_str(piece);
            if !continues {
                break;
            }
        }
        if had_empty {
            self.parsed.empty_continuations.push(self.lines.number());
        }
    }

    fn instruction(&mut self, text: String, start: u32) {
        let comments = std::mem::take(&mut self.comments);
        let mut node = match arguments::parse_line(&text, self.parsed.escape) {
            Ok(node) => node,
            Err(kind) => return self.error(kind, Span::new(start, self.lines.number())),
        };
        if node.may_hold_heredocs() && text.contains("<<") {
            match heredoc::announced(&text) {
                Ok(heredocs) => node.heredocs = heredocs,
                Err(error) => {
                    let span = Span::new(start, self.lines.number());
                    return self.error(ParseErrorKind::HeredocName(error), span);
                }
            }
            for heredoc in &mut node.heredocs {
                if !heredoc.read(&mut self.lines) {
                    let span = Span::new(start, self.lines.number());
                    return self.error(ParseErrorKind::UnterminatedHeredoc, span);
                }
            }
        }
        node.original = text;
        node.comments = comments;
        node.span = Span::new(start, self.lines.number());
        self.parsed.nodes.push(node);
    }
}

impl Node {
    fn may_hold_heredocs(&self) -> bool {
        let node = match &self.arguments {
            Arguments::Nested(nested) => nested,
            _ => self,
        };
        let takes = ["add", "copy", "run"]
            .iter()
            .any(|name| node.keyword.eq_ignore_ascii_case(name));
        takes && !matches!(node.arguments, Arguments::Json(_))
    }
}

#[cfg(test)]
mod tests;
