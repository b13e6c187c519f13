//! Provenance while its build is not over: the layers of its steps have no blobs before they are exported, and its end
//! is not known before it is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use rbuild_graph::{Edge, Graph, GraphError, Op, VertexDigest};
use rbuild_llb::EncodeError;
use rbuild_llb::steps::{Steps, StepsError};
use rbuild_oci::{Descriptor, Platform};
use rbuild_store::StoreError;
use serde_json::{Map, Value as Json};

use super::capture::Capture;
use super::options::{Mode, Options};
use super::predicate::{Details, IncompleteMaterials, Invocation, Predicate, predicate_type};
use super::redact;
use super::request::Request;
use crate::job::Job;
use crate::ops::{blocking, source};
use crate::value::Chain;

/// Why there is no provenance.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// Not all materials are known, and they have to be.
    #[error(transparent)]
    Incomplete(#[from] IncompleteMaterials),
    /// The graph cannot be written as a definition.
    #[error("failed to write the build's definition")]
    Encode(#[from] EncodeError),
    /// The definition cannot be told.
    #[error(transparent)]
    Steps(#[from] StepsError),
}

/// Provenance of a result that is being exported.
#[derive(Debug)]
pub struct Draft {
    predicate: Predicate,
    /// Vertices with the numbers of their steps, where layers are told.
    steps: BTreeMap<VertexDigest, usize>,
}

/// A result, and what is known of how it was asked for.
#[derive(Debug)]
pub struct Told<'a> {
    /// What it was made of.
    pub capture: &'a Capture,
    /// What was asked for.
    pub request: Request,
    /// Its graph; nothing for an empty result.
    pub graph: Option<(&'a Graph, &'a Edge)>,
}

impl Draft {
    /// What `options` want to be said of a result of `job`.
    ///
    /// # Errors
    /// [`DraftError`].
    pub fn new(job: &Job, told: Told<'_>, options: Options) -> Result<Self, DraftError> {
        let mut details = Details::default();
        let mut steps = BTreeMap::new();
        if let (Mode::Max, Some((graph, target))) = (options.mode, told.graph) {
            let (definition, names) = rbuild_llb::encode_named(graph, target)?;
            let found = Steps::of(&definition, redact::credentials)?;
            details.build_config = Some(found.to_json().into());
            if let Some(source) = &definition.source {
                details.source = found.source(source, redact::credentials)?;
            }
            let numbered = names.into_iter();
            steps = numbered
                .filter_map(|(vertex, digest)| Some((vertex, found.number(&digest)?)))
                .collect();
        }
        let invocation = Invocation {
            id: job.invocation.id.clone(),
            started: crate::time::from_ms(job.invocation.started_ms),
            finished: None,
            builder_platform: Platform::host().to_string(),
            custom: job.settings.provenance_keys.clone(),
        };
        let predicate = Predicate::new(told.capture, told.request, invocation, options, details)?;
        Ok(Self { predicate, steps })
    }

    /// How it is to be said.
    #[must_use]
    pub const fn options(&self) -> &Options {
        self.predicate.options()
    }

    /// Type of the predicate.
    #[must_use]
    pub const fn predicate_type(&self) -> &'static str {
        predicate_type(self.predicate.options().version)
    }

    /// The predicate, as of now.
    ///
    /// # Errors
    /// The store's.
    pub async fn tell(&self, job: &Arc<Job>) -> Result<Json, StoreError> {
        let mut predicate = self.predicate.clone();
        predicate.invocation.finished = crate::time::from_ms(crate::time::now_ms());
        if self.options().capture_usage {
            predicate.usage = job.usage.samples().await;
        }
        if !self.steps.is_empty() {
            let layers = self.layers(job).await?;
            predicate.details.layers = (!layers.is_empty()).then(|| layers.into());
        }
        Ok(predicate.to_json())
    }

    /// The blobs of each step's outputs, as far as there are any.
    async fn layers(&self, job: &Arc<Job>) -> Result<Map<String, Json>, StoreError> {
        let mut outputs = Vec::new();
        for (vertex, number) in &self.steps {
            for (output, chain) in (0..).zip(job.results.of(vertex)) {
                outputs.push((format!("step{number}:{output}"), chain));
            }
        }
        let job = Arc::clone(job);
        blocking(move || {
            let mut layers = Map::new();
            for (name, chain) in outputs {
                if let Some(blobs) = blobs(&job, &chain)?.filter(|blobs| !blobs.is_empty()) {
                    // One list: the same layers however often they were reached.
                    let blobs = serde_json::to_value([blobs]).unwrap_or_default();
                    layers.insert(name, blobs);
                }
            }
            Ok(layers)
        })
        .await
    }
}

/// The blobs of `chain`, if all of them are known.
fn blobs(job: &Job, chain: &Chain) -> Result<Option<Vec<Descriptor>>, StoreError> {
    let mut found = Vec::with_capacity(chain.layers().len());
    for layer in chain.layers() {
        if let Some(remote) = job.remote(layer) {
            let plain = &remote.descriptor;
            found.push(Descriptor::new(
                &plain.media_type,
                plain.digest.clone(),
                plain.size,
            ));
            continue;
        }
        let Some(packed) = job.engine.snapshotter.packed_layer(&job.lease, layer)? else {
            return Ok(None);
        };
        found.push(Descriptor::new(&packed.media_type, packed.digest, packed.size));
    }
    Ok(Some(found))
}

/// What `target` of `graph`, in which the rules for sources were followed, was made of in `job`.
///
/// # Errors
/// [`GraphError`] for a target that is not in the graph.
pub async fn capture(job: &Job, graph: &Graph, target: &Edge) -> Result<Capture, GraphError> {
    let mut pins = BTreeMap::new();
    let reachable = graph.reachable(std::slice::from_ref(&target.vertex))?;
    for digest in &reachable {
        if let Some(vertex) = graph.get(digest)
            && let Op::Source(source) = &vertex.op
            && let Some(pin) = source::pin(job, source, vertex.platform.as_ref()).await
        {
            pins.insert(digest.clone(), pin);
        }
    }
    let mut capture = Capture::of(graph, &target.vertex, |digest, _| pins.get(digest).cloned())?;
    for digest in reachable {
        let Some(Op::Exec(exec)) = graph.get(&digest).map(|vertex| &vertex.op) else {
            continue;
        };
        capture.proxy_network |= job.is_proxied(exec.network);
        if let Some((command, fetched)) = job.captures.of(&digest) {
            capture.add_fetched(&command, &fetched);
        }
    }
    Ok(capture)
}
