//! What users get wrong, with the text and the line they see.

use crate::fake::{Fake, lower_with, options};

/// Errors that say what to write instead, or repeat the words of the Dockerfile's author.
const SAY_THEMSELVES: [&str; 4] = [
    "it should be octal string",
    "define alias stage instead",
    "b: why",
    "dockerfile contains no stages",
];

#[test]
#[allow(clippy::too_many_lines, reason = "a flat table")]
fn what_users_get_wrong() {
    for (dockerfile, line, message) in [
        ("", 0, "the Dockerfile cannot be empty"),
        ("# nothing\n", 1, "file with no instructions"),
        ("ARG a\n", 0, "dockerfile contains no stages to build"),
        ("RUN x\n", 1, "no build stage in current context"),
        (
            "FORM alpine\n",
            1,
            "dockerfile parse error on line 1: unknown instruction: FORM (did you mean FROM?)",
        ),
        (
            "FROM alpine\nCOPY --form=a b c\n",
            2,
            "dockerfile parse error on line 2: unknown flag: --form (did you mean from?)",
        ),
        ("FROM alpin\n", 1, "alpin: not found (did you mean alpine?)"),
        (
            "FROM Alpine\n",
            1,
            "failed to parse stage name \"Alpine\": invalid reference format: repository name (library/Alpine) must be lowercase",
        ),
        (
            "FROM Bad AS unused\nFROM alpine\n",
            1,
            "failed to parse stage name \"Bad\": invalid reference format: repository name (library/Bad) must be lowercase",
        ),
        ("FROM $X\n", 1, "base name ($X) should not be blank"),
        (
            "FROM --platform=$TARGETPLATFROM alpine\n",
            1,
            "empty platform value from expression $TARGETPLATFROM (did you mean TARGETPLATFORM?)",
        ),
        (
            "ARG MY_ARCH\nFROM --platform=linux/${MYARCH} alpine\n",
            2,
            "failed to parse platform linux/${MYARCH}: \"\" is an invalid component of \"linux/\": platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument",
        ),
        ("FROM alpine\nCOPY --from=3 a b\n", 2, "invalid stage index 3"),
        ("FROM alpine\nCOPY --from=-1 a b\n", 2, "invalid stage index -1"),
        (
            "FROM alpine\nCOPY --from=$X a b\n",
            2,
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
        ),
        (
            "FROM alpine\nRUN --mount=from=$X,target=/a x\n",
            2,
            "dockerfile parse error on line 2: 'from' doesn't support variable expansion, define alias stage instead",
        ),
        (
            "FROM alpine AS a\nCOPY --from=b x y\nFROM alpine AS b\nCOPY --from=a x y\n",
            2,
            "circular dependency detected on stage: a",
        ),
        (
            "FROM alpine AS a\nCOPY --from=a x y\n",
            2,
            "circular dependency detected on stage: a",
        ),
        (
            "FROM alpine AS a\nCOPY --from=b x y\nFROM alpine AS b\nRUN x\nFROM a\n",
            2,
            "cannot copy from stage \"b\", it needs to be defined before current stage \"a\"",
        ),
        (
            "FROM alpine AS a\nRUN --mount=from=b,target=/x y\nFROM alpine AS b\nFROM a\n",
            2,
            "cannot mount from stage \"b\" to \"/x\", stage needs to be defined before current command",
        ),
        (
            "FROM alpine\nRUN --mount=target=/ x\n",
            2,
            "invalid mount target \"/\"",
        ),
        (
            "FROM alpine\nRUN --mount=type=ssh,source=a x\n",
            2,
            "ssh does not support source",
        ),
        (
            "FROM alpine\nRUN --mount=typ=bind x\n",
            2,
            "unexpected key 'typ' in 'typ=bind' (did you mean type?)",
        ),
        (
            "FROM alpine\nCOPY --chmod=8 a b\n",
            2,
            "invalid chmod parameter: '8'. it should be octal string and between 0 and 07777",
        ),
        (
            "FROM alpine\nCOPY https://h.example/a b\n",
            2,
            "source can't be a URL for COPY",
        ),
        (
            "FROM alpine\nCOPY https://h.example/a.git b\n",
            2,
            "source can't be a git ref for COPY",
        ),
        (
            "FROM alpine\nADD --checksum=sha256:1 a b\n",
            2,
            "checksum requires HTTP(S) or Git sources",
        ),
        (
            "FROM alpine\nADD --checksum=sha256:1 https://h.example/a b\n",
            2,
            "invalid checksum digest length",
        ),
        (
            "FROM alpine\nENV a=${b?why}\n",
            2,
            "failed to process \"${b?why}\": b: why",
        ),
        (
            "FROM alpine\nEXPOSE 80/icmp\n",
            2,
            "invalid port: \"80/icmp\": invalid proto: icmp",
        ),
        ("FROM alpine\nSTOPSIGNAL SIGNONE\n", 2, "invalid signal: SIGNONE"),
        (
            "FROM alpine\nVOLUME $X\n",
            2,
            "VOLUME specified can not be an empty string",
        ),
        (
            "FROM alpine\nADD --link=x a b\nONBUILD ONBUILD ENV a=b c\n",
            3,
            "Syntax error - can't find = in \"c\". Must be of the form: name=value",
        ),
        (
            "# check=error=maybe\nFROM alpine\n",
            0,
            "failed to parse check options: failed to parse check option \"error=maybe\": \
             strconv.ParseBool: parsing \"maybe\": invalid syntax",
        ),
    ] {
        let error = lower_with(&options(dockerfile), &Fake::new()).unwrap_err();
        assert_eq!(error.to_string(), message, "{dockerfile}");
        assert_eq!(error.span().map_or(0, |span| span.start), line, "{dockerfile}");
        let says_itself = SAY_THEMSELVES.iter().any(|part| message.contains(part));
        assert!(
            says_itself || message.contains("did you mean") || error.hint().is_some(),
            "nothing helps against {message:?}"
        );
    }
}

