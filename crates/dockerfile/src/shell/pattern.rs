//! Patterns of `${x#…}`, `${x%…}` and `${x/…/…}`: `*`, `?` and quoted characters, no `[]`. They become regular
//! expressions of an engine that does not backtrack.

use regex::{Regex, RegexBuilder};

use crate::shell::lexer::without_mark;
use crate::shell::{ExpandErrorKind, MAX_PATTERN_BYTES, PatternProblem};

/// `value` without the shortest (or `longest`) beginning that matches.
pub(super) fn trim_prefix(pattern: &str, value: &str, longest: bool) -> Result<String, ExpandErrorKind> {
    let regex = compile(pattern, longest, true)?;
    Ok(regex
        .find(value)
        .map_or(value, |found| &value[found.end()..])
        .to_owned())
}

/// `value` without the shortest (or `longest`) end that matches. Both are turned round, because an engine that looks
/// from the left cannot find the shortest match at the right.
pub(super) fn trim_suffix(pattern: &str, value: &str, longest: bool) -> Result<String, ExpandErrorKind> {
    let turned: String = value.chars().rev().collect();
    let left =
        trim_prefix(&turn_round(pattern), &turned, longest).map_err(|error| named_by(error, pattern))?;
    Ok(left.chars().rev().collect())
}

/// `value` with the first match, or `all`, replaced; the result has at most `limit` bytes.
pub(super) fn replace(
    pattern: &str,
    value: &str,
    replacement: &str,
    all: bool,
    limit: usize,
) -> Result<String, ExpandErrorKind> {
    let regex = compile(pattern, true, false)?;
    let mut out = String::new();
    let mut kept = 0;
    for found in regex.captures_iter(value) {
        let whole = found.get_match();
        out.push_str(&value[kept..whole.start()]);
        kept = whole.end();
        if all {
            // `$0` in the replacement is the match: BuildKit hands it to Go's ReplaceAllString.
            found.expand(replacement, &mut out);
        } else {
            out.push_str(replacement);
        }
        if out.len() > limit {
            return Err(ExpandErrorKind::TooLong);
        }
        if !all {
            break;
        }
    }
    out.push_str(&value[kept..]);
    Ok(out)
}

fn compile(pattern: &str, longest: bool, anchored: bool) -> Result<Regex, ExpandErrorKind> {
    let problem = |reason| ExpandErrorKind::InvalidPattern {
        pattern: shortened(pattern),
        reason,
    };
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(problem(PatternProblem::TooLong));
    }
    let mut text = String::from(if anchored { "^" } else { "" });
    let mut chars = without_mark(pattern).chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => text.push_str(if longest { ".*" } else { ".*?" }),
            '?' => text.push('.'),
            // `}` and `/` had to be quoted to get into the pattern; the quote is no part of it.
            '\\' if matches!(chars.peek(), Some('}' | '/')) => {}
            '\\' => match chars.next() {
                Some(quoted @ ('*' | '?' | '\\')) => text.extend(['\\', quoted]),
                other => {
                    let shown = other.unwrap_or(char::REPLACEMENT_CHARACTER);
                    return Err(problem(PatternProblem::Escape(shown)));
                }
            },
            c => text.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    RegexBuilder::new(&text)
        .size_limit(COMPILED_BYTES)
        .build()
        .map_err(|_| problem(PatternProblem::TooComplex))
}

/// Reverses a pattern, each backslash staying in front of what it quotes.
fn turn_round(pattern: &str) -> String {
    let mut units: Vec<String> = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let mut unit = String::from(c);
        if c == '\\' {
            unit.extend(chars.next());
        }
        units.push(unit);
    }
    units.into_iter().rev().collect()
}

fn named_by(error: ExpandErrorKind, pattern: &str) -> ExpandErrorKind {
    match error {
        ExpandErrorKind::InvalidPattern { reason, .. } => ExpandErrorKind::InvalidPattern {
            pattern: shortened(pattern),
            reason,
        },
        other => other,
    }
}

fn shortened(pattern: &str) -> String {
    pattern.chars().take(200).collect()
}

const COMPILED_BYTES: usize = 8 << 20;
