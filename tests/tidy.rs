//! House rules of the repository, checked on its text: headers, sizes, directions of dependencies, budgets, and nothing
//! that belongs to one machine.

mod dependencies;
mod matrix;
mod pages;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines that are not tests which a source file may have.
const FILE_LINES_MAX: usize = 800;
/// Packages in the lock file, all platforms and development included.
const PACKAGES_MAX: usize = 400;
/// Files longer than [`FILE_LINES_MAX`], with the reason.
const LONG_FILES: [(&str, &str); 0] = [];

/// Which of our packages each may use, development aside: the level table of ARCHITECTURE.md.
const DIRECTIONS: [(&str, &[&str]); 23] = [
    ("rbuild-bake", &["rbuild-dockerfile"]),
    (
        "rbuild-benches",
        &[
            "rbuild-dockerfile",
            "rbuild-fileops",
            "rbuild-frontend",
            "rbuild-layer",
            "rbuild-oci",
            "rbuild-sys",
        ],
    ),
    ("rbuild-oci", &[]),
    ("rbuild-dockerfile", &[]),
    ("rbuild-sys", &[]),
    ("rbuild-graph", &["rbuild-oci"]),
    ("rbuild-layer", &["rbuild-oci", "rbuild-sys"]),
    ("rbuild-store", &["rbuild-oci", "rbuild-sys"]),
    ("rbuild-sandbox", &["rbuild-sys"]),
    (
        "rbuild-frontend",
        &["rbuild-dockerfile", "rbuild-graph", "rbuild-oci"],
    ),
    (
        "rbuild-fileops",
        &[
            "rbuild-dockerfile",
            "rbuild-graph",
            "rbuild-layer",
            "rbuild-oci",
            "rbuild-sys",
        ],
    ),
    ("rbuild-llb", &["rbuild-dockerfile", "rbuild-graph", "rbuild-oci"]),
    ("rbuild-registry", &["rbuild-oci"]),
    (
        "rbuild-remotecache",
        &["rbuild-dockerfile", "rbuild-oci", "rbuild-registry"],
    ),
    (
        "rbuild-session",
        &["rbuild-dockerfile", "rbuild-oci", "rbuild-sys"],
    ),
    (
        "rbuild-snapshotter",
        &["rbuild-layer", "rbuild-oci", "rbuild-store", "rbuild-sys"],
    ),
    ("rbuild-tls", &[]),
    ("rbuild-client", &[]),
    ("rbuild-testkit", &["rbuild-oci"]),
    ("rbuild-ui", &["rbuild-dockerfile", "rbuild-graph", "rbuild-oci"]),
    ("xtask", &["rbuild-testkit"]),
    (
        "rbuild-builder",
        &[
            "rbuild-dockerfile",
            "rbuild-fileops",
            "rbuild-frontend",
            "rbuild-graph",
            "rbuild-layer",
            "rbuild-llb",
            "rbuild-oci",
            "rbuild-registry",
            "rbuild-remotecache",
            "rbuild-sandbox",
            "rbuild-snapshotter",
            "rbuild-store",
            "rbuild-sys",
            "rbuild-tls",
        ],
    ),
    (
        "rbuild-server",
        &[
            "rbuild-builder",
            "rbuild-dockerfile",
            "rbuild-fileops",
            "rbuild-frontend",
            "rbuild-graph",
            "rbuild-layer",
            "rbuild-llb",
            "rbuild-oci",
            "rbuild-registry",
            "rbuild-remotecache",
            "rbuild-session",
            "rbuild-store",
            "rbuild-sys",
            "rbuild-tls",
        ],
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files under version control.
fn tracked() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output()
        .expect("git ls-files");
    assert!(
        output.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("names are UTF-8");
    text.split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .filter(|p| root().join(p).is_file())
        .collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    let rust =
        |path: &PathBuf| path.extension().is_some_and(|end| end == "rs") && !path.starts_with("tests/real");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(root().join(&path)).expect("sources are UTF-8");
        (path, text)
    };
    let found: Vec<_> = tracked().into_iter().filter(rust).map(read).collect();
    assert!(found.len() > 20, "only {} sources found", found.len());
    found
}

#[track_caller]
fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn every_source_says_what_it_owns() {
    let found: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| !text.trim_start().starts_with("//!"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    none("files without a `//!` header", &found);
}

#[test]
fn no_source_is_too_long_to_read() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let tests_only =
            path.ends_with("tests.rs") || path.starts_with("tests") || path.iter().any(|p| p == "tests");
        let lines = product.lines().count();
        let excused = LONG_FILES.iter().any(|(name, _)| path == Path::new(name));
        if lines > FILE_LINES_MAX && !tests_only && !excused {
            found.push(format!("{}: {lines} lines", path.display()));
        }
    }
    none(
        "files above the limit (or list them in LONG_FILES with a reason)",
        &found,
    );
}

