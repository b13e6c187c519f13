//! COPY and ADD.

use crate::dump::dump;
use crate::fake::{Fake, history, lower_with, lowered, options};

/// The copy actions a Dockerfile's instruction becomes.
fn actions(instruction: &str) -> Vec<String> {
    let text = dump(&lowered(&format!(
        "FROM alpine AS other\nFROM alpine\nWORKDIR /w\nENV E=e\n{instruction}\n"
    )));
    text.lines()
        .filter(|line| line.contains(": copy "))
        .map(|line| line.trim().to_owned())
        .collect()
}

const LOCAL: &str = "follow contents mkdest wildcard emptyok";

#[test]
fn sources_and_destinations() {
    for (instruction, expected) in [
        ("COPY a b", format!("%2/a => /w/b {LOCAL} ->out")),
        ("COPY ../a/../../b/ ./", format!("%2/b => /w/ {LOCAL} ->out")),
        ("COPY . .", format!("%2/ => /w/ {LOCAL} ->out")),
        ("COPY $E/*.c /x$E/", format!("%2/e/*.c => /xe/ {LOCAL} ->out")),
        ("COPY \"$E\"x /d", format!("%2/ex => /d {LOCAL} ->out")),
        (
            r#"COPY ["a b", "/c d/"]"#,
            format!("%2/a b => /c d/ {LOCAL} ->out"),
        ),
        (
            "COPY --chown=$E:g --chmod=0750 a /",
            format!("%2/a => / {LOCAL} owner=e:g mode=750 ->out"),
        ),
        (
            "COPY --chmod=u=rwX,go=rX a /",
            format!("%2/a => / {LOCAL} mode=u=rwX,go=rX ->out"),
        ),
        (
            "COPY --exclude=*.o --exclude=$E a /",
            format!("%2/a => / {LOCAL} exclude=[\"*.o\", \"$E\"] ->out"),
        ),
        (
            "COPY --parents a/b/c /d",
            format!("%2/ => /d {LOCAL} include=[\"a/b/c\"] required=[\"/a/b/c\"] ->out"),
        ),
        (
            "COPY --parents x/./b/*.c /d/",
            format!("%2/x => /d/ {LOCAL} include=[\"b/*.c\"] ->out"),
        ),
        ("COPY --from=other /a /b", format!("%0/a => /b {LOCAL} ->out")),
        ("COPY --from=0 a /b", format!("%0/a => /b {LOCAL} ->out")),
        (
            "ADD a.tar /",
            "%2/a.tar => / follow contents unpack mkdest wildcard emptyok ->out".to_owned(),
        ),
        (
            "ADD --unpack=false a.tar /",
            format!("%2/a.tar => / {LOCAL} ->out"),
        ),
    ] {
        let found = actions(instruction);
        let expected = format!("copy {expected}");
        assert!(
            found[0].ends_with(&expected),
            "{instruction}: {found:?}\n{expected}"
        );
    }
}

#[test]
fn many_sources_are_one_operation() {
    let found = actions("COPY a b c/ d/");
    assert_eq!(found.len(), 3);
    assert!(found[0].starts_with("on %1: copy %2/a"));
    assert!(found[1].starts_with("on action0: copy %2/b"));
    assert!(found[2].starts_with("on action1: copy %2/c => /w/d/") && found[2].ends_with("->out"));
}

#[test]
fn inline_files() {
    let lowered = lowered(
        "FROM alpine\nARG v=1\nCOPY <<a.txt <<-'bc' plain /d/\nv=$v \"q\" \\$v\na.txt\n\tv=$v\n\tbc\n",
    );
    let text = dump(&lowered);
    for part in [
        "mkfile /a.txt 644 \"v=1 \\\"q\\\" $v\\n\" ->out",
        "mkfile /bc 644 \"v=$v\\n\" ->out",
        "/plain => /d/ follow contents mkdest wildcard emptyok\n",
        "/a.txt => /d/ mkdest\n",
        "/bc => /d/ mkdest ->out",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert_eq!(history(&lowered)[1], "COPY plain <<a.txt <<bc /d/ # buildkit");
}

#[test]
fn link_is_a_merge_unless_there_is_a_mode() {
    let text = dump(&lowered("FROM alpine\nCOPY --link a /b\n"));
    for part in [
        "[2/2] COPY --link a /b @2 group[[2/2] COPY --link a /b] weak\n  on scratch: copy %1/a => /b",
        "[2/2] LINK COPY --link a /b @2 group[[2/2] COPY --link a /b]\n  merge %0 %2",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!dump(&lowered("FROM alpine\nCOPY --link --chmod=755 a /b\n")).contains("merge"));
    assert!(!dump(&lowered("FROM scratch\nCOPY --link a /b\n")).contains("merge"));
}

#[test]
fn remote_sources_of_add() {
    let sum = format!("sha256:{}", "ab".repeat(32));
    let text = dump(&lowered(&format!(
        "FROM alpine\nADD --checksum={sum} --chown=1 https://h.example/a/f%201.tgz?x=1 /d/\nADD --keep-git-dir https://h.example/r.git#v1:sub /src\nADD --unpack https://h.example/ /u/\n"
    )));
    for part in [
        &*format!("source https://h.example/a/f%201.tgz?x=1 http.checksum={sum} http.filename=f 1.tgz"),
        "/f 1.tgz => /d/ mkdest owner=1 ->out",
        "source git://h.example/r.git#v1:sub git.authheadersecret=GIT_AUTH_HEADER git.authtokensecret=GIT_AUTH_TOKEN git.fullurl=https://h.example/r.git git.keepgitdir=true",
        "/ => /src mkdest ->out",
        "source https://h.example/ http.filename=__unnamed__",
        "/__unnamed__ => /u/ unpack mkdest ->out",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn histories() {
    let lowered = lowered(
        "FROM alpine AS o\nFROM alpine\nENV E=e\nCOPY --from=o --link --chown=$E --chmod=644 --exclude=x $E \"f\" /d\nCOPY --parents x ./\nADD --chown=1:2 x .\n",
    );
    assert_eq!(
        history(&lowered)[1..],
        [
            "COPY --chown=e --chmod=644 e f /d # buildkit",
            "COPY --parents x ./ # buildkit",
            "ADD --chown=1:2 x . # buildkit",
        ]
    );
}

#[test]
fn the_context_is_read_once_with_the_ignore_file_and_its_paths_are_known() {
    let mut options =
        options("FROM alpine\nCOPY src/ a\nCOPY --chown=1 *.txt b\nRUN --mount=target=/c,source=cfg x\n");
    options.ignore_patterns = vec!["*.<log>".to_owned(), "!x&".to_owned()];
    let lowered = lower_with(&options, &Fake::new()).unwrap();
    let text = dump(&lowered);
    assert_eq!(text.matches("local://context").count(), 1);
    assert!(text.contains(
        "[internal] load build context\n  source local://context local.excludepatterns=[\"*.\\u003clog\\u003e\",\"!x\\u0026\"] local.sharedkeyhint=context\n"
    ));
    assert_eq!(lowered.context_paths.unwrap(), ["*.txt", "cfg", "src"]);
    assert_eq!(
        crate::fake::lowered("FROM alpine\nCOPY . /\n").context_paths,
        None
    );
    assert_eq!(
        crate::fake::lowered("FROM alpine\n").context_paths.unwrap(),
        Vec::<String>::new()
    );
}
