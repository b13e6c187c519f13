//! The table of docs/security.md that says on which rung each row is run, against what the tests do: a cell says `yes` where a
//! test of the row runs, and otherwise for which of the reasons named below the table it does not.
//!
//! What a test does is read from its text, with the functions of its file that it calls. `RBUILD_UPDATE_DOCS=1` writes the `yes`
//! cells anew; reasons are for people to give.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{none, root, sources};

const PAGE: &str = "docs/security.md";
const HEADING: &str = "## Where each row is run";
/// The columns, after the row's number.
const COLUMNS: [&str; 6] = ["root", "subids", "one-id", "chroot", "second user", "files"];

/// Which columns a text speaks of.
fn columns_of(name: &str, text: &str) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["Rung::here()"]) {
        found.extend([0, 1, 2, 3]);
    }
    if has(&["Rung::unpacking()"]) {
        found.extend([0, 1, 2, 3, 5]);
    }
    if has(&["Rung::with_mounts()"]) {
        found.extend([0, 1, 2]);
    }
    // A site lets another user look at the store after each build.
    if has(&["Rung::here()", "Rung::unpacking()", "Rung::with_mounts()"]) && has(&["Site::on("])
        || has(&["as_other(", "OTHER"])
    {
        found.insert(4);
    }
    if has(&["--rung=chroot", "CHROOT"]) {
        found.insert(3);
    } else if name.starts_with("rootless_") || has(&["Fixture::rootless("]) {
        found.insert(if name.contains("one_id") { 2 } else { 1 });
    } else if found.is_empty() {
        found.insert(0);
    }
    found
}

/// Functions of a file with their text: from the line of their name to the closing brace below its first letter.
fn functions(text: &str) -> BTreeMap<String, String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        let bare = line.trim_start();
        let Some((before, after)) = bare.split_once("fn ") else {
            continue;
        };
        if !before
            .split_whitespace()
            .all(|word| ["pub", "pub(crate)", "async", "const"].contains(&word))
        {
            continue;
        }
        let name: String = after
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let end = format!("{}}}", &line[..line.len() - bare.len()]);
        let body: Vec<&str> = lines[at..]
            .iter()
            .copied()
            .take_while(|line| *line != end)
            .collect();
        found.insert(name, body.join("\n"));
    }
    found
}

/// The text of a function and of those of the file that it calls.
fn whole(name: &str, functions: &BTreeMap<String, String>) -> String {
    let (mut seen, mut todo, mut text) = (BTreeSet::new(), vec![name.to_owned()], String::new());
    while let Some(next) = todo.pop() {
        let Some(body) = functions.get(&next).filter(|_| seen.insert(next.clone())) else {
            continue;
        };
        let calls = |other: &&String| {
            body.match_indices(&format!("{other}(")).any(|(at, _)| {
                let before = body[..at].chars().next_back();
                before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
            })
        };
        todo.extend(functions.keys().filter(calls).cloned());
        text = text + "\n" + body;
    }
    text
}

/// Tests of crates that have to do with files, steps and the store: the others stand on no rung.
fn stands_on_a_rung(path: &Path) -> bool {
    const WHERE: [&str; 9] = [
        "tests/e2e",
        "crates/sandbox",
        "crates/layer",
        "crates/fileops",
        "crates/store",
        "crates/sys",
        "crates/server/tests",
        "snapshotter",
        "builder",
    ];
    WHERE.iter().any(|place| path.starts_with(place))
}

/// For each row the columns in which a test of it runs.
fn shown() -> BTreeMap<u8, BTreeSet<usize>> {
    let mut rows: BTreeMap<u8, BTreeSet<usize>> = BTreeMap::new();
    for (path, text) in sources() {
        let functions = functions(&text);
        for name in functions.keys() {
            let number = name
                .split('_')
                .find_map(|word| word.strip_prefix("row"))
                .and_then(|number| number.parse().ok());
            let Some(number) = number else { continue };
            let row = rows.entry(number).or_default();
            if stands_on_a_rung(&path) {
                row.extend(columns_of(name, &whole(name, &functions)));
            }
        }
    }
    rows
}

/// The lines of the table, its reasons by their letters, and what is before and after the lines.
fn parts(page: &str) -> (&str, Vec<Vec<String>>, BTreeSet<String>, &str) {
    let start = page.find(HEADING).expect("the heading of the table");
    let table = start + page[start..].find("\n| 1 |").expect("its first row") + 1;
    let end = table + page[table..].find("\n\n").expect("its end") + 1;
    let rows = page[table..end]
        .lines()
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect();
    let section = page[end..].split("\n## ").next().unwrap_or_default();
    let reasons = section
        .lines()
        .filter_map(|line| line.strip_prefix("- **")?.split_once("**"))
        .map(|(letter, _)| letter.to_owned())
        .collect();
    (&page[..table], rows, reasons, &page[end..])
}

#[test]
fn the_table_of_rungs_says_what_the_tests_do() {
    let page = fs::read_to_string(root().join(PAGE)).expect("the page");
    let (before, mut rows, reasons, after) = parts(&page);
    let shown = shown();
    let numbers: Vec<u8> = rows.iter().filter_map(|row| row[0].parse().ok()).collect();
    assert_eq!(numbers, (1..=50).collect::<Vec<u8>>(), "rows of the table");
    if std::env::var_os("RBUILD_UPDATE_DOCS").is_some() {
        for (row, number) in rows.iter_mut().zip(&numbers) {
            for column in 0..COLUMNS.len() {
                let runs = shown.get(number).is_some_and(|row| row.contains(&column));
                let cell = &mut row[column + 1];
                if runs || cell == "yes" {
                    *cell = if runs { "yes" } else { "?" }.to_owned();
                }
            }
        }
        let lines: String = rows
            .iter()
            .map(|row| format!("| {} |\n", row.join(" | ")))
            .collect();
        fs::write(root().join(PAGE), format!("{before}{lines}{after}")).expect("the page is written");
    }
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (row, number) in rows.iter().zip(&numbers) {
        for (column, name) in COLUMNS.iter().enumerate() {
            let runs = shown.get(number).is_some_and(|row| row.contains(&column));
            let cell = row.get(column + 1).map_or("", String::as_str);
            used.insert(cell.to_owned());
            let right = if runs {
                cell == "yes"
            } else {
                reasons.contains(cell)
            };
            if !right {
                wrong.push(format!(
                    "row {number}, {name}: {cell:?}, but a test runs there: {runs}"
                ));
            }
        }
    }
    none("cells of docs/security.md", &wrong);
    let unused: Vec<String> = reasons.difference(&used).cloned().collect();
    none("reasons of docs/security.md that no cell has", &unused);
}
