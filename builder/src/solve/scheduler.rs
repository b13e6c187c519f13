//! The scheduler: one task for each vertex, keys forward, demand backward.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use rbuild_graph::progress::Sink;
use rbuild_graph::{Edge, Graph, GraphError, Vertex, VertexDigest};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::executor::{Cached, ContentInput, Definition, Executor, KeyInput, Miss};
use super::key::{Ingredient, Key, KeyBuilder};
use super::report::Reporter;

/// Why a graph was not solved.
#[derive(Debug, thiserror::Error)]
pub enum SolveError<E> {
    /// A vertex failed; the others were stopped.
    #[error("{error}")]
    Vertex {
        /// Which.
        digest: VertexDigest,
        /// Why.
        #[source]
        error: E,
    },
    /// The user stopped the build.
    #[error("context canceled")]
    Canceled,
    /// The graph refers to what is not in it.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// Solves `targets` and returns their values, in order.
///
/// # Errors
/// The first failure; everything else is stopped and reported as canceled first.
pub async fn solve<E: Executor>(
    graph: Arc<Graph>,
    targets: &[Edge],
    executor: Arc<E>,
    sink: Arc<dyn Sink>,
    cancel: CancellationToken,
) -> Result<Vec<E::Value>, SolveError<E::Error>> {
    let digests: Vec<VertexDigest> = targets.iter().map(|edge| edge.vertex.clone()).collect();
    let order = graph.reachable(&digests)?;
    let mut outputs = used_outputs(&graph, &order, targets);
    let nodes: HashMap<VertexDigest, Node<E::Value>> = order
        .iter()
        .map(|digest| {
            (
                digest.clone(),
                Node::new(outputs.remove(digest).unwrap_or_default()),
            )
        })
        .collect();
    let run = Arc::new(Run {
        graph,
        nodes,
        executor,
        sink,
        stop: cancel.child_token(),
        failure: Mutex::new(None),
    });
    for digest in &digests {
        run.nodes[digest].demand();
    }
    let mut tasks = JoinSet::new();
    for digest in order {
        let run = Arc::clone(&run);
        tasks.spawn(async move { run.vertex(digest).await });
    }
    while let Some(joined) = tasks.join_next().await {
        if let Err(error) = joined {
            run.stop.cancel();
            if let Ok(reason) = error.try_into_panic() {
                std::panic::resume_unwind(reason);
            }
        }
        // A vertex that nothing demanded still sleeps: the build is over once every target has its value.
        if digests
            .iter()
            .all(|digest| run.nodes[digest].value.borrow().is_some())
        {
            run.stop.cancel();
        }
    }
    if let Some((digest, error)) = run.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(SolveError::Vertex { digest, error });
    }
    let mut values = Vec::with_capacity(targets.len());
    for edge in targets {
        values.push(
            run.nodes[&edge.vertex]
                .output(edge.output)
                .ok_or(SolveError::Canceled)?,
        );
    }
    Ok(values)
}

/// The outputs of each vertex that another one or a target is made of.
fn used_outputs(
    graph: &Graph,
    order: &[VertexDigest],
    targets: &[Edge],
) -> HashMap<VertexDigest, BTreeSet<u32>> {
    let inputs = order.iter().filter_map(|digest| graph.get(digest));
    let edges = inputs.flat_map(|vertex| &vertex.inputs).chain(targets);
    let mut used: HashMap<VertexDigest, BTreeSet<u32>> = HashMap::new();
    for edge in edges {
        used.entry(edge.vertex.clone()).or_default().insert(edge.output);
    }
    used
}

struct Node<V> {
    /// What of it is used.
    outputs: BTreeSet<u32>,
    demanded: watch::Sender<bool>,
    /// Its key is not known before something has run: what follows may just as well begin with its other inputs.
    stalled: watch::Sender<bool>,
    key: watch::Sender<Option<NodeKey>>,
    value: watch::Sender<Option<Arc<Vec<V>>>>,
}

