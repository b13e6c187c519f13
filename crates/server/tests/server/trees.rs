//! Trees that a client's definition puts together: its directories, whole or as a list, merges and differences.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bollard_buildkit_proto::moby::buildkit::v1::{Exporter, SolveRequest};
use bollard_buildkit_proto::pb;
use rbuild_graph::{
    DiffOp, Edge, FileAction, FileActionKind, FileOp, Graph, MergeOp, MkDirAction, MkFileAction, Op,
    RmAction, SourceOp, Vertex,
};
use rbuild_session::METADATA_FILE;
use rbuild_session::fake::{FakeClient, FakeConnection, ReceivedTree, SentNames};
use tonic::Status;

use crate::bench::Bench;

/// Makes definitions.
#[derive(Default)]
struct Definition(Graph);

impl Definition {
    fn add(&mut self, op: Op, inputs: Vec<Edge>) -> Edge {
        let vertex = Vertex::new(op, inputs);
        Edge {
            vertex: self.0.add(vertex).unwrap(),
            output: 0,
        }
    }

    fn local(&mut self, attrs: &[(&str, &str)]) -> Edge {
        let op = SourceOp {
            identifier: "local://dir".to_owned(),
            attrs: attrs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        };
        self.add(Op::Source(op), Vec::new())
    }

    fn file(&mut self, below: Option<Edge>, kind: FileActionKind) -> Edge {
        self.files(below, vec![kind])
    }

    /// One operation of several actions, each on what the one before made: one layer.
    fn files(&mut self, below: Option<Edge>, kinds: Vec<FileActionKind>) -> Edge {
        let (mut input, last) = (below.is_some().then_some(0), kinds.len() - 1);
        let first_own = u32::from(below.is_some());
        let mut actions = Vec::new();
        for (number, kind) in kinds.into_iter().enumerate() {
            actions.push(FileAction {
                input,
                secondary_input: None,
                output: (number == last).then_some(0),
                kind,
            });
            input = Some(first_own + u32::try_from(number).unwrap());
        }
        self.add(Op::File(FileOp { actions }), below.into_iter().collect())
    }

    fn mkfile(&mut self, below: Option<Edge>, path: &str, text: &str) -> Edge {
        self.file(below, mkfile(path, text))
    }

    fn merge(&mut self, inputs: Vec<Edge>) -> Edge {
        let indices = (0..u32::try_from(inputs.len()).unwrap()).map(Some);
        let op = Op::Merge(MergeOp {
            inputs: indices.collect(),
        });
        self.add(op, inputs)
    }

    fn diff(&mut self, lower: Edge, upper: Edge) -> Edge {
        let op = Op::Diff(DiffOp {
            lower: Some(0),
            upper: Some(1),
        });
        self.add(op, vec![lower, upper])
    }

    fn end(&self, edge: &Edge) -> pb::Definition {
        rbuild_llb::encode(&self.0, edge).unwrap()
    }
}

fn mkfile(path: &str, text: &str) -> FileActionKind {
    FileActionKind::MkFile(MkFileAction {
        path: path.to_owned(),
        mode: 0o644,
        data: text.as_bytes().to_vec(),
        owner: None,
        time: None,
    })
}

fn mkdir(path: &str) -> FileActionKind {
    FileActionKind::MkDir(MkDirAction {
        path: path.to_owned(),
        mode: 0o755,
        make_parents: true,
        owner: None,
        time: None,
    })
}

fn rm(path: &str) -> FileActionKind {
    FileActionKind::Rm(RmAction {
        path: path.to_owned(),
        allow_not_found: false,
        allow_wildcard: false,
    })
}

struct Trees {
    bench: Bench,
    dir: PathBuf,
    sent: SentNames,
    out: Arc<Mutex<ReceivedTree>>,
    _client: FakeConnection,
}

impl Trees {
    async fn new(files: &[(&str, &str)]) -> Self {
        let bench = Bench::new();
        let dir = bench.files("dir", files);
        std::fs::create_dir_all(&dir).unwrap();
        let sent = SentNames::default();
        let out = Arc::new(Mutex::new(ReceivedTree::default()));
        let client = FakeClient::new("s")
            .shared_key("key")
            .directory("dir", &dir, &sent)
            .output_tree(0, &out);
        let client = client.connect(&bench.core.sessions).await.unwrap();
        Self {
            bench,
            dir,
            sent,
            out,
            _client: client,
        }
    }

