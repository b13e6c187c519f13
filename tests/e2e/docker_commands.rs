//! All commands of docker 28.2.2 and of buildx 461836ba, and all their flags, as their `--help` has them
//! (`docker_commands.txt`; `*` marks a command that only has others). Each is asked for under the name `docker`: it works, or is
//! refused by a sentence. `docs/commands.md` is made of the answers; `RBUILD_UPDATE_DOCS=1` writes it.
//!
//! Where a docker or a buildx is installed its help is walked through, so that a command that is new there is missed here.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rbuild_testkit::command::{Ran, RbuildCommand};
use rbuild_testkit::machine;

use crate::e2e::buildx;
use crate::e2e::fixture::{Fixture, RBUILD};

/// A flag that there is not: what is complained of before it is not known either, and nothing is carried out.
const UNKNOWN: &str = "--no-such-flag-of-all";
const BEGIN: &str = "<!-- begin commands -->\n";
const END: &str = "<!-- end commands -->";
/// Flags whose value is one of few words, with one of them.
const WORDS: [(&str, &str); 3] = [
    ("--format=", "json"),
    ("--type=", "image"),
    ("--log-level=", "info"),
];

/// A command and its flags; those that take a value end with `=`.
struct Listed {
    name: String,
    is_group: bool,
    flags: Vec<String>,
}

fn listed() -> Vec<Listed> {
    let text = include_str!("docker_commands.txt");
    let line = |line: &str| {
        let (name, flags) = line.split_once(':').expect("a command and its flags");
        Listed {
            name: name.trim_end_matches(" *").to_owned(),
            is_group: name.ends_with(" *"),
            flags: flags.split_whitespace().map(str::to_owned).collect(),
        }
    };
    text.lines().map(line).collect()
}

/// This program under the name `docker`.
struct Docker {
    fixture: Fixture,
    program: PathBuf,
}

impl Docker {
    fn new() -> Self {
        let fixture = Fixture::new("FROM scratch\n");
        let program = fixture.home.work().join("docker");
        symlink(RBUILD, &program).unwrap();
        Self { fixture, program }
    }

    fn run<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Ran {
        let words: Vec<&str> = words.into_iter().collect();
        let ran = self.fixture.home.command(&self.program).args(words).run();
        let code = ran.status.code();
        assert!(matches!(code, Some(0 | 1 | 125)), "{ran}");
        assert!(!ran.stderr.contains("panicked"), "{ran}");
        ran
    }

    /// The sentence that refuses a command; nothing if it is served.
    fn refusal(&self, command: &Listed) -> Option<String> {
        let mut words: Vec<&str> = command.name.split(' ').collect();
        // A directory in docker's place: it is only refused where it is carried out.
        let is_carried_out = command.name.starts_with("context ");
        if !is_carried_out {
            words.push(UNKNOWN);
        }
        let ran = self.run(words);
        let first = ran.stderr.lines().next().unwrap_or_default();
        if let Some(sentence) = first.strip_prefix("ERROR: not supported: ") {
            assert_eq!(ran.status.code(), Some(1), "{ran}");
            return Some(sentence.to_owned());
        }
        assert!(
            is_carried_out || first.contains(UNKNOWN),
            "{}: neither served nor refused: {ran}",
            command.name
        );
        None
    }

    /// Flags of a command that is served which are not known here.
    fn unknown_flags<'a>(&self, command: &'a Listed) -> Vec<&'a str> {
        let is_unknown = |flag: &&'a String| {
            let word = WORDS.iter().find(|(known, _)| known == flag);
            let value = if flag.ends_with('=') {
                word.map_or("1", |(_, word)| word)
            } else {
                ""
            };
            let given = format!("{flag}{value}");
            let words = command.name.split(' ').chain([given.as_str(), UNKNOWN]);
            let ran = self.run(words);
            assert!(!ran.status.success(), "{ran}");
            !ran.stderr.lines().next().unwrap_or_default().contains(UNKNOWN)
        };
        let unknown = command.flags.iter().filter(is_unknown);
        unknown.map(|flag| flag.trim_end_matches('=')).collect()
    }
}

/// The table: a line for each command, or for all below one that is refused.
fn table() -> String {
    let docker = Docker::new();
    let mut text = "| docker's | here |\n|---|---|\n".to_owned();
    let mut refused: Vec<String> = Vec::new();
    for command in &listed() {
        let is_below = |group: &String| command.name.starts_with(&format!("{group} "));
        if refused.iter().any(is_below) {
            continue;
        }
        let here = match docker.refusal(command) {
            Some(sentence) => {
                refused.push(command.name.clone());
                let (_, instead) = sentence.split_once(": ").expect("a name and what to do");
                format!("refused: {instead}")
            }
            None if command.is_group => continue,
            None => match docker.unknown_flags(command).as_slice() {
                [] => "works".to_owned(),
                flags => format!("works; refused are `{}`", flags.join("`, `")),
            },
        };
        // Writing into a string cannot fail.
        let _infallible = writeln!(text, "| `docker {}` | {here} |", command.name);
    }
    text
}

#[test]
fn every_command_of_docker_works_or_is_refused_by_a_sentence() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
    let text = fs::read_to_string(&path).unwrap();
    let from = text.find(BEGIN).unwrap() + BEGIN.len();
    let to = text.find(END).unwrap();
    let made = table();
    assert!(made.lines().count() > 100, "{made}");
    if std::env::var_os("RBUILD_UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{}{made}{}", &text[..from], &text[to..])).unwrap();
    } else {
        assert_eq!(
            &text[from..to],
            made,
            "run this test with RBUILD_UPDATE_DOCS=1 to write commands.md"
        );
    }
}

/// Commands below `path`, as the help of `program` lists them.
fn walk(program: &Path, path: &[String], found: &mut BTreeSet<String>) {
    let help = RbuildCommand::new(program).args(path).arg("--help").run();
    let text = help.stdout_text();
    let mut is_list = false;
    for line in text.lines() {
        if !line.starts_with(' ') {
            is_list = line.trim_end().ends_with("ommands:");
            continue;
        }
        let word = line
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .trim_end_matches('*');
        let is_name = line.starts_with("  ") && !line.starts_with("   ") && word != "help";
        if is_list && is_name && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
            let below: Vec<String> = path.iter().cloned().chain([word.to_owned()]).collect();
            found.insert(below.join(" "));
            walk(program, &below, found);
        }
    }
}

#[test]
fn every_command_of_an_installed_docker_is_listed() {
    let listed: BTreeSet<String> = listed().into_iter().map(|command| command.name).collect();
    assert!(listed.len() > 200, "{}", listed.len());
    let docker = machine::required("docker", "docker.io").unwrap();
    let mut found = BTreeSet::new();
    walk(&docker, &[], &mut found);
    assert!(found.len() > 100, "{found:?}");
    if let Some(program) = buildx::program() {
        let mut below = BTreeSet::new();
        walk(&program, &[], &mut below);
        found.extend(below.into_iter().map(|name| format!("buildx {name}")));
    }
    let missing: Vec<&String> = found.difference(&listed).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
