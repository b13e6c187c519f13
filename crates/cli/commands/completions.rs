//! Completions: `rbuild completion` writes what a shell needs to ask, and `rbuild __complete WORD…` is what it asks. The answer
//! is what might stand in the place of the last word, one a line with a description behind a tab, then `:` and a number that
//! says what the shell may do besides. So docker's own scripts ask docker (cobra, `completions.go`): they ask us as well.
//!
//! What is known of commands and flags is what reads them; [`values`] knows what they take. Nothing here fails: what cannot
//! be found out is not offered.

mod dockerfile;
mod scripts;
mod values;

use std::ffi::OsString;

use clap::{Arg, Command, CommandFactory as _};

use self::values::Surroundings;
use super::{CommandError, NamesAt};
use crate::args::Cli;
use crate::env::Env;

pub(super) use scripts::write;

/// Words behind the program's name that ask for candidates, with descriptions and without.
const ASKED: [&str; 2] = ["__complete", "__completeNoDesc"];
/// Second spellings of docker, which help does not list: offered to whoever has begun one.
const SPELLINGS: [&str; 5] = ["buildx", "builder", "container", "image", "system"];

/// What a shell may do besides offering candidates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Directive(u8);

impl Directive {
    /// Offer files.
    const FILES: Self = Self(0);
    /// Add no blank behind a candidate.
    const NO_SPACE: Self = Self(2);
    /// Offer no files.
    const NO_FILES: Self = Self(4);
    /// Offer directories.
    const DIRECTORIES: Self = Self(16);
}

/// Something that may stand in the place of the last word.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    text: String,
    about: String,
}

impl Candidate {
    fn new(text: impl Into<String>, about: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            about: about.into(),
        }
    }
}

/// Candidates, and what else may be done.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    candidates: Vec<Candidate>,
    directive: Directive,
}

/// The words of a command line that asks for candidates.
pub(crate) fn asked(args: &[OsString]) -> Option<Vec<String>> {
    let first = args.get(1)?.to_str()?;
    let words = args.get(2..)?.iter();
    ASKED
        .contains(&first)
        .then(|| words.map(|word| word.to_string_lossy().into_owned()).collect())
}

/// Answers.
pub(super) fn complete(words: &[String], env: &mut Env, names: NamesAt<'_>) -> Result<(), CommandError> {
    let mut command = Cli::command();
    command.build();
    let answer = answer(&command, words, env, names);
    for candidate in answer.candidates.iter().filter(|one| is_harmless(&one.text)) {
        let about = rbuild_ui::text::one_line(&candidate.about);
        writeln!(env.stdout, "{}\t{about}", candidate.text)?;
    }
    writeln!(env.stdout, ":{}", answer.directive.0)?;
    Ok(env.stdout.flush()?)
}

/// Whether a shell may put the text on a command line as it is: names come from files of others.
fn is_harmless(text: &str) -> bool {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "-_./:@=,+".contains(c);
    !text.is_empty() && text.chars().all(harmless)
}

fn answer(command: &Command, words: &[String], env: &Env, names: NamesAt<'_>) -> Answer {
    let Some((last, before)) = words.split_last() else {
        return of_command(command, "", 0);
    };
    let line = Line::read(command, before);
    let surroundings = Surroundings {
        line: &line,
        env,
        names,
    };
    if let Some(arg) = line.awaits {
        return surroundings.values(arg, last, "");
    }
    if line.is_over {
        return files();
    }
    if !line.only_operands && last.starts_with('-') {
        let valued = last
            .split_once('=')
            .and_then(|(flag, value)| Some((long(line.command, flag.strip_prefix("--")?)?, flag, value)));
        return match valued {
            Some((arg, flag, value)) => surroundings.values(arg, value, &format!("{flag}=")),
            None => flags(line.command, last),
        };
    }
    match line.operand() {
        Some(arg) => surroundings.values(arg, last, ""),
        None => of_command(line.command, last, line.operands.len()),
    }
}

const fn files() -> Answer {
    Answer {
        candidates: Vec::new(),
        directive: Directive::FILES,
    }
}

/// A command line as far as it was written.
struct Line<'a> {
    command: &'a Command,
    /// What was given that is no flag.
    operands: Vec<String>,
    /// Flags with their values, by their ids.
    given: Vec<(&'a str, String)>,
    /// The flag whose value comes next.
    awaits: Option<&'a Arg>,
    /// There was a `--`.
    only_operands: bool,
    /// What follows is another program's.
    is_over: bool,
}

impl<'a> Line<'a> {
    fn read(command: &'a Command, words: &[String]) -> Self {
        let mut line = Self {
            command,
            operands: Vec::new(),
            given: Vec::new(),
            awaits: None,
            only_operands: false,
            is_over: false,
        };
        for word in words {
            line.take(word);
        }
        line
    }

