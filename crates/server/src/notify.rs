//! Tells a service manager how the server is doing (`sd_notify(3)`), if one asks.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Clients can connect.
pub(crate) const READY: &str = "READY=1";
/// No new builds are taken.
pub(crate) const STOPPING: &str = "STOPPING=1";

/// Sends `state` to the socket that `NOTIFY_SOCKET` names. A manager that cannot be told finds out by itself.
pub fn notify(state: &str) {
    if let Some(name) = std::env::var_os("NOTIFY_SOCKET") {
        send(&name, state);
    }
}

fn send(name: &OsStr, state: &str) -> Option<()> {
    let address = match name.as_bytes() {
        [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name).ok()?,
        [b'/', ..] => SocketAddr::from_pathname(name).ok()?,
        _ => return None,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.send_to_addr(state.as_bytes(), &address).ok().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_told_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("rbuild-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(path.as_os_str(), READY).unwrap();
        send(format!("@{name}").as_ref(), STOPPING).unwrap();
        for (socket, state) in [(by_path, READY), (by_name, STOPPING)] {
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], state.as_bytes());
        }
        assert_eq!(send("vsock:1".as_ref(), READY), None);
    }
}
