//! Sources and operations that only definitions of clients have: blobs as files, repositories as bundles, passthrough.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::moby::buildkit::v1::{Exporter, SolveRequest};
use rbuild_graph::{
    Edge, FileAction, FileActionKind, FileOp, Graph, MkFileAction, Op, PassthroughOp, RmAction, SourceOp,
    Vertex,
};
use rbuild_oci::Digest;
use rbuild_session::fake::FakeClient;
use rbuild_testkit::registry::TestRegistry;
use tonic::Status;

use crate::bench::Bench;

/// Files by name: content, mode and owner.
type Files = BTreeMap<String, (Vec<u8>, u32, u64)>;

fn add(graph: &mut Graph, op: Op, inputs: Vec<Edge>) -> Edge {
    let vertex = graph.add(Vertex::new(op, inputs));
    Edge {
        vertex: vertex.unwrap(),
        output: 0,
    }
}

fn source(identifier: &str, attrs: &[(&str, &str)]) -> Op {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Op::Source(SourceOp {
        identifier: identifier.to_owned(),
        attrs: attrs.iter().map(pair).collect(),
    })
}

/// The files that `target` of `graph` is.
async fn built(bench: &Bench, id: &str, graph: &Graph, target: &Edge) -> Result<Files, Status> {
    let out = Arc::new(Mutex::new(Vec::new()));
    let _client = FakeClient::new(id)
        .output(0, &out)
        .connect(&bench.core.sessions)
        .await
        .unwrap();
    let request = SolveRequest {
        r#ref: id.to_owned(),
        session: id.to_owned(),
        definition: Some(rbuild_llb::encode(graph, target).unwrap()),
        exporters: vec![Exporter {
            r#type: "tar".to_owned(),
            ..Exporter::default()
        }],
        ..SolveRequest::default()
    };
    bench.solve(request).await?;
    let out = out.lock().unwrap();
    let mut files = Files::new();
    for entry in tar::Archive::new(out.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let header = entry.header();
        let facts = (bytes, header.mode().unwrap() & 0o7777, header.uid().unwrap());
        files.insert(entry.path().unwrap().display().to_string(), facts);
    }
    Ok(files)
}

