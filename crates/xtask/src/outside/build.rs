//! `cargo xtask outside --build`: builds projects of the list `outside-built.txt` with rbuild, and with a BuildKit where
//! one is named, and compares what came out.
//!
//! Their base images are replaced by those of `cargo xtask bases`, so that no image registry is needed: each first gets
//! this machine's certificates and what the image it stands for has besides (`python` as a name, `yarn`). What a project
//! downloads comes from the package registries, at two times: contents of files may differ, their paths, kinds, modes and
//! owners may not.

mod compare;
mod dressed;
mod list;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rbuild_testkit::image::OciLayout;

use self::compare::Compared;
use self::dressed::Bases;
use self::list::{Ending, Entry};
use crate::shell;

/// What one build may take; `timeout` of coreutils ends it.
const SECONDS: &str = "900";

/// How a build ended.
enum Built {
    /// With the image in this directory.
    Image(PathBuf, Duration),
    /// With these words.
    Failed(String),
}

/// The builders.
struct Builders {
    rbuild: PathBuf,
    /// `buildctl` and its address.
    oracle: Option<(String, String)>,
    room: tempfile::TempDir,
}

/// Builds every entry, or those with `--only` in their names.
pub(super) fn run(args: &[String], mirrors: &Path) -> Result<()> {
    let rbuild = shell::flag(args, "--rbuild").context("--rbuild PATH is needed")?;
    let oracle = shell::flag(args, "--buildctl").zip(shell::flag(args, "--addr"));
    let only = shell::flag(args, "--only").unwrap_or_default();
    let builders = Builders {
        rbuild: rbuild.into(),
        oracle,
        room: tempfile::tempdir()?,
    };
    let entries: Vec<Entry> = list::read()?;
    let mut rows = Vec::new();
    let mut bases = Bases::new(&builders.rbuild, builders.room.path());
    let mut unlike = Vec::new();
    for entry in entries.iter().filter(|entry| entry.to_string().contains(&only)) {
        let row = builders.judge(entry, mirrors, &mut bases)?;
        builders.forget()?;
        println!("{}", row.text);
        if let Some(why) = row.unlike {
            unlike.push(format!("{entry}: {why}"));
        }
        rows.push(row.text);
    }
    if only.is_empty() {
        write(&rows, builders.oracle.is_some())?;
    }
    ensure!(
        unlike.is_empty(),
        "{} are not as the list says:\n{}",
        unlike.len(),
        unlike.join("\n")
    );
    Ok(())
}

/// A line of the table, and what about it is not as expected.
struct Row {
    text: String,
    unlike: Option<String>,
}

impl Builders {
    fn judge(&self, entry: &Entry, mirrors: &Path, bases: &mut Bases) -> Result<Row> {
        let tree = tempfile::tempdir_in(self.room.path())?;
        entry.check_out(&super::clone_of(mirrors, &entry.project)?, tree.path())?;
        let contexts = bases.of(entry)?;
        let ours = self.ours(entry, tree.path(), &contexts)?;
        let theirs = match &self.oracle {
            Some((buildctl, addr)) => Some(theirs(entry, tree.path(), &contexts, buildctl, addr)?),
            None => None,
        };
        let said = |built: &Built| match built {
            Built::Image(_, time) => format!("{:.0} s", time.as_secs_f64()),
            Built::Failed(error) => format!("fails: {}", error.replace('|', "\\|")),
        };
        let (compared, mut unlike) = match (&ours, &theirs) {
            (Built::Image(ours, _), Some(Built::Image(theirs, _))) => {
                let bases = contexts
                    .iter()
                    .map(|context| OciLayout::open(&context.dir)?.image());
                let compared = Compared::of(ours, theirs, &bases.collect::<Result<Vec<_>>>()?)?;
                (compared.to_string(), compared.unlike())
            }
            (Built::Failed(_), Some(Built::Failed(_))) => ("both fail".to_owned(), None),
            (_, None) => (String::new(), None),
            _ => ("one fails".to_owned(), Some("one fails".to_owned())),
        };
        match (&ours, entry.ending) {
            (Built::Failed(error), Ending::Image) => unlike = Some(error.clone()),
            (Built::Image(..), Ending::Failure) => unlike = Some("builds now".to_owned()),
            _ => {}
        }
        let theirs = theirs.as_ref().map(said).unwrap_or_default();
        let text = format!("| {entry} | {} | {theirs} | {compared} |", said(&ours));
        Ok(Row { text, unlike })
    }

