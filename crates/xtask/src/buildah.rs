//! The conformance cases under buildah, the other builder of Dockerfiles: what it makes of them that BuildKit does not.
//!
//! Its answers are no expectation of ours: somebody who comes from it, or reads its documentation, sees here what will be
//! otherwise. The base images are copied into a store of its own, so that it needs no registry either.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use rbuild_testkit::base;
use rbuild_testkit::conformance::{Case, ObservedImage, content_differences};
use rbuild_testkit::image::{Image, OciLayout};
use rbuild_testkit::machine;

use crate::record::{Failed, Outcome};
use crate::shell;

const PAGE: &str = "docs/differences-buildah.md";
/// What is in nearly every image with a step and is told once: places that were mounted over, and directories hidden as a
/// whole where BuildKit names what is gone.
const EVERYWHERE: [&str; 5] = [
    "/etc/hostname:",
    "/etc/hosts:",
    "/etc/resolv.conf:",
    "/run:",
    "/.wh..wh..opq:",
];
/// Sentences shown of one case.
const SHOWN: usize = 4;
/// Most characters of one of them.
const SENTENCE_CHARS: usize = 220;

/// Runs all cases, or those whose name contains `--only`, and writes the page, if it was all.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let Some(program) = machine::program("buildah") else {
        println!("SKIP: no buildah on this machine: install Debian's package buildah");
        return Ok(());
    };
    let buildah = Buildah::new(program)?;
    let root = shell::root()?;
    let only = shell::flag(args, "--only");
    let mut page = Page::default();
    for case in Case::all(&root.join("tests/conformance"))? {
        // It has no questions, and makes several platforms one after the other into a list of its store.
        let asked = only.as_ref().is_none_or(|part| case.name.contains(part));
        if !asked || !case.is_one_image() {
            continue;
        }
        let found = buildah.differences(&case)?;
        println!("{}: {}", case.name, found.len());
        page.add(&case, found);
    }
    match only {
        Some(_) => println!("{}", page.rows.join("\n")),
        None => fs::write(root.join(PAGE), page.text(&buildah.version)).with_context(|| PAGE.to_owned())?,
    }
    Ok(())
}

struct Buildah {
    program: PathBuf,
    version: String,
    room: tempfile::TempDir,
    bases: Vec<Image>,
}

impl Buildah {
    /// With the base images of the cases in its store.
    fn new(program: PathBuf) -> Result<Self> {
        let version = shell::output(Command::new(&program).arg("--version"))?
            .trim()
            .to_owned();
        let layout = base::layout()?;
        let buildah = Self {
            program,
            version,
            room: tempfile::tempdir()?,
            bases: OciLayout::open(&layout)?.images()?,
        };
        let skopeo = machine::required("skopeo", "skopeo")?;
        let (store, run) = (buildah.place("store"), buildah.place("run"));
        for name in base::NAMES {
            let to = format!("containers-storage:[overlay@{store}+{run}]localhost/{name}:latest");
            let from = format!("oci:{}:{name}", layout.display());
            shell::output(Command::new(&skopeo).args(["--insecure-policy", "copy", "-q", &from, &to]))?;
        }
        Ok(buildah)
    }

    fn place(&self, name: &str) -> String {
        self.room.path().join(name).display().to_string()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--storage-driver=overlay", "--root", &self.place("store")]);
        command.args(["--runroot", &self.place("run")]);
        command
    }

    /// What is otherwise than BuildKit's answer, a sentence each.
    fn differences(&self, case: &Case) -> Result<Vec<String>> {
        let expected = case.expected()?;
        Ok(match (expected.image, expected.error, self.build(case)?) {
            (Some(want), _, Outcome::Images(have)) => have
                .iter()
                .flat_map(|have| content_differences(&want, have))
                .collect(),
            (None, Some(want), Outcome::Images(_)) => vec![format!("builds; BuildKit says: {want}")],
            (Some(_), _, Outcome::Error(error)) => vec![format!("fails: {}", error.line)],
            // Both refuse, each in words of its own.
            _ => Vec::new(),
        })
    }

    fn build(&self, case: &Case) -> Result<Outcome> {
        let room = tempfile::tempdir()?;
        case.lay_out(room.path())?;
        let mut build = self.command();
        build.args([
            "build",
            "--layers",
            "--no-cache",
            "--quiet",
            "--identity-label=false",
            "--pull=never",
            "--isolation=oci",
            "-t",
            "case",
        ]);
        // crun refuses machines that have both cgroup versions mounted; runc takes either.
        build.args(machine::program("runc").map(|runc| format!("--runtime={}", runc.display())));
        build.args(arguments(case, room.path()));
        let output = build.stdin(std::process::Stdio::null()).output()?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let line = stderr
                .lines()
                .rfind(|line| !line.trim().is_empty())
                .unwrap_or("no words");
            return Ok(Outcome::Error(Failed {
                line: line.replace(&room.path().display().to_string(), "DIR"),
                excerpt: None,
            }));
        }
        let archive = room.path().join("image.tar");
        let mut push = self.command();
        push.args(["push", "--quiet", "case"]);
        shell::output(push.arg(format!("oci-archive:{}", archive.display())))?;
        let image = OciLayout::open(&archive)?.image()?;
        Ok(Outcome::Images(vec![ObservedImage::of(&image, &self.bases)?]))
    }
}

