//! `ADD` of git repositories: refs of every kind, subdirectories, submodules, `.git`, secrets, and what is fetched again.

mod hostile;
mod repository;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rbuild_testkit::command::Ran;

use crate::e2e::fixture::Fixture;
pub(crate) use repository::{Remote, Repository, TIME};

fn reran(ran: &Ran) -> bool {
    ran.executed().iter().any(|step| step.contains("RUN find"))
}

#[track_caller]
fn text(fixture: &Fixture, path: &str) -> Option<String> {
    let (_, image) = fixture.image(&[]);
    image.files().unwrap().text(path).map(str::to_owned)
}

#[test]
fn refs_of_every_kind_are_found() {
    let remote = Remote::new();
    let r = &remote.repository;
    let first = r.file("f", "first").commit();
    r.git(&["tag", "light"]);
    r.git(&["tag", "-a", "-m", "t", "annotated"]);
    let tag = r.git(&["rev-parse", "annotated"]);
    r.git(&["checkout", "-q", "-b", "feature/x"]);
    r.file("f", "feature").commit();
    r.git(&["checkout", "-q", "main"]);
    let last = r.file("f", "last").commit();
    r.git(&["update-ref", "refs/pull/1/head", &first]);
    for (rest, expected) in [
        (String::new(), "last"),
        ("#main".into(), "last"),
        ("#refs/heads/feature/x".into(), "feature"),
        ("?branch=feature/x".into(), "feature"),
        ("#light".into(), "first"),
        ("?tag=annotated".into(), "first"),
        ("#refs/pull/1/head".into(), "first"),
        ("#pull/1/head".into(), "first"),
        (format!("#{first}"), "first"),
        (
            format!("#main&checksum={last}").replace("#main&", "?ref=main&"),
            "last",
        ),
        (format!("?tag=annotated&checksum={}", &first[..8]), "first"),
        (format!("?tag=annotated&checksum={tag}"), "first"),
    ] {
        let fixture = remote.adding("", &rest);
        assert_eq!(text(&fixture, "got/f").as_deref(), Some(expected), "{rest}");
    }
}

#[test]
fn a_repository_of_sha256_and_a_commit_without_a_look_up() {
    let remote = Remote::new();
    let wide = Repository::of_format(remote.root.path(), "wide", "sha256");
    let commit = wide.file("f", "wide").commit();
    assert_eq!(commit.len(), 64);
    let url = remote.server.url("/git/wide.git");
    for rest in ["#main".to_owned(), format!("#{commit}")] {
        for flag in ["", "--keep-git-dir "] {
            let fixture = Fixture::new(&format!("FROM busybox\nADD {flag}{url}{rest} /got\n"));
            assert_eq!(text(&fixture, "got/f").as_deref(), Some("wide"), "{flag}{rest}");
        }
    }
    let first = remote.repository.file("f", "first").commit();
    remote.repository.file("f", "last").commit();
    let rest = format!("?ref=main&fetch-by-commit=true&checksum={first}");
    let fixture = remote.adding("--keep-git-dir ", &rest);
    assert_eq!(
        text(&fixture, "got/f").as_deref(),
        Some("first"),
        "the ref moved on"
    );
}

#[test]
fn files_belong_to_root_and_git_is_left_out() {
    let remote = Remote::new();
    let r = &remote.repository;
    r.file("a", "a").file("run.sh", "x").link("l", "a");
    r.file("deep/f", "f").file("own", "o");
    let chmod =
        |name: &str, mode| fs::set_permissions(r.dir().join(name), fs::Permissions::from_mode(mode)).unwrap();
    chmod("run.sh", 0o700);
    chmod("own", 0o600);
    chmod("deep", 0o711);
    r.commit();
    let (_, image) = remote.adding("", "").image(&[]);
    let files = image.files().unwrap();
    let facts = |path: &str| {
        let file = files.get(path).unwrap();
        (file.mode & 0o7777, file.uid, file.gid)
    };
    assert_eq!(facts("got/a"), (0o644, 0, 0));
    assert_eq!(facts("got/run.sh"), (0o755, 0, 0));
    assert_eq!(facts("got/own"), (0o644, 0, 0));
    assert_eq!(facts("got/deep"), (0o755, 0, 0));
    assert_eq!(
        files.text("seen"),
        Some("/got\n/got/a\n/got/deep\n/got/deep/f\n/got/l\n/got/own\n/got/run.sh\n")
    );
}

#[test]
fn a_second_build_fetches_nothing_and_a_new_commit_is_seen() {
    let remote = Remote::new();
    remote.repository.file("f", "one").commit();
    let fixture = remote.adding("", "#main");
    assert!(reran(&fixture.image(&[]).0));
    let before = remote.packs();
    let (second, _) = fixture.image(&[]);
    assert!(!reran(&second), "{second}");
    assert!(
        remote.packs() <= before + 1,
        "the ref is looked up and no object fetched: {:?}",
        remote.server.asked()
    );
    remote.repository.file("f", "two").commit();
    let (third, image) = fixture.image(&[]);
    assert!(reran(&third), "{third}");
    assert_eq!(image.files().unwrap().text("got/f"), Some("two"));
    remote.repository.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let (fourth, image) = fixture.image(&[]);
    assert!(!reran(&fourth), "the commit is known\n{fourth}");
    assert_eq!(image.files().unwrap().text("got/f"), Some("one"));
}

