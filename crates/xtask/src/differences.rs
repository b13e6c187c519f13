//! `cargo xtask differences`: the table of differences from BuildKit, docs/differences.md, made by running every
//! conformance case.
//!
//! Three speak of a case: rbuild, built now; what is recorded of BuildKit, with the version that said it; and, where
//! `--buildctl` and `--addr` name one, a BuildKit that runs, which must say what was recorded of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rbuild_testkit::base;
use rbuild_testkit::conformance::{Case, Expectation};
use rbuild_testkit::image::{Image, OciLayout};

use crate::record::{Oracle, Outcome};
use crate::shell;

/// Runs all cases and writes the table.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let rbuild = Rbuild::named(args)?;
    let oracle = match shell::flag(args, "--addr") {
        Some(_) => Some(Oracle::named(args)?),
        None => None,
    };
    let root = shell::root()?;
    let cases = Case::all(&root.join("tests/conformance"))?;
    let mut table = Table::default();
    let mut stale = Vec::new();
    for case in &cases {
        let expected = case.expected()?;
        table.add(case, &expected, &found(&expected, &rbuild.build(case)?));
        if let Some(oracle) = &oracle {
            let found = found(&expected, &oracle.build(case)?);
            stale.extend(found.iter().map(|sentence| format!("{}: {sentence}", case.name)));
        }
    }
    ensure!(
        stale.is_empty(),
        "BuildKit no longer says what is recorded:\n{}",
        stale.join("\n")
    );
    let path = root.join("docs/differences.md");
    fs::write(&path, table.page(oracle.is_some()))?;
    println!("{} differences, written: {}", table.rows.len(), path.display());
    Ok(())
}

/// The program that `--rbuild` names.
pub(crate) struct Rbuild {
    program: String,
    bases: Vec<Image>,
    bases_dir: String,
}

impl Rbuild {
    /// The one of the arguments.
    pub(crate) fn named(args: &[String]) -> Result<Self> {
        let program = shell::flag(args, "--rbuild").context("--rbuild PATH is needed")?;
        let bases_dir = base::layout()?;
        Ok(Self {
            program,
            bases: OciLayout::open(&bases_dir)?.images()?,
            bases_dir: bases_dir.display().to_string(),
        })
    }

    /// Builds a case, in a store of its own.
    pub(crate) fn build(&self, case: &Case) -> Result<Outcome> {
        let room = tempfile::tempdir()?;
        case.lay_out(room.path())?;
        let archive = room.path().join("image.tar");
        let mut command = Command::new(&self.program);
        command.env("RBUILD_ROOT", room.path().join("store"));
        command.args(case.rbuild_args(room.path(), self.bases_dir.as_ref()));
        if case.recipe.call.is_none() {
            command.arg(format!("--output=type=oci,dest={}", archive.display()));
        }
        let output = command
            .output()
            .with_context(|| format!("start {}", self.program))?;
        let observed = Outcome::of(case, &output, &archive, &self.bases, "ERROR: ");
        observed.with_context(|| case.name.clone())
    }
}

/// What is different, a sentence each.
pub(crate) fn found(expected: &Expectation, outcome: &Outcome) -> Vec<String> {
    match (&expected.error, outcome) {
        (None, Outcome::Images(have)) => expected.image_differences(have, &BTreeMap::new()),
        (None, Outcome::Answer(have)) => expected.answer_difference(have).into_iter().collect(),
        (Some(_), Outcome::Error(have)) => expected.error_differences(&have.line, have.excerpt.as_deref()),
        (Some(_), Outcome::Images(_)) => vec!["an image, not an error".to_owned()],
        (Some(_), Outcome::Answer(have)) => vec![format!("an answer, not an error: {have}")],
        (None, Outcome::Error(have)) => vec![format!("an error: {}", have.line)],
    }
}

#[derive(Default)]
struct Table {
    /// Of each instruction: cases, those that fail, those with a difference.
    groups: BTreeMap<String, [usize; 3]>,
    oracles: BTreeMap<String, usize>,
    rows: Vec<[String; 3]>,
}

impl Table {
    fn add(&mut self, case: &Case, expected: &Expectation, found: &[String]) {
        let group = case.name.split('/').next().unwrap_or_default();
        let counts = self.groups.entry(group.to_owned()).or_default();
        let seen = [
            1,
            usize::from(expected.error.is_some()),
            usize::from(!found.is_empty()),
        ];
        for (count, more) in counts.iter_mut().zip(seen) {
            *count += more;
        }
        *self.oracles.entry(expected.oracle.clone()).or_default() += 1;
        for sentence in found {
            let reason = case
                .recipe
                .differs
                .iter()
                .find(|(part, _)| sentence.contains(part.as_str()));
            let reason = reason.map_or("not defended", |(_, reason)| reason.as_str());
            let sentence = sentence.replace('|', "\\|").replace('\n', " ");
            self.rows.push([case.name.clone(), sentence, reason.to_owned()]);
        }
    }

    fn page(&self, asked: bool) -> String {
        let mut page = "# Differences from BuildKit\n\nMade by `cargo xtask differences` out of [tests/conformance](../tests/conformance), \
            not by hand. Compared are, of every case, the\nconfig, the history and each file of each layer, or the words of the error, or the answer to a question.\n\n"
            .to_owned();
        for (oracle, cases) in &self.oracles {
            // Writing to a string cannot fail.
            writeln!(page, "- {cases} cases recorded from `{oracle}`").expect("a string");
        }
        if asked {
            page += "- all of them were asked again of that BuildKit when this page was made, and it said the same\n";
        }
        page += "\n| instruction | cases | of them errors | with a difference |\n|---|---|---|---|\n";
        for (group, [cases, errors, differ]) in &self.groups {
            writeln!(page, "| {group} | {cases} | {errors} | {differ} |").expect("a string");
        }
        page += "\n## Each difference\n";
        if self.rows.is_empty() {
            page += "None.\n";
            return page;
        }
        page += "| case | rbuild says | why |\n|---|---|---|\n";
        for [case, sentence, reason] in &self.rows {
            writeln!(page, "| `{case}` | {sentence} | {reason} |").expect("a string");
        }
        page
    }
}
