//! Rows 37 to 39 and 41 on whole builds, on each rung: git repositories that attack who fetches them. git runs as the user of the
//! rung, with his home and in his namespace.

use std::fs;

use crate::e2e::hostile::canary::{BYTES, Rung, Site};
use crate::e2e::remote::git::{Remote, Repository};

/// Puts an `ADD` of that URL into the Dockerfile.
fn adding(site: &Site, url: &str) {
    site.fixture
        .context
        .dockerfile(&format!("FROM busybox\nADD {url} /got\n"));
}

#[test]
fn row37_no_part_of_an_address_is_an_option_of_git_on_any_rung() {
    for rung in Rung::unpacking() {
        let remote = Remote::new();
        remote.repository.file("f", "one").commit();
        let site = Site::on(rung, "");
        let marker = site.fixture.home.work().join("marker");
        let touch = format!("touch%20{}", marker.display());
        for url in [
            remote.url(&format!("#--upload-pack={touch}")),
            remote.url("#refs/heads/--output=x"),
            format!("ssh://-oProxyCommand={touch}/y"),
            "git@-oX:r.git".to_owned(),
        ] {
            adding(&site, &url);
            site.refused(&[], "invalid git");
            assert!(!marker.exists(), "{rung:?}: {url}");
        }
        adding(&site, &remote.url("#main"));
        assert_eq!(site.works(&[]).text("got/f"), Some("one"), "{rung:?}: the twin");
    }
}

#[test]
fn row38_a_part_of_a_repository_leads_out_of_it_on_no_rung() {
    for rung in Rung::unpacking() {
        let remote = Remote::new();
        let site = Site::on(rung, "");
        remote
            .repository
            .link("sub", &site.canary.dir)
            .link("up", "../../../..")
            .link("Dockerfile", site.canary.dir.join("secret"))
            .link("twin/link", &site.canary.dir)
            .file("twin/f", "twin")
            .file("twin/Dockerfile", "FROM scratch\nCOPY . /c/\n")
            .commit();
        for part in ["#main:sub", "#main:up", "#main:sub/dir"] {
            adding(&site, &remote.url(part));
            site.refused(&[], "non-directory");
        }
        adding(&site, &remote.url("#main:twin"));
        let files = site.works(&[]);
        assert_eq!(files.text("got/f"), Some("twin"), "{rung:?}");
        assert!(
            files.get("got/link/secret").is_none(),
            "{rung:?}: a link stays a link"
        );
        // As a context, whose Dockerfile is a file of this machine: it is not read, and not quoted.
        let build = |part: &str| {
            let build = site.fixture.build_of().args(rung.argument());
            build.arg("--output=type=cacheonly").arg(remote.url(part)).run()
        };
        let ran = build("#main");
        assert!(
            !ran.status.success() && !ran.stderr.contains(BYTES),
            "{rung:?}: {ran}"
        );
        assert!(build("#main:twin").status.success(), "{rung:?}: the twin");
        site.canary.assert_untouched();
    }
}

#[test]
fn row39_submodules_and_settings_run_nothing_on_any_rung() {
    for rung in Rung::unpacking() {
        let site = Site::on(rung, "");
        let marker = site.fixture.home.work().join("marker");
        let touch = format!("touch {}", marker.display());
        let settings = format!(
            "[core]\n\tfsmonitor = {touch}\n\tsshCommand = {touch}\n[filter \"x\"]\n\tsmudge = {touch}\n\trequired = true\n\
             [credential]\n\thelper = !{touch}\n"
        );
        fs::write(site.fixture.home.home().join(".gitconfig"), settings).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let secret = Repository::create(elsewhere.path(), "c");
        let commit = secret.file("secret", BYTES).commit();
        let path = secret.dir().display().to_string();
        let made = |url: Option<&str>| {
            let remote = Remote::new();
            let r = &remote.repository;
            r.file("f", "f").file(".gitattributes", "* filter=x\n");
            if let Some(url) = url {
                let modules = format!("[submodule \"s\"]\n\tpath = s\n\turl = {url}\n\tupdate = !{touch}\n");
                r.file(".gitmodules", &modules);
                r.commit_submodule("s", &commit);
            } else {
                r.commit();
            }
            remote
        };
        for url in [
            path.clone(),
            format!("file://{path}"),
            format!("ext::sh -c touch% {}", marker.display()),
        ] {
            let remote = made(Some(&url));
            adding(&site, &remote.url(""));
            site.build(&[]).map(|files| files.table()).expect_err(&url);
            assert!(!marker.exists(), "{rung:?}: {url}");
        }
        let remote = made(None);
        adding(&site, &remote.url(""));
        assert_eq!(site.works(&[]).text("got/f"), Some("f"), "{rung:?}: the twin");
        assert!(!marker.exists(), "{rung:?}: the user's settings");
    }
}

