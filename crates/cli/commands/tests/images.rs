//! Commands on images: tables, JSON, templates, archives, files.

use super::*;

#[test]
fn images_as_a_table() {
    let fake = || Fake {
        images: vec![
            image(Some("old"), "1", 30),
            image(Some("new"), "latest", 3),
            image(None, "", 4),
            image(Some("localhost:5000/a"), "x", 5),
        ],
        ..Fake::default()
    };
    let id = &Digest::sha256(b"c").hex()[..12].to_owned();
    let text = run_with(fake(), &["images"], b"").stdout.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "REPOSITORY         TAG       IMAGE ID       CREATED       SIZE"
    );
    assert_eq!(
        lines[1],
        format!("new                latest    {id}   3 days ago    12.35MB")
    );
    assert_eq!(lines.len(), 4);
    assert!(
        run_with(fake(), &["images", "-a"], b"")
            .stdout
            .text()
            .contains("<none>")
    );
    assert_eq!(
        run_with(fake(), &["images", "-q"], b"").stdout.text(),
        format!("{id}\n").repeat(3),
        "one for every name"
    );
    let whole = run_with(fake(), &["images", "-q", "--no-trunc"], b"")
        .stdout
        .text();
    assert_eq!(whole, format!("{}\n", Digest::sha256(b"c")).repeat(3));
    for (name, count) in [
        ("new", 1),
        ("new:latest", 1),
        ("new:other", 0),
        ("localhost:5000/a", 1),
        ("localhost:5000/a:x", 1),
    ] {
        let text = run_with(fake(), &["images", name], b"").stdout.text();
        assert_eq!(text.lines().count() - 1, count, "{name}");
    }
    assert!(
        run_with(fake(), &["images", "--digests"], b"")
            .stdout
            .text()
            .contains(Digest::sha256(b"m").as_str())
    );
}

#[test]
fn images_as_json() {
    let fake = Fake {
        images: vec![image(Some("a"), "1", 3)],
        ..Fake::default()
    };
    let text = run_with(fake, &["images", "--format", "json"], b"").stdout.text();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["Repository"], "a");
    assert_eq!(json["CreatedSince"], "3 days ago");
    assert_eq!(json["ID"], Digest::sha256(b"c").hex()[..12]);
}

#[test]
fn images_by_a_template() {
    let fake = || Fake {
        images: vec![image(Some("a"), "1", 3), image(None, "", 4)],
        ..Fake::default()
    };
    let of = |format: &str| {
        let ran = run_with(fake(), &["images", "-a", "--format", format], b"");
        (ran.code, ran.stdout.text())
    };
    assert_eq!(of("{{.Repository}}:{{.Tag}}").1, "a:1\n<none>:<none>\n");
    assert!(of("{{.ID}}").1.starts_with(&Digest::sha256(b"c").hex()[..12]));
    assert_eq!(of("{{nonsense}}").0, ExitCode::Failure);
}

#[test]
fn names_are_given_and_taken() {
    assert_eq!(run_line(&["tag", "a", "b"]).asked, ["tag a b"]);
    let ran = run_line(&["rmi", "-f", "a", "missing", "b"]);
    assert_eq!(ran.asked, ["rmi a true", "rmi missing true", "rmi b true"]);
    assert_eq!(ran.code, ExitCode::Failure);
    assert_eq!(ran.stderr.text(), "ERROR: No such image: missing\n");
    assert!(ran.stdout.text().starts_with("Untagged: a\nDeleted: sha256:"));
}

#[test]
fn transfers_print_digests() {
    let digest = Digest::sha256(b"m");
    assert_eq!(
        run_line(&["push", "--progress=none", "a"]).stdout.text(),
        format!("a@{digest}\n")
    );
    let ran = run_line(&["pull", "-q", "--platform=linux/arm64", "a"]);
    assert_eq!(ran.stdout.text(), "docker.io/library/a:latest\n", "as docker");
    assert_eq!(ran.asked, ["pull [\"a\"] Some(\"linux/arm64\")"]);
    assert_eq!(
        run_line(&["pull", "--progress=x", "a"]).stderr.text(),
        "ERROR: invalid progress mode x\n"
    );
}

