//! `cargo xtask generated`: Dockerfiles that nobody wrote, built and asked about by rbuild and by a BuildKit, and what each made
//! of them compared as a conformance case is: config, history, every file of every layer, the words of errors with the lines
//! shown, the answers to questions.
//!
//! The same seed gives the same Dockerfiles. A difference that has a reason in the conformance cases has it here too.

mod grammar;
mod words;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rbuild_testkit::conformance::{Call, Case, Expectation};

use crate::differences::{Rbuild, found};
use crate::record::{Oracle, Outcome};
use crate::shell;
use grammar::{Numbers, context, dockerfile};

const SEED: u64 = 1;
const COUNT: u64 = 300;
/// How often BuildKit is asked again for an error that differs.
const CHANCES: usize = 8;

/// Generates, builds, compares; fails if anything differs that has no reason.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let rbuild = Rbuild::named(args)?;
    let oracle = Oracle::named(args)?;
    let number = |flag: &str, default: u64| -> Result<u64> {
        let text = shell::flag(args, flag);
        text.map_or(Ok(default), |text| {
            text.parse().with_context(|| format!("{flag} {text}"))
        })
    };
    let (seed, count) = (number("--seed", SEED)?, number("--count", COUNT)?);
    let reasons = reasons()?;
    let mut tally = Tally::default();
    let started = Instant::now();
    for number in seed..seed + count {
        let text = dockerfile(&mut Numbers::new(number));
        let room = tempfile::tempdir()?;
        fs::write(room.path().join("Dockerfile"), &text)?;
        for call in [None, Some(Call::Lint), Some(Call::Outline), Some(Call::Targets)] {
            let mut case = case(number, room.path(), call);
            let outcome = rbuild.build(&case)?;
            let mut expected = expectation(&oracle, oracle.build(&case)?);
            let mut differences = differences(&expected, &outcome, call, &reasons);
            // A layer of a base without a history is named for the build that made it first.
            if !differences.0.is_empty() && expected.image.is_some() {
                case.recipe.forgets = true;
                expected = expectation(&oracle, oracle.build(&case)?);
                differences = self::differences(&expected, &outcome, call, &reasons);
            }
            // Which of several that fail at once is told, steps or bases, is chance: BuildKit may tell the one that is told here, too.
            for _ in 0..CHANCES {
                if differences.0.is_empty() || expected.error.is_none() {
                    break;
                }
                expected = expectation(&oracle, oracle.build(&case)?);
                differences = self::differences(&expected, &outcome, call, &reasons);
            }
            if !differences.0.is_empty() && is_the_first(&oracle, &case, &text, &outcome, &reasons)? {
                differences = (Vec::new(), differences.1 + differences.0.len());
            }
            let (differences, excused) = differences;
            tally.excused += excused;
            tally.add(&expected, &differences);
            for sentence in &differences {
                println!("{number} {}: {sentence}", what(call));
            }
            if !differences.is_empty() {
                if let Some(error) = &expected.error {
                    println!("{number} {} of BuildKit: {error}", what(call));
                }
                println!("{}", indented(&text));
            }
        }
    }
    let elapsed = started.elapsed();
    println!("{tally:?} in {elapsed:.0?}");
    shell::write_results("generated", |date| {
        tally.page(date, (seed, count), &oracle.version)
    })?;
    ensure!(tally.different == 0, "{} differ", tally.different);
    Ok(())
}

/// What is different and has no reason, and how much has one.
fn differences(
    expected: &Expectation,
    outcome: &Outcome,
    call: Option<Call>,
    reasons: &[String],
) -> (Vec<String>, usize) {
    let is_reordered =
        matches!(outcome, Outcome::Answer(have) if words::are_same_but_for_order(expected, have));
    let mut differences = found(expected, outcome);
    let is_client = |sentence: &str| is_reordered || is_of_the_client(expected, sentence);
    differences.retain(|sentence| call.is_none() || !is_client(sentence));
    let all = differences.len();
    differences.retain(|sentence| {
        let has_reason = reasons.iter().any(|part| sentence.contains(part.as_str()));
        let is_another =
            matches!(outcome, Outcome::Error(have) if words::is_another_source(expected, have, sentence));
        !has_reason
            && !is_another
            && !words::is_without_a_line(expected, sentence)
            && !words::is_of_the_place(expected, sentence)
    });
    let excused = all - differences.len();
    (differences, excused)
}

