//! Where a copy reads from: a mounted snapshot, or the user's own context directory. Owns how a named path is found
//! in it: component by component from a held root, links resolved inside it, and in a context only over what the
//! ignore file leaves. Copies nothing.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rbuild_dockerfile::ignore::{
    IgnoreError, IgnoreLine, MatchState, PatternError, PatternMatcher, read_lines,
};
use rbuild_sys::{RootFd, RootFdError, clean};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::follow;
use crate::missing::{self, IgnoredBy, MissingSource};
use crate::xattr::Origin;

/// Links followed on the way to one path (`cache/contenthash/checksum.go`, `maxSymlinkLimit`).
const LINKS_MAX: usize = 255;

/// What a copy or a hash reads from.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one for each copy, and never moved in a loop"
)]
pub enum SourceTree {
    /// The root of a mounted snapshot: everything in it is as it looks.
    Snapshot(RootFd),
    /// A directory of the user, as BuildKit's client would send it.
    Context(LocalContext),
}

/// The user's context directory. Everything in it belongs to 0:0; what the ignore rules match does not exist.
#[derive(Debug)]
pub struct LocalContext {
    root: RootFd,
    path: PathBuf,
    rules: Option<IgnoreRules>,
    is_own_copy: bool,
    /// What a client would have been asked for, if not for all.
    asked: Option<PatternMatcher>,
}

/// An ignore file, ready to be asked.
#[derive(Debug, Clone)]
pub struct IgnoreRules {
    name: String,
    lines: Vec<IgnoreLine>,
    matcher: PatternMatcher,
}

/// Why an ignore file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IgnoreRulesError {
    /// The file's lines cannot be read.
    #[error("{name}")]
    Lines {
        /// Name of the file.
        name: String,
        /// Which line, and why.
        #[source]
        source: IgnoreError,
    },
    /// A pattern is malformed.
    #[error("{name}, line {line}")]
    Pattern {
        /// Name of the file.
        name: String,
        /// Line, 1-based.
        line: u32,
        /// What is wrong with it.
        #[source]
        source: PatternError,
    },
}

/// Why a named source could not be found.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// It is not there.
    #[error(transparent)]
    Missing(Box<MissingSource>),
    /// Links without end, in the words of BuildKit (`cache/contenthash/checksum.go`).
    #[error("too many links")]
    Links {
        /// Path inside the source.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("{path:?}: look up")]
    Io {
        /// Path inside the source.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A directory could not be walked while it was decided whether anything in it is left by the ignore rules.
    #[error(transparent)]
    Walk(#[from] crate::walk::WalkError),
}

/// A path that was found.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    /// Where it really is: absolute inside the root, without links.
    pub(crate) real: PathBuf,
    /// Its status (as the copy sees it).
    pub(crate) stat: Stat,
    /// What the ignore rules know of it.
    pub(crate) ignore: MatchState,
}

impl IgnoreRules {
    /// Reads the text of an ignore file; `name` is for messages.
    ///
    /// # Errors
    /// [`IgnoreRulesError`] with the line.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, IgnoreRulesError> {
        let lines = read_lines(bytes).map_err(|source| IgnoreRulesError::Lines {
            name: name.to_owned(),
            source,
        })?;
        Self::from_lines(name, lines)
    }

    /// Makes rules of patterns that came without a file (`local.excludepatterns`); lines count from 1.
    ///
    /// # Errors
    /// [`IgnoreRulesError::Pattern`].
    pub fn from_patterns(name: &str, patterns: &[String]) -> Result<Self, IgnoreRulesError> {
        let line = |(line, pattern): (u32, &String)| IgnoreLine {
            line,
            pattern: pattern.clone(),
        };
        Self::from_lines(name, (1..).zip(patterns).map(line).collect())
    }

    fn from_lines(name: &str, lines: Vec<IgnoreLine>) -> Result<Self, IgnoreRulesError> {
        let patterns: Vec<&str> = lines.iter().map(|line| line.pattern.as_str()).collect();
        let matcher = PatternMatcher::new(&patterns).map_err(|source| {
            let (PatternError::LoneExclusion { index } | PatternError::Bad { index, .. }) = &source;
            IgnoreRulesError::Pattern {
                name: name.to_owned(),
                line: lines[*index].line,
                source,
            }
        })?;
        Ok(Self {
            name: name.to_owned(),
            lines,
            matcher,
        })
    }

    /// The patterns in order, as the ignore file's reader normalised them.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|line| line.pattern.as_str())
    }

    /// Name of the ignore file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The rules in order, each with its place; blank ones are none.
    pub fn places(&self) -> impl Iterator<Item = IgnoredBy> {
        self.lines.iter().map(|line| IgnoredBy {
            file: self.name.clone(),
            line: line.line,
            pattern: line.pattern.clone(),
        })
    }

    pub(crate) const fn matcher(&self) -> &PatternMatcher {
        &self.matcher
    }

    /// What is known of a relative path, its parents asked first as a walk would.
    pub(crate) fn state_of(&self, relative: &str) -> MatchState {
        let mut state = MatchState::default();
        let ends = relative
            .match_indices('/')
            .map(|(at, _)| at)
            .chain([relative.len()]);
        for end in ends.filter(|end| *end > 0) {
            state = self.matcher.match_child(&relative[..end], &state);
        }
        state
    }

    pub(crate) fn blame(&self, state: &MatchState) -> Option<IgnoredBy> {
        let pattern = self.matcher.patterns().get(state.pattern()?)?;
        let line = self.lines.get(pattern.given_index())?;
        Some(IgnoredBy {
            file: self.name.clone(),
            line: line.line,
            pattern: line.pattern.clone(),
        })
    }
}

