//! What is printed: plain progress in BuildKit's form, quiet, and the forms of input by standard input.

use rbuild_testkit::image::OciLayout;

use crate::e2e::fixture::{Fixture, busybox_argument};

#[test]
fn plain_progress_has_the_form_of_buildkit() {
    let fixture = Fixture::new(
        "FROM busybox AS build\nCOPY Dockerfile /d\nRUN echo to-stdout; echo to-stderr >&2\nFROM busybox\nCOPY --from=build /d /d\n",
    );
    let ran = fixture.build().ok();
    assert!(ran.stdout.is_empty(), "progress belongs on standard error\n{ran}");
    for line in [
        "[build 1/3] COPY Dockerfile /d",
        "[build 2/3] RUN echo to-stdout; echo to-stderr >&2",
        "COPY --from=build /d /d",
    ] {
        assert!(
            ran.stderr.lines().any(|l| l.starts_with('#') && l.contains(line)),
            "no vertex {line}\n{ran}"
        );
    }
    let number = ran
        .stderr
        .lines()
        .find(|line| line.contains("RUN echo to-stdout"))
        .and_then(|line| line.split(' ').next())
        .expect("the step has a number")
        .to_owned();
    let of_step: Vec<&str> = ran
        .stderr
        .lines()
        .filter(|l| l.starts_with(&format!("{number} ")))
        .collect();
    for output in ["to-stdout", "to-stderr"] {
        // `#5 0.123 text`
        let found = of_step.iter().any(|line| {
            let mut words = line.splitn(3, ' ').skip(1);
            words.next().is_some_and(|time| time.parse::<f64>().is_ok()) && words.next() == Some(output)
        });
        assert!(found, "no line of output {output}\n{ran}");
    }
    assert!(
        of_step
            .iter()
            .any(|line| line.contains("DONE ") && line.ends_with('s')),
        "{ran}"
    );
    assert!(
        !ran.stderr.contains('\u{1b}'),
        "escape codes in plain mode\n{ran}"
    );
}

#[test]
fn a_failed_step_ends_with_its_excerpt() {
    let fixture = Fixture::new("FROM busybox\nRUN echo why && false\n");
    let ran = fixture.build().fails();
    for part in [
        "ERROR",
        "------",
        "> [1/2] RUN echo why && false",
        ">>> RUN echo why && false",
    ] {
        assert!(ran.stderr.contains(part), "lacks {part:?}\n{ran}");
    }
}

#[test]
fn a_step_cannot_write_escape_codes_to_the_terminal() {
    let fixture = Fixture::new("FROM busybox\nRUN printf '\\033]0;title\\007\\033[2Jvisible\\n'\n");
    let ran = fixture.build().ok();
    assert!(!ran.stderr.contains("\u{1b}]0;"), "{ran}");
    assert!(ran.stderr.contains("visible"), "{ran}");
}

#[test]
fn rules_of_our_own_speak_when_asked_and_in_the_shape_of_buildkits() {
    let fixture = Fixture::new("FROM busybox\nMAINTAINER me\nENV PGPASSWORD=hunter2\n");
    let asked = |args: &[&str]| {
        let json = fixture
            .build()
            .args(["--call=check,format=json,ignorestatus=true"])
            .args(args);
        let found: serde_json::Value = serde_json::from_slice(&json.ok().stdout).expect("JSON");
        let list = found["warnings"].as_array().expect("warnings").clone();
        let names: Vec<String> = list
            .iter()
            .map(|warning| warning["ruleName"].as_str().unwrap_or_default().to_owned())
            .collect();
        let members: Vec<Vec<String>> = list
            .iter()
            .map(|warning| warning.as_object().unwrap().keys().cloned().collect())
            .collect();
        (names, members)
    };
    assert_eq!(asked(&[]).0, ["MaintainerDeprecated"]);
    let (names, members) = asked(&["--advice"]);
    assert_eq!(names, ["MaintainerDeprecated", "SecretInValue"]);
    assert_eq!(members[0], members[1]);
    let outside = "--build-arg=BUILDKIT_DOCKERFILE_CHECK=experimental=rbuild";
    assert_eq!(asked(&[outside]).0, ["MaintainerDeprecated", "SecretInValue"]);
    let ran = fixture.build().arg("--advice").ok();
    assert!(ran.stderr.contains("SecretInValue: ENV PGPASSWORD"), "{ran}");
    assert!(!fixture.build().ok().stderr.contains("SecretInValue"));
}

