//! What the flows start from: a server's registry, a connected client, a directory to sync to, and trees to compare.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rbuild_session::fake::{FakeClient, FakeConnection};
use rbuild_session::{Session, Sessions, SyncError, SyncReport, SyncRequest};
use rbuild_sys::RootFd;
use tokio_util::sync::CancellationToken;

/// Longest any step of a test may take before it counts as hanging.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Connects a client to a server of its own.
pub(crate) async fn connect(client: FakeClient) -> (Sessions, FakeConnection) {
    let sessions = Sessions::new(4);
    let connection = client.connect(&sessions).await.unwrap();
    (sessions, connection)
}

/// Syncs the directory `context`.
pub(crate) async fn sync(session: &Session, dest: &Path) -> Result<SyncReport, SyncError> {
    sync_as(session, &SyncRequest::new("context"), dest).await
}

pub(crate) async fn sync_as(
    session: &Session,
    request: &SyncRequest,
    dest: &Path,
) -> Result<SyncReport, SyncError> {
    let cancel = CancellationToken::new();
    let root = RootFd::open(dest).unwrap();
    tokio::time::timeout(SOON, session.sync(request, root, |_| (), &cancel))
        .await
        .expect("the transfer ends")
}

/// A tree as it looks, without its root: by path, everything a transfer has to keep. Files that are one have the same
/// first path.
pub(crate) fn look(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut first = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    let mut all = Vec::new();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                open.push(path.clone());
            }
            all.push(path);
        }
    }
    all.sort();
    for path in all {
        let meta = path.symlink_metadata().unwrap();
        let kind = meta.file_type();
        let what = if kind.is_symlink() {
            format!("link to {:?}", fs::read_link(&path).unwrap())
        } else if kind.is_file() {
            let one = first.entry(meta.ino()).or_insert_with(|| path.clone());
            format!(
                "{:?} {:?}",
                one.strip_prefix(root).unwrap(),
                String::from_utf8_lossy(&fs::read(&path).unwrap())
            )
        } else if kind.is_fifo() {
            "fifo".to_owned()
        } else {
            format!("{:o} {}", meta.mode() & 0o170_000, meta.rdev())
        };
        let line = format!("{:o} {}.{} {what}", meta.mode(), meta.mtime(), meta.mtime_nsec());
        seen.insert(path.strip_prefix(root).unwrap().to_owned(), line);
    }
    seen
}

/// The same without what changes from run to run.
pub(crate) fn names(root: &Path) -> Vec<String> {
    look(root).keys().map(|p| p.display().to_string()).collect()
}
