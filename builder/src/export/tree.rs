//! The root file system itself: as a directory (`-o type=local`, `-o DIR`) or as one tar (`-o type=tar`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_fileops::SourceTree;
use rbuild_graph::{CopyAction, FileTime};
use rbuild_layer::DevicePolicy;
use rbuild_oci::Timestamp;
use rbuild_sys::{RootFd, RootFdError, TreeError, remove_tree, walk_tree};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::attested_tree::{AttestedTree, AttestedTreeError, attested};
use super::destination::{DestinationError, Writer};
use super::image::{BuildResult, PlatformSubject};
use crate::client::{ClientTree, OutputError};
use crate::job::Job;
use crate::ops::blocking;
use crate::request::{Destination, Output, TreeDestination};
use crate::taken_out::{TakeOutError, caller, copy_to, write_tar};

/// Why a tree could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum TreeExportError {
    /// The tree itself could not be had.
    #[error(transparent)]
    Tree(#[from] AttestedTreeError),
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
    /// The files did not get out.
    #[error(transparent)]
    TakeOut(#[from] TakeOutError),
    /// The tar could not be written.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// The client did not take it.
    #[error(transparent)]
    Client(#[from] OutputError),
    /// Two results have the same file, and there is one place for both.
    #[error("cannot overwrite {path} from {first} with {second} when split option is disabled")]
    Overwrite {
        /// The file.
        path: String,
        /// Platform that has it.
        first: String,
        /// Platform that has it too.
        second: String,
    },
    /// The files could not be listed.
    #[error(transparent)]
    List(#[from] TreeError),
}

/// Gives the trees of `result` to `destination`; several go into a directory each, named for their platforms.
///
/// # Errors
/// [`TreeExportError`].
pub(crate) async fn to_place(
    job: &Arc<Job>,
    result: &BuildResult,
    destination: &TreeDestination,
    output: &Output,
) -> Result<(), TreeExportError> {
    let mut seen = Seen::default();
    match destination {
        TreeDestination::Dir(dir) => {
            let mut trees = Vec::new();
            let mut wanted = Wanted::default();
            for named in named(result, output.platform_split) {
                let tree = named.tree(job, output).await?;
                seen.add(&named, tree.root())?;
                if output.delete_extra {
                    wanted.add(named.directory.as_deref(), tree.root())?;
                }
                trees.push((named.directory, tree, named.part.subject.epoch));
            }
            if output.delete_extra {
                // Before anything is copied: the times of directories are then those of the result.
                let dir = dir.clone();
                blocking(move || wanted.remove_others(&dir)).await?;
            }
            for (name, tree, epoch) in trees {
                let dest = name.map_or_else(|| dir.clone(), |name| dir.join(name));
                to_directory(job, tree, &dest, epoch).await?;
            }
            Ok(())
        }
        TreeDestination::Client(exporter) => {
            let mut trees = Vec::new();
            let mut kept = Vec::new();
            let mut time = None;
            for named in named(result, output.platform_split) {
                let (root, workspace) = named.tree(job, output).await?.split();
                seen.add(&named, &root)?;
                time = named.part.subject.epoch.map(FileTime::of);
                let prefix = named.directory;
                trees.push(ClientTree { prefix, root });
                kept.push(workspace);
            }
            job.client.trees(*exporter, trees, time).await?;
            drop(kept);
            Ok(())
        }
    }
}

/// Files of results that go to one place, with the platform that has each.
#[derive(Default)]
struct Seen(HashMap<String, String>);

impl Seen {
    fn add(&mut self, named: &Named<'_>, root: &RootFd) -> Result<(), TreeExportError> {
        if named.mark.is_none() {
            return Ok(());
        }
        let platform = platform_of(named.part);
        walk_tree(root.as_fd(), String::new(), |above, entry| {
            let path = format!("{above}{}", entry.name.to_string_lossy());
            let is_dir = FileType::from_raw_mode(entry.stat.st_mode) == FileType::Directory;
            let first = (!is_dir).then(|| self.0.insert(path.clone(), platform.clone()));
            match first.flatten() {
                Some(first) => Err(TreeExportError::Overwrite {
                    path,
                    first,
                    second: platform.clone(),
                }),
                None => Ok(path + "/"),
            }
        })
    }
}

/// Every path of the results that go to one directory.
#[derive(Default)]
struct Wanted(HashSet<Vec<u8>>);

impl Wanted {
    fn add(&mut self, directory: Option<&str>, root: &RootFd) -> Result<(), TreeExportError> {
        let above = directory.map_or_else(Vec::new, |name| [name.as_bytes(), b"/"].concat());
        if let Some(name) = directory {
            self.0.insert(name.as_bytes().to_vec());
        }
        walk_tree(root.as_fd(), above, |above, entry| {
            let path = [above, entry.name.as_bytes()].concat();
            self.0.insert(path.clone());
            Ok::<_, TreeExportError>([path.as_slice(), b"/"].concat())
        })
    }

    /// Removes what `dir` holds besides. Links are removed and not followed, and where something is mounted nothing is.
    fn remove_others(&self, dir: &Path) -> Result<(), TreeExportError> {
        let root = match RootFd::open(dir) {
            Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(()),
            opened => opened?,
        };
        let mut others = Vec::new();
        // Nothing stands for what is in a directory that goes as a whole.
        walk_tree(
            root.as_fd(),
            Some(Vec::new()),
            |above: &Option<Vec<u8>>, entry| {
                let Some(above) = above else { return Ok(None) };
                let path = [above, entry.name.as_bytes()].concat();
                if self.0.contains(&path) {
                    return Ok(Some([path.as_slice(), b"/"].concat()));
                }
                others.push(path);
                Ok::<_, TreeExportError>(None)
            },
        )?;
        for path in others {
            let (parent, name) = root.parent(Path::new(OsStr::from_bytes(&path)))?;
            remove_tree(parent.as_fd(), &name, None)?;
        }
        Ok(())
    }
}

/// A result, and where its tree goes.
struct Named<'a> {
    /// A directory of its own.
    directory: Option<String>,
    /// Tells its attestations from those of others in the same directory.
    mark: Option<String>,
    part: &'a PlatformSubject,
}

impl Named<'_> {
    async fn tree(&self, job: &Arc<Job>, output: &Output) -> Result<AttestedTree, TreeExportError> {
        Ok(attested(job, self.part, self.mark.as_deref(), &output.attestation_prefix).await?)
    }
}

fn platform_of(part: &PlatformSubject) -> String {
    let platform = part.platform.clone();
    platform.unwrap_or_else(rbuild_oci::Platform::host).to_string()
}

/// The results with the directories they are put into (`exporter/local/fs.go`).
fn named(result: &BuildResult, split: Option<bool>) -> Vec<Named<'_>> {
    let split = split.unwrap_or(result.is_index);
    let name = |part: &PlatformSubject| platform_of(part).replace('/', "_");
    let parts = result.subjects.iter();
    parts
        .map(|part| Named {
            directory: split.then(|| name(part)),
            mark: (result.is_index && !split).then(|| name(part)),
            part,
        })
        .collect()
}