impl Drop for Buildah {
    /// Its containers stay mounted when it ends, and what is mounted cannot be deleted.
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let mut ours: Vec<&str> = points
            .filter(|point| Path::new(point).starts_with(self.room.path()))
            .collect();
        ours.reverse();
        // Whatever is left then is told by the directory that stays.
        drop(Command::new("umount").arg("--lazy").args(ours).output());
    }
}

/// Flags of `buildah build` for a case laid out in `room`, and the context.
fn arguments(case: &Case, room: &Path) -> Vec<String> {
    let recipe = &case.recipe;
    let context = room.join("context");
    let file = context.join(case.dockerfile_name());
    let mut args = vec!["-f".to_owned(), file.display().to_string()];
    let pairs = |flag: &str, values: &BTreeMap<String, String>| -> Vec<String> {
        let pair = |(key, value): (&String, &String)| format!("--{flag}={key}={value}");
        values.iter().map(pair).collect()
    };
    args.extend(pairs("build-arg", &recipe.build_args));
    args.extend(pairs("label", &recipe.labels));
    let dirs = recipe
        .contexts
        .keys()
        .map(|name| (name.clone(), room.join("named").join(name)));
    args.extend(dirs.map(|(name, dir)| format!("--build-context={name}={}", dir.display())));
    let secrets = recipe
        .secrets
        .keys()
        .map(|id| (id, room.join("secrets").join(id)));
    args.extend(secrets.map(|(id, path)| format!("--secret=id={id},src={}", path.display())));
    args.extend(recipe.target.iter().map(|target| format!("--target={target}")));
    args.extend(
        recipe
            .platforms
            .iter()
            .map(|platform| format!("--platform={platform}")),
    );
    args.extend(recipe.attributes.flags());
    args.push(context.display().to_string());
    args
}

#[derive(Default)]
struct Page {
    /// Of each instruction: cases, and those with a difference.
    groups: BTreeMap<String, [usize; 2]>,
    /// Cases with something of [`EVERYWHERE`].
    everywhere: usize,
    rows: Vec<String>,
}

impl Page {
    fn add(&mut self, case: &Case, mut found: Vec<String>) {
        let all = found.len();
        found.retain(|sentence| {
            let lines: Vec<&str> = sentence.lines().collect();
            lines.get(1).is_none_or(|line| line.trim() != "want nothing")
                || !EVERYWHERE.iter().any(|end| lines[0].ends_with(end))
        });
        self.everywhere += usize::from(found.len() < all);
        let group = case.name.split('/').next().unwrap_or_default();
        let counts = self.groups.entry(group.to_owned()).or_default();
        counts[0] += 1;
        counts[1] += usize::from(!found.is_empty());
        if found.is_empty() {
            return;
        }
        let more = found.len().saturating_sub(SHOWN);
        let mut sentences: Vec<String> = found.iter().take(SHOWN).map(|text| cell(text)).collect();
        if more > 0 {
            sentences.push(format!("and {more} more"));
        }
        let about = cell(&case.recipe.about);
        self.rows.push(format!(
            "| `{}` | {about} | {} |",
            case.name,
            sentences.join("<br>")
        ));
    }

    fn text(&self, version: &str) -> String {
        let mut page = format!(
            "# What buildah does differently\n\nMade by `cargo xtask buildah` out of [tests/conformance](../tests/conformance), not by hand: \
             the same cases, built by\n`{version}` with `--layers`, against what BuildKit made of them. Compared are \
             the config and the files that the\nlayers add up to; where both refuse a Dockerfile, their words are not. Its \
             history is never BuildKit's\n(`/bin/sh -c #(nop) …`), and is left out. Images of rbuild are BuildKit's: [what differs](differences.md).\n\n\
             Told once and left out below: in {} cases a step left empty `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf` or \
             `/run` in its\nlayer, or a directory was hidden as a whole (`.wh..wh..opq`) where BuildKit names what is gone.\n\n\
             | instruction | cases | with a difference |\n|---|---|---|\n",
            self.everywhere
        );
        for (group, [cases, differ]) in &self.groups {
            // Writing to a string cannot fail.
            writeln!(page, "| {group} | {cases} | {differ} |").expect("a string");
        }
        page += "\n## Each difference\n| case | what it shows | buildah |\n|---|---|---|\n";
        page + &self.rows.join("\n") + "\n"
    }
}

/// Text for a cell of a table, with the two builders in the place of what is wanted and what is there.
fn cell(text: &str) -> String {
    let text = text
        .replace("\n    want ", " BuildKit ")
        .replace("\n    have ", ", buildah ");
    let line = text
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|");
    match line.char_indices().nth(SENTENCE_CHARS) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}
