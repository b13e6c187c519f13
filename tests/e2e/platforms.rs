//! Several platforms in one build: one index, one directory for each, and what cannot hold more than one.

use serde_json::Value;

use crate::e2e::fixture::Fixture;

const PLATFORMS: &str = "--platform=linux/amd64,linux/arm64";

fn fixture() -> Fixture {
    let fixture = Fixture::new("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /what\n");
    fixture
        .context
        .file("amd64", "of amd64\n")
        .file("arm64", "of arm64\n");
    fixture
}

/// A JSON document of an archive.
fn document(archive: &std::path::Path, name: &str) -> Value {
    let mut archive = tar::Archive::new(std::fs::File::open(archive).unwrap());
    let entry = archive
        .entries()
        .unwrap()
        .map(Result::unwrap)
        .find(|entry| entry.path().unwrap().as_os_str() == name)
        .unwrap();
    serde_json::from_reader(entry).unwrap()
}

fn blob(digest: &Value) -> String {
    format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"))
}

#[test]
fn an_archive_of_two_platforms_is_an_index_that_others_read() {
    let fixture = fixture();
    let archive = fixture.archive();
    let to = format!("--output=type=oci,dest={}", archive.display());
    fixture.build().args([PLATFORMS, &to]).ok();
    let top = &document(&archive, "index.json")["manifests"][0];
    assert_eq!(top["mediaType"], "application/vnd.oci.image.index.v1+json");
    let index = document(&archive, &blob(&top["digest"]));
    for (entry, architecture) in index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .zip(["amd64", "arm64"])
    {
        assert_eq!(entry["platform"]["architecture"], architecture);
        let manifest = document(&archive, &blob(&entry["digest"]));
        let config = document(&archive, &blob(&manifest["config"]["digest"]));
        assert_eq!(config["architecture"], architecture);
    }
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
}

#[test]
fn a_build_argument_wants_an_index_of_one_image_or_none_of_several() {
    let fixture = fixture();
    let archive = fixture.archive();
    let to = format!("--output=type=oci,dest={}", archive.display());
    let kind = |argument: &str| {
        fixture
            .build()
            .args([&format!("--build-arg={argument}"), &to])
            .ok();
        document(&archive, "index.json")["manifests"][0]["mediaType"].clone()
    };
    assert_eq!(
        kind("BUILDKIT_MULTI_PLATFORM=1"),
        "application/vnd.oci.image.index.v1+json"
    );
    for argument in [
        "BUILDKIT_MULTI_PLATFORM=0",
        "BUILDKIT_MULTI_PLATFORM=",
        "BUILDKIT_DISABLE_FILEOP=0",
    ] {
        assert_eq!(
            kind(argument),
            "application/vnd.oci.image.manifest.v1+json",
            "{argument}"
        );
    }
    for (arguments, words) in [
        (
            vec!["--build-arg=BUILDKIT_MULTI_PLATFORM=x"],
            "invalid boolean value for multi-platform: x",
        ),
        (
            vec!["--build-arg=BUILDKIT_MULTI_PLATFORM=false", PLATFORMS],
            "conflicting config: returning multiple target platforms is not allowed",
        ),
        (
            vec!["--build-arg=BUILDKIT_DISABLE_FILEOP=true"],
            "support for \"BUILDKIT_DISABLE_FILEOP\" build-arg was removed in BuildKit 0.11",
        ),
    ] {
        fixture.build().args(arguments).arg(&to).fails().says(words);
    }
}

#[test]
fn a_directory_of_two_platforms_has_one_for_each() {
    let fixture = fixture();
    let out = fixture.home.work().join("out");
    let to = format!("--output=type=local,dest={}", out.display());
    fixture.build().args([PLATFORMS, &to]).ok();
    for architecture in ["amd64", "arm64"] {
        let text = std::fs::read_to_string(out.join(format!("linux_{architecture}/what"))).unwrap();
        assert_eq!(text, format!("of {architecture}\n"));
    }
    // One alone needs no directory of its own.
    let single = fixture.home.work().join("single");
    let to = format!("--output=type=local,dest={}", single.display());
    fixture.build().args(["--platform=linux/arm64", &to]).ok();
    assert_eq!(
        std::fs::read_to_string(single.join("what")).unwrap(),
        "of arm64\n"
    );
}

