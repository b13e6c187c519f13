//! Files of an image, taken out without running anything: `cp` and `export` of containers that were only created. Paths
//! are the image's and never lead out of it; where they go is what `docker cp` says (moby `archive.CopyInfoDestinationPath`).

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_fileops::{Owner, SourceTree};
use rbuild_graph::CopyAction;
use rbuild_graph::progress::Sink;
use rbuild_layer::DevicePolicy;
use rbuild_oci::Platform;
use rbuild_snapshotter::StackError;
use rbuild_store::DiskError;
use rbuild_sys::{RootFd, RootFdError, clean};
use rustix::fs::{FileType, Mode, OFlags};

use crate::engine::Engine;
use crate::job::Job;
use crate::local_image::{LocalImage, LocalImageError, Stored};
use crate::ops::{OpError, blocking};
use crate::taken_out::{self, TakeOutError};

/// Why files were not taken out.
#[derive(Debug, thiserror::Error)]
pub enum ImageFilesError {
    /// The image could not be had.
    #[error(transparent)]
    Image(#[from] LocalImageError),
    /// Its layers could not be unpacked.
    #[error(transparent)]
    Op(Box<OpError>),
    /// They could not be put on each other.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// There is no such file.
    #[error("could not find the file {0:?} in the image")]
    NotFound(String),
    /// The image's files could not be looked at.
    #[error(transparent)]
    Root(#[from] RootFdError),
    /// A directory was to replace a file.
    #[error("cannot copy directory to {0:?}: it is a file")]
    OntoFile(PathBuf),
    /// A file was to go into a directory that is not there.
    #[error("no such directory: {0:?}")]
    NoDirectory(PathBuf),
    /// The place is none.
    #[error("open {path:?}")]
    Place {
        /// The place.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The files did not get out.
    #[error(transparent)]
    TakeOut(#[from] TakeOutError),
    /// A place for the file on its way into the tar.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// How files are copied.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyRules {
    /// A path that is a link stands for what it leads to.
    pub follow_link: bool,
    /// Owners stay; otherwise files belong to whoever asks.
    pub keep_owners: bool,
}

/// An image's files.
#[derive(Debug)]
pub struct ImageFiles {
    job: Arc<Job>,
    root: RootFd,
}

/// One file or directory of an image.
struct Found {
    /// Absolute, without `..`.
    path: PathBuf,
    /// What it is called, if it is more than the root.
    name: Option<OsString>,
    is_dir: bool,
    /// What is in it was asked for, and not itself.
    contents: bool,
}

impl ImageFiles {
    /// Brings an image of the store and unpacks it.
    ///
    /// # Errors
    /// [`ImageFilesError`].
    pub async fn open(
        engine: &Arc<Engine>,
        stored: &Stored,
        platform: &Platform,
        sink: Arc<dyn Sink>,
    ) -> Result<Self, ImageFilesError> {
        let LocalImage { job, chain, .. } =
            LocalImage::of_stored(Arc::clone(engine), stored, platform, sink).await?;
        let unpacked = job.unpack_chain(&chain).await;
        let chain = unpacked.map_err(|error| ImageFilesError::Op(Box::new(error.into())))?;
        let (engine, lease) = (Arc::clone(engine), Arc::clone(&job.lease));
        let view = blocking(move || engine.snapshotter.view(&lease, chain.layers())).await?;
        Ok(Self {
            job,
            root: view.into_root(),
        })
    }

    /// Copies the file or directory `path` to `dest`: into it if that is a directory, else under its name. A path that
    /// ends in `/.` stands for what is in it.
    ///
    /// # Errors
    /// [`ImageFilesError`].
    pub fn copy_out(&self, path: &str, dest: &Path, rules: CopyRules) -> Result<(), ImageFilesError> {
        let found = self.find(path, rules.follow_link)?;
        let (dir, name) = place(&found, dest)?;
        let owner = (!rules.keep_owners).then(taken_out::caller);
        self.copy(&found, &dir, name, owner, rules.follow_link)
    }

    /// Writes the file or directory `path` as a tar whose entries begin with its name.
    ///
    /// # Errors
    /// [`ImageFilesError`].
    pub fn write_tar(&self, path: &str, follow_link: bool, out: impl Write) -> Result<(), ImageFilesError> {
        let found = self.find(path, follow_link)?;
        if found.is_dir {
            let tree = self.directory(&found.path)?;
            return self.write(found.name.filter(|_| !found.contents), &tree, out);
        }
        let dir = self.job.lease.new_dir("cp")?;
        self.copy(&found, &dir, found.name.clone(), None, follow_link)?;
        let dir = RootFd::open(&dir)?.open_in(Path::new("/"), OFlags::DIRECTORY, Mode::empty())?;
        self.write(None, &dir, out)
    }

    /// Writes all of the image's files as a tar.
    ///
    /// # Errors
    /// [`ImageFilesError`].
    pub fn export(&self, out: impl Write) -> Result<(), ImageFilesError> {
        let tree = self.directory(Path::new("/"))?;
        self.write(None, &tree, out)
    }

    fn directory(&self, path: &Path) -> Result<OwnedFd, RootFdError> {
        self.root.open_in(path, OFlags::DIRECTORY, Mode::empty())
    }

    fn write(&self, below: Option<OsString>, tree: &OwnedFd, out: impl Write) -> Result<(), ImageFilesError> {
        let name = below.map(|name| name.to_string_lossy().into_owned());
        let trees = [(name.unwrap_or_default(), tree.as_fd())];
        Ok(taken_out::write_tar(&trees, self.job.engine.form, None, out)?)
    }

    fn find(&self, text: &str, follow_link: bool) -> Result<Found, ImageFilesError> {
        let path = clean(Path::new(text));
        let contents = path == Path::new("/") || text == "." || text.ends_with("/.");
        let follow = follow_link || contents || text.ends_with('/');
        let looked = if follow {
            self.root.stat(&path)
        } else {
            self.root.lstat(&path)
        };
        let stat = looked.map_err(|error| match error.is_not_found() {
            true => ImageFilesError::NotFound(text.to_owned()),
            false => error.into(),
        })?;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if text.ends_with('/') && !is_dir {
            return Err(ImageFilesError::NotFound(text.to_owned()));
        }
        Ok(Found {
            name: path.file_name().map(ToOwned::to_owned),
            path,
            is_dir,
            contents: contents && is_dir,
        })
    }

    /// Copies `found` into `dir`, or what is in it where it is given no name.
    fn copy(
        &self,
        found: &Found,
        dir: &Path,
        name: Option<OsString>,
        owner: Option<Owner>,
        follow_symlink: bool,
    ) -> Result<(), ImageFilesError> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let dest = name.map_or_else(|| "/".into(), |name| Path::new("/").join(name));
        let action = CopyAction {
            src: text(&found.path),
            dest: text(&dest),
            follow_symlink,
            dir_copy_contents: true,
            always_replace_existing: true,
            ..CopyAction::default()
        };
        let to = RootFd::open(dir)?;
        let from = SourceTree::Snapshot(RootFd::from_fd(self.directory(Path::new("/"))?));
        let devices = DevicePolicy::for_form(self.job.engine.form);
        Ok(taken_out::copy_to((&to, dir), &from, &action, owner, devices)?)
    }
}

/// The directory that `found` goes into, and what it is called there; without a name, what is in it goes there.
fn place(found: &Found, dest: &Path) -> Result<(PathBuf, Option<OsString>), ImageFilesError> {
    let known = std::fs::canonicalize(dest).ok();
    let is_dir = known.as_deref().is_some_and(Path::is_dir);
    let asks_for_dir = dest.as_os_str().as_encoded_bytes().ends_with(b"/");
    match known {
        Some(known) if is_dir => {
            let name = found.name.clone().filter(|_| !found.contents);
            return Ok((known, name));
        }
        Some(_) if found.is_dir => return Err(ImageFilesError::OntoFile(dest.to_owned())),
        _ if asks_for_dir && !found.is_dir => return Err(ImageFilesError::NoDirectory(dest.to_owned())),
        _ => {}
    }
    let target = known_or(dest);
    let parent = target
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    let parent = std::fs::canonicalize(parent).map_err(|source| ImageFilesError::Place {
        path: parent.to_owned(),
        source,
    })?;
    Ok((parent, target.file_name().map(ToOwned::to_owned)))
}

/// What is written through a link is what it leads to.
fn known_or(dest: &Path) -> PathBuf {
    std::fs::canonicalize(dest).unwrap_or_else(|_| dest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: Option<&str>, is_dir: bool, contents: bool) -> Found {
        Found {
            path: Path::new("/").join(name.unwrap_or_default()),
            name: name.map(OsString::from),
            is_dir,
            contents,
        }
    }

    #[test]
    fn files_go_where_docker_puts_them() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().canonicalize().unwrap();
        std::fs::write(at.join("file"), "").unwrap();
        std::os::unix::fs::symlink("file", at.join("link")).unwrap();
        let (file, tree, inside) = (
            found(Some("f"), false, false),
            found(Some("d"), true, false),
            found(Some("d"), true, true),
        );
        let to = |found: &Found, name: &str| place(found, &at.join(name)).map_err(|error| error.to_string());
        let named = |name: &str| Ok((at.clone(), Some(OsString::from(name))));
        assert_eq!(to(&file, ""), named("f"));
        assert_eq!(to(&file, "new"), named("new"));
        assert_eq!(to(&file, "file"), named("file"));
        assert_eq!(to(&file, "link"), named("file"), "written through a link");
        assert_eq!(to(&tree, ""), named("d"));
        assert_eq!(to(&tree, "new"), named("new"));
        assert_eq!(to(&inside, ""), Ok((at.clone(), None)));
        assert_eq!(to(&inside, "new"), named("new"));
        assert_eq!(to(&found(None, true, true), ""), Ok((at.clone(), None)));
        assert!(to(&tree, "file").unwrap_err().contains("it is a file"));
        assert!(to(&file, "new/").unwrap_err().contains("no such directory"));
        assert!(to(&file, "none/new").unwrap_err().contains("none"));
    }
}
