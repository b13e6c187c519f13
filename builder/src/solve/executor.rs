//! What the solver wants of whoever does the work: the questions, and what passes between the two.

use std::collections::BTreeSet;

use rbuild_graph::{Graph, Vertex, VertexDigest};
use rbuild_oci::Digest;
use tokio_util::sync::CancellationToken;

use super::key::{Ingredient, Key};
use super::report::Reporter;

/// An input that takes part in the key by its content instead of by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentInput {
    /// Position in [`Vertex::inputs`].
    pub input: usize,
    /// What of it is read: opaque to the solver, part of the key.
    pub selector: String,
    /// What a user would call it (`content of src/`).
    pub label: String,
}

/// What a vertex says of itself before any input is solved.
#[derive(Debug, Clone)]
pub struct Definition<V> {
    /// Ingredients that come from the operation alone.
    pub ingredients: Vec<Ingredient>,
    /// Inputs that count by content; all others count by key.
    pub content: Vec<ContentInput>,
    /// The values, where nothing has to run to have them (sources).
    pub values: Option<Vec<V>>,
    /// The key by definition says nothing of the content (a directory of the host): consumers must read it.
    pub volatile: bool,
}

/// What the cache knows of a key.
#[derive(Debug, Clone)]
pub struct Cached<V> {
    /// Stands for the result in the keys of what follows.
    pub identity: Key,
    /// The outputs.
    pub values: Vec<V>,
}

/// What a key has of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInput {
    /// Stands for the input's result.
    pub identity: Key,
    /// Its content is in the key, not its identity.
    pub by_content: bool,
    /// Its identity says nothing of what it holds.
    pub volatile: bool,
}

/// A vertex that must run.
#[derive(Debug, Clone)]
pub struct Miss<'a> {
    /// Its digest.
    pub digest: &'a VertexDigest,
    /// The vertex.
    pub vertex: &'a Vertex,
    /// The key its result is kept under.
    pub key: &'a Key,
    /// What the key is made of.
    pub ingredients: &'a [Ingredient],
}

/// Does the work the solver decides on.
pub trait Executor: Send + Sync + 'static {
    /// An output of a vertex.
    type Value: Clone + Send + Sync + std::fmt::Debug + 'static;
    /// Why a vertex failed.
    type Error: std::error::Error + Send + Sync + 'static;
    /// Held while a key is being computed by this process.
    type Lock: Send;

    /// What `vertex` of `graph` is made of.
    fn define(
        &self,
        graph: &Graph,
        digest: &VertexDigest,
        vertex: &Vertex,
        reporter: &mut Reporter,
    ) -> impl Future<Output = Result<Definition<Self::Value>, Self::Error>> + Send;

    /// Digest of what `need` of the vertex `digest` selects of `value`.
    fn content(
        &self,
        digest: &VertexDigest,
        need: &ContentInput,
        value: &Self::Value,
    ) -> impl Future<Output = Result<Digest, Self::Error>> + Send;

    /// The result of `vertex` kept under `key`, if these of its outputs are still there. The others are never looked at,
    /// and may be anything.
    fn load(
        &self,
        vertex: &Vertex,
        key: &Key,
        outputs: &BTreeSet<u32>,
    ) -> impl Future<Output = Option<Cached<Self::Value>>> + Send;

    /// The key by content that was found for a key by definition.
    fn alias(&self, definition: &Key) -> impl Future<Output = Option<Key>> + Send;

    /// Remembers that `definition` leads to `key`.
    fn put_alias(&self, definition: &Key, key: &Key) -> impl Future<Output = ()> + Send;

    /// Hears what a key was made from, before anything that follows can know the key.
    fn keyed(&self, _key: &Key, _inputs: Vec<KeyInput>) {}

    /// Waits until no other process runs `key`; `None` if `cancel` comes first.
    fn lock(&self, key: &Key, cancel: &CancellationToken) -> impl Future<Output = Option<Self::Lock>> + Send;

    /// Hears what a vertex turned out to be, whether it ran or not.
    fn solved(&self, _digest: &VertexDigest, _values: &[Self::Value]) {}

    /// Why `ingredients` were not found, as one line.
    fn explain(
        &self,
        vertex: &Vertex,
        ingredients: &[Ingredient],
    ) -> impl Future<Output = Option<String>> + Send;

    /// Runs a vertex on the values of its inputs and keeps the result.
    fn run(
        &self,
        miss: Miss<'_>,
        inputs: Vec<Self::Value>,
        reporter: &Reporter,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<Cached<Self::Value>, Self::Error>> + Send;
}