    /// Drops what a BuildKit kept of a build; each of ours has a store of its own. Base images are large.
    fn forget(&self) -> Result<()> {
        if let Some((buildctl, addr)) = &self.oracle {
            shell::output(Command::new(buildctl).args(["--addr", addr, "prune", "--all"]))?;
        }
        Ok(())
    }

    fn ours(&self, entry: &Entry, tree: &Path, contexts: &[dressed::Context]) -> Result<Built> {
        let mut command = Command::new("timeout");
        command.arg(SECONDS).arg(&self.rbuild);
        command
            .args(["build", "--progress=plain", "--root"])
            .arg(tree.join("store"));
        for context in contexts {
            command.arg(format!(
                "--build-context={}=oci-layout://{}@{}",
                context.image,
                context.dir.display(),
                context.digest
            ));
        }
        command.args(entry.target.iter().map(|target| format!("--target={target}")));
        command.arg("-f").arg(tree.join(&entry.dir).join(&entry.file));
        let out = tree.join("ours");
        command.arg(format!("--output=type=oci,tar=false,dest={}", out.display()));
        ended(command.arg(tree.join(&entry.dir)), out, "ERROR: ")
    }
}

fn theirs(
    entry: &Entry,
    tree: &Path,
    contexts: &[dressed::Context],
    buildctl: &str,
    addr: &str,
) -> Result<Built> {
    let mut command = Command::new("timeout");
    command.args([
        SECONDS,
        buildctl,
        "--addr",
        addr,
        "build",
        "--progress=plain",
        "--frontend=dockerfile.v0",
    ]);
    let dir = tree.join(&entry.dir);
    command.arg(format!("--local=context={}", dir.display()));
    command.arg(format!("--local=dockerfile={}", dir.display()));
    command.arg(format!("--opt=filename={}", entry.file));
    // A first line that names a front end on a registry is passed over, as by a front end that was called by that line.
    command.arg("--opt=cmdline=docker/dockerfile");
    for (number, context) in contexts.iter().enumerate() {
        command.arg(format!("--oci-layout=base{number}={}", context.dir.display()));
        command.arg(format!(
            "--opt=context:{}=oci-layout://base{number}@{}",
            context.image, context.digest
        ));
    }
    command.args(entry.target.iter().map(|target| format!("--opt=target={target}")));
    let out = tree.join("theirs");
    fs::create_dir(&out)?;
    ended(
        command.arg(format!("--output=type=oci,tar=false,dest={}", out.display())),
        out,
        "error: ",
    )
}

fn ended(command: &mut Command, out: PathBuf, mark: &str) -> Result<Built> {
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output().context("start a builder")?;
    if output.status.success() {
        OciLayout::open(&out)?.image()?;
        return Ok(Built::Image(out, start.elapsed()));
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let line = stderr.lines().rfind(|line| line.starts_with(mark));
    let line = line.unwrap_or("it took too long");
    let short: String = line.trim_start_matches(mark).chars().take(160).collect();
    Ok(Built::Failed(short))
}

fn write(rows: &[String], asked: bool) -> Result<()> {
    let compared = if asked {
        " The last column compares the two images: config and history, and\nof every file path, kind, mode and owner."
    } else {
        ""
    };
    shell::write_results("outside-built", |date| {
        format!(
            "# {date}\n\nProjects of other people, each at a commit ([the list](../../crates/xtask/outside-built.txt)), built by `cargo xtask outside \
             --build` on base images\nmade of Debian 12's packages in the place of theirs; so versions of languages are Debian's. \
             What a project downloads was\ndownloaded by each builder by itself.{compared}\n\n\
             | project | rbuild | BuildKit | images |\n|---|---|---|---|\n{}\n",
            rows.join("\n")
        )
    })
}
