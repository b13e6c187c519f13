//! `cargo xtask record-conformance`: asks a real BuildKit what each conformance case makes, and writes it down.
//!
//! The images that cases build from are handed over as named contexts from an OCI layout, so neither builder needs a
//! registry and both start from the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail, ensure};
use rbuild_testkit::base;
use rbuild_testkit::conformance::{Case, Expectation, ObservedImage, answer, excerpt};
use rbuild_testkit::image::{Image, OciLayout};

use crate::shell;

/// What a builder made of a case.
pub(crate) enum Outcome {
    /// An image, or one for each platform.
    Images(Vec<ObservedImage>),
    /// What a question was answered with.
    Answer(String),
    /// An error.
    Error(Failed),
}

/// What a builder said of a case that it did not build.
pub(crate) struct Failed {
    /// In one line.
    pub(crate) line: String,
    /// The lines of the Dockerfile that it shows.
    pub(crate) excerpt: Option<String>,
}

impl Outcome {
    /// What a builder that wrote the images of a case to `archive` said; its last line that begins with `mark` is its error.
    pub(crate) fn of(
        case: &Case,
        output: &Output,
        archive: &Path,
        bases: &[Image],
        mark: &str,
    ) -> Result<Self> {
        // A client's status says whether there are warnings, once there is an answer.
        if case.recipe.call.is_some() && (output.status.success() || !output.stdout.is_empty()) {
            return Ok(Self::Answer(answer(
                &String::from_utf8_lossy(&output.stdout),
                archive.parent().context("an archive lies in its room")?,
            )));
        }
        if output.status.success() {
            let layout = OciLayout::open(archive)?;
            let images = match case.is_one_image() {
                true => vec![layout.image()?],
                false => layout.images()?,
            };
            let images = images.iter().map(|image| ObservedImage::of(image, bases));
            return Ok(Self::Images(images.collect::<Result<_>>()?));
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let error = stderr.lines().rfind(|line| line.starts_with(mark));
        let error = error.with_context(|| format!("no error line:\n{stderr}"))?;
        Ok(Self::Error(Failed {
            line: error.to_owned(),
            excerpt: excerpt(&stderr),
        }))
    }
}

/// A BuildKit that answers at an address.
pub(crate) struct Oracle {
    buildctl: String,
    addr: String,
    /// What it calls itself.
    pub(crate) version: String,
    bases_dir: PathBuf,
    bases: Vec<Image>,
}

impl Oracle {
    /// The one that `--buildctl` and `--addr` name.
    pub(crate) fn named(args: &[String]) -> Result<Self> {
        let buildctl = shell::flag(args, "--buildctl").context("--buildctl PATH is needed")?;
        let addr = shell::flag(args, "--addr").context("--addr ADDRESS is needed")?;
        let version = shell::output(Command::new(&buildctl).arg("--version"))?
            .trim()
            .to_owned();
        let bases_dir = base::layout()?;
        let bases = OciLayout::open(&bases_dir)?.images()?;
        Ok(Self {
            buildctl,
            addr,
            version,
            bases_dir,
            bases,
        })
    }

    /// Builds a case.
    pub(crate) fn build(&self, case: &Case) -> Result<Outcome> {
        let room = tempfile::tempdir()?;
        case.lay_out(room.path())?;
        renew(room.path())?;
        let archive = room.path().join("image.tar");
        if case.recipe.forgets {
            shell::output(Command::new(&self.buildctl).args(["--addr", &self.addr, "prune", "--all"]))?;
        }
        let mut command = self.command(case, room.path())?;
        if case.recipe.call.is_none() {
            command.arg(format!("--output=type=oci,dest={}", archive.display()));
        }
        let output = command.output()?;
        Ok(
            match Outcome::of(case, &output, &archive, &self.bases, "error: ")? {
                // Paths of this run and ids of the daemon's would make the record differ each time.
                Outcome::Error(error) => Outcome::Error(Failed {
                    line: without_run_ids(&error.line.replace(&room.path().display().to_string(), "DIR")),
                    ..error
                }),
                other => other,
            },
        )
    }

