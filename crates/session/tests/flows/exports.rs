//! Results that go to the client: archives as bytes, and trees.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rbuild_session::fake::{Dialogue, FakeClient, ReceivedTree};
use rbuild_session::wire::{BytesMessage, Packet, PacketType};
use rbuild_session::{CallError, ExtraFile, Selection, SendError, SendTree, SendTreeError, TreeSource};
use rbuild_sys::RootFd;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::setting::{SOON, connect};

fn nothing() -> BTreeMap<String, String> {
    BTreeMap::new()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_arrives_whole() {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let (_sessions, client) = connect(FakeClient::new("one").output(3, &taken)).await;
    let sender = client
        .session()
        .send_bytes(3, &nothing(), &CancellationToken::new())
        .unwrap();
    let mut sender = sender.into_blocking();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let archive = sent.clone();
    tokio::task::spawn_blocking(move || {
        // Small pieces, one larger than any buffer, and a flush in between.
        for piece in archive[..10_000].chunks(7) {
            sender.write_all(piece).unwrap();
        }
        sender.flush().unwrap();
        sender.write_all(&archive[10_000..]).unwrap();
        sender.finish()
    })
    .await
    .unwrap()
    .unwrap();
    assert!(*taken.lock().unwrap() == sent);
}

#[tokio::test]
async fn what_the_exporter_says_of_its_result_arrives() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let client = FakeClient::new("one").file_send(move |mut talk| {
        let log = Arc::clone(&log);
        async move {
            for key in [
                "exporter-md-containerimage.digest",
                "buildkit-attachable-exporter-id",
            ] {
                log.lock().unwrap().push(talk.header(key));
            }
            while talk.next().await?.is_some() {}
            Ok(())
        }
    });
    let (_sessions, client) = connect(client).await;
    let metadata = BTreeMap::from([("containerimage.digest".to_owned(), "sha256:1".to_owned())]);
    let sender = client
        .session()
        .send_bytes(7, &metadata, &CancellationToken::new())
        .unwrap();
    sender.finish().await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["sha256:1", "7"]);
}

