//! Wrong input gets an exit code other than 0 and a message that says where, what, and what to do. Messages that BuildKit
//! and rbuild share are conformance cases; here is what rbuild adds, and how it ends.

use rbuild_testkit::command::Ran;

use crate::e2e::fixture::{Fixture, RBUILD};

/// Builds a Dockerfile that must fail, and asserts every part of the message.
#[track_caller]
fn fails(dockerfile: &str, files: &[(&str, &str)], parts: &[&str]) -> Ran {
    let fixture = Fixture::new(dockerfile);
    for (path, text) in files {
        fixture.context.file(path, text);
    }
    let before = fixture.residue();
    let ran = fixture.build().fails();
    for part in parts {
        assert!(ran.stderr.contains(part), "the message lacks {part:?}\n{ran}");
    }
    fixture.assert_clean_since(&before);
    ran
}

#[test]
fn a_missing_dockerfile_is_named_with_where_it_was_looked_for() {
    let fixture = Fixture::new("");
    std::fs::remove_file(fixture.context.dir().join("Dockerfile")).unwrap();
    let ran = fixture.build().fails().says("Dockerfile");
    assert!(
        ran.stderr.contains(&fixture.context.dir().display().to_string()),
        "{ran}"
    );
    fixture
        .build()
        .args(["-f", "/no/such/Dockerfile"])
        .fails()
        .says("/no/such/Dockerfile")
        .says("hint: /no/such/Dockerfile is not there; give another with -f");
}

#[test]
fn what_is_no_context_and_no_dockerfile_is_told_apart_from_what_is_not_there() {
    let fixture = Fixture::new("FROM scratch\n");
    fixture.context.file("sub/Dockerfile/in", "FROM scratch\n");
    let dir = fixture.context.dir();
    let build = |words: &[&str]| fixture.rbuild(["build"]).args(words).current_dir(dir).fails();
    build(&["Dockerfile"])
        .says("path \"Dockerfile\" not found")
        .says("hint: Dockerfile is a file; give the directory to build from, and a Dockerfile with -f");
    assert!(!build(&["nothing"]).stderr.contains("hint: "));
    build(&["sub"])
        .says("failed to read dockerfile Dockerfile")
        .says("hint: it is a directory or a device; name a file with -f");
    for words in [&[][..], &["-t"], &["--build-arg", "."]] {
        let ran = fixture.rbuild(["build"]).args(words).current_dir(dir).fails();
        let tip = "tip: name the directory to build from; `.` is the one you are in";
        let is_told = ran.stderr.contains(tip);
        assert_eq!(is_told, words != ["-t"], "{ran}");
    }
}

#[test]
fn a_full_disk_of_the_output_is_not_taken_for_the_stores() {
    let fixture = Fixture::new("FROM scratch\nCOPY a /\n");
    fixture.context.file("a", "x".repeat(1 << 20));
    for kind in ["tar", "oci", "docker"] {
        let output = format!("type={kind},dest=/dev/full");
        let ran = fixture.build().args(["-o", &output]).fails();
        let ran = ran.says("No space left on device");
        let ran = ran.says("hint: the file system that the output goes to is full");
        assert!(!ran.stderr.contains("prune"), "{ran}");
    }
}

#[test]
fn what_is_read_is_named_and_so_is_what_was_looked_for() {
    let fixture = Fixture::new("FROM scratch\n");
    fixture.context.file("archive", "junk");
    let archive = fixture.context.dir().join("archive");
    fixture
        .rbuild(["load", "-i"])
        .arg(&archive)
        .fails()
        .says(&format!("ERROR: load {}: read archive: ", archive.display()));
    fixture
        .rbuild(["bake"])
        .current_dir(fixture.context.dir())
        .fails()
        .says("couldn't find a bake definition")
        .says("docker-bake.hcl")
        .says("name a file with -f");
}

#[test]
fn a_missing_context_is_named() {
    let fixture = Fixture::new("FROM scratch\n");
    fixture
        .rbuild(["build", "/no/such/context"])
        .fails()
        .says("/no/such/context");
}

