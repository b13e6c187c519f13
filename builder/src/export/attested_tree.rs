//! The tree of a result with its attestations as files in it (`exporter/local/fs.go`, `CreateFS`). They are written on top
//! of it, into a directory that goes when the export is over: the result itself does not change.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

use rbuild_graph::FileTime;
use rbuild_oci::{Digest, Timestamp, go_json};
use rbuild_snapshotter::{StackError, Workspace};
use rbuild_sys::{RootFd, RootFdError, TreeError, walk_tree};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use sha2::{Digest as _, Sha256};

use super::image::PlatformSubject;
use crate::attestation::{self, AttestationError, Statement, StatementSubject};
use crate::job::Job;
use crate::ops::blocking;
use crate::pull::PullError;
use crate::value::Chain;

/// Permissions of an attestation's file.
const MODE: u32 = 0o600;

/// Why there is no tree.
#[derive(Debug, thiserror::Error)]
pub enum AttestedTreeError {
    /// A layer of the base image could not be had.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The layers could not be mounted.
    #[error(transparent)]
    Snapshot(#[from] StackError),
    /// An attestation.
    #[error(transparent)]
    Attestation(#[from] AttestationError),
    /// Two attestations have the same file.
    #[error("duplicate attestation path name {0}")]
    Duplicate(String),
    /// An attestation could not be encoded.
    #[error("failed to marshal attestation")]
    Encode(#[source] serde_json::Error),
    /// The files could not be listed.
    #[error(transparent)]
    Walk(#[from] TreeError),
    /// The place of a file could not be opened.
    #[error(transparent)]
    Root(#[from] RootFdError),
    /// A file could not be read or written.
    #[error("{verb} {name}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A tree, and the directory that its attestations are in.
#[derive(Debug)]
pub struct AttestedTree {
    root: RootFd,
    workspace: Option<Workspace>,
}

impl AttestedTree {
    /// The root.
    #[must_use]
    pub const fn root(&self) -> &RootFd {
        &self.root
    }

    /// The root, and what has to be kept for as long as it is read.
    #[must_use]
    pub fn split(self) -> (RootFd, Option<Workspace>) {
        (self.root, self.workspace)
    }
}

/// The tree of `part`. The names of its attestations begin with `prefix` and have `mark` before their last ending.
///
/// # Errors
/// [`AttestedTreeError`].
pub async fn attested(
    job: &Arc<Job>,
    part: &PlatformSubject,
    mark: Option<&str>,
    prefix: &str,
) -> Result<AttestedTree, AttestedTreeError> {
    let chain = job.unpack_chain(&part.subject.chain).await?;
    let told = part.attestations.iter();
    let told: Vec<_> = told.filter(|attestation| !attestation.inline_only).collect();
    if told.is_empty() {
        let root = view(job, &chain).await?;
        return Ok(AttestedTree {
            root,
            workspace: None,
        });
    }
    let mut files = Vec::with_capacity(told.len());
    let mut names = BTreeSet::new();
    for told in attestation::told(job, told).await? {
        let name = marked(&format!("{prefix}{}", told.file_name()), mark);
        if !names.insert(name.clone()) {
            return Err(AttestedTreeError::Duplicate(name));
        }
        files.push((name, told));
    }
    let root = view(job, &chain).await?;
    let (engine, lease) = (Arc::clone(&job.engine), Arc::clone(&job.lease));
    let epoch = part.subject.epoch;
    blocking(move || {
        let subjects = subjects(&root)?;
        drop(root);
        let mut workspace = engine.snapshotter.workspace(&lease, chain.layers())?;
        let root = workspace.mount()?;
        for (name, told) in files {
            write(&root, &name, &attestation::statement(told, &subjects), epoch)?;
        }
        Ok(AttestedTree {
            root,
            workspace: Some(workspace),
        })
    })
    .await
}

async fn view(job: &Arc<Job>, chain: &Chain) -> Result<RootFd, AttestedTreeError> {
    let (engine, lease, chain) = (Arc::clone(&job.engine), Arc::clone(&job.lease), chain.clone());
    let view = blocking(move || engine.snapshotter.view(&lease, chain.layers())).await?;
    Ok(view.into_root())
}

/// `name` with `mark` before its last ending.
fn marked(name: &str, mark: Option<&str>) -> String {
    match (mark, name.rsplit_once('.')) {
        (None, _) => name.to_owned(),
        (Some(mark), Some((stem, ending))) => format!("{stem}.{mark}.{ending}"),
        (Some(mark), None) => format!("{name}.{mark}"),
    }
}

/// Every regular file with its digest, sorted.
fn subjects(root: &RootFd) -> Result<Vec<StatementSubject>, AttestedTreeError> {
    let mut subjects = Vec::new();
    walk_tree(root.as_fd(), String::new(), |above, entry| {
        let name = format!("{above}{}", entry.name.to_string_lossy());
        if FileType::from_raw_mode(entry.stat.st_mode) == FileType::RegularFile {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(entry.dir, entry.name, flags, Mode::empty());
            let digest = opened.map_err(std::io::Error::from).and_then(|fd| {
                let mut hasher = Sha256::new();
                std::io::copy(&mut File::from(fd), &mut HashWriter(&mut hasher))?;
                Ok(Digest::from_sha256(hasher.finalize().into()))
            });
            let digest = digest.map_err(|source| AttestedTreeError::Io {
                verb: "read",
                name: name.clone(),
                source,
            })?;
            subjects.push(StatementSubject::new(&name, &digest));
        }
        Ok::<_, AttestedTreeError>(name + "/")
    })?;
    subjects.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(subjects)
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes a statement in the place of whatever has its name.
fn write(
    root: &RootFd,
    name: &str,
    statement: &Statement,
    epoch: Option<Timestamp>,
) -> Result<(), AttestedTreeError> {
    let bytes = go_json::to_vec_indented(statement).map_err(AttestedTreeError::Encode)?;
    let fail = |source: std::io::Error| AttestedTreeError::Io {
        verb: "write",
        name: name.to_owned(),
        source,
    };
    let errno = |error: rustix::io::Errno| fail(error.into());
    let (dir, file_name) = root.parent(Path::new(name))?;
    match rustix::fs::unlinkat(&dir, &file_name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(errno(error)),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&dir, &file_name, flags, Mode::from_raw_mode(MODE)).map_err(errno)?;
    let mut file = File::from(fd);
    file.write_all(&bytes).map_err(fail)?;
    if let Some(epoch) = epoch {
        let time = FileTime::of(epoch);
        let time = Timespec {
            tv_sec: time.seconds,
            tv_nsec: time.nanoseconds.into(),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::futimens(&file, &times).map_err(errno)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attestation::{Told, statement};

    #[test]
    fn marks_stand_before_the_last_ending() {
        assert_eq!(marked("provenance.json", None), "provenance.json");
        assert_eq!(
            marked("x.sbom.spdx.json", Some("linux_amd64")),
            "x.sbom.spdx.linux_amd64.json"
        );
        assert_eq!(marked("plain", Some("p")), "plain.p");
    }

    #[test]
    fn row48_a_link_of_the_result_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().join("target");
        std::fs::write(&target, "kept").unwrap();
        std::os::unix::fs::symlink(&target, dir.path().join("provenance.json")).unwrap();
        std::fs::write(dir.path().join("file"), "x").unwrap();
        let root = RootFd::open(dir.path()).unwrap();
        let found = subjects(&root).unwrap();
        assert_eq!(found, [StatementSubject::new("file", &Digest::sha256(b"x"))]);
        let told = Told {
            path: "provenance.json".to_owned(),
            predicate_type: "t".to_owned(),
            subjects: vec![],
            sbom_core: None,
            predicate: serde_json::json!({}),
        };
        write(&root, "provenance.json", &statement(told, &found), None).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"kept");
        let text = std::fs::read_to_string(dir.path().join("provenance.json")).unwrap();
        assert!(text.contains("\"name\": \"file\""), "{text}");
    }
}
