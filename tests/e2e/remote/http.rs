//! `ADD https://…`: what lands in the image, what is asked again, what is refused.

use rbuild_oci::Digest;
use rbuild_testkit::command::Ran;
use rbuild_testkit::context::gzipped;
use rbuild_testkit::layout::{Attributes, LayerBuilder};
use rbuild_testkit::web::{Manner, Page, WebServer};

use crate::e2e::fixture::Fixture;

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// A build whose second step shows whether what follows the ADD ran again.
fn adding(server: &WebServer, flags: &str, path: &str) -> Fixture {
    let url = server.url(path);
    Fixture::new(&format!(
        "FROM busybox\nADD {flags}{url} /got/\nRUN ls -l /got > /seen\n"
    ))
}

fn reran(ran: &Ran) -> bool {
    ran.executed().iter().any(|step| step.contains("RUN ls -l"))
}

#[test]
fn a_file_lands_with_its_name_mode_and_time() {
    let server = WebServer::start();
    server.put(
        "/a/data.bin?x=1",
        Page::of("content").header("Last-Modified", DATE),
    );
    let fixture = adding(&server, "", "/a/data.bin?x=1");
    let (_, image) = fixture.image(&[]);
    let files = image.files().unwrap();
    let file = files.get("got/data.bin").expect("the file");
    assert_eq!(files.text("got/data.bin"), Some("content"));
    assert_eq!((file.mode & 0o7777, file.uid, file.gid), (0o600, 0, 0));
    assert_eq!(file.mtime, 784_111_777);
}

#[test]
fn chmod_chown_and_unpack_are_obeyed() {
    let server = WebServer::start();
    let tar = LayerBuilder::new().file("inner/a", Attributes::mode(0o644), b"unpacked");
    server
        .put("/f", Page::of("content"))
        .put("/a.tar.gz", Page::of(gzipped(&tar.finish())));
    let fixture = Fixture::new(&format!(
        "FROM busybox\nADD --chmod=755 --chown=12:34 {f} /f\nADD {a} /packed/\nADD --unpack=true {a} /unpacked/\n",
        f = server.url("/f"),
        a = server.url("/a.tar.gz"),
    ));
    let (_, image) = fixture.image(&[]);
    let files = image.files().unwrap();
    let file = files.get("f").expect("the file");
    assert_eq!((file.mode & 0o7777, file.uid, file.gid), (0o755, 12, 34));
    assert_eq!(file.mtime, 0, "no Last-Modified");
    assert!(
        files.get("packed/a.tar.gz").is_some(),
        "an URL is not unpacked by itself"
    );
    assert_eq!(files.text("unpacked/inner/a"), Some("unpacked"));
}

