//! The answer to a COPY source that is not there: what was looked for and where, which ignore rule took it away, and
//! what it may have been meant to be. Reads at most one directory, and of that at most [`NAMES_MAX`] names.

use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::source::SourceTree;
use crate::walk::list;

/// Most names compared with the missing one.
const NAMES_MAX: usize = 4096;
/// Longest name compared, in characters; longer ones are no spelling mistakes.
const NAME_MAX_CHARS: usize = 128;

/// A source that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path:?}: not found{}{}", .ignored.as_ref().map(ToString::to_string).unwrap_or_default(), hint(.nearest.as_deref()))]
pub struct MissingSource {
    /// Path that was looked for, absolute inside the source.
    pub path: PathBuf,
    /// The first part of it, links resolved, that is not there.
    pub at: PathBuf,
    /// The context directory it was looked for in; absent for a stage or an image.
    pub context: Option<PathBuf>,
    /// The ignore rule that removed it.
    pub ignored: Option<IgnoredBy>,
    /// The nearest name that is there, as a path like [`Self::path`].
    pub nearest: Option<PathBuf>,
}

/// A rule of an ignore file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(" (left out by {pattern:?} in {file}, line {line})")]
pub struct IgnoredBy {
    /// Name of the ignore file.
    pub file: String,
    /// Line, 1-based.
    pub line: u32,
    /// The pattern.
    pub pattern: String,
}

fn hint(nearest: Option<&Path>) -> String {
    nearest
        .map(|name| format!(", did you mean {name:?}?"))
        .unwrap_or_default()
}

/// Makes the error for `wanted`, of which `at` is the first part that is not there.
pub(crate) fn explain(
    source: &SourceTree,
    wanted: &Path,
    at: &Path,
    ignored: Option<IgnoredBy>,
) -> MissingSource {
    let context = match source {
        SourceTree::Snapshot(_) => None,
        SourceTree::Context(context) => Some(context.path().to_owned()),
    };
    let ignored = ignored.or_else(|| {
        let state = source.ignore_state(at);
        source
            .rules()
            .filter(|_| state.is_match())
            .and_then(|rules| rules.blame(&state))
    });
    let nearest = if ignored.is_some() {
        None
    } else {
        nearest(source, at)
    };
    MissingSource {
        path: wanted.to_owned(),
        at: at.to_owned(),
        context,
        ignored,
        nearest,
    }
}

fn nearest(source: &SourceTree, at: &Path) -> Option<PathBuf> {
    let name = at.file_name()?.to_str()?;
    let dir = at.parent()?;
    let fd = source
        .open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK)
        .ok()?;
    let names = list(&fd, NAMES_MAX).ok()?;
    let allowed = (name.chars().count() / 3).max(1);
    names
        .iter()
        .filter_map(|listed| listed.name.to_str().ok())
        // One that is there was left out by a pattern.
        .filter(|found| *found != name)
        .filter(|found| !source.ignore_state(&dir.join(found)).is_match())
        .filter_map(|found| distance(name, found, allowed).map(|d| (d, found)))
        .min()
        .map(|(_, found)| dir.join(found))
}

/// Edit distance (insert, delete, replace; case counts half a step as none) if it is at most `allowed`.
fn distance(a: &str, b: &str, allowed: usize) -> Option<usize> {
    let fold = |text: &str| text.chars().flat_map(char::to_lowercase).collect::<Vec<char>>();
    let (a, b) = (fold(a), fold(b));
    if a.len() > NAME_MAX_CHARS || b.len() > NAME_MAX_CHARS || a.len().abs_diff(b.len()) > allowed {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = corner + usize::from(ca != cb);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    Some(row[b.len()]).filter(|d| *d <= allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("main.go", "mian.go", 2), Some(2));
        assert_eq!(distance("Dockerfile", "dockerfile", 1), Some(0));
        assert_eq!(distance("a", "bbbb", 2), None);
        assert_eq!(distance("kitten", "sitting", 3), Some(3));
        assert_eq!(distance("", "a", 1), Some(1));
    }
}
