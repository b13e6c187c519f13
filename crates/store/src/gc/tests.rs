//! What goes first, what never goes, and that `du` tells the truth.

use super::*;
use crate::testing::{image, manual_store, temporary_store};
use crate::{Lease, MountOwner, MountRequest, MountSharing, Record};
use rbuild_oci::DiffId;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;

fn form() -> FormName {
    FormName::parse("root").unwrap()
}

fn layer(store: &Store, lease: &Lease, id: &LayerId, bytes: usize) {
    let dir = lease.new_dir("upper").unwrap();
    std::fs::write(dir.join("file"), vec![1; bytes]).unwrap();
    store.commit_layer(lease, &form(), &dir, id).unwrap();
}

fn record(store: &Store, key: &[u8], layers: &[&LayerId]) -> Digest {
    let layers = layers
        .iter()
        .map(|id| LayerEntry {
            id: (*id).clone(),
            output: 0,
            diff_id: None,
            descriptor: None,
        })
        .collect();
    let key = Digest::sha256(key);
    store
        .put_record(&Record {
            key: key.clone(),
            site: "s".to_owned(),
            vertex: "v".to_owned(),
            layers,
            ingredients: vec![],
            created_ms: 0,
        })
        .unwrap();
    key
}

fn there(store: &Store, id: &LayerId) -> bool {
    store.layer_dir(&form(), id).unwrap().is_some()
}

/// What `du -s` says, by another way than the code under test.
fn blocks_below(path: &Path, links: &mut HashSet<u64>) -> u64 {
    let stat = std::fs::symlink_metadata(path).unwrap();
    let mut sum = if stat.is_dir() || links.insert(stat.ino()) {
        stat.blocks() * 512
    } else {
        0
    };
    if stat.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            sum += blocks_below(&entry.unwrap().path(), links);
        }
    }
    sum
}

#[test]
fn du_equals_the_blocks_on_disk() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let [one, two] = [0, 1].map(|_| LayerId::random().unwrap());
    layer(&store, &lease, &one, 100_000);
    let upper = lease.new_dir("upper").unwrap();
    let linked = store.root().join("layers/root").join(one.as_str()).join("file");
    std::fs::hard_link(linked, upper.join("same")).unwrap();
    std::fs::create_dir(upper.join("sub")).unwrap();
    let sparse = std::fs::File::create(upper.join("sub/sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    store.commit_layer(&lease, &form(), &upper, &two).unwrap();
    store.put_blob(&lease, &vec![2; 70_000]).unwrap();
    let wanted = MountRequest {
        id: "m",
        owner: MountOwner::Step,
        sharing: MountSharing::Shared,
        fresh: false,
    };
    let mount = store
        .cache_mount(&lease, wanted, &|| true, &mut |_| Ok(()))
        .unwrap();
    std::fs::write(mount.path().join("cached"), vec![3; 50_000]).unwrap();
    std::fs::write(lease.new_path("scratch"), vec![4; 30_000]).unwrap();
    let usage = store.du().unwrap();
    let real = blocks_below(store.root(), &mut HashSet::new());
    assert_eq!(usage.total_bytes(), real);
    assert!(real < 2_000_000, "a hole is no block");
    let of_kind = |kind| usage.entries.iter().filter(move |entry| entry.kind == kind);
    assert_eq!(of_kind(UsageKind::Layer).count(), 2);
    let layers: u64 = of_kind(UsageKind::Layer).map(|entry| entry.bytes).sum();
    assert!(layers < 150_000, "the linked file counts once: {layers}");
    assert_eq!(of_kind(UsageKind::Blob).count(), 1);
    let mounts: Vec<_> = of_kind(UsageKind::CacheMount).collect();
    assert_eq!(mounts.len(), 1);
    assert_eq!(mounts[0].description, "m");
}

#[test]
fn nothing_a_lease_holds_is_taken() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let id = LayerId::random().unwrap();
    layer(&store, &lease, &id, 1000);
    let key = record(&store, b"k", &[&id]);
    let blob = store.put_blob(&lease, b"content").unwrap();
    let wanted = MountRequest {
        id: "m",
        owner: MountOwner::Step,
        sharing: MountSharing::Shared,
        fresh: false,
    };
    let mount = store
        .cache_mount(&lease, wanted, &|| true, &mut |_| Ok(()))
        .unwrap();
    let everything = GcPolicy {
        all: true,
        ..GcPolicy::default()
    };
    assert_eq!(store.gc(&everything).unwrap(), Collected::default());
    let other = store.lease("other").unwrap();
    assert_eq!(
        other
            .hold_layers(&form(), std::slice::from_ref(&id))
            .unwrap()
            .len(),
        1
    );
    drop((lease, mount));
    let collected = store.gc(&everything).unwrap();
    assert_eq!(collected.parts.len(), 2, "{collected:?}");
    assert!(there(&store, &id) && store.get_record(&key).unwrap().is_some());
    assert_eq!(store.has_blob(&blob.digest).unwrap(), None);
    drop(other);
    assert_eq!(store.gc(&everything).unwrap().parts.len(), 1);
    assert!(!there(&store, &id) && store.get_record(&key).unwrap().is_none());
    assert_eq!(
        store
            .fsck(crate::FsckOptions {
                repair: false,
                contents: true
            })
            .unwrap(),
        []
    );
    assert_eq!(std::fs::read_dir(store.root().join("trash")).unwrap().count(), 0);
}

