//! Pull and push against Debian's `docker-registry`, honest and damaged. What one exchange looks like on the wire is
//! tested in the `registry` crate, with a registry that can misbehave on purpose.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::leak::holders;
use rbuild_testkit::peer::{AUTHORITY, CLIENT_CERTIFICATE, CLIENT_KEY, DockerRegistry, PASSWORD, USER};
use rbuild_testkit::registry::{Fault, FaultAction, ImageSpec, RegistryAuth, TestRegistry};
use rbuild_testkit::{context, machine};

use crate::e2e::fixture::{Fixture, is_root};

/// Copies the busybox base into the registry by skopeo.
#[track_caller]
fn publish(registry: &DockerRegistry, name: &str) -> String {
    let bases = rbuild_testkit::base::layout().expect("the fast tier's base images");
    let to = format!("{}/{name}", registry.host());
    RbuildCommand::new(machine::required("skopeo", "skopeo").expect("a tool of the tests"))
        .args([
            "--insecure-policy",
            "copy",
            "-q",
            "--dest-tls-verify=false",
            "--dest-creds",
        ])
        .arg(format!("{USER}:{PASSWORD}"))
        .arg(format!("oci:{}:busybox", bases.display()))
        .arg(format!("docker://{to}"))
        .ok();
    to
}

#[track_caller]
fn inspect(reference: &str) -> serde_json::Value {
    let ran = RbuildCommand::new(machine::required("skopeo", "skopeo").expect("a tool of the tests"))
        .args(["inspect", "--tls-verify=false", "--raw"])
        .arg(format!("docker://{reference}"))
        .ok();
    serde_json::from_slice(&ran.stdout).expect("a manifest")
}

/// Logs in with `password`, which `login` gets through its standard input.
fn log_in(fixture: &Fixture, host: &str, password: &str) -> RbuildCommand {
    fixture
        .rbuild(["login", "--username", USER, "--password-stdin", host])
        .stdin(format!("{password}\n"))
}

#[test]
fn a_base_is_pulled_a_result_pushed_and_pulled_again() {
    let registry = DockerRegistry::start().unwrap();
    let base = publish(&registry, "library/base:1");
    let fixture = Fixture::new(&format!("FROM {base}\nRUN echo x > /x\nLABEL pushed=yes\n"));
    let app = format!("{}/team/app:1", registry.host());
    fixture.build().args(["-t", &app, "--push"]).ok();
    let manifest = inspect(&app);
    let base_manifest = inspect(&base);
    assert_eq!(
        manifest["layers"][0]["digest"], base_manifest["layers"][0]["digest"],
        "the base's layer is pushed as it was"
    );
    let other = Fixture::new(&format!("FROM {app}\nRUN cat /x > /seen\n"));
    let (_, image) = other.image(&[]);
    assert_eq!(image.files().unwrap().text("seen"), Some("x\n"));
    assert_eq!(image.run_config()["Labels"]["pushed"], "yes");
}

#[test]
fn the_store_is_pushed_by_name_later() {
    let registry = DockerRegistry::start().unwrap();
    let fixture = Fixture::new("FROM scratch\nCOPY a /a\n");
    fixture.context.file("a", "a\n");
    let app = format!("{}/later:1", registry.host());
    fixture.build().args(["-t", &app]).ok();
    fixture.rbuild(["push", &app]).ok();
    assert_eq!(inspect(&app)["layers"].as_array().map(Vec::len), Some(1));
}

#[test]
fn credentials_are_used_and_their_absence_is_told() {
    let registry = DockerRegistry::with_password().unwrap();
    let base = publish(&registry, "private/base:1");
    let fixture = Fixture::new(&format!("FROM {base}\nRUN true\n"));
    let refused = fixture.build().fails();
    let text = refused.stderr.to_lowercase();
    assert!(text.contains("unauthorized") || text.contains("401"), "{refused}");
    assert!(
        refused.stderr.contains(&registry.host()),
        "which registry?\n{refused}"
    );
    log_in(&fixture, &registry.host(), PASSWORD).ok();
    fixture.build().ok().never_says(PASSWORD);
}