/// Writes a tree of these entries, whatever git thinks of their names: mode, name and object.
fn tree(repository: &Repository, entries: &[(&str, &str, &str)]) -> String {
    let mut bytes = Vec::new();
    for (mode, name, object) in entries {
        bytes.extend(format!("{mode} {name}\0").bytes());
        let digits = object.as_bytes().chunks(2);
        bytes.extend(digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()));
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let path = file.path().display().to_string();
    repository.git(&["hash-object", "-t", "tree", "-w", "--literally", &path])
}

/// The object of a file with that content.
fn object(repository: &Repository, content: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), content).unwrap();
    repository.git(&["hash-object", "-w", &file.path().display().to_string()])
}

#[test]
fn row39_names_in_trees_lead_into_no_repository_on_any_rung() {
    for rung in Rung::unpacking() {
        let site = Site::on(rung, "");
        let marker = site.fixture.home.work().join("marker");
        let remote = Remote::new();
        let r = &remote.repository;
        let hook = object(r, &format!("#!/bin/sh\ntouch {}\n", marker.display()));
        let config = object(r, &format!("[core]\n\tfsmonitor = touch {}\n", marker.display()));
        let hooks = tree(r, &[("100755", "post-checkout", &hook)]);
        let in_git = tree(r, &[("40000", "hooks", &hooks)]);
        let settings = tree(r, &[("100644", "config", &config)]);
        let to_hooks = object(r, ".git/hooks");
        let cases = [
            ("hooks", tree(r, &[("40000", ".git", &in_git)])),
            ("another case", tree(r, &[("40000", ".GIT", &settings)])),
            ("a short name", tree(r, &[("40000", "git~1", &settings)])),
            ("up", tree(r, &[("40000", "..", &hooks)])),
            ("a slash", tree(r, &[("100755", "../../../canary/new", &hook)])),
            (
                "two of one name",
                tree(r, &[("120000", "a", &to_hooks), ("40000", "a", &hooks)]),
            ),
        ];
        for (name, hostile) in cases {
            let commit = r.git(&["commit-tree", "-m", "c", &hostile]);
            r.git(&["update-ref", "refs/heads/hostile", &commit]);
            for flag in ["", "--keep-git-dir=true "] {
                adding(&site, &format!("{flag}{}", remote.url("#hostile")));
                // Refused, or taken for a name among others: what counts is where it does not lead.
                if let Ok(files) = site.build(&[]) {
                    assert!(
                        files.get("got/.git/hooks/post-checkout").is_none(),
                        "{rung:?}: {name}"
                    );
                    let config = files.text("got/.git/config").unwrap_or_default();
                    assert!(!config.contains("fsmonitor"), "{rung:?}: {name}");
                }
                assert!(!marker.exists(), "{rung:?}: {name} {flag}");
                site.canary.assert_untouched();
            }
        }
        let good = tree(
            r,
            &[("100755", "post-checkout", &hook), ("40000", "with", &in_git)],
        );
        let commit = r.git(&["commit-tree", "-m", "c", &good]);
        r.git(&["update-ref", "refs/heads/hostile", &commit]);
        adding(&site, &remote.url("#hostile"));
        let files = site.works(&[]);
        assert!(
            files.get("got/post-checkout").is_some() && files.get("got/with/hooks/post-checkout").is_some(),
            "{rung:?}: the twin"
        );
        assert!(!marker.exists(), "{rung:?}: the twin");
    }
}