impl LocalContext {
    /// Takes an open directory as a context. `path` is for messages.
    #[must_use]
    pub const fn new(root: RootFd, path: PathBuf, rules: Option<IgnoreRules>) -> Self {
        Self {
            root,
            path,
            rules,
            is_own_copy: false,
            asked: None,
        }
    }

    /// The same directory, of which a client would have been asked for `paths` only (`local.followpaths`): a wildcard in front of
    /// a pivot finds no other files. All else of it can be read.
    ///
    /// # Errors
    /// The directory cannot be opened once more.
    pub fn asked_for(&self, paths: &[String]) -> Result<Self, RootFdError> {
        let root = RootFd::from_fd(self.root.open_in(
            Path::new("/"),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?);
        let asked = follow::patterns(&root, paths);
        Ok(Self {
            root,
            path: self.path.clone(),
            rules: self.rules.clone(),
            is_own_copy: self.is_own_copy,
            // A pattern that is none is told where it is used.
            asked: PatternMatcher::new(&asked).ok(),
        })
    }

    /// The same, as a copy that the builder keeps: no file in it is ever changed in place, so a layer may have it too.
    #[must_use]
    pub const fn own_copy(mut self) -> Self {
        self.is_own_copy = true;
        self
    }

    /// Whether all of it may become a layer by links: it is the builder's own, and nothing is ignored.
    #[must_use]
    pub const fn is_own_copy(&self) -> bool {
        self.is_own_copy && self.rules.is_none()
    }

    /// The directory, to read the Dockerfile from: the ignore rules do not hold there.
    #[must_use]
    pub const fn root(&self) -> &RootFd {
        &self.root
    }

    /// Path of the directory, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The ignore rules, if there are any.
    #[must_use]
    pub const fn rules(&self) -> Option<&IgnoreRules> {
        self.rules.as_ref()
    }
}

impl SourceTree {
    /// Its root directory. Ignore rules do not hold for what is read from it.
    #[must_use]
    pub const fn root(&self) -> &RootFd {
        match self {
            Self::Snapshot(root) => root,
            Self::Context(context) => &context.root,
        }
    }

    pub(crate) const fn rules(&self) -> Option<&IgnoreRules> {
        match self {
            Self::Snapshot(_) => None,
            Self::Context(context) => context.rules.as_ref(),
        }
    }

    /// What a client would have been asked for, if not for all.
    pub(crate) const fn asked(&self) -> Option<&PatternMatcher> {
        match self {
            Self::Snapshot(_) => None,
            Self::Context(context) => context.asked.as_ref(),
        }
    }

    /// Whether a client would have sent the file at `path`.
    pub(crate) fn is_asked_for(&self, path: &Path) -> bool {
        self.asked()
            .is_none_or(|asked| asked.matches_or_parent_matches(&relative(path)))
    }

    pub(crate) const fn origin(&self) -> Origin {
        match self {
            Self::Snapshot(_) => Origin::Snapshot,
            Self::Context(_) => Origin::Context,
        }
    }

    /// How the source looks to a copy. Files of a context come from a client that sends no owners; its root is a
    /// directory the builder made.
    pub(crate) fn seen(&self, mut stat: Stat, is_root: bool) -> Stat {
        if let Self::Context(_) = self {
            stat.st_uid = 0;
            stat.st_gid = 0;
            if is_root {
                stat.st_mode = (stat.st_mode & !0o7777) | 0o755;
            }
        }
        stat
    }

