//! The predicate: what was asked for, what it was made of and when, in the words of SLSA v1 and v0.2
//! (`solver/llbsolver/provenance/predicate.go`, `provenance/types/types.go`, `solver/llbsolver/provenance.go`).

use std::collections::{BTreeMap, BTreeSet};

use rbuild_oci::Timestamp;
use serde_json::{Map, Value as Json, json};

use super::capture::Capture;
use super::materials::materials;
use super::options::{Mode, Options, SlsaVersion};
use super::request::{ConfigSource, Request};
use crate::proxy_network::Incomplete;

mod slsa02;

/// Predicate type of v1.
const TYPE_V1: &str = "https://slsa.dev/provenance/v1";
/// Predicate type of v0.2.
const TYPE_V02: &str = "https://slsa.dev/provenance/v0.2";
/// What both begin with: front ends may not make any.
pub(crate) const TYPE_PREFIX: &str = "https://slsa.dev/provenance/";
const BUILD_TYPE_V1: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
const BUILD_TYPE_V02: &str = "https://mobyproject.org/buildkit@v1";
/// The only front end that has a version of its own here.
const DOCKERFILE: &str = "dockerfile.v0";
/// Version of BuildKit's Dockerfile front end whose language is understood here.
pub const DOCKERFILE_VERSION: &str = "1.26.0";
/// The results are those of this version of BuildKit (`solver/llbsolver/compat`).
const COMPATIBILITY_VERSION: u32 = 30;

/// The predicate type of a version.
#[must_use]
pub const fn predicate_type(version: SlsaVersion) -> &'static str {
    match version {
        SlsaVersion::V1 => TYPE_V1,
        SlsaVersion::V02 => TYPE_V02,
    }
}

/// Not all materials are known, and they have to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "provenance materials are incomplete\n\nThe build requested complete provenance materials, but not all \
     dependencies could be captured.{}{}",
    local_sources(.locals),
    uncaptured(.requests)
)]
pub struct IncompleteMaterials {
    /// Directories of the client.
    pub locals: Vec<String>,
    /// What steps fetched through their proxies.
    pub requests: Vec<Incomplete>,
}

fn uncaptured(all: &[Incomplete]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let entry = |one: &Incomplete| {
        format!(
            "\n  - {}\n    method: {}\n    url: {}\n    reason: {}",
            one.name, one.method, one.url, one.reason
        )
    };
    let entries: String = all.iter().map(entry).collect();
    format!("\n\nUncaptured requests:{entries}")
}

fn local_sources(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let entry = |name: &String| format!("\n  - {name}\n    reason: local_source");
    let entries: String = names.iter().map(entry).collect();
    format!("\n\nUncaptured local sources:{entries}")
}

/// The build, as whoever runs it knows it.
#[derive(Debug, Clone, Default)]
pub struct Invocation {
    /// Its id.
    pub id: String,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// Platform of the machine.
    pub builder_platform: String,
    /// Keys that the administrator adds.
    pub custom: Map<String, Json>,
}

/// What only [`Mode::Max`] says.
#[derive(Debug, Clone, Default)]
pub struct Details {
    /// `llbDefinition` and `digestMapping`.
    pub build_config: Option<Json>,
    /// `infos` and `locations`.
    pub source: Option<Json>,
    /// Descriptors of each step's layers.
    pub layers: Option<Json>,
}

/// Provenance of one result.
#[derive(Debug, Clone)]
pub struct Predicate {
    materials: Vec<Json>,
    config_source: ConfigSource,
    request: Map<String, Json>,
    dockerfile_version: Option<&'static str>,
    vcs: Map<String, Json>,
    complete_request: bool,
    complete_materials: bool,
    hermetic: bool,
    network: Option<Json>,
    options: Options,
    /// The build: its end is not known before it is told.
    pub invocation: Invocation,
    /// What only [`Mode::Max`] says; empty otherwise.
    pub details: Details,
    /// Samples of how busy the machine was; empty unless they are asked for.
    pub usage: Vec<Json>,
}

impl Predicate {
    /// What is to be said of a result made of `capture`, asked for by `request`.
    ///
    /// # Errors
    /// [`IncompleteMaterials`].
    pub fn new(
        capture: &Capture,
        request: Request,
        invocation: Invocation,
        options: Options,
        details: Details,
    ) -> Result<Self, IncompleteMaterials> {
        let complete_materials = !capture.incomplete_materials && capture.locals.is_empty();
        if options.complete_materials && !complete_materials {
            return Err(IncompleteMaterials {
                locals: capture.locals.iter().cloned().collect(),
                requests: capture.proxy_incomplete.iter().cloned().collect(),
            });
        }
        let mut record = request.located(capture);
        let vcs = take_vcs(&mut record.request.args);
        let mut complete_request = !record.request.frontend.is_empty();
        if options.mode == Mode::Min && record.request.scrub() {
            complete_request = false;
        }
        let details = match options.mode {
            Mode::Min => Details::default(),
            Mode::Max => details,
        };
        let is_dockerfile = record.request.frontend == DOCKERFILE;
        Ok(Self {
            materials: materials(capture),
            config_source: record.config_source,
            request: whole_request(capture, &options, &record.request),
            dockerfile_version: is_dockerfile.then_some(DOCKERFILE_VERSION),
            vcs,
            complete_request,
            complete_materials,
            hermetic: complete_materials && !capture.network_access,
            network: capture.proxy_network.then(|| network(&capture.proxy_incomplete)),
            options,
            invocation,
            details,
            usage: Vec::new(),
        })
    }

