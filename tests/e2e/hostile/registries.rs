//! Rows 31 to 36 on whole builds, on each rung: a registry that lies, and one that leads its client elsewhere. The client asks
//! as the user of the rung, so each has its own credentials, helpers and store.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rbuild_oci::media_type::OCI_INDEX;
use rbuild_oci::{Descriptor, ImageConfig, Index, Manifest, Platform};
use rbuild_testkit::layout::{Attributes, LayerBuilder};
use rbuild_testkit::registry::{Fault, FaultAction, ImageSpec, RegistryAuth, TestRegistry};
use rbuild_testkit::web::{Page, WebServer};

use crate::e2e::hostile::canary::{BYTES, Rung, Site};

const USER: &str = "ann";
const PASSWORD: &str = "s3cret";
/// Both, as a file of credentials has them.
const BASIC: &str = "YW5uOnMzY3JldA==";

/// An image of one file with that content; the digest of its layer.
fn put(registry: &TestRegistry, name: &str, content: &str) -> String {
    let layer = LayerBuilder::new().file("of-the-base", Attributes::mode(0o644), content.as_bytes());
    let spec = ImageSpec {
        layers: vec![layer.finish()],
        ..ImageSpec::default()
    };
    let image = registry.put_image(name, "1", &spec);
    image.manifest.layers[0].digest.to_string()
}

/// A build on `name` of the registry.
fn site_from(rung: Rung, registry: &TestRegistry, name: &str) -> Site {
    let base = registry.reference(&format!("{name}:1"));
    Site::on(rung, &format!("FROM {base}\nCOPY Dockerfile /copied\n"))
}

/// Writes the credentials of the user that builds.
fn credentials(site: &Site, text: &str) {
    let dir = site.fixture.home.home().join(".docker");
    fs::create_dir_all(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.join("config.json"), text).unwrap();
    fs::set_permissions(dir.join("config.json"), fs::Permissions::from_mode(0o644)).unwrap();
}