#[test]
fn only_what_the_registry_takes_is_stored_and_logout_removes_it() {
    let registry = DockerRegistry::with_password().unwrap();
    let host = registry.host();
    let fixture = Fixture::new("FROM scratch\n");
    let config = fixture.home.home().join(".docker/config.json");
    let refused = log_in(&fixture, &host, "wrong").fails().never_says("wrong\n");
    assert!(
        refused.stderr.contains("401") || refused.stderr.contains("unauthorized"),
        "{refused}"
    );
    assert!(!config.exists());
    let done = log_in(&fixture, &host, PASSWORD).ok().never_says(PASSWORD);
    assert_eq!(done.stdout_text(), "Login Succeeded");
    assert!(done.stderr.contains("stored unencrypted"), "{done}");
    assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(
        !fixture.home.store().join("index.db").exists(),
        "a login opens no store"
    );
    // skopeo reads what we wrote.
    RbuildCommand::new(machine::required("skopeo", "skopeo").expect("a tool of the tests"))
        .args(["list-tags", "--tls-verify=false", "--authfile"])
        .arg(&config)
        .arg(format!("docker://{}", publish(&registry, "mine/base")))
        .ok();
    let gone = fixture.rbuild(["logout", &host]).ok().stdout_text();
    assert_eq!(gone, format!("Removing login credentials for {host}"));
    assert!(!fs::read_to_string(&config).unwrap().contains(&host));
    let gone = fixture.rbuild(["logout", &host]).ok().stdout_text();
    assert_eq!(gone, format!("Not logged in to {host}"));
}

#[test]
fn a_login_without_anybody_to_ask_says_so() {
    let fixture = Fixture::new("FROM scratch\n");
    fixture
        .rbuild(["login", "127.0.0.1:1"])
        .fails()
        .says("non TTY device");
    let nobody = machine::free_port().unwrap();
    let host = format!("127.0.0.1:{nobody}");
    log_in(&fixture, &host, PASSWORD).fails().says(&host);
}

#[test]
fn an_unreachable_registry_is_named_with_the_line() {
    let port = machine::free_port().unwrap();
    let fixture = Fixture::new(&format!("# one\nFROM 127.0.0.1:{port}/nothing:1\nRUN true\n"));
    let ran = fixture.build().fails().says(&format!("127.0.0.1:{port}"));
    assert!(ran.stderr.contains("Dockerfile:2"), "{ran}");
}

#[test]
fn a_missing_image_is_told_from_a_missing_registry() {
    let registry = DockerRegistry::start().unwrap();
    let fixture = Fixture::new(&format!("FROM {}/no/such:image\n", registry.host()));
    let ran = fixture.build().fails();
    assert!(ran.stderr.to_lowercase().contains("not found"), "{ran}");
}

#[test]
fn a_damaged_or_truncated_layer_is_refused_and_nothing_of_it_is_kept() {
    let registry = DockerRegistry::start().unwrap();
    let base = publish(&registry, "library/damaged:1");
    let digest = inspect(&base)["layers"][0]["digest"].as_str().unwrap().to_owned();
    let file = registry.blob_file(&digest);
    let good = fs::read(&file).unwrap();
    let fixture = Fixture::new(&format!("FROM {base}\nRUN echo x > /x\n"));
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for bad in [flipped, good[..good.len() / 2].to_vec()] {
        fs::write(&file, bad).unwrap();
        let ran = fixture.build().fails();
        assert!(ran.stderr.contains(&digest[..19]), "which blob?\n{ran}");
    }
    fs::write(&file, good).unwrap();
    fixture.build().ok();
}

#[test]
fn a_moved_tag_is_seen_with_pull() {
    let registry = DockerRegistry::start().unwrap();
    let base = publish(&registry, "library/moves:1");
    let fixture = Fixture::new(&format!("FROM {base}\nRUN echo x > /x\n"));
    fixture.build().ok();
    let other = Fixture::new(&format!("FROM {base}\nRUN echo moved > /moved\n"));
    other.build().args(["-t", &base, "--push"]).ok();
    let (ran, image) = fixture.image(&["--pull"]);
    assert_eq!(image.files().unwrap().text("moved"), Some("moved\n"), "{ran}");
}

/// A way to `to` that carries `limit` bytes there and then breaks, and nothing after that.
fn cut(to: &str, limit: usize) -> String {
    use std::io::{Read as _, Write as _};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::sync::atomic::AtomicUsize;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (to, left) = (to.to_owned(), Arc::new(AtomicUsize::new(limit)));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            let Ok(mut server) = TcpStream::connect(&to) else {
                return;
            };
            let (mut back, mut reader) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut reader, &mut back));
            let left = Arc::clone(&left);
            std::thread::spawn(move || {
                let mut chunk = [0; 997];
                while let Ok(count @ 1..) = client.read(&mut chunk) {
                    let may = left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                            Some(left.saturating_sub(count))
                        })
                        .unwrap();
                    if server.write_all(&chunk[..count.min(may)]).is_err() || may < count {
                        break;
                    }
                }
                drop(client.shutdown(Shutdown::Both));
                drop(server.shutdown(Shutdown::Both));
            });
        }
    });
    address
}

