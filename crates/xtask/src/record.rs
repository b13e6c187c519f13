//! `cargo xtask record-conformance`: asks a real BuildKit what each conformance case makes, and writes it down.
//!
//! The images that cases build from are handed over as named contexts from an OCI layout, so neither builder needs a
//! registry and both start from the same bytes.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use rbuild_testkit::base;
use rbuild_testkit::conformance::{Case, Expectation, ObservedImage};
use rbuild_testkit::image::{Image, OciLayout};

use crate::shell;

/// Records every case, or those whose name contains `--only`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let buildctl = shell::flag(args, "--buildctl").context("--buildctl PATH is needed")?;
    let addr = shell::flag(args, "--addr").context("--addr ADDRESS is needed")?;
    let only = shell::flag(args, "--only").unwrap_or_default();
    let oracle = shell::output(Command::new(&buildctl).arg("--version"))?
        .trim()
        .to_owned();
    let cases = Case::all(&shell::root()?.join("tests/conformance"))?;
    let bases_dir = base::layout()?;
    let bases = OciLayout::open(&bases_dir)?.images()?;
    let mut failed = Vec::new();
    for case in cases.iter().filter(|case| case.name.contains(&only)) {
        match record(case, &buildctl, &addr, &oracle, &bases_dir, &bases) {
            Ok(line) => println!("{}: {line}", case.name),
            Err(error) => {
                println!("{}: NOT RECORDED: {error:#}", case.name);
                failed.push(case.name.clone());
            }
        }
    }
    ensure!(failed.is_empty(), "{} cases: {}", failed.len(), failed.join(", "));
    Ok(())
}

fn record(
    case: &Case,
    buildctl: &str,
    addr: &str,
    oracle: &str,
    bases_dir: &Path,
    bases: &[Image],
) -> Result<String> {
    let room = tempfile::tempdir()?;
    case.lay_out(room.path())?;
    let context = room.path().join("context");
    let archive = room.path().join("image.tar");
    let mut command = Command::new(buildctl);
    command.args([
        "--addr",
        addr,
        "build",
        "--frontend",
        "dockerfile.v0",
        "--progress",
        "plain",
    ]);
    let local = |name: &str, dir: &Path| format!("--local={name}={}", dir.display());
    command
        .arg(local("context", &context))
        .arg(local("dockerfile", &context));
    command.arg(format!("--opt=filename={}", case.dockerfile_name()));
    for name in &case.recipe.bases {
        let image = bases
            .iter()
            .find(|image| {
                image.descriptor["annotations"]["org.opencontainers.image.ref.name"] == name.as_str()
            })
            .with_context(|| format!("no base {name}"))?;
        command.arg(format!("--oci-layout={name}={}", bases_dir.display()));
        command.arg(format!(
            "--opt=context:{name}=oci-layout://{name}@{}",
            image.manifest_digest
        ));
    }
    for name in case.recipe.contexts.keys() {
        command.arg(local(
            &format!("named-{name}"),
            &room.path().join("named").join(name),
        ));
        command.arg(format!("--opt=context:{name}=local:named-{name}"));
    }
    for id in case.recipe.secrets.keys() {
        command.arg(format!(
            "--secret=id={id},src={}",
            room.path().join("secrets").join(id).display()
        ));
    }
    command.args(
        case.recipe
            .build_args
            .iter()
            .map(|(key, value)| format!("--opt=build-arg:{key}={value}")),
    );
    command.args(
        case.recipe
            .labels
            .iter()
            .map(|(key, value)| format!("--opt=label:{key}={value}")),
    );
    command.args(
        case.recipe
            .target
            .iter()
            .map(|target| format!("--opt=target={target}")),
    );
    command.arg(format!("--output=type=oci,dest={}", archive.display()));
    let output = command.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if case.recipe.fails.is_empty() {
        ensure!(output.status.success(), "BuildKit fails:\n{stderr}");
        let image = OciLayout::open(&archive)?.image()?;
        let observed = ObservedImage::of(&image, bases)?;
        let line = format!("{} layers over {}", observed.layers.len(), observed.base_layers);
        case.record(&Expectation {
            oracle: oracle.to_owned(),
            error: None,
            image: Some(observed),
        })?;
        return Ok(line);
    }
    if output.status.success() {
        bail!("BuildKit succeeds where it should fail");
    }
    let error = stderr
        .lines()
        .rfind(|line| line.starts_with("error: "))
        .context("no error line")?;
    // Paths of this run and ids of the daemon's would make the record differ each time.
    let error = without_run_ids(&error.replace(&room.path().display().to_string(), "DIR"));
    for part in &case.recipe.fails {
        ensure!(error.contains(part.as_str()), "the error lacks {part:?}: {error}");
    }
    case.record(&Expectation {
        oracle: oracle.to_owned(),
        error: Some(error.clone()),
        image: None,
    })?;
    Ok(error)
}

/// Takes what changes with each run out of an error: the daemon's temporary mount points
/// (`…/cachemounts/buildkit123/x` becomes `/x`) and ids of snapshots.
fn without_run_ids(text: &str) -> String {
    const MARK: &str = "/cachemounts/buildkit";
    let shorten = |word: &str| match word.split_once(MARK) {
        Some((_, rest)) => rest.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned(),
        None => word.to_owned(),
    };
    let text = text.split(' ').map(shorten).collect::<Vec<_>>().join(" ");
    // The id of a snapshot, new each time: "checksum of ref xyz::abc: ".
    match text
        .split_once("checksum of ref ")
        .and_then(|(head, rest)| Some((head, rest.split_once(": ")?.1)))
    {
        Some((head, rest)) => format!("{head}checksum of ref REF: {rest}"),
        None => text,
    }
}
