//! A connection that ends after any byte, there or back: what was cut is tried again by itself, and what was not can be
//! repeated.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::{StreamExt as _, stream};
use rbuild_oci::media_type::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use rbuild_oci::{Descriptor, Document, Manifest, Reference};
use rbuild_registry::{
    BlobSource, Client, ClientOptions, Credentials, ErrorClass, PushBlobOptions, RegistryConfig,
    RegistryError,
};
use rbuild_testkit::registry::{ImageSpec, TestRegistry};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::setup::{client, content, options, quiet};

/// Which bytes are counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Way {
    There,
    Back,
}

/// What comes after the cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum After {
    /// Connections as if nothing had been.
    Works,
    /// Connections that end at once.
    Dead,
}

/// A way to a server that ends one connection after so many bytes of all.
pub(super) struct Road {
    pub(super) host: String,
    pub(super) carried: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Road {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Road {
    pub(super) async fn new(to: String, way: Way, limit: usize, after: After) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("bound").to_string();
        let carried = Arc::new(AtomicUsize::new(0));
        let (count, is_cut) = (Arc::clone(&carried), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                if is_cut.load(Ordering::SeqCst) && after == After::Dead {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&to).await else {
                    return;
                };
                let (count, is_cut) = (Arc::clone(&count), Arc::clone(&is_cut));
                connections.spawn(async move {
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let (counted, plain) = match way {
                        Way::There => ((from_client, to_server), (from_server, to_client)),
                        Way::Back => ((from_server, to_client), (from_client, to_server)),
                    };
                    let (uncounted, never) = (AtomicUsize::new(0), AtomicBool::new(false));
                    // Whichever ends first ends both.
                    tokio::select! {
                        () = carry(counted, &count, limit, &is_cut) => {}
                        () = carry(plain, &uncounted, usize::MAX, &never) => {}
                    }
                });
            }
        });
        Self { host, carried, task }
    }
}

type Halves = (tokio::net::tcp::OwnedReadHalf, tokio::net::tcp::OwnedWriteHalf);

async fn carry((mut from, mut to): Halves, count: &AtomicUsize, limit: usize, is_cut: &AtomicBool) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let before = count.fetch_add(read, Ordering::SeqCst);
        let may = if is_cut.load(Ordering::SeqCst) {
            read
        } else {
            read.min(limit.saturating_sub(before))
        };
        if to.write_all(&bytes[..may]).await.is_err() {
            return;
        }
        if may < read {
            is_cut.store(true, Ordering::SeqCst);
            return;
        }
    }
}

/// What is pushed: a blob, and a manifest that names it.
struct Small {
    blob: Descriptor,
    source: Arc<dyn BlobSource>,
    manifest: Vec<u8>,
}

fn small(bytes: usize) -> Small {
    let bytes = content(bytes);
    let blob = Descriptor::of(OCI_LAYER, &bytes);
    let config = Descriptor::of(OCI_CONFIG, b"{}");
    let manifest = Manifest::new(OCI_MANIFEST, config, vec![blob.clone()]);
    Small {
        blob,
        source: Arc::new(bytes),
        manifest: manifest.to_bytes(),
    }
}

async fn push(client: &Client, name: &Reference, image: &Small) -> Result<(), RegistryError> {
    let options = PushBlobOptions::default();
    client
        .push_blob(name, &image.blob, &image.source, &options, &quiet())
        .await?;
    let pushed = client.push_manifest(name, OCI_MANIFEST, &image.manifest).await;
    pushed.map(drop)
}

async fn pull(client: &Client, name: &Reference) -> Result<Vec<u8>, RegistryError> {
    let Document::Manifest(manifest) = client.manifest(name).await?.document else {
        panic!("a manifest was put there");
    };
    client.blob(name, &manifest.layers[0], 1 << 20).await
}

fn named(host: &str, name: &str) -> Reference {
    Reference::parse(&format!("{host}/{name}")).expect("a reference")
}

/// Every number of bytes that a cut can come after, with what happens then.
fn every(total: usize, step: usize) -> impl Iterator<Item = (usize, After)> {
    let cuts = (0..total).step_by(step);
    cuts.flat_map(|at| [(at, After::Works), (at, After::Dead)])
}

/// A client for such a road: where nothing more comes it need not try for long. A new one each time, as ports come again
/// and a client knows a host's scheme after the first contact.
fn over(after: After) -> Client {
    let mut options = options();
    if after == After::Dead {
        options.attempts = 2;
    }
    Client::with_options(RegistryConfig::default(), Credentials::default(), options)
}

/// So many at a time.
const AT_ONCE: usize = 16;

