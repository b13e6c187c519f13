//! Conformance cases: a Dockerfile, a context recipe, and what BuildKit itself made of them.
//!
//! A case is a directory `tests/conformance/<instruction>/<case>/` with `Dockerfile`, `case.toml` and `expect.json`. The
//! last is never written by hand: `cargo xtask record-conformance` runs the case under a real BuildKit and writes what
//! came out, with the version that spoke. Where rbuild differs on purpose, `case.toml` says so under `differs`.
//!
//! A case may ask for several platforms, and then every image of the index counts; or it may be a question (`call`), and then
//! the answer is the text that is printed.

mod definition;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::context::{BuildContext, Entry};
use crate::image::Image;

/// `case.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What the case shows, one sentence.
    pub about: String,
    /// Images of [`crate::base::layout`] that the Dockerfile names.
    #[serde(default = "only_busybox")]
    pub bases: Vec<String>,
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`.
    #[serde(default)]
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `--secret`: id and value.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// `--platform`; more than one makes an index.
    #[serde(default)]
    pub platforms: Vec<String>,
    /// A question instead of a build: `lint`, `outline`, `targets` or `convertllb`.
    pub call: Option<Call>,
    /// Attributes of the front end that hold for all steps.
    #[serde(default)]
    pub attributes: Attributes,
    /// Name of the Dockerfile inside the context, where it is not `Dockerfile`. The case's file is written there.
    pub dockerfile: Option<String>,
    /// The build must fail, and every one of these must be in the message.
    #[serde(default)]
    pub fails: Vec<String>,
    /// A further case directory, relative, that is a named context: name and its context entries.
    #[serde(default)]
    pub contexts: BTreeMap<String, Vec<Entry>>,
    /// Where rbuild differs on purpose: a part of what is found, and the reason, which docs/differences.md repeats.
    #[serde(default)]
    pub differs: BTreeMap<String, String>,
    /// The context.
    #[serde(default, rename = "file")]
    pub files: Vec<Entry>,
}

/// What can be asked about a Dockerfile without building it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Call {
    /// Warnings.
    Lint,
    /// Arguments and mounts of a target.
    Outline,
    /// Stages.
    Targets,
    /// Operations.
    ConvertLlb,
}

impl Call {
    /// `requestid` of BuildKit's front end.
    #[must_use]
    pub fn request_id(self) -> &'static str {
        match self {
            Self::Lint => "frontend.lint",
            Self::Outline => "frontend.outline",
            Self::Targets => "frontend.targets",
            Self::ConvertLlb => "frontend.convertllb",
        }
    }

    /// Value of `--call`.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::Lint => "check",
            Self::Outline => "outline",
            Self::Targets => "targets",
            Self::ConvertLlb => "convertllb",
        }
    }
}

/// `[attributes]` of a recipe.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Attributes {
    /// `NAME=ADDRESS` of each further line of `/etc/hosts`.
    pub add_hosts: Vec<String>,
    /// `none` or `host`.
    pub force_network_mode: Option<String>,
    /// Bytes of `/dev/shm`.
    pub shm_size: Option<u64>,
    /// `NAME=SOFT:HARD`.
    pub ulimit: Vec<String>,
}

impl Attributes {
    /// As attributes of BuildKit's front end.
    #[must_use]
    pub fn of_front_end(&self) -> Vec<(&'static str, String)> {
        let list = |name, values: &[String]| (!values.is_empty()).then(|| (name, values.join(",")));
        let size = self.shm_size.map(|bytes| ("shm-size", bytes.to_string()));
        let network = self.force_network_mode.clone();
        [
            list("add-hosts", &self.add_hosts),
            network.map(|mode| ("force-network-mode", mode)),
            size,
            list("ulimit", &self.ulimit),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// As flags of `build`, which those who have them all spell alike.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let host = |line: &String| format!("--add-host={}", line.replacen('=', ":", 1));
        let hosts = self.add_hosts.iter().map(host);
        let network = self
            .force_network_mode
            .iter()
            .map(|mode| format!("--network={mode}"));
        let size = self.shm_size.iter().map(|bytes| format!("--shm-size={bytes}"));
        let limits = self.ulimit.iter().map(|limit| format!("--ulimit={limit}"));
        hosts.chain(network).chain(size).chain(limits).collect()
    }
}

fn only_busybox() -> Vec<String> {
    vec!["busybox".to_owned()]
}

/// A case on disk.
#[derive(Debug, Clone)]
pub struct Case {
    /// `<instruction>/<case>`.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// What `case.toml` says.
    pub recipe: Recipe,
}

impl Case {
    /// Every case below `root`, in order of name.
    ///
    /// # Errors
    /// A directory without its files, or a recipe with an unknown member.
    pub fn all(root: &Path) -> Result<Vec<Self>> {
        let mut cases = Vec::new();
        for group in sorted_dirs(root)? {
            for dir in sorted_dirs(&group)? {
                cases.push(Self::load(root, &dir)?);
            }
        }
        Ok(cases)
    }

    fn load(root: &Path, dir: &Path) -> Result<Self> {
        let name = dir.strip_prefix(root)?.display().to_string();
        let text = fs::read_to_string(dir.join("case.toml")).with_context(|| format!("{name}: case.toml"))?;
        let recipe = toml::from_str(&text).with_context(|| format!("{name}: case.toml"))?;
        ensure!(dir.join("Dockerfile").exists(), "{name}: no Dockerfile");
        Ok(Self {
            name,
            dir: dir.to_owned(),
            recipe,
        })
    }

    /// Puts the context into `dir/context`, the named contexts into `dir/named/<name>`, the secrets into
    /// `dir/secrets/<id>`.
    ///
    /// # Errors
    /// The file system's, or a recipe that contradicts itself.
    pub fn lay_out(&self, dir: &Path) -> Result<()> {
        let context = BuildContext::create(dir.join("context"))?;
        let name = self.dockerfile_name();
        if !self.recipe.files.iter().any(|entry| entry.path == name) {
            context.file(name, fs::read(self.dir.join("Dockerfile"))?);
        }
        context.fill(&self.recipe.files)?;
        for (name, entries) in &self.recipe.contexts {
            BuildContext::create(dir.join("named").join(name))?.fill(entries)?;
        }
        fs::create_dir_all(dir.join("secrets"))?;
        for (id, value) in &self.recipe.secrets {
            let path = dir.join("secrets").join(id);
            fs::create_dir_all(path.parent().context("an id is a name")?)?;
            fs::write(path, value)?;
        }
        Ok(())
    }

    /// Name of the Dockerfile inside the context.
    #[must_use]
    pub fn dockerfile_name(&self) -> &str {
        self.recipe.dockerfile.as_deref().unwrap_or("Dockerfile")
    }

    /// Whether the case is the build of one image.
    #[must_use]
    pub fn is_one_image(&self) -> bool {
        self.recipe.call.is_none() && self.recipe.platforms.len() < 2
    }

    /// Arguments of `rbuild build` for a case laid out in `dir`, all but the output.
    #[must_use]
    pub fn rbuild_args(&self, dir: &Path, bases: &Path) -> Vec<String> {
        let mut args = vec!["build".to_owned(), "--progress=plain".to_owned()];
        args.extend([
            "-f".to_owned(),
            dir.join("context")
                .join(self.dockerfile_name())
                .display()
                .to_string(),
        ]);
        for base in &self.recipe.bases {
            args.push(format!(
                "--build-context={base}=oci-layout://{}:{base}",
                bases.display()
            ));
        }
        for name in self.recipe.contexts.keys() {
            args.push(format!(
                "--build-context={name}={}",
                dir.join("named").join(name).display()
            ));
        }
        for id in self.recipe.secrets.keys() {
            args.push(format!(
                "--secret=id={id},src={}",
                dir.join("secrets").join(id).display()
            ));
        }
        args.extend(
            self.recipe
                .build_args
                .iter()
                .map(|(key, value)| format!("--build-arg={key}={value}")),
        );
        args.extend(
            self.recipe
                .labels
                .iter()
                .map(|(key, value)| format!("--label={key}={value}")),
        );
        args.extend(
            self.recipe
                .target
                .iter()
                .map(|target| format!("--target={target}")),
        );
        if !self.recipe.platforms.is_empty() {
            args.push(format!("--platform={}", self.recipe.platforms.join(",")));
        }
        args.extend(self.recipe.attributes.flags());
        args.extend(
            self.recipe
                .call
                .iter()
                .map(|call| format!("--call={}", call.flag())),
        );
        args.push(dir.join("context").display().to_string());
        args
    }

    /// The recorded expectation.
    ///
    /// # Errors
    /// Not recorded yet.
    pub fn expected(&self) -> Result<Expectation> {
        let path = self.dir.join("expect.json");
        let bytes = fs::read(&path).with_context(|| format!("{}: expect.json is not recorded", self.name))?;
        serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display()))
    }

    /// Writes the expectation.
    ///
    /// # Errors
    /// The file system's.
    pub fn record(&self, expectation: &Expectation) -> Result<()> {
        let mut text = serde_json::to_string_pretty(expectation)?;
        text.push('\n');
        Ok(fs::write(self.dir.join("expect.json"), text)?)
    }
}

/// What a builder made of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    /// Which program said so.
    pub oracle: String,
    /// The build's error, for a case that must fail.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// The lines of the Dockerfile that the error shows, with those at fault marked, as both builders print them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub excerpt: Option<String>,
    /// The image, for one that must not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image: Option<ObservedImage>,
    /// The images of the other platforms, in the order in which they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub others: Vec<ObservedImage>,
    /// What a question was answered with.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub answer: Option<String>,
}

impl Expectation {
    /// Sentences about what is different in these images, empty if nothing that counts is.
    #[must_use]
    pub fn image_differences(
        &self,
        have: &[ObservedImage],
        excused: &BTreeMap<String, String>,
    ) -> Vec<String> {
        let want: Vec<&ObservedImage> = self.image.iter().chain(&self.others).collect();
        if want.len() != have.len() {
            return vec![format!("{} images, {} should be", have.len(), want.len())];
        }
        let pairs = want.iter().zip(have).enumerate();
        pairs
            .flat_map(|(number, (want, have))| {
                let found = differences(want, have, excused);
                let one = self.others.is_empty();
                found.into_iter().map(move |sentence| {
                    if one {
                        sentence
                    } else {
                        format!("image {number}: {sentence}")
                    }
                })
            })
            .collect()
    }

    /// Sentences about what is different in an error, told in `line` and shown by `shown`: its words, and the lines of the
    /// Dockerfile.
    #[must_use]
    pub fn error_differences(&self, line: &str, shown: Option<&str>) -> Vec<String> {
        let mut found = Vec::new();
        let (have, want) = (message(line), message(self.error.as_deref().unwrap_or_default()));
        if have != want {
            found.push(format!("`{have}`, not `{want}`"));
        }
        if shown != self.excerpt.as_deref() {
            let quoted =
                |excerpt: Option<&str>| excerpt.map_or("none".to_owned(), |text| format!("{text:?}"));
            found.push(format!(
                "excerpt {}, not {}",
                quoted(shown),
                quoted(self.excerpt.as_deref())
            ));
        }
        found
    }

    /// What is different in the answer to a question, if anything is.
    #[must_use]
    pub fn answer_difference(&self, have: &str) -> Option<String> {
        let want = self.answer.as_deref().unwrap_or_default();
        (want != have).then(|| format!("the answer is\n{have}\nand not\n{want}"))
    }
}

/// An error without what the two programs put in front of every one, and without the name of a thing that is new in each run.
fn message(text: &str) -> String {
    const REF: &str = "checksum of ref ";
    let mut text = text;
    for prefix in ["error: ", "ERROR: ", "failed to build: ", "failed to solve: "] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    let parts = text.split_once(REF);
    match parts.and_then(|(head, rest)| Some((head, rest.split_once(": ")?.1))) {
        Some((head, rest)) => format!("{head}{REF}REF: {rest}"),
        None => text.to_owned(),
    }
}

/// The answer to a question about a case laid out in `room`, out of what a builder printed: without the line that counts
/// the warnings and the path to the Dockerfile, which a client puts in front, and without blanks that no reader sees.
#[must_use]
pub fn answer(printed: &str, room: &Path) -> String {
    // A client that has no words for an answer names its form.
    let json = printed.strip_prefix("result.json\n").unwrap_or(printed);
    if let Some(definition) = definition::canonical(json) {
        return definition;
    }
    let context = format!("{}/", room.join("context").display());
    let printed = printed.replace(&context, "");
    let lines = printed
        .lines()
        .filter(|line| !line.starts_with("Check complete, "));
    let text: Vec<&str> = lines.map(str::trim_end).collect();
    text.join("\n").trim().to_owned()
}

/// An image without what differs between any two builds of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedImage {
    /// The config document without times, diff ids and history.
    pub config: Value,
    /// History without times.
    pub history: Vec<Value>,
    /// Number of layers that came from the base.
    pub base_layers: usize,
    /// Each further layer's entries: path and facts, hard links and whiteouts as they stand in the archive.
    pub layers: Vec<BTreeMap<String, String>>,
}

impl ObservedImage {
    /// Looks at an image; the layers of the base are the longest common prefix with any of `bases`.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn of(image: &Image, bases: &[Image]) -> Result<Self> {
        let mut config = image.config.clone();
        let members = config.as_object_mut().context("the config is no object")?;
        members.remove("created");
        let history = members.remove("history").unwrap_or_default();
        let rootfs = members.remove("rootfs").unwrap_or_default();
        let base_layers = bases
            .iter()
            .map(|base| common_layers(&rootfs, &base.config["rootfs"]))
            .max()
            .unwrap_or(0);
        let mut entries = history.as_array().cloned().unwrap_or_default();
        for entry in &mut entries {
            if let Some(entry) = entry.as_object_mut() {
                entry.remove("created");
            }
        }
        let mut layers = Vec::new();
        for index in base_layers..image.layer_count() {
            let mut table = BTreeMap::new();
            for (path, facts) in image.layer_entries(index)? {
                let whiteout = path
                    .rsplit('/')
                    .next()
                    .is_some_and(|name| name.starts_with(".wh."));
                let line = if whiteout {
                    "whiteout".to_owned()
                } else {
                    facts.to_string()
                };
                let old = table.insert(path.clone(), line);
                ensure!(old.is_none(), "layer {index} has {path} twice");
            }
            layers.push(table);
        }
        Ok(Self {
            config,
            history: entries,
            base_layers,
            layers,
        })
    }

    /// What the layers above the base add up to, whiteouts kept. Archive order and empty layers make no difference here.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, String> {
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for layer in &self.layers {
            for (path, line) in layer {
                let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
                if let Some(hidden) = name.strip_prefix(".wh.") {
                    let hidden = if parent.is_empty() {
                        hidden.to_owned()
                    } else {
                        format!("{parent}/{hidden}")
                    };
                    files.retain(|key, _| *key != hidden && !key.starts_with(&format!("{hidden}/")));
                } else if !line.starts_with('d') {
                    files.retain(|key, _| !key.starts_with(&format!("{path}/")));
                }
                files.insert(path.clone(), line.clone());
            }
        }
        files
    }
}

fn common_layers(ours: &Value, base: &Value) -> usize {
    let list = |rootfs: &Value| rootfs["diff_ids"].as_array().cloned().unwrap_or_default();
    let (ours, base) = (list(ours), list(base));
    if ours.starts_with(&base) { base.len() } else { 0 }
}

/// The last excerpt of a Dockerfile in what a builder printed: its title, and the lines between two of dashes.
#[must_use]
pub fn excerpt(printed: &str) -> Option<String> {
    const DASHES: &str = "--------------------";
    let lines: Vec<&str> = printed.lines().collect();
    let end = lines.iter().rposition(|line| *line == DASHES)?;
    let start = lines[..end].iter().rposition(|line| *line == DASHES)?;
    let title = lines.get(start.checked_sub(1)?)?;
    let shown = lines[start + 1..end].iter().map(|line| line.trim_end());
    Some(
        std::iter::once(*title)
            .chain(shown)
            .collect::<Vec<_>>()
            .join("\n"),
    )
}

/// Sentences about what is different, empty if nothing that counts is.
#[must_use]
pub fn differences(
    expected: &ObservedImage,
    actual: &ObservedImage,
    excused: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut found = Vec::new();
    compare_values("config", &expected.config, &actual.config, &mut found);
    let count = expected.history.len().max(actual.history.len());
    for index in 0..count {
        let (want, have) = (expected.history.get(index), actual.history.get(index));
        if want != have {
            found.push(format!(
                "history {index}:\n    want {}\n    have {}",
                shown(want),
                shown(have)
            ));
        }
    }
    if expected.base_layers != actual.base_layers {
        found.push(format!(
            "{} layers are the base's, {} should be",
            actual.base_layers, expected.base_layers
        ));
    }
    if expected.layers.len() == actual.layers.len() {
        for (index, (want, have)) in expected.layers.iter().zip(&actual.layers).enumerate() {
            compare_tables(&format!("layer {index}"), want, have, &mut found);
        }
    } else {
        found.push(format!(
            "{} new layers, {} should be",
            actual.layers.len(),
            expected.layers.len()
        ));
        compare_tables("files", &expected.files(), &actual.files(), &mut found);
    }
    found.retain(|sentence| !excused.keys().any(|part| sentence.contains(part.as_str())));
    found
}

/// Sentences about what is different in what an image is, whatever the builder that made it writes down: its config, and
/// what its layers add up to. Directories on the way to an entry, which some builders put into layers and others do not,
/// count only where one that both name differs.
#[must_use]
pub fn content_differences(expected: &ObservedImage, actual: &ObservedImage) -> Vec<String> {
    let mut found = Vec::new();
    compare_values("config", &expected.config, &actual.config, &mut found);
    let (mut want, mut have) = (expected.files(), actual.files());
    let only_way = |path: &String,
                    line: &String,
                    table: &BTreeMap<String, String>,
                    other: &BTreeMap<String, String>| {
        let below = format!("{path}/");
        line.starts_with('d') && !other.contains_key(path) && table.keys().any(|key| key.starts_with(&below))
    };
    let (all_want, all_have) = (want.clone(), have.clone());
    want.retain(|path, line| !only_way(path, line, &all_want, &all_have));
    have.retain(|path, line| !only_way(path, line, &all_have, &all_want));
    compare_tables("files", &want, &have, &mut found);
    found
}

fn compare_values(at: &str, want: &Value, have: &Value, found: &mut Vec<String>) {
    if let (Value::Object(wanted), Value::Object(had)) = (want, have) {
        let keys: std::collections::BTreeSet<&String> = wanted.keys().chain(had.keys()).collect();
        for key in keys {
            let null = Value::Null;
            let (want, have) = (wanted.get(key).unwrap_or(&null), had.get(key).unwrap_or(&null));
            compare_values(&format!("{at}.{key}"), want, have, found);
        }
    } else if want != have {
        found.push(format!("{at}:\n    want {want}\n    have {have}"));
    }
}

fn compare_tables(
    at: &str,
    want: &BTreeMap<String, String>,
    have: &BTreeMap<String, String>,
    found: &mut Vec<String>,
) {
    let paths: std::collections::BTreeSet<&String> = want.keys().chain(have.keys()).collect();
    for path in paths {
        let (wanted, had) = (want.get(path), have.get(path));
        if wanted != had {
            let line = |side: Option<&String>| side.map_or("nothing", String::as_str).to_owned();
            found.push(format!(
                "{at} /{path}:\n    want {}\n    have {}",
                line(wanted),
                line(had)
            ));
        }
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), Value::to_string)
}

fn sorted_dirs(root: &Path) -> Result<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    for entry in fs::read_dir(root).with_context(|| format!("list {}", root.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            dirs.push(entry.path());
        }
    }
    dirs.sort();
    Ok(dirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(layer: &[(&str, &str)]) -> ObservedImage {
        let table = layer
            .iter()
            .map(|(path, line)| ((*path).to_owned(), (*line).to_owned()))
            .collect();
        ObservedImage {
            config: serde_json::json!({"config": {"Env": ["A=1"]}}),
            history: vec![serde_json::json!({"created_by": "x"})],
            base_layers: 1,
            layers: vec![table],
        }
    }

    #[test]
    fn every_kind_of_difference_is_told() {
        let want = observed(&[("a", "f 0644 0:0 \"1\""), ("b", "d 0755 0:0")]);
        let mut have = observed(&[("a", "f 0600 0:0 \"1\""), ("c", "d 0755 0:0")]);
        have.config = serde_json::json!({"config": {"Env": ["A=2"], "User": "x"}});
        have.history.clear();
        let found = differences(&want, &have, &BTreeMap::new());
        assert_eq!(found.len(), 6, "{found:#?}");
        assert!(differences(&want, &want.clone(), &BTreeMap::new()).is_empty());
    }

    #[test]
    fn every_image_of_an_index_counts() {
        let (one, two) = (
            observed(&[("a", "f 0644 0:0 \"1\"")]),
            observed(&[("b", "d 0755 0:0")]),
        );
        let want = Expectation {
            oracle: String::new(),
            error: None,
            excerpt: None,
            image: Some(one.clone()),
            others: vec![two.clone()],
            answer: None,
        };
        let none = BTreeMap::new();
        assert!(
            want.image_differences(&[one.clone(), two.clone()], &none)
                .is_empty()
        );
        assert_eq!(want.image_differences(std::slice::from_ref(&one), &none).len(), 1);
        let found = want.image_differences(&[one.clone(), one], &none);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("image 1: "), "{found:?}");
    }

    #[test]
    fn an_answer_is_what_was_printed_without_the_clients_count() {
        let printed =
            "Check complete, 1 warning has been found!\n\nWARNING: a  \n/room/context/Dockerfile:1\n\n";
        let room = Path::new("/room");
        assert_eq!(answer(printed, room), "WARNING: a\nDockerfile:1");
        assert_eq!(answer("Check complete, no warnings found.\n", room), "");
    }

    #[test]
    fn the_last_excerpt_of_a_transcript_is_found() {
        let dashes = "--------------------";
        let text = format!(
            "#1 x\n------\n > [2/2] RUN x:\n------\nDockerfile:2\n{dashes}\n   1 |     FROM a\n   2 | >>> RUN x\n   3 |     \n{dashes}\nERROR: y\n"
        );
        let found = excerpt(&text).unwrap();
        assert_eq!(found, "Dockerfile:2\n   1 |     FROM a\n   2 | >>> RUN x\n   3 |");
        assert_eq!(excerpt("ERROR: y\n"), None);
        assert_eq!(excerpt(&format!("{dashes}\n{dashes}\n")), None);
    }

    #[test]
    fn an_excuse_hides_only_what_it_names() {
        let want = observed(&[("a", "f 0644 0:0 \"1\""), ("b", "d 0755 0:0")]);
        let have = observed(&[]);
        let excused = BTreeMap::from([("/a:".to_owned(), "reason".to_owned())]);
        assert_eq!(differences(&want, &have, &excused).len(), 1);
    }
}
