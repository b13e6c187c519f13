//! One build at work: what the solver's executor needs to define, find, lock, run and remember vertices.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rbuild_fileops::SourceTree;
use rbuild_graph::progress::Sink;
use rbuild_graph::{Graph, Op, Vertex, VertexDigest};
use rbuild_oci::Digest;
use rbuild_store::{KeyLock, LayerId, Lease, Record};
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::images::RemoteLayer;
use crate::ops::define;
use crate::ops::{self, OpError};
use crate::request::Entitlement;
use crate::secrets::Secrets;
use crate::solve::{
    Cached, ContentInput, Definition, Executor, Ingredient, Key, Miss, Reporter, first_difference,
};
use crate::ssh::SshAgents;
use crate::value::{Chain, Value};

/// Records of one site that are compared to explain a miss.
const NEAREST_MAX: usize = 8;
/// How often a key that another process holds is tried again.
const LOCK_POLL: Duration = Duration::from_millis(10);
/// Table of the store in which fresh identities are kept: results that were forced to run.
const IDENTITY_SPACE: &str = "identity";

/// One build.
pub struct Job {
    /// Store, images, form: what all builds of a process share.
    pub engine: Arc<Engine>,
    /// Keeps what this build touches from being collected.
    pub lease: Arc<Lease>,
    /// The graph.
    pub graph: Arc<Graph>,
    /// Local sources by name (`context`, and those of `--build-context`).
    pub contexts: HashMap<String, Arc<SourceTree>>,
    /// Secrets.
    pub secrets: Secrets,
    /// SSH agents.
    pub ssh: Arc<SshAgents>,
    /// What steps may do beyond the sandbox.
    pub entitlements: Vec<Entitlement>,
    /// The host's certificates, with `--host-ca`.
    pub host_ca: Option<ops::host_ca::Bundle>,
    /// `--shm-size`, bytes.
    pub shm_size_bytes: Option<u64>,
    /// `--no-cache`: cache mounts with an owner or a mode begin anew.
    pub fresh_mounts: bool,
    /// Sets builds of different projects apart when a miss is explained.
    pub site: String,
    /// What remote sources answered.
    pub sources: Arc<ops::source::Sources>,
    /// Layers that can be fetched.
    pub remotes: Mutex<HashMap<LayerId, Arc<RemoteLayer>>>,
    /// Layers being fetched or unpacked, each once.
    pub fetches: Mutex<HashMap<LayerId, Arc<OnceCell<LayerId>>>>,
    /// Limits steps that run at once.
    pub steps: Semaphore,
    /// Limits work of our own that keeps a processor busy.
    pub processors: Semaphore,
    /// Where progress goes.
    pub sink: Arc<dyn Sink>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("vertices", &self.graph.len())
            .finish_non_exhaustive()
    }
}

impl Job {
    /// Whether the build was given `entitlement`.
    #[must_use]
    pub fn may(&self, entitlement: Entitlement) -> bool {
        self.entitlements.contains(&entitlement)
    }

    /// The layer's place to be fetched from, if it has one.
    #[must_use]
    pub fn remote(&self, layer: &LayerId) -> Option<Arc<RemoteLayer>> {
        self.remotes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(layer)
            .cloned()
    }

    fn is_local(&self, vertex: &Vertex, input: usize) -> bool {
        let edge = vertex.inputs.get(input);
        let source = edge
            .and_then(|edge| self.graph.get(&edge.vertex))
            .map(|vertex| &vertex.op);
        matches!(source, Some(Op::Source(source)) if source.identifier.starts_with("local://"))
    }

    /// The identity that stands for the result of `key`: the key itself, unless it was forced to run.
    fn identity(&self, key: &Key) -> Key {
        let stored = self.engine.store.kv(IDENTITY_SPACE, key.0.as_str());
        let text = stored
            .ok()
            .flatten()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        text.and_then(|text| Digest::parse(&text).ok())
            .map_or_else(|| key.clone(), Key)
    }

    /// Whether every layer can be had: its directory is there, or it can be fetched.
    fn is_complete(&self, layers: &[LayerId]) -> bool {
        let Ok(held) = self.lease.hold_layers(&self.engine.form_name, layers) else {
            return false;
        };
        layers
            .iter()
            .zip(held)
            .all(|(layer, dir)| dir.is_some() || self.remote(layer).is_some())
    }

    /// Names the place of `vertex` in its project, so that a miss is compared with what stood there before.
    pub(crate) fn site_of(&self, vertex: &Vertex) -> String {
        let name = &vertex.meta.name;
        let place = name.split_inclusive(']').next().unwrap_or(name);
        format!("{}{place}", self.site)
    }

