//! What is left out, without an engine.

use rbuild_oci::DiffId;

use super::*;

#[test]
fn layers_count_as_known_from_the_bottom_only() {
    let layer = |name: &str| Digest::sha256(name.as_bytes());
    let mut config = ImageConfig::default();
    config.rootfs.diff_ids = ["a", "b", "c"].map(|name| DiffId(layer(name))).into();
    let chain = |names: &[&str]| {
        names
            .iter()
            .map(|name| layer(name).to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(common(&config, &[]), 0);
    assert_eq!(common(&config, &[chain(&["b", "c"])]), 0);
    assert_eq!(common(&config, &[chain(&["a"]), chain(&["a", "b", "x"])]), 2);
    assert_eq!(common(&config, &[chain(&["a", "b", "c", "d"])]), 3);
}

#[test]
fn an_engine_says_whether_its_images_are_in_containerd() {
    let on = serde_json::json!({"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]});
    assert!(is_on_containerd(&on));
    for info in [
        serde_json::json!({"DriverStatus": [["Backing Filesystem", "extfs"]]}),
        serde_json::json!({}),
    ] {
        assert!(!is_on_containerd(&info));
    }
}

#[tokio::test]
async fn a_socket_where_nobody_listens_is_named() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("none.sock");
    let docker = Docker {
        socket: Socket::new(path.clone()),
        target: EngineTarget::Socket(path.clone()).to_string(),
    };
    let error = docker.ask("/info").await.unwrap_err();
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert!(matches!(
        error,
        EngineLoadError::Http {
            source: HttpError::Connect { .. },
            ..
        }
    ));
}
