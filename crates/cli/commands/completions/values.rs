//! What flags and operands take, by their names: words, and names of what this machine has.

use std::collections::BTreeSet;

use clap::Arg;

use super::{Answer, Candidate, Directive, Line, dockerfile};
use crate::commands::{Open, builders};
use crate::engine::{Engine, EngineOptions};
use crate::env::Env;
use crate::request::nearest::{
    CACHES, CALL_FIELDS, COMPRESSIONS, ENTITLEMENTS, EXPORTERS, NETWORKS, PROGRESS, QUESTIONS,
};

/// Platforms that images are commonly made for.
const PLATFORMS: [&str; 9] = [
    "linux/386",
    "linux/amd64",
    "linux/arm/v6",
    "linux/arm/v7",
    "linux/arm64",
    "linux/ppc64le",
    "linux/riscv64",
    "linux/s390x",
    "linux/loong64",
];
/// Networks of a build of ours besides BuildKit's.
const OWN_NETWORKS: [&str; 2] = ["sandbox", "proxy"];
const BOOLS: [&str; 2] = ["true", "false"];

/// What is known beside the argument.
pub(super) struct Surroundings<'a> {
    pub(super) line: &'a Line<'a>,
    pub(super) env: &'a Env,
    pub(super) options: EngineOptions,
    pub(super) open: Open<'a>,
}

/// What an argument takes.
enum Taken {
    /// One of these.
    Words(Vec<String>),
    /// Several of these, with commas between.
    Listed(Vec<String>),
    /// Fields of `key=value`, with commas between: what each may be, and which of them wait for a value.
    Fields(Vec<String>),
    /// A word that goes on: the shell adds no blank.
    Begun(Vec<String>),
    Directories,
    /// Files, and whatever else.
    Files,
}

impl Surroundings<'_> {
    /// What may stand for `value` of `arg`; `before` stands before it in the same word.
    pub(super) fn values(&self, arg: &Arg, value: &str, before: &str) -> Answer {
        let possible = arg.get_possible_values();
        let taken = if possible.is_empty() {
            self.taken(arg, value)
        } else {
            Taken::Words(possible.iter().map(|one| one.get_name().to_owned()).collect())
        };
        let (kept, begun) = match (&taken, value.rfind(',')) {
            (Taken::Listed(_) | Taken::Fields(_), Some(comma)) => value.split_at(comma + 1),
            _ => ("", value),
        };
        let (words, directive) = match taken {
            Taken::Words(words) | Taken::Listed(words) => (words, Directive::NO_FILES),
            Taken::Begun(words) => (words, Directive(Directive::NO_FILES.0 | Directive::NO_SPACE.0)),
            // A value may be a path.
            Taken::Fields(words) => (words, Directive::NO_SPACE),
            Taken::Directories => (Vec::new(), Directive::DIRECTORIES),
            Taken::Files => (Vec::new(), Directive::FILES),
        };
        let fitting = words.into_iter().filter(|word| word.starts_with(begun));
        let candidates = fitting.map(|word| Candidate::new(format!("{before}{kept}{word}"), ""));
        Answer {
            candidates: candidates.collect(),
            directive,
        }
    }

    fn taken(&self, arg: &Arg, value: &str) -> Taken {
        let name = arg
            .get_value_names()
            .and_then(|names| names.first())
            .map_or("", |name| name.as_str());
        match (arg.get_id().as_str(), name) {
            ("progress", _) => words(&PROGRESS),
            ("network", _) => owned(NETWORKS.iter().chain(&OWN_NETWORKS)),
            ("allow", _) => words(&ENTITLEMENTS),
            ("platform", _) => Taken::Listed(strings(&PLATFORMS)),
            ("call", _) if value.contains(',') => Taken::Fields(equals(&CALL_FIELDS)),
            ("call", _) => words(&QUESTIONS),
            ("output", "DEST") => Taken::Fields(output(value)),
            ("cache_to" | "cache_from", _) => Taken::Fields(cache(value)),
            ("attest", _) => Taken::Fields(vec!["type=provenance".into(), "type=sbom".into()]),
            ("provenance" | "sbom", _) | (_, "BOOL") => words(&BOOLS),
            ("secret", _) => Taken::Fields(equals(&["id", "src", "env"])),
            ("load", _) => Taken::Begun(strings(&[
                "true",
                "false",
                "docker",
                "podman",
                "containerd",
                "unix:///",
            ])),
            ("builder", _) => words(&[builders::NAME]),
            ("name" | "_name", "NAME") if arg.is_positional() => words(&[builders::NAME]),
            ("format", _) => words(&["table", "json"]),
            ("shell", _) => words(&["bash", "zsh", "fish", "elvish", "powershell"]),
            ("rung", _) => owned(
                rbuild_sys::userns::Rung::ALL
                    .map(rbuild_sys::userns::Rung::name)
                    .iter(),
            ),
            ("snapshotter", _) => owned(
                rbuild_snapshotter::Means::ALL
                    .map(rbuild_snapshotter::Means::name)
                    .iter()
                    .chain(&["auto"]),
            ),
            ("build_arg", _) => Taken::Begun(dockerfile::arguments(self.line)),
            (_, "STAGE") => Taken::Words(dockerfile::stages(self.line)),
            (_, "DIR" | "PATH | URL | -") => Taken::Directories,
            (_, "CONTAINER") => Taken::Words(self.containers()),
            (_, "CONTAINER:PATH") => {
                let names = self.containers().into_iter();
                Taken::Begun(names.map(|name| name + ":").collect())
            }
            (_, name) if is_image(name) => Taken::Words(self.images()),
            _ => Taken::Files,
        }
    }

    /// The engine, where there is a store: asking makes none.
    fn engine(&self) -> Option<Box<dyn Engine>> {
        let root = self.options.root.clone();
        let root = root.or_else(|| self.env.filled("RBUILD_ROOT").map(Into::into));
        let root = root.or_else(crate::native::store_root)?;
        root.is_dir().then_some(())?;
        let options = EngineOptions {
            root: Some(root),
            ..self.options.clone()
        };
        (self.open)(options).ok()
    }

    /// Names of images.
    fn images(&self) -> Vec<String> {
        let rows = self.engine().and_then(|engine| engine.images().ok());
        let names = rows.into_iter().flatten().filter_map(|row| {
            let (repository, tag) = (row.repository?, row.tag?);
            Some(format!("{repository}:{tag}"))
        });
        names.collect::<BTreeSet<String>>().into_iter().collect()
    }

    fn containers(&self) -> Vec<String> {
        let rows = self.engine().and_then(|engine| engine.containers().ok());
        let names = rows.into_iter().flatten().map(|row| {
            let short = row.id.get(..12).unwrap_or(&row.id).to_owned();
            row.name.unwrap_or(short)
        });
        names.collect()
    }
}