/// Those of one host.
fn credentials_of(site: &Site, host: &str) {
    credentials(site, &format!(r#"{{"auths":{{"{host}":{{"auth":"{BASIC}"}}}}}}"#));
}

#[test]
fn row31_a_layer_without_its_digest_is_not_there_on_any_rung() {
    for rung in Rung::unpacking() {
        let registry = TestRegistry::start();
        // What the site looks for in the store is in the layer.
        let digest = put(&registry, "bad", &BYTES.repeat(100));
        let blob = format!("blobs/{digest}");
        let site = site_from(rung, &registry, "bad");
        registry.fault(Fault::new("GET", &blob, FaultAction::Flip(10)));
        let told = site
            .build(&[])
            .map(|files| files.table())
            .expect_err("it was built");
        let reason = format!("{digest} was asked for");
        assert!(told.contains(&reason), "{rung:?}: {told}");
        for bad in [
            "sha256:../../../../canary/x",
            "sha256:abc",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
        ] {
            registry.clear_faults();
            let header = ("docker-content-digest".to_owned(), bad.to_owned());
            registry.fault(Fault::new(
                "",
                "manifests",
                FaultAction::Header(header.0, header.1),
            ));
            site.refused(&["--pull".to_owned()], "digest");
        }
        let asked = registry.requests();
        assert!(
            asked.iter().all(|request| !request.path.contains("canary")),
            "{rung:?}"
        );
        // The legal twin: the same registry without its faults.
        registry.clear_faults();
        put(&registry, "good", "unharmed");
        let files = site_from(rung, &registry, "good").works(&[]);
        assert_eq!(files.text("of-the-base"), Some("unharmed"), "{rung:?}");
    }
}

#[test]
fn row32_a_document_with_two_meanings_is_refused_on_each_rung() {
    for rung in Rung::unpacking() {
        let registry = TestRegistry::start();
        put(&registry, "good", "one meaning");
        let (kind, text) = registry.manifest("good", "1").unwrap();
        let text = String::from_utf8(text).unwrap();
        let twice = text.replacen('{', r#"{"manifests":[],"#, 1);
        let layers = text.replacen('{', r#"{"layers":[],"#, 1);
        let typed = text.replace("manifest.v1+json", "index.v1+json");
        let cases = [
            ("both", twice, "it can be read as a manifest or as an index"),
            ("duplicate", layers, "document is not unambiguous JSON"),
            ("typed", typed, "but was served as"),
        ];
        for (name, bad, reason) in cases {
            assert_ne!(bad, text, "{name}");
            registry.put_manifest("good", name, &kind, bad.as_bytes());
            let base = registry.reference(&format!("good:{name}"));
            let site = Site::on(rung, &format!("FROM {base}\nCOPY Dockerfile /copied\n"));
            let told = site.build(&[]).map(|files| files.table()).expect_err(name);
            assert!(told.contains(reason), "{rung:?} {name}: {told}");
            let blobs = registry.count("GET", "blobs");
            assert_eq!(blobs, 0, "{rung:?} {name}: nothing of it was fetched\n{told}");
        }
        let files = site_from(rung, &registry, "good").works(&[]);
        assert_eq!(
            files.text("of-the-base"),
            Some("one meaning"),
            "{rung:?}: the twin"
        );
    }
}

#[test]
fn row32_what_is_no_image_is_refused_on_each_rung() {
    for rung in Rung::unpacking() {
        let registry = TestRegistry::start();
        let layer = || LayerBuilder::new().file("of-the-base", Attributes::mode(0o644), b"an image");
        let spec = |config| ImageSpec {
            layers: vec![layer().finish()],
            config,
            ..ImageSpec::default()
        };
        let good = registry
            .put_image("good", "1", &spec(ImageConfig::default()))
            .manifest;
        let edited = |tag: &str, edit: &dyn Fn(&mut Manifest)| {
            let mut manifest = good.clone();
            edit(&mut manifest);
            registry.put_manifest("good", tag, &good.media_type, &manifest.to_bytes())
        };
        edited("chart", &|manifest| {
            manifest.config.media_type = "application/vnd.cncf.helm.config.v1+json".to_owned();
        });
        edited("fewer", &|manifest| manifest.layers.clear());
        edited("more", &|manifest| {
            manifest.layers.push(manifest.layers[0].clone());
        });
        edited("layer", &|manifest| {
            let media_type = std::mem::take(&mut manifest.config.media_type);
            manifest.config = Descriptor {
                media_type,
                ..manifest.layers[0].clone()
            };
        });
        let nested = |depth: usize| {
            let mut entry = edited("leaf", &|_| {});
            for level in 0..depth {
                entry.platform = Some(Platform::host());
                let index = Index::new(OCI_INDEX, vec![entry]).to_bytes();
                entry = registry.put_manifest("good", &format!("{depth}-{level}"), OCI_INDEX, &index);
            }
            format!("{depth}-{}", depth - 1)
        };
        let cases = [
            (
                "chart".to_owned(),
                "encountered unknown type application/vnd.cncf.helm.config.v1+json",
            ),
            ("fewer".to_owned(), "layers"),
            ("more".to_owned(), "layers"),
            ("layer".to_owned(), "config sha256:"),
            (nested(1000), "indexes are nested"),
        ];
        let from = |tag: &str| {
            let base = registry.reference(&format!("good:{tag}"));
            Site::on(rung, &format!("FROM {base}\nCOPY Dockerfile /copied\n"))
        };
        for (tag, reason) in cases {
            let told = from(&tag).build(&[]).map(|files| files.table()).expect_err(&tag);
            assert!(told.contains(reason), "{rung:?} {tag}: {told}");
        }
        assert!(
            registry.count("GET", "manifests") < 30,
            "{rung:?}: nobody goes on for ever"
        );
        // Twins: what BuildKit takes. Contents tell what a layer is, and a config what an image runs on.
        edited("odd", &|manifest| {
            manifest.layers[0].media_type = "application/vnd.oci.image.layer.v1.tar+encrypted".to_owned();
        });
        edited("old", &|manifest| {
            manifest.config.media_type = "application/octet-stream".to_owned();
        });
        let mut config = ImageConfig::default();
        config.set_platform(&Platform::new("linux", "s390x"));
        let lie = Descriptor {
            platform: Some(Platform::host()),
            ..registry.put_image("good", "other", &spec(config)).descriptor
        };
        registry.put_manifest(
            "good",
            "lie",
            OCI_INDEX,
            &Index::new(OCI_INDEX, vec![lie]).to_bytes(),
        );
        for tag in ["odd".to_owned(), "old".to_owned(), "lie".to_owned(), nested(4)] {
            let files = from(&tag).works(&[]);
            assert_eq!(files.text("of-the-base"), Some("an image"), "{rung:?} {tag}");
        }
    }
}

#[test]
fn row33_credentials_do_not_follow_a_layer_elsewhere_on_any_rung() {
    for rung in Rung::unpacking() {
        let own = TestRegistry::start_with(RegistryAuth::basic(USER, PASSWORD));
        let other = TestRegistry::start();
        let digest = put(&own, "base", "redirected");
        put(&other, "base", "redirected");
        let blob = format!("blobs/{digest}");
        let there = format!("http://{}/v2/base/{blob}", other.host());
        own.fault(Fault::redirect("GET", &blob, &there));
        let site = site_from(rung, &own, "base");
        credentials_of(&site, &own.host());
        let files = site.works(&[]);
        assert_eq!(
            files.text("of-the-base"),
            Some("redirected"),
            "{rung:?}: the twin"
        );
        let heard = other.requests();
        assert_eq!(heard.len(), 1, "{rung:?}");
        for name in ["authorization", "cookie"] {
            assert_eq!(heard[0].header(name), None, "{rung:?}");
        }
        // Asked for credentials there, nobody has any; and other ways than HTTP are none.
        other.fault(Fault::status(
            "GET",
            "blobs",
            401,
            ("www-authenticate", "Basic realm=\"b\""),
            "",
        ));
        let site = site_from(rung, &own, "base");
        credentials_of(&site, &own.host());
        site.refused(&[], "401");
        for to in ["file:///etc/passwd", "http://169.254.169.254/x"] {
            own.clear_faults();
            own.fault(Fault::redirect("GET", &blob, to));
            site.build(&[]).map(|files| files.table()).expect_err(to);
        }
        let heard = other.requests();
        assert!(
            heard
                .iter()
                .all(|request| request.header("authorization").is_none()),
            "{rung:?}"
        );
    }
}

#[test]
fn row34_token_servers_of_an_attacker_are_not_asked_on_any_rung() {
    let bearer = |realm: Option<String>| RegistryAuth::Bearer {
        user: USER.to_owned(),
        password: PASSWORD.to_owned(),
        identity_token: None,
        anonymous_pull: false,
        realm,
    };
    for rung in Rung::unpacking() {
        for (realm, because) in [
            ("http://169.254.169.254/token", "its token server: "),
            ("file:///etc/shadow", "its token server is neither http nor https"),
            (
                "http://u:p@127.0.0.1/token",
                "its token server's address contains credentials",
            ),
        ] {
            let registry = TestRegistry::start_with(bearer(Some(realm.to_owned())));
            put(&registry, "base", "private");
            let site = site_from(rung, &registry, "base");
            credentials_of(&site, &registry.host());
            let told = site.build(&[]).map(|files| files.table()).expect_err(realm);
            assert!(
                !told.contains(PASSWORD) && !told.contains(BASIC),
                "{rung:?}: {told}"
            );
            assert!(told.contains(because), "{rung:?}: not for {because:?}\n{told}");
            for request in registry.requests() {
                assert_eq!(request.header("authorization"), None, "{rung:?} {realm}");
            }
        }
        let registry = TestRegistry::start_with(bearer(None));
        put(&registry, "base", "private");
        let site = site_from(rung, &registry, "base");
        credentials_of(&site, &registry.host());
        assert_eq!(
            site.works(&[]).text("of-the-base"),
            Some("private"),
            "{rung:?}: the twin"
        );
    }
}

#[test]
fn row35_no_other_entry_and_no_path_is_a_helper_on_any_rung() {
    for rung in Rung::unpacking() {
        let registry = TestRegistry::start_with(RegistryAuth::basic(USER, PASSWORD));
        put(&registry, "base", "private");
        let host = registry.host();
        let site = site_from(rung, &registry, "base");
        let marker = site.fixture.home.work().join("helper-ran");
        let helper = site.fixture.home.work().join("docker-credential-evil");
        fs::write(&helper, format!("#!/bin/sh\necho ran > {}\n", marker.display())).unwrap();
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
        let path = site.fixture.home.work().join("evil");
        let entries = [
            format!(r#"{{"auths":{{"{host}.evil.test":{{"auth":"{BASIC}"}}}}}}"#),
            format!(r#"{{"auths":{{"127.0.0.1":{{"auth":"{BASIC}"}}}}}}"#),
            format!(r#"{{"credsStore":"missing","auths":{{"other.test":{{"auth":"{BASIC}"}}}}}}"#),
            format!(r#"{{"credHelpers":{{"{host}":"../tmp/evil"}}}}"#),
            format!(r#"{{"credHelpers":{{"{host}":"{}"}}}}"#, path.display()),
        ];
        for text in entries {
            credentials(&site, &text);
            let told = site.build(&[]).map(|files| files.table()).expect_err(&text);
            assert!(!told.contains(PASSWORD), "{rung:?}: {told}");
            assert!(!marker.exists(), "{rung:?}: {text}");
            for request in registry.requests() {
                assert_eq!(request.header("authorization"), None, "{rung:?} {text}");
            }
        }
        credentials_of(&site, &host);
        assert_eq!(
            site.works(&[]).text("of-the-base"),
            Some("private"),
            "{rung:?}: the twin"
        );
    }
}

#[test]
fn row36_the_metadata_service_is_asked_on_no_rung() {
    for rung in Rung::unpacking() {
        let server = WebServer::start();
        server
            .put("/away", Page::redirect(302, "http://169.254.169.254/latest/"))
            .put(
                "/named",
                Page::of("twin").header(
                    "Content-Disposition",
                    "attachment; filename=\"../../canary/victim\"",
                ),
            );
        let site = Site::on(rung, "");
        for line in [
            "FROM 169.254.169.254/library/x",
            "FROM busybox\nADD http://169.254.169.254/latest/ /x",
            "FROM busybox\nADD http://[::ffff:169.254.169.254]/latest/ /x",
            &format!("FROM busybox\nADD {} /x", server.url("/away")),
        ] {
            site.fixture.context.dockerfile(&format!("{line}\n"));
            site.refused(&[], "link-local");
        }
        let line = format!("FROM busybox\nADD {} /d/\n", server.url("/named"));
        site.fixture.context.dockerfile(&line);
        assert_eq!(
            site.works(&[]).text("d/named"),
            Some("twin"),
            "{rung:?}: the twin"
        );
    }
}