    /// The files of what is built, by name.
    async fn build(&self, definition: pb::Definition) -> Result<BTreeMap<String, String>, Status> {
        static BUILDS: Mutex<u32> = Mutex::new(0);
        let number = {
            let mut builds = BUILDS.lock().unwrap();
            *builds += 1;
            *builds
        };
        let request = SolveRequest {
            r#ref: format!("build-{number}"),
            session: "s".to_owned(),
            definition: Some(definition),
            exporters: vec![Exporter {
                r#type: "local".to_owned(),
                ..Exporter::default()
            }],
            ..SolveRequest::default()
        };
        self.bench.solve(request).await?;
        let tree = std::mem::take(&mut *self.out.lock().unwrap());
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        let mut found = BTreeMap::new();
        for entry in &tree.entries {
            let path = String::from_utf8(entry.path.clone()).unwrap();
            let content = tree.content.get(Path::new(&path)).map(text);
            found.insert(path, content.unwrap_or_default());
        }
        Ok(found)
    }

    fn write(&self, name: &str, content: &str, time: SystemTime) {
        let path = self.dir.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::File::open(&path).unwrap().set_modified(time).unwrap();
    }
}

fn names(found: &BTreeMap<String, String>) -> Vec<&str> {
    found.keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_what_a_client_sent_is_kept_though_a_layer_has_it() {
    let trees = Trees::new(&[("dir/same", "same")]).await;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    trees.write("foo", "foo", time);
    let solve = |differ: &'static str| {
        let mut definition = Definition::default();
        let source = definition.local(&[("local.differ", differ)]);
        trees.build(definition.end(&source))
    };
    assert_eq!(solve("").await.unwrap()["foo"], "foo");
    assert_eq!(trees.sent.take(), [Path::new("dir/same"), Path::new("foo")]);
    // Of the same size and time, so it is taken for what is here.
    trees.write("foo", "bar", time);
    assert_eq!(solve("").await.unwrap()["foo"], "foo");
    assert!(trees.sent.take().is_empty(), "nothing is sent again");
    trees.write("foo", "new content", time);
    assert_eq!(
        solve("").await.unwrap()["foo"],
        "new content",
        "the first layer is not this one"
    );
    assert_eq!(trees.sent.take(), [Path::new("foo")]);
    trees.write("foo", "baz content", time);
    let found = solve("none").await.unwrap();
    assert_eq!((&*found["foo"], &*found["dir/same"]), ("baz content", "same"));
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_directory_comes_as_a_list_with_some_of_its_files() {
    let files = [
        "data",
        "dir/file1",
        "dir/file2",
        "dir/sub/bar1",
        "dir/sub2/bar3",
        "foo",
    ];
    let trees = Trees::new(&files.map(|name| (name, name))).await;
    let solve = |transfer: &'static str, wanted: &'static str| {
        let mut definition = Definition::default();
        let attrs = [
            ("local.metadatatransfer", transfer),
            ("local.metadatatransferexclude", wanted),
        ];
        let source = definition.local(&attrs);
        trees.build(definition.end(&source))
    };
    let found = solve("true", r#"["dir/**/*1","foo"]"#).await.unwrap();
    let wanted = ["dir", "dir/file1", "dir/sub", "dir/sub/bar1", "foo"];
    assert_eq!(names(&found), [&[METADATA_FILE][..], &wanted[..]].concat());
    assert_eq!(found["dir/sub/bar1"], "dir/sub/bar1");
    for listed in files {
        assert!(found[METADATA_FILE].contains(listed), "{listed}");
    }
    std::fs::remove_dir_all(trees.dir.join("dir/sub")).unwrap();
    drop(trees.sent.take());
    let found = solve("true", r#"["dir/**/*1"]"#).await.unwrap();
    assert_eq!(names(&found), [METADATA_FILE, "dir", "dir/file1"]);
    assert!(!found[METADATA_FILE].contains("bar1"));
    assert!(trees.sent.take().is_empty());
    let found = solve("false", "[]").await.unwrap();
    assert_eq!(
        found.len(),
        7,
        "the twin is whole, and from a place of its own: {found:?}"
    );
    assert_eq!(trees.sent.take().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row48_attributes_of_a_directory_that_say_nothing_are_refused() {
    let trees = Trees::new(&[("foo", "foo")]).await;
    for (key, value, part) in [
        (
            "local.metadatatransfer",
            "perhaps",
            "invalid value for local.metadatatransfer",
        ),
        ("local.followpaths", "foo", "invalid value for local.followpaths"),
        (
            "local.metadatatransferexclude",
            r#"["[a"]"#,
            "local.metadatatransferexclude",
        ),
    ] {
        let mut definition = Definition::default();
        let mut attrs = vec![(key, value)];
        if key.ends_with("exclude") {
            attrs.push(("local.metadatatransfer", "1"));
        }
        let source = definition.local(&attrs);
        let error = trees.build(definition.end(&source)).await.unwrap_err();
        assert!(error.message().contains(part), "{key}: {error}");
    }
    let mut definition = Definition::default();
    let source = definition.local(&[("local.followpaths", r#"["foo"]"#)]);
    assert_eq!(
        names(&trees.build(definition.end(&source)).await.unwrap()),
        ["foo"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_difference_of_unrelated_file_systems_is_put_on_a_third() {
    let trees = Trees::new(&[]).await;
    let mut definition = Definition::default();
    let lower = definition.mkfile(None, "/gone", "lower");
    let lower = definition.mkfile(Some(lower), "/changed", "lower");
    let upper = definition.mkfile(None, "/changed", "upper");
    let upper = definition.mkfile(Some(upper), "/new", "upper");
    let third = definition.mkfile(None, "/gone", "third");
    let third = definition.mkfile(Some(third), "/other", "third");
    let difference = definition.diff(lower, upper.clone());
    let alone = trees.build(definition.end(&difference)).await.unwrap();
    assert_eq!(names(&alone), ["changed", "new"]);
    let merged = definition.merge(vec![third.clone(), difference]);
    let merged = trees.build(definition.end(&merged)).await.unwrap();
    assert_eq!(names(&merged), ["changed", "new", "other"]);
    let twin = definition.merge(vec![third, upper]);
    let twin = trees.build(definition.end(&twin)).await.unwrap();
    assert_eq!(names(&twin), ["changed", "gone", "new", "other"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_merge_of_differences_deletes_what_they_deleted_and_no_more() {
    let trees = Trees::new(&[]).await;
    let mut definition = Definition::default();
    let base = definition.files(None, vec![mkdir("/dir"), mkfile("/dir/old", "base")]);
    let other = definition.files(None, vec![mkdir("/dir"), mkfile("/dir/other", "other")]);
    let new = || vec![mkdir("/dir"), mkfile("/dir/new", "anew")];
    // Removed and made anew in one layer: gone is what was in it.
    let anew = definition.files(Some(base.clone()), [vec![rm("/dir")], new()].concat());
    let change = definition.diff(base.clone(), anew.clone());
    let merged = definition.merge(vec![base.clone(), other.clone(), change.clone()]);
    let found = trees.build(definition.end(&merged)).await.unwrap();
    assert_eq!(names(&found), ["dir", "dir/new", "dir/other"]);
    // In layers of their own: the first of them says that all of the directory is gone.
    let removed = definition.file(Some(base.clone()), rm("/dir"));
    let later = definition.files(Some(removed), new());
    let both = definition.diff(base.clone(), later);
    let merged = definition.merge(vec![base, other.clone(), both]);
    let found = trees.build(definition.end(&merged)).await.unwrap();
    assert_eq!(names(&found), ["dir", "dir/new"]);
    // The difference, taken of the merge and of what it was put on, is the same again.
    let again = definition.merge(vec![other.clone(), change]);
    let again = definition.diff(other, again);
    let found = trees.build(definition.end(&again)).await.unwrap();
    assert_eq!(names(&found), ["dir", "dir/new"]);
    let same = definition.diff(anew.clone(), anew);
    assert!(trees.build(definition.end(&same)).await.unwrap().is_empty());
}