/// `sources[].definition` of an answer: what the text was loaded with, as BuildKit's definition (`solver/pb`).
#[test]
fn a_check_tells_the_operations_that_load_its_text() {
    use base64::Engine as _;
    use bollard_buildkit_proto::pb::{Op, op};
    use prost::Message as _;
    let fixture = Fixture::new("FROM scratch AS Upper\n");
    let asked = fixture.build().arg("--call=check,format=json,ignorestatus=true");
    let found: serde_json::Value = serde_json::from_slice(&asked.ok().stdout).expect("JSON");
    let definition = &found["sources"][0]["definition"];
    let engine = base64::engine::general_purpose::STANDARD;
    let ops: Vec<Vec<u8>> = definition["def"]
        .as_array()
        .expect("operations")
        .iter()
        .map(|op| engine.decode(op.as_str().expect("text")).expect("base64"))
        .collect();
    let [source, end] = ops.as_slice() else {
        panic!("two operations: {definition}")
    };
    let digest = rbuild_oci::Digest::sha256(source).to_string();
    let Some(op::Op::Source(loaded)) = Op::decode(&source[..]).expect("an operation").op else {
        panic!("a source: {definition}")
    };
    assert_eq!(loaded.identifier, "local://dockerfile");
    assert_eq!(
        loaded.attrs["local.followpaths"],
        r#"["Dockerfile","Dockerfile.dockerignore","dockerfile"]"#
    );
    assert_eq!(loaded.attrs["local.sharedkeyhint"], "dockerfile");
    let end = Op::decode(&end[..]).expect("an operation");
    assert!(end.op.is_none());
    assert_eq!(end.inputs.len(), 1);
    assert_eq!(
        (end.inputs[0].digest.as_str(), end.inputs[0].index),
        (digest.as_str(), 0)
    );
    let said = &definition["metadata"][&digest];
    assert_eq!(
        said["description"]["llb.customname"],
        "[internal] load build definition from Dockerfile"
    );
    assert_eq!(said["caps"]["source.local.followpaths"], true);
    assert!(
        definition["Source"]["locations"][&digest].is_object(),
        "{definition}"
    );
}

/// BuildKit cuts a step's log at 2 MiB; users lose the line that says why (moby/buildkit#1754, docker/buildx#484).
#[test]
fn a_flood_of_output_is_shown_whole() {
    const LINES: usize = 500_000;
    let fixture = Fixture::new(&format!(
        "FROM busybox\nRUN yes a-line | head -n {LINES}; echo the last word\n"
    ));
    let ran = fixture.build().ok();
    let lines = ran
        .stderr
        .lines()
        .filter(|line| line.ends_with(" a-line"))
        .count();
    assert_eq!(lines, LINES);
    assert!(ran.stderr.contains("the last word"));
}

#[test]
fn the_dockerfile_may_come_from_standard_input() {
    let fixture = Fixture::new("FROM scratch\nLABEL from=file\n");
    fixture.context.file("a", "a\n");
    let archive = fixture.archive();
    let output = format!("--output=type=oci,dest={}", archive.display());
    fixture
        .build()
        .args(["-f", "-", &output])
        .stdin("FROM scratch\nCOPY a /\nLABEL from=stdin\n")
        .ok();
    let image = OciLayout::open(&archive).unwrap().image().unwrap();
    assert_eq!(image.run_config()["Labels"]["from"], "stdin");
    assert_eq!(image.files().unwrap().text("a"), Some("a\n"));
}

#[test]
fn a_dockerfile_alone_may_be_the_context() {
    let fixture = Fixture::new("FROM scratch\n");
    let archive = fixture.archive();
    fixture
        .build_of()
        .arg(format!("--output=type=oci,dest={}", archive.display()))
        .arg("-")
        .stdin("FROM busybox\nRUN echo no context > /f\n")
        .ok();
    assert_eq!(
        OciLayout::open(&archive)
            .unwrap()
            .image()
            .unwrap()
            .files()
            .unwrap()
            .text("f"),
        Some("no context\n")
    );
}

#[test]
fn a_tar_may_be_the_context() {
    use rbuild_testkit::layout::{Attributes, LayerBuilder};
    let fixture = Fixture::new("FROM scratch\n");
    let archive = fixture.archive();
    let tar = LayerBuilder::new()
        .dir("sub", Attributes::mode(0o755))
        .file("sub/a", Attributes::mode(0o640), b"a\n")
        .file(
            "Dockerfile",
            Attributes::mode(0o644),
            b"FROM scratch\nCOPY sub /\n",
        )
        // The ignore file is of directories: an archive is taken whole.
        .file(".dockerignore", Attributes::mode(0o644), b"sub\n")
        .finish();
    fixture
        .build_of()
        .arg(format!("--output=type=oci,dest={}", archive.display()))
        .arg("-")
        .stdin(tar)
        .ok();
    let files = OciLayout::open(&archive)
        .unwrap()
        .image()
        .unwrap()
        .files()
        .unwrap();
    assert_eq!(files.get("a").unwrap().mode, 0o640);
}

#[test]
fn the_environment_chooses_progress_where_no_flag_does() {
    let fixture = Fixture::new("FROM busybox\nRUN echo x\n");
    let ran = fixture
        .rbuild(["build"])
        .arg(busybox_argument("busybox"))
        .arg(fixture.context.dir())
        .env("BUILDKIT_PROGRESS", "quiet")
        .ok();
    assert_eq!(ran.stderr, "", "{ran}");
}

#[test]
fn warnings_of_the_front_end_name_their_line() {
    let fixture = Fixture::new("FROM busybox as lower\nMAINTAINER someone\nCMD echo shell form\n");
    let ran = fixture.build().ok();
    assert!(
        ran.stderr.contains("Dockerfile:2") || ran.stderr.contains("line 2"),
        "{ran}"
    );
    assert!(ran.stderr.contains("MaintainerDeprecated"), "{ran}");
    for flag in ["-D", "--debug"] {
        let all = fixture.build().arg(flag).ok();
        assert!(all.stderr.contains("   2 | >>> MAINTAINER someone"), "{all}");
    }
}