#[derive(Clone)]
struct NodeKey {
    identity: Key,
    volatile: bool,
}

impl<V: Clone> Node<V> {
    fn new(outputs: BTreeSet<u32>) -> Self {
        Self {
            outputs,
            demanded: watch::Sender::new(false),
            stalled: watch::Sender::new(false),
            key: watch::Sender::new(None),
            value: watch::Sender::new(None),
        }
    }

    fn demand(&self) {
        self.demanded.send_replace(true);
    }

    fn output(&self, index: u32) -> Option<V> {
        self.value
            .borrow()
            .as_ref()
            .and_then(|values| values.get(index as usize).cloned())
    }
}

/// A vertex was stopped: by the user, by another's failure, or since the build is over.
struct Stopped;

async fn wait<T: Clone>(sender: &watch::Sender<Option<T>>, stop: &CancellationToken) -> Result<T, Stopped> {
    let mut receiver = sender.subscribe();
    tokio::select! {
        biased;
        found = receiver.wait_for(Option::is_some) => match found {
            Ok(value) => value.clone().ok_or(Stopped),
            Err(_) => Err(Stopped),
        },
        () = stop.cancelled() => Err(Stopped),
    }
}

struct Run<E: Executor> {
    graph: Arc<Graph>,
    nodes: HashMap<VertexDigest, Node<E::Value>>,
    executor: Arc<E>,
    sink: Arc<dyn Sink>,
    stop: CancellationToken,
    failure: Mutex<Option<(VertexDigest, E::Error)>>,
}

enum Halt<E> {
    Stopped,
    Failed(E),
}

impl<E> From<Stopped> for Halt<E> {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl<E: Executor> Run<E> {
    async fn vertex(&self, digest: VertexDigest) {
        let Some(vertex) = self.graph.get(&digest) else {
            return;
        };
        let mut reporter = Reporter::of(&self.sink, &digest, vertex);
        match self.solve_vertex(&digest, vertex, &mut reporter).await {
            Ok(()) => {}
            Err(Halt::Stopped) => {
                if reporter.is_running() {
                    reporter.canceled();
                }
            }
            Err(Halt::Failed(error)) => self.fail(digest, error, &mut reporter),
        }
    }

    fn fail(&self, digest: VertexDigest, error: E::Error, reporter: &mut Reporter) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_none() && !self.stop.is_cancelled() {
            reporter.failed(error.to_string());
            *failure = Some((digest, error));
        } else {
            reporter.canceled();
        }
        drop(failure);
        self.stop.cancel();
    }

    async fn solve_vertex(
        &self,
        digest: &VertexDigest,
        vertex: &Vertex,
        reporter: &mut Reporter,
    ) -> Result<(), Halt<E::Error>> {
        let node = &self.nodes[digest];
        // A source asks the outside here, which can take its time.
        let definition = tokio::select! {
            defined = self.executor.define(&self.graph, digest, vertex, reporter) => defined.map_err(Halt::Failed)?,
            () = self.stop.cancelled() => return Err(Halt::Stopped),
        };
        let (key, ingredients) = self.key(digest, node, vertex, &definition).await?;
        if let Some(values) = definition.values {
            self.executor.solved(digest, &values);
            node.value.send_replace(Some(Arc::new(values)));
            node.key.send_replace(Some(NodeKey {
                identity: key,
                volatile: definition.volatile,
            }));
            return Ok(());
        }
        if self.publish_cached(digest, vertex, &key, reporter).await {
            return Ok(());
        }
        // What follows may know its own key already and be cached. A step that must run again whatever the cache says
        // gets a new identity when it has run, so what follows has to wait for that.
        if !vertex.meta.ignore_cache {
            node.key.send_replace(Some(NodeKey {
                identity: key.clone(),
                volatile: false,
            }));
        } else {
            node.stalled.send_replace(true);
            node.demand();
        }
        self.wait_for_demand(node).await?;
        let inputs = self.input_values(vertex).await?;
        let lock = tokio::select! {
            lock = self.executor.lock(&key, &self.stop) => lock.ok_or(Stopped)?,
            () = self.stop.cancelled() => return Err(Halt::Stopped),
        };
        // Another process may have run it meanwhile.
        if self.publish_cached(digest, vertex, &key, reporter).await {
            return Ok(());
        }
        let cause = if vertex.meta.ignore_cache {
            Some("the cache is off for this step".to_owned())
        } else {
            self.executor.explain(vertex, &ingredients).await
        };
        reporter.start(cause);
        let miss = Miss {
            digest,
            vertex,
            key: &key,
            ingredients: &ingredients,
        };
        let result = self.executor.run(miss, inputs, reporter, &self.stop).await;
        drop(lock);
        let cached = result.map_err(|error| {
            if self.stop.is_cancelled() {
                Halt::Stopped
            } else {
                Halt::Failed(error)
            }
        })?;
        reporter.done();
        self.publish(digest, node, cached);
        Ok(())
    }