#[test]
fn no_file_has_a_vague_name_or_is_a_mod_rs() {
    let vague = [
        "mod.rs",
        "utils.rs",
        "util.rs",
        "common.rs",
        "helpers.rs",
        "misc.rs",
        "manager.rs",
    ];
    let found: Vec<String> = tracked()
        .into_iter()
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| vague.iter().any(|v| name == *v))
        })
        .map(|path| path.display().to_string())
        .collect();
    none("names that say nothing", &found);
}

#[test]
fn nothing_is_left_for_later_without_an_issue() {
    // Spelt in parts, so that this file does not find itself.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("todo", "!("),
        concat!("unimple", "mented!("),
    ];
    let mut found = Vec::new();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let later = marks.iter().any(|mark| line.contains(mark)) && !line.contains(concat!("TO", "DO(#"));
            if later {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    none("left for later", &found);
}

#[test]
fn every_library_but_sys_forbids_unsafe_code() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        let crate_root =
            path.ends_with("src/lib.rs") || path.ends_with("src/main.rs") || path.ends_with("cli/main.rs");
        if crate_root && !path.starts_with("crates/sys") && !text.contains("#![forbid(unsafe_code)]") {
            found.push(path.display().to_string());
        }
    }
    none("crate roots without #![forbid(unsafe_code)]", &found);
}

/// What cargo knows of our packages.
fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn dependencies_point_downwards_only() {
    let metadata = metadata();
    let allowed: BTreeMap<&str, &[&str]> = DIRECTIONS.into_iter().collect();
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if name == "rbuild" {
            continue;
        }
        let Some(may) = allowed.get(name) else {
            found.push(format!(
                "{name} is in no level; add it to DIRECTIONS and to ARCHITECTURE.md"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            let development = dependency["kind"] == "dev";
            let ours = on.starts_with("rbuild-") || on == "xtask" || on == "rbuild";
            if ours && !development && !may.contains(&on) {
                found.push(format!("{name} -> {on}"));
            }
        }
    }
    none("edges that ARCHITECTURE.md does not have", &found);
}

#[test]
fn the_lock_file_stays_within_its_budget() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let packages = lock.lines().filter(|line| *line == "[[package]]").count();
    assert!(
        packages > 50 && packages <= PACKAGES_MAX,
        "{packages} packages in Cargo.lock, at most {PACKAGES_MAX}"
    );
}

#[test]
fn nothing_of_one_machine_is_written_down() {
    // Spelt in parts, so that this file does not find itself.
    let words = [
        concat!("/wo", "rk/"),
        concat!("/tmp/", "oracle"),
        concat!("/tmp/", "ground"),
        concat!("artifact", "-registry"),
        concat!("artifact", "ory"),
        concat!("pkg", ".dev"),
        concat!("10.255.", "255."),
    ];
    let mut found = Vec::new();
    for path in tracked() {
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                found.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    none("words of one machine", &found);
}

#[test]
fn every_row_of_the_conformance_cases_says_what_it_shows() {
    let cases = rbuild_testkit::conformance::Case::all(&root().join("tests/conformance")).expect("the cases");
    let found: Vec<String> = cases
        .iter()
        .filter(|case| case.recipe.about.len() < 12 || !case.recipe.about.ends_with('.'))
        .map(|case| case.name.clone())
        .collect();
    none("cases without a sentence", &found);
    assert!(cases.len() >= 80, "only {} cases", cases.len());
}

#[test]
fn the_table_of_attacks_names_the_tests_that_exist() {
    let table = fs::read_to_string(root().join("docs/security.md")).expect("docs/security.md");
    let promised = table.split("## Tests").nth(1).expect("the list of tests");
    // The path of the file and the names in it stand in backticks, one file a line.
    let mut named = Vec::new();
    for line in promised.lines().filter_map(|line| line.strip_prefix("- ")) {
        let mut words = line.split('`').skip(1).step_by(2);
        let file = words.next().expect("a file");
        named.extend(words.map(|test| (file.to_owned(), test.to_owned())));
    }
    let rows: Vec<String> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse::<u8>().ok())
        .map(|row| format!("row{row:02}_"))
        .collect();
    assert!(rows.len() >= 23, "only {} rows", rows.len());
    let mut there = Vec::new();
    for (path, text) in sources() {
        let names = text
            .lines()
            .filter_map(|line| line.trim_start().trim_start_matches("async ").strip_prefix("fn "));
        let names = names.filter_map(|line| line.split_once('(').map(|(name, _)| name));
        for name in names.filter(|name| rows.iter().any(|row| name.contains(row))) {
            there.push((path.display().to_string(), name.to_owned()));
        }
    }
    let gone = named.iter().filter(|test| !there.contains(test));
    none(
        "in docs/security.md and not in the sources",
        &gone
            .map(|(file, test)| format!("{file}: {test}"))
            .collect::<Vec<_>>(),
    );
    let unnamed = there.iter().filter(|test| !named.contains(test));
    none(
        "in the sources and not in docs/security.md",
        &unnamed
            .map(|(file, test)| format!("{file}: {test}"))
            .collect::<Vec<_>>(),
    );
}

