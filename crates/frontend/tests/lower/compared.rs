//! What a comparison with BuildKit on many thousand generated Dockerfiles and attributes found, a case for each kind:
//! what BuildKit 73ed6825 says, as it says it.

use rbuild_frontend::subrequest::{SubrequestAnswer, TargetList};
use rbuild_frontend::{FrontendError, FrontendOptions, Lowered};

use crate::fake::{Fake, lower_with, options};

/// The rules and lines that are warned of, also where the file is wrong.
fn warned(result: &Result<Lowered, FrontendError>) -> Vec<(&'static str, u32)> {
    let warnings = match result {
        Ok(lowered) => &lowered.warnings,
        Err(error) => &error.warnings,
    };
    let one = |warning: &rbuild_frontend::LintWarning| (warning.rule.name(), warning.span.start);
    warnings.iter().map(one).collect()
}

fn with_patterns(dockerfile: &str, patterns: &[&str]) -> FrontendOptions {
    FrontendOptions {
        ignore_patterns: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
        ..options(dockerfile)
    }
}

#[test]
fn the_words_of_a_from_line_are_judged_before_the_line_is_refused() {
    for (dockerfile, message, expected) in [
        (
            "FROM alpine\nFROM alpine AS $B\n",
            "dockerfile parse error on line 2: invalid name for build stage: \"$B\", name can't start with a number or \
             contain symbols",
            &[("StageNameCasing", 2)][..],
        ),
        (
            "FROM alpine is it\n",
            "dockerfile parse error on line 1: FROM requires either one or three arguments",
            &[("FromAsCasing", 1)],
        ),
        (
            "FROM a b c d\n",
            "dockerfile parse error on line 1: FROM requires either one or three arguments",
            &[("FromAsCasing", 1)],
        ),
        (
            "# check=skip=FromAsCasing\nFROM a b c d\n",
            "dockerfile parse error on line 2: FROM requires either one or three arguments",
            &[],
        ),
        (
            "from a b\n",
            "dockerfile parse error on line 1: FROM requires either one or three arguments",
            &[],
        ),
        (
            "FROM alpine as\n",
            "dockerfile parse error on line 1: FROM requires either one or three arguments",
            &[],
        ),
        (
            "FROM a\nBOGUS\nFROM b as C\n",
            "dockerfile parse error on line 2: unknown instruction: BOGUS",
            &[],
        ),
    ] {
        let result = lower_with(&options(dockerfile), &Fake::new());
        let error = result.as_ref().unwrap_err().to_string();
        assert_eq!(error, message, "{dockerfile}");
        assert_eq!(warned(&result), expected, "{dockerfile}");
    }
}

#[test]
fn what_a_word_asked_for_is_warned_of_even_if_the_word_is_wrong() {
    for (dockerfile, expected) in [
        (
            "FROM alpine\nENV A=\"${unset:?need it}\"\n",
            &[("UndefinedVar", 2)][..],
        ),
        ("FROM alpine\nENV A=${B}${\n", &[("UndefinedVar", 2)]),
        ("FROM ${none}${\n", &[("UndefinedArgInFrom", 1)]),
        ("FROM --platform=${none}${ alpine\n", &[("UndefinedArgInFrom", 1)]),
    ] {
        let result = lower_with(&options(dockerfile), &Fake::new());
        assert!(result.is_err(), "{dockerfile}");
        assert_eq!(warned(&result), expected, "{dockerfile}");
    }
}