    /// `buildctl build` of a case laid out in `room`, all but the output.
    fn command(&self, case: &Case, room: &Path) -> Result<Command> {
        let context = room.join("context");
        let local = |name: &str, dir: &Path| format!("--local={name}={}", dir.display());
        let mut command = Command::new(&self.buildctl);
        command.args(["--addr", &self.addr, "build", "--frontend", "dockerfile.v0"]);
        command.args(["--progress", "plain"]);
        command.args([local("context", &context), local("dockerfile", &context)]);
        command.arg(format!("--opt=filename={}", case.dockerfile_name()));
        for name in &case.recipe.bases {
            let is_it = |image: &&Image| {
                image.descriptor["annotations"]["org.opencontainers.image.ref.name"] == name.as_str()
            };
            let image = self
                .bases
                .iter()
                .find(is_it)
                .with_context(|| format!("no base {name}"))?;
            command.arg(format!("--oci-layout={name}={}", self.bases_dir.display()));
            command.arg(format!(
                "--opt=context:{name}=oci-layout://{name}@{}",
                image.manifest_digest
            ));
        }
        for name in case.recipe.contexts.keys() {
            command.arg(local(&format!("named-{name}"), &room.join("named").join(name)));
            command.arg(format!("--opt=context:{name}=local:named-{name}"));
        }
        for id in case.recipe.secrets.keys() {
            let path = room.join("secrets").join(id);
            command.arg(format!("--secret=id={id},src={}", path.display()));
        }
        let (args, labels) = (&case.recipe.build_args, &case.recipe.labels);
        command.args(
            args.iter()
                .map(|(key, value)| format!("--opt=build-arg:{key}={value}")),
        );
        command.args(
            labels
                .iter()
                .map(|(key, value)| format!("--opt=label:{key}={value}")),
        );
        command.args(
            case.recipe
                .target
                .iter()
                .map(|target| format!("--opt=target={target}")),
        );
        if !case.recipe.platforms.is_empty() {
            command.arg(format!("--opt=platform={}", case.recipe.platforms.join(",")));
        }
        let attributes = case.recipe.attributes.of_front_end().into_iter();
        command.args(attributes.map(|(name, value)| format!("--opt={name}={value}")));
        let call = case.recipe.call.iter();
        command.args(call.map(|call| format!("--opt=requestid={}", call.request_id())));
        Ok(command)
    }
}

/// Records every case, or those whose name contains `--only`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let oracle = Oracle::named(args)?;
    let only = shell::flag(args, "--only").unwrap_or_default();
    let cases = Case::all(&shell::root()?.join("tests/conformance"))?;
    let mut failed = Vec::new();
    for case in cases.iter().filter(|case| case.name.contains(&only)) {
        match record(case, &oracle) {
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

fn record(case: &Case, oracle: &Oracle) -> Result<String> {
    let mut expectation = Expectation::of(&oracle.version);
    let must_fail = !case.recipe.fails.is_empty();
    let line = match oracle.build(case)? {
        Outcome::Images(mut images) if !must_fail => {
            ensure!(!images.is_empty(), "no image");
            expectation.others = images.split_off(1);
            expectation.image = images.pop();
            let count =
                |image: &ObservedImage| format!("{} layers over {}", image.layers.len(), image.base_layers);
            let all = expectation.image.iter().chain(&expectation.others);
            all.map(count).collect::<Vec<_>>().join(", ")
        }
        Outcome::Answer(text) if !must_fail => {
            let line = format!("an answer of {} lines", text.lines().count());
            expectation.answer = Some(text);
            line
        }
        Outcome::Error(error) if must_fail => {
            let mut parts = case.recipe.fails.iter();
            let lacking = parts.find(|part| !error.line.contains(part.as_str()));
            ensure!(lacking.is_none(), "the error lacks {lacking:?}: {}", error.line);
            expectation.excerpt = error.excerpt;
            expectation.error.insert(error.line).clone()
        }
        Outcome::Error(error) => bail!("BuildKit fails: {}", error.line),
        Outcome::Images(_) | Outcome::Answer(_) => bail!("BuildKit succeeds where it should fail"),
    };
    case.record(&expectation)?;
    Ok(line)
}

/// Gives every file below `dir` the time of now. A daemon takes a file for unchanged that it has under the same name with
/// the same size and time, and all files of all cases are laid out with one time.
fn renew(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            renew(&entry.path())?;
        } else if kind.is_file() {
            fs::File::open(entry.path())?.set_modified(SystemTime::now())?;
        }
    }
    Ok(())
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
