//! `--provenance`, `--sbom` and `--attest`: what is said of an image stands beside it, and only when it is asked for.

use std::path::Path;

use rbuild_testkit::image::OciLayout;
use rbuild_testkit::peer::DockerRegistry;
use serde_json::Value;

use crate::e2e::fixture::{Fixture, is_root};

fn document(layout: &OciLayout, digest: &Value) -> Value {
    let path = layout.blob(digest.as_str().unwrap()).unwrap();
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The statements in an archive, and the digest of the image they are about.
fn statements(archive: &Path) -> (Vec<Value>, String) {
    let layout = OciLayout::open(archive).unwrap();
    let top = layout.index().unwrap()["manifests"][0]["digest"].clone();
    let index = document(&layout, &top);
    let manifests = index["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 2, "an image and what is said of it: {index}");
    let manifest = document(&layout, &manifests[1]["digest"]);
    let layers = manifest["layers"].as_array().unwrap();
    let statements = layers.iter().map(|layer| document(&layout, &layer["digest"]));
    let image = manifests[0]["digest"].as_str().unwrap().to_owned();
    (statements.collect(), image)
}

#[test]
fn provenance_says_what_was_asked_for_and_of_what_it_was_made() {
    let fixture = Fixture::new("FROM busybox\nARG WHO\nCOPY a /b\nRUN echo $WHO > /c\n");
    fixture.context.file("a", "text");
    let archive = fixture.archive();
    let to = format!(
        "--output=type=oci,name=example.invalid/app:1,dest={}",
        archive.display()
    );
    fixture
        .build()
        .args(["--provenance=mode=max", "--build-arg=WHO=me", &to])
        .ok();
    let (statements, image) = statements(&archive);
    let [statement] = statements.as_slice() else {
        panic!("one statement, not {statements:?}");
    };
    let subject = &statement["subject"][0];
    assert!(
        subject["name"]
            .as_str()
            .unwrap()
            .starts_with("pkg:docker/example.invalid/app@1?platform=")
    );
    assert!(image.ends_with(subject["digest"]["sha256"].as_str().unwrap()));
    let definition = &statement["predicate"]["buildDefinition"];
    let request = &definition["externalParameters"]["request"];
    assert_eq!(request["frontend"], "dockerfile.v0");
    assert_eq!(request["args"]["build-arg:WHO"], "me");
    let materials = definition["resolvedDependencies"].as_array().unwrap();
    assert_eq!(materials.len(), 1, "{materials:?}");
    assert!(
        materials[0]["uri"]
            .as_str()
            .unwrap()
            .starts_with("pkg:oci/busybox")
    );
    assert!(materials[0]["digest"]["sha256"].is_string());
    let steps = &definition["internalParameters"]["buildConfig"]["llbDefinition"];
    assert!(steps.as_array().unwrap().len() >= 4, "{steps}");
    let metadata = &statement["predicate"]["runDetails"]["metadata"]["buildkit_metadata"];
    assert_eq!(metadata["source"]["infos"][0]["filename"], "Dockerfile");
    assert!(metadata["layers"]["step0:0"].is_array());
    assert!(metadata.get("sysUsage").is_none(), "nobody asked");
    // No place of this machine is told.
    let home = fixture.home.work().display().to_string();
    assert!(!statement.to_string().contains(&home));
}

#[test]
fn the_least_provenance_has_no_arguments_and_a_directory_gets_it_as_a_file() {
    let fixture = Fixture::new("FROM scratch\nARG WHO\nCOPY a /b\n");
    fixture.context.file("a", "text");
    let out = fixture.home.work().join("out");
    let to = format!("--output=type=local,dest={}", out.display());
    let flags = [
        "--attest=type=provenance,mode=min,version=v0.2",
        "--build-arg=WHO=me",
        &to,
    ];
    fixture.build().args(flags).ok();
    assert_eq!(std::fs::read_to_string(out.join("b")).unwrap(), "text");
    let text = std::fs::read(out.join("provenance.json")).unwrap();
    let statement: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v0.2");
    assert_eq!(statement["subject"][0]["name"], "b");
    let predicate = &statement["predicate"];
    assert_eq!(predicate["metadata"]["completeness"]["parameters"], false);
    assert!(
        predicate["invocation"]["parameters"]
            .get("args")
            .is_none_or(|args| args.get("build-arg:WHO").is_none())
    );
    assert!(predicate.get("buildConfig").is_none());
}

#[test]
fn provenance_tells_how_busy_the_machine_was_when_it_is_asked() {
    let fixture = Fixture::new("FROM scratch\nCOPY a /b\n");
    fixture.context.file("a", "text");
    let archive = fixture.archive();
    let to = format!("--output=type=oci,dest={}", archive.display());
    let flags = ["--attest=type=provenance,mode=min,capture-usage=true", &to];
    fixture.build().args(flags).ok();
    let (statements, _) = statements(&archive);
    let metadata = &statements[0]["predicate"]["runDetails"]["metadata"]["buildkit_metadata"];
    let samples = metadata["sysUsage"].as_array().expect("samples");
    let last = samples.last().expect("the one at the end");
    assert!(last["timestamp"].is_string(), "{last}");
    assert!(last["cpuStat"]["user"].is_number() && last["procStat"]["processesRunning"].is_u64());
    assert!(last["memoryStat"]["total"].as_u64().is_some_and(|kib| kib > 0));
}

/// The arguments of a build that ask for attestations, given and taken from the environment; undeclared they are no variables.
#[test]
fn arguments_of_the_build_ask_for_attestations() {
    let fixture = Fixture::new("FROM busybox\nCOPY a /b\nRUN env > /seen\n");
    fixture.context.file("a", "text");
    let to = format!("--output=type=oci,dest={}", fixture.archive().display());
    let name = "BUILDKIT_ATTEST_PROVENANCE";
    let given = [format!("--build-arg={name}=mode=max"), to.clone()];
    fixture.build().args(given).ok();
    let (said, _) = statements(&fixture.archive());
    let args = |said: &[Value]| {
        let definition = &said[0]["predicate"]["buildDefinition"];
        definition["externalParameters"]["request"]["args"].clone()
    };
    assert_eq!(args(&said)[format!("build-arg:{name}")], "mode=max");
    let flags = [format!("--build-arg={name}"), to.clone()];
    fixture.build().args(&flags).env(name, "mode=min").ok();
    let (said, _) = statements(&fixture.archive());
    assert_eq!(said.len(), 1);
    let told = args(&said);
    assert!(
        told.get(format!("build-arg:{name}")).is_none(),
        "the least has no arguments: {told}"
    );
    fixture.build().args(&flags).ok();
    let layout = OciLayout::open(&fixture.archive()).unwrap();
    let manifests = layout.index().unwrap()["manifests"].clone();
    assert_eq!(
        manifests[0]["mediaType"], "application/vnd.oci.image.manifest.v1+json",
        "a variable that is not set asks for nothing"
    );
    fixture
        .build()
        .args([format!("--build-arg={name}=version=v9"), to])
        .fails()
        .says("invalid provenance SLSA version: v9");
}

#[test]
fn privileged_a_scanner_lists_packages() {
    if !is_root("the scanner's step") {
        return;
    }
    let scan = r#"FROM busybox
COPY <<EOF /scan.sh
test -f \$BUILDKIT_SCAN_SOURCE/found || exit 7
echo '{"predicateType":"https://spdx.dev/Document","predicate":{"spdxVersion":"SPDX-2.3","files":[{"fileName":"/found"}]}}' > \$BUILDKIT_SCAN_DESTINATION/sbom.spdx.json
EOF
CMD ["sh", "/scan.sh"]
"#;
    let fixture = Fixture::new(scan);
    fixture.build().args(["-t", "scanner:1"]).ok();
    fixture.context.dockerfile("FROM scratch\nCOPY found /found\n");
    fixture.context.file("found", "x");
    let archive = fixture.archive();
    let to = format!("--output=type=oci,dest={}", archive.display());
    let flags = ["--sbom=generator=scanner:1", "--provenance=mode=min", &to];
    fixture.build().args(flags).ok();
    let (statements, _) = statements(&archive);
    assert_eq!(statements.len(), 2);
    assert_eq!(statements[0]["predicateType"], "https://spdx.dev/Document");
    let file = &statements[0]["predicate"]["files"][0];
    assert!(
        file["comment"].as_str().unwrap().starts_with("layerID: sha256:"),
        "{file}"
    );
    assert_eq!(statements[1]["predicateType"], "https://slsa.dev/provenance/v1");
}

#[test]
fn an_archive_for_old_engines_has_no_room_for_it() {
    let fixture = Fixture::new("FROM scratch\nLABEL a=b\n");
    let to = format!("--output=type=docker,dest={}", fixture.archive().display());
    fixture
        .build()
        .args(["--provenance", "true", &to])
        .fails()
        .says("docker exporter does not support exporting manifest lists");
    fixture.build().args(["--provenance=false", &to]).ok();
}

/// Debian's registry has no list of referrers: the tag that stands in for it is kept and read.
#[test]
fn attestations_that_are_artifacts_are_listed_as_referrers() {
    let registry = DockerRegistry::start().unwrap();
    let fixture = Fixture::new("FROM scratch\nCOPY a /a\n");
    fixture.context.file("a", "a\n");
    let image = format!("{}/app:1", registry.host());
    let to = format!("--output=type=registry,name={image},oci-artifact=true");
    fixture.build().args(["--provenance=true", &to]).ok();
    let raw = fixture.rbuild(["imagetools", "inspect", "--raw", &image]).ok();
    let index: Value = serde_json::from_slice(&raw.stdout).unwrap();
    let digest = |at: usize| index["manifests"][at]["digest"].as_str().unwrap().to_owned();
    let subject = format!("{}/app@{}", registry.host(), digest(0));
    let list = |name: &str| {
        let ran = fixture.rbuild(["imagetools", "inspect", "--referrers", name]);
        ran.ok().stdout_text()
    };
    let listed = list(&subject);
    assert!(
        listed.contains(&digest(1)) && listed.contains("application/vnd.docker.attestation.manifest.v1+json"),
        "{listed}"
    );
    assert!(!list(&image).contains("sha256:"), "nothing refers to the index");
}
