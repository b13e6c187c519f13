//! The tables of `docs/migration` and `docs/flags.md`: made from the rows here, and checked. A row says that a flag works
//! and names the test that shows it, or that it is refused, and then the refusal is asked for and read.
//!
//! `RBUILD_UPDATE_DOCS=1` writes the tables instead of comparing them.

mod build;
mod buildah;
mod docker;
mod effect;
mod kaniko;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::e2e::fixture::{Fixture, RBUILD};

/// What becomes of a flag or a command of a peer.
#[derive(Debug, Clone, Copy)]
enum Here {
    /// It works; what to write here, and the test that shows it. Nothing is written where it is the same.
    Works(&'static str, &'static str),
    /// It is refused: a command line, and what it says.
    Refused(&'static [&'static str], &'static str),
    /// It is accepted, has no effect, and a warning says so.
    Warned(&'static [&'static str], &'static str),
    /// It has no counterpart that could be refused: what to do instead, and the test that shows that.
    Instead(&'static str, &'static str),
}

/// A flag or command of a peer.
type Row = (&'static str, Here);

/// A table in a document, and what it is called in the error that it is out of date.
struct Page {
    file: &'static str,
    title: &'static str,
    /// Name the program is called by in refusals.
    program: &'static str,
    rows: &'static [Row],
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<Page> {
    let page = |file, title, program, rows| Page {
        file,
        title,
        program,
        rows,
    };
    vec![
        page("flags.md", "build", "docker", build::ROWS),
        page("migration/docker.md", "commands", "docker", docker::COMMANDS),
        page("migration/docker.md", "run", "docker", docker::RUN),
        page("migration/buildx.md", "buildx", "docker", docker::BUILDX),
        page("migration/kaniko.md", "kaniko", "executor", kaniko::ROWS),
        page("migration/buildah.md", "buildah", "rbuild", buildah::ROWS),
    ]
}

/// The table as it is written.
fn table(page: &Page) -> String {
    let mut text = "| there | here | shown by |\n|---|---|---|\n".to_owned();
    for (flag, here) in page.rows {
        let (says, test) = match here {
            Here::Works("", test) => ("works".to_owned(), format!("`{test}`")),
            Here::Works(note, test) => (format!("works: {note}"), format!("`{test}`")),
            Here::Instead(note, test) => ((*note).to_owned(), format!("`{test}`")),
            Here::Refused(_, says) => (
                format!("refused: {}", says.replace('|', "\\|")),
                "`what_is_refused_says_so`".to_owned(),
            ),
            Here::Warned(_, says) => (
                format!("accepted with a warning: {}", says.replace('|', "\\|")),
                "`what_is_refused_says_so`".to_owned(),
            ),
        };
        // Writing into a string cannot fail.
        let _infallible = writeln!(text, "| `{flag}` | {says} | {test} |");
    }
    text
}

#[test]
fn the_tables_are_those_of_the_documents() {
    let update = std::env::var_os("RBUILD_UPDATE_DOCS").is_some();
    for page in pages() {
        let path = root().join("docs").join(page.file);
        let text = fs::read_to_string(&path).unwrap();
        let (begin, end) = (
            format!("<!-- begin {} -->\n", page.title),
            format!("<!-- end {} -->", page.title),
        );
        let from = text
            .find(&begin)
            .unwrap_or_else(|| panic!("{begin} in {}", page.file))
            + begin.len();
        let to = text
            .find(&end)
            .unwrap_or_else(|| panic!("{end} in {}", page.file));
        let made = table(&page);
        if update {
            fs::write(&path, format!("{}{made}{}", &text[..from], &text[to..])).unwrap();
        } else {
            assert_eq!(
                &text[from..to],
                made,
                "run this test with RBUILD_UPDATE_DOCS=1 to write {}",
                page.file
            );
        }
    }
}

/// Where tests are.
const SOURCES: [&str; 5] = ["crates", "builder", "registry", "snapshotter", "tests"];

/// Names of all test functions of the repository.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut todo: Vec<PathBuf> = SOURCES.map(|dir| root().join(dir)).into();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let mut is_test = false;
        for line in text.lines().map(str::trim_start) {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            let function = line.trim_start_matches("async ").strip_prefix("fn ");
            if let Some(rest) = function.filter(|_| is_test) {
                names.insert(rest.split('(').next().unwrap_or_default().to_owned());
                is_test = false;
            }
        }
    }
    names
}

#[test]
fn every_test_that_a_table_names_exists() {
    let tests = tests();
    assert!(tests.len() > 500, "{}", tests.len());
    for page in pages() {
        for (flag, here) in page.rows {
            if let Here::Works(_, test) | Here::Instead(_, test) = here {
                assert!(tests.contains(*test), "{flag} of {}: no test {test}", page.file);
            }
        }
    }
    // The other documents with a column of tests.
    for document in ["exit-codes.md", "registry.md"] {
        let text = fs::read_to_string(root().join("docs").join(document)).unwrap();
        let quoted = text.split('`').skip(1).step_by(2);
        let mut count = 0;
        for name in quoted.filter(|name| name.matches('_').count() > 2 && !name.contains([' ', '/', '='])) {
            assert!(tests.contains(name), "{document}: no test {name}");
            count += 1;
        }
        assert!(count > 5, "{document} names {count} tests");
    }
}