async fn built_of_source(
    bench: &Bench,
    id: &str,
    identifier: &str,
    attrs: &[(&str, &str)],
) -> Result<Files, Status> {
    let mut graph = Graph::default();
    let target = add(&mut graph, source(identifier, attrs), Vec::new());
    built(bench, id, &graph, &target).await
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row48_a_blob_is_a_file_and_no_other_blob() {
    let bench = Bench::new();
    let registry = TestRegistry::start();
    let digest = registry.put_blob("blobs", b"what is in it");
    let name = format!("docker-image+blob://{}@{digest}", registry.reference("blobs"));
    let plain = built_of_source(&bench, "plain", &name, &[]).await.unwrap();
    assert_eq!(plain[digest.hex()], (b"what is in it".to_vec(), 0o600, 0));
    let attrs = [("http.filename", "f"), ("http.perm", "0644"), ("http.uid", "123")];
    let named = built_of_source(&bench, "named", &name, &attrs).await.unwrap();
    assert_eq!(named["f"], (b"what is in it".to_vec(), 0o644, 123));
    // The blob is there, and its key too: nothing is asked.
    let asked = registry.requests().len();
    built_of_source(&bench, "again", &name, &attrs).await.unwrap();
    assert_eq!(registry.requests().len(), asked);
    let other = Digest::sha256(b"something else");
    registry.put_blob_as("blobs", &other, b"what is not it");
    let lying = format!("docker-image+blob://{}@{other}", registry.reference("blobs"));
    let error = built_of_source(&bench, "lying", &lying, &[]).await.unwrap_err();
    assert!(error.message().contains("failed to fetch blob"), "{error}");
    let escaping = [("http.filename", "../f")];
    let error = built_of_source(&bench, "escaping", &name, &escaping)
        .await
        .unwrap_err();
    assert!(error.message().contains("invalid http.filename"), "{error}");
    let store = format!("oci-layout+blob://a/b@{digest}");
    let error = built_of_source(&bench, "no store", &store, &[])
        .await
        .unwrap_err();
    assert!(error.message().contains("requires store id"), "{error}");
}

/// Runs git in `dir` and gives what it prints.
fn git(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.test"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_commit_comes_from_a_bundle_and_becomes_one() {
    let bench =
        Bench::with_sandbox(rbuild_sandbox::Sandbox::with_program(crate::gateway::program()).unwrap());
    let registry = TestRegistry::start();
    let work = bench.files("work", &[("file", "first")]);
    git(&work, &["init", "-q", "-b", "main"]);
    for text in ["first", "second"] {
        std::fs::write(work.join("file"), text).unwrap();
        git(&work, &["add", "file"]);
        git(&work, &["commit", "-q", "-m", text]);
    }
    let commit = git(&work, &["rev-parse", "HEAD"]);
    git(&work, &["bundle", "create", "-q", "made", "main"]);
    let digest = registry.put_blob("bundles", &std::fs::read(work.join("made")).unwrap());
    let bundle = format!("docker-image+blob://{}@{digest}", registry.reference("bundles"));
    // Nobody is there.
    let remote = "git://127.0.0.1:1/repository.git";
    let attrs = [("git.bundle", bundle.as_str()), ("git.checksum", commit.as_str())];
    for (id, name) in [("branch", "main"), ("commit", commit.as_str()), ("none", "")] {
        let identifier = format!("{remote}#{name}");
        let files = built_of_source(&bench, id, &identifier, &attrs).await.unwrap();
        assert_eq!(files["file"].0, b"second", "{id}");
    }
    let as_bundle = [attrs[0], attrs[1], ("git.checkoutbundle", "true")];
    let files = built_of_source(&bench, "out", &format!("{remote}#main"), &as_bundle)
        .await
        .unwrap();
    std::fs::write(work.join("out"), &files["bundle"].0).unwrap();
    git(&work, &["clone", "-q", "-b", "main", "out", "clone"]);
    assert_eq!(git(&work.join("clone"), &["rev-list", "--count", &commit]), "2");
    let other = "0".repeat(40);
    let missing = [attrs[0], ("git.checksum", other.as_str())];
    for (id, attrs, told) in [
        ("missing", &missing[..], "not found in bundle"),
        ("unpinned", &attrs[..1], "git.bundle requires git.checksum"),
        (
            "url",
            &[("git.bundle", "https://x.test/b"), attrs[1]],
            "failed to parse git.bundle locator",
        ),
        (
            "both",
            &[as_bundle[2], ("git.keepgitdir", "true")],
            "git.checkoutbundle is incompatible with git.keepgitdir",
        ),
    ] {
        let built = built_of_source(&bench, id, &format!("{remote}#main"), attrs).await;
        let error = built.unwrap_err();
        assert!(error.message().contains(told), "{id}: {error}");
    }
}

fn file(path: &str) -> Op {
    action(FileActionKind::MkFile(MkFileAction {
        path: path.to_owned(),
        mode: 0o644,
        data: path.as_bytes().to_vec(),
        owner: None,
        time: None,
    }))
}

fn action(kind: FileActionKind) -> Op {
    Op::File(FileOp {
        actions: vec![FileAction {
            input: None,
            secondary_input: None,
            output: Some(0),
            kind,
        }],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_passthrough_gives_some_of_what_it_builds() {
    let bench = Bench::new();
    let mut graph = Graph::default();
    let made = ["/a", "/b", "/c"].map(|path| add(&mut graph, file(path), Vec::new()));
    let chosen = |outputs: Vec<u32>| {
        Op::Passthrough(PassthroughOp {
            id: "test".to_owned(),
            outputs,
        })
    };
    let mut pass = add(&mut graph, chosen(vec![2, 0]), made.to_vec());
    for (output, name) in ["c", "a"].into_iter().enumerate() {
        pass.output = u32::try_from(output).unwrap();
        let files = built(&bench, name, &graph, &pass).await.unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), [name]);
    }
    let missing = action(FileActionKind::Rm(RmAction {
        path: "/not/there".to_owned(),
        allow_not_found: false,
        allow_wildcard: false,
    }));
    let fails = add(&mut graph, missing, Vec::new());
    let pass = add(&mut graph, chosen(vec![0]), vec![made[0].clone(), fails]);
    assert!(built(&bench, "fails", &graph, &pass).await.is_err());
}