/// Whether BuildKit says the same of the lines up to the one that is wrong here: of several mistakes the first is told, as
/// `copy/several_missing` of the conformance cases says.
fn is_the_first(
    oracle: &Oracle,
    case: &Case,
    text: &str,
    outcome: &Outcome,
    reasons: &[String],
) -> Result<bool> {
    let Outcome::Error(have) = outcome else {
        return Ok(false);
    };
    let Some(last) = words::last_line(have.excerpt.as_deref()) else {
        return Ok(false);
    };
    let room = tempfile::tempdir()?;
    let lines: String = text.split_inclusive('\n').take(last).collect();
    fs::write(room.path().join("Dockerfile"), lines)?;
    let begun = Case {
        name: case.name.clone(),
        dir: room.path().to_owned(),
        recipe: case.recipe.clone(),
    };
    let expected = expectation(oracle, oracle.build(&begun)?);
    // The lines behind the marked ones are not there.
    let (differences, _) = differences(&expected, outcome, begun.recipe.call, reasons);
    Ok(expected.error.is_some()
        && differences
            .iter()
            .all(|sentence| sentence.starts_with("excerpt ")))
}

fn case(number: u64, dir: &std::path::Path, call: Option<Call>) -> Case {
    let mut recipe = context(&mut Numbers::new(number));
    recipe.call = call;
    Case {
        name: format!("generated/{number}"),
        dir: dir.to_owned(),
        recipe,
    }
}

/// Whether the difference is that of buildctl and buildx in telling the same: of a question that is an error the first shows no
/// lines, and of what cannot be judged by lint nothing at all.
fn is_of_the_client(expected: &Expectation, sentence: &str) -> bool {
    let nothing = expected
        .answer
        .as_deref()
        .is_some_and(|answer| answer.trim().is_empty());
    sentence.starts_with("excerpt ") || (nothing && sentence.starts_with("an error: "))
}

const fn what(call: Option<Call>) -> &'static str {
    match call {
        None => "build",
        Some(Call::Lint) => "lint",
        Some(Call::Outline) => "outline",
        Some(Call::Targets | Call::ConvertLlb) => "targets",
    }
}

fn expectation(oracle: &Oracle, outcome: Outcome) -> Expectation {
    let mut expectation = Expectation::of(&oracle.version);
    match outcome {
        Outcome::Images(mut images) => expectation.image = images.pop(),
        Outcome::Answer(text) => expectation.answer = Some(text),
        Outcome::Error(error) => {
            expectation.error = Some(error.line);
            expectation.excerpt = error.excerpt;
        }
    }
    expectation
}

/// What the conformance cases excuse wherever it is said: words that stand behind or in front of BuildKit's.
fn reasons() -> Result<Vec<String>> {
    let cases = Case::all(&shell::root()?.join("tests/conformance"))?;
    let parts = cases.into_iter().flat_map(|case| case.recipe.differs.into_keys());
    let excused: Vec<String> = parts
        .filter(|part| words::EXCUSED.iter().any(|excused| part.contains(excused)))
        .collect();
    ensure!(
        !excused.is_empty(),
        "no reason is one of those that hold everywhere"
    );
    Ok(excused)
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |mut out, line| {
        // Writing to a string cannot fail.
        writeln!(out, "    | {line}").expect("a string");
        out
    })
}

/// What came of all.
#[derive(Debug, Default)]
struct Tally {
    images: usize,
    errors: usize,
    answers: usize,
    /// Kinds of errors: the first words of each.
    kinds: BTreeMap<String, usize>,
    excused: usize,
    different: usize,
}

impl Tally {
    fn add(&mut self, expected: &Expectation, differences: &[String]) {
        match (&expected.error, &expected.answer) {
            (Some(error), _) => {
                self.errors += 1;
                *self.kinds.entry(words::kind(error)).or_default() += 1;
            }
            (None, Some(_)) => self.answers += 1,
            (None, None) => self.images += 1,
        }
        self.different += usize::from(!differences.is_empty());
    }

    fn page(&self, date: &str, (seed, count): (u64, u64), oracle: &str) -> String {
        let mut page = format!(
            "# Generated Dockerfiles, {date}\n\nMade by `cargo xtask generated --seed {seed} --count {count}`: Dockerfiles out of a grammar of all instructions, each built \
             and asked for\nits warnings, its outline and its targets by rbuild and by\n`{oracle}`. Compared are config, history and each file of each layer,\n\
             the words of errors with the lines they show, and the answers.\n\n| | |\n|---|---|\n"
        );
        let rows = [
            ("Dockerfiles", usize::try_from(count).unwrap_or(usize::MAX)),
            ("images", self.images),
            ("errors, of builds and of questions", self.errors),
            ("answers", self.answers),
            ("words that have a reason in docs/differences.md", self.excused),
            ("different", self.different),
        ];
        for (name, number) in rows {
            // Writing to a string cannot fail.
            writeln!(page, "| {name} | {number} |").expect("a string");
        }
        page += "\n## Kinds of errors\n| BuildKit says | times |\n|---|---|\n";
        for (kind, times) in &self.kinds {
            writeln!(page, "| `{}` | {times} |", kind.replace('|', "\\|")).expect("a string");
        }
        page
    }
}
