//! Sockets: who may use them, and what becomes of them.

use std::os::unix::fs::PermissionsExt as _;

use rbuild_server::listen::{Access, ListenError, listen};

#[tokio::test]
async fn row48_a_socket_is_for_its_owner_and_group_and_goes_with_its_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/buildkitd.sock");
    let address = format!("unix://{}", path.display());
    let listening = listen(&address, &Access::default()).unwrap();
    let mode = std::fs::symlink_metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert!(matches!(
        listen(&address, &Access::default()),
        Err(ListenError::InUse(_))
    ));
    drop(listening);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_dead_servers_socket_is_taken_over_and_other_files_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let address = format!("unix://{}", path.display());
    drop(listen(&address, &Access::default()).unwrap());
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(
        listen(&address, &Access::default()),
        Err(ListenError::Taken(_))
    ));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn row48_nothing_listens_on_the_network_without_certificates() {
    let plain = listen("tcp://127.0.0.1:0", &Access::default());
    assert!(matches!(plain, Err(ListenError::Plain(_))), "{plain:?}");
    for address in ["127.0.0.1:0", "npipe:////./pipe/x", "unix://", "fd://3"] {
        let refused = listen(address, &Access::default());
        assert!(
            matches!(refused, Err(ListenError::Address(_))),
            "{address}: {refused:?}"
        );
    }
    let nothing = listen("fd://", &Access::default());
    assert!(matches!(nothing, Err(ListenError::Activation(_))), "{nothing:?}");
}

#[tokio::test]
async fn privileged_row48_a_socket_has_the_owner_and_group_it_is_given() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let access = Access {
        uid: Some(1234),
        gid: Some(4321),
        tls: None,
    };
    let _listening = listen(&format!("unix://{}", path.display()), &access).unwrap();
    let found = std::fs::symlink_metadata(&path).unwrap();
    assert_eq!(
        (found.uid(), found.gid(), found.mode() & 0o777),
        (1234, 4321, 0o660)
    );
}
