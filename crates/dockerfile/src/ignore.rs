//! Ignore files (`.dockerignore`) and lists of exclude patterns, as moby/patternmatcher and its `ignorefile` read them.
//!
//! The last pattern that matches a path or one of its parents decides; `!` lets a path in again. Paths are relative,
//! slash-separated and without `.` elements. Walks no tree: the walker asks about each entry and passes the answer
//! for a directory ([`MatchState`]) on to its children.
//!
//! moby turns patterns with wildcards into Go regular expressions, where a few characters keep their meaning by accident
//! (`|`, `{2}`, `\d`, a wildcard inside `[]`): they have it here too, `accident` sees to that.

mod accident;
mod file;
mod index;

use std::sync::Arc;

use regex::Regex;

pub use crate::ignore::file::{IgnoreError, IgnoreLine, read_lines, read_patterns};
use crate::ignore::index::Index;
use crate::path;
use crate::wildcard::{BadPattern, Globstar, Wildcard};

/// Why a list of patterns cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A `!` with nothing behind it.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneExclusion {
        /// Position in the list.
        index: usize,
    },
    /// The pattern's syntax is wrong.
    #[error("invalid pattern {pattern:?}")]
    Bad {
        /// Position in the list.
        index: usize,
        /// The pattern as it was given.
        pattern: String,
        /// What is wrong.
        source: BadPattern,
    },
}

impl PatternError {
    /// The pattern, as written.
    #[must_use]
    pub fn pattern(&self) -> &str {
        match self {
            Self::LoneExclusion { .. } => "!",
            Self::Bad { pattern, .. } => pattern,
        }
    }
}

/// One pattern of a matcher.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: Box<str>,
    exclusion: bool,
    given: usize,
    shape: Shape,
}

#[derive(Debug, Clone)]
enum Shape {
    /// `**` and then no wildcard: the path ends so. `**/x` matches `x` too, and `**x` matches `yx`.
    Suffix(Box<str>),
    Wildcard(Wildcard),
    /// An expression by accident.
    Expression(Box<Regex>),
}

/// Most patterns of one list that may be expressions by accident.
const EXPRESSIONS_MAX: usize = 200;

impl Pattern {
    /// The pattern, cleaned, without its `!`.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its position in the list the matcher was made from.
    #[must_use]
    pub fn given_index(&self) -> usize {
        self.given
    }

    fn is_match(&self, path: &str) -> bool {
        match &self.shape {
            Shape::Suffix(suffix) => {
                path.ends_with(&**suffix) || suffix.strip_prefix('/').is_some_and(|name| name == path)
            }
            Shape::Wildcard(wildcard) => wildcard.is_match(path),
            Shape::Expression(expression) => expression.is_match(path),
        }
    }

    /// Whether it may match something below directory `dir`. Says yes when in doubt.
    fn may_match_below(&self, dir: &str) -> bool {
        match &self.shape {
            Shape::Suffix(_) | Shape::Expression(_) => true,
            Shape::Wildcard(wildcard) => {
                let known = wildcard.literal_prefix();
                let common = known.len().min(dir.len() + 1);
                let reaches = known.as_bytes()[..common] == [dir.as_bytes(), b"/"].concat()[..common];
                reaches && (wildcard.literal().is_none() || known.len() > dir.len() + 1)
            }
        }
    }
}

/// Patterns in order, ready to be asked about paths. Cheap to share between threads.
#[derive(Debug, Clone, Default)]
pub struct PatternMatcher {
    patterns: Vec<Pattern>,
    index: Index,
    has_exclusions: bool,
}

/// What is known of a path, and of use for what lies below it.
///
/// The default value knows nothing: a path asked about with it has its parents looked at as well.
#[derive(Debug, Clone, Default)]
pub struct MatchState {
    /// Indices of the patterns that matched when they could change the answer, ascending.
    matched: Option<Arc<[u32]>>,
    decisive: Option<u32>,
    is_match: bool,
}

impl MatchState {
    /// Whether the path is matched (in an ignore file: left out).
    #[must_use]
    pub fn is_match(&self) -> bool {
        self.is_match
    }

    /// The pattern that had the last word: index into [`PatternMatcher::patterns`].
    #[must_use]
    pub fn pattern(&self) -> Option<usize> {
        self.decisive.map(|i| i as usize)
    }
}

