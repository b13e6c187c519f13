//! The time that `SOURCE_DATE_EPOCH` takes from a source: a context, a named context or a stage
//! (`frontend/dockerfile/dockerfile2llb/epoch.go`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_graph::{Edge, Graph, SourceOp};
use rbuild_layer::{DecompressLimits, EntryKind, Limits, TarReader, Time, decompress_detected};
use rbuild_oci::Timestamp;
use rbuild_sys::{RootFd, RootFdError};
use rustix::fs::{Mode, OFlags};
use tokio_util::sync::CancellationToken;

use crate::build::solve_edge;
use crate::error::BuildError;
use crate::job::Job;
use crate::ops::source::upload;
use crate::ops::{OpError, blocking, view};
use crate::source_meta::{self, HttpMeta, MetaQuestion, vertex};
use crate::source_policy;

/// Why a source has no time.
#[derive(Debug, thiserror::Error)]
pub enum SourceTimeError {
    /// The build may not have it, or it could not be asked.
    #[error(transparent)]
    Source(#[from] OpError),
    /// It could not be brought.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A commit says of no time when it was made.
    #[error("commit {0} has no committer")]
    Committer(String),
    /// The file is not where it was put.
    #[error("open {file}")]
    File {
        /// Its name.
        file: String,
        /// Why.
        #[source]
        source: RootFdError,
    },
}

/// The time of `source`: of its commit, the one its server tells, or that of the newest file in the archive that it is.
/// `None` if it has none of them.
///
/// # Errors
/// [`SourceTimeError`].
pub async fn of(
    job: &Arc<Job>,
    source: &SourceOp,
    title: &str,
    cancel: &CancellationToken,
) -> Result<Option<Timestamp>, SourceTimeError> {
    let judged = source_policy::judge(job, &job.settings.policies, source, None).await;
    let replaced = judged.map_err(OpError::from)?;
    let source = replaced.as_ref().unwrap_or(source);
    // A file that the client sends is known when it is there.
    let is_upload = source
        .identifier
        .strip_prefix("http://")
        .is_some_and(|rest| rest.starts_with(upload::HOST));
    if is_upload {
        return Ok(None);
    }
    let question = MetaQuestion {
        git_objects: true,
        log_name: title.to_owned(),
        ..MetaQuestion::default()
    };
    let found = source_meta::resolve(job, source, &question).await?;
    if let Some(found) = found.git {
        let seconds = committed_at(&found.commit_object);
        let seconds = seconds.ok_or_else(|| SourceTimeError::Committer(found.checksum.clone()))?;
        return Ok(Timestamp::from_unix(seconds, 0));
    }
    match found.http {
        Some(HttpMeta {
            modified: Some(seconds),
            ..
        }) => Ok(Timestamp::from_unix(seconds, 0)),
        Some(_) => archive_time(job, source, title, cancel).await,
        None => Ok(None),
    }
}

/// Seconds since 1970 of the committer's line of a commit: `committer name <address> seconds zone`.
fn committed_at(commit: &[u8]) -> Option<i64> {
    let text = String::from_utf8_lossy(commit);
    let headers = text.lines().take_while(|line| !line.is_empty());
    let committer = headers
        .filter_map(|line| line.strip_prefix("committer "))
        .next()?;
    let (_, time) = committer.rsplit_once('>')?;
    time.split_whitespace().next()?.parse().ok()
}

async fn archive_time(
    job: &Arc<Job>,
    source: &SourceOp,
    title: &str,
    cancel: &CancellationToken,
) -> Result<Option<Timestamp>, SourceTimeError> {
    let Some(file) = source.attrs.get("http.filename").filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let mut graph = Graph::default();
    let target = match graph.add(vertex(source, title)) {
        Ok(vertex) => Edge { vertex, output: 0 },
        Err(error) => unreachable!("a vertex without inputs misses none: {error}"),
    };
    let chain = solve_edge(job, &Arc::new(graph), target, cancel.clone()).await?;
    let root = view::root(job, &chain).await?;
    let (file, cancel) = (PathBuf::from(file), cancel.clone());
    blocking(move || newest(&root, &file, &cancel)).await
}

/// The time of the newest file of an archive; `None` for what is no archive, as in BuildKit, whole or not.
fn newest(
    root: &RootFd,
    file: &Path,
    cancel: &CancellationToken,
) -> Result<Option<Timestamp>, SourceTimeError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = root
        .open_in(file, flags, Mode::empty())
        .map_err(|source| SourceTimeError::File {
            file: file.display().to_string(),
            source,
        })?;
    let Ok((_, stream)) = decompress_detected(std::fs::File::from(opened), &DecompressLimits::allowed())
    else {
        return Ok(None);
    };
    let mut reader = TarReader::new(stream, Limits::allowed());
    let mut newest: Option<Time> = None;
    loop {
        if cancel.is_cancelled() {
            return Err(BuildError::Canceled.into());
        }
        match reader.next_entry() {
            Ok(Some(entry)) => {
                if matches!(entry.kind, EntryKind::File { .. } | EntryKind::HardLink { .. }) {
                    newest = newest.max(Some(entry.mtime));
                }
            }
            Ok(None) => break,
            Err(_) => return Ok(None),
        }
    }
    Ok(newest.and_then(|time| Timestamp::from_unix(time.seconds, time.nanoseconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(times: &[(tar::EntryType, u64)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (number, (kind, time)) in times.iter().enumerate() {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_size(0);
            header.set_mtime(*time);
            header.set_cksum();
            tar.append_data(&mut header, number.to_string(), std::io::empty())
                .unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn newest_of(bytes: &[u8]) -> Option<i64> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("context"), bytes).unwrap();
        let root = RootFd::open(dir.path()).unwrap();
        let found = newest(&root, Path::new("context"), &CancellationToken::new()).unwrap();
        found.map(Timestamp::unix_seconds)
    }

    #[test]
    fn an_archive_is_as_old_as_its_newest_file() {
        use tar::EntryType::{Directory, Regular};
        let times = [(Regular, 1_700_000_000), (Regular, 1_700_000_009), (Regular, 5)];
        assert_eq!(newest_of(&archive(&times)), Some(1_700_000_009));
        let with_directory = [(Directory, 1_800_000_000), (Regular, 1_700_000_000)];
        assert_eq!(newest_of(&archive(&with_directory)), Some(1_700_000_000));
        assert_eq!(newest_of(&archive(&[(Directory, 1_800_000_000)])), None);
    }

    #[test]
    fn what_is_no_archive_has_no_time() {
        let whole = archive(&[(tar::EntryType::Regular, 1_700_000_000); 3]);
        assert_eq!(newest_of(&whole), Some(1_700_000_000));
        for broken in [&b"FROM scratch\n"[..], b"", b"\x1f\x8b\x08garbage", &whole[..700]] {
            assert_eq!(newest_of(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn a_commit_was_made_when_its_committer_says() {
        let commit = b"tree 1\nauthor a <a@b> 5 +0000\ncommitter c > d <c@d> 1700000101 +0200\n\ncommitter x <y> 9 +0000\n";
        assert_eq!(committed_at(commit), Some(1_700_000_101));
        for broken in [
            &b"tree 1\n\ncommitter x <y> 9 +0000\n"[..],
            b"",
            b"committer x <y> soon",
        ] {
            assert_eq!(committed_at(broken), None);
        }
    }
}
