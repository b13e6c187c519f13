//! Content, damage, durability, space.

use std::io::Write as _;
use std::path::PathBuf;

use super::*;
use crate::Durability;
use crate::testing::temporary_store;

fn content(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn blob_path(store: &Store, digest: &Digest) -> PathBuf {
    store
        .root()
        .join("blobs")
        .join(digest.algorithm().name())
        .join(digest.hex())
}

#[test]
fn a_blob_comes_back_under_its_digest() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let big: Vec<u8> = (0..700_000u32).flat_map(u32::to_le_bytes).collect();
    let mut writer = store.blob_writer(&lease).unwrap();
    for part in big.chunks(100_003) {
        writer.write_all(part).unwrap();
    }
    writer.write_all(b"end").unwrap();
    let blob = writer.commit(None, None).unwrap();
    let whole = [&big[..], b"end"].concat();
    assert_eq!(
        blob,
        CommittedBlob {
            digest: Digest::sha256(&whole),
            size: whole.len() as u64
        }
    );
    assert_eq!(content(store.open_blob(&blob.digest).unwrap().unwrap()), whole);
    assert_eq!(std::fs::read(blob_path(&store, &blob.digest)).unwrap(), whole);
    assert_eq!(
        store.open_blob(&Digest::sha256(b"absent")).unwrap().map(content),
        None
    );
}

#[test]
fn row31_what_was_not_announced_is_never_visible() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let (good, bad) = (Digest::sha256(b"good"), Digest::sha256(b"gooD"));
    let write = |text: &[u8], expected: Option<&Digest>, size| {
        let mut writer = store.blob_writer(&lease).unwrap();
        writer.write_all(text).unwrap();
        writer.commit(expected, size)
    };
    assert!(matches!(
        write(b"gooD", Some(&good), None),
        Err(CommitBlobError::Digest { .. })
    ));
    assert!(matches!(
        write(b"goo", Some(&good), Some(4)),
        Err(CommitBlobError::Size {
            expected: 4,
            found: 3
        })
    ));
    for digest in [&good, &bad] {
        assert_eq!(store.has_blob(digest).unwrap(), None);
        assert!(!blob_path(&store, digest).exists());
    }
    assert_eq!(
        std::fs::read_dir(lease.dir()).unwrap().count(),
        0,
        "nothing is left of it"
    );
    write(b"good", Some(&good), Some(4)).unwrap();
    assert_eq!(store.has_blob(&good).unwrap(), Some(4));
}

#[test]
fn row31_sha512_blobs_are_kept_apart() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let mut writer = store.blob_writer_with(&lease, Algorithm::Sha512).unwrap();
    writer.write_all(b"x").unwrap();
    let blob = writer.commit(None, None).unwrap();
    assert_eq!(blob.digest.algorithm(), Algorithm::Sha512);
    assert_eq!(content(store.open_blob(&blob.digest).unwrap().unwrap()), b"x");
    assert!(blob_path(&store, &blob.digest).starts_with(store.root().join("blobs/sha512")));
}

#[test]
fn row31_a_blob_corrupted_on_disk_is_a_miss_and_can_be_written_again() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    type Damage = fn(&Path);
    let damages: [Damage; 5] = [
        |path| std::fs::write(path, "CONTENT").unwrap(),
        |path| std::fs::write(path, "conten").unwrap(),
        |path| {
            // The same length, and the old modification time back.
            let stat = std::fs::metadata(path).unwrap();
            std::fs::write(path, "contenT").unwrap();
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(stat.modified().unwrap())
                .unwrap();
        },
        |path| {
            std::fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
        },
        |path| {
            let other = path.with_extension("other");
            std::fs::write(&other, "CONTENT").unwrap();
            std::fs::rename(other, path).unwrap();
        },
    ];
    for damage in damages {
        let blob = store.put_blob(&lease, b"content").unwrap();
        let path = blob_path(&store, &blob.digest);
        assert!(lease.hold_blob(&blob.digest).unwrap());
        damage(&path);
        assert!(store.open_blob(&blob.digest).unwrap().is_none());
        assert!(path.symlink_metadata().is_err(), "the damaged file is gone");
        assert!(!lease.hold_blob(&blob.digest).unwrap());
    }
    let blob = store.put_blob(&lease, b"content").unwrap();
    std::fs::remove_file(blob_path(&store, &blob.digest)).unwrap();
    assert_eq!(store.has_blob(&blob.digest).unwrap(), None);
    store.put_blob(&lease, b"content").unwrap();
    assert!(store.verify_blob(&blob.digest).unwrap());
}