#[test]
fn files_are_asked_for_as_docker_asks() {
    for (line, asked) in [
        (
            &["cp", "-aL", "c:/x", "there"][..],
            "take c Some((\"/x\", true, true)) there",
        ),
        (&["cp", "c:x", "-"], "take c Some((\"x\", false, false)) tar"),
        (&["container", "export", "c"], "take c None tar"),
        (&["container", "rm", "-fv", "missing"], "rm missing true"),
        (
            &["create", "--name=n", "-it", "-v", "/:/x", "image", "sh"],
            "create image Some(\"n\")",
        ),
    ] {
        let ran = run_line(line);
        assert_eq!(ran.code, ExitCode::Success, "{}", ran.stderr.text());
        assert_eq!(ran.asked, [asked]);
    }
    assert_eq!(run_line(&["rm", "a", "missing"]).stdout.text(), "a\n");
}

#[test]
fn referrers_are_listed_with_their_types() {
    let ran = run_line(&["imagetools", "inspect", "--referrers", "r.test/a:1"]);
    let text = ran.stdout.text();
    assert!(
        text.starts_with("DIGEST") && text.contains("application/x.test"),
        "{text}"
    );
}

#[test]
fn inspect_prints_dockers_json() {
    let ran = run_line(&["inspect", "a", "missing"]);
    assert_eq!(ran.code, ExitCode::Failure, "one of them is not there");
    assert_eq!(ran.stderr.text(), "ERROR: No such image: missing\n");
    let text = ran.stdout.text();
    assert!(text.starts_with("[\n    {\n        \"Id\": \"sha256:"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json[0]["RepoTags"], serde_json::json!(["a:1"]));
    let digest = format!("a@{}", Digest::sha256(b"m"));
    assert_eq!(json[0]["RepoDigests"], serde_json::json!([digest]));
    assert_eq!(json[0]["Created"], "1970-01-01T00:00:00Z");
    assert_eq!(json[0]["Comment"], "buildkit.dockerfile.v0");
    assert_eq!(json[0]["Metadata"]["LastTagTime"], "1970-01-01T00:00:00Z");
    assert_eq!(json[0]["Size"], 2_500_100);
}

#[test]
fn inspect_takes_templates_and_says_what_it_does_not_understand() {
    let ran = run_line(&["image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", "a"]);
    assert_eq!(ran.stdout.text(), "linux/amd64\n");
    let ran = run_line(&["inspect", "--platform=linux/arm64", "-f", "{{html .Id}}", "a"]);
    assert_eq!(ran.code, ExitCode::Failure);
    assert!(ran.stderr.text().contains("function \"html\" not defined"));
    assert!(ran.asked.is_empty(), "the template is judged first");
}

#[test]
fn history_is_a_table_newest_first() {
    let ran = run_line(&["history", "a"]);
    let text = ran.stdout.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("IMAGE          CREATED        CREATED BY"),
        "{text}"
    );
    assert!(lines[1].starts_with(&Digest::sha256(b"c").hex()[..12]) && lines[1].contains("CMD <x>   "));
    assert!(lines[1].contains("   0B "));
    assert!(
        lines[2].contains("RUN a long command that is cut off here and …   2.5MB     buildkit.dockerfile.v0")
    );
    let ran = run_line(&["history", "-q", "--no-trunc", "a"]);
    assert_eq!(
        ran.stdout.text(),
        format!("{}\n<missing>\n", Digest::sha256(b"c"))
    );
    let ran = run_line(&[
        "history",
        "--human=false",
        "--format={{.Size}} {{.CreatedAt}}",
        "a",
    ]);
    assert_eq!(
        ran.stdout.text(),
        "0 1970-01-01T00:00:00Z\n2500000 1970-01-01T00:00:00Z\n"
    );
}

#[test]
fn a_saved_file_appears_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    std::fs::write(&path, "old").unwrap();
    let to = path.to_str().unwrap();
    assert_eq!(run_line(&["save", "broken", "-o", to]).code, ExitCode::Failure);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(run_line(&["save", "a", "-o", to]).code, ExitCode::Success);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "half and half");
    assert_eq!(run_line(&["save", "a"]).stdout.text(), "half and half");
}

#[test]
fn load_prints_dockers_lines() {
    let ran = run_with(Fake::default(), &["load"], b"archive");
    assert_eq!(ran.asked, ["load archive None"]);
    let id = Digest::sha256(b"c");
    assert_eq!(
        ran.stdout.text(),
        format!("Loaded image: a:1\nLoaded image: a:2\nLoaded image ID: {id}\n")
    );
    let ran = run_line(&["load", "-i", "/nowhere/at/all"]);
    assert_eq!(ran.code, ExitCode::Failure);
    assert!(
        ran.asked.is_empty(),
        "the store is not opened for a file that is not there"
    );
}
