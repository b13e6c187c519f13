//! Ids, and who may use a mount at the same time.

use super::*;
use crate::testing::temporary_store;
use std::collections::BTreeSet;

fn request(id: &str, sharing: MountSharing) -> MountRequest<'_> {
    MountRequest {
        id,
        owner: MountOwner::Step,
        sharing,
        fresh: false,
    }
}

fn take(store: &Store, lease: &Lease, request: MountRequest<'_>) -> Result<CacheMountGuard, MountError> {
    store.cache_mount(lease, request, &|| true, &mut |_| Ok(()))
}

/// The mount, and whether it was made for this.
fn taken(store: &Store, lease: &Lease, request: MountRequest<'_>) -> (CacheMountGuard, bool) {
    let mut made = false;
    let guard = store.cache_mount(lease, request, &|| true, &mut |_| {
        made = true;
        Ok(())
    });
    (guard.unwrap(), made)
}

#[test]
fn row18_ids_never_name_a_path_and_never_meet() {
    let (dir, store) = temporary_store();
    let canary = dir.path().join("canary");
    std::fs::create_dir(&canary).unwrap();
    let lease = store.lease("test").unwrap();
    let long = "x".repeat(10_000);
    let ids = [
        "../../../../canary",
        "/canary",
        ".",
        "..",
        "",
        &long,
        "a\nb",
        "a\0b",
        "a/b",
        "a_b",
        "A",
        "a",
        "\u{e9}",
        "e\u{301}",
        "index.db",
        "../index.db",
        "/var/cache/apt",
    ];
    let mut paths = BTreeSet::new();
    for id in ids {
        let guard = take(&store, &lease, request(id, MountSharing::Locked)).unwrap();
        std::fs::write(guard.path().join("mark"), id).unwrap();
        let name = guard.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(name, Digest::sha256(id.as_bytes()).hex());
        assert_eq!(guard.path().parent().unwrap(), store.root().join("mounts"));
        assert!(paths.insert(guard.path().to_owned()), "{id:?} shares a directory");
    }
    assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0);
    for id in ids {
        let (guard, made) = taken(&store, &lease, request(id, MountSharing::Shared));
        assert!(!made, "{id:?}");
        assert_eq!(std::fs::read_to_string(guard.path().join("mark")).unwrap(), id);
    }
    assert_eq!(store.fsck(crate::FsckOptions::default()).unwrap(), []);
}

#[test]
fn shared_is_shared() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let (one, first) = taken(&store, &lease, request("id", MountSharing::Shared));
    let (two, second) = taken(&store, &lease, request("id", MountSharing::Shared));
    assert_eq!(one.path(), two.path());
    assert_eq!((first, second), (true, false));
}

#[test]
fn private_gets_its_own_and_finds_it_again() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let one = take(&store, &lease, request("id", MountSharing::Private)).unwrap();
    let two = take(&store, &lease, request("id", MountSharing::Private)).unwrap();
    let shared = take(&store, &lease, request("id", MountSharing::Shared)).unwrap();
    let paths: BTreeSet<_> = [&one, &two, &shared]
        .iter()
        .map(|guard| guard.path().to_owned())
        .collect();
    assert_eq!(paths.len(), 3);
    std::fs::write(two.path().join("second"), "").unwrap();
    let second = two.path().to_owned();
    drop(two);
    let (again, made) = taken(&store, &lease, request("id", MountSharing::Private));
    assert_eq!(again.path(), second);
    assert!(again.path().join("second").exists() && !made);
}

#[test]
fn locked_waits_for_all_others() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    for sharing in [MountSharing::Shared, MountSharing::Locked, MountSharing::Private] {
        let held = take(&store, &lease, request("id", sharing)).unwrap();
        let wanted = request("id", MountSharing::Locked);
        assert!(
            matches!(take(&store, &lease, wanted), Err(MountError::Cancelled { .. })),
            "{sharing:?}"
        );
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let guard = store
                    .cache_mount(&lease, wanted, &|| false, &mut |_| Ok(()))
                    .unwrap();
                guard.path().to_owned()
            });
            std::thread::sleep(std::time::Duration::from_millis(30));
            let path = held.path().to_owned();
            drop(held);
            assert_eq!(waiter.join().unwrap(), path);
        });
    }
}

#[test]
fn preparing_happens_once_before_anyone_sees_the_directory() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let error = store
        .cache_mount(
            &lease,
            request("id", MountSharing::Shared),
            &|| true,
            &mut |path| {
                std::fs::write(path.join("half"), "").unwrap();
                Err(std::io::Error::other("no seed"))
            },
        )
        .unwrap_err();
    assert!(matches!(error, MountError::Prepare { .. }));
    assert_eq!(std::fs::read_dir(store.root().join("mounts")).unwrap().count(), 0);
    let seeds = std::sync::Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (store, lease, seeds) = (&store, &lease, &seeds);
            scope.spawn(move || {
                let guard = store
                    .cache_mount(
                        lease,
                        request("id", MountSharing::Shared),
                        &|| true,
                        &mut |path| std::fs::write(path.join("seed"), format!("of {n}")),
                    )
                    .unwrap();
                assert!(!guard.path().join("half").exists());
                let seed = std::fs::read_to_string(guard.path().join("seed")).unwrap();
                seeds.lock().unwrap().insert(seed);
            });
        }
    });
    assert_eq!(
        seeds.into_inner().unwrap().len(),
        1,
        "all see what one of them prepared"
    );
}

#[test]
fn fresh_begins_anew_without_taking_it_from_others() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let fresh = |sharing| MountRequest {
        id: "id",
        owner: MountOwner::Step,
        sharing,
        fresh: true,
    };
    let old = take(&store, &lease, request("id", MountSharing::Shared)).unwrap();
    std::fs::write(old.path().join("old"), "").unwrap();
    let (beside, made) = taken(&store, &lease, fresh(MountSharing::Shared));
    assert!(made && beside.path() != old.path() && old.path().join("old").exists());
    drop((old, beside));
    for sharing in [MountSharing::Shared, MountSharing::Locked, MountSharing::Private] {
        let (new, made) = taken(&store, &lease, fresh(sharing));
        assert!(made && !new.path().join("old").exists(), "{sharing:?}");
    }
}

#[test]
fn row18_no_id_of_a_step_names_a_directory_of_the_builder() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let of = |owner, id| {
        let request = MountRequest {
            owner,
            ..request(id, MountSharing::Shared)
        };
        take(&store, &lease, request).unwrap().path().to_owned()
    };
    let own = of(MountOwner::Builder, "git https://h/r");
    for id in ["git https://h/r", "\u{ff}git https://h/r", "\0git https://h/r"] {
        assert_ne!(of(MountOwner::Step, id), own, "{id:?}");
    }
    assert_eq!(of(MountOwner::Builder, "git https://h/r"), own, "the twin");
}
