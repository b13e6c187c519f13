//! Image config and history.

use rbuild_oci::Platform;

use crate::dump::dump;
use crate::fake::{Fake, history, lower_with, lowered, options};

#[test]
fn every_instruction_in_the_config_and_the_history() {
    let lowered = lowered(
        "FROM alpine\nMAINTAINER me <a@b>\nLABEL a=b \"c d\"=\"e f\" p=$PATH\nEXPOSE 80 443/tcp 53/UDP\nVOLUME /v /w\nVOLUME [\"/x y\"]\nUSER 1:2\nWORKDIR /d\nWORKDIR e\nSTOPSIGNAL SIGINT\nSHELL [\"bash\", \"-c\"]\nCMD echo \"hi\"\nENTRYPOINT [\"/e\", \"x\"]\nHEALTHCHECK --interval=1m30s --retries=3 CMD check me\nONBUILD RUN later\n",
    );
    assert_eq!(
        history(&lowered),
        [
            "(MAINTAINER me <a@b>)",
            "(LABEL a=b c d=e f p=/bin)",
            "(EXPOSE [443/tcp 53/udp 80/tcp])",
            "(VOLUME [/v /w])",
            "(VOLUME [/x y])",
            "(USER 1:2)",
            "WORKDIR /d",
            "WORKDIR /d/e",
            "(STOPSIGNAL SIGINT)",
            "(SHELL [bash -c])",
            r#"(CMD ["bash" "-c" "echo \"hi\""])"#,
            r#"(ENTRYPOINT ["/e" "x"])"#,
            "(HEALTHCHECK {Test:[CMD-SHELL check me] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:3})",
        ]
    );
    let comments: Vec<&str> = lowered.image.history[1..]
        .iter()
        .map(|entry| entry.comment.as_str())
        .collect();
    assert!(
        comments
            .iter()
            .all(|comment| *comment == "buildkit.dockerfile.v0")
    );
    let text = String::from_utf8(lowered.image.to_bytes()).unwrap();
    let config = &text[text.find("\"config\":").unwrap()..text.find(",\"history\"").unwrap()];
    assert_eq!(
        config,
        concat!(
            r#""config":{"User":"1:2","ExposedPorts":{"443/tcp":{},"53/udp":{},"80/tcp":{}},"#,
            r#""Env":["PATH=/bin"],"Entrypoint":["/e","x"],"Cmd":["bash","-c","echo \"hi\""],"#,
            r#""Volumes":{"/v":{},"/w":{},"/x y":{}},"WorkingDir":"/d/e","#,
            r#""Labels":{"a":"b","c d":"e f","p":"/bin"},"StopSignal":"SIGINT","ArgsEscaped":true,"#,
            r#""Healthcheck":{"Test":["CMD-SHELL","check me"],"Interval":90000000000,"Retries":3},"#,
            r#""OnBuild":["RUN later"],"Shell":["bash","-c"]}"#
        )
    );
    assert!(text.starts_with(r#"{"architecture":"amd64","author":"me \u003ca@b\u003e","#));
    assert!(dump(&lowered).contains("WORKDIR e @9\n  on %1: mkdir /d/e 755 owner=1:2 ->out"));
}

#[test]
fn an_entry_point_clears_an_inherited_command_only() {
    for (dockerfile, cmd) in [
        ("FROM alpine\nENTRYPOINT [\"e\"]", &[][..]),
        ("FROM alpine\nCMD [\"c\"]\nENTRYPOINT [\"e\"]", &["c"]),
        ("FROM alpine\nENTRYPOINT [\"e\"]\nCMD [\"c\"]", &["c"]),
        ("FROM alpine AS a\nCMD [\"c\"]\nFROM a\nENTRYPOINT [\"e\"]", &[]),
        ("FROM alpine AS a\nCMD [\"c\"]\nFROM a", &["c"]),
        ("FROM alpine", &["/bin/sh"]),
    ] {
        assert_eq!(lowered(dockerfile).image.config.cmd, cmd, "{dockerfile}");
    }
    let shell_form = lowered("FROM alpine\nENTRYPOINT []text\n");
    assert_eq!(shell_form.image.config.entrypoint, ["/bin/sh", "-c", "[]text"]);
}

#[test]
fn working_directories_and_users_come_from_the_base() {
    let config = crate::fake::ALPINE.replace(
        r#""Cmd""#,
        r#""WorkingDir":"/base","User":"u","Shell":["ash"],"Cmd""#,
    );
    let fake = Fake::new().image("docker.io/library/b:1", &config);
    let lowered = lower_with(&options("FROM b:1\nRUN x\nWORKDIR sub\nWORKDIR /\n"), &fake).unwrap();
    let text = dump(&lowered);
    assert!(
        text.contains("exec [\"ash\", \"x\"] cwd=/base user=\"u\""),
        "{text}"
    );
    assert!(text.contains("mkdir /base/sub 755 owner=u"), "{text}");
    assert_eq!(
        history(&lowered),
        ["RUN ash x # buildkit", "WORKDIR /base/sub", "(WORKDIR /)"]
    );
}

#[test]
fn labels_of_the_command_line_win() {
    let mut options = options("FROM alpine\nLABEL a=1 b=2\n");
    options.labels.insert("a".into(), "3".into());
    options.labels.insert("c".into(), String::new());
    let labels = lower_with(&options, &Fake::new()).unwrap().image.config.labels;
    let shown: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(shown, ["a=3", "b=2", "c="]);
}

#[test]
fn exposed_ports_expand_to_words_and_ranges() {
    let lowered = lowered("FROM alpine\nENV P=\"80 81/udp\"\nEXPOSE $P 9000-9002 127.0.0.1:8080:7000\n");
    let ports: Vec<&str> = lowered
        .image
        .config
        .exposed_ports
        .iter()
        .map(String::as_str)
        .collect();
    assert_eq!(
        ports,
        ["7000/tcp", "80/tcp", "81/udp", "9000/tcp", "9001/tcp", "9002/tcp"]
    );
    assert_eq!(
        history(&lowered)[1],
        "(EXPOSE [80/tcp 81/udp 7000/tcp 9000/tcp 9001/tcp 9002/tcp])"
    );
}

#[test]
fn healthchecks() {
    let none = lowered("FROM alpine\nHEALTHCHECK NONE\n")
        .image
        .config
        .healthcheck
        .unwrap();
    assert_eq!(none.test, ["NONE"]);
    let exec = lowered("FROM alpine\nHEALTHCHECK --start-interval=500ms CMD [\"a\",\"b\"]\n");
    let check = exec.image.config.healthcheck.unwrap();
    assert_eq!(
        (check.test, check.start_interval),
        (vec!["CMD".into(), "a".into(), "b".into()], 500_000_000)
    );
}

#[test]
fn unknown_fields_of_the_base_go_as_in_buildkit() {
    let config = crate::fake::ALPINE.replace(r#""Cmd""#, r#""Hostname":"h","Cmd""#);
    let fake = Fake::new().image("docker.io/library/b:1", &config);
    let lowered = lower_with(&options("FROM b:1\n"), &fake).unwrap();
    assert!(
        !String::from_utf8(lowered.image.to_bytes())
            .unwrap()
            .contains("Hostname")
    );
    assert!(lowered.image.created.is_none() && lowered.base_image.unwrap().created.is_some());
}

#[test]
fn paths_of_windows_images() {
    let windows = |dockerfile: &str| {
        let mut options = options(&format!("# escape=`\nFROM scratch\n{dockerfile}"));
        options.target_platform = Some(Platform::new("windows", "amd64"));
        lower_with(&options, &Fake::new())
    };
    let lowered = windows("WORKDIR C:\\app\nWORKDIR sub\nCOPY a\\b cd\\\nCOPY <<x C:/y\nx\n").unwrap();
    assert_eq!(lowered.image.config.working_dir, "\\app\\sub");
    assert_eq!(history(&lowered)[..2], ["WORKDIR /app", "WORKDIR /app/sub"]);
    let text = dump(&lowered);
    assert!(
        text.contains("/a/b => /app/sub/cd/ ") && text.contains("/x => /y "),
        "{text}"
    );
    assert!(lowered.warnings.is_empty(), "{:?}", lowered.warnings);
    for (instruction, error) in [
        (
            "WORKDIR D:\\app",
            "normalizing workdir: normalizing working directory: removing drive letter: \
             The specified path is not on the system drive (C:)",
        ),
        (
            "COPY a C:",
            "removing drive letter: No relative path specified in \"C:\"",
        ),
        (
            "COPY \\\\h\\s /",
            "removing drive letter: removing drive letter: UNC paths are not supported",
        ),
    ] {
        let found = windows(&format!("{instruction}\n")).unwrap_err();
        assert_eq!(
            (found.to_string().as_str(), found.span().map(|span| span.start)),
            (error, Some(3))
        );
    }
}