#[test]
fn a_blob_that_was_only_touched_is_hashed_once_and_kept() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let blob = store.put_blob(&lease, b"content").unwrap();
    let path = blob_path(&store, &blob.digest);
    std::fs::hard_link(&path, store.root().join("tmp/link")).unwrap();
    let before = store.blob_row(&blob.digest).unwrap().unwrap().stamp;
    assert_eq!(
        content(store.open_blob(&blob.digest).unwrap().unwrap()),
        b"content"
    );
    let after = store.blob_row(&blob.digest).unwrap().unwrap().stamp;
    assert_ne!(before, after, "the new change time is known");
    assert_eq!(after, Stamp::of(&std::fs::metadata(&path).unwrap()));
    std::fs::remove_file(store.root().join("tmp/link")).unwrap();
}

#[test]
fn an_unsettled_blob_of_another_boot_is_hashed_before_use() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let blobs = [b"kept", b"lost"].map(|text| store.put_blob(&lease, text).unwrap());
    let path = blob_path(&store, &blobs[1].digest);
    // As after a power failure: the length is there, the content is not, and the index knows no better.
    std::fs::write(&path, [0; 4]).unwrap();
    let stamp = Stamp::of(&std::fs::metadata(&path).unwrap());
    let pretend = |boot: Option<&str>| {
        store.index().write("test", |tables| {
            let sql = "UPDATE blob SET boot = ?1, ctime_ns = CASE digest WHEN ?2 THEN ?3 ELSE ctime_ns END";
            tables
                .run(sql, (boot, blobs[1].digest.as_str(), stamp.ctime_ns))
                .map(drop)
        })
    };
    pretend(Some("another boot")).unwrap();
    assert_eq!(store.has_blob(&blobs[0].digest).unwrap(), Some(4));
    assert_eq!(store.has_blob(&blobs[1].digest).unwrap(), None);
    assert_eq!(
        store.blob_row(&blobs[0].digest).unwrap().unwrap().boot,
        None,
        "hashed once only"
    );
}

#[test]
fn what_is_durable_needs_no_second_look() {
    let dir = tempfile::tempdir().unwrap();
    let options = crate::OpenOptions {
        durability: Durability::Full,
        ..crate::OpenOptions::default()
    };
    let store = Store::open(&dir.path().join("store"), &options).unwrap();
    let lease = store.lease("test").unwrap();
    let blob = store.put_blob(&lease, b"content").unwrap();
    assert_eq!(store.blob_row(&blob.digest).unwrap().unwrap().boot, None);
    let (_dir, lazy) = temporary_store();
    let lease = lazy.lease("test").unwrap();
    let blob = lazy.put_blob(&lease, b"content").unwrap();
    let boot = lazy.blob_row(&blob.digest).unwrap().unwrap().boot;
    assert_eq!(boot.as_deref(), Some(lazy.boot()));
}

#[test]
fn an_open_blob_outlives_its_removal() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let blob = store.put_blob(&lease, b"content").unwrap();
    let file = store.open_blob(&blob.digest).unwrap().unwrap();
    drop(lease);
    store.gc(&crate::GcPolicy::default()).unwrap();
    assert_eq!(store.has_blob(&blob.digest).unwrap(), None);
    assert_eq!(content(file), b"content");
}

#[test]
fn row47_blobs_are_not_readable_by_others_whatever_the_umask() {
    let old = rustix::process::umask(rustix::fs::Mode::empty());
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let blob = store.put_blob(&lease, b"content").unwrap();
    rustix::process::umask(old);
    let mode = std::fs::metadata(blob_path(&store, &blob.digest)).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// A full disk: a tmpfs of 3 MB in a mount namespace of this test's own.
#[test]
fn privileged_a_full_disk_is_a_clear_error_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let small = crate::testing::SmallDisk::mount(dir.path(), 3 << 20);
    let store = Store::open(&dir.path().join("store"), &crate::OpenOptions::default()).unwrap();
    let lease = store.lease("test").unwrap();
    let kept = store.put_blob(&lease, b"kept").unwrap();
    let error = store.put_blob(&lease, &vec![7; 8 << 20]).unwrap_err();
    let CommitBlobError::Store(StoreError::Disk(DiskError::Full {
        path, needed_bytes, ..
    })) = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(*needed_bytes, Some(8 << 20));
    assert!(path.starts_with(lease.dir()), "{path:?}");
    assert!(error.to_string().contains("8388608 needed"), "{error}");
    assert!(is_told_as_full(&error));
    let left = crate::usage::names(lease.dir()).unwrap();
    assert_eq!(left, ["held"], "only what tells that the first is held");
    store.put_blob(&lease, b"and again").unwrap();
    assert!(store.verify_blob(&kept.digest).unwrap());
    let error = StoreError::from(store.put_kv("large", "key", &vec![7; 8 << 20]).unwrap_err());
    assert!(is_told_as_full(&error), "SQLite's word for it: {error:?}");
    let error = store.open_blob(&Digest::sha256(b"none")).err();
    assert!(error.is_none(), "{error:?}");
    drop((lease, store));
    drop(small);
}

fn is_told_as_full(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(crate::says_full)
}
