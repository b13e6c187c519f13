//! `cargo xtask ci`: everything a change must pass. `.ci/run` is this with `--tier all`.
//!
//! A tier that was asked for must have run: tests that skip themselves note the reason in a file, and a note fails the
//! run. The last line counts tests in the form `N passed, N failed`.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use rbuild_testkit::debian::DebianBase;
use rbuild_testkit::machine;

use crate::{bench, packages, shell};

/// Which tests run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tier {
    /// All that need no large base image.
    Fast,
    /// Only those that do.
    Real,
    /// Both.
    All,
}

impl Tier {
    fn parse(args: &[String]) -> Result<Self> {
        Ok(match shell::flag(args, "--tier").as_deref() {
            None | Some("all") => Self::All,
            Some("fast") => Self::Fast,
            Some("real") => Self::Real,
            Some(other) => bail!("--tier {other}: fast, real or all"),
        })
    }

    fn filter(self) -> &'static str {
        match self {
            Self::Fast => "not test(/slow_/)",
            Self::Real => "test(/slow_/)",
            Self::All => "all()",
        }
    }
}

/// Runs the tier.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let tier = Tier::parse(args)?;
    let start = Instant::now();
    packages::for_tests()?;
    packages::make_ordinary_user()?;
    if tier != Tier::Real {
        shell::step("format", &mut shell::cargo(&["fmt", "--all", "--check"])?)?;
        let clippy = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ];
        shell::step("clippy", &mut shell::cargo(&clippy)?)?;
    }
    // Built before the bases are made, so that a mistake in the code is told first.
    shell::step(
        "build the tests",
        &mut shell::cargo(&["nextest", "run", "--workspace", "--no-run"])?,
    )?;
    if tier != Tier::Fast {
        for base in DebianBase::ALL {
            let made = Instant::now();
            base.make()
                .with_context(|| format!("base image {}", base.name()))?;
            println!("== base image {}: {:.1?}", base.name(), made.elapsed());
        }
    }
    let counts = nextest(tier);
    if tier != Tier::Real {
        shell::step(
            "doctests",
            &mut shell::cargo(&["test", "--workspace", "--doc", "--quiet"])?,
        )?;
        let mut doc = shell::cargo(&["doc", "--workspace", "--no-deps", "--quiet"])?;
        shell::step("documentation", doc.env("RUSTDOCFLAGS", "-D warnings"))?;
        println!("== instructions of the parts of a build");
        bench::micro::check()?;
    }
    let (passed, failed, skipped) = counts?;
    for reason in &skipped {
        println!("{reason}");
    }
    println!("== everything in {:.0?}", start.elapsed());
    println!(
        "tests: {passed} passed, {failed} failed, {} skipped",
        skipped.len()
    );
    ensure!(failed == 0, "{failed} tests failed");
    ensure!(skipped.is_empty(), "a tier that was promised was skipped");
    Ok(())
}

/// Runs nextest; tests passed and failed, and the reasons of those that skipped themselves.
fn nextest(tier: Tier) -> Result<(u64, u64, Vec<String>)> {
    let room = tempfile::tempdir()?;
    let skips = room.path().join("skips");
    let mut command = shell::cargo(&[
        "nextest",
        "run",
        "--workspace",
        "--profile",
        "ci",
        "-E",
        tier.filter(),
    ])?;
    command
        .env(machine::SKIP_LOG_VARIABLE, &skips)
        .env("RBUILD_BASES_DIR", machine::bases_dir()?);
    println!("== tests");
    let output = command
        .stderr(std::process::Stdio::piped())
        .spawn()
        .context("start cargo nextest")?
        .wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    print!("{text}");
    let summary = text
        .lines()
        .rev()
        .find(|line| line.trim_start().starts_with("Summary"))
        .unwrap_or_default()
        .to_owned();
    let count = |word: &str| {
        let words: Vec<&str> = summary
            .split([' ', ','])
            .filter(|part| !part.is_empty())
            .collect();
        words
            .windows(2)
            .filter(|pair| pair[1] == word)
            .filter_map(|pair| pair[0].parse::<u64>().ok())
            .sum::<u64>()
    };
    let (passed, failed) = (count("passed"), count("failed") + count("timed"));
    ensure!(passed + failed > 0, "no test ran ({})", output.status);
    ensure!(
        output.status.success() || failed > 0,
        "nextest failed ({})",
        output.status
    );
    let mut skipped: Vec<String> = fs::read_to_string(&skips)
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    skipped.sort();
    skipped.dedup();
    Ok((passed, failed, skipped))
}