#[test]
fn a_misspelt_instruction_flag_or_stage_gets_a_suggestion_line_and_excerpt() {
    fails(
        "FROM busybox\n\nCPOY a b\n",
        &[],
        &["Dockerfile:3", "unknown instruction: CPOY (did you mean COPY?)"],
    );
    fails(
        "FROM busybox\nCOPY --form=x a b\n",
        &[],
        &["Dockerfile:2", "unknown flag: --form (did you mean from?)"],
    );
    fails(
        "FROM busybox AS builder\nFROM busybox\nCOPY --from=bulider /a /b\n",
        &[],
        &["Dockerfile:3", "bulider", "(did you mean builder?)"],
    );
    fails(
        "FROM busybox\nRUN --mount=type=cahce,target=/c true\n",
        &[],
        &[
            "Dockerfile:2",
            "unsupported mount type \"cahce\" (did you mean cache?)",
        ],
    );
}

#[test]
fn a_missing_source_says_what_was_looked_for_where_and_what_is_near() {
    let ran = fails(
        "FROM busybox\nCOPY src/mian.c /\n",
        &[("src/main.c", ""), ("other", "")],
        &[
            "Dockerfile:2",
            "\"/src/mian.c\": not found, did you mean \"/src/main.c\"?",
        ],
    );
    ran.says("hint: looked for \"/src/mian.c\" in the build context");
}

#[test]
fn a_source_that_an_ignore_rule_removed_names_the_rule() {
    fails(
        "FROM busybox\nCOPY build/app /app\n",
        &[("build/app", ""), (".dockerignore", "*.log\nbuild\n")],
        &[
            "Dockerfile:2",
            "\"/build/app\": not found (left out by \"build\" in .dockerignore, line 2)",
            "hint: .dockerignore leaves it out in line 2: build",
        ],
    );
}

#[test]
fn a_failing_step_shows_its_output_exit_code_and_line() {
    let ran = fails(
        "FROM busybox\nRUN echo the reason >&2; \\\n    exit 42\n",
        &[],
        &[
            "Dockerfile:2",
            "the reason",
            "did not complete successfully: exit code: 42",
            ">>>",
        ],
    );
    assert!(ran.stderr.lines().count() < 60, "too long to read\n{ran}");
}

#[test]
fn a_step_killed_by_a_signal_says_so() {
    fails(
        "FROM busybox\nRUN sh -c 'kill -9 $$'; exit $?\n",
        &[],
        &["Dockerfile:2", "exit code: 137"],
    );
}

#[test]
fn a_program_that_is_not_there_or_has_no_shell_says_so() {
    for (dockerfile, told) in [
        ("FROM scratch\nRUN echo hello\n", "run \"/bin/sh\": No such file"),
        (
            "FROM busybox\nRUN [\"/bin/nothing\", \"x\"]\n",
            "run \"/bin/nothing\": No such file",
        ),
    ] {
        fails(
            dockerfile,
            &[],
            &["Dockerfile:2", "did not complete successfully", told],
        );
    }
}

#[test]
fn a_directory_or_a_pipe_as_dockerfile_is_refused_and_does_not_hang() {
    let fixture = Fixture::new("FROM scratch\n");
    std::fs::create_dir(fixture.context.dir().join("dir")).unwrap();
    fixture
        .build()
        .arg("-f")
        .arg(fixture.context.dir().join("dir"))
        .fails()
        .says("dir is not a regular file");
    // Who names a pipe writes it; nobody writes this one.
    let path = fixture.context.dir().join("Dockerfile");
    std::fs::remove_file(&path).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    let ran = fixture.build().fails().says("is not a regular file");
    assert!(ran.elapsed < std::time::Duration::from_secs(20), "{ran}");
}

#[test]
fn a_huge_dockerfile_is_refused() {
    let fixture = Fixture::new(&format!("FROM scratch\n{}", "# comment\n".repeat(2 << 20)));
    let ran = fixture
        .build()
        .fails()
        .says("Dockerfile\" is larger than 16777216 bytes");
    assert!(ran.elapsed < std::time::Duration::from_secs(20), "{ran}");
}

