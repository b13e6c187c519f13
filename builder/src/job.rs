//! One build at work: what the solver's executor needs to define, find, lock, run and remember vertices.

mod network;
mod results;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rbuild_graph::progress::Sink;
use rbuild_graph::{Graph, Op, Vertex, VertexDigest};
use rbuild_oci::{Digest, Timestamp};
use rbuild_store::{KeyLock, LayerEntry, LayerId, Lease, Record};
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::cache_transfer::book::{Book, Found};
use crate::cache_transfer::chains::MadeFrom;
use crate::cdi::{CdiConfig, DeviceGrants};
use crate::client::Client;
use crate::engine::Engine;
use crate::failed::{FailedPart, Failures, Left};
use crate::failed_step::FailedStep;
use crate::images::RemoteLayer;
use crate::ops::define;
pub use crate::ops::network_files::Dns;
use crate::ops::{self, OpError};
use crate::private_network::PrivateNetwork;
use crate::provenance::usage::Usage;
use crate::proxy_network::Captures;
use crate::request::{Entitlement, OnError, StepRules};
use crate::solve::{
    Cached, ContentInput, Definition, Executor, Ingredient, Key, KeyInput, Miss, Reporter, first_difference,
};
use crate::source_policy::SourcePolicies;
use crate::straight;
use crate::value::{Chain, Value};

use network::ProxyAuthority;
pub(crate) use network::{Place, StepNetwork, put_variables};
pub use results::{Invocation, Results};

/// Records of one site that are compared to explain a miss.
const NEAREST_MAX: usize = 8;
/// How often a key that another process holds is tried again.
const LOCK_POLL: Duration = Duration::from_millis(10);
/// Table of the store in which fresh identities are kept: results that were forced to run.
const IDENTITY_SPACE: &str = "identity";

/// Different warnings of sandboxes that are told.
const TOLD_MAX: usize = 1000;

/// Steps that run at once when the user sets no limit: BuildKit has none, but every one holds processes and threads.
const STEPS_MAX: usize = 128;

/// What a request sets for all steps of its build.
#[derive(Debug, Default)]
pub struct Settings {
    /// What steps may do beyond the sandbox.
    pub entitlements: Vec<Entitlement>,
    /// Where the devices of the host are described; nothing where steps get none.
    pub cdi: Option<CdiConfig>,
    /// Devices that steps may use.
    pub devices: DeviceGrants,
    /// The host's certificates, with `--host-ca`.
    pub host_ca: Option<ops::host_ca::Bundle>,
    /// `--shm-size`, bytes.
    pub shm_size_bytes: Option<u64>,
    /// `--no-cache`: cache mounts with an owner or a mode begin anew.
    pub fresh_mounts: bool,
    /// Rules for the sources of the build.
    pub policies: Arc<SourcePolicies>,
    /// Sets builds of different projects apart when a miss is explained.
    pub site: String,
    /// Most steps at once; a number of our own if absent.
    pub jobs: Option<usize>,
    /// Places for steps that several builds share, instead of a number for this one.
    pub steps: Option<Arc<Semaphore>>,
    /// What becomes of steps that fail, hang, or do not get the limits they were to have.
    pub rules: StepRules,
    /// What steps are told of name servers instead of what the host's file says.
    pub dns: Dns,
    /// Images hold the cache that made them.
    pub inline_cache: bool,
    /// What failed operations leave is kept, for a client that looks into it.
    pub keep_failed: bool,
    /// What the administrator adds to provenance.
    pub provenance_keys: serde_json::Map<String, serde_json::Value>,
}

