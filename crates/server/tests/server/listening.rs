//! Sockets: who may use them, and what becomes of them.

use std::os::unix::fs::PermissionsExt as _;

use rbuild_server::listen::{ListenError, listen};

#[tokio::test]
async fn row48_a_socket_is_for_its_owner_and_group_and_goes_with_its_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/buildkitd.sock");
    let address = format!("unix://{}", path.display());
    let listening = listen(&address, None).unwrap();
    let mode = std::fs::symlink_metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert!(matches!(listen(&address, None), Err(ListenError::InUse(_))));
    drop(listening);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_dead_servers_socket_is_taken_over_and_other_files_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let address = format!("unix://{}", path.display());
    drop(listen(&address, None).unwrap());
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(listen(&address, None), Err(ListenError::Taken(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn row48_nothing_listens_on_the_network_without_certificates() {
    for address in ["tcp://127.0.0.1:0", "127.0.0.1:0", "npipe:////./pipe/x"] {
        assert!(listen(address, None).is_err(), "{address}");
    }
}
