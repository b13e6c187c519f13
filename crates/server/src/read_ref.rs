//! Files of a built file system, for a client's front end. Paths are resolved inside it, whatever links it holds.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard_buildkit_proto::fsutil::types::Stat;
use rbuild_builder::ops::{blocking, content};
use rbuild_builder::value::{Chain, Value};
use rbuild_fileops::SourceTree;
use rbuild_sys::{RootFd, RootFdError};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use tonic::Status;

use crate::answer::BuildRef;
use crate::errors::build_status;
use crate::running::Running;

/// Largest file given to a client: what fits into one message.
const FILE_BYTES_MAX: u64 = 15 << 20;
/// Most names of a directory given to a client.
const NAMES_MAX: usize = 100_000;

/// What can be read of.
#[derive(Debug, Clone)]
pub enum Files {
    /// A result of the build.
    Tree(Arc<SourceTree>),
    /// A directory, of a container's mounts.
    Root(Arc<RootFd>),
}

impl Files {
    fn root(&self) -> &RootFd {
        match self {
            Self::Tree(tree) => tree.root(),
            Self::Root(root) => root,
        }
    }
}

/// The file system, mounted; a directory of the client where it is.
///
/// # Errors
/// Those of building it.
pub async fn tree(running: &Running, found: Option<&BuildRef>) -> Result<Arc<SourceTree>, Status> {
    let job = &running.job;
    let built = match found {
        Some(found) => match found.value(job, &running.cancel).await {
            // What is ignored is not there for front ends either, so they see a copy.
            Ok(value) if hides(&value) => found.chain(job, &running.cancel).await.map(Value::Chain),
            other => other,
        },
        None => Ok(Value::Chain(Chain::default())),
    };
    let value = built.map_err(|error| build_status(&error))?;
    let tree = content::tree(job, &value).await;
    tree.map_err(|error| Status::unknown(rbuild_builder::error::chain_text(&error)))
}

/// Whether ignore rules keep a part of it from being seen.
fn hides(value: &Value) -> bool {
    match value {
        Value::Context(context) => {
            matches!(&*context.tree, SourceTree::Context(local) if local.rules().is_some())
        }
        Value::Chain(_) => false,
    }
}

/// The content of a file, or a part of it.
///
/// # Errors
/// `not_found`, and `out_of_range` for more than fits into a message.
pub async fn file(files: Files, path: String, range: Option<(i64, i64)>) -> Result<Vec<u8>, Status> {
    blocking(move || {
        use std::io::{Read as _, Seek as _};
        let shown = Path::new(&path);
        let opened = files
            .root()
            .open_regular(shown)
            .map_err(|error| path_status("open", &path, &error))?;
        let mut file = std::fs::File::from(opened);
        let fail = |error: std::io::Error| Status::unknown(format!("read {path}: {error}"));
        let (offset, length) = range.unwrap_or((0, 0));
        if offset > 0 {
            file.seek(std::io::SeekFrom::Start(offset.unsigned_abs()))
                .map_err(fail)?;
        }
        let wanted = u64::try_from(length).ok().filter(|length| *length > 0);
        let mut data = Vec::new();
        file.take(wanted.unwrap_or(FILE_BYTES_MAX + 1).min(FILE_BYTES_MAX + 1))
            .read_to_end(&mut data)
            .map_err(fail)?;
        if data.len() as u64 > FILE_BYTES_MAX {
            return Err(Status::out_of_range(format!(
                "{path} is larger than {FILE_BYTES_MAX} bytes"
            )));
        }
        Ok(data)
    })
    .await
}

/// The entries of a directory whose names match `pattern` (all if it is empty), in order of their names.
///
/// # Errors
/// `not_found`.
pub async fn dir(files: Files, path: String, pattern: String) -> Result<Vec<Stat>, Status> {
    blocking(move || {
        let dir = files
            .root()
            .open_in(
                Path::new(&path),
                OFlags::RDONLY | OFlags::DIRECTORY,
                Mode::empty(),
            )
            .map_err(|error| path_status("open", &path, &error))?;
        let io = |error: rustix::io::Errno| Status::unknown(format!("read {path}: {error}"));
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if matches!(name.as_str(), "." | "..") || !matches(&pattern, &name) {
                continue;
            }
            if entries.len() == NAMES_MAX {
                return Err(Status::out_of_range(format!(
                    "{path} has more than {NAMES_MAX} entries"
                )));
            }
            let found =
                rbuild_sys::owner::statat(&dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
            let link = link_of(&dir, entry.file_name(), &found);
            entries.push(to_stat(name, &found, link));
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    })
    .await
}

/// What is known of one path; a link at its end is followed, as BuildKit's `StatFile` does.
///
/// # Errors
/// `not_found`.
pub async fn stat(files: Files, path: String) -> Result<Stat, Status> {
    blocking(move || {
        let found = files
            .root()
            .stat(Path::new(&path))
            .map_err(|error| path_status("stat", &path, &error))?;
        let name = Path::new(&path)
            .file_name()
            .map_or_else(|| PathBuf::from("/"), PathBuf::from);
        Ok(to_stat(name.display().to_string(), &found, String::new()))
    })
    .await
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.is_empty() || rbuild_dockerfile::glob::is_match(pattern, name).unwrap_or(false)
}

/// A mode as Go's `os.FileMode` has it, which is what `fsutil` sends.
const fn go_mode(mode: u32) -> u32 {
    const DIR: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    const NAMED_PIPE: u32 = 1 << 25;
    const SOCKET: u32 = 1 << 24;
    const SETUID: u32 = 1 << 23;
    const SETGID: u32 = 1 << 22;
    const CHAR_DEVICE: u32 = 1 << 21;
    const STICKY: u32 = 1 << 20;
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => DIR,
        FileType::Symlink => SYMLINK,
        FileType::BlockDevice => DEVICE,
        FileType::CharacterDevice => DEVICE | CHAR_DEVICE,
        FileType::Fifo => NAMED_PIPE,
        FileType::Socket => SOCKET,
        _ => 0,
    };
    let mut bits = kind | (mode & 0o777);
    if mode & 0o4000 != 0 {
        bits |= SETUID;
    }
    if mode & 0o2000 != 0 {
        bits |= SETGID;
    }
    if mode & 0o1000 != 0 {
        bits |= STICKY;
    }
    bits
}

fn link_of(dir: impl rustix::fd::AsFd, name: &std::ffi::CStr, found: &rustix::fs::Stat) -> String {
    if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
        return String::new();
    }
    let text = rbuild_sys::owner::read_link(dir, name);
    text.map(|text| text.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn to_stat(path: String, found: &rustix::fs::Stat, linkname: String) -> Stat {
    let device = matches!(
        FileType::from_raw_mode(found.st_mode),
        FileType::CharacterDevice | FileType::BlockDevice
    );
    let number = |part: fn(u64) -> u32| if device { i64::from(part(found.st_rdev)) } else { 0 };
    Stat {
        path,
        mode: go_mode(found.st_mode),
        uid: found.st_uid,
        gid: found.st_gid,
        size: found.st_size,
        mod_time: found
            .st_mtime
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::try_from(found.st_mtime_nsec).unwrap_or(0)),
        linkname,
        devmajor: number(rustix::fs::major),
        devminor: number(rustix::fs::minor),
        xattrs: HashMap::new(),
    }
}

fn path_status(verb: &str, path: &str, error: &RootFdError) -> Status {
    if error.is_not_found() {
        return Status::not_found(format!("{verb} {path}: no such file or directory"));
    }
    Status::unknown(rbuild_builder::error::chain_text(error))
}
