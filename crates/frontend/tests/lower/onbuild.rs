//! ONBUILD triggers of images and of stages.

use crate::dump::dump;
use crate::fake::{ALPINE, Fake, history, lower_with, lowered, options};

fn with_triggers(triggers: &str) -> Fake {
    let config = ALPINE.replace(r#""Cmd""#, &format!(r#""OnBuild":[{triggers}],"Cmd""#));
    Fake::new().image("docker.io/library/base:1", &config)
}

#[test]
fn triggers_of_an_image_run_once_after_from() {
    let fake = with_triggers(r#""RUN one","COPY . /app","ENV A=$PATH""#);
    let lowered = lower_with(&options("FROM base:1 AS a\nRUN own\nFROM a\nRUN last\n"), &fake).unwrap();
    let text = dump(&lowered);
    for part in [
        "[a 1/2] FROM docker.io/library/base:1",
        "[a 2/5] ONBUILD RUN one @1",
        "[a 3/5] ONBUILD COPY . /app @1",
        "[a 4/5] RUN own @2",
        "[stage-1 1/1] RUN last @4",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert_eq!(text.matches("ONBUILD").count(), 2);
    assert!(lowered.image.config.on_build.is_empty());
    assert_eq!(
        history(&lowered),
        [
            "RUN /bin/sh -c one # buildkit",
            "COPY . /app # buildkit",
            "(ENV A=/bin)",
            "RUN /bin/sh -c own # buildkit",
            "RUN /bin/sh -c last # buildkit",
        ]
    );
}

#[test]
fn triggers_of_a_stage_run_in_its_children_only() {
    let lowered = lowered("FROM alpine AS p\nONBUILD RUN <<EOF\nhi\nEOF\nFROM p AS c\nFROM c\nRUN x\n");
    let text = dump(&lowered);
    assert_eq!(
        text.matches("exec [\"/bin/sh\", \"-c\", \"hi\\n\"]").count(),
        1,
        "{text}"
    );
    assert!(text.contains("[c 1/1] ONBUILD RUN <<EOF (hi)"), "{text}");
    assert!(lowered.image.config.on_build.is_empty());
    let parent = crate::fake::lowered("FROM alpine\nONBUILD COPY a b\n");
    assert_eq!(parent.image.config.on_build, ["COPY a b"]);
}

#[test]
fn triggers_may_need_more_stages_and_images() {
    let fake = with_triggers(r#""COPY --from=alpine /a /b","RUN --mount=from=tools,target=/t x""#)
        .image("docker.io/library/tools-base:latest", ALPINE);
    let lowered = lower_with(
        &options("FROM tools-base AS tools\nRUN tool\nFROM base:1\n"),
        &fake,
    )
    .unwrap();
    assert_eq!(
        fake.asked(),
        [
            "docker.io/library/alpine:latest linux/amd64",
            "docker.io/library/base:1 linux/amd64",
            "docker.io/library/tools-base:latest linux/amd64",
        ]
    );
    assert!(dump(&lowered).contains("RUN tool"));
}

#[test]
fn wrong_triggers_point_at_from() {
    for (trigger, message) in [
        (r#""FROM x""#, "FROM isn't allowed as an ONBUILD trigger"),
        (r#""NONSENSE x""#, "unknown instruction: NONSENSE"),
        (
            r#""RUN a\nRUN b""#,
            "onbuild trigger should be a single expression",
        ),
    ] {
        let error = lower_with(&options("# c\nFROM base:1\n"), &with_triggers(trigger)).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.span().unwrap().start, 2);
    }
}
