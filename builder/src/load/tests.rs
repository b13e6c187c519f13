//! Archives as docker, podman and layouts have them, and hostile ones.

use std::io::Write as _;

use rbuild_oci::Index;
use rbuild_oci::go_json;
use rbuild_oci::media_type::{OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use rbuild_store::OpenOptions;
use serde_json::json;

use super::*;
use crate::stored::{find, is_dangling};

/// An archive being written.
struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn file(mut self, path: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        // Not `set_path`, which refuses the hostile ones.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn link(mut self, path: &str, target: &str) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        self.0.append_link(&mut header, path, target).unwrap();
        self
    }

    fn blob(self, content: &[u8]) -> Self {
        let path = crate::export::layout::blob_path(&Digest::sha256(content));
        self.file(&path, content)
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn layer(content: &str) -> Vec<u8> {
    Tar::new().file("f", content.as_bytes()).bytes()
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let ids: Vec<Digest> = layers.iter().map(|layer| Digest::sha256(layer)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05Z",
        "config": {}, "rootfs": {"type": "layers", "diff_ids": ids},
    });
    serde_json::to_vec(&config).unwrap()
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store"), &OpenOptions::default()).unwrap();
    (dir, store)
}

fn host() -> Platform {
    Platform::new("linux", "amd64")
}

fn names(loaded: &[Loaded]) -> Vec<Vec<String>> {
    let names = |image: &Loaded| image.names.iter().map(Reference::familiar).collect();
    loaded.iter().map(names).collect()
}

/// `docker save` before layouts: an id directory for each layer, the second a link to the first.
fn legacy(layers: &[&[u8]], config: &[u8]) -> Vec<u8> {
    let listing = json!([{
        "Config": "c.json", "RepoTags": ["app:1", "example.test/app:2"],
        "Layers": ["one/layer.tar", "two/layer.tar"],
    }]);
    Tar::new()
        .file("one/layer.tar", layers[0])
        .link("two/layer.tar", "../one/layer.tar")
        .file("c.json", config)
        .file("manifest.json", &serde_json::to_vec(&listing).unwrap())
        .file("repositories", b"{}")
        .bytes()
}

#[test]
fn dockers_old_archives_get_a_manifest() {
    let (_dir, store) = store();
    let one = layer("1");
    let config = config(&[&one, &one]);
    let loaded = load(&store, legacy(&[&one], &config).as_slice(), &host()).unwrap();
    assert_eq!(names(&loaded), [["app:1", "example.test/app:2"]]);
    assert_eq!(loaded[0].id, Digest::sha256(&config));
    let (name, record) = find(&store, "app:1").unwrap();
    let lease = store.lease("t").unwrap();
    let product = stored::read(&store, &lease, &name, &record).unwrap();
    assert_eq!(product.images[0].layers.len(), 2);
    assert_eq!(product.images[0].layers[1].digest, Digest::sha256(&one));
    assert_eq!(record.created_ms, 1_704_164_645_000);
    assert_eq!(
        record.size,
        product.images[0].layers[0].size * 2 + config.len() as u64 + record.manifest_size
    );
}

#[test]
fn archives_may_be_compressed() {
    let (_dir, store) = store();
    let one = layer("1");
    let plain = legacy(&[&one], &config(&[&one, &one]));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let loaded = load(&store, gzip.finish().unwrap().as_slice(), &host()).unwrap();
    assert_eq!(loaded.len(), 1);
}

#[test]
fn a_layer_that_is_not_the_configs_is_refused_and_nothing_is_named() {
    let (_dir, store) = store();
    let (one, other) = (layer("1"), layer("2"));
    let error = load(
        &store,
        legacy(&[&one], &config(&[&one, &other])).as_slice(),
        &host(),
    )
    .unwrap_err();
    assert!(matches!(error, LoadError::DiffId { path, .. } if path == "two/layer.tar"));
    assert!(store.list_images().unwrap().is_empty());
    let error = load(&store, legacy(&[&one], &config(&[&one])).as_slice(), &host()).unwrap_err();
    assert!(
        matches!(error, LoadError::Config { .. }),
        "the count differs: {error}"
    );
}

/// A layout of the images of these platforms; blobs of those in `lacking` are left out.
fn layout(platforms: &[&str], lacking: &[&str], annotations: serde_json::Value) -> Vec<u8> {
    let mut tar = Tar::new().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    let mut entries = Vec::new();
    for platform in platforms {
        let layer = layer(platform);
        let config = config(&[&layer]);
        let manifest = Manifest::new(
            OCI_MANIFEST,
            Descriptor::of(OCI_CONFIG, &config),
            vec![Descriptor::of(OCI_LAYER, &layer)],
        );
        let bytes = manifest.to_bytes();
        let mut entry = Descriptor::of(OCI_MANIFEST, &bytes);
        entry.platform = Some(Platform::parse(platform).unwrap());
        entries.push(entry);
        if !lacking.contains(platform) {
            tar = tar.blob(&layer).blob(&config).blob(&bytes);
        }
    }
    let mut top = if let [only] = entries.as_slice() {
        Descriptor::new(OCI_MANIFEST, only.digest.clone(), only.size)
    } else {
        let index = Index::new(OCI_INDEX, entries).to_bytes();
        let top = Descriptor::of(OCI_INDEX, &index);
        tar = tar.blob(&index);
        top
    };
    top.annotations = serde_json::from_value(annotations).unwrap();
    let index = go_json::to_vec(&Index::new(OCI_INDEX, vec![top])).unwrap();
    tar.file("index.json", &index).bytes()
}

#[test]
fn names_of_layouts_stand_in_annotations() {
    let full = json!({"io.containerd.image.name": "docker.io/library/app:3", "org.opencontainers.image.ref.name": "3"});
    let short = json!({"org.opencontainers.image.ref.name": "example.test/a/b:4"});
    for (annotations, expected) in [(full, "app:3"), (short, "example.test/a/b:4")] {
        let (_dir, store) = store();
        let loaded = load(
            &store,
            layout(&["linux/amd64"], &[], annotations).as_slice(),
            &host(),
        )
        .unwrap();
        assert_eq!(names(&loaded), [[expected]]);
    }
    let (_dir, store) = store();
    let tag_only = json!({"org.opencontainers.image.ref.name": "latest"});
    let loaded = load(
        &store,
        layout(&["linux/amd64"], &[], tag_only).as_slice(),
        &host(),
    )
    .unwrap();
    assert_eq!(names(&loaded), [Vec::<String>::new()]);
    let (name, record) = find(&store, &loaded[0].id.hex()[..12]).unwrap();
    assert!(is_dangling(&name), "an image without a name is found by its id");
    assert_eq!(*stored::id_of(&record), loaded[0].id);
}

#[test]
fn an_index_is_kept_whole_or_the_platforms_image_is_taken() {
    let both = ["linux/amd64", "linux/arm64"];
    let named = || json!({"io.containerd.image.name": "docker.io/library/app:1"});
    let (_dir, store) = store();
    load(&store, layout(&both, &[], named()).as_slice(), &host()).unwrap();
    assert_eq!(find(&store, "app:1").unwrap().1.media_type, OCI_INDEX);
    let (_dir, store) = self::store();
    load(
        &store,
        layout(&both, &["linux/arm64"], named()).as_slice(),
        &host(),
    )
    .unwrap();
    assert_eq!(find(&store, "app:1").unwrap().1.media_type, OCI_MANIFEST);
    let (_dir, store) = self::store();
    let error = load(
        &store,
        layout(&both, &["linux/amd64"], named()).as_slice(),
        &host(),
    )
    .unwrap_err();
    assert!(matches!(error, LoadError::Missing(_)), "{error}");
    assert!(store.list_images().unwrap().is_empty());
}

#[test]
fn row31_a_blob_that_is_not_what_its_name_says_is_refused() {
    let (_dir, store) = store();
    let whole = layout(&["linux/amd64"], &[], json!({}));
    let digest = Digest::sha256(&layer("linux/amd64"));
    let path = crate::export::layout::blob_path(&digest);
    let forged = Tar::new().file(&path, &layer("forged")).bytes();
    let error = load(&store, forged.as_slice(), &host()).unwrap_err();
    assert!(
        matches!(error, LoadError::Blob(CommitBlobError::Digest { .. })),
        "{error}"
    );
    assert!(store.open_blob(&digest).unwrap().is_none());
    load(&store, whole.as_slice(), &host()).unwrap();
    assert!(store.open_blob(&digest).unwrap().is_some());
}

#[test]
fn row01_paths_of_an_archive_of_images_are_no_paths() {
    let (dir, store) = store();
    let one = layer("1");
    let config = config(&[&one]);
    let listing = json!([{"Config": "../../../c.json", "RepoTags": null, "Layers": ["/etc/../l"]}]);
    let archive = Tar::new()
        .file("../../../c.json", &config)
        .file("/l", &one)
        .link("loop", "loop")
        .file("manifest.json", &serde_json::to_vec(&listing).unwrap())
        .bytes();
    load(&store, archive.as_slice(), &host()).unwrap();
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "only the store"
    );
    // The legal twin is every other test; a link that leads nowhere ends.
    let listing = json!([{"Config": "loop", "Layers": []}]);
    let archive = Tar::new()
        .link("loop", "loop")
        .file("manifest.json", &serde_json::to_vec(&listing).unwrap())
        .bytes();
    let error = load(&store, archive.as_slice(), &host()).unwrap_err();
    assert!(matches!(error, LoadError::Missing(_)), "{error}");
}

#[test]
fn what_is_no_archive_of_images_is_told_so() {
    let (_dir, store) = store();
    let error = load(&store, layer("x").as_slice(), &host()).unwrap_err();
    assert!(matches!(error, LoadError::NoImages), "{error}");
    assert!(load(&store, &b"not a tar at all"[..], &host()).is_err());
    let listing = json!([{"Config": "c", "RepoTags": ["UPPER CASE"], "Layers": []}]);
    let archive = Tar::new()
        .file("c", &config(&[]))
        .file("manifest.json", &serde_json::to_vec(&listing).unwrap())
        .bytes();
    let error = load(&store, archive.as_slice(), &host()).unwrap_err();
    assert!(matches!(error, LoadError::Name(_)), "{error}");
    let long = vec![b' '; (4 << 20) + 1];
    let error = load(
        &store,
        Tar::new().file("index.json", &long).bytes().as_slice(),
        &host(),
    )
    .unwrap_err();
    assert!(matches!(error, LoadError::TooLarge { .. }), "{error}");
}