#[test]
fn an_unknown_flag_or_subcommand_is_a_usage_error() {
    let fixture = Fixture::new("FROM scratch\n");
    fixture
        .build()
        .arg("--no-such-flag")
        .fails()
        .says("--no-such-flag");
    fixture
        .rbuild(["biuld", "."])
        .fails()
        .says("unrecognized subcommand 'biuld'");
}

#[test]
fn contradictions_of_the_command_line_are_told() {
    let fixture = Fixture::new("FROM scratch\nLABEL a=b\n");
    fixture
        .build_of()
        .args(["-f", "-"])
        .arg("-")
        .stdin("FROM scratch\n")
        .fails()
        .says("can't use stdin for both build context and dockerfile");
    fixture
        .build()
        .args(["-o", "type=nonsense"])
        .fails()
        .says("nonsense");
    fixture
        .build()
        .args(["--platform", "not/a/platform/at/all"])
        .fails()
        .says("failed to parse target platform not/a/platform/at/all: ");
    fixture
        .build()
        .args(["--secret", "id=x,nonsense=y"])
        .fails()
        .says("nonsense");
    fixture
        .build()
        .args(["-t", "UPPER/Case:1"])
        .fails()
        .says("invalid tag \"UPPER/Case:1\"");
    fixture
        .build()
        .arg("--push")
        .fails()
        .says("tag is needed when pushing to registry");
}

#[test]
fn invalid_bytes_in_a_dockerfile_do_not_crash_it() {
    let fixture = Fixture::new("");
    fixture
        .context
        .file("Dockerfile", b"FROM scratch\nLABEL a=\xff\xfe\n\0\n");
    let ran = fixture.build().fails().says("unknown instruction: \\x00");
    assert_eq!(ran.status.code(), Some(1), "{ran}");
}

#[test]
fn help_and_version_work_without_a_home() {
    for args in [&["--help"][..], &["build", "--help"], &["--version"]] {
        let ran = rbuild_testkit::command::RbuildCommand::new(RBUILD)
            .args(args)
            .ok();
        assert!(!ran.stdout.is_empty(), "{ran}");
    }
}

#[test]
fn a_value_that_does_not_exist_gets_the_nearest_one_that_does() {
    let fixture = Fixture::new("FROM scratch\nLABEL a=b\n");
    for (flag, near) in [
        ("--progress=plian", "did you mean \"plain\"?"),
        ("--output=type=imgae", "did you mean \"image\"?"),
        ("--output=type=image,compression=gzp", "did you mean \"gzip\"?"),
        ("--network=hots", "did you mean \"host\"?"),
        ("--network=elsewhere", "there are default, none, host"),
        ("--allow=network.hots", "did you mean \"network.host\"?"),
        ("--call=outlien", "did you mean \"outline\"?"),
        ("--metadata-fiel=x", "--metadata-file"),
    ] {
        fixture
            .rbuild(["build", flag])
            .arg(fixture.context.dir())
            .fails()
            .says(near);
    }
    fixture.rbuild(["du", "--format=jsno"]).fails().says("json");
    fixture.rbuild(["imagetools", "crate"]).fails().says("create");
}

#[test]
fn a_name_that_is_no_reference_is_told_by_every_command() {
    let fixture = Fixture::new("FROM scratch\nLABEL a=b\n");
    fixture.build().args(["-t", "a"]).ok();
    for (args, told) in [
        (&["tag", "a", "UPPER:1"][..], "(library/UPPER) must be lowercase"),
        (&["push", "a b"], "\"library/a b\" is not a repository name"),
        (&["pull", "x:"], "\"\" is not a tag"),
        (&["run", "http://x/y"], "\"http:\" is not a registry host"),
        (
            &["imagetools", "inspect", "a//b"],
            "\"a//b\" is not a repository name",
        ),
        (
            &["imagetools", "create", "-t", "UPPER", "a"],
            "(library/UPPER) must be lowercase",
        ),
        (
            &["manifest", "create", "UPPER", "a"],
            "(library/UPPER) must be lowercase",
        ),
    ] {
        fixture.rbuild(args).fails().says(told);
    }
    let names = fixture.rbuild(["images", "-q", "--no-trunc"]).ok().stdout_text();
    assert_eq!(names.lines().count(), 1, "{names}");
}

