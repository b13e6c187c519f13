//! Facts, replacement and loss.

use super::*;
use crate::testing::temporary_store;
use std::os::unix::fs::{PermissionsExt as _, symlink};

fn form() -> FormName {
    FormName::parse("root").unwrap()
}

fn tree(lease: &Lease, text: &str) -> PathBuf {
    let dir = lease.new_dir("upper").unwrap();
    std::fs::create_dir(dir.join("etc")).unwrap();
    std::fs::write(dir.join("etc/name"), text).unwrap();
    symlink("name", dir.join("etc/link")).unwrap();
    dir
}

#[test]
fn a_committed_layer_is_found_with_its_facts() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let id = LayerId::random().unwrap();
    let dir = tree(&lease, "x");
    let path = store.commit_layer(&lease, &form(), &dir, &id).unwrap();
    assert!(!dir.exists());
    assert_eq!(path, store.root().join("layers/root").join(id.as_str()));
    assert_eq!(store.layer_dir(&form(), &id).unwrap(), Some(path.clone()));
    let other = FormName::parse("sub-100000").unwrap();
    assert_eq!(store.layer_dir(&other, &id).unwrap(), None, "forms never mix");
    let facts = store.layer_facts(&form(), &id).unwrap().unwrap();
    assert_eq!((facts.entries, facts.diff_id, facts.tar_size), (3, None, None));
    let diff_id = DiffId(Digest::sha256(b"tar"));
    store.set_layer_diff_id(&form(), &id, &diff_id, 1024).unwrap();
    let facts = store.layer_facts(&form(), &id).unwrap().unwrap();
    assert_eq!((facts.diff_id, facts.tar_size), (Some(diff_id), Some(1024)));
    assert_eq!(
        std::fs::metadata(path.parent().unwrap())
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o700
    );
}

#[test]
fn the_first_of_two_equal_layers_stays() {
    let (_dir, store) = temporary_store();
    let (one, two) = (store.lease("one").unwrap(), store.lease("two").unwrap());
    let id = LayerId::of_diff_id(&DiffId(Digest::sha256(b"tar")));
    let path = store
        .commit_layer(&one, &form(), &tree(&one, "first"), &id)
        .unwrap();
    let second = tree(&two, "second");
    assert_eq!(store.commit_layer(&two, &form(), &second, &id).unwrap(), path);
    assert!(!second.exists());
    assert_eq!(std::fs::read_to_string(path.join("etc/name")).unwrap(), "first");
    let facts = store.layer_facts(&form(), &id).unwrap().unwrap();
    assert_eq!(facts.diff_id, id.diff_id());
}

#[test]
fn a_directory_without_a_row_is_replaced() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let id = LayerId::of_diff_id(&DiffId(Digest::sha256(b"tar")));
    let orphan = store.root().join("layers/root").join(id.as_str());
    std::fs::create_dir_all(orphan.join("half")).unwrap();
    assert_eq!(store.layer_dir(&form(), &id).unwrap(), None);
    let path = store
        .commit_layer(&lease, &form(), &tree(&lease, "whole"), &id)
        .unwrap();
    assert_eq!(path, orphan);
    assert!(!orphan.join("half").exists() && orphan.join("etc/name").exists());
}

#[test]
fn a_layer_whose_directory_is_gone_is_a_miss() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let id = LayerId::random().unwrap();
    let path = store
        .commit_layer(&lease, &form(), &tree(&lease, "x"), &id)
        .unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    assert_eq!(
        lease.hold_layers(&form(), std::slice::from_ref(&id)).unwrap(),
        [None]
    );
    assert_eq!(store.layer_facts(&form(), &id).unwrap(), None);
}

