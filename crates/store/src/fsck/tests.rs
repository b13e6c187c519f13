//! Every kind of problem is found, named and repaired; and processes killed at every point leave only harmless ones.

use super::*;
use crate::testing::{image, temporary_store};
use crate::{GcPolicy, LayerEntry, Lease, MountOwner, MountRequest, MountSharing, OpenOptions, Record};
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;

const THOROUGH: FsckOptions = FsckOptions {
    repair: false,
    contents: true,
};
const REPAIR: FsckOptions = FsckOptions {
    repair: true,
    contents: true,
};

fn form() -> FormName {
    FormName::parse("root").unwrap()
}

fn layer(store: &Store, lease: &Lease) -> LayerId {
    let id = LayerId::random().unwrap();
    let dir = lease.new_dir("upper").unwrap();
    std::fs::write(dir.join("file"), "content").unwrap();
    store.commit_layer(lease, &form(), &dir, &id).unwrap();
    id
}

fn record(store: &Store, key: &[u8], id: &LayerId, descriptor: Option<String>) {
    let record = Record {
        key: Digest::sha256(key),
        site: String::new(),
        vertex: String::new(),
        layers: vec![LayerEntry {
            id: id.clone(),
            output: 0,
            diff_id: None,
            descriptor,
        }],
        ingredients: vec![],
        created_ms: 0,
    };
    store.put_record(&record).unwrap();
}

#[test]
fn every_problem_is_found_left_alone_and_repaired_when_asked() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let root = store.root().to_owned();
    let [missing, short, wrong] = [b"a", b"b", b"c"].map(|text| store.put_blob(&lease, text).unwrap().digest);
    std::fs::remove_file(store.layout().blob(&missing)).unwrap();
    std::fs::write(store.layout().blob(&short), "").unwrap();
    std::fs::write(store.layout().blob(&wrong), "X").unwrap();
    let adopted = Digest::sha256(b"adopted");
    std::fs::write(store.layout().blob(&adopted), "adopted").unwrap();
    let junk = Digest::sha256(b"junk");
    std::fs::write(store.layout().blob(&junk), "not it").unwrap();
    std::fs::write(root.join("blobs/sha256/stray"), "").unwrap();
    let [gone, changed] = [0, 1].map(|_| layer(&store, &lease));
    record(&store, b"dangling", &gone, None);
    record(&store, b"lazy", &gone, Some(format!(r#"{{"digest":"{junk}"}}"#)));
    std::fs::remove_dir_all(store.layout().layer(&form(), &gone)).unwrap();
    std::fs::write(store.layout().layer(&form(), &changed).join("file"), "").unwrap();
    let orphan = LayerId::random().unwrap();
    std::fs::create_dir(store.layout().layer(&form(), &orphan)).unwrap();
    std::fs::create_dir(root.join("layers/Not a form")).unwrap();
    let (hex, other) = ("0".repeat(64), "1".repeat(64));
    std::fs::create_dir(root.join("mounts").join(&hex)).unwrap();
    let sql = "INSERT INTO mount(dir, id, created, used) VALUES(?1, '', 0, 0)";
    store
        .index()
        .write("test", |t| t.run(sql, [&other]).map(drop))
        .unwrap();
    let (broken, blobs) = image(&store, &lease, "x");
    store.set_image("a:b", &broken).unwrap();
    std::fs::remove_file(store.layout().blob(&blobs[0].digest)).unwrap();
    std::fs::write(root.join("index.json"), "{}").unwrap();
    std::fs::write(root.join("strange"), "").unwrap();
    drop(lease);

    use ProblemKind::*;
    let expected: BTreeSet<(ProblemKind, String)> = [
        (BlobMissing, missing.to_string()),
        (BlobWrong, short.to_string()),
        (BlobWrong, wrong.to_string()),
        (BlobOrphan, adopted.to_string()),
        (BlobOrphan, junk.to_string()),
        (Foreign, "blobs/sha256/stray".to_owned()),
        (LayerMissing, format!("root/{gone}")),
        (LayerWrong, format!("root/{changed}")),
        (LayerOrphan, format!("root/{orphan}")),
        (Foreign, "layers/Not a form".to_owned()),
        (MountOrphan, hex),
        (MountMissing, other),
        (BlobMissing, blobs[0].digest.to_string()),
        (IndexJsonStale, "index.json".to_owned()),
        (Foreign, "strange".to_owned()),
    ]
    .into();
    let found = |options| -> BTreeSet<(ProblemKind, String)> {
        store
            .fsck(options)
            .unwrap()
            .into_iter()
            .map(|problem| (problem.kind, problem.name))
            .collect()
    };
    assert_eq!(found(THOROUGH), expected);
    assert_eq!(found(THOROUGH), expected, "nothing was changed");
    let mut repaired = expected;
    // These follow from what the repair removes.
    repaired.insert((RecordDangling, Digest::sha256(b"dangling").to_string()));
    repaired.insert((ImageBroken, "a:b".to_owned()));
    assert_eq!(found(REPAIR), repaired);
    let rest: BTreeSet<_> = [(Foreign, "strange".to_owned())].into();
    assert_eq!(
        found(THOROUGH),
        rest,
        "what is at the top is the user's to remove"
    );
    assert!(store.verify_blob(&adopted).unwrap());
    assert!(store.get_record(&Digest::sha256(b"lazy")).unwrap().is_some());
    assert!(store.get_image("a:b").unwrap().is_none());
}

/// What the killed processes do: everything that writes.
fn work(root: &Path, round: u64) {
    let store = Store::open(root, &OpenOptions::default()).unwrap();
    let lease = store.lease("victim").unwrap();
    for n in 0..3 {
        let text = format!("{round} {n}");
        let id = layer(&store, &lease);
        let (image, _) = image(&store, &lease, &text);
        store.set_image(&format!("image:{n}"), &image).unwrap();
        let key = Digest::sha256(text.as_bytes());
        let lock = store.try_lock_key(&key).unwrap();
        record(&store, text.as_bytes(), &id, None);
        drop(lock);
        let wanted = MountRequest {
            id: &text,
            owner: MountOwner::Step,
            sharing: MountSharing::Locked,
            fresh: false,
        };
        let mount = store
            .cache_mount(&lease, wanted, &|| false, &mut |path| {
                std::fs::write(path.join("s"), "")
            })
            .unwrap();
        drop(mount);
    }
    store.remove_image("image:1").unwrap();
    drop(lease);
    std::fs::write(root.with_extension("gc"), "").unwrap();
    store
        .gc(&GcPolicy {
            all: true,
            ..GcPolicy::default()
        })
        .unwrap();
}

const VICTIM: &str = "RBUILD_STORE_TEST_VICTIM";

/// Not a test of its own: the process that is killed.
#[test]
fn child_victim() {
    if let Ok(root) = std::env::var(VICTIM) {
        let round = std::env::var("RBUILD_STORE_TEST_ROUND").unwrap().parse().unwrap();
        work(Path::new(&root), round);
    }
}

fn victim(root: &Path, round: u64) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "fsck::tests::child_victim", "--nocapture"])
        .env(VICTIM, root)
        .env("RBUILD_STORE_TEST_ROUND", round.to_string())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped());
    command
}

