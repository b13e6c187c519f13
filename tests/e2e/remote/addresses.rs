//! Row 36 at every place of a build that names a host: an address of the link's own, where clouds keep their metadata
//! service, is refused wherever it is written.

use rbuild_testkit::image::OciLayout;
use rbuild_testkit::registry::{Fault, ImageSpec, TestRegistry};
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

/// A proxy would look up and ask for whatever it is told: what is written is looked at before.
#[test]
fn row36_behind_a_proxy_the_metadata_service_is_not_asked_either() {
    // A registry plays the proxy: it takes whole URLs, and tells what it was asked.
    let proxy = TestRegistry::start();
    let digest = proxy.put_blob("a", b"through the proxy\n");
    proxy.fault(Fault::redirect("", "/v2/moved", "http://169.254.169.254/latest"));
    let fixture = Fixture::new("");
    let build = || {
        let address = format!("http://{}/", proxy.host());
        fixture
            .build()
            .env("HTTP_PROXY", &address)
            .env("HTTPS_PROXY", &address)
    };
    for host in SPELLINGS {
        for scheme in ["http", "https"] {
            let dockerfile = format!("FROM scratch\nADD {scheme}://{host}/latest/ /x\n");
            fixture.context.dockerfile(&dockerfile);
            build().fails().says("link-local");
        }
    }
    assert_eq!(proxy.requests().len(), 0, "{:?}", proxy.requests());
    fixture
        .context
        .dockerfile("FROM scratch\nADD http://files.invalid/v2/moved /x\n");
    build().fails().says("link-local");
    let asked = proxy.requests();
    assert!(
        asked.iter().all(|request| request.path.contains("/v2/moved")),
        "{asked:?}"
    );
    // The twin: a name that only the proxy has to know.
    fixture.context.dockerfile(&format!(
        "FROM scratch\nADD http://files.invalid/v2/a/blobs/{digest} /x\n"
    ));
    build().ok();
    assert!(proxy.count("GET", &digest.to_string()) > 0);
}

/// A private address may be asked, and whoever reads the build's output or its provenance sees that it was.
#[test]
fn row36_an_own_address_that_is_asked_is_told() {
    let server = WebServer::start();
    server.put("/f", Page::of("text"));
    let registry = TestRegistry::start();
    registry.put_image("base", "1", &ImageSpec::default());
    let (url, base) = (server.url("/f"), registry.reference("base:1"));
    let fixture = Fixture::new(&format!("FROM {base}\nADD {url} /f\n"));
    let dest = fixture.archive();
    fixture
        .build()
        .args(["--progress=plain", "--provenance=mode=max"])
        .arg(format!("--output=type=oci,dest={}", dest.display()))
        .ok()
        .says(&url)
        .says(&base);
    let image = format!("pkg:docker/{}/base@1", registry.host().replace(':', "%3A"));
    let layout = OciLayout::open(&dest).unwrap();
    let blobs = std::fs::read_dir(layout.dir().join("blobs/sha256")).unwrap();
    let texts = blobs.filter_map(|blob| std::fs::read_to_string(blob.unwrap().path()).ok());
    let provenance: Vec<String> = texts
        .filter(|text| text.contains("slsa.dev/provenance") && text.contains("\"uri\""))
        .collect();
    assert!(
        provenance
            .iter()
            .any(|text| text.contains(&format!("\"uri\":\"{url}\"")) && text.contains(&image)),
        "{provenance:?}"
    );
}
