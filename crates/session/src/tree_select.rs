//! What of a directory is sent: a server's include and exclude patterns and the paths it wants with all that they lead to
//! (`fsutil`'s `filter.go`, `followlinks.go`). Decides by names and links alone.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Component, Path, PathBuf};

use rbuild_dockerfile::ignore::{MatchState, PatternError, PatternMatcher};

/// Most links on the way to one path; the kernel's limit.
const LINKS_MAX: usize = 40;

/// Why there is no selection.
#[derive(Debug, thiserror::Error)]
pub enum SelectionError {
    /// A pattern is none.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

/// What of a tree is sent.
#[derive(Debug, Default)]
pub struct Selection {
    include: Option<PatternMatcher>,
    exclude: Option<PatternMatcher>,
    /// Everything belongs to 0:0.
    pub as_root: bool,
}

/// What is known of the directory that a name is in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Above {
    include: MatchState,
    exclude: MatchState,
}

/// What the patterns say about one name.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) is_selected: bool,
    /// If it is a directory, something below may be selected.
    pub(crate) descend: bool,
    pub(crate) state: Above,
}

impl Selection {
    /// What `include` or `follow` name below the directory `root`, but for what `exclude` does. Without any of the first
    /// two it is everything.
    ///
    /// # Errors
    /// [`SelectionError`].
    pub fn new(
        root: &Path,
        include: &[String],
        exclude: &[String],
        follow: &[String],
    ) -> Result<Self, SelectionError> {
        let mut wanted: BTreeSet<String> = include.iter().cloned().collect();
        let mut all = false;
        for path in follow {
            for found in followed(root, path)? {
                all |= found.is_empty();
                wanted.insert(found);
            }
        }
        let matcher = |patterns: &[String]| match patterns {
            [] => Ok(None),
            patterns => PatternMatcher::new(patterns).map(Some),
        };
        let wanted: Vec<String> = wanted.into_iter().filter(|_| !all).collect();
        Ok(Self {
            include: matcher(&wanted)?,
            exclude: matcher(exclude)?,
            as_root: false,
        })
    }

    pub(crate) fn judge(&self, path: &[u8], above: &Above) -> Said {
        let text = String::from_utf8_lossy(path);
        let ask = |matcher: Option<&PatternMatcher>, above: &MatchState| {
            matcher
                .map(|matcher| matcher.match_child(&text, above))
                .unwrap_or_default()
        };
        let state = Above {
            include: ask(self.include.as_ref(), &above.include),
            exclude: ask(self.exclude.as_ref(), &above.exclude),
        };
        let included = self.include.is_none() || state.include.is_match();
        let excluded = state.exclude.is_match();
        let may_include = |matcher: &PatternMatcher| matcher.may_match_below(&text);
        let may_return = |matcher: &PatternMatcher| matcher.may_exclude_below(&text);
        Said {
            is_selected: included && !excluded,
            descend: (included || self.include.as_ref().is_some_and(may_include))
                && (!excluded || self.exclude.as_ref().is_some_and(may_return)),
            state,
        }
    }
}

/// The path and what links in it lead to, all below `root` as if it were the root of everything; a name with a
/// wildcard stands for all names that it matches.
fn followed(root: &Path, path: &str) -> Result<BTreeSet<String>, SelectionError> {
    let mut found = BTreeSet::new();
    let mut waiting = VecDeque::from([(PathBuf::from(path), 0)]);
    let mut seen = BTreeSet::new();
    while let Some((path, links)) = waiting.pop_front() {
        // Links in a circle are sent as they are: whoever looks for what is behind them says that there is no end.
        if links > LINKS_MAX || !seen.insert(path.clone()) {
            continue;
        }
        let mut at = PathBuf::new();
        let mut rest = path.components();
        let mut led_on = false;
        while let Some(component) = rest.next() {
            let name = match component {
                Component::Normal(name) => name,
                Component::ParentDir => {
                    at.pop();
                    continue;
                }
                Component::CurDir | Component::RootDir | Component::Prefix(_) => continue,
            };
            let text = name.to_string_lossy();
            if text.contains(['*', '?', '[']) {
                for matched in matches(&root.join(&at), &text)? {
                    waiting.push_back((at.join(matched).join(rest.as_path()), links + 1));
                }
                led_on = true;
                break;
            }
            at.push(name);
            let Ok(target) = std::fs::read_link(root.join(&at)) else {
                continue;
            };
            found.insert(at.to_string_lossy().into_owned());
            let from = if target.is_absolute() {
                Path::new("")
            } else {
                at.parent().unwrap_or(Path::new(""))
            };
            waiting.push_back((from.join(strip_root(&target)).join(rest.as_path()), links + 1));
            led_on = true;
            break;
        }
        if !led_on {
            found.insert(at.to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

fn strip_root(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn matches(dir: &Path, pattern: &str) -> Result<Vec<String>, PatternError> {
    let matcher = PatternMatcher::new(&[pattern])?;
    // A directory that is not there has no names.
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names
        .filter(|name| matcher.matches_or_parent_matches(name))
        .collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_below_the_directory_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/file"), "").unwrap();
        symlink("/a", root.join("abs")).unwrap();
        symlink("../../../b/file", root.join("a/out")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let of = |path: &str| followed(root, path).map(|found| found.into_iter().collect::<Vec<_>>());
        assert_eq!(of("abs/b/file").unwrap(), ["a/b/file", "abs"]);
        assert_eq!(of("a/out").unwrap(), ["a/out", "b/file"]);
        assert_eq!(of("missing/x").unwrap(), ["missing/x"]);
        assert_eq!(of("./").unwrap(), [""]);
        assert_eq!(of("ab*/b").unwrap(), ["a/b", "abs"]);
        assert_eq!(of("loop").unwrap(), ["loop"]);
        assert_eq!(of("loop/x").unwrap(), ["loop"]);
        symlink("grows/x", root.join("grows")).unwrap();
        assert_eq!(of("grows").unwrap(), ["grows"]);
    }

    #[test]
    fn what_is_excluded_comes_back_where_a_pattern_says_so() {
        let patterns =
            |texts: &[&str]| -> Vec<String> { texts.iter().map(|text| (*text).to_owned()).collect() };
        let selection = Selection::new(
            Path::new("/nonexistent"),
            &[],
            &patterns(&["dir", "!dir/kept"]),
            &[],
        )
        .unwrap();
        let top = Above::default();
        let dir = selection.judge(b"dir", &top);
        assert!(!dir.is_selected && dir.descend);
        assert!(selection.judge(b"dir/kept", &dir.state).is_selected);
        assert!(!selection.judge(b"dir/other", &dir.state).is_selected);
        let some = Selection::new(Path::new("/nonexistent"), &patterns(&["a/b"]), &[], &[]).unwrap();
        let above = some.judge(b"a", &top);
        assert!(!above.is_selected && above.descend);
        assert!(some.judge(b"a/b", &above.state).is_selected);
        assert!(!some.judge(b"c", &top).descend);
    }
}
