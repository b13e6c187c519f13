//! Names move, and `index.json` with them.

use super::*;
use crate::testing::{image, temporary_store};

const NAME: &str = "docker.io/library/app:latest";

fn same(found: Option<ImageRecord>, expected: &ImageRecord) -> bool {
    found.is_some_and(|found| {
        ImageRecord {
            tagged_ms: 0,
            ..found
        } == *expected
    })
}

#[test]
fn names_are_set_moved_and_removed_and_index_json_follows() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let (one, _) = image(&store, &lease, "one");
    let (two, _) = image(&store, &lease, "two");
    let read = || {
        let text = std::fs::read(store.root().join("index.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()
    };
    assert_eq!(read()["manifests"].as_array().unwrap().len(), 0);
    store.set_image(NAME, &one).unwrap();
    store.set_image("docker.io/library/b:1", &one).unwrap();
    store.set_image(NAME, &two).unwrap();
    assert!(same(store.get_image(NAME).unwrap(), &two));
    let names: Vec<String> = store
        .list_images()
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, [NAME, "docker.io/library/b:1"]);
    let index = read();
    assert_eq!(index["schemaVersion"], 2);
    assert_eq!(index["manifests"][0]["digest"], two.digest.as_str());
    assert_eq!(index["manifests"][0]["size"], two.manifest_size);
    assert_eq!(
        index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"],
        NAME
    );
    assert!(store.remove_image(NAME).unwrap());
    assert!(!store.remove_image(NAME).unwrap());
    assert_eq!(read()["manifests"].as_array().unwrap().len(), 1);
    let layout = std::fs::read_to_string(store.root().join("oci-layout")).unwrap();
    assert_eq!(layout, r#"{"imageLayoutVersion":"1.0.0"}"#);
}

#[test]
fn row45_names_that_are_none_are_refused() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let (one, _) = image(&store, &lease, "one");
    for bad in ["", "a\nb", "a b", "a\0", "\u{1b}[31m", &"a".repeat(600)] {
        assert!(
            matches!(store.set_image(bad, &one), Err(ImageError::Name(_))),
            "{bad:?}"
        );
    }
    store.set_image("a:b", &one).unwrap();
}

#[test]
fn names_are_told_without_opening_the_store() {
    let (dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let (one, _) = image(&store, &lease, "one");
    store.set_image(NAME, &one).unwrap();
    store.set_image("h:5000/b:1", &one).unwrap();
    let root = dir.path().join("store");
    assert_eq!(names_at(&root), [NAME, "h:5000/b:1"]);
    // Another process may write, or an index may be lost: neither is noticed.
    let held = crate::index::Index::open(&root.join("index.db")).unwrap().0;
    let told = held.write("hold", |_| {
        let start = std::time::Instant::now();
        let names = names_at(&root);
        assert!(start.elapsed() < std::time::Duration::from_secs(30));
        Ok::<_, IndexError>(names)
    });
    assert_eq!(told.unwrap().len(), 2);
    drop((held, lease, store));
    std::fs::remove_file(root.join("index.db")).unwrap();
    assert_eq!(names_at(&root).len(), 2);
    assert!(!root.join("index.db").exists());
    // Nor is anything read that is no list of names.
    let list = root.join("index.json");
    for text in ["", "{", "[]", "{\"schemaVersion\":2,\"manifests\":[{}]}"] {
        std::fs::write(&list, text).unwrap();
        assert_eq!(names_at(&root), [""; 0], "{text}");
    }
    std::fs::remove_file(&list).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &list, rustix::fs::Mode::RWXU).unwrap();
    assert_eq!(names_at(&root), [""; 0]);
    assert_eq!(names_at(&dir.path().join("none")), [""; 0]);
    assert!(!dir.path().join("none").exists());
}

#[test]
fn a_lost_index_is_rebuilt_from_the_files() {
    let (dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let (one, blobs) = image(&store, &lease, "one");
    store.set_image(NAME, &one).unwrap();
    drop((lease, store));
    let root = dir.path().join("store");
    let damages: [fn(&Path); 3] = [
        |root| {
            for name in ["index.db", "index.db-wal", "index.db-shm"] {
                drop(std::fs::remove_file(root.join(name)));
            }
        },
        |root| {
            std::fs::write(
                root.join("index.db"),
                "this is no database, but it is long enough to be one",
            )
            .unwrap();
        },
        |root| std::fs::write(root.join("index.db"), "").unwrap(),
    ];
    for damage in damages {
        damage(&root);
        let store = Store::open(&root, &crate::OpenOptions::default()).unwrap();
        assert!(same(store.get_image(NAME).unwrap(), &one));
        for blob in &blobs {
            assert_eq!(store.has_blob(&blob.digest).unwrap(), Some(blob.size));
        }
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
}

#[test]
fn an_image_reaches_through_an_index_and_damage_reaches_nothing() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let (one, blobs) = image(&store, &lease, "one");
    let index = format!(
        r#"{{"manifests":[{{"digest":"{}","size":1}},{{"digest":"{}","size":1}}]}}"#,
        one.digest,
        Digest::sha256(b"of another platform, not here")
    );
    let index = store.put_blob(&lease, index.as_bytes()).unwrap();
    let (mut reached, mut diff_ids) = Default::default();
    store.image_reaches(&index.digest, &mut reached, &mut diff_ids);
    for blob in &blobs {
        assert!(reached.contains(&blob.digest));
    }
    assert!(diff_ids.contains(&Digest::sha256(b"one")));
    let junk = store.put_blob(&lease, b"[1,2").unwrap();
    let (mut reached, mut diff_ids) = Default::default();
    store.image_reaches(&junk.digest, &mut reached, &mut diff_ids);
    assert_eq!((reached.len(), diff_ids.len()), (1, 0));
}

#[test]
fn another_tool_reads_the_store_as_an_oci_layout() {
    let (_dir, store) = temporary_store();
    let lease = store.lease("test").unwrap();
    let (one, _) = image(&store, &lease, "one");
    store.set_image(NAME, &one).unwrap();
    let reference = format!("oci:{}:{NAME}", store.root().display());
    match std::process::Command::new("skopeo")
        .args(["inspect", "--raw", &reference])
        .output()
    {
        Err(error) => println!("SKIP: no skopeo on this machine: {error}"),
        Ok(output) => {
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert_eq!(Digest::sha256(&output.stdout), one.digest);
        }
    }
}