    /// Keeps the result of a vertex that ran.
    fn remember(&self, miss: &Miss<'_>, chain: &Chain) -> Result<Key, OpError> {
        let identity = if miss.vertex.meta.ignore_cache {
            Key(Digest::sha256(
                format!("{} {}", miss.key, chain.name()).as_bytes(),
            ))
        } else {
            miss.key.clone()
        };
        let store = &self.engine.store;
        if identity == *miss.key {
            store.remove_kv(IDENTITY_SPACE, miss.key.0.as_str())?;
        } else {
            store.put_kv(
                IDENTITY_SPACE,
                miss.key.0.as_str(),
                identity.0.as_str().as_bytes(),
            )?;
        }
        let layers = chain
            .layers()
            .iter()
            .map(|id| ops::layer_entry(self, id))
            .collect();
        store.put_record(&Record {
            key: miss.key.0.clone(),
            site: self.site_of(miss.vertex),
            vertex: miss.vertex.meta.name.clone(),
            layers,
            ingredients: miss
                .ingredients
                .iter()
                .map(|part| (part.name.clone(), part.value.clone()))
                .collect(),
            created_ms: crate::time::now_ms(),
        })?;
        Ok(identity)
    }
}

impl Executor for Job {
    type Value = Value;
    type Error = OpError;
    type Lock = Option<KeyLock>;

    async fn define(
        &self,
        digest: &VertexDigest,
        vertex: &Vertex,
        reporter: &mut Reporter,
    ) -> Result<Definition<Value>, OpError> {
        if let Op::Source(source) = &vertex.op {
            return ops::source::define(self, digest, vertex, source, reporter).await;
        }
        let parts = define::parts(vertex, |input| self.is_local(vertex, input));
        Ok(Definition {
            ingredients: parts.ingredients,
            content: parts.content,
            values: None,
            volatile: false,
        })
    }

    async fn content(&self, _: &Vertex, need: &ContentInput, value: &Value) -> Result<Digest, OpError> {
        ops::content::digest(self, &need.selector, value).await
    }

    async fn load(&self, key: &Key) -> Option<Cached<Value>> {
        let record = self.engine.store.get_record(&key.0).ok().flatten()?;
        let layers: Vec<LayerId> = record.layers.into_iter().map(|entry| entry.id).collect();
        if !self.is_complete(&layers) {
            return None;
        }
        Some(Cached {
            identity: self.identity(key),
            values: vec![Value::Chain(Chain::new(layers))],
        })
    }

    async fn alias(&self, definition: &Key) -> Option<Key> {
        self.engine.store.get_alias(&definition.0).ok().flatten().map(Key)
    }

    async fn put_alias(&self, definition: &Key, key: &Key) {
        // Without it the next build hashes once more; nothing is lost.
        drop(self.engine.store.put_alias(&definition.0, &key.0));
    }

    async fn lock(&self, key: &Key, cancel: &CancellationToken) -> Option<Option<KeyLock>> {
        loop {
            match self.engine.store.try_lock_key(&key.0) {
                Ok(Some(lock)) => return Some(Some(lock)),
                Ok(None) => {}
                // A lock only saves work that two builds share; without one both do it.
                Err(_) => return Some(None),
            }
            tokio::select! {
                () = tokio::time::sleep(LOCK_POLL) => {}
                () = cancel.cancelled() => return None,
            }
        }
    }

    async fn explain(&self, vertex: &Vertex, ingredients: &[Ingredient]) -> Option<String> {
        let earlier = self
            .engine
            .store
            .nearest_records(&self.site_of(vertex), NEAREST_MAX)
            .ok()?;
        let as_ingredients = |record: &Record| -> Vec<Ingredient> {
            let parts = record.ingredients.iter();
            parts
                .map(|(name, value)| Ingredient {
                    name: name.clone(),
                    value: value.clone(),
                })
                .collect()
        };
        let shared = |record: &Record| {
            let parts = as_ingredients(record);
            ingredients.iter().filter(|part| parts.contains(part)).count()
        };
        let nearest = earlier.iter().max_by_key(|record| shared(record))?;
        first_difference(&as_ingredients(nearest), ingredients)
    }

    async fn run(
        &self,
        miss: Miss<'_>,
        inputs: Vec<Value>,
        reporter: &Reporter,
        cancel: &CancellationToken,
    ) -> Result<Cached<Value>, OpError> {
        let chain = match &miss.vertex.op {
            Op::Exec(exec) => ops::exec::run(self, exec, &inputs, reporter, cancel).await?,
            Op::File(file) => ops::file::run(self, file, &inputs, reporter).await?,
            Op::Merge(merge) => ops::stack::merge(merge, &inputs)?,
            Op::Diff(diff) => ops::stack::diff(diff, &inputs)?,
            Op::Source(source) => ops::source::run(self, source, reporter, cancel).await?,
            Op::Build(_) => return Err(OpError::UnsupportedOp("build")),
            Op::Passthrough(_) => return Err(OpError::UnsupportedOp("passthrough")),
        };
        let identity = self.remember(&miss, &chain)?;
        Ok(Cached {
            identity,
            values: vec![Value::Chain(chain)],
        })
    }
}