/// Whether an argument of this name is an image of the store.
fn is_image(name: &str) -> bool {
    let names = [
        "IMAGE",
        "IMAGE [COMMAND]",
        "SOURCE_IMAGE[:TAG]",
        "TARGET_IMAGE[:TAG]",
        "REPOSITORY[:TAG]",
        "NAME[:TAG]",
        "NAME[:TAG|@DIGEST]",
    ];
    names.contains(&name)
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn equals(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| format!("{key}=")).collect()
}

fn words(words: &[&str]) -> Taken {
    Taken::Words(strings(words))
}

fn owned<'a>(words: impl Iterator<Item = &'a &'static str>) -> Taken {
    Taken::Words(words.map(|&word| word.to_owned()).collect())
}

/// `type=` with each of its values; once there is one, the keys.
fn fields(value: &str, kinds: &[&str], more: Vec<String>) -> Vec<String> {
    if value
        .split(',')
        .any(|field| field.starts_with("type=") && value.contains(','))
    {
        return more;
    }
    kinds.iter().map(|kind| format!("type={kind}")).collect()
}

fn compressions() -> impl Iterator<Item = String> {
    COMPRESSIONS.iter().map(|name| format!("compression={name}"))
}

fn output(value: &str) -> Vec<String> {
    let keys = [
        "dest",
        "name",
        "push",
        "push-by-digest",
        "tar",
        "oci-mediatypes",
        "force-compression",
        "compression-level",
        "rewrite-timestamp",
        "platform-split",
    ];
    fields(
        value,
        &EXPORTERS,
        equals(&keys).into_iter().chain(compressions()).collect(),
    )
}

fn cache(value: &str) -> Vec<String> {
    let keys = strings(&[
        "mode=max",
        "mode=min",
        "ref=",
        "dest=",
        "src=",
        "tag=",
        "ignore-error=",
    ]);
    fields(value, &CACHES, keys.into_iter().chain(compressions()).collect())
}
