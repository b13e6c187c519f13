//! What a front end answers: file systems that may not be built yet, and metadata; one of each, or one for each
//! platform (`frontend/gateway/client/result.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use rbuild_builder::attestation::{SPDX, Subject};
use rbuild_builder::build::{ruled, solve_value, to_chain};
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
pub(crate) const BASE_CONFIG: &str = "containerimage.base.config";
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
    /// The graph when its sources follow the rules.
    ruled: OnceCell<(Arc<Graph>, Edge)>,
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
            ruled: OnceCell::new(),
            value: OnceCell::new(),
            chain: OnceCell::new(),
        }
    }

    /// A file system that is there already, and that no definition leads to.
    #[must_use]
    pub(crate) fn of_value(value: Value) -> Self {
        Self {
            value: OnceCell::new_with(Some(value)),
            ..Self::new(Arc::default(), None, None)
        }
    }

    /// The same, of sources that `policies` allow too.
    #[must_use]
    pub(crate) fn with_policies(mut self, policies: SourcePolicies) -> Self {
        self.policies = policies;
        self
    }

    /// The same, whose vertices the client calls so.
    #[must_use]
    pub(crate) fn with_digests(mut self, digests: ClientDigests) -> Self {
        self.digests = digests;
        self
    }

    /// What it is. The first caller has it built.
    ///
    /// # Errors
    /// The build's, which name vertices as the client does.
    pub async fn value(&self, job: &Arc<Job>, cancel: &CancellationToken) -> Result<Value, BuildError> {
        if let Some(built) = self.value.get() {
            return Ok(built.clone());
        }
        let Some(target) = &self.target else {
            return Ok(Value::Chain(Chain::default()));
        };
        let build = async || {
            let policies = self.policies.clone().before(&job.settings.policies);
            let rules = || ruled(job, &self.graph, target.clone(), &policies, cancel);
            let (graph, target) = self.ruled.get_or_try_init(rules).await?;
            solve_value(job, graph, target.clone(), cancel.clone()).await
        };
        let built = self.value.get_or_try_init(build).await.cloned();
        built.map_err(|error| match error {
            BuildError::Step {
                vertex: Some(ours),
                place,
                failed,
                error,
            } => {
                let client = self.digests.client(&ours).cloned();
                BuildError::Step {
                    vertex: Some(client.map_or(ours, VertexDigest)),
                    place,
                    failed,
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

    /// What of the graph it is; nothing is an empty file system.
    #[must_use]
    pub const fn target(&self) -> Option<&Edge> {
        self.target.as_ref()
    }

    /// The graph and what of it this is, with the rules for sources followed once it was built.
    #[must_use]
    pub fn ruled(&self) -> Option<(&Graph, &Edge)> {
        match self.ruled.get() {
            Some((graph, target)) => Some((graph, target)),
            None => Some((&self.graph, self.target.as_ref()?)),
        }
    }

    /// Whether somebody needed it.
    #[must_use]
    pub(crate) fn is_built(&self) -> bool {
        self.value.initialized()
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
    /// What is said of the file systems, by the ids of their platforms.
    pub attestations: BTreeMap<String, Vec<Attested>>,
}

/// Something a front end says of a file system (`solver/result/attestation.go`).
#[derive(Debug, Clone)]
pub struct Attested {
    /// A directory of statements, not the predicate of one.
    pub is_bundle: bool,
    /// Why it is there, and what it is for.
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// Where it is.
    pub found: Option<Arc<BuildRef>>,
    /// Place of the file or directory there.
    pub path: String,
    /// Type of the predicate.
    pub predicate_type: String,
    /// What it is said of; the file system if empty.
    pub subjects: Vec<Subject>,
}

impl Answer {
    /// An answer without a file system.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            refs: Refs::One(None),
            metadata: BTreeMap::new(),
            attestations: BTreeMap::new(),
        }
    }

    /// The file systems that attestations are in.
    pub fn attested(&self) -> impl Iterator<Item = &Arc<BuildRef>> {
        let all = self.attestations.values().flatten();
        all.filter_map(|attested| attested.found.as_ref())
    }

    /// Whether the front end listed packages itself.
    #[must_use]
    pub(crate) fn has_sbom(&self) -> bool {
        let mut all = self.attestations.values().flatten();
        all.any(|attested| attested.predicate_type == SPDX)
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
