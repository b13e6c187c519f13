//! Answers to subrequests, in both forms. Expectations are derived from BuildKit's `frontend/subrequests` by reading.

use rbuild_dockerfile::Span;
use rbuild_frontend::FrontendOptions;
use rbuild_frontend::subrequest::{
    LintFailure, LintResults, Outline, Subrequest, SubrequestAnswer, TargetList,
};
use rbuild_oci::go_json::Json;

use crate::fake::{Fake, lower_with, options};

fn text(answer: &SubrequestAnswer) -> String {
    String::from_utf8(answer.text().unwrap()).unwrap()
}

fn json(answer: &SubrequestAnswer) -> String {
    String::from_utf8(answer.json().unwrap()).unwrap()
}

fn outline_with(mut options: FrontendOptions) -> Outline {
    options.outline = true;
    let lowered = lower_with(&options, &Fake::new()).unwrap_or_else(|error| panic!("{error}"));
    lowered.outline.unwrap()
}

fn outline(dockerfile: &str, target: &str) -> Outline {
    let mut options = options(dockerfile);
    options.target = (!target.is_empty()).then(|| target.to_owned());
    options.build_args.insert("GIVEN".into(), "678".into());
    outline_with(options)
}

/// Names, values and lines of arguments.
fn args(outline: &Outline) -> Vec<(&str, &str, u32)> {
    let of = |arg: &'_ rbuild_frontend::subrequest::OutlineArg| arg.location.0.start;
    outline
        .args
        .iter()
        .map(|arg| (arg.name.as_str(), arg.value.as_str(), of(arg)))
        .collect()
}

fn lint_with(mut options: FrontendOptions) -> LintResults {
    options.all_stages = options.target.is_none();
    match lower_with(&options, &Fake::new()) {
        Ok(lowered) => LintResults::new(&options, Json::Absent, lowered.warnings, None),
        Err(mut error) => {
            let warnings = std::mem::take(&mut error.warnings);
            let failure = LintFailure {
                message: error.to_string(),
                spans: error.spans,
            };
            LintResults::new(&options, Json::Absent, warnings, Some(failure))
        }
    }
}

#[test]
fn ids() {
    for subrequest in [
        Subrequest::Describe,
        Subrequest::Outline,
        Subrequest::Targets,
        Subrequest::Lint,
        Subrequest::ConvertLlb,
    ] {
        assert_eq!(Subrequest::from_id(subrequest.id()), Some(subrequest));
    }
    assert_eq!(Subrequest::from_id("frontend.subrequests.notexist"), None);
    assert_eq!(Subrequest::from_id(""), None);
}

#[test]
fn describe() {
    let answer = SubrequestAnswer::Describe;
    assert_eq!(
        text(&answer),
        "NAME                 VERSION DESCRIPTION\n\
         outline              1.0.0   List all parameters current build target supports\n\
         targets              1.0.0   List all targets current build supports\n\
         subrequests.describe 1.0.0   List available subrequest types\n"
    );
    let json = json(&answer);
    assert!(
        json.starts_with(
            "[\n  {\n    \"name\": \"frontend.outline\",\n    \"version\": \"1.0.0\",\n    \"type\": \"rpc\",\n    \
             \"description\": \"List all parameters current build target supports\",\n    \"opts\": [\n      {\n        \
             \"name\": \"target\",\n        \"description\": \"Target build stage\"\n      }\n    ],\n    \
             \"inputs\": null,\n    \"metadata\": [\n      {\n        \"name\": \"result.json\",\n        \
             \"description\": \"\"\n      },\n      {\n        \"name\": \"result.txt\",\n        \
             \"description\": \"\"\n      }\n    ],\n    \"refs\": null\n  },\n"
        ),
        "{json}"
    );
    // A list that is empty, and one that is not there.
    assert!(json.contains("supports\",\n    \"opts\": [],\n"), "{json}");
    assert!(json.contains("types\",\n    \"opts\": null,\n"), "{json}");
    let metadata = answer.metadata().unwrap();
    let keys: Vec<&str> = metadata.keys().map(String::as_str).collect();
    assert_eq!(keys, ["result.json", "result.txt", "version"]);
    assert_eq!(metadata["version"], b"1.0.0");
}

