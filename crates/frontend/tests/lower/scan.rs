//! What a scanner gets besides the result: `BUILDKIT_SBOM_SCAN_STAGE` and `BUILDKIT_SBOM_SCAN_CONTEXT`. The names are those that a
//! scanner found below `/run/src/extras` when BuildKit built the same Dockerfiles.

use rbuild_frontend::Lowered;
use rbuild_graph::Op;

use crate::fake::{Fake, lower_with, options};

const STAGES: &str = "FROM scratch AS One\nCOPY f /a\nFROM scratch\nARG BUILDKIT_SBOM_SCAN_STAGE\nCOPY --from=one a b\n\
    FROM scratch as unused\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nCOPY f c\nFROM scratch AS last\nCOPY --from=1 b c\n";

fn with_args(dockerfile: &str, build_args: &[(&str, &str)]) -> Lowered {
    let mut options = options(dockerfile);
    for (name, value) in build_args {
        options.build_args.insert((*name).into(), (*value).into());
    }
    lower_with(&options, &Fake::new()).unwrap_or_else(|error| panic!("{error}\n{dockerfile}"))
}

#[track_caller]
fn scanned(dockerfile: &str, build_args: &[(&str, &str)], expected: &[&str]) {
    let lowered = with_args(dockerfile, build_args);
    let names: Vec<&str> = lowered.scan_targets.keys().map(String::as_str).collect();
    assert_eq!(names, expected, "{dockerfile} {build_args:?}");
    for (name, edge) in &lowered.scan_targets {
        if let Some(edge) = edge {
            assert!(lowered.graph.get(&edge.vertex).is_some(), "{name}: {dockerfile}");
        }
    }
}

#[test]
fn stages_and_the_context_are_scanned_when_they_are_named() {
    let all = |global: &str| format!("{global}{STAGES}");
    let [stage, context] = ["BUILDKIT_SBOM_SCAN_STAGE", "BUILDKIT_SBOM_SCAN_CONTEXT"];
    let global = all(&format!("ARG {stage}\n"));
    scanned(&global, &[(stage, "true")], &["one", "stage-1"]);
    scanned(&global, &[], &[]);
    let both = all(&format!("ARG {stage}=1\nARG {context}\n"));
    scanned(&both, &[(context, "last")], &["context", "one", "stage-1"]);
    scanned(&both, &[(context, "last"), (stage, "f")], &["context"]);
    // By name; the context only if the last stage is named.
    let named = all(&format!("ARG {stage}=one,stage-1\nARG {context}=one\n"));
    scanned(&named, &[], &["one", "stage-1"]);
    scanned(&all(&format!("ARG {stage}=One\n")), &[], &[]);
    // Undeclared is unset.
    scanned(STAGES, &[(stage, "true"), (context, "true")], &["stage-1"]);
    scanned(
        &all(&format!("ARG {stage}=maybe\nARG {context}=t\n")),
        &[],
        &["context"],
    );
}

#[test]
fn the_last_value_of_a_stage_holds_and_goes_on_to_stages_on_it() {
    let on = |lines: &str| {
        let lines = lines.replace("STAGE", "BUILDKIT_SBOM_SCAN_STAGE");
        format!("FROM scratch AS a\n{lines}COPY f /\nFROM a AS b\nCOPY f /b\nFROM b AS c\nCOPY f /c\n")
    };
    scanned(&on("ARG STAGE=true\n"), &[], &["a", "b"]);
    scanned(&on("ARG STAGE=true\nARG STAGE=false\n"), &[], &[]);
    scanned(&on("ARG STAGE=true\nARG STAGE\n"), &[], &["a", "b"]);
    let empty = "ARG BUILDKIT_SBOM_SCAN_STAGE=true\nFROM scratch AS e\nFROM scratch AS b\nCOPY --from=e / /\nCOPY f /b\n";
    scanned(empty, &[], &["e"]);
    assert_eq!(
        with_args(empty, &[]).scan_targets["e"],
        None,
        "nothing is in an empty stage"
    );
}

#[test]
fn stages_that_the_target_does_not_need_are_not_scanned_when_all_are_read() {
    let mut options = options(STAGES);
    options.all_stages = true;
    let lowered = lower_with(&options, &Fake::new()).unwrap();
    let names: Vec<&str> = lowered.scan_targets.keys().map(String::as_str).collect();
    assert!(
        names.is_empty(),
        "`unused` asks for it, but nothing is copied from it: {names:?}"
    );
}

#[test]
fn what_is_not_built_here_is_not_scanned() {
    let global = "ARG BUILDKIT_SBOM_SCAN_STAGE=true\nARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n";
    let text = format!(
        "{global}FROM scratch AS a\nCOPY f /\nFROM scratch AS b\nCOPY f /\nFROM scratch AS c\n\
         COPY --from=a f /a\nCOPY --from=b /f /b\nCOPY --from=alpine f /c\n"
    );
    let names = |text: &str, context: &str| -> Vec<String> {
        let mut options = options(text);
        let image = "docker-image://alpine".to_owned();
        options.build_contexts.insert(context.to_owned(), image);
        let lowered = lower_with(&options, &Fake::new()).unwrap();
        lowered.scan_targets.into_keys().collect()
    };
    assert_eq!(names(&text, "unused"), ["a", "b", "context"]);
    assert_eq!(names(&text, "a"), ["b", "context"]);
    assert!(names(&text, "c").is_empty(), "a context is the result");
}

#[test]
fn of_the_context_what_is_used_is_scanned() {
    let paths = |dockerfile: &str| {
        let lowered = with_args(&format!("ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n{dockerfile}"), &[]);
        let edge = lowered.scan_targets["context"].as_ref().expect("a context");
        match &lowered.graph.get(&edge.vertex).expect("in the graph").op {
            Op::Source(source) => source.attrs.get("local.followpaths").cloned(),
            other => panic!("a source, not {other:?}"),
        }
    };
    let used = paths("FROM scratch\nCOPY f g* /\nCOPY d/e /x\n");
    assert_eq!(used.as_deref(), Some(r#"["d/e","f","g*"]"#));
    assert_eq!(paths("FROM scratch\nCOPY f /\nCOPY . /all\n"), None);
    assert_eq!(paths("FROM alpine\nRUN x\n"), None, "nothing is used: all of it");
}
