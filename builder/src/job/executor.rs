//! The solver's executor: how a build defines, finds, locks, runs and remembers vertices.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rbuild_graph::{Graph, Op, Vertex, VertexDigest};
use rbuild_oci::{Digest, Timestamp};
use rbuild_store::{KeyLock, LayerEntry, LayerId, Record};
use tokio_util::sync::CancellationToken;

use super::Job;
use crate::cache_transfer::book::Found;
use crate::cache_transfer::chains::MadeFrom;
use crate::failed::{FailedPart, Left};
use crate::images::RemoteLayer;
use crate::ops::{self, OpError, define};
use crate::solve::{
    Cached, ContentInput, Definition, Executor, Ingredient, Key, KeyInput, Miss, Reporter, first_difference,
};
use crate::straight;
use crate::value::{Chain, Value};

/// Records of one site that are compared to explain a miss.
const NEAREST_MAX: usize = 8;
/// How often a key that another process holds is tried again.
const LOCK_POLL: Duration = Duration::from_millis(10);
/// Table of the store in which fresh identities are kept: results that were forced to run.
const IDENTITY_SPACE: &str = "identity";

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

impl Job {
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
