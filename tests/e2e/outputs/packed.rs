//! How often a layer is packed and sent, whatever the number of outputs and caches that hold it.

use std::fs;
use std::path::Path;

use rbuild_testkit::context::noise;
use rbuild_testkit::image::OciLayout;
use rbuild_testkit::registry::TestRegistry;

use crate::e2e::fixture::Fixture;

/// With several outputs and caches at once each layer is packed once, and every blob is in the store once.
#[test]
fn one_layer_is_packed_once_for_all_outputs() {
    let registry = TestRegistry::start();
    let fixture = Fixture::new("FROM scratch AS one\nCOPY a /a\nFROM one\nCOPY b /b\n");
    fixture.context.file("a", noise(3 << 20));
    fixture.context.file("b", noise(2 << 20));
    let work = fixture.home.work();
    let name = registry.reference("app:1");
    fixture
        .build()
        .args(["-t", &name, "--push"])
        .arg(format!(
            "--output=type=oci,dest={}",
            work.join("oci.tar").display()
        ))
        .arg(format!(
            "--output=type=docker,dest={}",
            work.join("docker.tar").display()
        ))
        .arg(format!(
            "--cache-to=type=local,mode=max,dest={}",
            work.join("cache").display()
        ))
        .arg(format!(
            "--cache-to=type=registry,mode=max,ref={}",
            registry.reference("app:cache")
        ))
        .args(["--cache-to=type=inline"])
        .ok();
    let blobs = |root: &Path| large_blobs(root, fs::Metadata::len);
    let stored = blobs(&fixture.home.store());
    assert_eq!(
        stored.len(),
        2,
        "one blob a layer, whatever was written of it: {stored:?}"
    );
    assert_eq!(blobs(&work.join("cache")), stored, "the cache has the same blobs");
    let manifest = registry.manifest("app", "1").unwrap().1;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    for archive in ["oci.tar", "docker.tar"] {
        let layout = OciLayout::open(&work.join(archive)).unwrap().image().unwrap();
        let digests = |manifest: &serde_json::Value| -> Vec<String> {
            let layers = manifest["layers"].as_array().unwrap().iter();
            layers
                .map(|layer| layer["digest"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(digests(&layout.manifest), digests(&manifest), "{archive}");
    }
    let bodies = registry.requests();
    let large = bodies.iter().filter(|request| request.body_len > 1 << 20).count();
    assert_eq!(
        large, 2,
        "the image and the cache are in one repository: each layer was sent once"
    );
}

/// Forms that differ are packed once each, and a build that is repeated sends and packs nothing.
#[test]
fn each_form_of_a_layer_is_packed_once_and_sent_once() {
    let registry = TestRegistry::start();
    let fixture = Fixture::new("FROM scratch AS one\nCOPY a /a\nFROM one\nCOPY b /b\n");
    for name in ["a", "b"] {
        fixture.context.file(name, noise(2 << 20));
    }
    let work = fixture.home.work();
    let build = || {
        let forms = ["gzip", "estargz", "zstd"].into_iter().flat_map(|form| {
            let (image, cache) = (
                registry.reference(&format!("app:{form}")),
                registry.reference(&format!("cache:{form}")),
            );
            [
                format!("--output=type=image,push=true,name={image},compression={form}"),
                format!(
                    "--output=type=oci,compression={form},dest={}",
                    work.join(form).display()
                ),
                format!(
                    "--cache-to=type=registry,mode=max,ref={cache},compression={form},force-compression=true"
                ),
            ]
        });
        fixture.build().args(forms).ok()
    };
    let large = || {
        large_blobs(&fixture.home.store(), |blob| {
            (blob.len(), blob.modified().unwrap())
        })
    };
    let sent = || {
        let requests = registry.requests();
        let large = requests.iter().filter(|request| request.body_len > 1 << 20);
        (large.count(), registry.count("POST", "/blobs/uploads/"))
    };
    build();
    let packed = large();
    assert_eq!(packed.len(), 6, "two layers in three forms: {packed:?}");
    let (bodies, _) = sent();
    assert_eq!(
        bodies, 6,
        "the caches' blobs are mounted from the images' or the other way about"
    );
    registry.clear_requests();
    build();
    assert_eq!(large(), packed, "nothing is packed again");
    assert_eq!(sent(), (0, 0), "nothing is sent that is there");
}

/// The blobs of the layout in `root` that are larger than a document, by name, with what `of` says of each.
fn large_blobs<T: Ord>(root: &Path, of: impl Fn(&fs::Metadata) -> T) -> Vec<(String, T)> {
    let mut large = Vec::new();
    for blob in fs::read_dir(root.join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        let metadata = blob.metadata().unwrap();
        if metadata.len() > 1 << 20 {
            large.push((blob.file_name().into_string().unwrap(), of(&metadata)));
        }
    }
    large.sort();
    large
}
