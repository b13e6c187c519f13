//! Whatever stands in a Dockerfile: it is lowered or refused with a line of it, twice the same, and what only tells of it
//! changes nothing. The texts are put together of words that mean something, so that most get beyond the parser, and of
//! every Dockerfile of `tests/conformance`, cut and mixed.

use std::path::Path;
use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use rbuild_frontend::{FrontendError, Lowered};

use crate::dump::dump;
use crate::fake::{ALPINE, Fake, lower_with, options};

/// What a line begins with.
const KEYWORDS: &[&str] = &[
    "FROM alpine",
    "FROM a AS b\nRUN",
    "from scratch as c\nCOPY",
    "ARG",
    "ENV",
    "RUN",
    "RUN <<EOF",
    "EOF\nRUN",
    "COPY",
    "COPY --from=a",
    "ADD",
    "WORKDIR",
    "USER",
    "EXPOSE",
    "VOLUME",
    "LABEL",
    "STOPSIGNAL",
    "HEALTHCHECK CMD",
    "CMD",
    "ENTRYPOINT",
    "SHELL",
    "ONBUILD RUN",
    "ONBUILD COPY a",
    "MAINTAINER",
    "# check=skip=all",
    "# check=experimental=rbuild",
    "# comment",
    "NOSUCH",
];

/// What stands behind it.
const WORDS: &[&str] = &[
    "a",
    "A=1",
    "B=${A:-x}",
    "$A",
    "${B%%*x}",
    "${C:?gone}",
    "\"$A\"",
    "\"$A",
    "'x y'",
    "[\"x\", \"y\"]",
    "[]",
    "--mount=type=cache,target=/c,id=$A",
    "--mount=from=a,target=/m",
    "--mount=type=secret,id=s,env=A",
    "--network=none",
    "--chown=$A:1",
    "--chmod=u+x",
    "--link",
    "--parents",
    "--exclude=**/x",
    "--interval=1s",
    "./a/./b",
    "<<EOF",
    "http://h.example/f",
    "/d/",
    ".",
    "..",
    "80-90/udp",
    "9",
    "NONE",
    "AS",
    "\\\n",
    "\u{e9}",
    "\0",
];

/// Every Dockerfile that BuildKit was asked about.
fn recorded() -> &'static [String] {
    static TEXTS: OnceLock<Vec<String>> = OnceLock::new();
    TEXTS.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance");
        let below = |dir: &Path| -> Vec<std::path::PathBuf> {
            let entries = std::fs::read_dir(dir).expect("the cases");
            let mut paths: Vec<_> = entries.map(|entry| entry.expect("a case").path()).collect();
            paths.sort();
            paths
        };
        let cases = below(&root).into_iter().flat_map(|group| below(&group));
        let texts = cases.map(|case| std::fs::read(case.join("Dockerfile")).expect("a Dockerfile"));
        texts
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .collect()
    })
}

fn of_words() -> impl Strategy<Value = String> {
    let words = prop::collection::vec(prop::sample::select(WORDS), 0..4);
    let line = (prop::sample::select(KEYWORDS), words)
        .prop_map(|(keyword, words)| format!("{keyword} {}", words.join(" ")));
    prop::collection::vec(line, 0..8).prop_map(|lines| format!("FROM alpine AS a\n{}\n", lines.join("\n")))
}

fn of_recorded() -> impl Strategy<Value = String> {
    let part = (any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(|(which, cut)| {
        let texts = recorded();
        let lines: Vec<&str> = texts[which.index(texts.len())].lines().collect();
        let from = cut.index(lines.len().max(1)).min(lines.len());
        lines[from..].join("\n")
    });
    prop::collection::vec(part, 1..4).prop_map(|parts| format!("FROM alpine AS a\n{}", parts.join("\n")))
}

fn lowered(text: &str, own_checks: bool) -> Result<Lowered, FrontendError> {
    let mut options = options(text);
    options.own_checks = own_checks;
    lower_with(&options, &Fake::new().every_image(ALPINE))
}

/// What is built, with its history.
fn built(outcome: &Result<Lowered, FrontendError>) -> String {
    match outcome {
        Ok(lowered) => format!("{}{:?}", dump(lowered), lowered.image),
        Err(error) => error.to_string(),
    }
}

fn judged(text: &str) -> Result<(), TestCaseError> {
    let plain = lowered(text, false);
    prop_assert_eq!(built(&lowered(text, false)), built(&plain), "twice the same");
    prop_assert_eq!(
        built(&lowered(text, true)),
        built(&plain),
        "rules of ours only tell"
    );
    let lines = u32::try_from(text.split('\n').count()).expect("a short text");
    let warnings = match &plain {
        Ok(lowered) => &lowered.warnings,
        Err(error) => {
            for span in &error.spans {
                prop_assert!(
                    span.start >= 1 && span.start <= span.end && span.end <= lines,
                    "{span:?} of {lines}"
                );
            }
            &error.warnings
        }
    };
    for warning in warnings {
        let span = warning.span;
        prop_assert!(
            span.start <= span.end && span.end <= lines,
            "{span:?} of {lines}: {warning:?}"
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn any_words_are_lowered_or_refused(text in of_words()) {
        judged(&text)?;
    }

    #[test]
    fn parts_of_dockerfiles_are_lowered_or_refused(text in of_recorded()) {
        judged(&text)?;
    }
}

/// How many of some texts are built.
fn share(texts: &[String]) -> (usize, usize) {
    (
        texts.iter().filter(|text| lowered(text, true).is_ok()).count(),
        texts.len(),
    )
}

#[test]
fn enough_of_them_get_beyond_the_parser() {
    let (built, all) = share(recorded());
    assert!(all > 500 && built * 3 > all * 2, "{built} of {all}");
    let mut runner = TestRunner::deterministic();
    let mut some = |strategy: BoxedStrategy<String>| -> Vec<String> {
        let tree = |_| strategy.new_tree(&mut runner).expect("a text").current();
        (0..300).map(tree).collect()
    };
    for texts in [some(of_words().boxed()), some(of_recorded().boxed())] {
        let (built, all) = share(&texts);
        assert!(built * 20 > all && built < all, "{built} of {all}");
    }
}
