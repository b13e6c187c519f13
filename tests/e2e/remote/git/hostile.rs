//! What a repository does not get, whatever its refs, links and submodules say: options, programs, files of the host.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{Remote, Repository, text};
use crate::e2e::fixture::Fixture;

#[test]
fn row37_refs_and_urls_do_not_become_options_or_programs() {
    let remote = Remote::new();
    remote.repository.file("f", "one").commit();
    let fixture = Fixture::new("FROM busybox\n");
    let marker = fixture.home.work().join("marker");
    let touch = format!("touch%20{}", marker.display());
    for url in [
        remote.url(&format!("#--upload-pack={touch}")),
        remote.url("#-c"),
        remote.url("#refs/heads/--output=x"),
        format!("ssh://-oProxyCommand={touch}/y"),
        "ssh://-F@h/y".to_owned(),
        "git@-oX:r.git".to_owned(),
        "git@h:-x.git".to_owned(),
    ] {
        fixture
            .context
            .dockerfile(&format!("FROM busybox\nADD {url} /got\n"));
        let ran = fixture.build().fails();
        assert!(ran.stderr.contains("invalid git"), "{url}\n{ran}");
        assert!(!marker.exists(), "{url}");
    }
    // A branch of that name, and a server whose default it is.
    remote
        .repository
        .git(&["update-ref", "refs/heads/--output=x", "HEAD"]);
    fs::write(
        remote.repository.dir().join(".git/HEAD"),
        "ref: refs/heads/--output=x\n",
    )
    .unwrap();
    let ran = remote.adding("", "").build().fails();
    assert!(ran.stderr.contains("invalid git ref"), "{ran}");
    assert_eq!(
        text(&remote.adding("", "#main"), "got/f").as_deref(),
        Some("one"),
        "the twin"
    );
}

#[test]
fn row38_a_subdirectory_is_not_followed_out_of_the_repository() {
    let remote = Remote::new();
    let fixture = Fixture::new("FROM busybox\n");
    let canary = fixture.home.work().join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("secret"), "c4n4ry").unwrap();
    remote
        .repository
        .link("sub", &canary)
        .link("sub2", "../..")
        .link("a/b", "../../../etc")
        .link("twin/link", &canary)
        .file("twin/f", "twin")
        .commit();
    for rest in ["#main:sub", "#main:sub2", "#main:a/b", "#main:sub/dir"] {
        let url = remote.url(rest);
        fixture
            .context
            .dockerfile(&format!("FROM busybox\nADD {url} /got\n"));
        fixture.build().fails().says("non-directory").never_says("c4n4ry");
    }
    let (_, image) = remote.adding("", "#main:twin").image(&[]);
    let files = image.files().unwrap();
    assert_eq!(files.text("got/f"), Some("twin"));
    assert!(files.text("got/link").is_none(), "a link stays a link");
    let (_, image) = remote.adding("", "#main:../../twin").image(&[]);
    assert_eq!(
        image.files().unwrap().text("got/f"),
        Some("twin"),
        "nothing is above the root"
    );
}

#[test]
fn row39_submodules_take_nothing_of_the_host_and_nothing_of_git_runs() {
    let fixture = Fixture::new("FROM busybox\n");
    let marker = fixture.home.work().join("marker");
    let canary_root = fixture.home.work().join("canary");
    let canary = Repository::create(&canary_root, "c");
    canary.file("secret", "c4n4ry").commit();
    let path = canary.dir().display().to_string();
    for url in [
        path.clone(),
        format!("file://{path}"),
        format!("ext::sh -c touch% {}", marker.display()),
        "fd::3".to_owned(),
        "-u./x".to_owned(),
    ] {
        let remote = Remote::new();
        let r = &remote.repository;
        let commit = canary.git(&["rev-parse", "HEAD"]);
        r.file("f", "f").file(
            ".gitmodules",
            &format!(
                "[submodule \"s\"]\n\tpath = s\n\turl = {url}\n\tupdate = !touch {}\n",
                marker.display()
            ),
        );
        r.commit_submodule("s", &commit);
        let ran = remote.adding("", "").build().fails();
        assert!(!ran.stderr.contains("c4n4ry"), "{url}\n{ran}");
        assert!(!marker.exists(), "{url}");
        let (_, image) = remote.adding("", "?submodules=false").image(&[]);
        assert_eq!(image.files().unwrap().text("got/f"), Some("f"), "the twin");
    }
}

/// A repository in which each commit has the one before it as a submodule: as deep as it has commits.
#[test]
fn row39_submodules_in_submodules_have_an_end() {
    const LEVELS: usize = 30;
    let remote = Remote::new();
    let r = &remote.repository;
    let modules = format!("[submodule \"s\"]\n\tpath = s\n\turl = {}\n", remote.url(""));
    r.file("f", "the last");
    r.git(&["add", "f"]);
    r.git(&["commit", "-q", "-m", "0"]);
    r.file(".gitmodules", &modules);
    r.git(&["add", ".gitmodules"]);
    for level in 1..=LEVELS {
        let below = r.git(&["rev-parse", "HEAD"]);
        let entry = format!("160000,{},s", below.trim());
        r.git(&["update-index", "--add", "--cacheinfo", &entry]);
        r.git(&["commit", "-q", "-m", &level.to_string()]);
    }
    let fixture = remote.adding("", "#main");
    let before = fixture.residue();
    let (_, image) = fixture.image(&[]);
    let deepest = format!("got/{}f", "s/".repeat(LEVELS));
    let files = image.files().unwrap();
    assert_eq!(files.text(&deepest), Some("the last"));
    assert!(
        files
            .paths()
            .all(|path| !path.contains("/.git/") && !path.ends_with("/.git"))
    );
    fixture.assert_clean_since(&before);
}

#[test]
fn row39_neither_the_users_settings_nor_those_of_a_directory_count() {
    let remote = Remote::new();
    let r = &remote.repository;
    let fixture = remote.adding("", "");
    let marker = fixture.home.work().join("marker");
    let touch = format!("touch {}", marker.display());
    r.file("f", "f").file(".gitattributes", "* filter=x\n").commit();
    // The server's own hooks are its affair; these are the client's settings.
    let template = fixture.home.work().join("template");
    fs::create_dir_all(template.join("hooks")).unwrap();
    let hook = template.join("hooks/post-checkout");
    fs::write(&hook, format!("#!/bin/sh\n{touch}\n")).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let settings = format!(
        "[core]\n\tfsmonitor = {touch}\n\thooksPath = {hooks}\n\tsshCommand = {touch}\n[init]\n\ttemplateDir = \
         {template}\n[filter \"x\"]\n\tsmudge = {touch}\n\trequired = true\n[url \"http://127.0.0.1:1/\"]\n\tinsteadOf \
         = http://\n[credential]\n\thelper = !{touch}\n",
        hooks = template.join("hooks").display(),
        template = template.display(),
    );
    fs::write(fixture.home.home().join(".gitconfig"), settings).unwrap();
    let archive = fixture.archive();
    fixture
        .build()
        .env("GIT_DIR", "/nonexistent")
        .env("GIT_TEMPLATE_DIR", &template)
        .env("GIT_EXTERNAL_DIFF", &touch)
        .env("GIT_SSH", &touch)
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "core.fsmonitor")
        .env("GIT_CONFIG_VALUE_0", &touch)
        .arg(format!("--output=type=oci,dest={}", archive.display()))
        .ok();
    assert!(!marker.exists());
}