#[test]
fn row39_names_and_paths_of_submodules_lead_into_no_repository_on_any_rung() {
    for rung in Rung::unpacking() {
        let site = Site::on(rung, "");
        let marker = site.fixture.home.work().join("marker");
        // What would be a hook if it lay where the link leads.
        let below = Remote::new();
        let hook = object(
            &below.repository,
            &format!("#!/bin/sh\ntouch {}\n", marker.display()),
        );
        let top = tree(&below.repository, &[("100755", "post-checkout", &hook)]);
        let commit = below.repository.git(&["commit-tree", "-m", "c", &top]);
        below.repository.git(&["update-ref", "refs/heads/main", &commit]);
        for (name, path, link) in [
            ("../../x", "s", None),
            ("..", "s", None),
            ("s", "s\r", Some(("s", "../.git/modules/s/hooks"))),
            ("a/../../x", "s", None),
            ("x", "l/s", Some(("l", ".git"))),
        ] {
            let remote = Remote::new();
            let r = &remote.repository;
            let url = below.url("");
            let modules = format!("[submodule \"{name}\"]\n\tpath = \"{path}\"\n\turl = {url}\n");
            let mut entries = vec![("100644", ".gitmodules", object(r, &modules))];
            if let Some((at, to)) = link {
                entries.push(("120000", at, object(r, to)));
            }
            let inner = tree(r, &[("160000", "s", &commit)]);
            match path.split_once('/') {
                Some((dir, _)) => entries.push(("40000", dir, inner)),
                None => entries.push(("160000", path, commit.clone())),
            }
            let entries: Vec<_> = entries
                .iter()
                .map(|(mode, name, object)| (*mode, *name, object.as_str()))
                .collect();
            let top = tree(r, &entries);
            let commit = r.git(&["commit-tree", "-m", "c", &top]);
            r.git(&["update-ref", "refs/heads/main", &commit]);
            adding(&site, &format!("--keep-git-dir=true {}", remote.url("")));
            if let Ok(files) = site.build(&[]) {
                let hooks = files
                    .paths()
                    .filter(|path| path.contains("hooks/post-checkout"))
                    .count();
                assert_eq!(hooks, 0, "{rung:?}: {name:?} at {path:?}");
            }
            assert!(!marker.exists(), "{rung:?}: {name:?} at {path:?}");
            site.canary.assert_untouched();
        }
        let remote = Remote::new();
        let r = &remote.repository;
        let modules = format!("[submodule \"s\"]\n\tpath = s\n\turl = {}\n", below.url(""));
        r.file(".gitmodules", &modules).commit_submodule("s", &commit);
        adding(&site, &remote.url(""));
        assert!(
            site.works(&[]).get("got/s/post-checkout").is_some(),
            "{rung:?}: the twin"
        );
        assert!(!marker.exists(), "{rung:?}: the twin");
    }
}

#[test]
fn row41_the_password_of_an_address_is_told_on_no_rung() {
    const PASSWORD: &str = "p4ssw0rd-of-an-address";
    for rung in Rung::unpacking() {
        let remote = Remote::new();
        remote.repository.file("f", "one").commit();
        let url = remote
            .url("")
            .replace("http://", &format!("http://us:{PASSWORD}@"));
        let site = Site::on(rung, "FROM busybox\nARG URL\nADD --keep-git-dir=true $URL /got\n");
        let archive = site.fixture.archive();
        let build = |rest: &str| {
            let build = site.fixture.build().args(rung.argument());
            let build = build
                .arg("--provenance=mode=max")
                .arg(format!("--build-arg=URL={url}{rest}"));
            build
                .arg(format!("--output=type=oci,dest={}", archive.display()))
                .run()
        };
        // A build argument is told by provenance of that mode, as in BuildKit: what is the builder's own is not.
        let ran = build("");
        assert!(ran.status.success(), "{rung:?}: {ran}");
        let failed = build("#absent");
        assert!(!failed.status.success(), "{rung:?}: {failed}");
        for ran in [ran, failed] {
            ran.never_says(PASSWORD);
        }
        site.fixture.context.dockerfile(&format!(
            "FROM busybox\nADD --keep-git-dir=true {} /got\n",
            remote.url("")
        ));
        let files = site.works(&[]);
        let config = files.text("got/.git/config").unwrap_or_default();
        assert!(config.contains("/git/r.git"), "{rung:?}: the twin\n{config}");
    }
}
