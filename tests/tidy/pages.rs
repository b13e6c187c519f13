//! What pages say of the repository is there: the files they name, the places in pages they lead to, and as much of it as they count.

use std::fs;
use std::path::{Path, PathBuf};

use super::{none, root, tracked};

/// Directories that paths in backticks begin with.
const TOPS: [&str; 7] = [
    "crates",
    "tests",
    "builder",
    "registry",
    "snapshotter",
    "benches",
    "docs",
];

/// All pages but those of results, which tell of the day they were made.
fn pages() -> Vec<(PathBuf, String)> {
    let is_page = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "md") && !path.starts_with("benches/results")
    };
    let read = |path: PathBuf| {
        let text = fs::read_to_string(root().join(&path)).ok()?;
        Some((path, text))
    };
    tracked().into_iter().filter(is_page).filter_map(read).collect()
}

/// A page without its blocks of code.
fn prose(text: &str) -> String {
    let parts = text.split("```").step_by(2);
    parts.collect()
}

/// What its headings are called in addresses (as GitHub makes them).
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// Where the links of a page lead, without those to other machines.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', ' ']).next());
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
}

/// `a/{b,c}` as `a/b` and `a/c`.
fn expanded(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else {
        return vec![path.to_owned()];
    };
    let (names, after) = rest.split_once('}').unwrap_or((rest, ""));
    let names = names.split(',');
    names.map(|name| format!("{before}{name}{after}")).collect()
}

/// Paths in backticks; of `file::test` the file.
fn paths(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let is_path = |word: &&str| {
        let is_below = |top: &&str| word.strip_prefix(*top).is_some_and(|rest| rest.starts_with('/'));
        TOPS.iter().any(is_below) && !word.contains(['*', '…', ' ', '<'])
    };
    let files = quoted.filter(is_path).filter_map(|word| word.split("::").next());
    files.flat_map(expanded).collect()
}

#[test]
fn what_pages_lead_to_and_name_is_there() {
    let pages = pages();
    assert!(pages.len() > 40, "only {} pages", pages.len());
    let (mut missing, mut count) = (Vec::new(), 0);
    for (page, text) in &pages {
        let text = prose(text);
        let dir = root().join(page.parent().unwrap_or(Path::new("")));
        for link in links(&text) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                root().join(page)
            } else {
                dir.join(path)
            };
            count += 1;
            let is_there = match anchor {
                "" => target.exists(),
                anchor => fs::read_to_string(&target)
                    .is_ok_and(|text| anchors(&text).iter().any(|known| known == anchor)),
            };
            if !is_there {
                missing.push(format!("{}: {link}", page.display()));
            }
        }
        for path in paths(&text) {
            count += 1;
            if !root().join(&path).exists() {
                missing.push(format!("{}: {path}", page.display()));
            }
        }
    }
    assert!(count > 700, "only {count} places");
    none("named and not there", &missing);
}

/// The number in front of `what`.
fn counted(text: &str, what: &str) -> usize {
    let before = text.split(what).next().filter(|before| before.len() < text.len());
    let number = before.and_then(|before| before.split_whitespace().next_back());
    let number = number.and_then(|word| word.parse().ok());
    number.expect("README.md counts it")
}

#[test]
fn the_readme_counts_no_more_than_there_is() {
    let text = fs::read_to_string(root().join("README.md")).expect("README.md");
    let files = tracked();
    let named = |top: &str, name: &str| {
        let is_one =
            |path: &&PathBuf| path.starts_with(top) && path.file_name().is_some_and(|own| own == name);
        files.iter().filter(is_one).count()
    };
    for (what, there) in [
        (
            " Dockerfiles whose results were recorded",
            named("tests/conformance", "expect.json"),
        ),
        (
            " cases of ours",
            named("crates/bake/tests/print", "expected.json"),
        ),
    ] {
        let said = counted(&text, what);
        assert!(said > 0 && said <= there, "{said}{what}, and {there} are there");
    }
}