#[test]
fn platforms_are_split_as_asked() {
    let fixture = fixture();
    let place = |name: &str| fixture.home.work().join(name);
    let to = |name: &str, split: &str| {
        format!(
            "--output=type=local,dest={},platform-split={split}",
            place(name).display()
        )
    };
    let one = ["--platform=linux/arm64", &to("split", "true")];
    fixture.build().args(one).ok();
    let text = std::fs::read_to_string(place("split/linux_arm64/what")).unwrap();
    assert_eq!(text, "of arm64\n");
    // Together they are one directory, which no two of them may want the same of.
    let both = [PLATFORMS, &to("joined", "false")];
    let ran = fixture.build().args(both).fails();
    assert!(
        ran.stderr.contains("cannot overwrite what from linux/a")
            && ran.stderr.contains("split option is disabled"),
        "{ran}"
    );
    let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /$TARGETARCH\n";
    fixture.context.dockerfile(dockerfile);
    fixture.build().args(both).ok();
    for architecture in ["amd64", "arm64"] {
        let text = std::fs::read_to_string(place("joined").join(architecture)).unwrap();
        assert_eq!(text, format!("of {architecture}\n"));
    }
}

#[test]
fn annotations_are_where_they_were_asked_for() {
    let fixture = fixture();
    let archive = fixture.archive();
    let to = format!(
        "--output=type=oci,dest={},annotation-manifest[linux/amd64].of=output",
        archive.display()
    );
    fixture
        .build()
        .args([PLATFORMS, &to])
        .args([
            "--annotation=all=every manifest",
            "--annotation=manifest[linux/arm64]:only=arm",
        ])
        .args(["--annotation=index:i=1", "--annotation=index-descriptor:j=2"])
        .arg("--annotation=manifest-descriptor:k=3")
        .ok();
    let top = &document(&archive, "index.json")["manifests"][0];
    assert_eq!(top["annotations"]["j"], "2");
    let index = document(&archive, &blob(&top["digest"]));
    assert_eq!(index["annotations"], serde_json::json!({"i": "1"}));
    let manifests = index["manifests"].as_array().unwrap();
    for (entry, expected) in manifests.iter().zip([
        serde_json::json!({"all": "every manifest", "of": "output"}),
        serde_json::json!({"all": "every manifest", "only": "arm"}),
    ]) {
        assert_eq!(entry["annotations"], serde_json::json!({"k": "3"}));
        assert_eq!(
            document(&archive, &blob(&entry["digest"]))["annotations"],
            expected
        );
    }
    // What would be on nothing is refused, and nothing is written.
    for (platform, annotation, said) in [
        ("linux/amd64", "index:a=b", "index annotations not supported"),
        (
            "linux/amd64,linux/arm64",
            "manifest[linux/s390x]:a=b",
            "no platform linux/s390x",
        ),
        ("linux/amd64", "manifest[what]:a=b", "invalid platform"),
    ] {
        let build = fixture.build().arg(format!("--platform={platform}"));
        build
            .args([&format!("--annotation={annotation}"), &to])
            .fails()
            .says(said);
    }
    // Of one image BuildKit looks for none by its platform, and what is of another is put on nothing.
    fixture
        .build()
        .args(["--annotation=manifest[linux/s390x]:a=b", &to])
        .ok();
    let only = &document(&archive, "index.json")["manifests"][0];
    let manifest = document(&archive, &blob(&only["digest"]));
    assert!(manifest["annotations"].get("a").is_none(), "{manifest}");
    assert!(manifest["config"].is_object(), "{manifest}");
}
