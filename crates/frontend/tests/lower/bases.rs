//! Stages, bases, platforms, named contexts, and how steps are named.

use rbuild_frontend::NoCache;
use rbuild_graph::Op;
use rbuild_oci::Platform;

use crate::dump::dump;
use crate::fake::{ALPINE, Fake, digest, lower_with, lowered, options};

#[test]
fn a_chain_of_stages_is_named_as_buildkit_names_it() {
    let text = dump(&lowered(
        "FROM alpine AS build\nWORKDIR /src\nRUN make\nFROM build\nRUN strip x\nFROM scratch\nCOPY --from=1 /src/x /\nCOPY --from=build /src/y /y\n",
    ));
    let expected = format!(
        "\
%0 [build 1/3] FROM docker.io/library/alpine:latest@{alpine} @1 <linux/amd64>
  source docker-image://docker.io/library/alpine:latest@{alpine}
%1 [build 2/3] WORKDIR /src @2
  on %0: mkdir /src 755 ->out
%2 [build 3/3] RUN make @3 <linux/amd64>
  exec [\"/bin/sh\", \"-c\", \"make\"] cwd=/src user=\"\"
  env [\"PATH=/bin\"]
  mount / Bind from %1 out
  net=Unset security=Sandbox
%3 [stage-1 1/1] RUN strip x @5 <linux/amd64>
  exec [\"/bin/sh\", \"-c\", \"strip x\"] cwd=/src user=\"\"
  env [\"PATH=/bin\"]
  mount / Bind from %2 out
  net=Unset security=Sandbox
%4 [stage-2 1/2] COPY --from=1 /src/x / @7
  on scratch: copy %3/src/x => / follow contents mkdest wildcard emptyok ->out
%5 [stage-2 2/2] COPY --from=build /src/y /y @8
  on %4: copy %2/src/y => /y follow contents mkdest wildcard emptyok ->out
",
        alpine = digest("docker.io/library/alpine:latest")
    );
    assert_eq!(text, expected);
}

#[test]
fn a_base_of_several_stages_has_all_their_places() {
    // Recorded from BuildKit's client: places in the order of its walk from the target, and the name it meets last.
    let lowered = lowered(
        "FROM alpine AS unused\nFROM alpine AS a\nFROM alpine AS b\nRUN x\nFROM alpine\nCOPY --from=a / /a/\nCOPY --from=b / /b/\n",
    );
    let image = lowered
        .graph
        .vertices()
        .find(|vertex| matches!(vertex.op, Op::Source(_)));
    let meta = &image.unwrap().meta;
    let lines = meta.locations.iter().map(|place| place.ranges[0].start.line);
    assert_eq!(lines.collect::<Vec<_>>(), [5, 2, 3]);
    assert!(meta.name.starts_with("[b 1/2] FROM"), "{}", meta.name);
    let command = meta.description.get("com.docker.dockerfile.v1.command");
    assert_eq!(command.map(String::as_str), Some("FROM alpine AS b"));
}

#[test]
fn a_single_stage_has_no_name_and_numbers_line_up() {
    let dockerfile = format!("FROM alpine\n{}", "RUN true\n".repeat(9));
    let names = names(&dockerfile);
    assert_eq!(names[1], "[ 2/10] RUN true");
    assert_eq!(names[9], "[10/10] RUN true");
    // An image that is only copied from counts as a stage, so the one stage gets a name, as in BuildKit.
    let names = self::names("FROM alpine\nCOPY --from=alpine /a /b\n");
    assert!(
        names.contains(&"[stage-0 2/2] COPY --from=alpine /a /b".to_owned()),
        "{names:?}"
    );
}

fn names(dockerfile: &str) -> Vec<String> {
    let lowered = lowered(dockerfile);
    let order = lowered
        .graph
        .reachable(&[lowered.result.clone().unwrap().vertex])
        .unwrap();
    order
        .iter()
        .map(|digest| lowered.graph.get(digest).unwrap().meta.name.clone())
        .collect()
}

#[test]
fn stages_the_target_does_not_need_are_not_resolved() {
    let fake = Fake::new();
    let mut options = options(
        "FROM nowhere/at:all AS unused\nRUN false\nFROM alpine AS a\nFROM alpine AS b\nCOPY --from=a /x /\nFROM also-nowhere\n",
    );
    options.target = Some("B".to_owned());
    let lowered = lower_with(&options, &fake).unwrap();
    assert_eq!(fake.asked(), ["docker.io/library/alpine:latest linux/amd64"]);
    let needed: Vec<bool> = lowered.stages.iter().map(|stage| stage.needed).collect();
    assert_eq!(needed, [false, true, true, false]);
}

#[test]
fn scratch_has_path_and_root_as_working_directory() {
    let lowered = lowered("FROM scratch\n");
    assert!(lowered.result.is_none());
    assert_eq!(
        lowered.image.config.env,
        ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    );
    assert_eq!(lowered.image.config.working_dir, "/");
    assert_eq!(
        (lowered.image.os.as_str(), lowered.image.architecture.as_str()),
        ("linux", "amd64")
    );
    assert!(lowered.base_image.is_none());
}

#[test]
fn an_image_without_layers_is_an_empty_root() {
    let fake = Fake::new().image(
        "docker.io/library/empty:latest",
        r#"{"architecture":"amd64","os":"linux","config":{"Labels":{"a":"b"}},"rootfs":{"type":"layers","diff_ids":[]}}"#,
    );
    let lowered = lower_with(&options("FROM empty\nENV x=1\n"), &fake).unwrap();
    assert!(lowered.result.is_none());
    assert_eq!(lowered.image.config.labels["a"], "b");
    assert_eq!(lowered.image.config.env[1], "x=1");
}

#[test]
fn platforms() {
    let arm = ALPINE.replace("amd64", "arm64");
    let fake = Fake::new().image("docker.io/library/arm:latest", &arm);
    let mut options = options(
        "FROM --platform=$BUILDPLATFORM alpine AS build\nARG TARGETARCH TARGETPLATFORM\nRUN a\nFROM arm\nRUN b\nCOPY --from=build /x /\n",
    );
    options.target_platform = Some(Platform::parse("linux/arm64").unwrap());
    options.multi_platform = true;
    let lowered = lower_with(&options, &fake).unwrap();
    assert_eq!(
        fake.asked(),
        [
            "docker.io/library/alpine:latest linux/amd64",
            "docker.io/library/arm:latest linux/arm64"
        ]
    );
    let text = dump(&lowered);
    for line in [
        "[linux/amd64->arm64 build 2/2] RUN a @3 <linux/amd64>",
        "[linux/arm64 stage-1 2/3] RUN b @5 <linux/arm64>",
        "[linux/amd64 build 1/2] FROM docker.io/library/alpine:latest",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    assert_eq!(lowered.image.architecture, "arm64");
    assert_eq!(lowered.platform.short(), "linux/arm64");
}

#[test]
fn the_platform_asked_for_is_in_the_config() {
    let mut options = options("FROM alpine\n");
    options.target_platform = Some(Platform::parse("linux/arm/v7").unwrap());
    let lowered = lower_with(&options, &Fake::new()).unwrap();
    let image = &lowered.image;
    assert_eq!(
        (
            image.os.as_str(),
            image.architecture.as_str(),
            image.variant.as_str()
        ),
        ("linux", "arm", "v7")
    );
    assert_eq!(lowered.warnings[0].rule.name(), "InvalidBaseImagePlatform");
}

#[test]
fn named_contexts_replace_images_and_stages() {
    let fake = Fake::new()
        .image("docker.io/library/debian:12", ALPINE)
        .image("/layout", ALPINE)
        .ignore_file("src", "*.log\n");
    let mut options = options(
        "FROM broken/base AS build\nRUN never\nFROM alpine AS final\nCOPY --from=build /a /a\nCOPY --from=src b b\nCOPY --from=lay c c\nCOPY --from=repo d d\nCOPY --from=page e e\n",
    );
    for (name, value) in [
        ("alpine", "docker-image://debian:12"),
        ("build", "docker-image://alpine"),
        ("src", "./dir"),
        ("lay", "oci-layout:///layout:v1"),
        ("repo", "https://h.example/r.git#main"),
        ("page", "https://h.example/p"),
    ] {
        options.build_contexts.insert(name.to_owned(), value.to_owned());
    }
    let lowered = lower_with(&options, &fake).unwrap();
    assert_eq!(
        fake.asked(),
        [
            "docker.io/library/alpine:latest linux/amd64",
            "docker.io/library/debian:12 linux/amd64",
            "ignore src ./dir",
            "layout /layout v1",
        ]
    );
    let text = dump(&lowered);
    for part in [
        "[context alpine] debian:12",
        "[context build] alpine",
        "[context src] load from client\n  source local://context:src local.excludepatterns=[\"*.log\"] local.sharedkeyhint=context:src-",
        "[context lay] OCI load from client",
        "[internal] load git source https://h.example/r.git#main\n  source git://h.example/r.git#main",
        "[context page] https://h.example/p\n  source https://h.example/p http.filename=context",
        "[final 1/6] COPY --from=build /a /a",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains("RUN never"));
}

#[test]
fn a_context_may_be_for_one_platform() {
    let fake = Fake::new()
        .image("docker.io/library/a:latest", ALPINE)
        .image("docker.io/library/b:latest", ALPINE);
    let mut options = options("FROM alpine\nRUN x\n");
    options
        .build_contexts
        .insert("alpine".into(), "docker-image://a".into());
    options
        .build_contexts
        .insert("alpine::linux/amd64".into(), "docker-image://b".into());
    lower_with(&options, &fake).unwrap();
    assert_eq!(fake.asked(), ["docker.io/library/b:latest linux/amd64"]);
}

#[test]
fn no_cache_is_for_all_or_for_named_stages() {
    let dockerfile = "FROM alpine AS one\nWORKDIR /a\nRUN 1\nFROM one AS two\nRUN 2\nCOPY x x\n";
    let marked = |no_cache| {
        let mut options = options(dockerfile);
        options.no_cache = no_cache;
        let text = dump(&lower_with(&options, &Fake::new()).unwrap());
        let lines = text.lines().filter(|line| line.ends_with("nocache"));
        lines
            .map(|line| {
                line.split(" @")
                    .next()
                    .unwrap()
                    .split_once(' ')
                    .unwrap()
                    .1
                    .to_owned()
            })
            .collect::<Vec<_>>()
    };
    assert!(marked(NoCache::Off).is_empty());
    assert_eq!(
        marked(NoCache::All),
        ["[one 3/3] RUN 1", "[two 1/2] RUN 2", "[two 2/2] COPY x x"]
    );
    assert_eq!(marked(NoCache::Stages(vec!["ONE".into()])), ["[one 3/3] RUN 1"]);
}

#[test]
fn the_digest_of_the_reference_pins_the_source() {
    let lowered = lowered("FROM alpine\nRUN x\n");
    let sources: Vec<String> = lowered
        .graph
        .reachable(&[lowered.result.clone().unwrap().vertex])
        .unwrap()
        .iter()
        .filter_map(|digest| match &lowered.graph.get(digest).unwrap().op {
            Op::Source(source) => Some(source.identifier.clone()),
            _ => None,
        })
        .collect();
    let pinned = format!(
        "docker-image://docker.io/library/alpine:latest@{}",
        digest("docker.io/library/alpine:latest")
    );
    assert_eq!(sources, [pinned]);
}