    /// Opens something whose place is known. No link is followed at the end.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.root()
            .open_in(path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| e.errno().unwrap_or(Errno::IO))
    }

    /// Finds a path by name. Links on the way are followed inside the root, and the last one if `follow`.
    pub(crate) fn locate(&self, path: &Path, follow: bool) -> Result<Located, LocateError> {
        let wanted = clean(path);
        let missing = |at: &Path, ignored: Option<IgnoredBy>| {
            LocateError::Missing(Box::new(missing::explain(self, &wanted, at, ignored)))
        };
        let io = |at: &Path, errno: Errno| LocateError::Io {
            path: at.to_owned(),
            source: errno.into(),
        };
        let mut pending = reversed(wanted.as_os_str());
        let mut real = PathBuf::from("/");
        let mut stat = self.stat(&real).map_err(|e| io(&real, e))?;
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if name == ".." {
                real.pop();
                stat = self.stat(&real).map_err(|e| io(&real, e))?;
                continue;
            }
            let next = real.join(&name);
            let fd = match self.open(&next, OFlags::PATH) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => return Err(missing(&next, None)),
                Err(e) => return Err(io(&next, e)),
            };
            stat = rbuild_sys::owner::fstat(&fd).map_err(|e| io(&next, e))?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind == FileType::Symlink && (follow || !pending.is_empty()) {
                if let Some(ignored) = self.ignored(&next) {
                    return Err(missing(&next, ignored));
                }
                links += 1;
                if links > LINKS_MAX {
                    return Err(LocateError::Links { path: next });
                }
                let target = rbuild_sys::owner::read_link(&fd, c"").map_err(|e| io(&next, e))?;
                let target = OsStr::from_bytes(target.as_bytes());
                if target.as_bytes().starts_with(b"/") {
                    real = PathBuf::from("/");
                }
                pending.extend(reversed(target));
                stat = self.stat(&real).map_err(|e| io(&real, e))?;
                continue;
            }
            if kind != FileType::Directory && !pending.is_empty() {
                return Err(missing(&next, None));
            }
            real = next;
        }
        let ignore = self.ignore_state(&real);
        if ignore.is_match() && !self.left_below(&real, &stat, &ignore)? {
            let blame = self.rules().and_then(|rules| rules.blame(&ignore));
            return Err(missing(&real, blame));
        }
        let is_root = real == Path::new("/");
        Ok(Located {
            real,
            stat: self.seen(stat, is_root),
            ignore,
        })
    }

    /// Whether an ignored path is there all the same, because a `!` rule lets something below it in.
    pub(crate) fn left_below(
        &self,
        real: &Path,
        stat: &Stat,
        ignore: &MatchState,
    ) -> Result<bool, crate::walk::WalkError> {
        let Some(rules) = self.rules() else {
            return Ok(true);
        };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !is_dir || !rules.matcher.may_exclude_below(&relative(real)) {
            return Ok(false);
        }
        crate::walk::holds_anything(self, real, ignore)
    }

    fn stat(&self, path: &Path) -> Result<Stat, Errno> {
        self.open(path, OFlags::PATH)
            .and_then(|fd| rbuild_sys::owner::fstat(&fd))
    }

    pub(crate) fn ignore_state(&self, path: &Path) -> MatchState {
        self.rules()
            .map(|rules| rules.state_of(&relative(path)))
            .unwrap_or_default()
    }

    /// Some if the path is ignored; inside, the rule that says so.
    fn ignored(&self, path: &Path) -> Option<Option<IgnoredBy>> {
        let state = self.ignore_state(path);
        state
            .is_match()
            .then(|| self.rules().and_then(|rules| rules.blame(&state)))
    }
}

/// A path as the pattern matchers want it: relative, and U+FFFD for what is not UTF-8.
pub(crate) fn relative(path: &Path) -> String {
    path.strip_prefix("/")
        .unwrap_or(path)
        .to_string_lossy()
        .into_owned()
}

fn reversed(path: &OsStr) -> Vec<OsString> {
    let parts = path
        .as_bytes()
        .split(|b| *b == b'/')
        .filter(|part| !part.is_empty() && *part != b".");
    let mut parts: Vec<OsString> = parts.map(|part| OsStr::from_bytes(part).to_os_string()).collect();
    parts.reverse();
    parts
}