#[test]
fn a_lease_of_a_dead_process_holds_nothing() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let blob = store.put_blob(&lease, b"content").unwrap();
    // As if it had been killed: the directory stays with all it holds, the lock is free.
    let dead = store.root().join("tmp/dead");
    std::fs::create_dir(&dead).unwrap();
    std::fs::copy(lease.dir().join("held"), dead.join("held")).unwrap();
    drop(lease);
    assert_eq!(store.holdings().unwrap().len(), 1);
    store.gc(&GcPolicy::default()).unwrap();
    assert_eq!(store.has_blob(&blob.digest).unwrap(), None);
    assert!(!store.root().join("tmp/dead").exists());
}

#[test]
fn the_least_recently_used_goes_first_and_leaves_before_what_they_stand_on() {
    let (_dir, store, clock) = manual_store();
    let lease = store.lease("test").unwrap();
    let ids: Vec<LayerId> = (0..5).map(|_| LayerId::random().unwrap()).collect();
    for id in &ids {
        layer(&store, &lease, id, 100_000);
    }
    // 0 is the base of two chains: 0-1-2 (old) and 0-3-4 (new).
    record(&store, b"old", &[&ids[0], &ids[1], &ids[2]]);
    drop(lease);
    clock.fetch_add(3_600_000, Ordering::SeqCst);
    let new = record(&store, b"new", &[&ids[0], &ids[3], &ids[4]]);
    let total = store.du().unwrap().total_bytes();
    let order = |policy: &GcPolicy| -> Vec<usize> {
        let parts = store.gc(policy).unwrap().parts;
        parts
            .iter()
            .map(|(_, name, _)| ids.iter().position(|id| name.ends_with(id.as_str())).unwrap())
            .collect()
    };
    let dry = GcPolicy {
        dry_run: true,
        ..GcPolicy::default()
    };
    assert_eq!(order(&dry), [2, 1, 4, 3, 0]);
    assert!(
        ids.iter().all(|id| store.layout().layer(&form(), id).is_dir()),
        "a dry run removes nothing"
    );
    let old_only = GcPolicy {
        unused_for: Some(Duration::from_secs(1800)),
        ..dry.clone()
    };
    assert_eq!(order(&old_only), [2, 1]);
    let bounded = GcPolicy {
        max_bytes: Some(total - 150_000),
        ..GcPolicy::default()
    };
    assert_eq!(order(&bounded), [2, 1]);
    assert!(store.du().unwrap().total_bytes() <= total - 150_000);
    assert_eq!(order(&bounded), [] as [usize; 0], "it holds already");
    assert!(store.get_record(&new).unwrap().is_some());
    assert!(store.get_record(&Digest::sha256(b"old")).unwrap().is_none());
}

