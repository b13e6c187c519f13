//! Indexes of images that registries have: `imagetools` and `manifest`, against Debian's `docker-registry`.

use serde_json::{Value, json};

use rbuild_oci::attestation::PREDICATE_TYPE;
use rbuild_oci::{Descriptor, Index, Manifest, Platform, media_type};
use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::machine;
use rbuild_testkit::peer::DockerRegistry;
use rbuild_testkit::registry::{ImageSpec, TestRegistry};

use crate::e2e::fixture::Fixture;

/// An image for each of two platforms, pushed under their names.
fn images(registry: &DockerRegistry) -> (Fixture, [String; 2]) {
    let fixture = Fixture::new("FROM scratch\nARG TARGETARCH\nCOPY a /a\nLABEL arch=$TARGETARCH\n");
    fixture.context.file("a", "a\n");
    let names = ["amd64", "arm64"].map(|arch| {
        let name = format!("{}/parts:{arch}", registry.host());
        let platform = format!("--platform=linux/{arch}");
        fixture.build().args(["-t", &name, "--push", &platform]).ok();
        name
    });
    (fixture, names)
}

fn raw(fixture: &Fixture, name: &str) -> Value {
    let ran = fixture
        .rbuild(["buildx", "imagetools", "inspect", "--raw", name])
        .ok();
    serde_json::from_slice(&ran.stdout).unwrap()
}

fn architectures(index: &Value) -> Vec<&str> {
    let entries = index["manifests"].as_array().unwrap();
    entries
        .iter()
        .map(|entry| entry["platform"]["architecture"].as_str().unwrap())
        .collect()
}