/// Spellings of the flags of a row: those of one flag together, as in `-u, --user, --init`.
fn spellings(row: &str) -> Vec<Vec<&str>> {
    let words = row
        .split([',', ' ', '='])
        .filter(|word| word.starts_with('-') && *word != "-");
    let mut flags: Vec<Vec<&str>> = Vec::new();
    for word in words {
        match flags.last_mut() {
            Some(flag) if flag.iter().all(|known| !known.starts_with("--")) => flag.push(word),
            _ => flags.push(vec![word]),
        }
    }
    flags
}

/// Texts of the files that have a test of this name.
fn files_with(test: &str) -> String {
    let needle = format!("fn {test}(");
    let mut found = String::new();
    let mut todo: Vec<PathBuf> = SOURCES.map(|dir| root().join(dir)).into();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            if text.contains(&needle) {
                found.push_str(&text);
            }
        }
    }
    found
}

#[test]
fn the_test_of_a_row_gives_its_flags() {
    let mut without = Vec::new();
    // buildah's flags are not ours: the rows say what to write instead.
    for page in pages().iter().filter(|page| page.title != "buildah") {
        for (row, here) in page.rows {
            let Here::Works(_, test) = here else { continue };
            let text = files_with(test);
            for flag in spellings(row) {
                if !flag.iter().any(|spelling| text.contains(spelling)) {
                    without.push(format!("{}: {row}: {test} has no {flag:?}", page.file));
                }
            }
        }
    }
    assert!(without.is_empty(), "{}", without.join("\n"));
}

/// A flag that there is not: what is complained of before it is not known either, and nothing is carried out.
const UNKNOWN: &str = "--no-such-flag-of-all";

#[test]
fn every_flag_of_a_row_is_known_to_its_program() {
    let fixture = Fixture::new("FROM scratch\n");
    let bin = fixture.home.work().join("bin");
    fs::create_dir_all(&bin).unwrap();
    let mut unknown = Vec::new();
    for (title, program, command) in [
        ("build", "docker", &["build"][..]),
        ("run", "docker", &["run"]),
        ("kaniko", "executor", &[]),
    ] {
        let program = bin.join(program);
        if !program.exists() {
            symlink(RBUILD, &program).unwrap();
        }
        let all = pages();
        let page = all.iter().find(|page| page.title == title).unwrap();
        for spelling in page.rows.iter().flat_map(|(row, _)| spellings(row)).flatten() {
            let ask = |words: &[&str]| {
                let ran = fixture.home.command(&program).args(command).args(words).run();
                ran.stderr.lines().next().unwrap_or_default().to_owned()
            };
            // With a value or without one.
            let is_known = [&[spelling, UNKNOWN][..], &[spelling, "1", UNKNOWN]]
                .into_iter()
                .map(ask)
                .any(|said| said.contains(UNKNOWN) || said.contains("invalid value"));
            if !is_known {
                unknown.push(format!("{title}: {spelling}"));
            }
        }
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

#[test]
fn what_is_refused_says_so() {
    let fixture = Fixture::new("FROM scratch\nLABEL a=b\n");
    let bin = fixture.home.work().join("bin");
    fs::create_dir_all(&bin).unwrap();
    let context = fixture.context.dir().display().to_string();
    let mut wrong = Vec::new();
    for page in pages() {
        let program = bin.join(page.program);
        if !program.exists() {
            symlink(RBUILD, &program).unwrap();
        }
        for (flag, here) in page.rows {
            let (Here::Refused(args, says) | Here::Warned(args, says)) = here else {
                continue;
            };
            let args = args.iter().map(|arg| arg.replace("CONTEXT", &context));
            let ran = fixture.home.command(program.to_str().unwrap()).args(args).run();
            let is_refused = matches!(here, Here::Refused(..));
            // What a sentence says in its middle, clap may break into lines.
            let text = ran.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
            if ran.status.success() == is_refused || !text.contains(says) {
                wrong.push(format!("{flag} does not say {says:?}: {ran}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_flag_of_buildx_build_has_a_row() {
    // `docker buildx build --help` of buildx 461836ba with its hidden flags, and those of docker's classic builder.
    const FLAGS: &str = "add-host allow annotation attest build-arg build-context builder cache-from cache-to call check \
        cgroup-parent compress cpu-period cpu-quota cpu-shares cpuset-cpus cpuset-mems debug disable-content-trust file \
        force-rm iidfile isolation label load memory memory-swap metadata-file network no-cache no-cache-filter output \
        platform policy print progress provenance pull push quiet resource rm sbom secret security-opt shm-size squash ssh \
        tag target ulimit";
    let rows: BTreeSet<&str> = build::ROWS
        .iter()
        .flat_map(|(flag, _)| flag.split([',', ' ', '=']))
        .filter_map(|word| word.strip_prefix("--"))
        .collect();
    let missing: Vec<&str> = FLAGS
        .split_whitespace()
        .filter(|flag| !rows.contains(flag))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
