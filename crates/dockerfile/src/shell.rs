//! Words of a Dockerfile: quotes, escapes and variables, as BuildKit's `frontend/dockerfile/shell` expands them.
//! Runs no command and knows no `$(…)`. What an expansion may grow to is bounded.

mod class;
mod lexer;
mod pattern;

use std::collections::BTreeSet;

use crate::quote::quote;
pub use crate::shell::lexer::Lexer;

/// How many bytes an expansion may add to a word. Linux refuses variables above 128 KiB, so no build needs more.
pub const MAX_GROWTH_BYTES: usize = 1 << 20;
/// How deep `${a:-${b:-…}}` may nest.
pub const MAX_NESTING: usize = 256;
/// Longest pattern of `${x#pattern}` and its like, bytes.
pub const MAX_PATTERN_BYTES: usize = 4096;

/// Where variables come from.
pub trait Variables {
    /// The value of `name`; `None` if it is not set, which is not the same as empty.
    fn get(&self, name: &str) -> Option<&str>;
    /// All names that are set, for "did you mean".
    fn names(&self) -> Vec<&str>;
}

/// No variables at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoVariables;

impl Variables for NoVariables {
    fn get(&self, _name: &str) -> Option<&str> {
        None
    }

    fn names(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// An expanded word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expansion {
    /// The word as one piece, blanks kept.
    pub text: String,
    /// The word cut at blanks, those that came out of variables too, but not quoted ones ([`Lexer::split`] only).
    pub words: Vec<String>,
    /// Variables that were asked for and set.
    pub matched: BTreeSet<String>,
    /// Variables that were asked for and not set.
    pub unmatched: BTreeSet<String>,
}

/// A word that cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {}: {kind}", quote(.word))]
pub struct ExpandError {
    /// The word, cut short if long.
    pub word: String,
    /// What is wrong with it.
    #[source]
    pub kind: ExpandErrorKind,
    /// Variables that were asked for and not set before it was found out.
    pub unmatched: BTreeSet<String>,
}

/// What is wrong with a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandErrorKind {
    /// A `'` without its twin.
    #[error("unexpected end of statement while looking for matching single-quote")]
    OpenSingleQuote,
    /// A `"` without its twin.
    #[error("unexpected end of statement while looking for matching double-quote")]
    OpenDoubleQuote,
    /// A `${` without `}`.
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    /// A `${x/pattern` without the second `/`.
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    /// `${}`, `${:…}` or `${{`.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// `${x` goes on with something unknown.
    #[error("unsupported modifier ({0}) in substitution")]
    UnsupportedModifier(String),
    /// `${x?}` and `${x:?}`: unset or empty, with the user's words if there are any.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The reason given.
        message: String,
    },
    /// The pattern of `#`, `%` or `/` cannot be used.
    #[error("invalid pattern ({pattern}) in substitution: {reason}")]
    InvalidPattern {
        /// The pattern.
        pattern: String,
        /// Why not.
        reason: PatternProblem,
    },
    /// The result is more than [`MAX_GROWTH_BYTES`] longer than the word.
    #[error("expansion is more than {MAX_GROWTH_BYTES} bytes longer than the text it comes from")]
    TooLong,
    /// More than [`MAX_NESTING`] `${` in each other.
    #[error("substitutions are nested more than {MAX_NESTING} deep")]
    TooDeep,
}

/// Why a substitution pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternProblem {
    /// A backslash before something that needs none.
    #[error("invalid escape '\\{0}'")]
    Escape(char),
    /// Longer than [`MAX_PATTERN_BYTES`].
    #[error("longer than {MAX_PATTERN_BYTES} bytes")]
    TooLong,
    /// It needs more memory than is granted.
    #[error("too complex")]
    TooComplex,
}

#[cfg(test)]
mod tests;
