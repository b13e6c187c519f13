//! What of a directory a build is given, by directory and by ignore rule: `rbuild context`. Needs no store and reads no
//! file but the Dockerfile and its ignore file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rbuild_fileops::{
    ContextError, DockerfileAt, IgnoreRules, IgnoredBy, LocalContext, Surveyed, WalkError, ignore_rules,
    survey,
};
use rbuild_sys::{RootFd, RootFdError};

use crate::context::{self, Beside, OpenContextError};
use crate::request::DockerfileSource;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The directory.
    #[error("unable to prepare context: path {path:?}")]
    Context {
        /// As given.
        path: PathBuf,
        /// Why.
        #[source]
        source: RootFdError,
    },
    /// The Dockerfile.
    #[error(transparent)]
    Dockerfile(#[from] OpenContextError),
    /// The ignore file.
    #[error("failed to read ignore file")]
    Ignore(#[from] ContextError),
    /// The files.
    #[error("read context")]
    Walk(#[from] WalkError),
}

/// Files and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub files: u64,
    /// Their sizes together.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, found: &Surveyed<'_>) {
        self.files += 1;
        self.bytes += found.bytes;
    }
}

/// What is sent and what is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Builds see it.
    pub sent: Amount,
    /// They do not.
    pub left_out: Amount,
}

impl Share {
    fn add(&mut self, found: &Surveyed<'_>) {
        if found.sent {
            self.sent.add(found);
        } else {
            self.left_out.add(found);
        }
    }
}

/// One rule, and what it had the last word on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Ignore file, line, pattern.
    pub place: IgnoredBy,
    /// What it lets in or keeps out.
    pub share: Share,
}

/// One file, where each is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path in the context.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Whether builds see it.
    pub sent: bool,
    /// The rule that had the last word.
    pub rule: Option<IgnoredBy>,
}

/// What a context is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContextReport {
    /// Name of the ignore file, if there is one.
    pub ignore_file: Option<String>,
    /// All of it.
    pub total: Share,
    /// Directories with all that is below them, `.` first; down to the depth asked for.
    pub directories: Vec<(PathBuf, Share)>,
    /// The ignore file's rules in order, those that decided nothing among them.
    pub rules: Vec<Rule>,
    /// Every file, if asked for.
    pub files: Vec<File>,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct ContextQuestion {
    /// The directory.
    pub context: PathBuf,
    /// The Dockerfile, which may have an ignore file of its own.
    pub dockerfile: DockerfileSource,
    /// How deep directories are told apart.
    pub depth: usize,
    /// Every file is told.
    pub files: bool,
}

/// Looks at a context.
///
/// # Errors
/// [`ReportError`].
pub fn report(asked: &ContextQuestion) -> Result<ContextReport, ReportError> {
    let path = std::path::absolute(&asked.context).unwrap_or_else(|_| asked.context.clone());
    let root = RootFd::open(&path).map_err(|source| ReportError::Context {
        path: path.clone(),
        source,
    })?;
    let name = context::name(&asked.dockerfile);
    let (_, beside) = context::read_dockerfile(&root, &path, &asked.dockerfile)?;
    let at = match &beside {
        Beside::InContext(name) => DockerfileAt::InContext(name),
        Beside::Dir(dir) => DockerfileAt::Beside(dir, &name),
        Beside::Nowhere => DockerfileAt::Nowhere,
    };
    let rules = ignore_rules(&root, at)?;
    let mut report = ContextReport {
        ignore_file: rules.as_ref().map(|rules| rules.name().to_owned()),
        rules: rules.iter().flat_map(IgnoreRules::places).map(rule).collect(),
        ..ContextReport::default()
    };
    let mut directories: BTreeMap<PathBuf, Share> = BTreeMap::from([(PathBuf::new(), Share::default())]);
    let context = LocalContext::new(root, path, rules);
    survey(&context, &mut |found| {
        report.total.add(found);
        for dir in found.path.ancestors().skip(1) {
            if dir.components().count() <= asked.depth {
                directories.entry(dir.to_owned()).or_default().add(found);
            }
        }
        let decided = found.rule.as_ref();
        if let Some(rule) =
            decided.and_then(|place| report.rules.iter_mut().find(|rule| rule.place == *place))
        {
            rule.share.add(found);
        }
        if asked.files {
            report.files.push(File {
                path: found.path.to_owned(),
                bytes: found.bytes,
                sent: found.sent,
                rule: found.rule.clone(),
            });
        }
    })?;
    report.directories = directories
        .into_iter()
        .map(|(dir, share)| (shown(dir), share))
        .collect();
    Ok(report)
}

fn rule(place: IgnoredBy) -> Rule {
    Rule {
        place,
        share: Share::default(),
    }
}

/// The context itself has no path in it.
fn shown(dir: PathBuf) -> PathBuf {
    if dir == Path::new("") {
        PathBuf::from(".")
    } else {
        dir
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn directories_and_rules_are_counted() {
        let room = tempfile::tempdir().unwrap();
        let at = |name: &str| room.path().join(name);
        for dir in ["a/b/c", "out"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        for (name, bytes) in [("a/b/c/x", 5), ("a/y", 7), ("out/z", 11)] {
            fs::write(at(name), vec![b'x'; bytes]).unwrap();
        }
        fs::write(at("Dockerfile"), "FROM scratch\n").unwrap();
        fs::write(at("Dockerfile.dockerignore"), "out\nnothing\n").unwrap();
        let asked = ContextQuestion {
            context: room.path().to_owned(),
            dockerfile: DockerfileSource::File(at("Dockerfile")),
            depth: 2,
            files: true,
        };
        let report = report(&asked).unwrap();
        assert_eq!(report.ignore_file.as_deref(), Some("Dockerfile.dockerignore"));
        assert_eq!(report.total.left_out, Amount { files: 1, bytes: 11 });
        let sent: Vec<(String, u64)> = report
            .directories
            .iter()
            .map(|(dir, share)| (dir.display().to_string(), share.sent.files))
            .collect();
        let expected = [(".", 4), ("a", 2), ("a/b", 1), ("out", 0)];
        assert_eq!(sent, expected.map(|(dir, files)| (dir.to_owned(), files)));
        let rules: Vec<(&str, u64)> = report
            .rules
            .iter()
            .map(|rule| (rule.place.pattern.as_str(), rule.share.left_out.files))
            .collect();
        assert_eq!(rules, [("out", 1), ("nothing", 0)]);
        assert_eq!(report.files.len(), 5);
    }
}
