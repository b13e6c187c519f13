//! The solver on an executor that counts what it is asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rbuild_graph::progress::NullSink;
use rbuild_graph::{FileAction, FileActionKind, FileOp, MkDirAction, Op, SourceOp, VertexMeta};
use rbuild_oci::Digest;

use super::*;

/// A value is the text a vertex "made": its path and what it was made from.
#[derive(Default)]
struct Fake {
    records: Mutex<HashMap<Key, Cached<String>>>,
    aliases: Mutex<HashMap<Key, Key>>,
    runs: Mutex<Vec<String>>,
    contents: AtomicUsize,
    /// What each path makes, where it is not made of its inputs.
    makes: Mutex<HashMap<String, String>>,
    fails: Option<String>,
    delay: Duration,
    running: AtomicUsize,
    running_max: AtomicUsize,
}

#[derive(Debug, thiserror::Error)]
#[error("{0} broke")]
struct Broke(String);

fn path(vertex: &Vertex) -> String {
    match &vertex.op {
        Op::Source(source) => source.identifier.clone(),
        Op::File(file) => match &file.actions[0].kind {
            FileActionKind::MkDir(action) => action.path.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

impl Executor for Fake {
    type Value = String;
    type Error = Broke;
    type Lock = ();

    async fn define(
        &self,
        _: &Graph,
        _: &VertexDigest,
        vertex: &Vertex,
        _: &mut Reporter,
    ) -> Result<Definition<String>, Broke> {
        let path = path(vertex);
        let ingredients = vec![Ingredient {
            name: "path".into(),
            value: path.clone(),
        }];
        let source = matches!(vertex.op, Op::Source(_));
        // `copy:…` reads its second input by content.
        let content = if path.starts_with("copy:") {
            vec![ContentInput {
                input: 1,
                selector: "/".into(),
                label: "content".into(),
            }]
        } else {
            Vec::new()
        };
        let values = source.then(|| {
            vec![
                self.makes
                    .lock()
                    .unwrap()
                    .get(&path)
                    .cloned()
                    .unwrap_or(path.clone()),
            ]
        });
        Ok(Definition {
            ingredients,
            content,
            values,
            volatile: path.starts_with("local:"),
        })
    }

    async fn content(&self, _: &VertexDigest, _: &ContentInput, value: &String) -> Result<Digest, Broke> {
        self.contents.fetch_add(1, Ordering::SeqCst);
        Ok(Digest::sha256(value.as_bytes()))
    }

    async fn load(&self, _: &Vertex, key: &Key, _: &BTreeSet<u32>) -> Option<Cached<String>> {
        self.records.lock().unwrap().get(key).cloned()
    }

    async fn alias(&self, definition: &Key) -> Option<Key> {
        self.aliases.lock().unwrap().get(definition).cloned()
    }

    async fn put_alias(&self, definition: &Key, key: &Key) {
        self.aliases
            .lock()
            .unwrap()
            .insert(definition.clone(), key.clone());
    }

    async fn lock(&self, _: &Key, _: &CancellationToken) -> Option<()> {
        Some(())
    }

    async fn explain(&self, _: &Vertex, _: &[Ingredient]) -> Option<String> {
        None
    }

    async fn run(
        &self,
        miss: Miss<'_>,
        inputs: Vec<String>,
        _: &Reporter,
        cancel: &CancellationToken,
    ) -> Result<Cached<String>, Broke> {
        let path = path(miss.vertex);
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.running_max.fetch_max(running, Ordering::SeqCst);
        tokio::select! {
            () = tokio::time::sleep(self.delay), if !self.delay.is_zero() => {}
            () = std::future::ready(()), if self.delay.is_zero() => {}
            () = cancel.cancelled() => return Err(Broke(path)),
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
        if self.fails.as_deref() == Some(&*path) {
            return Err(Broke(path));
        }
        self.runs.lock().unwrap().push(path.clone());
        let made = self.makes.lock().unwrap().get(&path).cloned();
        let value = made.unwrap_or_else(|| format!("{path}({})", inputs.join(",")));
        // As the real one: a step that was forced to run is a new thing to what follows.
        let identity = if miss.vertex.meta.ignore_cache {
            Key(Digest::sha256(
                format!("{}{}", miss.key, self.runs.lock().unwrap().len()).as_bytes(),
            ))
        } else {
            miss.key.clone()
        };
        let cached = Cached {
            identity,
            values: vec![value],
        };
        self.records
            .lock()
            .unwrap()
            .insert(miss.key.clone(), cached.clone());
        Ok(cached)
    }
}

impl Fake {
    fn take_runs(&self) -> Vec<String> {
        let mut runs = std::mem::take(&mut *self.runs.lock().unwrap());
        runs.sort();
        runs
    }
}

fn source(graph: &mut Graph, name: &str) -> VertexDigest {
    let op = Op::Source(SourceOp {
        identifier: name.into(),
        attrs: BTreeMap::new(),
    });
    graph
        .add(Vertex {
            op,
            inputs: vec![],
            platform: None,
            constraints: vec![],
            meta: VertexMeta::default(),
        })
        .unwrap()
}

fn step_with(graph: &mut Graph, name: &str, on: &[&VertexDigest], ignore_cache: bool) -> VertexDigest {
    let kind = FileActionKind::MkDir(MkDirAction {
        path: name.into(),
        mode: 0o755,
        make_parents: true,
        owner: None,
        time: None,
    });
    let action = FileAction {
        input: Some(0),
        secondary_input: None,
        output: Some(0),
        kind,
    };
    let inputs = on
        .iter()
        .map(|d| Edge {
            vertex: (*d).clone(),
            output: 0,
        })
        .collect();
    let meta = VertexMeta {
        name: name.into(),
        ignore_cache,
        ..VertexMeta::default()
    };
    graph
        .add(Vertex {
            op: Op::File(FileOp {
                actions: vec![action],
            }),
            inputs,
            platform: None,
            constraints: vec![],
            meta,
        })
        .unwrap()
}

fn step(graph: &mut Graph, name: &str, on: &[&VertexDigest]) -> VertexDigest {
    step_with(graph, name, on, false)
}

async fn build(fake: &Arc<Fake>, graph: Graph, target: &VertexDigest) -> Result<String, SolveError<Broke>> {
    let edges = [Edge {
        vertex: target.clone(),
        output: 0,
    }];
    let solved = solve(
        Arc::new(graph),
        &edges,
        Arc::clone(fake),
        Arc::new(NullSink),
        CancellationToken::new(),
    );
    let mut values = tokio::time::timeout(Duration::from_secs(30), solved)
        .await
        .expect("the solver hangs")?;
    Ok(values.remove(0))
}

/// base ← compile(base, copy of local:src) ; final = copy:bin(base, compile) ← after
fn two_stages(compile_ignores_cache: bool) -> (Graph, VertexDigest) {
    let mut graph = Graph::default();
    let base = source(&mut graph, "image:base");
    let context = source(&mut graph, "local:src");
    let copied = step(&mut graph, "copy:src", &[&base, &context]);
    let compile = step_with(&mut graph, "compile", &[&copied], compile_ignores_cache);
    let binary = step(&mut graph, "copy:bin", &[&base, &compile]);
    let after = step(&mut graph, "after", &[&binary]);
    step(&mut graph, "unused", &[&compile]);
    (graph, after)
}

#[tokio::test]
async fn a_second_build_runs_nothing_and_reads_only_the_context() {
    let fake = Arc::new(Fake::default());
    let (graph, target) = two_stages(false);
    let first = build(&fake, graph, &target).await.unwrap();
    assert_eq!(fake.take_runs(), ["after", "compile", "copy:bin", "copy:src"]);
    fake.contents.store(0, Ordering::SeqCst);
    let (graph, target) = two_stages(false);
    let second = build(&fake, graph, &target).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(fake.take_runs(), Vec::<String>::new());
    assert_eq!(
        fake.contents.load(Ordering::SeqCst),
        1,
        "the stage copied from is known by its definition"
    );
}

#[tokio::test]
async fn a_changed_source_reruns_what_read_it_and_identical_output_stops_there() {
    let fake = Arc::new(Fake::default());
    fake.makes
        .lock()
        .unwrap()
        .insert("compile".into(), "same binary".into());
    let (graph, target) = two_stages(false);
    build(&fake, graph, &target).await.unwrap();
    fake.take_runs();
    fake.makes
        .lock()
        .unwrap()
        .insert("local:src".into(), "edited comment".into());
    let (graph, target) = two_stages(false);
    build(&fake, graph, &target).await.unwrap();
    assert_eq!(
        fake.take_runs(),
        ["compile", "copy:src"],
        "copy:bin and after see the same binary"
    );
    fake.makes
        .lock()
        .unwrap()
        .insert("compile".into(), "other binary".into());
    fake.makes
        .lock()
        .unwrap()
        .insert("local:src".into(), "edited code".into());
    let (graph, target) = two_stages(false);
    build(&fake, graph, &target).await.unwrap();
    assert_eq!(fake.take_runs(), ["after", "compile", "copy:bin", "copy:src"]);
}

#[tokio::test]
async fn a_stage_whose_result_is_gone_is_not_rebuilt_when_nothing_needs_it() {
    let fake = Arc::new(Fake::default());
    let (graph, target) = two_stages(false);
    build(&fake, graph, &target).await.unwrap();
    fake.take_runs();
    fake.records
        .lock()
        .unwrap()
        .retain(|_, cached| !cached.values[0].starts_with("compile"));
    let (graph, target) = two_stages(false);
    build(&fake, graph, &target).await.unwrap();
    assert_eq!(fake.take_runs(), Vec::<String>::new());
}

#[tokio::test]
async fn a_step_without_cache_runs_and_what_follows_sees_the_new_result() {
    let fake = Arc::new(Fake::default());
    let mut graph = Graph::default();
    let base = source(&mut graph, "image:base");
    let first = step(&mut graph, "first", &[&base]);
    let second = step(&mut graph, "second", &[&first]);
    build(&fake, graph, &second).await.unwrap();
    fake.take_runs();
    for (ignore, expected) in [(true, vec!["first", "second"]), (false, vec![])] {
        let mut graph = Graph::default();
        let base = source(&mut graph, "image:base");
        let first = step_with(&mut graph, "first", &[&base], ignore);
        let second = step(&mut graph, "second", &[&first]);
        build(&fake, graph, &second).await.unwrap();
        assert_eq!(fake.take_runs(), expected, "ignore_cache = {ignore}");
    }
}

#[tokio::test]
async fn independent_vertices_run_at_once_and_a_shared_one_runs_once() {
    let fake = Arc::new(Fake {
        delay: Duration::from_millis(50),
        ..Fake::default()
    });
    let mut graph = Graph::default();
    let base = source(&mut graph, "image:base");
    let shared = step(&mut graph, "shared", &[&base]);
    let sides: Vec<VertexDigest> = (0..8)
        .map(|i| step(&mut graph, &format!("side {i}"), &[&shared]))
        .collect();
    let end = step(&mut graph, "end", &sides.iter().collect::<Vec<_>>());
    build(&fake, graph, &end).await.unwrap();
    assert_eq!(fake.running_max.load(Ordering::SeqCst), 8);
    assert_eq!(fake.take_runs().iter().filter(|run| *run == "shared").count(), 1);
}

#[tokio::test]
async fn stages_copied_from_one_after_the_other_run_at_once() {
    let fake = Arc::new(Fake {
        delay: Duration::from_millis(50),
        ..Fake::default()
    });
    let mut graph = Graph::default();
    let base = source(&mut graph, "image:base");
    let mut last = base.clone();
    for i in 0..6 {
        let stage = step(&mut graph, &format!("stage {i}"), &[&base]);
        let copied = step(&mut graph, &format!("copy:{i}"), &[&last, &stage]);
        last = step(&mut graph, &format!("after {i}"), &[&copied]);
    }
    build(&fake, graph, &last).await.unwrap();
    assert_eq!(fake.running_max.load(Ordering::SeqCst), 6);
}

/// `FROM below`, `COPY --from=tools`, the latter also as `COPY --link` does it, in either order.
fn copied_into(graph: &mut Graph, form: usize) -> VertexDigest {
    let base = source(graph, "image:base");
    let below = step(graph, "below", &[&base]);
    let tools = step(graph, "tools", &[&base]);
    match form {
        0 => step(graph, "copy:tools", &[&below, &tools]),
        other => {
            let linked = step(graph, "copy:tools", &[&base, &tools]);
            let inputs = if other == 1 {
                [&below, &linked]
            } else {
                [&linked, &below]
            };
            step(graph, "merge", &inputs)
        }
    }
}

#[tokio::test]
async fn a_stage_runs_beside_the_one_that_is_copied_into_it() {
    for form in 0..3 {
        let fake = Arc::new(Fake {
            delay: Duration::from_millis(50),
            ..Fake::default()
        });
        let graph = || {
            let mut graph = Graph::default();
            let target = copied_into(&mut graph, form);
            (graph, target)
        };
        let (first, target) = graph();
        build(&fake, first, &target).await.unwrap();
        assert_eq!(fake.running_max.load(Ordering::SeqCst), 2, "form {form}");
        assert_eq!(fake.take_runs().len(), if form == 0 { 3 } else { 4 });
        // What is cached is not run, whatever is waited for.
        let (again, target) = graph();
        build(&fake, again, &target).await.unwrap();
        assert_eq!(fake.take_runs(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn the_first_failure_stops_the_others_and_is_the_one_reported() {
    let fake = Arc::new(Fake {
        fails: Some("bad".into()),
        delay: Duration::from_millis(20),
        ..Fake::default()
    });
    let mut graph = Graph::default();
    let base = source(&mut graph, "image:base");
    let bad = step(&mut graph, "bad", &[&base]);
    let good = step(&mut graph, "good", &[&base]);
    let end = step(&mut graph, "end", &[&bad, &good]);
    let error = build(&fake, graph, &end).await.unwrap_err();
    assert_eq!(error.to_string(), "bad broke");
    assert!(!fake.take_runs().contains(&"end".to_owned()));
}

#[tokio::test]
async fn a_canceled_build_ends() {
    let fake = Arc::new(Fake {
        delay: Duration::from_secs(60),
        ..Fake::default()
    });
    let mut graph = Graph::default();
    let base = source(&mut graph, "image:base");
    let slow = step(&mut graph, "slow", &[&base]);
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        stop.cancel();
    });
    let edges = [Edge {
        vertex: slow,
        output: 0,
    }];
    let solved = solve(Arc::new(graph), &edges, fake, Arc::new(NullSink), cancel);
    let ended = tokio::time::timeout(Duration::from_secs(30), solved)
        .await
        .expect("ends soon");
    assert!(matches!(ended, Err(SolveError::Canceled)));
}

#[tokio::test]
async fn a_chain_of_20_000_vertices_is_solved_without_deep_recursion() {
    const N: usize = 20_000;
    let fake = Arc::new(Fake::default());
    fake.makes
        .lock()
        .unwrap()
        .extend((0..N).map(|i| (format!("/{i}"), "x".to_owned())));
    let mut graph = Graph::default();
    let mut last = source(&mut graph, "image:base");
    for i in 0..N {
        last = step(&mut graph, &format!("/{i}"), &[&last]);
    }
    build(&fake, graph, &last).await.unwrap();
    assert_eq!(fake.take_runs().len(), N);
}