#[test]
fn ignore_patterns_are_judged_after_the_stages() {
    let error = |dockerfile: &str, patterns: &[&str]| {
        let error = lower_with(&with_patterns(dockerfile, patterns), &Fake::new()).unwrap_err();
        let source = std::error::Error::source(&error)
            .and_then(|source| source.source())
            .map(ToString::to_string);
        (error.to_string(), source)
    };
    assert_eq!(
        error("FROM alpine\n", &["!"]),
        ("illegal exclusion pattern: \"!\"".to_owned(), None)
    );
    let (text, cause) = error("FROM alpine\n", &["["]);
    assert_eq!(
        (text.as_str(), cause.as_deref()),
        ("invalid pattern \"[\"", Some("syntax error in pattern"))
    );
    // What is wrong with the stages is told first.
    assert_eq!(
        error("FROM UPPER\n", &["!"]).0,
        "failed to parse stage name \"UPPER\": invalid reference format: repository name (library/UPPER) must be lowercase"
    );
    assert!(
        lower_with(
            &with_patterns("FROM alpine\n", &["*.txt", "!a.txt"]),
            &Fake::new()
        )
        .is_ok()
    );
}

#[test]
fn a_malformed_name_is_told_in_dockers_words_and_why_beside_them() {
    for (name, why) in [
        ("%s", "\"library/%s\" is not a repository name"),
        ("a:b:c", "\"b:c\" is not a tag"),
        ("alpine:!", "\"!\" is not a tag"),
    ] {
        let error = lower_with(&options(&format!("FROM {name}\n")), &Fake::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("failed to parse stage name \"{name}\": invalid reference format")
        );
        let hint = error.hint().unwrap();
        assert!(
            hint.contains(why) && hint.contains("an image is named as in"),
            "{hint}"
        );
    }
}

#[test]
fn options_of_lint_are_judged_whatever_is_asked() {
    let mut wrong = options("FROM alpine\n");
    wrong
        .build_args
        .insert("BUILDKIT_DOCKERFILE_CHECK".to_owned(), "error=full".to_owned());
    let message = "failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK: failed to parse check option \"error=full\": \
                   strconv.ParseBool: parsing \"full\": invalid syntax";
    assert_eq!(TargetList::of(&wrong).unwrap_err().to_string(), message);
    assert_eq!(lower_with(&wrong, &Fake::new()).unwrap_err().to_string(), message);
    wrong
        .build_args
        .insert("BUILDKIT_DOCKERFILE_CHECK".to_owned(), "error=false".to_owned());
    assert!(TargetList::of(&wrong).is_ok() && lower_with(&wrong, &Fake::new()).is_ok());
}

#[test]
fn a_file_without_stages_has_no_targets_and_cannot_be_built() {
    let file = options("ARG a\n");
    let answer = SubrequestAnswer::Targets(TargetList::of(&file).unwrap());
    assert_eq!(
        String::from_utf8(answer.json().unwrap()).unwrap(),
        "{\n  \"targets\": null,\n  \"sources\": [\n    \"QVJHIGEK\"\n  ]\n}"
    );
    assert_eq!(
        String::from_utf8(answer.text().unwrap()).unwrap(),
        "TARGET DESCRIPTION\n"
    );
    let error = lower_with(&file, &Fake::new()).unwrap_err();
    assert_eq!(error.to_string(), "dockerfile contains no stages to build");
    assert_eq!(error.span(), None);
}

#[test]
fn blanks_of_unicode_neither_come_before_a_flag_nor_end_one() {
    // A no-break space: what follows is a name, if a bad one.
    let error = lower_with(&options("FROM \u{a0}--network=none\n"), &Fake::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to parse stage name \"--network=none\": invalid reference format"
    );
    let error = lower_with(
        &options("FROM alpine\nCOPY --chown=a\u{2003}b x y\n"),
        &Fake::new(),
    );
    assert!(error.is_ok(), "{error:?}");
}