    fn take(&mut self, word: &str) {
        if let Some(arg) = self.awaits.take() {
            self.given.push((arg.get_id().as_str(), word.to_owned()));
        } else if self.only_operands || word == "-" || !word.starts_with('-') {
            self.take_operand(word);
        } else if word == "--" {
            self.only_operands = true;
        } else if let Some(flag) = word.strip_prefix("--") {
            let (name, value) = flag
                .split_once('=')
                .map_or((flag, None), |(name, value)| (name, Some(value)));
            if let Some(arg) = long(self.command, name) {
                self.take_flag(arg, value);
            }
        } else {
            self.take_cluster(&word[1..]);
        }
    }

    /// One-letter flags together, of which the last may have its value behind it.
    fn take_cluster(&mut self, letters: &str) {
        for (at, letter) in letters.char_indices() {
            let Some(arg) = short(self.command, letter) else {
                return;
            };
            if arg.get_action().takes_values() && !arg.is_require_equals_set() {
                let value = &letters[at + letter.len_utf8()..];
                let value = value.strip_prefix('=').unwrap_or(value);
                return self.take_flag(arg, Some(value).filter(|value| !value.is_empty()));
            }
        }
    }

    fn take_flag(&mut self, arg: &'a Arg, value: Option<&str>) {
        match value {
            Some(value) => self.given.push((arg.get_id().as_str(), value.to_owned())),
            None if arg.get_action().takes_values() && !arg.is_require_equals_set() => {
                self.awaits = Some(arg);
            }
            None => {}
        }
    }

    fn take_operand(&mut self, word: &str) {
        if self.operands.is_empty()
            && let Some(below) = self.command.find_subcommand(word)
        {
            self.command = below;
            return;
        }
        self.operands.push(word.to_owned());
        let next = self.operand();
        self.is_over = next.is_some_and(Arg::is_trailing_var_arg_set);
    }

    /// What the next operand is.
    fn operand(&self) -> Option<&'a Arg> {
        let mut all: Vec<&Arg> = self.command.get_positionals().collect();
        all.sort_by_key(|arg| arg.get_index());
        let many = |arg: &&&Arg| arg.get_num_args().is_some_and(|count| count.max_values() > 1);
        let at = all.get(self.operands.len());
        at.or_else(|| all.last().filter(many)).copied()
    }

    /// All values of a flag.
    fn all(&self, id: &str) -> Vec<String> {
        let of_id = self.given.iter().filter(|(flag, _)| *flag == id);
        of_id.map(|(_, value)| value.clone()).collect()
    }

    /// The last value of a flag.
    fn said(&self, id: &str) -> Option<&str> {
        let of_id = self.given.iter().rev().find(|(flag, _)| *flag == id);
        of_id.map(|(_, value)| value.as_str())
    }
}

fn long<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let is_it = |arg: &&Arg| {
        arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|all| all.contains(&name))
    };
    command.get_arguments().find(is_it)
}

fn short(command: &Command, letter: char) -> Option<&Arg> {
    let is_it = |arg: &&Arg| {
        arg.get_short() == Some(letter)
            || arg
                .get_all_short_aliases()
                .is_some_and(|all| all.contains(&letter))
    };
    command.get_arguments().find(is_it)
}

/// The flags that begin so.
fn flags(command: &Command, begun: &str) -> Answer {
    let all = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let spelt = all.flat_map(|arg| {
        let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let long = arg.get_long().map(|name| format!("--{name}"));
        let short = arg.get_short().map(|letter| format!("-{letter}"));
        [long, short]
            .into_iter()
            .flatten()
            .map(move |text| (text, about.clone()))
    });
    let candidates = spelt
        .filter(|(text, _)| text.starts_with(begun))
        .map(|(text, about)| Candidate::new(text, about));
    Answer {
        candidates: candidates.collect(),
        directive: Directive::NO_FILES,
    }
}

/// The commands below one, where there may be one.
fn of_command(command: &Command, begun: &str, operands: usize) -> Answer {
    let is_shown = |below: &&Command| {
        !below.is_hide_set() || (!begun.is_empty() && SPELLINGS.contains(&below.get_name()))
    };
    let below = command
        .get_subcommands()
        .filter(is_shown)
        .filter(|_| operands == 0);
    let candidates = below
        .filter(|below| below.get_name().starts_with(begun))
        .map(|below| {
            let about = below.get_about().map(ToString::to_string);
            Candidate::new(below.get_name(), about.unwrap_or_default())
        });
    Answer {
        candidates: candidates.collect(),
        directive: Directive::NO_FILES,
    }
}

#[cfg(test)]
mod tests;