#[test]
fn a_commit_is_its_own_key_and_asks_nobody() {
    let remote = Remote::new();
    let commit = remote.repository.file("f", "one").commit();
    let fixture = remote.adding("", &format!("#{commit}"));
    fixture.image(&[]);
    remote.server.forget();
    let (ran, _) = fixture.image(&[]);
    assert!(!reran(&ran) && remote.server.asked().is_empty(), "{ran}");
}

#[test]
fn the_git_directory_is_kept_on_request() {
    let remote = Remote::new();
    let commit = remote.repository.file("f", "one").commit();
    remote.repository.git(&["tag", "-a", "-m", "t", "v1"]);
    for (flags, rest) in [
        ("--keep-git-dir=true ", "#v1".to_owned()),
        ("", "?keep-git-dir=true&ref=v1".to_owned()),
        ("--keep-git-dir ", format!("#{commit}")),
        ("--keep-git-dir ", "#main".to_owned()),
    ] {
        let (_, image) = remote.adding(flags, &rest).image(&[]);
        let files = image.files().unwrap();
        assert_eq!(
            files.text("got/.git/HEAD"),
            Some(format!("{commit}\n").as_str()),
            "{rest}"
        );
        let config = files.text("got/.git/config").expect("a config");
        assert!(config.contains(&remote.url("")), "{config}");
        assert!(files.get("got/.git/FETCH_HEAD").is_none());
        assert_eq!(files.text("got/f"), Some("one"));
    }
}

#[test]
fn a_subdirectory_alone() {
    let remote = Remote::new();
    remote
        .repository
        .file("top", "t")
        .file("a/b/f", "f")
        .file("a/b/c/g", "g")
        .commit();
    for rest in ["#main:a/b", "#:a/b/", "?subdir=a/b", "#main:a/../a/b"] {
        let (_, image) = remote.adding("", rest).image(&[]);
        assert_eq!(
            image.files().unwrap().text("seen"),
            Some("/got\n/got/c\n/got/c/g\n/got/f\n"),
            "{rest}"
        );
    }
}

#[test]
fn a_subdirectory_that_is_none_is_named() {
    let remote = Remote::new();
    let fixture = Fixture::new("FROM busybox\n");
    remote.repository.file("a/f", "f").commit();
    for (rest, said) in [
        (
            "#main:a/none/x",
            "invalid subdir a/none/x: failed to lstat \"a/none\": statat a/none: no such file or directory",
        ),
        (
            "#main:a/f",
            "invalid subdir a/f: git subpath \"a/f\" contains non-directory \"a/f\"",
        ),
    ] {
        let url = remote.url(rest);
        let dockerfile = format!("FROM busybox\nADD {url} /got\n");
        fixture.context.dockerfile(&dockerfile);
        fixture.build().fails().says(said);
    }
}

#[test]
fn submodules_come_along_unless_they_are_not_wanted() {
    let remote = Remote::new();
    let inner = Repository::create(remote.root.path(), "inner");
    inner.file("i", "inner").commit();
    let url = remote.server.url("/git/inner.git");
    let r = &remote.repository;
    r.file("f", "f").commit();
    r.git(&["submodule", "add", "-q", &url, "absolute"]);
    r.git(&["submodule", "add", "-q", "../inner.git", "relative"]);
    r.commit();
    let (_, image) = remote.adding("", "").image(&[]);
    let files = image.files().unwrap();
    for path in ["got/absolute/i", "got/relative/i"] {
        assert_eq!(files.text(path), Some("inner"), "{path}");
    }
    assert!(
        !files.text("seen").unwrap().contains("/.git\n"),
        "no path of this machine stays: {:?}",
        files.text("seen")
    );
    let (_, image) = remote.adding("", "?submodules=false").image(&[]);
    assert!(image.files().unwrap().get("got/absolute/i").is_none());
    let (_, image) = remote.adding("--keep-git-dir ", "").image(&[]);
    let files = image.files().unwrap();
    assert_eq!(files.text("got/relative/i"), Some("inner"));
    assert!(files.get("got/.git/modules/relative/HEAD").is_some());
}

#[test]
fn a_wrong_checksum_is_told() {
    let remote = Remote::new();
    let first = remote.repository.file("f", "one").commit();
    remote.repository.file("f", "two").commit();
    for (flags, rest) in [
        (format!("--checksum={first} "), "#main".to_owned()),
        (String::new(), format!("?checksum={first}&ref=main")),
        (format!("--checksum={} ", &first[1..9]), format!("#{first}")),
    ] {
        let ran = remote.adding(&flags, &rest).build().fails();
        assert!(ran.stderr.contains("expected checksum to match"), "{ran}");
        assert!(ran.stderr.contains("Dockerfile:2"), "{ran}");
    }
    let fixture = remote.adding("--checksum=notahash ", "#main");
    fixture.build().fails().says("invalid checksum notahash");
}

