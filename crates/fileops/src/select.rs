//! What a copy names: its source, with wildcards, to places in a source tree, and its patterns. The same answer
//! serves the copy and its content hash.
//!
//! Wildcards are Go's `filepath.Match`, taken path part by path part: a class never matches a slash.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rbuild_dockerfile::glob::{BadPattern, Glob, has_wildcards};
use rbuild_dockerfile::ignore::{PatternError, PatternMatcher};
use rbuild_graph::CopyAction;
use rbuild_sys::clean;
use rustix::fs::FileType;

use crate::dirstack::DIR_FLAGS;
use crate::missing;
use crate::source::{LocateError, Located, SourceTree};
use crate::walk::{Dir, Filter, Leaf, Visitor, WalkError, list};

/// What of a source takes part: the part of a copy action that a content hash depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selector<'a> {
    /// Path in the source; may hold wildcards.
    pub src: &'a str,
    /// Wildcards are allowed in [`Self::src`].
    pub allow_wildcard: bool,
    /// Follow the source if it is a link.
    pub follow_symlink: bool,
    /// Patterns that limit what takes part, relative to the source.
    pub include_patterns: &'a [String],
    /// Patterns that are left out.
    pub exclude_patterns: &'a [String],
    /// Absolute paths of which each must take part, or have something below it that does.
    pub required_paths: &'a [String],
}

impl<'a> From<&'a CopyAction> for Selector<'a> {
    fn from(action: &'a CopyAction) -> Self {
        Self {
            src: &action.src,
            allow_wildcard: action.allow_wildcard,
            follow_symlink: action.follow_symlink,
            include_patterns: &action.include_patterns,
            exclude_patterns: &action.exclude_patterns,
            required_paths: &action.required_paths,
        }
    }
}

impl<'a> Selector<'a> {
    /// Whether it is found by patterns, and not by a name alone.
    pub(crate) fn is_by_pattern(&self) -> bool {
        (self.allow_wildcard && has_wildcards(self.src))
            || !self.include_patterns.is_empty()
            || !self.exclude_patterns.is_empty()
    }

    /// Everything at and below one path, as a mount of the source reads it.
    #[must_use]
    pub const fn path(src: &'a str) -> Self {
        Self {
            src,
            allow_wildcard: false,
            follow_symlink: true,
            include_patterns: &[],
            exclude_patterns: &[],
            required_paths: &[],
        }
    }
}

/// Why a selection does not work out.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// A source could not be found.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// The source's wildcards are malformed.
    #[error("source {src:?}")]
    Wildcard {
        /// The source as written.
        src: String,
        /// What is wrong.
        #[source]
        source: BadPattern,
    },
    /// An include or exclude pattern is malformed. The words are those of BuildKit (`cache/contenthash/checksum.go`).
    #[error("invalid {which}: [{}]", .patterns.join(" "))]
    Pattern {
        /// `includepatterns` or `excludepatterns`.
        which: &'static str,
        /// All of them.
        patterns: Vec<String>,
        /// What is wrong.
        #[source]
        source: PatternError,
    },
    /// A directory could not be searched for matches.
    #[error(transparent)]
    Walk(#[from] WalkError),
}

/// One place that a source names.
#[derive(Debug, Clone)]
pub(crate) struct Match {
    /// What it is called at the destination; `.` if its content is to land in the destination itself.
    pub(crate) name: OsString,
    /// What sets it apart from the other matches of a wildcard: its path below the part without wildcards.
    pub(crate) key: PathBuf,
    /// Where it is.
    pub(crate) located: Located,
}

pub(crate) fn filter(selector: &Selector<'_>) -> Result<Filter, SelectError> {
    let compile = |which, patterns: &[String]| {
        if patterns.is_empty() {
            return Ok(None);
        }
        PatternMatcher::new(patterns)
            .map(Some)
            .map_err(|source| SelectError::Pattern {
                which,
                patterns: patterns.to_vec(),
                source,
            })
    };
    Ok(Filter {
        include: compile("includepatterns", selector.include_patterns)?,
        exclude: compile("excludepatterns", selector.exclude_patterns)?,
    })
}

