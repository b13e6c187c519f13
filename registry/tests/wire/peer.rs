//! Debian's `docker-registry`, the reference implementation, as the other side.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rbuild_oci::media_type::{Family, LayerCompression};
use rbuild_oci::{Descriptor, ImageConfig, Manifest, Platform, Reference};
use rbuild_registry::{BlobSource, PushBlobOptions, PushedBlob};
use rbuild_testkit::peer::DockerRegistry;

use super::cut::{After, Road, Way};
use super::setup::{client, content, pull, quiet};

fn start() -> Option<DockerRegistry> {
    started(DockerRegistry::start())
}

/// The peer; nothing when it is not installed and need not be.
pub(super) fn started<E: std::fmt::Display>(peer: Result<DockerRegistry, E>) -> Option<DockerRegistry> {
    match peer {
        Ok(peer) => Some(peer),
        Err(error) if std::env::var_os("RBUILD_REQUIRE_PEERS").is_some_and(|v| v == "1") => {
            panic!("docker-registry cannot be started and RBUILD_REQUIRE_PEERS is 1: {error:#}")
        }
        Err(error) => {
            println!("SKIP: docker-registry cannot be started: {error:#}");
            None
        }
    }
}

#[tokio::test]
async fn what_breaks_on_the_way_to_dockers_registry_goes_on() {
    let Some(peer) = start() else { return };
    let bytes = content(400_000);
    let layer = Descriptor::of(Family::Oci.layer(LayerCompression::None), &bytes);
    let source: Arc<dyn BlobSource> = Arc::new(bytes.clone());
    let chunks = PushBlobOptions {
        chunk_bytes: Some(100_000),
        ..PushBlobOptions::default()
    };
    for at in (1_000..400_000).step_by(30_011) {
        let name = |host: &str| Reference::parse(&format!("{host}/cut/{at}")).expect("a reference");
        let there = Road::new(peer.host(), Way::There, at, After::Works).await;
        client()
            .push_blob(&name(&there.host), &layer, &source, &chunks, &quiet())
            .await
            .unwrap_or_else(|error| panic!("cut after {at}: {error}"));
        // This registry gives an upload up whose chunk broke (its state names an offset that the data has passed): begun
        // anew, at most once.
        let sent = there.carried.load(Ordering::SeqCst);
        assert!(sent < at + 400_000 + 110_000, "{at}: {sent} bytes");
        let back = Road::new(peer.host(), Way::Back, at, After::Works).await;
        let mut got = Vec::new();
        client()
            .fetch_blob_to(&name(&back.host), &layer, &mut got, &quiet())
            .await
            .unwrap_or_else(|error| panic!("cut after {at}: {error}"));
        assert_eq!(got, bytes);
        let came = back.carried.load(Ordering::SeqCst);
        assert!(came < 400_000 + 20_000, "{at}: nothing came twice, {came} bytes");
    }
}

#[tokio::test]
async fn an_image_goes_to_dockers_registry_and_back() {
    let Some(peer) = start() else { return };
    let client = client();
    for (family, chunk_bytes) in [(Family::Oci, None), (Family::Docker, Some(100_000))] {
        let name = format!("{}/t/{family:?}:1", peer.host()).to_lowercase();
        let reference = Reference::parse(&name).expect("a reference");
        let bytes = content(350_000);
        let layer = Descriptor::of(family.layer(LayerCompression::None), &bytes);
        let mut config = ImageConfig::default();
        config.set_platform(&Platform::host());
        config
            .rootfs
            .diff_ids
            .push(rbuild_oci::DiffId(layer.digest.clone()));
        let config_bytes = config.to_bytes();
        let config_descriptor = Descriptor::of(family.config(), &config_bytes);
        for (descriptor, bytes) in [(&layer, bytes.clone()), (&config_descriptor, config_bytes)] {
            let source: Arc<dyn BlobSource> = Arc::new(bytes);
            let options = PushBlobOptions {
                mount_from: None,
                chunk_bytes,
            };
            let pushed = client
                .push_blob(&reference, descriptor, &source, &options, &quiet())
                .await
                .expect("pushed");
            assert_eq!(pushed, PushedBlob::Uploaded);
            let again = client
                .push_blob(&reference, descriptor, &source, &options, &quiet())
                .await
                .expect("known");
            assert_eq!(again, PushedBlob::Existed);
        }
        let manifest = Manifest::new(family.manifest(), config_descriptor, vec![layer.clone()]);
        let pushed = client
            .push_manifest(&reference, family.manifest(), &manifest.to_bytes())
            .await
            .expect("pushed");
        let resolved = client.resolve(&reference).await.expect("resolved");
        assert_eq!(resolved.descriptor, pushed);
        assert_eq!(pull(&client, &reference).await, (manifest, config));
        assert_eq!(
            client.blob(&reference, &layer, 1 << 20).await.expect("pulled"),
            bytes
        );
        let mounted = Reference::parse(&format!("{}/mounted/{family:?}", peer.host()).to_lowercase())
            .expect("a reference");
        let source: Arc<dyn BlobSource> = Arc::new(bytes);
        let options = PushBlobOptions {
            mount_from: Some(reference.path().to_owned()),
            chunk_bytes: None,
        };
        let pushed = client
            .push_blob(&mounted, &layer, &source, &options, &quiet())
            .await
            .expect("mounted");
        assert_eq!(pushed, PushedBlob::Mounted);
    }
}