/// Names of the tests of each file.
fn tests_by_file() -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in sources() {
        let mut marked = false;
        for line in text.lines().map(str::trim_start) {
            marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            let name = line.trim_start_matches("async ").strip_prefix("fn ");
            let name = name.and_then(|line| line.split_once('(')).map(|(name, _)| name);
            if let Some(name) = name.filter(|_| std::mem::take(&mut marked)) {
                found
                    .entry(path.display().to_string())
                    .or_default()
                    .insert(name.to_owned());
            }
        }
    }
    found
}

/// Rows of the tables in `page` that name tests in their last column: the first column, and those names.
fn rows_with_tests(page: &str) -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(root().join(page)).expect("a page of a table");
    let mut rows = Vec::new();
    let mut in_table = false;
    for line in text.lines() {
        let Some(row) = line
            .strip_prefix('|')
            .and_then(|row| row.trim_end().strip_suffix('|'))
        else {
            in_table = false;
            continue;
        };
        let cells: Vec<&str> = row.split(" | ").map(str::trim).collect();
        if !in_table || row.starts_with("---") {
            in_table = true;
            continue;
        }
        let last = cells.last().copied().unwrap_or_default();
        let names = last.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        rows.push((cells[0].to_owned(), names));
    }
    rows
}

/// What `page` promises and nothing shows.
fn unshown(page: &str) -> Vec<String> {
    let tests = tests_by_file();
    let is_test = |file: &str, test: &str| tests.get(file).is_some_and(|names| names.contains(test));
    let mut found = Vec::new();
    for (row, names) in rows_with_tests(page) {
        if names.is_empty() {
            found.push(format!("{page}: row {row} names no test"));
        }
        for name in names {
            let there = match name.split_once("::") {
                Some((file, test)) => is_test(file, test),
                None => root()
                    .join("tests/conformance")
                    .join(&name)
                    .join("expect.json")
                    .exists(),
            };
            if !there {
                found.push(format!("{page}: row {row}: no {name}"));
            }
        }
    }
    found
}

#[test]
fn every_behaviour_of_the_table_has_tests_that_exist() {
    none("behaviours nothing shows", &unshown("docs/behaviours.md"));
    none(
        "parts of the language nothing shows",
        &unshown("docs/dockerfile.md"),
    );
    assert!(rows_with_tests("docs/dockerfile.md").len() >= 150);
    let numbers: Vec<String> = rows_with_tests("docs/behaviours.md")
        .into_iter()
        .map(|row| row.0)
        .collect();
    let expected: Vec<String> = (1..=80).map(|number| number.to_string()).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn the_table_of_differences_is_of_all_cases_and_each_is_defended() {
    let page = fs::read_to_string(root().join("docs/differences.md")).expect("docs/differences.md");
    let cases = rbuild_testkit::conformance::Case::all(&root().join("tests/conformance")).expect("the cases");
    let recorded: usize = page
        .lines()
        .filter_map(|line| {
            line.strip_prefix("- ")?
                .split_once(" cases recorded from ")?
                .0
                .parse::<usize>()
                .ok()
        })
        .sum();
    assert_eq!(recorded, cases.len(), "run `cargo xtask differences` again");
    assert!(!page.contains("not defended"), "a difference without a reason");
    for case in cases.iter().filter(|case| !case.recipe.differs.is_empty()) {
        assert!(
            page.contains(&format!("| `{}` |", case.name)),
            "{} no longer differs",
            case.name
        );
    }
}
