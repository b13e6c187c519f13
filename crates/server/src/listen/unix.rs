//! Unix sockets: made for their owner and group only, and removed when their server ends.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::{Access, ListenError};

/// Rights of the socket: whoever may write to it has the machine.
const SOCKET_MODE: u32 = 0o660;

/// The socket's file, removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: the file of another server is not removed.
    id: Option<(u64, u64)>,
}

impl SocketFile {
    fn id(path: &Path) -> Option<(u64, u64)> {
        let found = std::fs::symlink_metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.id.is_some() && Self::id(&self.path) == self.id {
            // What cannot be removed is taken over by the next server.
            std::fs::remove_file(&self.path).ok();
        }
    }
}

/// Makes the socket at `path`.
pub(super) fn bind(path: PathBuf, access: &Access) -> Result<(UnixListener, SocketFile), ListenError> {
    let fail = |source| ListenError::Io {
        address: path.display().to_string(),
        source,
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(fail)?;
    }
    free(&path)?;
    // Made under a name nobody knows and given its rights before it has its own: nobody connects too early.
    let hidden = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::remove_file(&hidden).ok();
    let listener = UnixListener::bind(&hidden).map_err(fail)?;
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(fail)?;
    if access.uid.is_some() || access.gid.is_some() {
        std::os::unix::fs::chown(&hidden, access.uid, access.gid).map_err(fail)?;
    }
    std::fs::rename(&hidden, &path).map_err(fail)?;
    let id = SocketFile::id(&path);
    Ok((listener, SocketFile { path, id }))
}

/// Removes the socket of a server that is gone.
fn free(path: &Path) -> Result<(), ListenError> {
    let fail = |source| ListenError::Io {
        address: path.display().to_string(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(ListenError::Taken(path.to_owned())),
        Ok(_) => {}
    }
    if UnixStream::connect(path).is_ok() {
        return Err(ListenError::InUse(path.to_owned()));
    }
    std::fs::remove_file(path).map_err(fail)
}