#[test]
fn what_is_not_there_is_told_with_the_line() {
    let remote = Remote::new();
    remote.repository.file("f", "one").commit();
    let absent = "0123456789012345678901234567890123456789";
    for (rest, says) in [
        ("#nothing".to_owned(), "repository does not contain ref nothing"),
        (format!("#{absent}"), "repository does not contain ref 0123456"),
        ("#main:f".to_owned(), "non-directory"),
        ("#main:none".to_owned(), "none"),
    ] {
        let fixture = remote.adding("", &rest);
        let before = fixture.residue();
        let ran = fixture.build().fails().says(says);
        assert!(ran.stderr.contains("Dockerfile:2"), "{ran}");
        fixture.assert_clean_since(&before);
    }
    let nowhere = Fixture::new(&format!(
        "FROM busybox\nADD {} /got\n",
        remote.server.url("/git/absent.git")
    ));
    nowhere.build().fails().says("absent.git");
}

#[test]
fn a_moved_tag_and_a_branch_that_became_a_directory_are_fetched() {
    let remote = Remote::new();
    let r = &remote.repository;
    r.file("f", "one").commit();
    r.git(&["tag", "v1"]);
    r.git(&["branch", "b"]);
    let (tagged, branched) = (remote.adding("", "#v1"), remote.adding("", "#b"));
    tagged.image(&[]);
    branched.image(&[]);
    r.file("f", "two").commit();
    r.git(&["tag", "-f", "v1"]);
    r.git(&["branch", "-D", "b"]);
    r.git(&["branch", "b/c"]);
    assert_eq!(text(&tagged, "got/f").as_deref(), Some("two"));
    branched
        .context
        .dockerfile(&format!("FROM busybox\nADD {} /got\n", remote.url("#b/c")));
    assert_eq!(text(&branched, "got/f").as_deref(), Some("two"));
}

#[test]
fn secrets_open_a_private_repository_and_are_shown_nowhere() {
    let remote = Remote::new();
    remote.repository.file("f", "one").commit();
    // base64 of "x-access-token:c4n4ry".
    remote.server.protect_git("basic eC1hY2Nlc3MtdG9rZW46YzRuNHJ5");
    let fixture = remote.adding("", "");
    fixture.build().fails().says("failed to solve");
    let token = fixture.home.work().join("token");
    fs::write(&token, "c4n4ry").unwrap();
    let host = remote.server.host();
    for id in ["GIT_AUTH_TOKEN".to_owned(), format!("GIT_AUTH_TOKEN.{host}")] {
        fixture
            .build()
            .arg("--no-cache")
            .arg(format!("--secret=id={id},src={}", token.display()))
            .ok()
            .never_says("c4n4ry");
    }
    fs::write(&token, "basic eC1hY2Nlc3MtdG9rZW46YzRuNHJ5").unwrap();
    let other = remote.adding("", "#main");
    other
        .build()
        .arg(format!("--secret=id=GIT_AUTH_HEADER,src={}", token.display()))
        .ok()
        .never_says("eC1hY2Nlc3");
}

#[test]
fn row41_credentials_in_a_url_are_used_and_kept_nowhere() {
    let remote = Remote::new();
    remote.repository.file("f", "one").commit();
    // base64 of "us:c4n4ry".
    remote.server.protect_git("basic dXM6YzRuNHJ5");
    let url = remote.url("").replace("http://", "http://us:c4n4ry@");
    let fixture = Fixture::new("FROM busybox\nARG URL\nADD --keep-git-dir=true $URL /got\n");
    let (ran, image) = fixture.image(&[&format!("--build-arg=URL={url}")]);
    let files = image.files().unwrap();
    assert_eq!(files.text("got/f"), Some("one"));
    let config = files.text("got/.git/config").unwrap();
    assert!(
        config.contains("xxxxx:xxxxx@") && !config.contains("c4n4ry"),
        "{config}"
    );
    ran.never_says("c4n4ry");
    for name in ["index.db", "index.db-wal"] {
        let index = fs::read(fixture.home.store().join(name)).unwrap_or_default();
        assert!(name != "index.db" || !index.is_empty());
        assert!(
            !index.windows(6).any(|window| window == b"c4n4ry"),
            "{name} keeps it"
        );
    }
}

#[test]
fn killed_in_a_fetch_the_next_build_works_and_nothing_runs_on() {
    let remote = Remote::new();
    remote
        .repository
        .file("big", &"0123456789abcdef\n".repeat(200_000))
        .commit();
    let fixture = remote.adding("", "");
    let before = fixture.residue();
    let running = fixture.build().spawn();
    while remote.server.asked().len() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    running.signal(rustix::process::Signal::KILL);
    let _killed = running.wait();
    fixture.assert_clean_since(&before);
    fixture.build().ok();
}

#[test]
fn rootless_repositories_are_added_too() {
    let remote = Remote::new();
    remote.repository.file("f", "one").commit();
    let Some(fixture) = Fixture::rootless(&format!("FROM busybox\nADD {} /got\n", remote.url(""))) else {
        return;
    };
    assert_eq!(text(&fixture, "got/f").as_deref(), Some("one"));
}