#[tokio::test]
async fn the_end_waits_for_the_clients_end() {
    let done = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&done);
    let client = FakeClient::new("one").file_send(move |mut talk| {
        let flag = Arc::clone(&flag);
        async move {
            while talk.next().await?.is_some() {}
            tokio::time::sleep(Duration::from_millis(300)).await;
            flag.store(true, Ordering::SeqCst);
            Ok(())
        }
    });
    let (_sessions, client) = connect(client).await;
    let mut sender = client
        .session()
        .send_bytes(0, &nothing(), &CancellationToken::new())
        .unwrap();
    sender.write(b"x").await.unwrap();
    sender.finish().await.unwrap();
    assert!(done.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_refusal_comes_out_at_the_end_and_while_writing() {
    let refuse = |code: fn(String) -> Status| {
        FakeClient::new("one").file_send(move |_| async move { Err(code("target already exists".into())) })
    };
    let (_sessions, client) = connect(refuse(Status::already_exists)).await;
    let sender = client
        .session()
        .send_bytes(0, &nothing(), &CancellationToken::new())
        .unwrap();
    let error = sender.finish().await.unwrap_err();
    assert!(error.is_already_there(), "{error:?}");

    let (_sessions, client) = connect(refuse(Status::unknown)).await;
    let mut sender = client
        .session()
        .send_bytes(0, &nothing(), &CancellationToken::new())
        .unwrap();
    let writing = async {
        loop {
            if let Err(error) = sender.write(&[0; 100_000]).await {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(SOON, writing).await.unwrap();
    assert_eq!(error.to_string(), "target already exists");

    let (_sessions, without) = connect(FakeClient::new("two")).await;
    let error = without
        .session()
        .send_bytes(0, &nothing(), &CancellationToken::new())
        .unwrap_err();
    assert!(
        matches!(error, SendError::Call(CallError::Unsupported { .. })),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn row48_a_client_that_stops_reading_stops_the_writer() {
    let client =
        FakeClient::new("one").file_send(|mut talk: Dialogue<BytesMessage, BytesMessage>| async move {
            talk.next().await?;
            std::future::pending().await
        });
    let (_sessions, client) = connect(client).await;
    let cancel = CancellationToken::new();
    let mut sender = client
        .session()
        .send_bytes(0, &nothing(), &cancel)
        .unwrap()
        .into_blocking();
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let writer = tokio::task::spawn_blocking(move || {
        loop {
            match sender.write_all(&[0; 64 << 10]) {
                Ok(()) => count.fetch_add(64 << 10, Ordering::SeqCst),
                Err(error) => return error,
            };
        }
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    let stuck = written.load(Ordering::SeqCst);
    assert!(
        stuck < 16 << 20,
        "{stuck} bytes wait for a client that does not read"
    );
    cancel.cancel();
    let error = tokio::time::timeout(SOON, writer).await.unwrap().unwrap();
    assert_eq!(error.to_string(), "cancelled");
}

#[tokio::test]
async fn an_unfinished_archive_is_not_taken_for_a_whole_one() {
    let ended_well = Arc::new(AtomicBool::new(false));
    let (over, mut is_over) = tokio::sync::mpsc::channel::<()>(1);
    let flag = Arc::clone(&ended_well);
    let client = FakeClient::new("one").file_send(move |mut talk| {
        let (flag, over) = (Arc::clone(&flag), over.clone());
        async move {
            let _over = over;
            while talk.next().await?.is_some() {}
            flag.store(true, Ordering::SeqCst);
            Ok(())
        }
    });
    let (_sessions, client) = connect(client).await;
    let mut sender = client
        .session()
        .send_bytes(0, &nothing(), &CancellationToken::new())
        .unwrap();
    sender.write(&vec![0; 600_000]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(sender);
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.disconnect();
    tokio::time::timeout(SOON, is_over.recv()).await.ok();
    assert!(
        !ended_well.load(Ordering::SeqCst),
        "the client saw an orderly end"
    );
}

fn source(root: &std::path::Path, prefix: Option<&str>) -> TreeSource {
    TreeSource {
        prefix: prefix.map(str::to_owned),
        root: RootFd::open(root).unwrap(),
        extra: Vec::new(),
        mod_time: None,
        selection: Selection::default(),
    }
}

async fn send(client: FakeClient, trees: Vec<TreeSource>) -> Result<ReceivedTree, SendTreeError> {
    let received = Arc::new(Mutex::new(ReceivedTree::default()));
    let (_sessions, client) = connect(client.output_tree(2, &received)).await;
    let request = SendTree {
        exporter: 2,
        trees,
        whole: true,
    };
    let cancel = CancellationToken::new();
    let report = tokio::time::timeout(SOON, client.session().send_tree(request, |_| (), &cancel))
        .await
        .unwrap()?;
    let tree = received.lock().unwrap().clone();
    assert_eq!(report.entries as usize, tree.entries.len());
    assert_eq!(
        report.bytes as usize,
        tree.content.values().map(Vec::len).sum::<usize>()
    );
    Ok(tree)
}

fn furnish() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("bin/sub")).unwrap();
    fs::write(at("bin/tool"), vec![5; 300_000]).unwrap();
    fs::set_permissions(at("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(at("bin/tool"), at("same")).unwrap();
    symlink("/bin/tool", at("abs")).unwrap();
    symlink("tool", at("bin/rel")).unwrap();
    fs::write(at("empty"), "").unwrap();
    dir
}

fn paths(tree: &ReceivedTree) -> Vec<String> {
    tree.entries
        .iter()
        .map(|e| String::from_utf8(e.path.clone()).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_arrives() {
    let dir = furnish();
    let tree = send(FakeClient::new("one"), vec![source(dir.path(), None)])
        .await
        .unwrap();
    assert_eq!(
        paths(&tree),
        ["abs", "bin", "bin/rel", "bin/sub", "bin/tool", "empty", "same"]
    );
    assert!(tree.whole);
    let of = |path: &str| tree.entries.iter().find(|e| e.path == path.as_bytes()).unwrap();
    assert_eq!(of("abs").linkname, b"/bin/tool");
    assert_eq!(of("same").linkname, b"bin/tool");
    assert_eq!(of("same").size, 0);
    assert_eq!(of("bin/tool").mode, 1 << 23 | 0o755, "Go's bit for setuid");
    assert_eq!(of("bin").mode & (1 << 31), 1 << 31);
    assert_eq!(tree.content[&PathBuf::from("bin/tool")], vec![5; 300_000]);
    assert_eq!(tree.content[&PathBuf::from("empty")], b"");
    assert_eq!(tree.content.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_of_several_platforms_with_attestations() {
    let dir = furnish();
    let mut arm = source(dir.path(), Some("linux_arm64"));
    arm.mod_time = Some(77);
    let mut amd = source(dir.path(), Some("linux_amd64"));
    for (name, data) in [
        ("sbom.json", "{}"),
        ("abs", "instead of the link"),
        ("bin", "instead of all"),
    ] {
        amd.extra.push(ExtraFile {
            name: name.into(),
            data: data.as_bytes().into(),
            mode: 0o600,
            mod_time: 5,
        });
    }
    let tree = send(FakeClient::new("one"), vec![arm, amd]).await.unwrap();
    assert_eq!(
        paths(&tree),
        [
            "linux_amd64",
            "linux_amd64/abs",
            "linux_amd64/bin",
            "linux_amd64/empty",
            "linux_amd64/same",
            "linux_amd64/sbom.json",
            "linux_arm64",
            "linux_arm64/abs",
            "linux_arm64/bin",
            "linux_arm64/bin/rel",
            "linux_arm64/bin/sub",
            "linux_arm64/bin/tool",
            "linux_arm64/empty",
            "linux_arm64/same",
        ]
    );
    let of = |path: &str| tree.entries.iter().find(|e| e.path == path.as_bytes()).unwrap();
    assert_eq!(of("linux_amd64/sbom.json").mod_time, 5);
    assert_eq!(tree.content[&PathBuf::from("linux_amd64/sbom.json")], b"{}");
    assert_eq!(
        tree.content[&PathBuf::from("linux_amd64/abs")],
        b"instead of the link"
    );
    assert_eq!(of("linux_arm64/abs").linkname, b"/linux_arm64/bin/tool");
    assert_eq!(of("linux_arm64/same").linkname, b"linux_arm64/bin/tool");
    assert!(
        tree.entries
            .iter()
            .filter(|e| e.path.starts_with(b"linux_arm64"))
            .all(|e| e.mod_time == 77)
    );
}

#[tokio::test]
async fn prefixes_that_make_no_tree_are_refused() {
    let dir = furnish();
    for prefixes in [
        [Some("a"), Some("a")],
        [None, Some("a")],
        [Some(".."), Some("a")],
        [Some("a/b"), Some("c")],
    ] {
        let trees = prefixes.map(|prefix| source(dir.path(), prefix)).into();
        let error = send(FakeClient::new("one"), trees).await.unwrap_err();
        assert!(matches!(error, SendTreeError::Name(_)), "{prefixes:?}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row48_a_client_gets_only_what_was_listed() {
    let dir = furnish();
    for wanted in [1, 99] {
        let client = FakeClient::new("one").script(
            "/moby.filesync.v1.FileSend/DiffCopy",
            move |mut talk: Dialogue<Packet, Packet>| async move {
                // Entry 1 is a directory.
                talk.say(Packet::request(wanted)).await?;
                while talk.next().await?.is_some() {}
                Ok(())
            },
        );
        let (_sessions, client) = connect(client).await;
        let request = SendTree {
            exporter: 0,
            trees: vec![source(dir.path(), None)],
            whole: false,
        };
        let error = client
            .session()
            .send_tree(request, |_| (), &CancellationToken::new())
            .await
            .unwrap_err();
        assert!(
            matches!(error, SendTreeError::UnknownId(id) if id == wanted),
            "{error:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_take_nothing_fail_or_go_quiet() {
    let dir = furnish();
    let run = async |client: FakeClient, cancel: CancellationToken| {
        let (_sessions, client) = connect(client).await;
        let request = SendTree {
            exporter: 0,
            trees: vec![source(dir.path(), None)],
            whole: false,
        };
        let sent = client.session().send_tree(request, |_| (), &cancel);
        tokio::time::timeout(SOON, sent).await.unwrap()
    };
    let method = "/moby.filesync.v1.FileSend/DiffCopy";
    let takes_nothing =
        FakeClient::new("one").script(method, |mut talk: Dialogue<Packet, Packet>| async move {
            talk.say(Packet::bare(PacketType::Fin)).await?;
            while talk.next().await?.is_some() {}
            Ok(())
        });
    let report = run(takes_nothing, CancellationToken::new()).await.unwrap();
    assert_eq!((report.entries, report.files), (7, 0));

    let fails = FakeClient::new("one").script(method, |talk: Dialogue<Packet, Packet>| async move {
        talk.say(Packet::failure("no space left on device")).await?;
        Err(Status::unknown("no space left on device"))
    });
    let error = run(fails, CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "error from receiver: no space left on device");

    let leaves = FakeClient::new("one").script(method, |_: Dialogue<Packet, Packet>| async move { Ok(()) });
    let error = run(leaves, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, SendTreeError::Ended), "{error:?}");

    let quiet = FakeClient::new("one").script(method, |_: Dialogue<Packet, Packet>| async move {
        std::future::pending().await
    });
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.cancel();
    });
    let start = Instant::now();
    let error = run(quiet, cancel).await.unwrap_err();
    assert!(matches!(error, SendTreeError::Cancelled), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(9));
}
