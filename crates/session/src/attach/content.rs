//! Directories in the form of an OCI layout to the server, as content stores (`session/content`, `client/solve.go`): layouts that
//! contexts are, caches that are read, and caches and layouts that are written. Of containerd's service it has what a
//! build asks for: Info, Read, Write.
//!
//! The server names stores and digests, never paths. A blob appears whole, after its digest was compared, or not at all; a
//! store that is only read takes none. `index.json` is the caller's.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::bytes::Bytes;
use rbuild_oci::{Algorithm, Digest};
use rbuild_sys::RootFd;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};
use tonic::Status;

use crate::header;
use crate::serve::{Dialogue, Routes};
use crate::wire::{
    Info, InfoRequest, InfoResponse, ReadContentRequest, ReadContentResponse, WriteAction,
    WriteContentRequest, WriteContentResponse,
};

const STORE_ID: &str = "buildkit-attachable-store-id";
/// Bytes of a blob in one message.
const CHUNK_BYTES: u64 = 256 << 10;

/// A directory that is a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Store {
    pub(super) path: PathBuf,
    pub(super) is_writable: bool,
}

type Stores = BTreeMap<String, Store>;

/// Serves `stores` by their ids.
pub(super) fn serve(routes: &mut Routes, stores: Stores) {
    let stores = Arc::new(stores);
    let known = Arc::clone(&stores);
    routes.unary(
        "/containerd.services.content.v1.Content/Info",
        move |metadata, question: InfoRequest| {
            let id = header::first(metadata, STORE_ID).unwrap_or_default();
            let (_, size) = open(find(&known, id)?, &question.digest)?;
            let info = Info {
                digest: question.digest,
                size: i64::try_from(size).unwrap_or(i64::MAX),
                ..Info::default()
            };
            Ok(InfoResponse { info: Some(info) })
        },
    );
    let known = Arc::clone(&stores);
    routes.script("/containerd.services.content.v1.Content/Read", move |talk| {
        let known = Arc::clone(&known);
        async move { read(&known, talk).await }
    });
    routes.script("/containerd.services.content.v1.Content/Write", move |talk| {
        let stores = Arc::clone(&stores);
        async move { write(&stores, talk).await }
    });
}

fn find<'a>(stores: &'a Stores, id: &str) -> Result<&'a Store, Status> {
    stores
        .get(id)
        .ok_or_else(|| Status::not_found(format!("unknown content store {id:?}")))
}

