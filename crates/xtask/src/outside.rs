//! `cargo xtask outside`: lowers Dockerfiles of well-known public projects, of which this repository holds only the list.
//!
//! The files are read out of clones that the caller has, each at the commit of the list, laid out under their numbers in
//! a temporary directory, and given to the test of `crates/frontend/tests/lower/outside.rs`. What it counts goes to
//! `benches/results/<date>-outside.md`.

mod build;
mod make;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::shell;

const LIST: &str = "crates/frontend/tests/lower/outside.txt";
const TEST: &str = "outside::dockerfiles_of_well_known_projects_are_read_linted_and_lowered";

/// Lays the files out from the clones below `--mirrors` and runs the test on them.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let mirrors: PathBuf = shell::flag(args, "--mirrors")
        .context("--mirrors DIR is needed: clones named OWNER+PROJECT or OWNER/PROJECT")?
        .into();
    if args.iter().any(|arg| arg == "--build") {
        return build::run(args, &mirrors);
    }
    if args.iter().any(|arg| arg == "--make") {
        return make::run(args, &mirrors);
    }
    let root = shell::root()?;
    let list = fs::read_to_string(root.join(LIST)).with_context(|| format!("read {LIST}"))?;
    let room = tempfile::tempdir()?;
    let lines = list
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let mut count = 0;
    for (number, line) in lines.enumerate() {
        let (project, place) = line
            .split_once('@')
            .with_context(|| format!("no commit in {line}"))?;
        // What is behind a blank are arguments, which the test reads.
        let place = place.split(' ').next().unwrap_or(place);
        let clone = clone_of(&mirrors, project)?;
        let mut git = Command::new("git");
        git.arg("-C").arg(clone).args(["show", "--end-of-options", place]);
        let output = git.output().context("start git")?;
        ensure!(
            output.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        fs::write(room.path().join(number.to_string()), output.stdout)?;
        count += 1;
    }
    println!("{count} Dockerfiles laid out");
    let mut test = shell::cargo(&[
        "test",
        "-p",
        "rbuild-frontend",
        "--test",
        "lower",
        TEST,
        "--",
        "--nocapture",
    ])?;
    let told = shell::output(test.env("RBUILD_OUTSIDE", room.path()))?;
    let table: Vec<&str> = told.lines().filter(|line| line.starts_with('|')).collect();
    ensure!(table.len() > 2, "the test printed no table:\n{told}");
    shell::write_results("outside", |date| {
        format!(
            "# {date}\n\n{count} Dockerfiles of public projects ([the list](../../{LIST})), every stage read, linted with all rules and lowered to\na graph \
             without an error, on one small image in the place of every base.\n\n{}\n",
            table.join("\n")
        )
    })
}

/// A clone of `project`, bare or not, under any of the names that clones are given.
fn clone_of(mirrors: &Path, project: &str) -> Result<PathBuf> {
    let joined = project.replace('/', "+");
    let name = project.rsplit('/').next().unwrap_or(project);
    let names = [
        format!("{joined}/repo"),
        joined,
        project.to_owned(),
        format!("{project}.git"),
        name.to_owned(),
    ];
    let mut places = names.iter().map(|name| mirrors.join(name));
    places
        .find(|place| place.join(".git").exists() || place.join("HEAD").exists())
        .with_context(|| format!("no clone of {project} below {}", mirrors.display()))
}