/// One build: what all the graphs it solves share.
pub struct Job {
    /// Store, images, form: what all builds of a process share.
    pub engine: Arc<Engine>,
    /// Keeps what this build touches from being collected.
    pub lease: Arc<Lease>,
    /// Whoever asked for the build: has its directories and secrets.
    pub client: Arc<dyn Client>,
    /// What the request sets for all its steps.
    pub settings: Settings,
    /// What remote sources answered.
    pub sources: Arc<ops::source::Sources>,
    /// Layers that can be fetched.
    pub remotes: Mutex<HashMap<LayerId, Arc<RemoteLayer>>>,
    /// Layers being fetched or unpacked, each once.
    pub fetches: Mutex<HashMap<LayerId, Arc<OnceCell<LayerId>>>>,
    /// What is known of keys, for caches that are exported, and from caches that were imported.
    pub book: Book,
    /// Cache mounts that were begun anew in this build.
    pub begun_mounts: Mutex<HashSet<String>>,
    /// What its vertices turned out to be.
    pub results: Results,
    /// The vertices whose results are only exported.
    pub(crate) finals: straight::Finals,
    /// What its failed operations left.
    pub failures: Failures,
    /// Names it in provenance.
    pub invocation: Invocation,
    /// How busy the machine is meanwhile, for provenance that tells it.
    pub usage: Usage,
    /// Files of the client, each fetched once.
    pub uploads: ops::source::upload::Uploads,
    /// The step that failed first, kept as long as somebody wants to look at it.
    failed: Mutex<Option<FailedStep>>,
    /// The network of its steps, if they have one of their own.
    network: OnceCell<Arc<PrivateNetwork>>,
    /// Vouches for the proxies of its steps.
    proxy_authority: ProxyAuthority,
    /// What its steps fetched through proxies.
    pub captures: Captures,
    /// Warnings of sandboxes, each told once: what this machine lacks, it lacks for every step.
    told: Mutex<HashSet<String>>,
    /// Limits steps that run at once.
    pub steps: Arc<Semaphore>,
    /// Limits work of our own that keeps a processor busy.
    pub processors: Semaphore,
    /// Where progress goes.
    pub sink: Arc<dyn Sink>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl Job {
    /// A build for `client` that keeps what it makes by `lease`, and shows what it does to `sink`.
    #[must_use]
    pub fn new(
        engine: Arc<Engine>,
        lease: Arc<Lease>,
        client: Arc<dyn Client>,
        settings: Settings,
        sink: Arc<dyn Sink>,
    ) -> Self {
        Self {
            sources: Arc::default(),
            remotes: Mutex::default(),
            fetches: Mutex::default(),
            book: Book::default(),
            begun_mounts: Mutex::default(),
            failed: Mutex::default(),
            network: OnceCell::new(),
            proxy_authority: ProxyAuthority::default(),
            captures: Captures::default(),
            told: Mutex::default(),
            results: Results::default(),
            finals: straight::Finals::default(),
            failures: Failures::default(),
            invocation: Invocation::of(lease.dir()),
            usage: Usage::default(),
            uploads: ops::source::upload::Uploads::default(),
            steps: settings.steps.clone().unwrap_or_else(|| {
                let most = settings.jobs.unwrap_or(STEPS_MAX);
                Arc::new(Semaphore::new(most.clamp(1, STEPS_MAX)))
            }),
            processors: Semaphore::new(rbuild_sys::process::processors()),
            engine,
            lease,
            client,
            settings,
            sink,
        }
    }

    /// Whether the build was given `entitlement`.
    #[must_use]
    pub fn may(&self, entitlement: Entitlement) -> bool {
        self.settings.entitlements.contains(&entitlement)
    }

    /// Keeps what a step left that failed, if somebody wants to look at it and nothing failed before.
    pub(crate) fn keep_failed(&self, failed: FailedStep) {
        if self.settings.rules.on_error != OnError::Fail {
            let mut first = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(failed);
        }
    }

    /// What the first step left that failed.
    pub(crate) fn take_failed(&self) -> Option<FailedStep> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether nobody was told `warning` yet; from here on somebody was.
    pub(crate) fn is_news(&self, warning: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < TOLD_MAX && told.insert(warning.to_owned())
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

    /// The identity that stands for the result of `key`, kept as `stored`: the key itself, unless it was forced to run.
    fn identity(&self, key: &Key, stored: &Digest) -> Key {
        let stored = self.engine.store.kv(IDENTITY_SPACE, stored.as_str());
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

    /// The result of `key` that the store has as `stored`.
    fn load_stored(&self, key: &Key, stored: &Digest, count: usize) -> Option<Cached<Value>> {
        let record = self.engine.store.get_record(stored).ok().flatten()?;
        let mut outputs = vec![Vec::new(); count];
        for entry in &record.layers {
            let output = outputs.get_mut(entry.output as usize)?;
            straight::note_recorded(self, entry, output);
            output.push(entry.id.clone());
        }
        let layers: Vec<LayerId> = record.layers.into_iter().map(|entry| entry.id).collect();
        if !self.is_complete(&layers) {
            return None;
        }
        let identity = self.identity(key, stored);
        let created = crate::time::from_ms(record.created_ms);
        let outputs = outputs.into_iter().map(Some).collect();
        Some(self.loaded(key, identity, outputs, created))
    }

    /// The result of `key` that an imported cache has: these outputs of `count`. Its layers are fetched when something
    /// needs them.
    fn load_imported(&self, key: &Key, count: usize, wanted: &BTreeSet<u32>) -> Option<Cached<Value>> {
        let Found { cache, known } = self.book.find(&key.0, count, wanted)?;
        let mut outputs = Vec::with_capacity(count);
        for stack in &known.outputs {
            let Some(stack) = stack else {
                outputs.push(None);
                continue;
            };
            let mut layers: Vec<LayerId> = Vec::new();
            for blob in stack {
                let layer = self.engine.snapshotter.layer_id(&blob.diff_id, &layers).ok()?;
                let remote = RemoteLayer {
                    descriptor: blob.descriptor.clone(),
                    diff_id: blob.diff_id.clone(),
                    below: layers.clone(),
                    created: blob.created,
                    origin: cache.origin.clone(),
                    is_own: false,
                    vertex: Arc::clone(&cache.vertex),
                };
                let mut remotes = self.remotes.lock().unwrap_or_else(PoisonError::into_inner);
                remotes.entry(layer.clone()).or_insert_with(|| Arc::new(remote));
                layers.push(layer);
            }
            if !self.is_complete(&layers) {
                return None;
            }
            outputs.push(Some(layers));
        }
        let identity = known.identity.map_or_else(|| key.clone(), Key);
        Some(self.loaded(key, identity, outputs, known.created))
    }

    /// Notes what was found. An output that is not known is empty: nothing of this graph looks at it.
    fn loaded(
        &self,
        key: &Key,
        identity: Key,
        outputs: Vec<Option<Vec<LayerId>>>,
        created: Option<Timestamp>,
    ) -> Cached<Value> {
        self.book.note(&key.0, &identity.0, outputs.clone(), created);
        let chains = outputs.into_iter().map(Option::unwrap_or_default);
        Cached {
            identity,
            values: chains.map(|layers| Value::Chain(Chain::new(layers))).collect(),
        }
    }

    /// Names the place of `vertex` in its project, so that a miss is compared with what stood there before.
    pub(crate) fn site_of(&self, vertex: &Vertex) -> String {
        let name = &vertex.meta.name;
        let place = name.split_inclusive(']').next().unwrap_or(name);
        format!("{}{place}", self.settings.site)
    }

    /// Does what `vertex` says. What a failure leaves is put into `left`.
    async fn operate(
        &self,
        (digest, vertex): (&VertexDigest, &Vertex),
        inputs: &[Value],
        reporter: &Reporter,
        cancel: &CancellationToken,
        left: &mut Left,
    ) -> Result<Vec<Chain>, OpError> {
        Ok(match &vertex.op {
            Op::Exec(exec) => {
                let meta = &vertex.meta;
                let step = ops::exec::Step {
                    digest,
                    exec,
                    resources: meta.linux_resources.as_ref(),
                    fresh: meta.ignore_cache,
                };
                ops::exec::run(self, step, inputs, reporter, cancel, left).await?
            }
            Op::File(file) => ops::file::run(self, (digest, file), inputs, reporter, left).await?,
            Op::Merge(merge) => vec![ops::stack::merge(self, merge, inputs).await?],
            Op::Diff(diff) => vec![ops::stack::diff(self, diff, inputs).await?],
            Op::Source(source) => vec![ops::source::run(self, source, reporter, cancel).await?],
            Op::Build(_) => return Err(OpError::UnsupportedOp("build")),
            Op::Passthrough(passthrough) => ops::stack::passthrough(self, passthrough, inputs).await?,
        })
    }

    /// Keeps the result of a vertex that ran.
    fn remember(&self, miss: &Miss<'_>, outputs: &[Chain]) -> Result<Key, OpError> {
        let identity = if miss.vertex.meta.ignore_cache {
            let names: Vec<String> = outputs.iter().map(|chain| chain.name().to_string()).collect();
            Key(Digest::sha256(
                format!("{} {}", miss.key, names.join(" ")).as_bytes(),
            ))
        } else {
            miss.key.clone()
        };
        let store = &self.engine.store;
        let stored = self.book.stored_key(&miss.key.0);
        if identity == *miss.key {
            store.remove_kv(IDENTITY_SPACE, stored.as_str())?;
        } else {
            store.put_kv(IDENTITY_SPACE, stored.as_str(), identity.0.as_str().as_bytes())?;
        }
        let entries = |(output, chain): (u32, &Chain)| -> Vec<LayerEntry> {
            let layers = chain.layers().iter();
            layers.map(|id| ops::layer_entry(self, id, output)).collect()
        };
        let layers = (0..).zip(outputs).flat_map(entries).collect();
        let created_ms = crate::time::now_ms();
        self.book.note(
            &miss.key.0,
            &identity.0,
            outputs
                .iter()
                .map(|chain| Some(chain.layers().to_vec()))
                .collect(),
            crate::time::from_ms(created_ms),
        );
        store.put_record(&Record {
            key: stored,
            site: self.site_of(miss.vertex),
            vertex: miss.vertex.meta.name.clone(),
            layers,
            ingredients: miss
                .ingredients
                .iter()
                .map(|part| (part.name.clone(), part.value.clone()))
                .collect(),
            created_ms,
        })?;
        Ok(identity)
    }
}

/// Whether an input is a directory of the client, which has no key worth anything.
fn is_local(graph: &Graph, vertex: &Vertex, input: usize) -> bool {
    let edge = vertex.inputs.get(input);
    let source = edge
        .and_then(|edge| graph.get(&edge.vertex))
        .map(|vertex| &vertex.op);
    matches!(source, Some(Op::Source(source)) if source.identifier.starts_with("local://"))
}

impl Executor for Job {
    type Value = Value;
    type Error = OpError;
    type Lock = Option<KeyLock>;

    async fn define(
        &self,
        graph: &Graph,
        digest: &VertexDigest,
        vertex: &Vertex,
        reporter: &mut Reporter,
    ) -> Result<Definition<Value>, OpError> {
        if let Op::Source(source) = &vertex.op {
            return ops::source::define(self, digest, vertex, source, reporter).await;
        }
        let mut parts = define::parts(vertex, |input| is_local(graph, vertex, input));
        if let Op::Exec(exec) = &vertex.op {
            ops::exec::devices::define(self, exec, &mut parts).await?;
            if self.is_proxied(exec.network) {
                parts.add("network", "proxy");
            }
        }
        Ok(Definition {
            ingredients: parts.ingredients,
            content: parts.content,
            values: None,
            volatile: false,
        })
    }

    async fn content(
        &self,
        digest: &VertexDigest,
        need: &ContentInput,
        value: &Value,
    ) -> Result<Digest, OpError> {
        let found = ops::content::digest(self, &need.selector, value).await;
        if found.is_err() && self.settings.keep_failed {
            let left = Left {
                part: Some(FailedPart::Content(need.input)),
                inputs: vec![Some(value.clone())],
                outputs: Vec::new(),
            };
            self.failures.note(digest, left);
        }
        found
    }

    async fn load(&self, vertex: &Vertex, key: &Key, wanted: &BTreeSet<u32>) -> Option<Cached<Value>> {
        let outputs = vertex.op.outputs();
        if let Some(found) = self.load_stored(key, &key.0, outputs) {
            return Some(found);
        }
        let built_on_imports = self.book.imported_key(&key.0)?;
        let found = self.load_stored(key, &built_on_imports, outputs);
        let found = found.or_else(|| self.load_imported(key, outputs, wanted));
        if found.is_some() {
            self.book.mark_used();
        }
        found
    }

    async fn alias(&self, definition: &Key) -> Option<Key> {
        let store = &self.engine.store;
        let stored = |key: &Digest| store.get_alias(key).ok().flatten();
        let found = stored(&definition.0).or_else(|| {
            let found = stored(&self.book.imported_key(&definition.0)?);
            let found = found.or_else(|| self.book.find_alias(&definition.0))?;
            self.book.mark_used();
            Some(found)
        })?;
        self.book.note_alias(&definition.0, &found);
        Some(Key(found))
    }

    async fn put_alias(&self, definition: &Key, key: &Key) {
        self.book.note_alias(&definition.0, &key.0);
        // Without it the next build hashes once more; nothing is lost.
        drop(
            self.engine
                .store
                .put_alias(&self.book.stored_key(&definition.0), &key.0),
        );
    }

    fn keyed(&self, key: &Key, inputs: Vec<KeyInput>) {
        let made = inputs.into_iter().map(|input| match input {
            KeyInput {
                by_content: false, ..
            } => MadeFrom::Result(input.identity.0),
            KeyInput { volatile: true, .. } => MadeFrom::Content,
            KeyInput { .. } => MadeFrom::ContentOf(input.identity.0),
        });
        self.book.note_made(&key.0, made.collect());
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

    fn solved(&self, digest: &VertexDigest, values: &[Value]) {
        self.results.note(digest, values);
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
        let mut left = Left::default();
        let done = self.operate((miss.digest, miss.vertex), &inputs, reporter, cancel, &mut left);
        let outputs = done.await.inspect_err(|_| {
            if self.settings.keep_failed {
                self.failures.note(miss.digest, left);
            }
        })?;
        let identity = self.remember(&miss, &outputs)?;
        Ok(Cached {
            identity,
            values: outputs.into_iter().map(Value::Chain).collect(),
        })
    }
}
