//! Row 36 at every place of a build that names a host: an address of the link's own, where clouds keep their metadata
//! service, is refused wherever it is written.

use rbuild_testkit::web::{Page, WebServer};

use crate::e2e::fixture::Fixture;

/// The metadata service, in the spellings that are one address.
const SPELLINGS: [&str; 4] = [
    "169.254.169.254",
    "2852039166",
    "[::ffff:169.254.169.254]",
    "[fd00:ec2::254]",
];

#[test]
fn row36_no_instruction_asks_the_metadata_service() {
    let fixture = Fixture::new("");
    for host in SPELLINGS {
        for lines in [
            format!("FROM busybox\nADD http://{host}/latest/ /x\n"),
            format!("FROM busybox\nADD http://{host}/r.git /x\n"),
            format!("FROM busybox\nADD https://{host}/r.git#main:d /x\n"),
        ] {
            fixture.context.dockerfile(&lines);
            let ran = fixture.build().fails().says("link-local");
            assert!(ran.elapsed.as_secs() < 20, "nobody was asked\n{ran}");
        }
    }
    for lines in [
        "FROM 169.254.169.254/library/x\n",
        "FROM 169.254.169.254:80/library/x\n",
        "FROM busybox\nCOPY --from=169.254.169.254/library/x /a /b\n",
        "FROM busybox\nRUN --mount=from=169.254.169.254/library/x,target=/m true\n",
        "# syntax=169.254.169.254/front/end\nFROM busybox\n",
    ] {
        fixture.context.dockerfile(lines);
        let ran = fixture.build().fails().says("link-local");
        assert!(ran.elapsed.as_secs() < 20, "nobody was asked\n{ran}");
    }
}

#[test]
fn row36_no_flag_asks_the_metadata_service() {
    let fixture = Fixture::new("FROM busybox\nCOPY --from=other / /x\n");
    for context in [
        "http://169.254.169.254/latest",
        "https://169.254.169.254/r.git",
        "docker-image://169.254.169.254/library/x",
    ] {
        fixture
            .build()
            .arg(format!("--build-context=other={context}"))
            .fails()
            .says("link-local");
    }
    for context in [
        "http://169.254.169.254/context.tar",
        "https://169.254.169.254/r.git",
    ] {
        fixture.build_of().arg(context).fails().says("link-local");
    }
    // A cache that cannot be had is told and done without.
    fixture.context.dockerfile("FROM busybox\nRUN true\n");
    fixture
        .build()
        .arg("--cache-from=type=registry,ref=169.254.169.254/cache")
        .ok()
        .says("link-local");
    fixture
        .build()
        .args(["-t", "169.254.169.254/pushed", "--push"])
        .fails()
        .says("link-local");
    // The twin: this machine's own address, which somebody wrote.
    let server = WebServer::start();
    server.put("/f", Page::of("twin"));
    fixture
        .context
        .dockerfile(&format!("FROM busybox\nADD {} /f\n", server.url("/f")));
    let (_, image) = fixture.image(&[]);
    assert_eq!(image.files().unwrap().text("f"), Some("twin"));
}
