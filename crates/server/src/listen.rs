//! Where clients reach the server: unix sockets of our own, or those a service manager opened (`fd://`).

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Rights of the socket: whoever may write to it has the machine.
const SOCKET_MODE: u32 = 0o660;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Not an address we serve.
    #[error("address {0:?} is not served: give unix://PATH")]
    Address(String),
    /// TCP carries no identity.
    #[error("address {0:?}: TCP is served with TLS client certificates only, which this build does not have")]
    Tcp(String),
    /// The path is taken by something that is no socket.
    #[error("{0:?} exists and is no socket")]
    Taken(PathBuf),
    /// Another server listens there.
    #[error("another server listens on {0:?}")]
    InUse(PathBuf),
    /// The kernel refused.
    #[error("listen on {path:?}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// A socket that is served.
#[derive(Debug)]
pub struct Listening {
    listener: UnixListener,
    file: SocketFile,
}

impl Listening {
    /// The socket, and the guard of its file.
    #[must_use]
    pub fn split(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

/// The socket's file, removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: the file of another server is not removed.
    id: Option<(u64, u64)>,
}

impl SocketFile {
    fn id(path: &Path) -> Option<(u64, u64)> {
        use std::os::unix::fs::MetadataExt as _;
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

/// Listens on `address`; `gid` may use the socket too.
///
/// # Errors
/// [`ListenError`].
pub fn listen(address: &str, gid: Option<u32>) -> Result<Listening, ListenError> {
    let Some(path) = address.strip_prefix("unix://") else {
        return Err(if address.starts_with("tcp://") {
            ListenError::Tcp(address.to_owned())
        } else {
            ListenError::Address(address.to_owned())
        });
    };
    let path = PathBuf::from(path);
    let fail = |source| ListenError::Io {
        path: path.clone(),
        source,
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(fail)?;
    }
    free(&path)?;
    // Made under a name nobody knows and given its rights before it has its own: nobody connects too early.
    let hidden = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::remove_file(&hidden).ok();
    let listener = std::os::unix::net::UnixListener::bind(&hidden).map_err(fail)?;
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(fail)?;
    if gid.is_some() {
        std::os::unix::fs::chown(&hidden, None, gid).map_err(fail)?;
    }
    std::fs::rename(&hidden, &path).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    let listener = UnixListener::from_std(listener).map_err(fail)?;
    let id = SocketFile::id(&path);
    Ok(Listening {
        listener,
        file: SocketFile { path, id },
    })
}

/// Removes the socket of a server that is gone.
fn free(path: &Path) -> Result<(), ListenError> {
    let fail = |source| ListenError::Io {
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(ListenError::Taken(path.to_owned())),
        Ok(_) => {}
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ListenError::InUse(path.to_owned()));
    }
    std::fs::remove_file(path).map_err(fail)
}