    /// How it is to be said.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// The predicate in the version asked for.
    #[must_use]
    pub fn to_json(&self) -> Json {
        match self.options.version {
            SlsaVersion::V1 => self.to_v1(),
            SlsaVersion::V02 => self.to_v02(),
        }
    }

    fn to_v1(&self) -> Json {
        let mut internal = self.environment("builderPlatform");
        put(&mut internal, "buildConfig", self.details.build_config.clone());
        let mut definition = json!({
            "buildType": BUILD_TYPE_V1,
            "externalParameters": {
                "configSource": self.config_source.to_json("path"),
                "request": self.request,
            },
            "internalParameters": internal,
        });
        if !self.materials.is_empty() {
            definition["resolvedDependencies"] = self.materials.clone().into();
        }
        let mut metadata = self.times(["invocationId", "startedOn", "finishedOn"]);
        metadata.insert("buildkit_metadata".to_owned(), self.metadata());
        metadata.insert(
            "buildkit_completeness".to_owned(),
            json!({"request": self.complete_request, "resolvedDependencies": self.complete_materials}),
        );
        put(&mut metadata, "buildkit_hermetic", self.hermetic.then_some(true));
        put(
            &mut metadata,
            "buildkit_reproducible",
            self.options.reproducible.then_some(true),
        );
        json!({
            "buildDefinition": definition,
            "runDetails": {"builder": {"id": self.options.builder_id}, "metadata": metadata},
        })
    }

    /// The machine, and what its administrator says of it.
    fn environment(&self, platform: &str) -> Map<String, Json> {
        let mut environment = Map::new();
        environment.insert(
            platform.to_owned(),
            self.invocation.builder_platform.clone().into(),
        );
        put(&mut environment, "dockerfileVersion", self.dockerfile_version);
        environment.extend(self.invocation.custom.clone());
        environment
    }

    fn times(&self, [id, started, finished]: [&str; 3]) -> Map<String, Json> {
        let mut metadata = Map::new();
        let invocation = &self.invocation;
        put(
            &mut metadata,
            id,
            Some(invocation.id.clone()).filter(|id| !id.is_empty()),
        );
        let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
        put(&mut metadata, started, text(invocation.started));
        put(&mut metadata, finished, text(invocation.finished));
        metadata
    }

    fn metadata(&self) -> Json {
        let mut metadata = Map::new();
        let vcs = Some(self.vcs.clone()).filter(|vcs| !vcs.is_empty());
        put(&mut metadata, "vcs", vcs);
        put(&mut metadata, "source", self.details.source.clone());
        put(&mut metadata, "layers", self.details.layers.clone());
        let usage = Some(self.usage.clone()).filter(|samples| !samples.is_empty());
        put(&mut metadata, "sysUsage", usage);
        put(&mut metadata, "network", self.network.clone());
        metadata.into()
    }
}

/// How steps reached the network, if that is more than a yes.
fn network(incomplete: &BTreeSet<Incomplete>) -> Json {
    let mut network = json!({"mode": "proxy"});
    if !incomplete.is_empty() {
        let one = |one: &Incomplete| json!({"name": one.name, "method": one.method, "uri": one.url, "reason": one.reason});
        network["proxy"] = json!({"incomplete": incomplete.iter().map(one).collect::<Vec<Json>>()});
    }
    network
}

fn put(map: &mut Map<String, Json>, key: &str, value: Option<impl Into<Json>>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value.into());
    }
}

/// Takes what the client says of its repository out of the options.
fn take_vcs(args: &mut BTreeMap<String, String>) -> Map<String, Json> {
    let mut vcs = Map::new();
    args.retain(|key, value| match key.strip_prefix("vcs:") {
        Some(name) => {
            let said = Some(value.clone()).filter(|value| !value.is_empty());
            put(&mut vcs, name, said);
            false
        }
        None => true,
    });
    vcs
}

/// The request, and what of the client's it used.
fn whole_request(capture: &Capture, options: &Options, request: &Request) -> Map<String, Json> {
    let mut fields = request.to_json();
    let ids = |ids: &BTreeMap<String, bool>| -> Option<Vec<Json>> {
        let one = |(id, optional): (&String, &bool)| {
            let mut entry = Map::new();
            entry.insert("id".to_owned(), id.clone().into());
            put(&mut entry, "optional", optional.then_some(true));
            Json::from(entry)
        };
        (options.mode == Mode::Max && !ids.is_empty()).then(|| ids.iter().map(one).collect())
    };
    put(&mut fields, "secrets", ids(&capture.secrets));
    put(&mut fields, "ssh", ids(&capture.ssh));
    let locals = capture.locals.iter();
    let locals: Vec<Json> = locals.map(|name| json!({ "name": name })).collect();
    put(&mut fields, "locals", (!locals.is_empty()).then_some(locals));
    put(&mut fields, "compatibilityVersion", Some(COMPATIBILITY_VERSION));
    fields
}

#[cfg(test)]
mod tests;