/// The places a source names, in order. A wildcard may name none.
pub(crate) fn matches(tree: &SourceTree, selector: &Selector<'_>) -> Result<Vec<Match>, SelectError> {
    let wanted = clean(Path::new(selector.src));
    let parts: Vec<&OsStr> = wanted.iter().skip(1).collect();
    let wild = |part: &&OsStr| part.to_str().is_some_and(has_wildcards);
    let literal = parts.iter().position(wild).unwrap_or(parts.len());
    if !selector.allow_wildcard || literal == parts.len() {
        let located = tree.locate(&wanted, selector.follow_symlink)?;
        let name = match wanted.file_name() {
            Some(name) if selector.allow_wildcard || !selector.src.ends_with("/.") => name.to_os_string(),
            _ => OsString::from("."),
        };
        return Ok(vec![Match {
            name,
            key: PathBuf::new(),
            located,
        }]);
    }
    let prefix: PathBuf = std::iter::once(OsStr::new("/"))
        .chain(parts[..literal].iter().copied())
        .collect();
    let start = tree.locate(&prefix, selector.follow_symlink)?;
    let bad = |source| SelectError::Wildcard {
        src: selector.src.to_owned(),
        source,
    };
    let globs = parts[literal..]
        .iter()
        .map(|part| Glob::new(&part.to_string_lossy()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(bad)?;
    if FileType::from_raw_mode(start.stat.st_mode) != FileType::Directory {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for key in expand(tree, &start.real, &globs)? {
        let path = start.real.join(&key);
        let stat = match tree.locate(&path, false) {
            Ok(located) => located,
            // Ignored, or gone since it was listed: no match.
            Err(LocateError::Missing(_)) => continue,
            Err(e) => return Err(e.into()),
        };
        let is_link = FileType::from_raw_mode(stat.stat.st_mode) == FileType::Symlink;
        let located = if is_link && selector.follow_symlink {
            tree.locate(&path, true)?
        } else {
            stat
        };
        // The directories on the way to what is included come with it, a file that the wildcard happens to match does not.
        let is_dir = FileType::from_raw_mode(located.stat.st_mode) == FileType::Directory;
        if !is_dir && !selector.include_patterns.is_empty() && !tree.is_asked_for(&path) {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_os_string();
        found.push(Match { name, key, located });
    }
    Ok(found)
}

/// The part of a source in front of its wildcard, if a client that is asked for no more than it was asked for sends nothing of it:
/// then it is not there (BuildKit `solver/llbsolver/file/backend.go`, `docopy`).
pub(crate) fn unsent(tree: &SourceTree, selector: &Selector<'_>) -> Option<PathBuf> {
    let asked = tree.asked()?;
    let wanted = clean(Path::new(selector.src));
    let parts = wanted.iter().skip(1);
    let literal = parts.take_while(|part| !part.to_str().is_some_and(has_wildcards));
    let prefix: PathBuf = std::iter::once(OsStr::new("/")).chain(literal).collect();
    if prefix == wanted || prefix == Path::new("/") {
        return None;
    }
    let is_sent = |pattern: &str| {
        let globs: Result<Vec<Glob>, BadPattern> = pattern.split('/').map(Glob::new).collect();
        let found = expand(tree, Path::new("/"), &globs.unwrap_or_default()).unwrap_or_default();
        let mut found = found.into_iter().map(|path| Path::new("/").join(path));
        found.any(|path| {
            let is_there = path.starts_with(&prefix) || prefix.starts_with(&path);
            is_there && !tree.ignore_state(&path).is_match()
        })
    };
    let sent = asked.patterns().iter().any(|pattern| is_sent(pattern.text()));
    (!sent).then_some(prefix)
}

/// Paths below `start` that match the globs part by part, in order. Links in between are not followed.
fn expand(tree: &SourceTree, start: &Path, globs: &[Glob]) -> Result<Vec<PathBuf>, WalkError> {
    let mut level = vec![PathBuf::new()];
    for (depth, glob) in globs.iter().enumerate() {
        let is_last = depth + 1 == globs.len();
        let mut next = Vec::new();
        for dir in level {
            let path = start.join(&dir);
            let fail = |verb, errno: rustix::io::Errno| WalkError::Io {
                verb,
                path: path.clone(),
                source: errno.into(),
            };
            let fd = match tree.open(&path, DIR_FLAGS) {
                Ok(fd) => fd,
                Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP | rustix::io::Errno::NOENT)
                    if depth > 0 =>
                {
                    continue;
                }
                Err(e) => return Err(fail("open", e)),
            };
            for listed in list(&fd, usize::MAX).map_err(|e| fail("list", e))? {
                let may_be_dir = matches!(listed.kind, FileType::Directory | FileType::Unknown);
                let matched = glob.is_match(&listed.name.to_string_lossy());
                if matched && (is_last || may_be_dir) {
                    next.push(dir.join(OsStr::from_bytes(listed.name.as_bytes())));
                }
            }
        }
        level = next;
    }
    Ok(level)
}

/// Watches a walk for the paths that must take part.
#[derive(Debug)]
pub(crate) struct Required<'a> {
    wanted: Vec<(&'a str, Vec<u8>, bool)>,
}

impl<'a> Required<'a> {
    pub(crate) fn new(selector: &Selector<'a>) -> Self {
        let base = clean(Path::new(selector.src));
        let below = |path: &'a String| {
            let path_clean = clean(Path::new(path));
            let relative = path_clean.strip_prefix(&base).unwrap_or(&path_clean);
            (path.as_str(), relative.as_os_str().as_bytes().to_vec(), false)
        };
        Self {
            wanted: selector.required_paths.iter().map(below).collect(),
        }
    }

    pub(crate) fn saw(&mut self, relative: &[u8]) {
        for (_, wanted, found) in &mut self.wanted {
            let below = relative.strip_prefix(wanted.as_slice());
            *found |= wanted.is_empty() || below.is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
        }
    }

    /// The error for the first path that was not seen.
    pub(crate) fn check(&self, tree: &SourceTree) -> Result<(), LocateError> {
        let Some((path, ..)) = self.wanted.iter().find(|(_, _, found)| !found) else {
            return Ok(());
        };
        let path = clean(Path::new(path));
        // The look-up finds the part that is not there; if all are, a pattern left the path out.
        match tree.locate(&path, false) {
            Err(e) => Err(e),
            Ok(_) => Err(LocateError::Missing(Box::new(missing::explain(
                tree, &path, &path, None,
            )))),
        }
    }

    /// What to say where the source itself is not there: that what is required of it is not.
    pub(crate) fn instead_of(&self, error: SelectError, tree: &SourceTree) -> SelectError {
        match (&error, self.check(tree)) {
            (SelectError::Locate(LocateError::Missing(_)), Err(LocateError::Missing(required))) => {
                LocateError::Missing(required).into()
            }
            _ => error,
        }
    }
}

/// A visitor that also watches for required paths.
pub(crate) struct Watched<'a, 'b, V> {
    pub(crate) inner: &'a mut V,
    pub(crate) required: &'a mut Required<'b>,
}

impl<V: Visitor> Visitor for Watched<'_, '_, V> {
    type Error = V::Error;

    fn enter(&mut self, relative: &[u8], dir: &Dir<'_>) -> Result<(), V::Error> {
        if !dir.as_parent && !dir.is_top {
            self.required.saw(relative);
        }
        self.inner.enter(relative, dir)
    }

    fn leaf(&mut self, relative: &[u8], leaf: &Leaf<'_>) -> Result<(), V::Error> {
        self.required.saw(relative);
        self.inner.leaf(relative, leaf)
    }

    fn leave(&mut self, relative: &[u8]) -> Result<(), V::Error> {
        self.inner.leave(relative)
    }
}