/// Builds the release program and gives its path.
pub(crate) fn release() -> Result<std::path::PathBuf> {
    static_program("release")
}

/// Builds the program that is given to others, and says how large it is.
pub(crate) fn dist() -> Result<()> {
    let program = static_program("dist")?;
    let bytes = fs::metadata(&program)?.len();
    println!("{}: {bytes} bytes", program.display());
    Ok(())
}

/// Builds the program in a profile. It is linked statically, so it runs on any Linux of this architecture, and a step's
/// sandbox, which is the same program, starts without a dynamic loader.
fn static_program(profile: &str) -> Result<std::path::PathBuf> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = shell::cargo(&[
        "rustc",
        "--profile",
        profile,
        "--package",
        "rbuild",
        "--bin",
        "rbuild",
        "--target",
        &target,
        "--",
    ])?;
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(profile)?.join("\x1f"));
    for word in linking(profile)? {
        command.arg(format!("-Clink-arg=-Wl,{word}"));
    }
    shell::step(&format!("cargo build --profile {profile} (static)"), &mut command)?;
    let program = built(&format!("{target}/{profile}"), "rbuild")?;
    shell::output(Command::new(&program).arg("--version"))
        .context("the C library that was linked in cannot unpack relocations")?;
    Ok(program)
}

/// What the compiler is told of all packages.
fn flags(profile: &str) -> Result<Vec<String>> {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    if profile == "dist" {
        // Where it was built is nobody's business, and the same everywhere.
        let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
        let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
        let sources = home.context("no CARGO_HOME and no HOME")?.join("registry/src");
        // Not there where packages are vendored.
        for registry in fs::read_dir(&sources).into_iter().flatten() {
            flags.push(format!("--remap-path-prefix={}=", registry?.path().display()));
        }
        flags.push(format!("--remap-path-prefix={}=", shell::root()?.display()));
        // Functions that differ in a constant.
        flags.push("-Cllvm-args=-enable-global-merge-func".to_owned());
    }
    Ok(flags)
}

/// What the linker is told.
fn linking(profile: &str) -> Result<Vec<String>> {
    // Relocations are packed: 8 KB instead of 750 (understood by glibc since 2.36).
    let mut words = vec!["-z,pack-relative-relocs".to_owned()];
    // Of the compiler's own linker, which it takes on this architecture.
    if profile == "dist" && cfg!(target_arch = "x86_64") {
        let script = shell::root()?.join("crates/cli/no-unwinding.ld");
        // Equal functions are one, 0.9 MB. Nothing here compares where they are; Chromium links SQLite, zstd and BoringSSL, from
        // which AWS-LC comes, in the same way.
        words.push("--icf=all".to_owned());
        words.push("--no-eh-frame-hdr".to_owned());
        words.push(format!("-T,{}", script.display()));
    }
    Ok(words)
}

/// Path of a program that was built in a profile.
pub(crate) fn built(profile: &str, name: &str) -> Result<std::path::PathBuf> {
    let metadata = shell::output(&mut shell::cargo(&[
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--offline",
    ])?)?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let target = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target directory")?;
    let program = std::path::Path::new(target).join(profile).join(name);
    ensure!(program.exists(), "{} was not built", program.display());
    Ok(program)
}

/// The commit that is checked out, with a mark if something is changed.
pub(crate) fn commit() -> Result<String> {
    let git = |args: &[&str]| shell::output(Command::new("git").args(args).current_dir(shell::root()?));
    let id = git(&["rev-parse", "--short=12", "HEAD"])?.trim().to_owned();
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?
        .trim()
        .is_empty();
    Ok(if changed { format!("{id} with changes") } else { id })
}
