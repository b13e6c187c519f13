//! Text of an ignore file to patterns (moby/patternmatcher `ignorefile`). Does not judge the patterns.

use crate::path;

/// Longest line of an ignore file in bytes, its line end not counted (Go `bufio.MaxScanTokenSize`, as BuildKit has it).
pub(super) const MAX_LINE_BYTES: usize = 65_535;

/// Why an ignore file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// A line is longer than 65,535 bytes.
    #[error("line {line} of the ignore file is longer than {MAX_LINE_BYTES} bytes")]
    LineTooLong {
        /// Which, 1-based.
        line: u32,
    },
}

/// A pattern and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoreLine {
    /// Line, 1-based.
    pub line: u32,
    /// Pattern: trimmed, cleaned, no leading slash; a `!` is kept in front.
    pub pattern: String,
}

/// The patterns of an ignore file with their lines: no comments, no blank lines. Bytes that are not UTF-8 become
/// U+FFFD.
///
/// # Errors
/// [`IgnoreError::LineTooLong`].
pub fn read_lines(bytes: &[u8]) -> Result<Vec<IgnoreLine>, IgnoreError> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut patterns = Vec::new();
    for (number, raw) in (1..).zip(bytes.split(|b| *b == b'\n')) {
        if raw.len() > MAX_LINE_BYTES {
            return Err(IgnoreError::LineTooLong { line: number });
        }
        if raw.starts_with(b"#") {
            continue;
        }
        let text = String::from_utf8_lossy(raw);
        let text = text.trim();
        if !text.is_empty() {
            patterns.push(IgnoreLine {
                line: number,
                pattern: normalise(text),
            });
        }
    }
    Ok(patterns)
}

/// The patterns of an ignore file, as [`read_lines`] without the lines.
///
/// # Errors
/// [`IgnoreError::LineTooLong`].
pub fn read_patterns(bytes: &[u8]) -> Result<Vec<String>, IgnoreError> {
    Ok(read_lines(bytes)?.into_iter().map(|line| line.pattern).collect())
}

fn normalise(text: &str) -> String {
    let (mark, text) = match text.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", text),
    };
    if text.is_empty() {
        return mark.to_owned();
    }
    let cleaned = path::clean(text);
    let relative = match cleaned.strip_prefix('/') {
        Some(rest) if !rest.is_empty() => rest,
        _ => &cleaned,
    };
    format!("{mark}{relative}")
}
