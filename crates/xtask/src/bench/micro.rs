//! `cargo xtask bench --micro`: instructions of the parts of a build (`benches/micro.rs`), counted by valgrind: the same on a
//! busy machine as on an idle one. `benches/instructions.json` has what was counted when it was last looked at; `--check` fails when
//! a part takes notably more. Walking and unpacking are not counted: valgrind 3.19 does not know `openat2(2)`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rbuild_testkit::machine;

use crate::shell;

/// A part, and what one of its N is.
struct Part {
    case: &'static str,
    about: &'static str,
    /// N; what is told is what the second half of them costs.
    count: usize,
    /// Whether it works on a tree of N files.
    on_files: bool,
}

const PARTS: [Part; 5] = [
    part("parse", "parse a stage of four instructions", 200),
    part("lower", "parse it and make its vertices and digests", 200),
    Part {
        on_files: true,
        ..part("tar", "walk to such a file and write it into a layer", 1000)
    },
    part("gzip", "compress 64 KiB of text by gzip", 64),
    part("zstd", "compress 64 KiB of text by zstd", 64),
];

const fn part(case: &'static str, about: &'static str, count: usize) -> Part {
    Part {
        case,
        about,
        count,
        on_files: false,
    }
}

/// What a part may take of what it took, percent. Compilers and the libraries of a machine make a few of difference.
const PERCENT_MAX: u64 = 115;

/// Counts, and notes it as what is right; gives the report's lines.
pub(super) fn run() -> Result<Vec<String>> {
    let counts = count_all()?;
    std::fs::write(noted()?, serde_json::to_string_pretty(&counts)? + "\n")?;
    let mut lines = vec!["| part | instructions |\n|---|---|".to_owned()];
    lines.extend(
        PARTS
            .iter()
            .map(|part| format!("| {} | {} |", part.about, counts[part.case])),
    );
    Ok(lines)
}

/// Counts, and fails if a part takes notably more than was noted.
pub(super) fn check() -> Result<()> {
    let noted: BTreeMap<String, u64> = serde_json::from_slice(&std::fs::read(noted()?)?)?;
    for (case, count) in count_all()? {
        let before = noted
            .get(case)
            .with_context(|| format!("nothing is noted of {case}"))?;
        ensure!(
            count * 100 <= before * PERCENT_MAX,
            "{case} takes {count} instructions, where it took {before}; if that is worth it, `cargo xtask bench --micro` notes it"
        );
    }
    Ok(())
}

fn noted() -> Result<PathBuf> {
    Ok(shell::root()?.join("benches/instructions.json"))
}

fn count_all() -> Result<BTreeMap<&'static str, u64>> {
    let program = built()?;
    let mut counts = BTreeMap::new();
    for part in &PARTS {
        let half = counted(&program, part, part.count / 2)?;
        let whole = counted(&program, part, part.count)?;
        let each = whole.saturating_sub(half) / (part.count as u64 / 2);
        println!("{}: {each}", part.case);
        counts.insert(part.case, each);
    }
    Ok(counts)
}

/// The program of the parts, as a release has it.
fn built() -> Result<PathBuf> {
    let args = ["build", "--release", "--bench", "micro", "--message-format=json"];
    let messages = shell::output(shell::cargo(&args)?.env_remove("CARGO_INCREMENTAL"))?;
    let built = messages.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_it = message["target"]["name"] == "micro";
        let path = message["executable"].as_str().filter(|_| is_it)?;
        Some(PathBuf::from(path))
    });
    built.context("cargo names no program for the bench `micro`")
}

/// Instructions of the whole process.
fn counted(program: &Path, part: &Part, count: usize) -> Result<u64> {
    let dir = tempfile::Builder::new().prefix("rbuild-micro-").tempdir()?;
    let number = count.to_string();
    if part.on_files {
        shell::output(Command::new(program).args(["fill", &number]).arg(dir.path()))?;
    }
    let report = dir.path().with_extension("callgrind");
    let mut command = Command::new(machine::required("valgrind", "valgrind")?);
    command
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", report.display()))
        .arg(program)
        .args([part.case, &number])
        .arg(dir.path());
    shell::output(&mut command)?;
    let text = std::fs::read_to_string(&report)?;
    std::fs::remove_file(&report)?;
    let total = text.lines().find_map(|line| {
        let total = line.strip_prefix("summary: ").or(line.strip_prefix("totals: "))?;
        total.trim().parse().ok()
    });
    total.with_context(|| format!("callgrind has no total for {}", part.case))
}