#[test]
fn a_push_cut_at_any_byte_can_be_repeated() {
    let registry = DockerRegistry::start().unwrap();
    let fixture = Fixture::new("FROM scratch\nCOPY noise /noise\n");
    fixture.context.file("noise", context::noise(200 << 10));
    let cuts = [1, 300, 700, 1500, 40_000, 150_000, 205_000, 206_500];
    let tried = std::thread::scope(|scope| {
        let tries: Vec<_> = cuts
            .into_iter()
            .map(|limit| {
                let (registry, fixture) = (&registry, &fixture);
                scope.spawn(move || {
                    // A repository each: what one of them has pushed whole is there for the others.
                    let broken = format!("{}/cut-{limit}:1", cut(&registry.host(), limit));
                    fixture.build().args(["-t", &broken]).ok();
                    let failed = fixture.rbuild(["push", &broken]).fails();
                    assert_eq!(failed.status.code(), Some(3), "{limit}: {failed}");
                    let whole = format!("{}/cut-{limit}:1", registry.host());
                    fixture.rbuild(["tag", &broken, &whole]).ok();
                    fixture.rbuild(["push", &whole]).ok();
                    whole
                })
            })
            .collect();
        tries
            .into_iter()
            .map(|one| one.join().unwrap())
            .collect::<Vec<_>>()
    });
    for whole in tried {
        let other = Fixture::new("FROM scratch\n");
        other.rbuild(["pull", &whole]).ok();
    }
}

#[test]
fn what_another_repository_of_the_registry_has_is_mounted() {
    let registry = TestRegistry::start();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(3);
    header.set_mode(0o644);
    header.set_mtime(0);
    tar.append_data(&mut header, "base", &b"abc"[..]).unwrap();
    let layers = vec![tar.into_inner().unwrap()];
    let image = registry.put_image(
        "library/base",
        "1",
        &ImageSpec {
            layers,
            ..ImageSpec::default()
        },
    );
    let base_layer = &image.manifest.layers[0].digest;
    let fixture = Fixture::new(&format!(
        "FROM {}\nCOPY Dockerfile /copied\n",
        registry.reference("library/base:1")
    ));
    let sent = || registry.count("PUT", "/blobs/uploads/");
    let push = |to: &str| {
        fixture
            .build()
            .args(["--push", "-t", &registry.reference(to)])
            .ok()
    };
    push("team/app:1");
    assert_eq!(sent(), 2, "the new layer and the config");
    assert_eq!(registry.count("POST", "from=library%2Fbase"), 1);
    assert!(registry.blob("team/app", base_layer).is_some());
    // What was pushed to one repository is there for the next, by `build` and by `push`.
    push("team/other:1");
    fixture
        .rbuild([
            "tag",
            &registry.reference("team/other:1"),
            &registry.reference("third:1"),
        ])
        .ok();
    fixture.rbuild(["push", &registry.reference("third:1")]).ok();
    let cache = format!("type=registry,ref={}", registry.reference("team/cache:1"));
    let sent_before = sent();
    assert_eq!(sent_before, 2, "nothing more was sent");
    fixture.build().args(["--cache-to", &cache]).ok();
    assert_eq!(sent() - sent_before, 1, "of a cache its config");
    // A registry that mounts nothing is sent all.
    registry.allow_mounts(false);
    push("fourth:1");
    assert_eq!(sent() - sent_before, 1 + 3);
}

#[test]
fn row34_tokens_stay_in_memory() {
    let registry = TestRegistry::start_with(RegistryAuth::bearer(USER, PASSWORD));
    registry.put_image("base", "1", &ImageSpec::default());
    let fixture = Fixture::new(&format!(
        "FROM {}\nCOPY Dockerfile /copied\n",
        registry.reference("base:1")
    ));
    log_in(&fixture, &registry.host(), PASSWORD).ok();
    let app = registry.reference("app:1");
    let pushed = fixture
        .build()
        .args(["-t", &app, "--push", "--progress=plain", "--provenance=mode=max"]);
    pushed.ok().never_says("c4n4ry-token");
    let used = registry.requests();
    let used = used.iter().filter_map(|request| request.header("authorization"));
    assert!(
        used.filter(|text| text.contains("c4n4ry-token")).count() > 3,
        "tokens were used"
    );
    let found = holders(fixture.home.home().parent().unwrap(), "c4n4ry-token");
    assert!(found.is_empty(), "{found:?}");
    let pushed = registry.manifest("app", "1").unwrap().1;
    assert!(!String::from_utf8_lossy(&pushed).contains("c4n4ry-token"));
}

