//! `cargo xtask bench --micro`: instructions of the parts of a build (`benches/micro.rs`), counted by valgrind: the same on a
//! busy machine as on an idle one. `benches/instructions.json` has what was counted when it was last looked at; `--check`, a
//! part of `cargo xtask ci`, fails when a part takes notably more. Walking and unpacking are not counted: valgrind 3.19 does not
//! know `openat2(2)`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rbuild_testkit::machine;
use serde::{Deserialize, Serialize};

use crate::{ci, shell};

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

/// What was counted, and on what: compressors and hashes have other code for other processors.
#[derive(Serialize, Deserialize)]
struct Noted {
    /// [`processor`] of the machine.
    processor: String,
    /// `valgrind --version`: it decides which instructions the program believes to have.
    valgrind: String,
    /// By part.
    instructions: BTreeMap<String, u64>,
}

/// Counts, and notes it as what is right; gives the report's lines.
pub(super) fn run() -> Result<Vec<String>> {
    let counts = count_all()?;
    let found = Noted {
        processor: processor(),
        valgrind: valgrind()?,
        instructions: counts.clone(),
    };
    std::fs::write(noted()?, serde_json::to_string_pretty(&found)? + "\n")?;
    let mut lines = vec!["| part | instructions |\n|---|---|".to_owned()];
    lines.extend(
        PARTS
            .iter()
            .map(|part| format!("| {} | {} |", part.about, counts[part.case])),
    );
    Ok(lines)
}

/// Counts, and fails if a part takes notably more than was noted on a processor of this kind.
pub(crate) fn check() -> Result<()> {
    let noted: Noted = serde_json::from_slice(&std::fs::read(noted()?)?)?;
    let (processor, valgrind) = (processor(), valgrind()?);
    if (&noted.processor, &noted.valgrind) != (&processor, &valgrind) {
        println!(
            "instructions are not compared: noted with {} on {}, this is {valgrind} on {processor}",
            noted.valgrind, noted.processor
        );
        return Ok(());
    }
    for (case, count) in count_all()? {
        let before = noted
            .instructions
            .get(&case)
            .with_context(|| format!("nothing is noted of {case}"))?;
        ensure!(
            count * 100 <= before * PERCENT_MAX,
            "{case} takes {count} instructions, where it took {before}; if that is worth it, `cargo xtask bench --micro` notes it"
        );
    }
    Ok(())
}

/// Architecture, and those of its extensions by which our libraries choose their code.
fn processor() -> String {
    let mut words = vec![std::env::consts::ARCH];
    #[cfg(target_arch = "x86_64")]
    {
        let found = [
            ("avx2", is_x86_feature_detected!("avx2")),
            ("bmi2", is_x86_feature_detected!("bmi2")),
            ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ];
        words.extend(found.iter().filter(|(_, has)| *has).map(|(name, _)| *name));
    }
    words.join(" ")
}

fn valgrind() -> Result<String> {
    let said = shell::output(Command::new(machine::required("valgrind", "valgrind")?).arg("--version"))?;
    Ok(said.trim().to_owned())
}

fn noted() -> Result<PathBuf> {
    Ok(shell::root()?.join("benches/instructions.json"))
}

fn count_all() -> Result<BTreeMap<String, u64>> {
    let program = built()?;
    let mut counts = BTreeMap::new();
    for part in &PARTS {
        let half = counted(&program, part, part.count / 2)?;
        let whole = counted(&program, part, part.count)?;
        let each = whole.saturating_sub(half) / (part.count as u64 / 2);
        println!("{}: {each}", part.case);
        counts.insert(part.case.to_owned(), each);
    }
    Ok(counts)
}

/// The program of the parts, as a release has it.
fn built() -> Result<PathBuf> {
    let args = ["build", "--release", "--package", "rbuild-benches"];
    let mut command = shell::cargo(&args)?;
    shell::step("build the parts", command.env_remove("CARGO_INCREMENTAL"))?;
    ci::built("release", "micro")
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
