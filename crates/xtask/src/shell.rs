//! Running programs and reading flags, for the tasks.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

/// The repository's root.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").context("run this by `cargo xtask`")?;
    let dir = PathBuf::from(manifest);
    Ok(dir
        .ancestors()
        .nth(2)
        .context("crates/xtask lies two levels down")?
        .to_owned())
}

/// Value of `--name VALUE` or `--name=VALUE`.
pub(crate) fn flag(args: &[String], name: &str) -> Option<String> {
    let prefix = format!("{name}=");
    args.iter()
        .enumerate()
        .find_map(|(at, arg)| match arg.strip_prefix(&prefix) {
            Some(value) => Some(value.to_owned()),
            None if arg == name => args.get(at + 1).cloned(),
            None => None,
        })
}

/// Runs a command with its output shown, and says how long it took.
pub(crate) fn step(title: &str, command: &mut Command) -> Result<()> {
    println!("== {title}");
    let start = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("start {command:?}"))?;
    println!(
        "== {title}: {} in {:.1?}",
        if status.success() { "done" } else { "FAILED" },
        start.elapsed()
    );
    ensure!(status.success(), "{title} failed ({status})");
    Ok(())
}

/// Runs a command and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {command:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?} failed ({}):\n{stderr}",
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Today in UTC, as results are named: `2026-11-23`.
pub(crate) fn today() -> Result<String> {
    let date = output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    Ok(date.trim().to_owned())
}

/// Writes today's page of this kind, whose first line has the date, among the results.
pub(crate) fn write_results(kind: &str, page: impl FnOnce(&str) -> String) -> Result<()> {
    let date = today()?;
    let path = root()?.join(format!("benches/results/{date}-{kind}.md"));
    std::fs::write(&path, page(&date))?;
    println!("written: {}", path.display());
    Ok(())
}

/// A cargo command at the repository's root.
pub(crate) fn cargo(args: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root()?);
    // What cargo told this task about itself must not make the inner cargo rebuild everything.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST") {
            command.env_remove(&name);
        }
    }
    Ok(command)
}