#[test]
fn a_context_in_the_place_of_a_base_has_an_empty_config_and_one_in_the_place_of_a_stage_none() {
    let mut named = options("FROM alpine\n");
    named
        .build_contexts
        .insert("alpine".to_owned(), "https://github.com/a/b.git#v1".to_owned());
    let base = lower_with(&named, &Fake::new()).unwrap().base_image.unwrap();
    assert_eq!((base.os.as_str(), base.rootfs.diff_ids.len()), ("linux", 0));
    let mut named = options("FROM alpine AS a\nFROM a\n");
    named
        .build_contexts
        .insert("a".to_owned(), "docker-image://alpine".to_owned());
    assert_eq!(lower_with(&named, &Fake::new()).unwrap().base_image, None);
    // The same image without a context is the base.
    let plain = lower_with(&options("FROM alpine AS a\nFROM a\n"), &Fake::new());
    assert!(plain.unwrap().base_image.is_some());
}

#[test]
fn a_trigger_that_is_wrong_is_told_without_a_line_of_its_own() {
    let triggered = crate::fake::ALPINE.replace(r#""Cmd""#, r#""OnBuild":["BOGUS x"],"Cmd""#);
    let fake = Fake::new().image("docker.io/library/base:1", &triggered);
    let error = lower_with(&options("# c\nFROM base:1\n"), &fake).unwrap_err();
    assert!(
        error.to_string().starts_with("unknown instruction: BOGUS"),
        "{error}"
    );
    assert_eq!(error.span().map(|span| span.start), Some(2));
}

#[test]
fn a_context_in_a_stages_place_triggers_nothing_and_hands_no_triggers_on() {
    let triggered = crate::fake::ALPINE.replace(r#""Cmd""#, r#""OnBuild":["RUN x"],"Cmd""#);
    let fake = Fake::new().image("docker.io/library/base:1", &triggered);
    let mut options = options("FROM alpine AS a\nRUN never\n");
    options
        .build_contexts
        .insert("a".to_owned(), "docker-image://base:1".to_owned());
    let lowered = lower_with(&options, &fake).unwrap();
    assert_eq!(lowered.image.config.on_build, Vec::<String>::new());
    let created = lowered.base_image.as_ref().and_then(|base| base.created);
    assert_eq!(created, None);
    assert!(!crate::dump::dump(&lowered).contains("RUN"));
}

#[test]
fn a_run_of_nothing_is_refused_where_it_is_needed() {
    let error = lower_with(&options("FROM alpine\nRUN []\n"), &Fake::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to marshal LLB definition: arguments are required"
    );
    let unneeded = "FROM alpine\nRUN []\nFROM alpine\n";
    assert!(lower_with(&options(unneeded), &Fake::new()).is_ok());
}

/// What tools read out of a graph: the instruction of a base and of a step, and an agent that nobody named.
#[test]
fn the_graph_tells_the_instructions_as_they_are_written() {
    let lowered = crate::fake::lowered(
        "from  alpine \\\n as X\nrun --mount=type=ssh  echo  hi\nADD http://h/f /\nCOPY a b\n",
    );
    let mut told: Vec<&str> = lowered
        .graph
        .vertices()
        .filter_map(|vertex| vertex.meta.description.get("com.docker.dockerfile.v1.command"))
        .map(String::as_str)
        .collect();
    told.sort_unstable();
    assert_eq!(told, ["", "from  alpine  as X", "run --mount=type=ssh  echo  hi"]);
    let is_unnamed = |mount: &rbuild_graph::Mount| matches!(&mount.kind, rbuild_graph::MountKind::Ssh { id, .. } if id.is_empty());
    let agents = lowered.graph.vertices().filter(|vertex| match &vertex.op {
        rbuild_graph::Op::Exec(exec) => exec.mounts.iter().any(is_unnamed),
        _ => false,
    });
    assert_eq!(agents.count(), 1);
}

#[test]
fn a_file_of_nothing_has_its_own_words_where_it_is_only_asked() {
    let error = TargetList::of(&options("")).unwrap_err();
    assert_eq!(error.to_string(), "file with no instructions");
    let error = lower_with(&options(""), &Fake::new()).unwrap_err();
    assert_eq!(error.to_string(), "the Dockerfile cannot be empty");
}
