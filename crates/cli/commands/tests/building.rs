//! What a build prints and writes, and how it ends.

use super::*;

#[test]
fn a_quiet_build_prints_the_id_and_nothing_else() {
    let ran = run_line(&["build", "-q", "-t", "a", "."]);
    assert_eq!(ran.code, ExitCode::Success);
    assert_eq!(ran.stdout.text(), format!("{}\n", Digest::sha256(b"c")));
    assert_eq!(ran.stderr.text(), "");
    assert_eq!(ran.asked, ["build [\"a\"]"]);
}

#[test]
fn result_files_are_written_when_the_build_succeeds_only() {
    let dir = tempfile::tempdir().unwrap();
    let (iid, meta) = (dir.path().join("iid"), dir.path().join("meta.json"));
    let line = [
        "build",
        "--progress=none",
        "--iidfile",
        iid.to_str().unwrap(),
        "--metadata-file",
        meta.to_str().unwrap(),
        ".",
    ];
    std::fs::write(&iid, "stale").unwrap();
    assert_eq!(run_line(&line).code, ExitCode::Success);
    assert_eq!(
        std::fs::read_to_string(&iid).unwrap(),
        Digest::sha256(b"c").as_str()
    );
    let expected = format!(
        "{{\n  \"containerimage.digest\": \"{}\"\n}}",
        Digest::sha256(b"m")
    );
    assert_eq!(std::fs::read_to_string(&meta).unwrap(), expected);
    std::fs::remove_file(&meta).unwrap();
    let fake = Fake {
        build: Some(EngineError::Failed(Box::new(Diagnostic::new("boom")))),
        ..Fake::default()
    };
    let ran = run_with(fake, &line, b"");
    assert_eq!(ran.code, ExitCode::Failure);
    assert_eq!(ran.stderr.text(), "ERROR: boom\n");
    assert!(
        !iid.exists() && !meta.exists(),
        "a failed build leaves no result file"
    );
}

#[test]
fn a_stopped_build_ends_with_130() {
    let ran = run_with(
        Fake {
            build: Some(EngineError::Cancelled),
            ..Fake::default()
        },
        &["build", "-q", "."],
        b"",
    );
    assert_eq!(ran.code, ExitCode::Cancelled);
    assert_eq!(ran.stdout.text(), "");
    assert_eq!(ran.stderr.text(), "ERROR: canceled: context canceled\n");
}

#[test]
fn wrong_usage_does_not_open_the_engine() {
    let ran = run_line(&["build", "--policy=filename=x.rego", "."]);
    assert_eq!(ran.code, ExitCode::Failure);
    assert_eq!(
        ran.stderr.text(),
        "ERROR: not supported yet: --policy filename=x.rego: no Rego is evaluated here; buildx evaluates it when it builds through `rbuild serve`\n"
    );
    assert!(ran.asked.is_empty());
}

#[test]
fn warnings_of_flags_go_to_standard_error() {
    let ran = run_line(&["build", "-q", "--squash", "-o", "type=image,tpyo=\x1b[2J", "."]);
    assert_eq!(ran.code, ExitCode::Success);
    assert_eq!(
        ran.stderr
            .text()
            .lines()
            .filter(|line| line.starts_with("WARNING: "))
            .count(),
        2
    );
}

#[test]
fn a_reader_that_went_away_ends_quietly() {
    struct Closed;
    impl io::Write for Closed {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (mut env, _, stderr) = env(&[], b"");
    env.stdout = Box::new(Closed);
    let cli = Cli::try_parse_from(["rbuild", "version"]).unwrap();
    let done = run(cli, &mut env, &|_| Err(EngineError::Cancelled));
    assert_eq!(report(done, &mut env), ExitCode::Success);
    assert_eq!(stderr.text(), "");
}

#[test]
fn a_build_is_given_to_an_engine_and_says_so() {
    let ran = run_line(&["build", "--load=unix:///x.sock", "--progress=plain", "."]);
    assert_eq!(ran.code, ExitCode::Success);
    let id = Digest::sha256(b"c");
    assert_eq!(
        ran.asked,
        [
            "build []".to_owned(),
            format!("give [\"{id}\"] to unix:///x.sock")
        ]
    );
    let said = ran.stderr.text();
    assert!(
        said.contains("loaded into unix:///x.sock: 1 of 3 layers, 1.5kB"),
        "{said}"
    );
    let quiet = run_line(&["build", "-q", "--load=unix:///x.sock", "."]);
    assert_eq!(quiet.stderr.text(), "");
}