fn parse(digest: &str) -> Result<Digest, Status> {
    Digest::parse(digest).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn blob_path(digest: &Digest) -> PathBuf {
    Path::new("blobs")
        .join(digest.algorithm().name())
        .join(digest.hex())
}

/// A blob, and its bytes.
fn open(store: &Store, digest: &str) -> Result<(File, u64), Status> {
    let digest = parse(digest)?;
    let missing = |error: &dyn std::fmt::Display| Status::not_found(format!("{digest}: {error}"));
    let root = RootFd::open(&store.path).map_err(|error| missing(&error))?;
    let file = root
        .open_regular(&blob_path(&digest))
        .map_err(|error| missing(&error))?;
    let file = File::from(file);
    let size = file.metadata().map_err(|error| missing(&error))?.len();
    Ok((file, size))
}

async fn read(
    stores: &Stores,
    mut talk: Dialogue<ReadContentRequest, ReadContentResponse>,
) -> Result<(), Status> {
    let question = talk.next().await?.unwrap_or_default();
    let store = find(stores, &talk.header(STORE_ID))?;
    let (file, length) = open(store, &question.digest)?;
    let file = Arc::new(file);
    let mut at = u64::try_from(question.offset).unwrap_or(0);
    let left = length
        .checked_sub(at)
        .ok_or_else(|| Status::out_of_range(format!("read past object length {length} bytes")))?;
    let asked = u64::try_from(question.size).ok().filter(|size| *size > 0);
    let end = at + asked.map_or(left, |size| size.min(left));
    while at < end {
        let count = CHUNK_BYTES.min(end - at);
        let data = chunk(&file, at, count).await?;
        let offset = i64::try_from(at).unwrap_or(i64::MAX);
        talk.say(ReadContentResponse { offset, data }).await?;
        at += count;
    }
    Ok(())
}

async fn chunk(file: &Arc<File>, at: u64, count: u64) -> Result<Bytes, Status> {
    let file = Arc::clone(file);
    blocking(move || {
        let mut chunk = vec![0; usize::try_from(count).unwrap_or(0)];
        let read = file.read_exact_at(&mut chunk, at);
        read.map(|()| Bytes::from(chunk))
            .map_err(|error| Status::unknown(format!("read blob: {error}")))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_panicked| Err(Status::internal("the blob could not be handled")))
}

async fn write(
    stores: &Stores,
    mut talk: Dialogue<WriteContentRequest, WriteContentResponse>,
) -> Result<(), Status> {
    let store = find(stores, &talk.header(STORE_ID))?.clone();
    let mut draft: Option<Draft> = None;
    while let Some(question) = talk.next().await? {
        let action = WriteAction::try_from(question.action)
            .map_err(|_unknown| Status::invalid_argument("unknown action"))?;
        let mut current = match draft.take() {
            Some(draft) => draft,
            None => {
                let (store, expected) = (store.clone(), question.expected.clone());
                blocking(move || Draft::begin(&store, &expected)).await?
            }
        };
        let (total, offset) = (question.total, question.offset);
        current = blocking(move || {
            if !question.data.is_empty() {
                current.add(offset, &question.data)?;
            }
            Ok(current)
        })
        .await?;
        let answer = WriteContentResponse {
            action: action.into(),
            offset: i64::try_from(current.length).unwrap_or(i64::MAX),
            total,
            digest: current.expected.to_string(),
        };
        if action == WriteAction::Commit {
            blocking(move || current.commit(total)).await?;
        } else {
            draft = Some(current);
        }
        talk.say(answer).await?;
    }
    Ok(())
}

/// A blob that is not whole yet. Its file goes with it.
struct Draft {
    root: RootFd,
    expected: Digest,
    file: File,
    /// Beside the blob's place.
    path: PathBuf,
    hash: Sha256,
    length: u64,
    is_kept: bool,
}

impl Draft {
    fn begin(store: &Store, expected: &str) -> Result<Self, Status> {
        if !store.is_writable {
            return Err(Status::permission_denied("this content store is only read"));
        }
        let expected = parse(expected)?;
        if expected.algorithm() != Algorithm::Sha256 {
            return Err(Status::invalid_argument("only sha256 digests are written"));
        }
        if open(store, expected.as_str()).is_ok() {
            return Err(Status::already_exists(format!(
                "content {expected}: already exists"
            )));
        }
        let failed =
            |error: &dyn std::fmt::Display| Status::unknown(format!("write blob {expected}: {error}"));
        let root = RootFd::open(&store.path).map_err(|error| failed(&error))?;
        let dir = Path::new("blobs").join(expected.algorithm().name());
        root.create_dir_all(&dir, Mode::from_raw_mode(0o755), |_, _| Ok(()))
            .map_err(|error| failed(&error))?;
        // Two writers of one blob have a file each.
        let number = u64::from_le_bytes(rbuild_sys::random_bytes().map_err(|error| failed(&error))?);
        let path = dir.join(format!(".{}.{number:016x}", expected.hex()));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = root
            .open_in(&path, flags, Mode::from_raw_mode(0o644))
            .map_err(|error| failed(&error))?;
        Ok(Self {
            root,
            expected,
            file: file.into(),
            path,
            hash: Sha256::new(),
            length: 0,
            is_kept: false,
        })
    }

    fn add(&mut self, offset: i64, data: &[u8]) -> Result<(), Status> {
        if u64::try_from(offset) != Ok(self.length) {
            let length = self.length;
            return Err(Status::out_of_range(format!(
                "got offset {offset}, expected {length}"
            )));
        }
        self.file
            .write_all(data)
            .map_err(|error| Status::unknown(format!("write blob {}: {error}", self.expected)))?;
        self.hash.update(data);
        self.length += data.len() as u64;
        Ok(())
    }

    fn commit(mut self, total: i64) -> Result<(), Status> {
        if total > 0 && u64::try_from(total) != Ok(self.length) {
            let length = self.length;
            return Err(Status::failed_precondition(format!(
                "unexpected commit size {length}, expected {total}"
            )));
        }
        let found = Digest::from_sha256(std::mem::take(&mut self.hash).finalize().into());
        if found != self.expected {
            return Err(Status::failed_precondition(format!(
                "unexpected commit digest {found}, expected {}",
                self.expected
            )));
        }
        let failed = |error: &dyn std::fmt::Display| Status::unknown(format!("write blob {found}: {error}"));
        let (from, draft) = self.root.parent(&self.path).map_err(|error| failed(&error))?;
        let (to, name) = self
            .root
            .parent(&blob_path(&found))
            .map_err(|error| failed(&error))?;
        rustix::fs::renameat(&from, &draft, &to, &name).map_err(|error| failed(&error))?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Ok((dir, name)) = self.root.parent(&self.path) {
            // What stays behind has a name that no reader looks for.
            rustix::fs::unlinkat(&dir, &name, rustix::fs::AtFlags::empty()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn store(dir: &Path, is_writable: bool) -> Store {
        Store {
            path: dir.to_owned(),
            is_writable,
        }
    }

    fn files(dir: &Path) -> Vec<String> {
        let blobs = std::fs::read_dir(dir.join("blobs/sha256")).unwrap();
        blobs
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn row48_a_blob_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path(), true);
        let digest = Digest::sha256(b"whole");
        let begun = || Draft::begin(&store, digest.as_str()).unwrap();
        let code = |done: Result<(), Status>| done.unwrap_err().code();

        let mut other = begun();
        other.add(0, b"other").unwrap();
        assert_eq!(code(other.commit(5)), Code::FailedPrecondition);
        let mut short = begun();
        short.add(0, b"whole").unwrap();
        assert_eq!(code(short.commit(6)), Code::FailedPrecondition);
        assert_eq!(code(begun().add(1, b"whole")), Code::OutOfRange);
        assert!(files(dir.path()).is_empty(), "drafts went with their calls");

        let mut whole = begun();
        whole.add(0, b"wh").unwrap();
        whole.add(2, b"ole").unwrap();
        assert!(
            open(&store, digest.as_str()).is_err(),
            "not before it is compared"
        );
        whole.commit(5).unwrap();
        assert_eq!(files(dir.path()), [digest.hex()]);
        assert_eq!(open(&store, digest.as_str()).unwrap().1, 5);
        let again = Draft::begin(&store, digest.as_str()).err().unwrap();
        assert_eq!(again.code(), Code::AlreadyExists);
    }

    #[test]
    fn row48_a_server_names_no_paths_and_writes_only_where_it_may() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::sha256(b"x");
        let refused = Draft::begin(&store(dir.path(), false), digest.as_str())
            .err()
            .unwrap();
        assert_eq!(refused.code(), Code::PermissionDenied);
        for text in ["../../etc/passwd", "sha256:../x", "md5:00", ""] {
            assert_eq!(
                open(&store(dir.path(), true), text).err().unwrap().code(),
                Code::InvalidArgument
            );
        }
        // A link in the layout leads nowhere outside of it, and what is no file is not read.
        let blobs = dir.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", blobs.join(digest.hex())).unwrap();
        let led_out = open(&store(dir.path(), true), digest.as_str());
        assert_eq!(led_out.err().unwrap().code(), Code::NotFound);
        let stores = Stores::from([("oci:a".to_owned(), store(dir.path(), false))]);
        assert_eq!(find(&stores, "local:/").unwrap_err().code(), Code::NotFound);
        assert!(find(&stores, "oci:a").is_ok());
    }
}
