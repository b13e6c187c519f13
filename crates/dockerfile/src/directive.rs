//! Parser directives: `# syntax=…`, `# escape=…`, `# check=…` at the very top of a Dockerfile.

use crate::Span;
use crate::error::ParseErrorKind;

/// The directives there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DirectiveName {
    /// Front end to use.
    Syntax,
    /// Escape character.
    Escape,
    /// Lint options.
    Check,
}

impl DirectiveName {
    const ALL: [Self; 3] = [Self::Syntax, Self::Escape, Self::Check];

    /// The name as it is written, lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Escape => "escape",
            Self::Check => "check",
        }
    }
}

/// One directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// Which.
    pub name: DirectiveName,
    /// Value, blanks around it removed.
    pub value: String,
    /// Where.
    pub span: Span,
}

/// Reads directives line by line. The first line that is none ends them for good.
#[derive(Debug)]
pub struct DirectiveParser<'a> {
    comment: &'a str,
    line: u32,
    seen: Vec<DirectiveName>,
    done: bool,
}

impl Default for DirectiveParser<'_> {
    fn default() -> Self {
        Self::new("#", 0)
    }
}

impl<'a> DirectiveParser<'a> {
    /// A parser for lines that begin with `comment`; `line` lines came before.
    #[must_use]
    pub const fn new(comment: &'a str, line: u32) -> Self {
        Self {
            comment,
            line,
            seen: Vec::new(),
            done: false,
        }
    }

    /// Whether all directives have been seen.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Looks at the next line (without its line end).
    ///
    /// # Errors
    /// [`ParseErrorKind::DuplicateDirective`] for one that was there before.
    pub fn line(&mut self, line: &str) -> Result<Option<Directive>, ParseErrorKind> {
        self.line += 1;
        if self.done {
            return Ok(None);
        }
        let Some((name, value)) = line.strip_prefix(self.comment).and_then(split) else {
            self.done = true;
            return Ok(None);
        };
        if self.seen.contains(&name) {
            return Err(ParseErrorKind::DuplicateDirective { name: name.as_str() });
        }
        self.seen.push(name);
        Ok(Some(Directive {
            name,
            value: value.to_owned(),
            span: Span::new(self.line, self.line),
        }))
    }
}

fn split(line: &str) -> Option<(DirectiveName, &str)> {
    let line = line.trim_start();
    let name_end = line
        .find(|c: char| !c.is_ascii_alphanumeric())
        .unwrap_or(line.len());
    let (name, rest) = line.split_at(name_end);
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let blank = [' ', '\t', '\n', '\x0c', '\r'];
    let value = rest.trim_start_matches(blank).strip_prefix('=')?;
    let value = value.trim_matches(blank);
    let name = DirectiveName::ALL
        .into_iter()
        .find(|known| name.eq_ignore_ascii_case(known.as_str()))?;
    (!value.is_empty() && !value.contains('\n')).then_some((name, value))
}

/// Looks for directive `name` at the top of a Dockerfile: its first word, and the directive. A byte order mark and a
/// `#!` line may stand before; errors of other directives are swallowed (BuildKit `parser.ParseDirective`).
#[must_use]
pub fn find(name: DirectiveName, dockerfile: &[u8]) -> Option<(String, Directive)> {
    find_with_comment(name, dockerfile, "#")
}

/// The front end a definition asks for: `# syntax=`, `// syntax=` as well (BuildKit `parser.DetectSyntax`; its JSON
/// form is left to callers that read JSON).
#[must_use]
pub fn detect_syntax(definition: &[u8]) -> Option<(String, Directive)> {
    find_with_comment(DirectiveName::Syntax, definition, "#")
        .or_else(|| find_with_comment(DirectiveName::Syntax, definition, "//"))
}

fn find_with_comment(name: DirectiveName, text: &[u8], comment: &str) -> Option<(String, Directive)> {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let mut lines = text.split(|b| *b == b'\n').peekable();
    let shebang = lines.next_if(|line| line.starts_with(b"#!")).is_some();
    let mut parser = DirectiveParser::new(comment, u32::from(shebang));
    for line in lines {
        let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        let directive = parser.line(&line).ok()?;
        if parser.is_done() {
            return None;
        }
        if let Some(directive) = directive.filter(|found| found.name == name) {
            let word = directive.value.split(' ').next().unwrap_or_default().to_owned();
            return Some((word, directive));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_leading_lines_count() {
        for (text, expected) in [
            (
                "# syntax=docker/dockerfile:1\nFROM a",
                Some(("docker/dockerfile:1", 1)),
            ),
            ("#syntax = a b c \n", Some(("a", 1))),
            ("# SYNTAX=a\n", Some(("a", 1))),
            ("#  \t Syntax\t=\ta\r\n", Some(("a", 1))),
            ("\u{feff}# syntax=a", Some(("a", 1))),
            ("#!/usr/bin/env x\n# syntax=a\n", Some(("a", 2))),
            ("# escape=`\n# syntax=a\n", Some(("a", 2))),
            ("\n# syntax=a\n", None),
            ("# comment\n# syntax=a\n", None),
            ("# unknown=1\n# syntax=a\n", None),
            ("FROM a\n# syntax=a\n", None),
            ("# syntax=\n", None),
            ("# 1syntax=a\n", None),
            ("# escape=`\n# escape=`\n# syntax=a\n", None),
            ("", None),
        ] {
            let found = find(DirectiveName::Syntax, text.as_bytes());
            let found = found
                .as_ref()
                .map(|(word, directive)| (word.as_str(), directive.span.start));
            assert_eq!(found, expected, "{text:?}");
        }
        assert_eq!(
            find(DirectiveName::Check, b"# check=skip=A, B").unwrap().0,
            "skip=A,"
        );
    }

    #[test]
    fn syntax_may_be_in_slashes() {
        assert_eq!(detect_syntax(b"// syntax=a/b:1\n{}").unwrap().0, "a/b:1");
        assert!(find(DirectiveName::Syntax, b"// syntax=a/b:1\n{}").is_none());
    }

    #[test]
    fn a_second_one_is_an_error() {
        let mut parser = DirectiveParser::default();
        assert!(parser.line("# escape=`").unwrap().is_some());
        let error = parser.line("# Escape=\\").unwrap_err();
        assert_eq!(error.to_string(), "only one escape parser directive can be used");
    }
}