#[test]
fn a_held_layer_is_looked_at_once() {
    let (_dir, store) = temporary_store();
    let (maker, user) = (store.lease("one").unwrap(), store.lease("two").unwrap());
    let id = LayerId::random().unwrap();
    let path = store
        .commit_layer(&maker, &form(), &tree(&maker, "x"), &id)
        .unwrap();
    let ids = std::slice::from_ref(&id);
    assert_eq!(user.hold_layers(&form(), ids).unwrap(), [Some(path.clone())]);
    store
        .index()
        .write("test", |t| t.run("DELETE FROM layer", []).map(drop))
        .unwrap();
    assert_eq!(user.hold_layers(&form(), ids).unwrap(), [Some(path)]);
    assert_eq!(
        maker.hold_layers(&form(), ids).unwrap(),
        [None],
        "it never looked"
    );
}

#[test]
fn what_a_power_failure_took_is_found_out() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let ids = [LayerId::random().unwrap(), LayerId::random().unwrap()];
    for id in &ids {
        store
            .commit_layer(&lease, &form(), &tree(&lease, "content"), id)
            .unwrap();
    }
    let lost = store.layout().layer(&form(), &ids[1]).join("etc/name");
    File::options()
        .write(true)
        .open(lost)
        .unwrap()
        .set_len(0)
        .unwrap();
    store
        .index()
        .write("test", |t| {
            t.run("UPDATE layer SET boot = 'another boot'", []).map(drop)
        })
        .unwrap();
    let found = lease.hold_layers(&form(), &ids).unwrap();
    assert!(found[0].is_some() && found[1].is_none());
    assert!(!store.layout().layer(&form(), &ids[1]).exists());
}

#[test]
fn the_fingerprint_depends_on_what_can_get_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir(path("a")).unwrap();
    std::fs::write(path("a/f"), "12").unwrap();
    let print = || TreeFacts::measure(dir.path()).unwrap().print;
    let first = print();
    assert_eq!(print(), first);
    std::fs::write(path("a/f"), "").unwrap();
    let truncated = print();
    std::fs::set_permissions(path("a/f"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let chmodded = print();
    std::fs::rename(path("a/f"), path("f")).unwrap();
    let moved = print();
    let all = std::collections::BTreeSet::from([first, truncated, chmodded, moved]);
    assert_eq!(all.len(), 4);
    let outside = TreeFacts::measure(&path("a")).unwrap();
    assert_eq!(
        (outside.entries, outside.print),
        (0, 0),
        "the top's own name does not count"
    );
}

#[test]
fn hard_links_are_measured_once() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), vec![1; 100_000]).unwrap();
    let one = TreeFacts::measure(dir.path()).unwrap();
    std::fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
    let two = TreeFacts::measure(dir.path()).unwrap();
    assert_eq!((one.disk_bytes, two.entries), (two.disk_bytes, 2));
    assert!(one.disk_bytes >= 100_000);
}

#[test]
fn a_blob_is_found_for_a_diff_id_as_long_as_it_is_good() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let diff_id = DiffId(Digest::sha256(b"tar"));
    let [gzip, zstd] = ["gzip", "zstd"].map(|text| {
        let blob = store.put_blob(&lease, text.as_bytes()).unwrap();
        let blob = DiffBlob {
            digest: blob.digest,
            size: blob.size,
            media_type: format!("tar+{text}"),
        };
        store.record_blob(&diff_id, text, &blob).unwrap();
        blob
    });
    assert_eq!(
        store.blob_for_diff_id(&diff_id, Some("zstd")).unwrap(),
        Some(zstd.clone())
    );
    assert_eq!(
        store.blob_for_diff_id(&diff_id, None).unwrap(),
        Some(gzip.clone())
    );
    assert_eq!(store.blob_for_diff_id(&diff_id, Some("none")).unwrap(), None);
    std::fs::write(store.layout().blob(&gzip.digest), "GZIP").unwrap();
    assert_eq!(store.blob_for_diff_id(&diff_id, None).unwrap(), Some(zstd));
    assert_eq!(store.blob_for_diff_id(&diff_id, Some("gzip")).unwrap(), None);
}