#[test]
fn every_place_of_a_failure_is_told() {
    let lines = |dockerfile: &str| -> Vec<(u32, u32)> {
        let error = lower_with(&options(dockerfile), &Fake::new()).unwrap_err();
        error.spans.iter().map(|span| (span.start, span.end)).collect()
    };
    let circle = "FROM alpine AS a\nRUN --mount=from=b,target=/x \\\n  true\nFROM alpine AS b\nCOPY --from=c . .\n\
                  FROM alpine AS c\nRUN y\nCOPY --from=b . .\n";
    assert_eq!(lines(circle), [(2, 3), (5, 5), (8, 8)]);
    assert_eq!(lines("FROM alpine AS a\nCOPY --from=a . .\n"), [(2, 2)]);
    // What is read and what is asked for is one place twice.
    assert_eq!(lines("FROM --platform=x/y/z/w alpine\n"), [(1, 1), (1, 1)]);
    assert_eq!(lines("FROM --platform=$NONE alpine\n"), [(1, 1)]);
}

#[test]
fn what_helps_is_told_beside_the_error() {
    for (dockerfile, hint) in [
        ("RUN x\n", "only ARG may stand before the first FROM"),
        (
            "FROM $X\n",
            "give the variable a value by an ARG before the first FROM, or by --build-arg",
        ),
        (
            "FROM alpine\nCOPY --from=$X a b\n",
            "write ARG NAME before the first FROM, then `FROM ${NAME} AS source`, and --from=source here",
        ),
        (
            "FROM alpine AS a\nCOPY --from=b x y\nFROM alpine AS b\nRUN x\nFROM a\n",
            "move the stage \"b\" above this one",
        ),
        (
            "FROM alpine AS tools\nFROM alpine\nCOPY --from=nope a b\n",
            "\"nope\" is no stage (there are \"tools\"), so an image of that name was asked for; `FROM … AS NAME` names a stage",
        ),
        (
            "FROM alpine\nRUN --mount=from=nope x\n",
            "\"nope\" is no stage (none has a name), so an image of that name was asked for; `FROM … AS NAME` names a stage",
        ),
        (
            "FROM alpine\nSTOPSIGNAL SIGNONE\n",
            "a signal is as in SIGTERM, TERM or 15",
        ),
        (
            "FROM alpine\nRUN <<A\nx\n",
            "its name stands alone on the line that ends it, and tabs may be before it only after `<<-`",
        ),
        (
            "FROM alpine\nENV a\n",
            r#"write NAME=value; a value with blanks stands in quotes, as in NAME="a value""#,
        ),
    ] {
        let error = lower_with(&options(dockerfile), &Fake::new()).unwrap_err();
        assert_eq!(error.hint().as_deref(), Some(hint), "{dockerfile}: {error}");
    }
    // A name that is near is all that is told; and what is meant to be an image is not taken for a stage.
    for dockerfile in [
        "FORM alpine\n",
        "FROM alpine AS builder\nFROM alpine\nCOPY --from=bilder a b\n",
        "FROM alpine\nCOPY --from=team/none a b\n",
        "FROM nope\n",
    ] {
        let error = lower_with(&options(dockerfile), &Fake::new()).unwrap_err();
        assert_eq!(error.hint(), None, "{dockerfile}: {error}");
    }
    let many: String = (0..20)
        .map(|stage| format!("FROM alpine AS stage{stage}\n"))
        .collect();
    let error = lower_with(&options(&format!("{many}COPY --from=nope a b\n")), &Fake::new()).unwrap_err();
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("the first are \"stage0\", ") && !hint.contains("stage8"),
        "{hint}"
    );
}

#[test]
fn a_missing_target_has_a_hint() {
    let mut options = options("FROM alpine AS release\n");
    options.target = Some("relase".to_owned());
    let error = lower_with(&options, &Fake::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "target stage \"relase\" could not be found (did you mean release?)"
    );
}

#[test]
fn wrong_contexts() {
    for (name, value, message) in [
        (
            "UP",
            "x",
            "invalid context name UP: invalid reference format: repository name (library/UP) must be lowercase",
        ),
        ("a", "target:b", "unsupported context source target:b for a"),
        (
            "a",
            "oci-layout://d@sha256:0",
            "could not parse oci-layout reference \"d@sha256:0\": digest has 1 hex characters, 64 are needed",
        ),
        (
            "alpine",
            "docker-image://UP",
            "failed to parse stage name \"UP\": invalid reference format: repository name (library/UP) must be lowercase",
        ),
    ] {
        let mut options = options("FROM alpine\n");
        options.build_contexts.insert(name.to_owned(), value.to_owned());
        assert_eq!(
            lower_with(&options, &Fake::new()).unwrap_err().to_string(),
            message
        );
    }
}

#[test]
fn a_config_that_is_none_is_an_error() {
    let fake = Fake::new().image("docker.io/library/bad:latest", "{");
    let error = lower_with(&options("FROM bad\n"), &fake).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("failed to parse image config of bad: "),
        "{error}"
    );
}
