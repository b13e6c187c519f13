//! The list of what is built, a line each: `project@commit:directory [file=F] [target=T] [fails] IMAGE=BASE…`.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rbuild_testkit::debian::DebianBase;

use crate::shell;

const LIST: &str = "crates/xtask/outside-built.txt";

/// How a build is known to end here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Image,
    /// For a reason that the comment above the line gives.
    Failure,
}

/// One project's Dockerfile.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) project: String,
    commit: String,
    /// Context, in the project.
    pub(super) dir: String,
    /// Dockerfile, in the context.
    pub(super) file: String,
    pub(super) target: Option<String>,
    pub(super) ending: Ending,
    /// Images that it names, and what stands for them.
    pub(super) bases: Vec<(String, DebianBase)>,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.project)?;
        if self.dir != "." {
            write!(f, "/{}", self.dir)?;
        }
        if self.file != "Dockerfile" {
            write!(f, " {}", self.file)?;
        }
        match &self.target {
            Some(target) => write!(f, " ({target})"),
            None => Ok(()),
        }
    }
}

impl Entry {
    fn parse(line: &str) -> Result<Self> {
        let mut words = line.split_whitespace();
        let place = words.next().context("an empty line")?;
        let (project, rest) = place.split_once('@').context("project@commit:directory")?;
        let (commit, dir) = rest.split_once(':').context("project@commit:directory")?;
        let mut entry = Self {
            project: project.to_owned(),
            commit: commit.to_owned(),
            dir: dir.to_owned(),
            file: "Dockerfile".to_owned(),
            target: None,
            ending: Ending::Image,
            bases: Vec::new(),
        };
        for word in words {
            match word.split_once('=') {
                Some(("file", name)) => name.clone_into(&mut entry.file),
                Some(("target", name)) => entry.target = Some(name.to_owned()),
                Some((image, name)) => {
                    let base = DebianBase::ALL.into_iter().find(|base| base.name() == name);
                    entry
                        .bases
                        .push((image.to_owned(), base.with_context(|| format!("no base {name}"))?));
                }
                None if word == "fails" => entry.ending = Ending::Failure,
                None => anyhow::bail!("{word:?} is nothing that a line has"),
            }
        }
        Ok(entry)
    }

    /// Puts the whole project below `dir`, as it was at the commit.
    pub(super) fn check_out(&self, clone: &Path, dir: &Path) -> Result<()> {
        let mut git = Command::new("git");
        git.arg("-C")
            .arg(clone)
            .args(["archive", "--format=tar", "--end-of-options", &self.commit]);
        let mut git = git.stdout(Stdio::piped()).spawn().context("start git")?;
        let archive = git.stdout.take().context("git's output")?;
        let unpacked = Command::new("tar").arg("-xC").arg(dir).stdin(archive).status();
        ensure!(
            unpacked.context("start tar")?.success() && git.wait()?.success(),
            "{self} is not in {}",
            clone.display()
        );
        Ok(())
    }
}

/// Every line but comments.
pub(super) fn read() -> Result<Vec<Entry>> {
    let text = fs::read_to_string(shell::root()?.join(LIST)).with_context(|| format!("read {LIST}"))?;
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|line| Entry::parse(line).with_context(|| format!("{LIST}: {line}")))
        .collect()
}
