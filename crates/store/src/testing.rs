//! Stores for this crate's tests.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use rbuild_oci::Digest;

use crate::store::{Clock, OpenOptions, Store};
use crate::{CommittedBlob, ImageRecord, Lease};

/// A store in a temporary directory.
pub(crate) fn temporary_store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store"), &OpenOptions::default()).unwrap();
    (dir, store)
}

/// A store whose time stands still until it is moved; it begins at 1,000,000 ms.
pub(crate) fn manual_store() -> (tempfile::TempDir, Store, Arc<AtomicI64>) {
    let dir = tempfile::tempdir().unwrap();
    let at = Arc::new(AtomicI64::new(1_000_000));
    let options = OpenOptions {
        clock: Clock::Manual(Arc::clone(&at)),
        ..OpenOptions::default()
    };
    let store = Store::open(&dir.path().join("store"), &options).unwrap();
    (dir, store, at)
}

/// A small tmpfs on a directory, gone when dropped.
pub(crate) struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    pub(crate) fn mount(at: &std::path::Path, bytes: u64) -> Self {
        let options = std::ffi::CString::new(format!("size={bytes},mode=0700")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", at, "tmpfs", flags, Some(options.as_c_str())).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

/// An image of one layer, whose diff id is the digest of `text`; its manifest, config and layer blobs.
pub(crate) fn image(store: &Store, lease: &Lease, text: &str) -> (ImageRecord, Vec<CommittedBlob>) {
    let layer = store.put_blob(lease, format!("layer {text}").as_bytes()).unwrap();
    let diff_id = Digest::sha256(text.as_bytes());
    let config = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#);
    let config = store.put_blob(lease, config.as_bytes()).unwrap();
    let part = |blob: &CommittedBlob, kind: &str| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{}","size":{}}}"#,
            blob.digest, blob.size
        )
    };
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
        part(&config, "config.v1+json"),
        part(&layer, "layer.v1.tar"),
    );
    let manifest = store.put_blob(lease, manifest.as_bytes()).unwrap();
    let record = ImageRecord {
        digest: manifest.digest.clone(),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        manifest_size: manifest.size,
        config: Some(config.digest.clone()),
        size: manifest.size + config.size + layer.size,
        created_ms: 0,
        tagged_ms: 0,
    };
    (record, vec![manifest, config, layer])
}