impl PatternMatcher {
    /// Compiles `patterns`. Blank ones are skipped; each is trimmed and cleaned.
    ///
    /// # Errors
    /// [`PatternError`] for a lone `!` or a malformed pattern, and for more than 200 that are regular expressions by accident.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, PatternError> {
        let mut matcher = Self::default();
        let mut expressions = 0;
        for (given, raw) in patterns.iter().enumerate() {
            let trimmed = raw.as_ref().trim();
            if trimmed.is_empty() {
                continue;
            }
            let cleaned = path::clean(trimmed);
            let (text, exclusion) = match cleaned.strip_prefix('!') {
                Some("") => return Err(PatternError::LoneExclusion { index: given }),
                Some(text) => (text, true),
                None => (cleaned.as_str(), false),
            };
            let bad = |source| PatternError::Bad {
                index: given,
                pattern: raw.as_ref().to_owned(),
                source,
            };
            let shape = shape(text).map_err(bad)?;
            if matches!(shape, Shape::Expression(_)) {
                expressions += 1;
                if expressions > EXPRESSIONS_MAX {
                    return Err(bad(BadPattern));
                }
            }
            matcher.has_exclusions |= exclusion;
            matcher.index.add(matcher.patterns.len(), &shape);
            matcher.patterns.push(Pattern {
                text: text.into(),
                exclusion,
                given,
                shape,
            });
        }
        Ok(matcher)
    }

    /// The patterns, in order, without the blank ones.
    #[must_use]
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Whether any pattern begins with `!`.
    #[must_use]
    pub fn has_exclusions(&self) -> bool {
        self.has_exclusions
    }

    /// The patterns that begin with `!`.
    pub fn exclusions(&self) -> impl Iterator<Item = &Pattern> {
        self.patterns.iter().filter(|p| p.exclusion)
    }

    /// Whether a `!` pattern may match something below `dir`: a walker must look into a matched directory then.
    #[must_use]
    pub fn may_exclude_below(&self, dir: &str) -> bool {
        self.has_exclusions && self.exclusions().any(|p| p.may_match_below(dir))
    }

    /// Whether a pattern without `!` may match something below `dir`: a walker that only wants matches need not look
    /// into the directory otherwise.
    #[must_use]
    pub fn may_match_below(&self, dir: &str) -> bool {
        self.patterns
            .iter()
            .any(|p| !p.exclusion && p.may_match_below(dir))
    }

    /// Whether `path` or a parent of it is matched and not let in again (`MatchesOrParentMatches`).
    #[must_use]
    pub fn matches_or_parent_matches(&self, path: &str) -> bool {
        self.deciding_pattern(path).is_some_and(|p| !p.exclusion)
    }

    /// The pattern that decides about `path`: the last one that matches it or a parent of it.
    #[must_use]
    pub fn deciding_pattern(&self, path: &str) -> Option<&Pattern> {
        let mut candidates = Vec::new();
        for end in ancestor_ends(path) {
            self.index.candidates(&path[..end], &mut candidates);
        }
        candidates.sort_unstable();
        candidates.dedup();
        candidates
            .iter()
            .rev()
            .map(|&i| &self.patterns[i as usize])
            .find(|p| p.matches_path_or_parent(path))
    }

    /// The answer for `path`, given the answer for the directory it is in (`MatchesUsingParentResults`).
    ///
    /// Costs nothing for the parents' sake: a tree is walked in time linear in its entries. As in moby, a pattern that
    /// could not change the answer for the directory is not remembered for its children, so after `a`, `!a/b`, `a`
    /// the file `a/b` is let in, which [`Self::matches_or_parent_matches`] denies.
    #[must_use]
    pub fn match_child(&self, path: &str, parent: &MatchState) -> MatchState {
        let mut candidates = Vec::new();
        let known: &[u32] = match &parent.matched {
            Some(known) => {
                self.index.candidates(path, &mut candidates);
                known
            }
            None => {
                for end in ancestor_ends(path) {
                    self.index.candidates(&path[..end], &mut candidates);
                }
                &[]
            }
        };
        candidates.extend_from_slice(known);
        candidates.sort_unstable();
        candidates.dedup();
        let with_parents = parent.matched.is_none();
        let mut state = MatchState::default();
        let mut matched = Vec::new();
        for &i in &candidates {
            let pattern = &self.patterns[i as usize];
            let decided = known.binary_search(&i).is_ok()
                || (pattern.exclusion == state.is_match
                    && if with_parents {
                        pattern.matches_path_or_parent(path)
                    } else {
                        pattern.is_match(path)
                    });
            if decided {
                matched.push(i);
                state.is_match = !pattern.exclusion;
                state.decisive = Some(i);
            }
        }
        state.matched = match &parent.matched {
            Some(same) if **same == *matched => Some(Arc::clone(same)),
            _ => Some(matched.into()),
        };
        state
    }
}

impl Pattern {
    fn matches_path_or_parent(&self, path: &str) -> bool {
        ancestor_ends(path).any(|end| self.is_match(&path[..end]))
    }
}

/// Lengths of `path`'s parents and of itself, longest last.
fn ancestor_ends(path: &str) -> impl Iterator<Item = usize> {
    path.match_indices('/').map(|(at, _)| at).chain([path.len()])
}

fn shape(text: &str) -> Result<Shape, BadPattern> {
    if accident::is_open_end(text)? {
        let expression = accident::expression(text)?.ok_or(BadPattern)?;
        return Ok(Shape::Expression(Box::new(expression)));
    }
    let wildcard = Wildcard::new(text, Globstar::Directories)?;
    if let Some(expression) = accident::expression(text)? {
        return Ok(Shape::Expression(Box::new(expression)));
    }
    Ok(match text.strip_prefix("**") {
        Some(suffix) if !suffix.contains(['*', '?', '[', ']', '\\']) => Shape::Suffix(suffix.into()),
        _ => Shape::Wildcard(wildcard),
    })
}

#[cfg(test)]
mod tests;
