//! Dockerfiles made to exhaust the builder (security row 50), and secrets in names (row 41).

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::fake::{Fake, lower_with, lowered, options};

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

#[test]
fn row50_doubling_a_variable_is_stopped_with_its_line() {
    let dockerfile = format!("FROM alpine\nENV A=xxxxxxxx\n{}", "ENV A=$A$A\n".repeat(60));
    let error = lower_with(&options(&dockerfile), &Fake::new()).unwrap_err();
    assert!(error.to_string().contains("expansion is more than"), "{error}");
    assert_eq!(error.span().unwrap().start, 20);
}

#[test]
fn row50_many_large_expansions_share_one_limit() {
    let dockerfile = format!(
        "FROM alpine\nENV A={}\n{}",
        "x".repeat(60_000),
        "LABEL a=$A$A$A$A\nRUN echo $A\n".repeat(3_000)
    );
    let error = lower_with(&options(&dockerfile), &Fake::new()).unwrap_err();
    assert!(error.to_string().contains("in all"), "{error}");
}

#[test]
fn row50_a_long_chain_of_stages_needs_no_stack() {
    let mut dockerfile = "FROM alpine AS s0\n".to_owned();
    for number in 1..20_000 {
        writeln!(dockerfile, "FROM s{} AS s{number}", number - 1).unwrap();
    }
    let (lowered, elapsed) = timed(|| lowered(&dockerfile));
    assert_eq!(lowered.stages.len(), 20_000);
    assert!(lowered.stages.iter().all(|stage| stage.needed));
    assert!(elapsed < Duration::from_secs(20), "took {elapsed:?}");
}

#[test]
fn row50_a_long_chain_of_copies_needs_no_stack() {
    let mut dockerfile = "FROM scratch AS s0\nCOPY a a\n".to_owned();
    for number in 1..5_000 {
        writeln!(
            dockerfile,
            "FROM scratch AS s{number}\nCOPY --from=s{} a a",
            number - 1
        )
        .unwrap();
    }
    assert!(lowered(&dockerfile).result.is_some());
}

#[test]
fn row50_many_relative_working_directories_end_in_an_error() {
    let dockerfile = format!("FROM alpine\n{}", "WORKDIR abcdefgh\n".repeat(20_000));
    let error = lower_with(&options(&dockerfile), &Fake::new()).unwrap_err();
    assert!(error.to_string().contains("in all"), "{error}");
    assert!(lower_with(&options(&dockerfile[..12 + 400 * 17]), &Fake::new()).is_ok());
}

#[test]
fn row50_named_contexts_that_name_each_other_end() {
    let mut options = options("FROM a\nCOPY --from=b /x /\n");
    let names = [
        ("a", "docker-image://b"),
        ("b", "docker-image://a"),
        ("self", "docker-image://self"),
    ];
    for (name, value) in names {
        options.build_contexts.insert(name.to_owned(), value.to_owned());
    }
    let fake = ["a", "b"].iter().fold(Fake::new(), |fake, name| {
        fake.image(&format!("docker.io/library/{name}:latest"), crate::fake::ALPINE)
    });
    // A context's image is a name for the registry, never another context's.
    assert!(lower_with(&options, &fake).is_ok());
    options.dockerfile = b"FROM self\n".to_vec();
    assert!(lower_with(&options, &fake).is_err(), "no such image");
}

#[test]
fn row41_a_secret_variable_shows_as_stars() {
    let dockerfile =
        "FROM alpine\nENV TOKEN=canary\nRUN --mount=type=secret,id=t,env=TOKEN login $TOKEN \"${TOKEN}\"\n";
    let text = crate::dump::dump(&lowered(dockerfile));
    assert!(text.contains("login **** \"****\""), "{text}");
}
