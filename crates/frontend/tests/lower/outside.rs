//! Dockerfiles of well-known public projects: each is read, linted and lowered without an error.
//!
//! They are other people's, so this repository holds only the list: project, commit and path of each, and arguments it
//! needs. `cargo xtask outside --mirrors DIR` lays them out from clones and runs this test on them; without
//! `RBUILD_OUTSIDE` the test looks at the list alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use rbuild_dockerfile::InstructionKind;

use crate::fake::{ALPINE, Fake, lower_with, options};

const LIST: &str = include_str!("outside.txt");
/// Directory that holds them, by their number in the list.
const DIR: &str = "RBUILD_OUTSIDE";

/// One line of the list: `project@commit:path`, and arguments without which the file has no base (`NAME=value`, blanks between).
struct Entry {
    project: &'static str,
    commit: &'static str,
    path: &'static str,
    arguments: Vec<(&'static str, &'static str)>,
}

fn entries() -> Vec<Entry> {
    let lines = LIST
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (project, rest) = line.split_once('@').expect("project@commit:path");
            let (commit, rest) = rest.split_once(':').expect("project@commit:path");
            let mut words = rest.split(' ');
            let path = words.next().expect("a path");
            let argument = |word: &'static str| word.split_once('=').expect("NAME=value");
            Entry {
                project,
                commit,
                path,
                arguments: words.map(argument).collect(),
            }
        })
        .collect()
}

#[test]
fn the_list_names_hundreds_of_files_of_many_projects_by_their_commits() {
    let entries = entries();
    let projects: BTreeSet<&str> = entries.iter().map(|entry| entry.project).collect();
    assert!(
        entries.len() >= 400 && projects.len() >= 60,
        "{} of {}",
        entries.len(),
        projects.len()
    );
    let places: BTreeSet<(&str, &str)> = entries.iter().map(|entry| (entry.project, entry.path)).collect();
    assert_eq!(places.len(), entries.len(), "one is there twice");
    for entry in &entries {
        let digits = entry.commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(
            digits && entry.commit.len() == 40,
            "{}: {}",
            entry.project,
            entry.commit
        );
        assert!(
            entry.project.split('/').count() == 2 && !entry.path.starts_with('/'),
            "{}",
            entry.path
        );
    }
}

/// Lowers all stages on one small image for every base; vertices, images and warnings.
fn lowered(dockerfile: &str, arguments: &[(&str, &str)]) -> Result<[usize; 3], String> {
    let mut options = options(dockerfile);
    let arguments = arguments
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    options.build_args.extend(arguments);
    options.all_stages = true;
    options.own_checks = true;
    let fake = Fake::new().every_image(ALPINE);
    let lowered = lower_with(&options, &fake).map_err(|error| error.to_string())?;
    Ok([lowered.graph.len(), fake.asked().len(), lowered.warnings.len()])
}

#[test]
fn dockerfiles_of_well_known_projects_are_read_linted_and_lowered() {
    let Some(dir) = std::env::var_os(DIR) else {
        println!("SKIP: {DIR} is not set: `cargo xtask outside --mirrors DIR` sets it");
        return;
    };
    let mut failed = Vec::new();
    let mut rows: BTreeMap<(&str, &str), [usize; 5]> = BTreeMap::new();
    for (number, entry) in entries().iter().enumerate() {
        let path = Path::new(&dir).join(number.to_string());
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let text = String::from_utf8(bytes).expect("UTF-8");
        let (parsed, errors) = rbuild_dockerfile::parse(text.as_bytes());
        if !errors.is_empty() {
            failed.push(format!("{}:{}: {errors:?}", entry.project, entry.path));
            continue;
        }
        let steps = parsed.stages.iter().flat_map(|stage| &stage.instructions);
        let steps = steps
            .filter(|step| matches!(step.kind, InstructionKind::Run(_)))
            .count();
        match lowered(&text, &entry.arguments) {
            Ok([vertices, images, warnings]) => {
                let row = rows.entry((entry.project, entry.commit)).or_default();
                for (sum, more) in row.iter_mut().zip([1, steps, images, vertices, warnings]) {
                    *sum += more;
                }
            }
            Err(error) => failed.push(format!("{}:{}: {error}", entry.project, entry.path)),
        }
    }
    assert!(failed.is_empty(), "{} fail:\n{}", failed.len(), failed.join("\n"));
    println!(
        "| project | commit | Dockerfiles | RUN | images | vertices | warnings |\n|---|---|---|---|---|---|---|"
    );
    for ((project, commit), [files, steps, images, vertices, warnings]) in rows {
        println!("| {project} | {commit:.12} | {files} | {steps} | {images} | {vertices} | {warnings} |");
    }
}