const TARGETS: &str = "\
# build makes it
FROM --platform=$BUILDPLATFORM alpine AS build
FROM build AS test
RUN x
FROM scratch
";

#[test]
fn targets() {
    let list = TargetList::of(&options(TARGETS)).unwrap();
    let answer = SubrequestAnswer::Targets(list);
    assert_eq!(
        text(&answer),
        "TARGET    DESCRIPTION\nbuild     makes it\ntest      \n(default) \n"
    );
    let expected = r#"{
  "targets": [
    {
      "name": "build",
      "description": "makes it",
      "base": "alpine",
      "platform": "$BUILDPLATFORM",
      "location": {
        "ranges": [
          {
            "start": {
              "line": 2
            },
            "end": {
              "line": 2
            }
          }
        ]
      }
    },
    {
      "name": "test",
      "base": "build","#;
    let json = json(&answer);
    assert!(json.starts_with(expected), "{json}");
    assert!(
        json.contains("    {\n      \"default\": true,\n      \"base\": \"scratch\",\n"),
        "{json}"
    );
    assert!(
        json.contains("\n  ],\n  \"sources\": [\n    \"IyBidWlsZCBtYWtlcyBpdAp"),
        "{json}"
    );
    assert_eq!(answer.metadata().unwrap().len(), 3);
}

#[test]
fn a_default_target_with_a_name_and_a_file_that_cannot_be_read() {
    let list = TargetList::of(&options("FROM $x AS only\n")).unwrap();
    assert_eq!(
        text(&SubrequestAnswer::Targets(list)),
        "TARGET         DESCRIPTION\nonly (default) \n"
    );
    let error = TargetList::of(&options("FROM a\nBADCMD\n")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "dockerfile parse error on line 2: unknown instruction: BADCMD"
    );
}

const ARGS: &str = "\
ARG INHERITED=pine
ARG UNUSED=$INHERITED
# SFX is a suffix
ARG SFX=al${INHERITED}
FROM ${SFX} AS first
ARG FOO=123
# GIVEN is a number
ARG GIVEN=456
FROM alpine AS second
ARG ELSEWHERE
FROM scratch AS third
ARG ABC=a
ARG EMPTY
# target defines it
FROM third AS target
COPY --from=first /a /
FROM second
";

#[test]
fn outline_of_arguments() {
    let found = outline(ARGS, "target");
    assert_eq!(
        (found.name.as_str(), found.description.as_str()),
        ("target", "defines it")
    );
    assert_eq!(
        args(&found),
        [
            ("INHERITED", "pine", 1),
            ("SFX", "alpine", 4),
            ("FOO", "123", 6),
            ("GIVEN", "678", 8),
            ("ABC", "a", 12),
            ("EMPTY", "", 13),
        ]
    );
    let answer = SubrequestAnswer::Outline(found);
    assert_eq!(
        text(&answer),
        "TARGET:      target\nDESCRIPTION: defines it\n\n\
         BUILD ARG   VALUE    DESCRIPTION\nINHERITED   pine     \nSFX         alpine   is a suffix\n\
         FOO         123      \nGIVEN       678      is a number\nABC         a        \nEMPTY                \n\n"
    );
    let json = json(&answer);
    assert!(
        json.starts_with(
            "{\n  \"name\": \"target\",\n  \"description\": \"defines it\",\n  \"args\": [\n    {\n      \
             \"name\": \"INHERITED\",\n      \"value\": \"pine\",\n      \"location\": {\n"
        ),
        "{json}"
    );
    assert!(
        json.contains("\"name\": \"EMPTY\",\n      \"location\""),
        "{json}"
    );
    assert!(
        !json.contains("secrets") && !json.contains("ssh") && !json.contains("cache"),
        "{json}"
    );
}

#[test]
fn outline_of_a_given_argument_is_of_the_line_that_takes_it() {
    let taken = outline("ARG GIVEN=1\nFROM alpine\nARG GIVEN\n", "");
    assert_eq!(args(&taken), [("GIVEN", "678", 3)]);
    let passed_on = outline("ARG OTHER=1\nFROM alpine\nARG OTHER\n", "");
    assert_eq!(args(&passed_on), [("OTHER", "1", 1)]);
}

#[test]
fn outline_of_the_default_target_has_its_own_arguments_only() {
    let found = outline(ARGS, "");
    assert_eq!(args(&found), [("ELSEWHERE", "", 10)]);
    assert_eq!(
        text(&SubrequestAnswer::Outline(found)),
        "BUILD ARG   VALUE   DESCRIPTION\nELSEWHERE           \n\n"
    );
}

#[test]
fn outline_follows_arguments_that_are_made_of_themselves() {
    let found = outline(
        "ARG FOO=123\nARG ABC=abc\nARG DEF=def\nARG FOO=${FOO}${ABC}\nARG BAR=${FOO}456\nARG FOO=${FOO}456${BAR}\n\
         FROM scratch\nARG FOO\nARG INFOO=123\nARG INBAR=${INFOO}456\nARG INFOO=${INFOO}456${INBAR}\n",
        "",
    );
    assert_eq!(
        args(&found),
        [
            ("ABC", "abc", 2),
            ("BAR", "123abc456", 5),
            ("FOO", "123abc456123abc456", 6),
            ("INBAR", "123456", 10),
            ("INFOO", "123456123456", 11),
        ]
    );
}

#[test]
fn an_argument_made_of_its_own_earlier_value_is_made_of_what_that_was_made_of() {
    let made = "ARG A=1\nARG B=2\nARG V=$A\nARG V=$V-$B\nFROM scratch\nARG V\n";
    assert_eq!(
        args(&outline(made, "")),
        [("A", "1", 1), ("B", "2", 2), ("V", "1-2", 4)]
    );
    // What the earlier value was made of is forgotten when it is not used.
    let anew = "ARG A=1\nARG B=2\nARG V=$A\nARG V=$B\nFROM scratch\nARG V\n";
    assert_eq!(args(&outline(anew, "")), [("B", "2", 2), ("V", "2", 4)]);
}

#[test]
fn an_argument_of_a_base_is_told_as_the_stage_nearest_to_the_target_has_it() {
    let found = outline(
        "ARG V=3\nFROM scratch AS a\nARG V=own\nARG W=base\nFROM a AS b\nARG W=nearer\nARG V\n",
        "",
    );
    // ARG V without a value only passes on what is in front of the first FROM.
    assert_eq!(args(&found), [("V", "3", 1), ("W", "nearer", 6)]);
}

#[test]
fn an_argument_of_a_base_is_told_before_that_of_a_stage_that_is_copied_from() {
    let found = outline(
        "FROM scratch AS copied\nARG V=copied\nARG W=copied\nRUN --mount=type=secret,id=s true\n\
         FROM scratch AS below\nARG V=below\nRUN --mount=type=secret,id=s,required true\n\
         FROM scratch AS beside\nARG W=beside\nARG X=beside\n\
         FROM below AS base\nARG U=base\nCOPY --from=beside / /\n\
         FROM base\nCOPY --from=copied / /\n",
        "",
    );
    // The base with all that it needs comes first (`dispatchState.args` of `dockerfile2llb/outline.go`).
    assert_eq!(
        args(&found),
        [
            ("V", "below", 6),
            ("W", "beside", 9),
            ("X", "beside", 10),
            ("U", "base", 12)
        ]
    );
    assert_eq!(found.secrets.len(), 1);
    assert_eq!(
        (found.secrets[0].required, found.secrets[0].location.0.start),
        (true, 7)
    );
    // Of several stages that are copied from BuildKit asks in the order of a map; here it is that of the file.
    let several = "FROM scratch AS a\nARG V=a\nFROM scratch AS b\nARG V=b\nFROM scratch\nCOPY --from=b / /\nCOPY --from=a / /\n";
    assert_eq!(args(&outline(several, "")), [("V", "a", 2)]);
}

#[test]
fn outline_of_mounts() {
    let found = outline(
        "FROM alpine AS first\n\
         RUN --mount=type=secret,target=/etc/passwd,required=true --mount=type=ssh true\n\
         FROM alpine AS second\n\
         RUN --mount=type=secret,id=unused --mount=type=ssh,id=ssh2 true\n\
         FROM alpine AS third\n\
         ARG GIVEN\n\
         RUN --mount=type=secret,id=second${GIVEN} \\\n  true\n\
         FROM third AS target\n\
         COPY --from=first /foo /\n\
         RUN --mount=type=ssh,id=ssh3,required true\n\
         RUN --mount=type=ssh,id=ssh3 true\n",
        "target",
    );
    let needs = |list: &[rbuild_frontend::subrequest::OutlineNeed]| -> Vec<(String, bool, Span)> {
        let need = |need: &rbuild_frontend::subrequest::OutlineNeed| {
            (need.name.clone(), need.required, need.location.0)
        };
        list.iter().map(need).collect()
    };
    assert_eq!(
        needs(&found.secrets),
        [
            ("passwd".to_owned(), true, Span::new(2, 2)),
            ("second678".to_owned(), false, Span::new(7, 8)),
        ]
    );
    assert_eq!(
        needs(&found.ssh),
        [
            ("default".to_owned(), false, Span::new(2, 2)),
            ("ssh3".to_owned(), true, Span::new(11, 11)),
        ]
    );
    let answer = SubrequestAnswer::Outline(found);
    assert_eq!(
        text(&answer),
        "TARGET: target\n\nBUILD ARG   VALUE   DESCRIPTION\nGIVEN       678     \n\n\
         SECRET      REQUIRED\npasswd      true\nsecond678   \n\nSSH       REQUIRED\ndefault   \nssh3      true\n\n"
    );
    assert!(json(&answer).contains("\"name\": \"passwd\",\n      \"required\": true,\n"));
}

#[test]
fn nothing_is_noted_unless_it_is_asked_for() {
    assert_eq!(lower_with(&options(ARGS), &Fake::new()).unwrap().outline, None);
}

#[test]
fn row50_outlines_are_paid_for_in_text() {
    use std::fmt::Write as _;
    // Each stage inherits the names of all before it: quadratic without a limit.
    let mut dockerfile = "FROM scratch AS s\nFROM s AS s0\n".to_owned();
    for number in 0..20_000 {
        let name = "n".repeat(60);
        writeln!(dockerfile, "ARG {name}{number}=s{number}").unwrap();
    }
    let (args, stages) = (
        dockerfile.split_off("FROM scratch AS s\nFROM s AS s0\n".len()),
        dockerfile,
    );
    let mut dockerfile = args + &stages;
    for number in 0..20_000 {
        let name = "n".repeat(60);
        writeln!(dockerfile, "FROM ${{{name}{number}}} AS s{}", number + 1).unwrap();
    }
    let mut options = options(&dockerfile);
    options.outline = true;
    let error = lower_with(&options, &Fake::new()).unwrap_err();
    assert!(
        error.to_string().starts_with("variables of this Dockerfile"),
        "{error}"
    );
}

const LINT: &str = "\
FROM alpine AS Base
ENV a \\
  b
CMD x

FROM alpine AS other
MAINTAINER x
";

/// As it is printed for people.
const LINT_SHOWN: &str = "
WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/
Stage name 'Base' should be lowercase
Dockerfile:1
--------------------
   1 | >>> FROM alpine AS Base
   2 |     ENV a \\
   3 |       b
--------------------

WARNING: LegacyKeyValueFormat - https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/
\"ENV key=value\" should be used instead of legacy \"ENV key value\" format
Dockerfile:2
--------------------
   1 |     FROM alpine AS Base
   2 | >>> ENV a \\
   3 | >>>   b
   4 |     CMD x
--------------------

WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/
JSON arguments recommended for CMD to prevent unintended behavior related to OS signals
Dockerfile:4
--------------------
   2 |     ENV a \\
   3 |       b
   4 | >>> CMD x
   5 |     
   6 |     FROM alpine AS other
--------------------

WARNING: MaintainerDeprecated - https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/
Maintainer instruction is deprecated in favor of using label
Dockerfile:7
--------------------
   5 |     
   6 |     FROM alpine AS other
   7 | >>> MAINTAINER x
   8 |     
--------------------
";

#[test]
fn lint_of_all_stages() {
    let results = lint_with(options(LINT));
    let answer = SubrequestAnswer::Lint(results);
    assert_eq!(text(&answer), LINT_SHOWN);
    let metadata = answer.metadata().unwrap();
    assert_eq!(metadata["result.statuscode"], b"1");
    assert_eq!(metadata["version"], b"1.0.0");
    let expected = r#"{
  "warnings": [
    {
      "ruleName": "StageNameCasing",
      "description": "Stage names should be lowercase",
      "url": "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/",
      "detail": "Stage name 'Base' should be lowercase",
      "location": {
        "ranges": [
          {
            "start": {
              "line": 1
            },
            "end": {
              "line": 1
            }
          }
        ]
      }
    },
    {
      "ruleName": "MaintainerDeprecated","#;
    let json = json(&answer);
    assert!(json.starts_with(expected), "{json}");
    let two_lines = r#"
        "ranges": [
          {
            "start": {
              "line": 2
            },
            "end": {
              "line": 2
            }
          },
          {
            "start": {
              "line": 3
            },"#;
    assert!(json.contains(two_lines), "{json}");
    assert!(
        json.contains(
            "\n  ],\n  \"sources\": [\n    {\n      \"filename\": \"Dockerfile\",\n      \"data\": \"RlJPTSBh"
        ),
        "{json}"
    );
    assert!(
        json.ends_with("\",\n      \"language\": \"Dockerfile\"\n    }\n  ]\n}"),
        "{json}"
    );
}

#[test]
fn lint_of_one_target_leaves_the_others_alone() {
    let mut options = options("FROM alpine AS a\nCMD x\nFROM alpine AS b\nENV a b\n");
    assert_eq!(lint_with(options.clone()).warnings.len(), 2);
    options.target = Some("a".to_owned());
    let results = lint_with(options);
    assert_eq!(results.warnings.len(), 1);
    assert_eq!(results.warnings[0].span, Span::new(2, 2));
}

#[test]
fn lint_of_nothing_wrong() {
    let answer = SubrequestAnswer::Lint(lint_with(options("FROM scratch\n")));
    assert_eq!(text(&answer), "");
    assert!(json(&answer).starts_with("{\n  \"warnings\": null,\n  \"sources\": [\n"));
    assert!(!json(&answer).contains("buildError"));
    assert_eq!(answer.metadata().unwrap()["result.statuscode"], b"0");
}

#[test]
fn lint_of_what_cannot_be_built() {
    let results = lint_with(options(
        "FROM scratch AS BadStageName\nMAINTAINER me@example.org\nBADCMD\nFROM x AS NotReached\n",
    ));
    let found: Vec<&str> = results
        .warnings
        .iter()
        .map(|warning| warning.rule.name())
        .collect();
    assert_eq!(found, ["StageNameCasing", "MaintainerDeprecated"]);
    let failure = "dockerfile parse error on line 3: unknown instruction: BADCMD";
    let found = results.failure.as_ref().unwrap();
    assert_eq!(found.message, failure);
    assert_eq!(found.spans, [Span::new(3, 3)]);
    let answer = SubrequestAnswer::Lint(results);
    assert!(
        !text(&answer).contains("unknown instruction"),
        "the failure is no part of result.txt"
    );
    let expected = format!(
        "\n  ],\n  \"buildError\": {{\n    \"message\": \"{failure}\",\n    \"location\": {{\n      \"ranges\": [\n"
    );
    assert!(json(&answer).contains(&expected), "{}", json(&answer));
    assert_eq!(answer.metadata().unwrap()["result.statuscode"], b"1");
}

#[test]
fn what_stands_before_the_line_that_cannot_be_read_is_judged_and_that_line_in_part() {
    for (dockerfile, expected) in [
        // MAINTAINER and FROM are judged before they are read, and on no later line.
        ("FROM scratch\nMAINTAINER\n", &["MaintainerDeprecated 2"] as &[_]),
        ("MAINTAINER x\nFROM scratch\n", &["MaintainerDeprecated 1"]),
        ("FROM scratch\nBAD\nMAINTAINER x\n", &[]),
        (
            "FROM scratch AS A\nFROM scratch AS 1B\n",
            &["StageNameCasing 1", "StageNameCasing 2"],
        ),
        ("FROM scratch as a b\n", &["FromAsCasing 1"]),
        ("FROM scratch AS a\nBAD\nFROM scratch as B\n", &[]),
        // Comments are judged once their instruction is read.
        (
            "# no\nARG A\nARG =x\nFROM scratch\n",
            &["InvalidDefinitionDescription 2"],
        ),
        ("# no\nARG =x\nFROM scratch\n", &[]),
        ("ARG =x\n# no\nARG A\nFROM scratch\n", &[]),
        (
            "# no\nFROM scratch AS a\n# no\nARG A\nBAD\n",
            &["InvalidDefinitionDescription 2", "InvalidDefinitionDescription 4"],
        ),
        (
            "FROM scratch\nBAD\n# no\nARG A\n# no\nFROM scratch AS b\n# no\nARG B\n",
            &[],
        ),
        // All of it where no line is wrong.
        ("# no\nARG A\n", &["InvalidDefinitionDescription 2"]),
        // In the order of the file, whatever is judged.
        (
            "# no\nFROM scratch AS A\nMAINTAINER x\nFROM scratch AS B\nBAD\n",
            &[
                "StageNameCasing 2",
                "InvalidDefinitionDescription 2",
                "MaintainerDeprecated 3",
                "StageNameCasing 4",
            ],
        ),
    ] {
        let dockerfile = format!("# check=experimental=all\n{dockerfile}");
        let results = lint_with(options(&dockerfile));
        assert!(results.failure.is_some(), "{dockerfile}");
        let found = results.warnings.iter();
        let found: Vec<String> = found
            .map(|warning| format!("{} {}", warning.rule.name(), warning.span.start - 1))
            .collect();
        assert_eq!(found, expected, "{dockerfile}");
    }
}

#[test]
fn a_failure_without_a_place_and_one_before_any_instruction() {
    let mut violated = options("# check=error=true\nFROM scratch AS Base\n");
    violated.filename = "x".to_owned();
    let answer = SubrequestAnswer::Lint(lint_with(violated));
    assert!(
        json(&answer).ends_with(
            "\"message\": \"lint violation found for rules: StageNameCasing\",\n    \"location\": {}\n  }\n}"
        ),
        "{}",
        json(&answer)
    );
    let nowhere = lint_with(options("ARG A\n")).failure.unwrap();
    assert_eq!(nowhere.message, "dockerfile contains no stages to build");
    assert!(nowhere.spans.is_empty(), "{:?}", nowhere.spans);
    // Lines that cannot be read are found before any instruction is looked at.
    let results = lint_with(options("FROM scratch AS Base\nENV a\n"));
    assert_eq!(results.failure.unwrap().message, "ENV must have two arguments");
    assert!(results.warnings.is_empty());
}

#[test]
fn row50_excerpts_of_a_large_file_are_bounded() {
    use rbuild_frontend::subrequest::FormError;
    // Each of many warnings is about the same many lines.
    let variables: String = (0..400)
        .map(|number| format!("  a{number}=$u{number} \\\n"))
        .collect();
    let lines = "  b=1 \\\n".repeat(10_000);
    let dockerfile = format!("FROM scratch\nLABEL \\\n{variables}{lines}  c=2\n");
    let results = lint_with(options(&dockerfile));
    assert_eq!(results.warnings.len(), 400);
    let answer = SubrequestAnswer::Lint(results);
    assert_eq!(answer.json(), Err(FormError::TooLong));
    assert_eq!(answer.text(), Err(FormError::TooLong));
    let legal = format!("FROM scratch\nLABEL \\\n{variables}  c=2\n");
    assert!(SubrequestAnswer::Lint(lint_with(options(&legal))).text().is_ok());
}
