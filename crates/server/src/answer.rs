//! What a front end answers: file systems that may not be built yet, and metadata; one of each, or one for each
//! platform (`frontend/gateway/client/result.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use rbuild_builder::build::{solve_value_by, to_chain};
use rbuild_builder::error::BuildError;
use rbuild_builder::job::Job;
use rbuild_builder::source_policy::SourcePolicies;
use rbuild_builder::value::{Chain, Value};
use rbuild_graph::{Edge, Graph, VertexDigest};
use rbuild_llb::ClientDigests;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// Metadata: config of the image; `/platform` behind it where there are several (`exptypes`).
pub const CONFIG: &str = "containerimage.config";
/// Metadata: config of the base image, likewise.
pub const BASE_CONFIG: &str = "containerimage.base.config";
/// Metadata: seconds since 1970 that no time of the result is after.
pub const EPOCH: &str = "source.date.epoch";
/// Metadata: the platforms of the answer, in order.
pub const PLATFORMS: &str = "refs.platforms";

/// A file system of a build: built when somebody needs it, once.
#[derive(Debug)]
pub struct BuildRef {
    graph: Arc<Graph>,
    /// What of the graph it is; nothing is an empty file system.
    target: Option<Edge>,
    /// The same as the client's language has it.
    definition: Option<pb::Definition>,
    /// Rules for its sources, beside those of the build.
    policies: SourcePolicies,
    /// What the client calls its vertices.
    digests: ClientDigests,
    value: OnceCell<Value>,
    chain: OnceCell<Chain>,
}

impl BuildRef {
    /// The file system that `target` of `graph` is.
    #[must_use]
    pub fn new(graph: Arc<Graph>, target: Option<Edge>, definition: Option<pb::Definition>) -> Self {
        Self {
            graph,
            target,
            definition,
            policies: SourcePolicies::default(),
            digests: ClientDigests::default(),
            value: OnceCell::new(),
            chain: OnceCell::new(),
        }
    }

    /// The same, of sources that `policies` allow too.
    #[must_use]
    pub fn with_policies(mut self, policies: SourcePolicies) -> Self {
        self.policies = policies;
        self
    }

    /// The same, whose vertices the client calls so.
    #[must_use]
    pub fn with_digests(mut self, digests: ClientDigests) -> Self {
        self.digests = digests;
        self
    }

    /// What it is. The first caller has it built.
    ///
    /// # Errors
    /// The build's, which name vertices as the client does.
    pub async fn value(&self, job: &Arc<Job>, cancel: &CancellationToken) -> Result<Value, BuildError> {
        let Some(target) = &self.target else {
            return Ok(Value::Chain(Chain::default()));
        };
        let policies = self.policies.clone().before(&job.settings.policies);
        let build = || solve_value_by(job, &self.graph, target.clone(), &policies, cancel.clone());
        let built = self.value.get_or_try_init(build).await.cloned();
        built.map_err(|error| match error {
            BuildError::Step {
                vertex: Some(ours),
                place,
                error,
            } => {
                let client = self.digests.client(&ours).cloned();
                BuildError::Step {
                    vertex: Some(client.map_or(ours, VertexDigest)),
                    place,
                    error,
                }
            }
            error => error,
        })
    }

    /// Its layers: a directory of the client becomes one.
    ///
    /// # Errors
    /// The build's.
    pub async fn chain(&self, job: &Arc<Job>, cancel: &CancellationToken) -> Result<Chain, BuildError> {
        let build = async || to_chain(job, &self.value(job, cancel).await?).await;
        self.chain.get_or_try_init(build).await.cloned()
    }

    /// The graph it is part of.
    #[must_use]
    pub const fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Its definition, for a client that goes on from it.
    #[must_use]
    pub const fn definition(&self) -> Option<&pb::Definition> {
        self.definition.as_ref()
    }
}

/// The file systems of an answer.
#[derive(Debug, Clone)]
pub enum Refs {
    /// One; nothing is an empty one.
    One(Option<Arc<BuildRef>>),
    /// One for each key, a platform's id usually.
    Many(BTreeMap<String, Option<Arc<BuildRef>>>),
}

/// What a front end answers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The file systems.
    pub refs: Refs,
    /// `containerimage.config` and others (`exporter/containerimage/exptypes`).
    pub metadata: BTreeMap<String, Vec<u8>>,
}

impl Answer {
    /// An answer without a file system.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            refs: Refs::One(None),
            metadata: BTreeMap::new(),
        }
    }

    /// Every file system, with its key (empty for the only one).
    pub fn all(&self) -> Vec<(&str, Option<&Arc<BuildRef>>)> {
        match &self.refs {
            Refs::One(one) => vec![("", one.as_ref())],
            Refs::Many(many) => many
                .iter()
                .map(|(key, found)| (key.as_str(), found.as_ref()))
                .collect(),
        }
    }
}