    /// Whether the cache had the result of `vertex`, which is published then.
    async fn publish_cached(
        &self,
        digest: &VertexDigest,
        vertex: &Vertex,
        key: &Key,
        reporter: &mut Reporter,
    ) -> bool {
        if vertex.meta.ignore_cache {
            return false;
        }
        let node = &self.nodes[digest];
        let Some(cached) = self.executor.load(vertex, key, &node.outputs).await else {
            return false;
        };
        reporter.cached();
        self.publish(digest, node, cached);
        true
    }

    fn publish(&self, digest: &VertexDigest, node: &Node<E::Value>, cached: Cached<E::Value>) {
        self.executor.solved(digest, &cached.values);
        node.value.send_replace(Some(Arc::new(cached.values)));
        node.key.send_replace(Some(NodeKey {
            identity: cached.identity,
            volatile: false,
        }));
    }

    async fn wait_for_demand(&self, node: &Node<E::Value>) -> Result<(), Stopped> {
        let mut demanded = node.demanded.subscribe();
        tokio::select! {
            biased;
            _ = demanded.wait_for(|demanded| *demanded) => Ok(()),
            () = self.stop.cancelled() => Err(Stopped),
        }
    }

    async fn input_values(&self, vertex: &Vertex) -> Result<Vec<E::Value>, Stopped> {
        for edge in &vertex.inputs {
            self.nodes[&edge.vertex].demand();
        }
        let mut values = Vec::with_capacity(vertex.inputs.len());
        for edge in &vertex.inputs {
            values.push(self.input_value(edge).await?);
        }
        Ok(values)
    }

    async fn input_value(&self, edge: &Edge) -> Result<E::Value, Stopped> {
        let node = &self.nodes[&edge.vertex];
        node.demand();
        wait(&node.value, &self.stop).await?;
        node.output(edge.output).ok_or(Stopped)
    }

    /// The key of an input. If it has to wait for something to run, the contents this vertex will read are demanded
    /// meanwhile: four stages that are copied from one after the other run at once. So are its other inputs that the cache
    /// has not.
    async fn input_key(
        &self,
        node: &Node<E::Value>,
        vertex: &Vertex,
        definition: &Definition<E::Value>,
        edge: &Edge,
    ) -> Result<NodeKey, Stopped> {
        let input = &self.nodes[&edge.vertex];
        let mut stalled = input.stalled.subscribe();
        tokio::select! {
            biased;
            key = wait(&input.key, &self.stop) => return key,
            _ = stalled.wait_for(|stalled| *stalled) => {}
        }
        node.stalled.send_replace(true);
        for need in &definition.content {
            self.nodes[&vertex.inputs[need.input].vertex].demand();
        }
        let others = vertex.inputs.iter().map(|edge| async {
            let key = wait(&self.nodes[&edge.vertex].key, &self.stop).await;
            key.map(|_| self.demand_missed(edge))
        });
        tokio::select! {
            biased;
            key = wait(&input.key, &self.stop) => key,
            // The input itself is one of them.
            _ = join_all(others) => wait(&input.key, &self.stop).await,
        }
    }

