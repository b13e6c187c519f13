//! Contexts and Dockerfiles: where they are, and what standard input is.

use super::*;

#[test]
fn the_dockerfile_has_the_name_the_user_knows() {
    let dir = tempfile::tempdir().unwrap();
    let context = dir.path().to_str().unwrap();
    let beside = format!("{context}/Dockerfile");
    for (line, stdin, expected) in [
        (vec!["--check", "."], "", "Dockerfile"),
        (vec!["--check", "./"], "", "Dockerfile"),
        (vec!["--check", context], "", beside.as_str()),
        (vec!["--check", "-f", "./a/B", "."], "", "./a/B"),
        (vec!["--check", "-f", "-", "."], "FROM a", "stdin"),
        (vec!["--check", "-"], "FROM a", "stdin"),
    ] {
        let high = high_with(&line, &[], stdin.as_bytes()).unwrap();
        assert_eq!(high.call.unwrap().dockerfile, expected, "{line:?}");
    }
}

#[test]
fn standard_input_is_a_dockerfile_or_an_archive() {
    let text = high_with(&["-"], &[], b"FROM scratch\n").unwrap().request;
    assert!(matches!(text.context, ContextSource::Empty));
    assert!(matches!(text.dockerfile, DockerfileSource::Text(text) if text == b"FROM scratch\n"));
    let archive = high_with(&["-f", "sub/Dockerfile", "-"], &[], b"\x1f\x8b\x08rest").unwrap();
    let ContextSource::Tar(path) = &archive.request.context else {
        panic!("an archive was given")
    };
    assert_eq!(std::fs::read(path).unwrap(), b"\x1f\x8b\x08rest");
    assert!(
        matches!(archive.request.dockerfile, DockerfileSource::InContext(name) if name == "sub/Dockerfile")
    );
    let from = high_with(&["-f", "-", "."], &[], b"FROM x\n").unwrap().request;
    assert!(matches!(from.dockerfile, DockerfileSource::Text(text) if text == b"FROM x\n"));
    for (line, stdin, expected) in [
        (
            &["-f", "-", "-"][..],
            &b"FROM x\n"[..],
            "invalid argument: can't use stdin for both build context and dockerfile",
        ),
        (
            &["-f", "D", "-"],
            b"FROM x\n",
            "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles",
        ),
        (
            &["-"],
            b"",
            "standard input is empty: expected a Dockerfile or a tar archive",
        ),
        (
            &["no/such/dir"],
            b"",
            "unable to prepare context: path \"no/such/dir\" not found",
        ),
    ] {
        assert_eq!(high_with(line, &[], stdin).unwrap_err().to_string(), expected);
    }
}

#[test]
fn the_lower_case_dockerfile_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap().to_owned();
    let found = || match high(&[&path]).request.dockerfile {
        DockerfileSource::File(path) => path.file_name().unwrap().to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(found(), "Dockerfile");
    std::fs::write(dir.path().join("dockerfile"), "FROM scratch").unwrap();
    assert_eq!(found(), "dockerfile");
    std::fs::write(dir.path().join("Dockerfile"), "FROM scratch").unwrap();
    assert_eq!(found(), "Dockerfile");
}

#[test]
fn remote_contexts_and_where_their_dockerfile_is() {
    for url in [
        "https://h.test/r.git#main:dir",
        "http://h.test/ctx.tar.gz",
        "git://h.test/r",
        "git@h.test:r.git",
        "github.com/moby/buildkit",
    ] {
        let request = high(&[url]).request;
        assert!(
            matches!(&request.context, ContextSource::Remote(given) if given == url),
            "{url}"
        );
        assert!(
            matches!(&request.dockerfile, DockerfileSource::InContext(name) if name == "Dockerfile"),
            "{url}"
        );
    }
    let url = "https://h.test/r.git";
    let inside = high(&["-f", "sub/D", url]).request.dockerfile;
    assert!(matches!(inside, DockerfileSource::InContext(name) if name == "sub/D"));
    let here = high(&["-f", "/abs/D", url]).request.dockerfile;
    assert!(matches!(here, DockerfileSource::File(path) if path == Path::new("/abs/D")));
    let text = high_with(&["-f", "-", url], &[], b"FROM scratch\n")
        .unwrap()
        .request;
    assert!(matches!(&text.dockerfile, DockerfileSource::Text(text) if text == b"FROM scratch\n"));
    let shown = format!("{:?}", high(&["https://us:canary@h.test/r.git"]).request);
    assert!(!shown.contains("canary"), "{shown}");
}
