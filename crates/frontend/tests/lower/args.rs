//! ARG, ENV, the arguments that are there by themselves, and the epoch.

use rbuild_oci::{Platform, Timestamp};

use crate::dump::dump;
use crate::fake::{Fake, history, lower_with, lowered, options};

/// Environment of the last RUN.
fn env(dockerfile: &str, build_args: &[(&str, &str)]) -> String {
    let mut options = options(dockerfile);
    for (name, value) in build_args {
        options.build_args.insert((*name).to_owned(), (*value).to_owned());
    }
    let text = dump(&lower_with(&options, &Fake::new()).expect("it lowers"));
    let line = text
        .lines()
        .rfind(|line| line.starts_with("  env "))
        .expect("a RUN")
        .to_owned();
    let list = line.trim_start_matches("  env [").trim_end_matches(']');
    list.split(", ")
        .filter(|entry| *entry != "\"PATH=/bin\"")
        .collect::<Vec<_>>()
        .join(", ")
}

#[test]
fn scopes_and_precedence() {
    for (dockerfile, build_args, expected) in [
        ("ARG A=1\nFROM alpine\nRUN x", &[][..], ""),
        ("ARG A=1\nFROM alpine\nARG A\nRUN x", &[], r#""A=1""#),
        ("ARG A=1\nFROM alpine\nARG A=2\nRUN x", &[], r#""A=2""#),
        ("ARG A=1\nFROM alpine\nARG A=2\nRUN x", &[("A", "3")], r#""A=3""#),
        ("FROM alpine\nARG A\nRUN x", &[], ""),
        ("FROM alpine\nARG A=\nRUN x", &[], r#""A=""#),
        ("FROM alpine\nRUN x", &[("A", "3")], ""),
        ("FROM alpine AS a\nARG A=1\nFROM a\nRUN x", &[], r#""A=1""#),
        (
            "FROM alpine AS a\nARG A=1\nFROM alpine\nCOPY --from=a / /\nRUN x",
            &[],
            "",
        ),
        // The later of the two wins for RUN.
        ("FROM alpine\nENV A=env\nARG A=arg\nRUN x", &[], r#""A=arg""#),
        ("FROM alpine\nARG A=arg\nENV A=env\nRUN x", &[], r#""A=env""#),
        ("FROM alpine\nENV A=env\nARG A\nRUN x", &[], r#""A=env""#),
        // ENV sees what was before it, ARG what it has just set.
        (
            "FROM alpine\nENV a=1\nENV a=2 b=$a\nRUN x",
            &[],
            r#""a=2", "b=1""#,
        ),
        (
            "FROM alpine\nARG a=0\nARG a=1 b=$a\nRUN x",
            &[],
            r#""a=1", "b=1""#,
        ),
        (
            "FROM alpine\nENV a=1\nENV b=2\nENV a=3\nRUN x",
            &[],
            r#""b=2", "a=3""#,
        ),
        (
            "FROM alpine\nENV a='x y' b=\"$PATH\" c=%d d\\ e=1\nRUN x",
            &[],
            r#""a=x y", "b=/bin", "c=%d", "d e=1""#,
        ),
        ("FROM alpine\nENV old  new $PATH\nRUN x", &[], r#""old=new /bin""#),
        (
            "FROM alpine AS last\nARG TARGETSTAGE TARGETARCH\nRUN x",
            &[],
            r#""TARGETSTAGE=last", "TARGETARCH=amd64""#,
        ),
        (
            "FROM alpine\nARG TARGETSTAGE\nRUN x",
            &[],
            r#""TARGETSTAGE=default""#,
        ),
        (
            "FROM alpine\nARG TARGETPLATFORM\nRUN x",
            &[("TARGETPLATFORM", "p")],
            r#""TARGETPLATFORM=p""#,
        ),
        ("FROM alpine\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN x", &[], ""),
    ] {
        assert_eq!(
            env(dockerfile, build_args),
            expected,
            "{dockerfile} {build_args:?}"
        );
    }
}

#[test]
fn the_config_keeps_env_and_no_args() {
    let lowered = lowered("FROM alpine\nENV A=1 B=2\nARG A=3 C=4\nENV PATH=/x:$PATH\nENV A=5\n");
    assert_eq!(lowered.image.config.env, ["PATH=/x:/bin", "A=5", "B=2"]);
    assert_eq!(
        history(&lowered),
        [
            "(ENV A=1 B=2)",
            "(ARG A=3 C=4)",
            "(ENV PATH=/x:/bin)",
            "(ENV A=5)"
        ]
    );
}

/// As a BuildKit of linux/amd64 writes it into the history of the same Dockerfile.
#[test]
fn every_argument_of_the_platforms_is_there_by_itself() {
    let text = "FROM scratch\nARG BUILDPLATFORM BUILDOS BUILDOSVERSION BUILDARCH BUILDVARIANT TARGETPLATFORM TARGETOS \
                TARGETOSVERSION TARGETARCH TARGETVARIANT TARGETSTAGE\n";
    for (platform, target) in [
        (
            "windows(10.0.17763)/amd64",
            "TARGETOS=windows TARGETOSVERSION=10.0.17763 TARGETARCH=amd64 TARGETVARIANT=",
        ),
        (
            "linux/arm/v7",
            "TARGETOS=linux TARGETOSVERSION= TARGETARCH=arm TARGETVARIANT=v7",
        ),
    ] {
        let mut options = options(text);
        options.target_platform = Some(Platform::parse(platform).unwrap());
        assert_eq!(
            history(&lower_with(&options, &Fake::new()).unwrap()),
            [format!(
                "(ARG BUILDPLATFORM=linux/amd64 BUILDOS=linux BUILDOSVERSION= BUILDARCH=amd64 BUILDVARIANT= \
                 TARGETPLATFORM={platform} {target} TARGETSTAGE=default)"
            )]
        );
    }
}

#[test]
fn from_sees_global_args_only() {
    let fake = Fake::new().image("docker.io/library/alpine:3", crate::fake::ALPINE);
    let mut options = options("ARG TAG=2\nARG NAME=al${NOPE:-pine}\nFROM ${NAME}:$TAG\n");
    options.build_args.insert("TAG".into(), "3".into());
    lower_with(&options, &fake).unwrap();
    assert_eq!(fake.asked(), ["docker.io/library/alpine:3 linux/amd64"]);
}

#[test]
fn escapes_follow_the_directive() {
    let lowered = lowered("# escape=`\nFROM alpine\nENV A=C:\\x`$y B=`\n2\n");
    assert_eq!(lowered.image.config.env[1..], ["A=C:\\x$y", "B=2"]);
}

#[test]
fn the_epoch_dates_histories_and_directories() {
    let mut options = options("FROM alpine\nARG SOURCE_DATE_EPOCH\nWORKDIR /a\nRUN x\n");
    options
        .build_args
        .insert("SOURCE_DATE_EPOCH".into(), "1700000000".into());
    let lowered = lower_with(&options, &Fake::new()).unwrap();
    assert_eq!(lowered.epoch, Timestamp::from_unix(1_700_000_000, 0));
    assert_eq!(lowered.image.history[1].created, lowered.epoch);
    assert_eq!(
        lowered.image.history[0].created,
        Some(Timestamp::parse("2020-01-01T00:00:00Z").unwrap())
    );
    assert!(dump(&lowered).contains("mkdir /a 755 time=1700000000"));
    assert!(lowered.image.created.is_none());
    options
        .build_args
        .insert("SOURCE_DATE_EPOCH".into(), "context".into());
    let lowered = lower_with(&options, &Fake::new()).unwrap();
    assert_eq!(lowered.epoch, None);
    assert!(dump(&lowered).contains("env [\"PATH=/bin\"]"));
    options
        .build_args
        .insert("SOURCE_DATE_EPOCH".into(), "soon".into());
    let error = lower_with(&options, &Fake::new()).unwrap_err();
    assert_eq!(error.to_string(), "invalid SOURCE_DATE_EPOCH: soon");
}