#[test]
fn using_a_record_keeps_its_layers() {
    let (_dir, store, clock) = manual_store();
    let lease = store.lease("test").unwrap();
    let ids: Vec<LayerId> = (0..2).map(|_| LayerId::random().unwrap()).collect();
    let keys: Vec<Digest> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| {
            layer(&store, &lease, id, 10);
            record(&store, &[u8::try_from(n).unwrap()], &[id])
        })
        .collect();
    drop(lease);
    clock.fetch_add(3_600_000, Ordering::SeqCst);
    store.get_record(&keys[0]).unwrap().unwrap();
    let policy = GcPolicy {
        unused_for: Some(Duration::from_secs(60)),
        ..GcPolicy::default()
    };
    store.gc(&policy).unwrap();
    assert!(there(&store, &ids[0]) && !there(&store, &ids[1]));
}

#[test]
fn what_an_image_name_needs_stays() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let (named, kept) = image(&store, &lease, "named");
    let (_, unnamed) = image(&store, &lease, "unnamed");
    store.set_image("a:b", &named).unwrap();
    let unpacked = LayerId::of_diff_id(&DiffId(Digest::sha256(b"named")));
    layer(&store, &lease, &unpacked, 10);
    drop(lease);
    store.gc(&GcPolicy::default()).unwrap();
    assert!(
        kept.iter()
            .all(|blob| store.has_blob(&blob.digest).unwrap().is_some())
    );
    assert!(
        unnamed
            .iter()
            .all(|blob| store.has_blob(&blob.digest).unwrap().is_none())
    );
    assert!(there(&store, &unpacked));
    store
        .gc(&GcPolicy {
            all: true,
            ..GcPolicy::default()
        })
        .unwrap();
    assert!(
        kept.iter()
            .all(|blob| store.has_blob(&blob.digest).unwrap().is_some())
    );
    assert!(!there(&store, &unpacked), "it can be unpacked again");
    store.remove_image("a:b").unwrap();
    store.gc(&GcPolicy::default()).unwrap();
    assert!(
        kept.iter()
            .all(|blob| store.has_blob(&blob.digest).unwrap().is_none())
    );
}

#[test]
fn kinds_restrict_what_goes() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let id = LayerId::random().unwrap();
    layer(&store, &lease, &id, 10);
    let blob = store.put_blob(&lease, b"content").unwrap();
    drop(lease);
    let policy = GcPolicy {
        kinds: Some(vec![UsageKind::Blob]),
        ..GcPolicy::default()
    };
    assert_eq!(store.gc(&policy).unwrap().parts.len(), 1);
    assert!(there(&store, &id) && store.has_blob(&blob.digest).unwrap().is_none());
}

#[test]
fn collecting_while_others_commit_and_hold_never_breaks_what_is_held() {
    let (_dir, store) = temporary_store();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                store
                    .gc(&GcPolicy {
                        all: true,
                        ..GcPolicy::default()
                    })
                    .unwrap();
            }
        });
        let workers: Vec<_> = (0..3u8)
            .map(|n| {
                let store = store.clone();
                scope.spawn(move || {
                    // The same ids in all threads: they commit, hold and lose the same layers.
                    let ids: Vec<_> = (0..4u8)
                        .map(|n| LayerId::of_diff_id(&DiffId(Digest::sha256(&[n]))))
                        .collect();
                    for round in 0..40 {
                        let lease = store.lease("test").unwrap();
                        let found = lease.hold_layers(&form(), &ids).unwrap();
                        for (id, found) in ids.iter().zip(found) {
                            let path = match found {
                                Some(path) => path,
                                None => {
                                    layer(&store, &lease, id, 10);
                                    store.root().join("layers/root").join(id.as_str())
                                }
                            };
                            assert!(path.join("file").exists(), "{n} {round}");
                        }
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = workers
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        done.store(true, Ordering::Relaxed);
        for outcome in outcomes {
            outcome.unwrap();
        }
    });
    assert_eq!(
        store
            .fsck(crate::FsckOptions {
                repair: false,
                contents: true
            })
            .unwrap(),
        []
    );
}
