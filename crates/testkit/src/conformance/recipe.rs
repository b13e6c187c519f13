//! `case.toml`: what a case is about, and how it is to be built.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::context::Entry;

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
    /// What a daemon built before would decide its answer: it forgets that first.
    #[serde(default)]
    pub forgets: bool,
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