/// Whether a process killed at the wrong time leaves this, with nothing lost.
const fn is_leftover(kind: ProblemKind) -> bool {
    matches!(
        kind,
        ProblemKind::BlobOrphan
            | ProblemKind::LayerOrphan
            | ProblemKind::MountMissing
            | ProblemKind::MountOrphan
            | ProblemKind::IndexJsonStale
    )
}

fn assert_whole(root: &Path, when: &str) {
    let store = Store::open(root, &OpenOptions::default()).unwrap();
    let problems = store.fsck(THOROUGH).unwrap();
    // A collection moves a file away before it commits that the row is gone: then what was garbage is a miss.
    let collecting = std::fs::remove_file(root.with_extension("gc")).is_ok();
    let garbage = |problem: &Problem| {
        collecting && matches!(problem.kind, ProblemKind::BlobMissing | ProblemKind::LayerMissing)
    };
    let bad: Vec<_> = problems
        .iter()
        .filter(|problem| !is_leftover(problem.kind) && !garbage(problem))
        .collect();
    assert!(bad.is_empty(), "killed {when}: {bad:?}");
    for (name, image) in store.list_images().unwrap() {
        let (mut blobs, mut diff_ids) = Default::default();
        store.image_reaches(&image.digest, &mut blobs, &mut diff_ids);
        assert_eq!(blobs.len(), 3, "killed {when}: {name} lost something");
        for blob in blobs {
            assert!(
                store.verify_blob(&blob).unwrap(),
                "killed {when}: {name} lost {blob}"
            );
        }
    }
    store.fsck(REPAIR).unwrap();
    assert_eq!(store.fsck(THOROUGH).unwrap(), [], "killed {when}: repaired");
    assert_eq!(
        std::fs::read_dir(root.join("tmp")).unwrap().count(),
        0,
        "killed {when}: scratch is left"
    );
}

#[test]
fn killed_at_every_point_the_store_is_before_or_after() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let mut survived = false;
    for point in 1..200u64 {
        let status = victim(&root, point)
            .env("RBUILD_STORE_FAULT", point.to_string())
            .status()
            .unwrap();
        assert_whole(&root, &format!("at point {point}"));
        if status.success() {
            assert!(point > 30, "only {point} points were passed");
            survived = true;
            break;
        }
        assert_eq!(status.signal(), Some(9), "at point {point}: {status:?}");
    }
    assert!(survived, "there are more than 200 points");
    // The next build works.
    assert!(victim(&root, 1000).status().unwrap().success());
    assert_whole(&root, "not at all");
}

#[test]
fn two_processes_at_once_killed_at_random_times_never_break_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let mut seed = u64::from(std::process::id());
    let mut killed = 0;
    for round in 0..25 {
        let mut children = [
            victim(&root, round).spawn().unwrap(),
            victim(&root, 100 + round).spawn().unwrap(),
        ];
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(std::time::Duration::from_micros((seed >> 33) % 60_000));
        children[0].kill().unwrap();
        killed += u32::from(children[0].wait().unwrap().signal() == Some(9));
        let [_, other] = children;
        let output = other.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "round {round}: the other process failed: {text}"
        );
    }
    assert!(killed > 3, "only {killed} of 25 were killed in time");
    assert_whole(&root, "at random times");
}

#[test]
fn two_processes_build_in_one_store() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let children: Vec<_> = (0..4)
        .map(|round| victim(&root, round).spawn().unwrap())
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_whole(&root, "not at all");
}