#[test]
fn a_home_that_cannot_be_written_is_named_and_no_home_is_needed() {
    let fixture = Fixture::new("FROM scratch\nLABEL a=b\n");
    let build = |home: &str| {
        let command = rbuild_testkit::command::RbuildCommand::new(RBUILD).args(["build", "--progress=plain"]);
        let command = if home.is_empty() {
            command
        } else {
            command.env("HOME", home)
        };
        command.arg(fixture.context.dir())
    };
    // Root keeps its store elsewhere; what is asked is that a place which cannot be made is named.
    build("").env("RBUILD_ROOT", "/proc/no").fails().says("/proc/no");
    build("").env("RBUILD_ROOT", fixture.home.store()).ok();
    build("/proc/no").env("RBUILD_ROOT", fixture.home.store()).ok();
    if let Some(user) = crate::e2e::ordinary_user() {
        let ran = build("/proc/no").user(user.uid, user.gid).fails();
        assert!(ran.stderr.contains("/proc/no"), "{ran}");
        let ran = build("").user(user.uid, user.gid).fails();
        assert!(ran.stderr.contains("HOME is not set"), "{ran}");
    }
    let login = rbuild_testkit::command::RbuildCommand::new(RBUILD);
    login
        .args(["manifest", "rm", "x"])
        .fails()
        .says("neither DOCKER_CONFIG nor HOME is set");
}

#[test]
fn a_terminal_of_twenty_columns_is_enough() {
    let fixture = Fixture::new("FROM busybox\nRUN echo a line that is longer than twenty columns are wide\n");
    let script = rbuild_testkit::machine::required("script", "bsdutils").unwrap();
    let base = crate::e2e::fixture::busybox_argument("busybox");
    for columns in [20, 1] {
        let line = format!(
            "stty cols {columns} rows 5; {RBUILD} build --no-cache --progress=tty {base} {} 2>&1; echo code $?; {RBUILD} --help >/dev/null; echo help $?",
            fixture.context.dir().display()
        );
        let ran = fixture
            .home
            .command(&script)
            .args(["-qec", &line, "/dev/null"])
            .ok();
        let text = ran.stdout_text();
        assert!(text.contains("code 0") && text.contains("help 0"), "{text}");
        assert!(!text.contains("panicked"), "{text}");
        let (shown, _) = text.split_once("code").unwrap();
        assert!(shown.contains('['), "{text}");
        let widest = crate::e2e::progress::widest(shown);
        assert!(widest <= columns, "{widest} of {columns}: {text}");
    }
}

#[test]
fn output_to_a_closed_pipe_is_no_failure() {
    let fixture = Fixture::new("FROM scratch\nLABEL a=b\n");
    let id = fixture
        .build()
        .args(["-q", "--progress=quiet"])
        .ok()
        .stdout_text();
    for line in [
        format!("{RBUILD} inspect {id} | true; echo ${{PIPESTATUS[0]}}"),
        format!("{RBUILD} images | true; echo ${{PIPESTATUS[0]}}"),
        format!("{RBUILD} completion bash | true; echo ${{PIPESTATUS[0]}}"),
        format!("{RBUILD} inspect {id} >&-; echo $?"),
    ] {
        let bash = rbuild_testkit::machine::required("bash", "bash").unwrap();
        let ran = fixture.home.command(bash).args(["-c", &line]).ok();
        assert!(!ran.stderr.contains("panicked"), "{ran}");
        let code = ran.stdout_text();
        // A descriptor that is closed from the start is not a reader that went away.
        assert!(code == "0" || line.ends_with(">&-; echo $?"), "{line}: {ran}");
    }
}

#[test]
fn what_helps_stands_behind_an_error_of_the_dockerfile() {
    let fixture = Fixture::new("FROM busybox\nCOPY --from=$STAGE /a /b\n");
    let ran = fixture.build().fails();
    for part in [
        "   2 | >>> COPY --from=$STAGE /a /b",
        "ERROR: failed to build: failed to solve: variable expansion is not supported for --from",
        "hint: write ARG NAME before the first FROM",
    ] {
        assert!(ran.stderr.contains(part), "lacks {part:?}\n{ran}");
    }
}
