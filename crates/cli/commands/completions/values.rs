//! What flags and operands take, by their names: words, and names of what this machine has.

use std::path::PathBuf;

use clap::Arg;

use super::{Answer, Candidate, Directive, Line, dockerfile};
use crate::commands::{NamesAt, bake, builders};
use crate::engine::Names;
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
    pub(super) names: NamesAt<'a>,
}

/// What an argument takes.
enum Taken {
    /// One of these.
    Words(Vec<String>),
    /// One of these, of which there is more to say.
    Described(Vec<(String, String)>),
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
            Taken::Described(words) => return described(&words, begun, before),
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
            ("builder" | "_builder", _) | ("context", "CONTEXT") | ("names", "NAMES") => {
                words(&[builders::NAME])
            }
            ("targets", "TARGET") => Taken::Described(self.targets()),
            ("set", "TARGET.KEY=VALUE") => {
                let targets = self.targets().into_iter();
                Taken::Begun(targets.map(|(name, _)| name + ".").collect())
            }
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
            (_, "CONTAINER") => Taken::Words(self.stored().containers),
            (_, "CONTAINER:PATH") => {
                let names = self.stored().containers.into_iter();
                Taken::Begun(names.map(|name| name + ":").collect())
            }
            (_, name) if is_image(name) => Taken::Words(self.stored().images),
            _ => Taken::Files,
        }
    }

    /// What the store has.
    fn stored(&self) -> Names {
        let root = self.line.said("root").map(str::to_owned);
        let root = root.or_else(|| self.env.filled("RBUILD_ROOT"));
        (self.names)(root.map(PathBuf::from))
    }

    /// Targets and groups of the bake files that the line names, or of the usual ones, with what they say of themselves.
    fn targets(&self) -> Vec<(String, String)> {
        let vars = self.line.all("var");
        bake::targets(&self.line.all("file"), &vars, self.env)
    }
}

/// Those that begin so, with what there is to say of them.
fn described(words: &[(String, String)], begun: &str, before: &str) -> Answer {
    let fitting = words.iter().filter(|(word, _)| word.starts_with(begun));
    let candidates = fitting.map(|(word, about)| Candidate::new(format!("{before}{word}"), about));
    Answer {
        candidates: candidates.collect(),
        directive: Directive::NO_FILES,
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
