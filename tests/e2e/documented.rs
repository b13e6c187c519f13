//! What the pages tell people to copy: YAML is YAML, and every command line of rbuild's in it, or in a block by itself, is one that
//! the program takes. What the files for CI do in containers is in `nested.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::{base, machine};
use serde_json::Value;

use crate::e2e::fixture::{Fixture, RBUILD};

/// A block between fences.
struct Block {
    page: PathBuf,
    line: usize,
    language: String,
    text: String,
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md")];
    for dir in ["docs", "docs/migration"] {
        let entries = fs::read_dir(root.join(dir)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        pages.extend(paths.filter(|path| path.extension().is_some_and(|ext| ext == "md")));
    }
    pages.sort();
    pages
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let mut open: Option<Block> = None;
        for (at, line) in text.lines().enumerate() {
            let fence = line.trim_start().strip_prefix("```");
            match (fence, open.take()) {
                (Some(language), None) => {
                    open = Some(Block {
                        page: page.clone(),
                        line: at + 2,
                        language: language.trim().to_owned(),
                        text: String::new(),
                    });
                }
                (Some(_), Some(block)) => blocks.push(block),
                (None, Some(mut block)) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                    open = Some(block);
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block without an end", page.display());
    }
    blocks
}

/// The commands of a line of shell that are rbuild's, each as its words behind the name. Without a comment, and without what a
/// reader fills in.
fn commands(line: &str) -> Vec<Vec<String>> {
    let bare = line.trim().trim_start_matches("$ ").trim_end_matches(" &");
    let mut found = Vec::new();
    let mut command = Vec::new();
    for word in words(bare).into_iter().chain(["&&".to_owned()]) {
        if word != "&&" && word != "|" {
            command.push(word);
            continue;
        }
        let at = command
            .iter()
            .position(|word| word != "sudo" && !word.contains('='));
        if let Some(at) = at.filter(|at| command[*at] == "rbuild") {
            found.push(command.split_off(at + 1));
        }
        command.clear();
    }
    found
}

/// The words of a line as a shell has them, up to a comment.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut quote = None;
    let mut word: Option<String> = None;
    for c in line.chars() {
        match (c, quote) {
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (_, Some(open)) if open == c => quote = None,
            ('#', None) if word.is_none() => break,
            (' ', None) => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words.retain(|word| !word.contains('…'));
    words
}

/// The commands in a document: text below the keys that CI services run, and lists that are a command.
fn commands_in(value: &Value, found: &mut Vec<Vec<String>>) {
    match value {
        Value::String(text) => found.extend(text.lines().flat_map(commands)),
        Value::Array(list) => {
            let words: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
            match words {
                Some(words) if words.first() == Some(&"rbuild") => {
                    found.push(words[1..].iter().map(|word| (*word).to_owned()).collect());
                }
                _ => list.iter().for_each(|value| commands_in(value, found)),
            }
        }
        Value::Object(members) => members.values().for_each(|value| commands_in(value, found)),
        _ => {}
    }
}

/// Debian's, whatever other one is first in `PATH`.
const PYTHON: &str = "/usr/bin/python3";

/// The documents of a YAML text.
fn documents(block: &Block) -> Value {
    const SCRIPT: &str =
        "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.stdin)), sys.stdout, default=str)";
    let mut child = Command::new(PYTHON)
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), block.text.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{}:{}: {said}",
        block.page.display(),
        block.line
    );
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Whether the program takes these words: asked for help behind them it has read them all. What stands behind the image of `run` is
/// the image's program's own.
#[track_caller]
fn assert_taken(words: &[String], place: &str) {
    let is_run = words.first().is_some_and(|word| word == "run");
    let image = words.iter().skip(1).position(|word| !word.starts_with('-'));
    let (own, _) = words.split_at(image.filter(|_| is_run).map_or(words.len(), |at| at + 1));
    let ran = RbuildCommand::new(RBUILD).args(own).arg("--help").run();
    assert!(
        ran.status.success() && ran.stdout_text().contains("Usage"),
        "{place}: rbuild {}\n{ran}",
        words.join(" ")
    );
}

/// The commands of the blocks of shell, each with its place.
fn command_lines() -> Vec<(String, Vec<String>)> {
    let is_shell = |block: &Block| ["", "sh", "shell", "console"].contains(&block.language.as_str());
    let lines = |block: Block| {
        let joined = block.text.replace("\\\n", " ");
        let place = format!("{}:{}", block.page.display(), block.line);
        let found: Vec<_> = joined.lines().flat_map(commands).collect();
        found.into_iter().map(move |words| (place.clone(), words))
    };
    blocks().into_iter().filter(is_shell).flat_map(lines).collect()
}

#[test]
fn command_lines_of_the_pages_are_taken_and_others_are_not() {
    let lines = command_lines();
    for (place, words) in &lines {
        assert_taken(words, place);
    }
    assert!(lines.len() > 10, "{} commands were found", lines.len());
    // The twin: what is no flag is told.
    let words = ["build", "--no-such-flag", "--help"];
    RbuildCommand::new(RBUILD).args(words).fails();
    assert_eq!(
        commands("$ sudo X=1 rbuild a 'b' … && rbuild c # d"),
        [vec!["a", "b"], vec!["c"]]
    );
    assert_eq!(commands("docker rbuild a").len(), 0);
}

/// Words of commands that need others: a registry, a client, a look at the machine.
const NEED_OTHERS: [&str; 4] = ["--push", "--load=docker", "serve", "doctor"];

#[test]
fn command_lines_that_need_nobody_else_do_what_they_say() {
    let fixture = Fixture::new("FROM scratch\nCOPY Dockerfile true /\nENTRYPOINT [\"/true\"]\n");
    let program = base::static_busybox().unwrap();
    fs::copy(program, fixture.context.dir().join("true")).unwrap();
    fixture.context.file(
        "docker-bake.hcl",
        "group \"default\" {\n targets = [\"app\"]\n}\ntarget \"app\" {}\n",
    );
    let is_alone = |words: &[String]| {
        let needs = |word: &String| NEED_OTHERS.contains(&word.as_str()) || word.contains(".example");
        !words.iter().any(needs)
    };
    let alone: Vec<_> = command_lines()
        .into_iter()
        .filter(|(_, words)| is_alone(words))
        .collect();
    for (place, words) in &alone {
        let ran = fixture.rbuild(words).current_dir(fixture.context.dir()).run();
        assert!(ran.status.success(), "{place}: rbuild {}\n{ran}", words.join(" "));
    }
    assert!(alone.len() >= 5, "{alone:?}");
    // As the page on attestations says behind its line.
    assert!(fixture.context.dir().join("out/provenance.json").exists());
}

#[test]
fn files_for_ci_are_yaml_whose_commands_are_taken() {
    let has_yaml = || Command::new(PYTHON).args(["-c", "import yaml"]).status();
    if !has_yaml().is_ok_and(|status| status.success()) {
        return machine::skip("Debian's python3 or its yaml (apt-get install python3-yaml) is not here");
    }
    let mut by_page = std::collections::BTreeMap::new();
    for block in blocks().into_iter().filter(|block| block.language == "yaml") {
        let mut found = Vec::new();
        commands_in(&documents(&block), &mut found);
        for words in &found {
            assert_taken(words, &format!("{}:{}", block.page.display(), block.line));
        }
        *by_page
            .entry(block.page.file_name().unwrap().to_owned())
            .or_insert(0) += found.len();
    }
    let rootless = by_page.iter().find(|(page, _)| *page == "rootless.md");
    assert!(rootless.is_some_and(|(_, count)| *count >= 6), "{by_page:?}");
}
