//! The list of what is run: a paragraph for each project, whose first line is its name and commit.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};

use crate::shell;

const LIST: &str = "crates/xtask/outside-made.txt";

/// What stands for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    Busybox,
    Alpine,
    DebianSlim,
}

/// One project.
#[derive(Debug, Default)]
pub(super) struct Project {
    pub(super) name: String,
    pub(super) commit: String,
    /// Images with their hosts, and what stands for them.
    pub(super) bases: Vec<(String, Stand)>,
    /// Programs that were compiled before.
    pub(super) files: Vec<String>,
    pub(super) commands: Vec<String>,
    /// Names in the registry.
    pub(super) pushed: Vec<String>,
    /// Its Makefile has a variable for docker.
    pub(super) with_variable: bool,
}

impl Project {
    fn parse(lines: &[&str]) -> Result<Self> {
        let (first, rest) = lines.split_first().context("an empty paragraph")?;
        let (name, commit) = first.split_once(' ').context("PROJECT COMMIT")?;
        ensure!(commit.len() == 40, "{commit:?} is no commit");
        let mut project = Self {
            name: name.to_owned(),
            commit: commit.to_owned(),
            ..Self::default()
        };
        for line in rest {
            let (word, value) = line.split_once(' ').with_context(|| format!("{line:?}"))?;
            let words = || value.split(' ').map(str::to_owned);
            match word {
                "base" => {
                    for word in words() {
                        project.bases.push(base(&word)?);
                    }
                }
                "file" => project.files.extend(words()),
                "run" => project.commands.push(value.to_owned()),
                "pushed" => project.pushed.extend(words()),
                "with" if value == "DOCKER" => project.with_variable = true,
                _ => bail!("{line:?} is nothing that a project has"),
            }
        }
        ensure!(
            !project.commands.is_empty() && !project.pushed.is_empty(),
            "nothing is run, or nothing pushed"
        );
        Ok(project)
    }
}

fn base(text: &str) -> Result<(String, Stand)> {
    let (image, stand) = text
        .split_once('=')
        .with_context(|| format!("{text:?}: IMAGE=STAND"))?;
    let stand = match stand {
        "busybox" => Stand::Busybox,
        "alpine" => Stand::Alpine,
        "debian-slim" => Stand::DebianSlim,
        _ => bail!("{stand:?} stands for nothing"),
    };
    Ok((image.to_owned(), stand))
}

/// Every paragraph but comments.
pub(super) fn read() -> Result<Vec<Project>> {
    let text = fs::read_to_string(shell::root()?.join(LIST)).with_context(|| format!("read {LIST}"))?;
    let paragraphs = text.split("\n\n").map(|paragraph| {
        let lines = paragraph
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.collect::<Vec<_>>()
    });
    paragraphs
        .filter(|lines| !lines.is_empty())
        .map(|lines| Project::parse(&lines).with_context(|| format!("{LIST}: {}", lines[0])))
        .collect()
}