/// Copies `tree` into the directory `dest`; files belong to whoever runs the build, as they do when
/// BuildKit's client receives them.
///
/// # Errors
/// [`TreeExportError`].
async fn to_directory(
    job: &Job,
    tree: AttestedTree,
    dest: &Path,
    epoch: Option<Timestamp>,
) -> Result<(), TreeExportError> {
    let (view, workspace) = tree.split();
    let (dest, devices) = (dest.to_owned(), DevicePolicy::for_form(job.engine.form));
    blocking(move || {
        std::fs::create_dir_all(&dest).map_err(|source| TreeExportError::Open {
            path: dest.clone(),
            source,
        })?;
        copy_out(view, &dest, epoch, devices)?;
        drop(workspace);
        Ok(())
    })
    .await
}

/// Copies a tree into a directory that is there. Files belong to whoever asks for it.
///
/// # Errors
/// [`TreeExportError`].
pub(crate) fn copy_out(
    view: RootFd,
    dest: &Path,
    epoch: Option<Timestamp>,
    devices: DevicePolicy,
) -> Result<(), TreeExportError> {
    let root = RootFd::open(dest)?;
    let action = CopyAction {
        src: "/".into(),
        dest: "/".into(),
        dir_copy_contents: true,
        create_dest_path: true,
        always_replace_existing: true,
        time: epoch.map(FileTime::of),
        ..CopyAction::default()
    };
    let view = SourceTree::Snapshot(view);
    Ok(copy_to((&root, dest), &view, &action, Some(caller()), devices)?)
}

/// Writes the trees of `result` as one tar, owners as they are in the image.
///
/// # Errors
/// [`TreeExportError`].
pub(crate) async fn to_tar(
    job: &Arc<Job>,
    result: &BuildResult,
    destination: &Destination,
    output: &Output,
) -> Result<(), TreeExportError> {
    let mut seen = Seen::default();
    let mut views = Vec::new();
    let mut kept = Vec::new();
    let mut epoch = None;
    for named in named(result, output.platform_split) {
        epoch = named.part.subject.epoch;
        let (root, workspace) = named.tree(job, output).await?.split();
        seen.add(&named, &root)?;
        views.push((named.directory, root));
        kept.push(workspace);
    }
    let mut writer = Writer::to(&*job.client, destination, &BTreeMap::new()).await?;
    let form = job.engine.form;
    blocking(move || {
        let trees = views.iter();
        let trees: Vec<_> = trees
            .map(|(name, view)| (name.clone().unwrap_or_default(), view.as_fd()))
            .collect();
        let mtime = epoch.map(|epoch| FileTime::of(epoch).rounded_seconds());
        write_tar(&trees, form, mtime, &mut writer)?;
        writer.commit()?;
        drop(kept);
        Ok(())
    })
    .await
}