async fn pushes(way: Way) {
    let registry = TestRegistry::start();
    let image = small(150);
    let road = Road::new(registry.host(), way, usize::MAX, After::Works).await;
    push(&client(), &named(&road.host, "whole-00000:1"), &image)
        .await
        .expect("pushed");
    let total = road.carried.load(Ordering::SeqCst);
    assert!(total > 500, "{total} bytes");
    let straight = client();
    let cuts = stream::iter(every(total, 1)).map(|(at, after)| {
        let (registry, image, straight) = (&registry, &image, &straight);
        async move {
            let road = Road::new(registry.host(), way, at, after).await;
            let repository = format!(
                "{}-{at:05}:1",
                if after == After::Works { "again" } else { "inert" }
            );
            let pushed = push(&over(after), &named(&road.host, &repository), image).await;
            let direct = named(&registry.host(), &repository);
            match after {
                After::Works => pushed.unwrap_or_else(|error| panic!("cut {way:?} after {at}: {error}")),
                After::Dead => {
                    // What came back of an answer that is cut may have been enough of it.
                    if let Err(error) = pushed {
                        assert_eq!(error.class(), ErrorClass::Network, "{at}: {error}");
                    } else {
                        assert!(way == Way::Back && at > total - 200, "{way:?} {at} of {total}");
                    }
                    push(straight, &direct, image)
                        .await
                        .unwrap_or_else(|error| panic!("repeated after {at}: {error}"));
                }
            }
            let repository = repository.trim_end_matches(":1");
            let there = registry.manifest(repository, "1");
            assert!(there.is_some_and(|(_, bytes)| bytes == image.manifest), "{at}");
            assert!(registry.blob(repository, &image.blob.digest).is_some(), "{at}");
        }
    });
    assert_eq!(cuts.buffer_unordered(AT_ONCE).count().await, 2 * total);
}

#[tokio::test]
async fn a_push_cut_after_any_byte_that_is_sent_goes_on_or_can_be_repeated() {
    pushes(Way::There).await;
}

#[tokio::test]
async fn a_push_cut_after_any_byte_of_an_answer_goes_on_or_can_be_repeated() {
    pushes(Way::Back).await;
}

async fn pulls(way: Way) {
    let registry = TestRegistry::start();
    let layers = vec![content(150)];
    registry.put_image(
        "a",
        "1",
        &ImageSpec {
            layers,
            ..ImageSpec::default()
        },
    );
    let road = Road::new(registry.host(), way, usize::MAX, After::Works).await;
    let whole = pull(&client(), &named(&road.host, "a:1")).await.expect("pulled");
    let total = road.carried.load(Ordering::SeqCst);
    assert!(total > 500, "{total} bytes");
    let cuts = stream::iter(every(total, 1)).map(|(at, after)| {
        let (registry, whole) = (&registry, &whole);
        async move {
            let road = Road::new(registry.host(), way, at, after).await;
            let pulled = pull(&over(after), &named(&road.host, "a:1")).await;
            match (pulled, after) {
                (Ok(bytes), _) => {
                    assert_eq!(bytes, *whole, "{way:?} {at}");
                    assert!(
                        after == After::Works || at + 1 >= total,
                        "{way:?} {at} of {total}"
                    );
                }
                (Err(error), After::Works) => panic!("cut {way:?} after {at}: {error}"),
                (Err(error), After::Dead) => {
                    assert_eq!(error.class(), ErrorClass::Network, "{at}: {error}");
                }
            }
        }
    });
    assert_eq!(cuts.buffer_unordered(AT_ONCE).count().await, 2 * total);
}

#[tokio::test]
async fn a_pull_cut_after_any_byte_goes_on_or_ends_with_an_error() {
    pulls(Way::There).await;
    pulls(Way::Back).await;
}

/// Blobs in chunks, cut within each of them: header, content, answer.
#[tokio::test]
async fn chunks_cut_anywhere_go_on() {
    let registry = TestRegistry::start();
    let image = small(150_000);
    let small_chunks = ClientOptions {
        resumed_chunk_bytes: 70_000,
        ..options()
    };
    let client = Client::with_options(RegistryConfig::default(), Credentials::default(), small_chunks);
    for way in [Way::There, Way::Back] {
        let chunks = PushBlobOptions {
            chunk_bytes: Some(70_000),
            ..PushBlobOptions::default()
        };
        let (descriptor, source) = (&image.blob, &image.source);
        let road = Road::new(registry.host(), way, usize::MAX, After::Works).await;
        let name = named(&road.host, &format!("whole-{way:?}").to_lowercase());
        client
            .push_blob(&name, descriptor, source, &chunks, &quiet())
            .await
            .expect("pushed");
        let total = road.carried.load(Ordering::SeqCst);
        let step = if way == Way::There { 1511 } else { 7 };
        let cuts = stream::iter((0..total).step_by(step)).map(|at| {
            let (registry, chunks, client) = (&registry, &chunks, &client);
            async move {
                let road = Road::new(registry.host(), way, at, After::Works).await;
                let repository = format!("cut-{way:?}-{at}").to_lowercase();
                let name = named(&road.host, &repository);
                client
                    .push_blob(&name, descriptor, source, chunks, &quiet())
                    .await
                    .unwrap_or_else(|error| panic!("cut {way:?} after {at}: {error}"));
                assert_eq!(
                    registry.blob(&repository, &descriptor.digest),
                    Some(content(150_000))
                );
            }
        });
        cuts.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    }
}
