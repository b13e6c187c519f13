//! The root file system itself: as a directory (`-o type=local`, `-o DIR`) or as one tar (`-o type=tar`).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_fileops::{CopyError, Owner, SourceTree};
use rbuild_graph::{CopyAction, FileTime};
use rbuild_layer::{DevicePolicy, ExportedXattrs, WriteError, WriteOptions};
use rbuild_oci::Timestamp;
use rbuild_snapshotter::StackError;
use rbuild_sys::{RootFd, RootFdError};

use super::destination::{DestinationError, Writer};
use super::image::{BuildResult, PlatformSubject, Subject};
use crate::client::{ClientTree, OutputError};
use crate::job::Job;
use crate::ops::blocking;
use crate::pull::PullError;
use crate::request::{Destination, TreeDestination};
use crate::value::Chain;

/// Why a tree could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum TreeExportError {
    /// A layer of the base image could not be had.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The layers could not be mounted.
    #[error(transparent)]
    Snapshot(#[from] StackError),
    /// The directory could not be made or opened.
    #[error("open {path:?}")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The directory could not be opened as a root.
    #[error(transparent)]
    Root(#[from] RootFdError),
    /// A file could not be copied.
    #[error("copy to {path:?}")]
    Copy {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: CopyError,
    },
    /// The tar could not be made.
    #[error("write tar")]
    Tar(#[from] WriteError),
    /// The end of the tar could not be written.
    #[error("write tar")]
    Flush(#[source] std::io::Error),
    /// The tar could not be written.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// The client did not take it.
    #[error(transparent)]
    Client(#[from] OutputError),
}

/// Gives the trees of `result` to `destination`; several go into a directory each, named for their platforms.
///
/// # Errors
/// [`TreeExportError`].
pub async fn to_place(
    job: &Job,
    result: &BuildResult,
    destination: &TreeDestination,
    split: Option<bool>,
) -> Result<(), TreeExportError> {
    match destination {
        TreeDestination::Dir(dir) => {
            for (name, subject) in named(result, split) {
                let dest = name.map_or_else(|| dir.clone(), |name| dir.join(name));
                to_directory(job, &subject.chain, &dest, subject.epoch).await?;
            }
            Ok(())
        }
        TreeDestination::Client(exporter) => {
            let mut trees = Vec::new();
            let mut time = None;
            for (prefix, subject) in named(result, split) {
                let root = view(job, &subject.chain).await?;
                time = subject.epoch.map(file_time);
                trees.push(ClientTree { prefix, root });
            }
            Ok(job.client.trees(*exporter, trees, time).await?)
        }
    }
}

/// The results with the directories they are put into (`exporter/local/fs.go`).
fn named(result: &BuildResult, split: Option<bool>) -> Vec<(Option<String>, &Subject)> {
    let split = split.unwrap_or(result.is_index);
    let name = |part: &PlatformSubject| {
        let platform = part.platform.clone().unwrap_or_else(rbuild_oci::Platform::host);
        platform.to_string().replace('/', "_")
    };
    let parts = result.subjects.iter();
    parts
        .map(|part| (split.then(|| name(part)), &part.subject))
        .collect()
}

const fn file_time(time: Timestamp) -> FileTime {
    FileTime {
        seconds: time.unix_seconds(),
        nanoseconds: time.subsec_nanoseconds(),
    }
}

/// Copies the tree of `chain` into the directory `dest`; files belong to whoever runs the build, as they do when
/// BuildKit's client receives them.
///
/// # Errors
/// [`TreeExportError`].
async fn to_directory(
    job: &Job,
    chain: &Chain,
    dest: &Path,
    epoch: Option<Timestamp>,
) -> Result<(), TreeExportError> {
    let view = view(job, chain).await?;
    let (dest, devices) = (dest.to_owned(), DevicePolicy::for_form(job.engine.form));
    blocking(move || {
        std::fs::create_dir_all(&dest).map_err(|source| TreeExportError::Open {
            path: dest.clone(),
            source,
        })?;
        let root = RootFd::open(&dest)?;
        let action = CopyAction {
            src: "/".into(),
            dest: "/".into(),
            dir_copy_contents: true,
            create_dest_path: true,
            always_replace_existing: true,
            time: epoch.map(file_time),
            ..CopyAction::default()
        };
        let owner = Owner {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
        };
        rbuild_fileops::copy(&SourceTree::Snapshot(view), &root, &action, Some(owner), devices).map_err(
            |source| TreeExportError::Copy {
                path: dest.clone(),
                source,
            },
        )?;
        Ok(())
    })
    .await
}

/// Writes the trees of `result` as one tar, owners as they are in the image.
///
/// # Errors
/// [`TreeExportError`].
pub async fn to_tar(
    job: &Job,
    result: &BuildResult,
    destination: &Destination,
    split: Option<bool>,
) -> Result<(), TreeExportError> {
    let mut views = Vec::new();
    let mut epoch = None;
    for (name, subject) in named(result, split) {
        epoch = subject.epoch;
        views.push((name, view(job, &subject.chain).await?));
    }
    let mut writer = Writer::to(&*job.client, destination, &BTreeMap::new()).await?;
    let form = job.engine.form;
    blocking(move || {
        let options = WriteOptions {
            newest_mtime: epoch.map(Timestamp::unix_seconds),
            xattrs: ExportedXattrs::CapabilityAndUser,
            ..WriteOptions::default()
        };
        match views.as_slice() {
            [(None, view)] => {
                rbuild_layer::write_tar(view.as_fd(), form, &options, &mut writer)?;
            }
            several => {
                let trees = several.iter();
                let trees: Vec<_> = trees
                    .map(|(name, view)| (name.clone().unwrap_or_default(), view.as_fd()))
                    .collect();
                rbuild_layer::write_trees(&trees, form, &options, &mut writer)?;
            }
        }
        writer.flush().map_err(TreeExportError::Flush)?;
        writer.commit()?;
        Ok(())
    })
    .await
}

async fn view(job: &Job, chain: &Chain) -> Result<RootFd, TreeExportError> {
    let chain = job.unpack_chain(chain).await?;
    let (engine, lease) = (Arc::clone(&job.engine), Arc::clone(&job.lease));
    Ok(blocking(move || engine.snapshotter.view(&lease, chain.layers()))
        .await?
        .into_root())
}