#[test]
fn an_unchanged_file_is_not_sent_again_and_a_changed_one_reruns_what_follows() {
    let server = WebServer::start();
    server.put("/f", Page::of("one").header("ETag", "\"1\""));
    let fixture = adding(&server, "", "/f");
    assert!(reran(&fixture.image(&[]).0));
    server.forget();
    let (second, _) = fixture.image(&[]);
    assert!(!reran(&second), "{second}");
    let methods: Vec<String> = server.asked().into_iter().map(|asked| asked.method).collect();
    assert_eq!(methods, ["HEAD"], "the ETag is enough");
    server.put("/f", Page::of("two").header("ETag", "\"2\""));
    let (third, image) = fixture.image(&[]);
    assert!(reran(&third), "{third}");
    assert_eq!(image.files().unwrap().text("got/f"), Some("two"));
    server.put("/f", Page::of("one").header("ETag", "W/\"1\""));
    server.forget();
    let (fourth, image) = fixture.image(&[]);
    assert_eq!(image.files().unwrap().text("got/f"), Some("one"));
    assert!(!reran(&fourth), "both answers are remembered\n{fourth}");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn the_same_content_under_another_etag_or_none_reruns_nothing() {
    let server = WebServer::start();
    server.put("/f", Page::of("same").header("ETag", "\"1\""));
    let fixture = adding(&server, "", "/f");
    fixture.image(&[]);
    server.put("/f", Page::of("same").header("ETag", "\"2\""));
    let (ran, _) = fixture.image(&[]);
    assert!(!reran(&ran), "{ran}");
    for _ in 0..2 {
        server.put("/f", Page::of("same"));
        server.forget();
        let (ran, _) = fixture.image(&[]);
        assert!(!reran(&ran), "{ran}");
        assert!(
            server.asked().iter().any(|asked| asked.method == "GET"),
            "without an ETag it is fetched"
        );
    }
    server.put("/f", Page::of("same").header("Last-Modified", DATE));
    let (ran, _) = fixture.image(&[]);
    assert!(!reran(&ran), "times are no content\n{ran}");
}

#[test]
fn a_server_that_ignores_etags_or_head_is_understood() {
    let server = WebServer::start();
    server.put("/f", Page::of("x").header("ETag", "\"1\"").ignoring_etags());
    let fixture = adding(&server, "", "/f");
    fixture.image(&[]);
    server.forget();
    let (ran, _) = fixture.image(&[]);
    assert!(!reran(&ran), "{ran}");
    assert_eq!(server.asked().len(), 1, "the HEAD's own ETag is compared");
}

#[test]
fn a_checksum_is_a_key_that_asks_nobody_and_is_enforced() {
    let server = WebServer::start();
    server.put("/f", Page::of("content"));
    let right = Digest::sha256(b"content");
    let fixture = adding(&server, &format!("--checksum={right} "), "/f");
    fixture.image(&[]);
    server.forget();
    let (ran, _) = fixture.image(&[]);
    assert!(!reran(&ran) && server.asked().is_empty(), "{ran}");
    let wrong = Digest::sha256(b"other");
    let fixture = adding(&server, &format!("--checksum={wrong} "), "/f");
    let ran = fixture.build().fails();
    let found = right.to_string();
    assert!(
        ran.stderr.contains("digest mismatch") && ran.stderr.contains(&found),
        "{ran}"
    );
    fixture.build().fails().says("digest mismatch");
}

#[test]
fn a_content_encoding_that_was_not_asked_for_is_taken_off() {
    let server = WebServer::start();
    server.put(
        "/f",
        Page::of(gzipped(b"content")).header("Content-Encoding", "gzip"),
    );
    let digest = Digest::sha256(b"content");
    let fixture = adding(&server, &format!("--checksum={digest} "), "/f");
    let (_, image) = fixture.image(&[]);
    assert_eq!(image.files().unwrap().text("got/f"), Some("content"));
}

#[test]
fn secrets_for_a_host_are_sent_to_it_and_shown_nowhere() {
    let server = WebServer::start();
    server.put("/f", Page::of("content").authorization("Bearer c4n4ry-t0ken"));
    let fixture = adding(&server, "", "/f");
    fixture.build().fails().says("invalid response status 401");
    let token = fixture.home.work().join("token");
    std::fs::write(&token, "c4n4ry-t0ken\n").unwrap();
    fixture
        .build()
        .arg(format!(
            "--secret=id=HTTP_AUTH_TOKEN_127.0.0.1,src={}",
            token.display()
        ))
        .ok()
        .never_says("c4n4ry");
}

#[test]
fn what_a_server_refuses_or_breaks_off_fails_with_the_line() {
    let server = WebServer::start();
    server.put("/cut", Page::of("content").manner(Manner::CutTo(3)));
    for (path, says) in [("/absent", "invalid response status 404"), ("/cut", "127.0.0.1")] {
        let fixture = adding(&server, "", path);
        let before = fixture.residue();
        let ran = fixture.build().fails().says(says);
        assert!(ran.stderr.contains("Dockerfile:2"), "{ran}");
        fixture.assert_clean_since(&before);
    }
}

#[test]
fn row36_the_metadata_service_is_not_asked_and_names_stay_in_their_directory() {
    let fixture = Fixture::new("FROM busybox\nADD http://169.254.169.254/latest/ /x\n");
    fixture.build().fails().says("link-local");
    let server = WebServer::start();
    server.put("/away", Page::redirect(302, "http://2852039166/"));
    adding(&server, "", "/away").build().fails().says("link-local");
    server.put(
        "/f",
        Page::of("twin").header("Content-Disposition", "attachment; filename=\"../../canary\""),
    );
    let (_, image) = adding(&server, "", "/f").image(&[]);
    assert_eq!(
        image.files().unwrap().text("got/f"),
        Some("twin"),
        "the URL names the file of an ADD"
    );
    // Longer than any name can be.
    let long = format!("/{}", "n".repeat(300));
    server.put(&long, Page::of("nowhere"));
    adding(&server, "", &long)
        .build()
        .fails()
        .says("failed to load cache key: ")
        .says("File name too long");
}

#[test]
fn rootless_files_are_added_too() {
    let server = WebServer::start();
    server.put("/f", Page::of("content"));
    let Some(fixture) = Fixture::rootless(&format!(
        "FROM busybox\nADD --chown=12:34 {} /f\n",
        server.url("/f")
    )) else {
        return;
    };
    let (_, image) = fixture.image(&[]);
    let files = image.files().unwrap();
    assert_eq!(files.text("f"), Some("content"));
    assert_eq!(files.get("f").map(|file| (file.uid, file.gid)), Some((12, 34)));
}

#[test]
fn row33_a_password_of_an_added_url_does_not_follow_a_redirect_elsewhere() {
    let (server, other) = (WebServer::start(), WebServer::start());
    // base64 of "us:c4n4ry".
    let own = Page::of("content").authorization("Basic dXM6YzRuNHJ5");
    other.put("/f", Page::of("content"));
    server
        .put("/own", own)
        .put("/here", Page::redirect(302, "/own"))
        .put("/elsewhere", Page::redirect(302, &other.url("/f")));
    let with_password = |path: &str| server.url(path).replace("http://", "http://us:c4n4ry@");
    let fixture = Fixture::new(&format!(
        "FROM busybox\nADD {} /twin\nADD {} /got\n",
        with_password("/here"),
        with_password("/elsewhere")
    ));
    let (ran, image) = fixture.image(&[]);
    ran.never_says("c4n4ry");
    let files = image.files().unwrap();
    assert_eq!(files.text("twin"), Some("content"), "the own server gets it");
    assert_eq!(files.text("got"), Some("content"));
    let asked = other.asked();
    assert!(!asked.is_empty());
    for asked in asked {
        let told = format!("{asked:?}").to_lowercase();
        assert!(!told.contains("dxm6yzrunhj5"), "{told}");
    }
}