#[test]
fn images_of_several_names_become_one_index() {
    let registry = DockerRegistry::start().unwrap();
    let (fixture, [amd64, arm64]) = images(&registry);
    let whole = format!("{}/whole:1", registry.host());
    let metadata = fixture.home.work().join("meta.json");
    fixture
        .rbuild([
            "imagetools",
            "create",
            "-t",
            &whole,
            "--annotation",
            "index:made=here",
        ])
        .args([
            "--annotation",
            "manifest-descriptor[linux/arm64]:fits=arm",
            "--metadata-file",
        ])
        .arg(&metadata)
        .args([&amd64, &arm64])
        .ok();
    let index = raw(&fixture, &whole);
    assert_eq!(architectures(&index), ["amd64", "arm64"]);
    assert_eq!(index["annotations"]["made"], "here");
    assert_eq!(index["manifests"][0]["annotations"], Value::Null);
    assert_eq!(index["manifests"][1]["annotations"]["fits"], "arm");

    // All it names is in its own repository: others pull it from there.
    let ran = RbuildCommand::new(machine::required("skopeo", "skopeo").unwrap())
        .args(["inspect", "--tls-verify=false", "--override-arch=arm64"])
        .arg(format!("docker://{whole}"))
        .ok();
    let seen: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(seen["Labels"]["arch"], "arm64");
    fixture.rbuild(["pull", "--platform=linux/arm64", &whole]).ok();

    let said: Value = serde_json::from_slice(&std::fs::read(&metadata).unwrap()).unwrap();
    let of = |format: &str| {
        let asked = ["imagetools", "inspect", "--format", format, &whole];
        fixture.rbuild(asked).ok().stdout_text()
    };
    let digest = of("{{.Manifest.Digest}}");
    let manifest: Value = serde_json::from_str(&of("{{json .Manifest}}")).unwrap();
    assert_eq!(manifest["digest"], digest.as_str());
    let image: Value = serde_json::from_str(&of("{{json .Image}}")).unwrap();
    assert_eq!(image["linux/arm64"]["config"]["Labels"]["arch"], "arm64");
    assert_eq!(said["containerimage.descriptor"]["digest"], digest.trim());
    let name = format!("{}/whole", registry.host());
    assert_eq!(said["image.name"], name.as_str());
    let shown = fixture
        .rbuild(["imagetools", "inspect", &whole])
        .ok()
        .stdout_text();
    for part in ["Platform:    linux/arm64", "Digest:    sha256:", "fits: arm"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn an_index_is_added_to_filtered_copied_and_only_shown() {
    let registry = DockerRegistry::start().unwrap();
    let (fixture, [amd64, arm64]) = images(&registry);
    let at = |name: &str| format!("{}/{name}", registry.host());
    let create = |args: &[&str]| {
        fixture
            .rbuild(["imagetools", "create"])
            .args(args.iter().copied())
    };
    create(&["-t", &at("one:1"), &amd64]).ok();
    assert_eq!(architectures(&raw(&fixture, &at("one:1"))), ["amd64"]);
    create(&["--append", "-t", &at("one:1"), &arm64]).ok();
    assert_eq!(architectures(&raw(&fixture, &at("one:1"))), ["amd64", "arm64"]);
    create(&["--platform=linux/arm64", "-t", &at("less:1"), &at("one:1")]).ok();
    assert_eq!(architectures(&raw(&fixture, &at("less:1"))), ["arm64"]);
    create(&["-t", &at("copy:1"), "-t", &at("copy:2"), &at("one:1")]).ok();
    assert_eq!(raw(&fixture, &at("copy:2")), raw(&fixture, &at("one:1")));
    create(&["--prefer-index=false", "-t", &at("plain:1"), &amd64]).ok();
    assert!(raw(&fixture, &at("plain:1"))["config"].is_object());

    let dry = create(&["--dry-run", &amd64, &arm64]).ok();
    let index: Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert_eq!(architectures(&index), ["amd64", "arm64"]);

    for (args, said) in [
        (&["-t", "x"][..], "no sources specified"),
        (&["x"], "no tags specified"),
        (&["-t", "x", "UPPER"], "valid sources are digests"),
        (
            &["-t", "x", "--annotation", "manifest:a=b", "y"],
            "annotation \"manifest:a=b\"",
        ),
        (
            &["-t", &at("x"), "--platform=linux/s390x", &amd64],
            "none of the manifests match the provided platforms: linux/s390x",
        ),
    ] {
        create(args).fails().says(said);
    }
}

#[test]
fn blobs_go_from_one_registry_to_another() {
    let (here, there) = (DockerRegistry::start().unwrap(), DockerRegistry::start().unwrap());
    let (fixture, [amd64, arm64]) = images(&here);
    let target = format!("{}/moved:1", there.host());
    fixture
        .rbuild(["imagetools", "create", "-t", &target, &amd64, &arm64])
        .ok();
    let other = Fixture::new("FROM scratch\n");
    other.rbuild(["pull", "--platform=linux/arm64", &target]).ok();
    let asked = [
        "inspect",
        "--platform=linux/arm64",
        "-f",
        "{{.Config.Labels.arch}}",
        &target,
    ];
    assert_eq!(other.rbuild(asked).ok().stdout_text(), "arm64");
}

#[test]
fn a_manifest_list_is_begun_annotated_shown_and_pushed() {
    let registry = DockerRegistry::start().unwrap();
    let (fixture, [amd64, arm64]) = images(&registry);
    let list = format!("{}/list:1", registry.host());
    let manifest = |args: &[&str]| fixture.rbuild(["manifest"]).args(args.iter().copied());
    manifest(&["push", &list]).fails().says("no such manifest list");
    let created = manifest(&["create", &list, &amd64]).ok();
    assert_eq!(created.stdout_text(), format!("Created manifest list {list}"));
    manifest(&["create", &list, &arm64]).fails().says("--amend");
    manifest(&["create", "--amend", &list, &arm64]).ok();
    manifest(&[
        "annotate",
        "--variant",
        "v8",
        "--os-features",
        "a,b",
        &list,
        &arm64,
    ])
    .ok();
    manifest(&["annotate", "--arch", "x", &list, &list])
        .fails()
        .says("does not exist in");
    manifest(&["annotate", "--os=windows", &list, &arm64])
        .fails()
        .says("unsupported os/arch combination: windows/arm64");
    manifest(&["annotate", "--os=", "--arch=", "--os-features=b,c", &list, &arm64]).ok();
    // What is there already stays as it was annotated.
    manifest(&["create", "--amend", &list, &arm64]).ok();

    let shown = manifest(&["inspect", &list]).ok();
    // As docker 28.2 prints it: three blanks, the size before the digest.
    let begin = "{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"application/vnd.oci.image.index.v1+json\",\n   \"manifests\": [\n      {\n         \"mediaType\": \"application/vnd.oci.image.manifest.v1+json\",\n         \"size\": ";
    assert!(shown.stdout_text().starts_with(begin), "{shown}");
    let kept: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(architectures(&kept), ["amd64", "arm64"]);
    let verbose = manifest(&["inspect", "-v", &list, &arm64]).ok();
    let one: Value = serde_json::from_slice(&verbose.stdout).unwrap();
    assert_eq!(one["Descriptor"]["platform"]["variant"], "v8");
    assert!(one["OCIManifest"]["layers"].is_array());
    let text = verbose.stdout_text();
    assert!(text.starts_with("{\n\t\"Ref\": "), "{text}");
    assert!(text.contains("\n\t\t\"digest\": \"sha256:"), "{text}");

    let told = manifest(&["push", "--purge", &list]).ok().stdout_text();
    let index = raw(&fixture, &list);
    // As docker tells: images that were not in the repository, then the list.
    let repository = list.trim_end_matches(":1");
    let told: Vec<&str> = told.lines().collect();
    let [first, _, pushed] = told.as_slice() else {
        panic!("{told:?}")
    };
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    assert_eq!(
        *first,
        format!("Pushed ref {repository}@{digest} with digest: {digest}")
    );
    assert_eq!(index["manifests"][1]["platform"]["variant"], "v8");
    assert_eq!(
        index["manifests"][1]["platform"]["os.features"],
        json!(["a", "b", "c"])
    );
    let remote = manifest(&["inspect", &list]).ok();
    let remote: Value = serde_json::from_slice(&remote.stdout).unwrap();
    assert_eq!(
        remote, index,
        "the list of this machine is gone, the registry's is shown"
    );
    fixture.rbuild(["pull", &format!("{repository}@{pushed}")]).ok();
    manifest(&["rm", &list]).fails().says("no such manifest list");
    let other = format!("{}/other/list:1", registry.host());
    manifest(&["create", &other, &amd64]).ok();
    manifest(&["rm", "none", &other, "UPPER"])
        .fails()
        .says("no such manifest list: docker.io/library/none")
        .says("must be lowercase");
    manifest(&["inspect", &other, &amd64])
        .fails()
        .says("no such manifest list");
    manifest(&["create", &list, &list])
        .fails()
        .says("cannot use manifest list");
}

/// An index in the registry: an image, and beside it statements about it with their predicate types.
fn attested(registry: &TestRegistry, tag: &str, statements: &[(&str, &str)]) -> String {
    let image = registry.put_image("said", "image", &ImageSpec::default()).root;
    let layers = statements.iter().map(|(predicate_type, text)| {
        registry.put_blob("said", text.as_bytes());
        let mut layer = Descriptor::of(media_type::IN_TOTO, text.as_bytes());
        let said = (PREDICATE_TYPE.to_owned(), (*predicate_type).to_owned());
        layer.annotations.extend([said]);
        layer
    });
    registry.put_blob("said", b"{}");
    let config = Descriptor::of(media_type::OCI_CONFIG, b"{}");
    let manifest = Manifest::new(media_type::OCI_MANIFEST, config, layers.collect());
    let mut entry = registry.put_manifest("said", "a", media_type::OCI_MANIFEST, &manifest.to_bytes());
    entry.attest(&image.digest);
    let mut image = image;
    image.platform = Some(Platform::new("linux", "amd64"));
    let index = Index::new(media_type::OCI_INDEX, vec![image, entry]);
    registry.put_manifest("said", tag, media_type::OCI_INDEX, &index.to_bytes());
    registry.reference(&format!("said:{tag}"))
}

#[test]
fn row45_a_statement_about_an_image_may_be_anything() {
    const SPDX: &str = "https://spdx.dev/Document";
    const SLSA: &str = "https://slsa.dev/provenance/v1";
    let registry = TestRegistry::start();
    let fixture = Fixture::new("FROM scratch\n");
    let asked = |name: &str, format: &str| {
        let words = ["imagetools", "inspect", "--format", format];
        fixture.rbuild(words).arg(name)
    };
    for (tag, text) in [
        ("text", "\"x\""),
        ("number", "7"),
        ("none", ""),
        ("begun", "{\"predicate\":"),
    ] {
        let name = attested(&registry, tag, &[(SLSA, text)]);
        let ran = asked(&name, "{{json .Provenance}}").fails();
        ran.says("attestation sha256:").never_says("panicked");
        asked(&name, "{{.Name}}").ok();
    }
    // The twin: whatever is said of it is shown, all lists of packages one after the other.
    let name = attested(
        &registry,
        "fine",
        &[
            (SPDX, "{\"predicate\":{\"name\":\"one\",\"SPDXID\":\"1\"}}"),
            (SPDX, "{\"predicate\":[2]}"),
            (SLSA, "{\"predicate\":\"free\"}"),
            ("text/else", "\"not asked for\""),
        ],
    );
    let shown = asked(&name, "{{json .SBOM}}{{json .Provenance}}")
        .ok()
        .stdout_text();
    let expected = "{\n  \"SPDX\": {\n    \"SPDXID\": \"1\",\n    \"name\": \"one\"\n  },\n  \"AdditionalSPDXs\": [\n    [\n      2\n    ]\n  ]\n}\
                    {\n  \"SLSA\": \"free\"\n}";
    assert_eq!(shown, expected);
}
