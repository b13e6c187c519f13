//! What the host's git is told: a program of that name, first on the path, writes down the words of every call before it
//! hands them on.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rbuild_testkit::web::WebServer;

use crate::e2e::fixture::Fixture;
use crate::e2e::remote::git::Repository;

/// Directory with the program, and the file it writes to: one line a word, `CALL` before each call.
fn watched(fixture: &Fixture) -> (String, PathBuf) {
    let dir = fixture.home.work().join("bin");
    fs::create_dir(&dir).unwrap();
    let (program, log) = (dir.join("git"), fixture.home.work().join("told"));
    let path = std::env::var("PATH").unwrap();
    let script = format!(
        "#!/bin/sh\n{{ echo CALL; for word in \"$@\"; do printf '%s\\n' \"$word\"; done; }} >> {}\nPATH={path}\nexec git \"$@\"\n",
        log.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (format!("{}:{path}", dir.display()), log)
}

/// Whether git can only take the word at `at` for what it is: it is the value of an option, or no option is read any more.
fn is_no_option(words: &[&str], at: usize) -> bool {
    let ended = words[..at]
        .iter()
        .any(|word| ["--", "--end-of-options"].contains(word));
    let is_value = words[at].starts_with("--") && words[at].contains('=');
    ended || is_value
}

#[test]
fn row37_what_a_user_writes_never_stands_where_git_reads_options() {
    const MARK: &str = "c4n4ry";
    let root = tempfile::tempdir().unwrap();
    let repository = Repository::create(root.path(), &format!("{MARK}-repository"));
    let (commit, inner) = (
        repository.file("sub/f", "one").commit(),
        Repository::create(root.path(), &format!("{MARK}-inner")),
    );
    inner.file("g", "two").commit();
    repository.git(&["branch", &format!("{MARK}-branch")]);
    repository.git(&["tag", "-a", "-m", "t", &format!("{MARK}-tag")]);
    let server = WebServer::start();
    server.serve_git(root.path());
    let url = server.url(&format!("/git/{MARK}-repository.git"));
    // A submodule has words of its own: its name, its path and its address.
    let module = server.url(&format!("/git/{MARK}-inner.git"));
    let of = inner.git(&["rev-parse", "HEAD"]);
    repository.file(
        ".gitmodules",
        &format!("[submodule \"{MARK}-name\"]\n\tpath = {MARK}-path\n\turl = {module}\n"),
    );
    repository.commit_submodule(&format!("{MARK}-path"), &of);
    repository.git(&["branch", &format!("{MARK}-modules")]);
    let adds = [
        format!("{url}#{MARK}-branch"),
        format!("{url}#{MARK}-tag:sub"),
        format!("{url}#refs/heads/{MARK}-branch"),
        format!("{url}#{commit}"),
        format!("{url}#{MARK}-modules"),
    ];
    let lines: Vec<String> = adds.iter().map(|add| format!("ADD {add} /got/\n")).collect();
    let fixture = Fixture::new(&format!("FROM busybox\n{}", lines.concat()));
    let (path, log) = watched(&fixture);
    let (_, image) = fixture.image_with(&[], &[("PATH", &path)]);
    let files = image.files().unwrap();
    assert_eq!(files.text("got/f"), Some("one"));
    assert_eq!(files.text(&format!("got/{MARK}-path/g")), Some("two"));
    let told = fs::read_to_string(&log).unwrap();
    let calls: Vec<Vec<&str>> = told
        .split("CALL\n")
        .skip(1)
        .map(|call| call.lines().collect())
        .collect();
    let mut seen = 0;
    for words in &calls {
        for (at, word) in words.iter().enumerate() {
            // A commit is checked to be hexadecimal digits before anything is started.
            if word.contains(MARK) {
                assert!(is_no_option(words, at), "{word} in {words:?}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 5, "only {seen} words in {} calls:\n{told}", calls.len());
}

#[test]
fn row39_git_is_never_started_for_a_directory_of_this_machine() {
    let fixture = Fixture::new("FROM busybox\nCOPY . /all\n");
    let marker = fixture.home.work().join("marker");
    let touch = format!("touch {}", marker.display());
    let hooks = fixture.home.work().join("hooks");
    fs::create_dir(&hooks).unwrap();
    fixture.context.file("f", "f").file(
        ".git/config",
        format!(
            "[core]\n\trepositoryformatversion = 0\n\tfsmonitor = {touch}\n\thooksPath = {}\n\tsshCommand = {touch}\n\tpager = \
             {touch}\n[diff]\n\texternal = {touch}\n[alias]\n\trev-parse = !{touch}\n[include]\n\tpath = {}\n",
            hooks.display(),
            marker.display(),
        ),
    );
    fixture
        .context
        .file(".git/HEAD", "ref: refs/heads/main\n")
        .file(
            ".git/refs/heads/main",
            "0123456789012345678901234567890123456789\n",
        )
        .file(".git/objects/info/alternates", "/nonexistent\n");
    let (path, log) = watched(&fixture);
    let (_, image) = fixture.image_with(&["--provenance=mode=max"], &[("PATH", &path)]);
    assert_eq!(
        image.files().unwrap().text("all/f"),
        Some("f"),
        "the twin: it is a context"
    );
    assert!(!log.exists(), "{}", fs::read_to_string(&log).unwrap_or_default());
    assert!(!marker.exists());
}
