//! `--iidfile` and `--metadata-file`: the ids that the destination answers to, whichever it is.

use std::fs;
use std::path::PathBuf;

use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::image::OciLayout;
use rbuild_testkit::machine;
use rbuild_testkit::peer::DockerRegistry;
use serde_json::Value;

use crate::e2e::fixture::Fixture;

const CONFIG: &str = "containerimage.config.digest";
const DIGEST: &str = "containerimage.digest";

/// A build and what it wrote of its ids.
struct Site {
    fixture: Fixture,
    iid: PathBuf,
    metadata: PathBuf,
}

impl Site {
    fn new() -> Self {
        let fixture = Fixture::new("FROM scratch\nARG TARGETARCH\nCOPY a /$TARGETARCH\nLABEL a=b\n");
        fixture.context.file("a", "a\n");
        let (iid, metadata) = (
            fixture.home.work().join("iid"),
            fixture.home.work().join("metadata.json"),
        );
        Self {
            fixture,
            iid,
            metadata,
        }
    }

    /// What `--iidfile` and `--metadata-file` have after a build with `args`.
    #[track_caller]
    fn build(&self, args: &[&str]) -> (String, Value) {
        self.fixture
            .build()
            .args(args)
            .arg("--iidfile")
            .arg(&self.iid)
            .arg("--metadata-file")
            .arg(&self.metadata)
            .ok();
        let metadata = fs::read(&self.metadata).unwrap();
        (
            fs::read_to_string(&self.iid).unwrap(),
            serde_json::from_slice(&metadata).unwrap(),
        )
    }
}

/// The manifest or index that a registry has under `name`, and its digest there.
#[track_caller]
fn in_registry(name: &str) -> (String, Value) {
    let inspect = || {
        let skopeo = machine::required("skopeo", "skopeo").expect("a tool of the tests");
        RbuildCommand::new(skopeo).args(["inspect", "--tls-verify=false"])
    };
    let at = format!("docker://{name}");
    let raw = inspect().args(["--raw", &at]).ok().stdout;
    let digest = inspect().args(["--format={{.Digest}}", &at]).ok().stdout_text();
    (digest, serde_json::from_slice(&raw).expect("a manifest"))
}

#[test]
fn a_registry_answers_to_the_digest_of_the_metadata() {
    let registry = DockerRegistry::start().unwrap();
    let site = Site::new();
    let host = registry.host();
    let name = format!("{host}/app:1");
    let (iid, metadata) = site.build(&["--push", "-t", &name]);
    let (digest, manifest) = in_registry(&name);
    assert_eq!(metadata[DIGEST], *digest);
    assert_eq!(metadata[CONFIG], manifest["config"]["digest"]);
    assert_eq!(metadata["containerimage.descriptor"]["digest"], *digest);
    assert_eq!(metadata["image.name"], *name);
    assert_eq!(metadata[CONFIG], *iid, "docker's id of an image is its config");
    // By that digest alone it is there, too.
    let by_digest = format!("{host}/app@{digest}");
    site.fixture.rbuild(["imagetools", "inspect", &by_digest]).ok();

    // Several platforms have no config of their own: the index is the image.
    let name = format!("{host}/app:2");
    let platforms = "--platform=linux/amd64,linux/arm64";
    let (iid, metadata) = site.build(&["--push", "-t", &name, platforms]);
    let (_, index) = in_registry(&name);
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2));
    assert_eq!(metadata[DIGEST], *iid);
    assert_eq!(metadata[CONFIG], Value::Null);
    site.fixture
        .rbuild(["imagetools", "inspect", &format!("{host}/app@{iid}")])
        .ok();

    // Without a tag it is there by the digest only.
    let output = format!("--output=type=image,push=true,push-by-digest=true,name={host}/by-digest");
    let (_, metadata) = site.build(&[&output, "--label=c=d"]);
    let by_digest = format!("{host}/by-digest@{}", metadata[DIGEST].as_str().unwrap());
    site.fixture.rbuild(["imagetools", "inspect", &by_digest]).ok();
    site.fixture
        .rbuild(["imagetools", "inspect", &format!("{host}/by-digest:latest")])
        .fails();
}

#[test]
fn a_layout_has_the_descriptor_of_the_metadata() {
    let site = Site::new();
    for (at, platforms) in ["linux/amd64", "linux/amd64,linux/arm64"].into_iter().enumerate() {
        for tar in [true, false] {
            let dest = site.fixture.home.work().join(format!("{at}-{tar}"));
            let output = format!("--output=type=oci,tar={tar},dest={}", dest.display());
            let (iid, metadata) = site.build(&[&output, &format!("--platform={platforms}")]);
            let layout = OciLayout::open(&dest).unwrap();
            let index: Value =
                serde_json::from_slice(&fs::read(layout.dir().join("index.json")).unwrap()).unwrap();
            let entry = &index["manifests"][0];
            let described = &metadata["containerimage.descriptor"];
            for field in ["digest", "size", "mediaType"] {
                assert_eq!(described[field], entry[field], "{output}");
            }
            assert_eq!(metadata[DIGEST], entry["digest"]);
            let blob = |digest: &str| layout.dir().join("blobs/sha256").join(&digest["sha256:".len()..]);
            assert!(blob(&iid).exists(), "{output}: {iid}");
        }
    }
}

/// The last output is the one that is told of, and nothing of another is told with it.
#[test]
fn of_several_outputs_the_last_one_is_told() {
    let site = Site::new();
    let work = site.fixture.home.work();
    let dests = ["gzip", "zstd"].map(|name| work.join(name));
    let outputs = ["gzip", "zstd"].map(|name| {
        format!(
            "--output=type=oci,compression={name},dest={}",
            work.join(name).display()
        )
    });
    let (iid, metadata) = site.build(&[&outputs[0], &outputs[1]]);
    let digests = dests.map(|dest| OciLayout::open(&dest).unwrap().image().unwrap().manifest_digest);
    assert_ne!(digests[0], digests[1]);
    assert_eq!(metadata[DIGEST], *digests[1]);
    assert_eq!(metadata[CONFIG], *iid);
    // An archive without the attestation that images have: then an index is the last, and it has no config.
    let image = "--output=type=image,name=example.invalid/app:1";
    let (iid, metadata) = site.build(&[&outputs[0], image, "--provenance=mode=min,inline-only=true"]);
    let media_type = &metadata["containerimage.descriptor"]["mediaType"];
    assert_eq!(media_type, "application/vnd.oci.image.index.v1+json");
    assert_eq!(metadata[DIGEST], *iid);
    assert_eq!(metadata[CONFIG], Value::Null, "the archive's is no part of it");
}
