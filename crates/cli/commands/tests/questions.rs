//! `--check` and `--call`: what is printed of the answers.

use rbuild_oci::go_json::Json;

use super::*;

fn lint(warnings: &[(Rule, u32)], failure: Option<&str>) -> SubrequestAnswer {
    let options = FrontendOptions {
        dockerfile: b"FROM a\nENV \x1b[2J x\nCMD y\n".to_vec(),
        filename: "inside".to_owned(),
        ..FrontendOptions::default()
    };
    let warning = |(rule, line): &(Rule, u32)| LintWarning {
        rule: *rule,
        message: "detail".to_owned(),
        description: "d",
        url: "https://example.test/r",
        span: Span::new(*line, *line),
    };
    let failure = failure.map(|message| LintFailure {
        message: message.to_owned(),
        spans: vec![Span::new(1, 1)],
    });
    let warnings = warnings.iter().map(warning).collect();
    SubrequestAnswer::Lint(LintResults::new(&options, Json::Absent, warnings, failure))
}

fn ask(answer: SubrequestAnswer, line: &[&str]) -> Ran {
    let fake = Fake {
        answer: Some(answer),
        ..Fake::default()
    };
    run_with(fake, line, b"")
}

const CHECK: [&str; 4] = ["build", "--progress=none", "--check", "."];

#[test]
fn a_check_without_findings_succeeds() {
    let ran = ask(lint(&[], None), &CHECK);
    assert_eq!(ran.code, ExitCode::Success);
    assert_eq!(ran.stdout.text(), "Check complete, no warnings found.\n");
    assert_eq!(ran.stderr.text(), "");
    assert_eq!(ran.asked, ["call Lint None"]);
}

#[test]
fn a_check_with_findings_fails_without_another_word() {
    let found = lint(&[(Rule::LegacyKeyValueFormat, 2)], None);
    let ran = ask(found.clone(), &CHECK);
    assert_eq!(ran.code, ExitCode::Failure);
    assert_eq!(ran.stderr.text(), "");
    assert_eq!(
        ran.stdout.text(),
        "Check complete, 1 warning has been found!\n\n\
         WARNING: LegacyKeyValueFormat - https://example.test/r\ndetail\nDockerfile:2\n--------------------\n   \
         1 |     FROM a\n   2 | >>> ENV \\x1b[2J x\n   3 |     CMD y\n   4 |     \n--------------------\n"
    );
    let ignoring = ["build", "--progress=none", "--call=check,ignorestatus=true", "."];
    assert_eq!(ask(found, &ignoring).code, ExitCode::Success);
}

#[test]
fn a_check_of_what_cannot_be_built_ends_with_the_error() {
    let found = lint(
        &[(Rule::LegacyKeyValueFormat, 2), (Rule::JsonArgsRecommended, 3)],
        Some("no such stage"),
    );
    let ran = ask(found, &CHECK);
    assert_eq!(ran.code, ExitCode::Failure);
    let stdout = ran.stdout.text();
    assert!(
        stdout.starts_with("Check complete, 2 warnings have been found!\n\nWARNING: "),
        "{stdout}"
    );
    assert!(stdout.ends_with("--------------------\n\n"), "{stdout}");
    assert!(
        ran.stderr
            .text()
            .starts_with("ERROR: no such stage\nDockerfile:1\n--------------------\n   1 | >>> FROM a\n"),
        "{}",
        ran.stderr.text()
    );
    let ran = ask(lint(&[], Some("no such stage")), &CHECK);
    assert_eq!((ran.code, ran.stdout.text().as_str()), (ExitCode::Failure, ""));
}

#[test]
fn answers_are_printed_as_text_or_json() {
    let options = FrontendOptions {
        dockerfile: b"# a first\nFROM x AS a\n".to_vec(),
        ..FrontendOptions::default()
    };
    let list = || SubrequestAnswer::Targets(TargetList::of(&options).unwrap());
    let ran = ask(
        list(),
        &["build", "--progress=none", "--call=targets", "--target=b", "."],
    );
    assert_eq!(ran.stdout.text(), "TARGET      DESCRIPTION\na (default) first\n");
    assert_eq!(ran.asked, ["call Targets Some(\"b\")"]);
    let dir = tempfile::tempdir().unwrap();
    let meta = dir.path().join("meta.json");
    let file = format!("--metadata-file={}", meta.display());
    let ran = ask(list(), &["build", "-q", "--call=targets,format=json", &file, "."]);
    assert_eq!(ran.code, ExitCode::Success);
    let printed: serde_json::Value = serde_json::from_str(&ran.stdout.text()).unwrap();
    assert_eq!(printed["targets"][0]["description"], "first");
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(meta).unwrap()).unwrap();
    assert_eq!(written["result.json"], printed);
    assert_eq!(written["version"], "1.0.0");
    let ran = run_line(&["build", "-q", "--call=outline", "."]);
    assert_eq!(
        (ran.code, ran.stderr.text().as_str()),
        (ExitCode::Failure, "ERROR: boom\n")
    );
}
