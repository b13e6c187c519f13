//! Here-documents: `<<NAME`, `<<-NAME`, `3<<"NAME"` and the lines up to `NAME`.

use crate::parser::lines::{self, Lines};
use crate::shell::{ExpandError, Lexer, NoVariables};

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// Its name, which is also the line that ends it.
    pub name: String,
    /// The number before `<<`; 0 if there is none.
    pub file_descriptor: u64,
    /// Variables in it are expanded: no part of the name was quoted.
    pub expand: bool,
    /// `<<-`: tabs at the beginning of lines are dropped.
    pub chomp: bool,
    /// Text, line ends as in the file.
    pub content: String,
}

impl Heredoc {
    /// Reads up to the line that ends it; false if there is none.
    pub(super) fn read(&mut self, lines: &mut Lines<'_>) -> bool {
        while let Some(line) = lines.next() {
            let mut end = lines::without_line_end(&line);
            if self.chomp {
                end = end.trim_start_matches('\t');
            }
            if end == self.name {
                return true;
            }
            self.content.push_str(&line);
        }
        false
    }
}

/// `text` without the tabs at the beginning of its lines.
#[must_use]
pub fn chomp(text: &str) -> String {
    text.split_inclusive('\n')
        .map(|line| line.trim_start_matches('\t'))
        .collect()
}

/// The here-documents that a line announces, in order. A line whose quotes do not match announces none.
pub(super) fn announced(line: &str) -> Result<Vec<Heredoc>, ExpandError> {
    let lexer = Lexer {
        raw_quotes: true,
        raw_escapes: true,
        skip_unset: true,
        ..Lexer::new('\\')
    };
    let words = lexer
        .split(line, &NoVariables)
        .map(|found| found.words)
        .unwrap_or_default();
    let found: Result<Vec<_>, _> = words.iter().map(|word| parse_heredoc(word)).collect();
    Ok(found?.into_iter().flatten().collect())
}

/// Whether a command is nothing but the mark of a here-document.
#[must_use]
pub fn is_heredoc(command: &str) -> bool {
    matches!(parse_heredoc(command), Ok(Some(_)))
}

/// Reads one word as the mark of a here-document; `None` if it is something else.
pub(crate) fn parse_heredoc(word: &str) -> Result<Option<Heredoc>, ExpandError> {
    let Some((digits, rest)) = word.split_once("<<") else {
        return Ok(None);
    };
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let name = rest.trim_start_matches([' ', '\t', '\n', '\x0c', '\r']);
    if !digits.bytes().all(|b| b.is_ascii_digit()) || name.contains('<') || name.is_empty() {
        return Ok(None);
    }
    let lexer = Lexer {
        skip_unset: true,
        ..Lexer::new('\\')
    };
    let plain = lexer.split(name, &NoVariables)?.words;
    let [plain] = plain.as_slice() else {
        return Ok(None);
    };
    let raw = Lexer {
        raw_quotes: true,
        ..lexer
    }
    .split(name, &NoVariables)?
    .words;
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let raw_quotes: usize = raw.first().map_or(0, |word| quotes(word));
    Ok(Some(Heredoc {
        name: plain.clone(),
        file_descriptor: digits.parse().unwrap_or_default(),
        expand: quotes(plain) == raw_quotes,
        chomp,
        content: String::new(),
    }))
}