#[test]
fn row35_an_image_or_a_build_argument_names_no_file_of_credentials() {
    let registry = DockerRegistry::with_password().unwrap();
    let fixture = Fixture::new("");
    let elsewhere = Fixture::new("");
    log_in(&elsewhere, &registry.host(), PASSWORD).ok();
    let file = elsewhere.home.home().join(".docker/config.json");
    fixture.context.dockerfile(&format!(
        "FROM busybox\nENV REGISTRY_AUTH_FILE={0} DOCKER_CONFIG={1}\n",
        file.display(),
        file.parent().unwrap().display()
    ));
    fixture.build().args(["-t", "base"]).ok();
    fixture.context.dockerfile(
        "FROM base\nARG REGISTRY_AUTH_FILE\nENV REGISTRY_AUTH_FILE=$REGISTRY_AUTH_FILE\nRUN true\n",
    );
    let app = format!("{}/app:1", registry.host());
    let push = || {
        fixture
            .build()
            .arg(format!("--build-arg=REGISTRY_AUTH_FILE={}", file.display()))
            .args(["-t", &app, "--push"])
    };
    let refused = push().fails();
    assert_eq!(refused.status.code(), Some(4), "{refused}");
    // The same file, named by who builds.
    push().env("REGISTRY_AUTH_FILE", &file).ok();
}

/// A layer of which the end is held back is on the disk as far as it came; were it unpacked when it is whole, nothing of it
/// would be there.
#[test]
fn privileged_a_layer_is_unpacked_while_it_comes() {
    if !is_root("layers are looked at in the store") {
        return;
    }
    let registry = TestRegistry::start();
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in [("first", vec![b'1'; 10]), ("second", context::noise(2 << 20))] {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    let layers = vec![tar.into_inner().unwrap()];
    let image = registry.put_image(
        "slow",
        "1",
        &ImageSpec {
            layers,
            ..ImageSpec::default()
        },
    );
    let layer = &image.manifest.layers[0];
    let go_on = Arc::new(AtomicBool::new(false));
    let most = usize::try_from(layer.size).unwrap() - 1000;
    let hold = FaultAction::Hold(most, Arc::clone(&go_on));
    registry.fault(Fault::new("GET", &format!("/blobs/{}", layer.digest), hold));

    let fixture = Fixture::new(&format!(
        "FROM {}\nCOPY Dockerfile /copied\n",
        registry.reference("slow:1")
    ));
    let unpacked = || {
        let leases = fs::read_dir(fixture.home.store().join("tmp")).ok()?;
        let dirs = leases
            .flatten()
            .filter_map(|lease| fs::read_dir(lease.path()).ok());
        dirs.flat_map(Iterator::flatten)
            .find(|dir| dir.path().join("first").exists())
    };
    std::thread::scope(|scope| {
        let build = scope.spawn(|| fixture.image(&[]));
        let start = Instant::now();
        let found = loop {
            if unpacked().is_some() || start.elapsed() > Duration::from_secs(30) {
                break unpacked().is_some();
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        go_on.store(true, Ordering::Relaxed);
        let (_, built) = build.join().unwrap();
        assert!(
            found,
            "the layer's first file was not there before its last byte had come"
        );
        let files = built.files().unwrap();
        assert_eq!(files.text("first"), Some("1111111111"));
        assert!(files.text("copied").is_some());
    });
}

#[test]
fn a_registry_that_asks_for_a_certificate_is_shown_the_one_for_its_host() {
    let registry = DockerRegistry::with_client_certificates().unwrap();
    let fixture = Fixture::new("FROM scratch\nCOPY a /a\n");
    fixture.context.file("a", "a\n");
    let image = format!("{}/team/app:1", registry.host());
    let push = |fixture: &Fixture| fixture.build().args(["--push", "-t", &image]);
    push(&fixture).fails().says(&registry.host());
    let certs = fixture
        .home
        .home()
        .join(".config/containers/certs.d")
        .join(registry.host());
    fs::create_dir_all(&certs).unwrap();
    fs::write(certs.join("ca.crt"), AUTHORITY).unwrap();
    // Who vouches for it is known now; it does not know who asks.
    push(&fixture).fails().says(&registry.host());
    fs::write(certs.join("client.cert"), CLIENT_CERTIFICATE).unwrap();
    fs::write(certs.join("client.key"), CLIENT_KEY).unwrap();
    push(&fixture).ok();
    fixture.rbuild(["pull", &image]).ok();
}