    /// Demands an input whose key is known if the cache has it not, while others are waited for: a key that holds the key of a
    /// miss is one too, so it is needed, and can run meanwhile.
    fn demand_missed(&self, edge: &Edge) {
        let input = &self.nodes[&edge.vertex];
        // Its key is told before it has run only if it has to.
        if input.key.borrow().is_some() && input.value.borrow().is_none() {
            input.demand();
        }
    }

    /// The key of a vertex. Three ways: no input counts by content; the definition was seen before and leads to a
    /// key; the content is read.
    async fn key(
        &self,
        digest: &VertexDigest,
        node: &Node<E::Value>,
        vertex: &Vertex,
        definition: &Definition<E::Value>,
    ) -> Result<(Key, Vec<Ingredient>), Halt<E::Error>> {
        let mut by_definition = KeyBuilder::default();
        let mut by_content = KeyBuilder::default();
        for part in &definition.ingredients {
            by_definition.add(&*part.name, &*part.value);
            by_content.add(&*part.name, &*part.value);
        }
        let mut volatile = false;
        let mut inputs = Vec::with_capacity(vertex.inputs.len());
        for (index, edge) in vertex.inputs.iter().enumerate() {
            let input = self.input_key(node, vertex, definition, edge).await?;
            let name = format!("input {index}");
            let value = format!("{}[{}]", input.identity, edge.output);
            by_definition.add(&*name, &*value);
            let uses = definition.content.iter().any(|need| need.input == index);
            volatile |= uses && input.volatile;
            if !uses {
                by_content.add(name, value);
            }
            inputs.push(KeyInput {
                identity: input.identity,
                by_content: uses,
                volatile: input.volatile,
            });
        }
        if definition.content.is_empty() {
            let (key, ingredients) = by_content.finish();
            self.executor.keyed(&key, inputs);
            return Ok((key, ingredients));
        }
        for need in &definition.content {
            by_definition.add(&*need.label, &*need.selector);
        }
        let (definition_key, ingredients) = by_definition.finish();
        if !volatile
            && !vertex.meta.ignore_cache
            && let Some(key) = self.executor.alias(&definition_key).await
            && self.executor.load(vertex, &key, &node.outputs).await.is_some()
        {
            self.executor.keyed(&key, inputs);
            return Ok((key, ingredients));
        }
        self.add_contents(digest, node, vertex, definition, &mut by_content)
            .await?;
        let (key, ingredients) = by_content.finish();
        self.executor.keyed(&key, inputs);
        if !volatile {
            self.executor.put_alias(&definition_key, &key).await;
        }
        Ok((key, ingredients))
    }

    /// Reads what counts by content, which has to be made for that if it is not here, and adds it to the key.
    async fn add_contents(
        &self,
        digest: &VertexDigest,
        node: &Node<E::Value>,
        vertex: &Vertex,
        definition: &Definition<E::Value>,
        by_content: &mut KeyBuilder,
    ) -> Result<(), Halt<E::Error>> {
        // What is here already only has to be read: nobody should begin work meanwhile that may turn out to be cached.
        let is_here = |need: &ContentInput| {
            let edge = &vertex.inputs[need.input];
            self.nodes[&edge.vertex].value.borrow().is_some()
        };
        if !definition.content.iter().all(is_here) {
            node.stalled.send_replace(true);
            for edge in &vertex.inputs {
                self.demand_missed(edge);
            }
        }
        for need in &definition.content {
            self.nodes[&vertex.inputs[need.input].vertex].demand();
        }
        for need in &definition.content {
            let value = self.input_value(&vertex.inputs[need.input]).await?;
            let content = self
                .executor
                .content(digest, need, &value)
                .await
                .map_err(Halt::Failed)?;
            by_content.add(&*need.label, content.as_str());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
