//! Every exit code of `docs/exit-codes.md`, and `--offline`.

use rbuild_testkit::machine;
use rbuild_testkit::peer::DockerRegistry;
use rbuild_testkit::registry::{Fault, RegistryAuth, TestRegistry};

use crate::e2e::fixture::{Fixture, busybox_argument};

fn code(fixture: &Fixture, args: &[&str]) -> Option<i32> {
    let ran = fixture.rbuild(args).run();
    assert!(!ran.stderr.contains("panicked at"), "{ran}");
    ran.status.code()
}

#[test]
fn what_a_registry_has_to_do_with_has_its_own_exit_code() {
    let fixture = Fixture::new("FROM scratch\n");
    let closed = format!("127.0.0.1:{}/a:1", machine::free_port().unwrap());
    assert_eq!(
        code(&fixture, &["pull", "-q", &closed]),
        Some(3),
        "nobody listens"
    );

    let locked = TestRegistry::start_with(RegistryAuth::bearer("me", "secret"));
    assert_eq!(code(&fixture, &["pull", "-q", &locked.reference("a:1")]), Some(4));

    let registry = TestRegistry::start();
    let name = registry.reference("a:1");
    assert_eq!(code(&fixture, &["pull", "-q", &name]), Some(7), "no such image");
    registry.fault(Fault::status("GET", "/manifests/", 500, ("x", "y"), "broken"));
    registry.fault(Fault::status("HEAD", "/manifests/", 501, ("x", "y"), ""));
    assert_eq!(code(&fixture, &["imagetools", "inspect", &name]), Some(5));
    registry.clear_faults();
    let bad = "application/vnd.oci.image.manifest.v1+json";
    registry.put_manifest(
        "a",
        "1",
        bad,
        b"{\"schemaVersion\":2,\"manifests\":[],\"layers\":[]}",
    );
    assert_eq!(
        code(&fixture, &["pull", "-q", &name]),
        Some(6),
        "two documents in one"
    );

    assert_eq!(code(&fixture, &["rmi", "nothing"]), Some(1));
    assert_eq!(code(&fixture, &["version"]), Some(0));
}

#[test]
fn a_build_ends_with_the_code_of_what_its_registry_said() {
    let registry = DockerRegistry::start().unwrap();
    let missing = Fixture::new(&format!("FROM {}/no/such:image\nRUN true\n", registry.host()));
    assert_eq!(missing.build().run().status.code(), Some(7));
    let closed = Fixture::new(&format!(
        "FROM 127.0.0.1:{}/a\nRUN true\n",
        machine::free_port().unwrap()
    ));
    assert_eq!(closed.build().run().status.code(), Some(3));
    let pushed = Fixture::new("FROM scratch\nLABEL a=b\n");
    let target = format!("127.0.0.1:{}/a", machine::free_port().unwrap());
    assert_eq!(
        pushed.build().args(["--push", "-t", &target]).run().status.code(),
        Some(3)
    );
    let locked = DockerRegistry::with_password().unwrap();
    let target = format!("{}/a:1", locked.host());
    assert_eq!(
        pushed.build().args(["--push", "-t", &target]).run().status.code(),
        Some(4)
    );
    let failing = Fixture::new("FROM busybox\nRUN exit 9\n");
    assert_eq!(
        failing.build().run().status.code(),
        Some(1),
        "a step's own code is in the message"
    );
}

#[test]
fn offline_names_what_would_have_been_asked_for_and_asks_nobody() {
    let registry = TestRegistry::start();
    let name = registry.reference("base:1");
    let fixture = Fixture::new(&format!("FROM {name}\n"));
    let refused = fixture.build().arg("--offline").run();
    assert_eq!(refused.status.code(), Some(3), "{refused}");
    assert!(
        refused.stderr.contains(&format!("{name} is on the network")),
        "{refused}"
    );
    fixture.rbuild(["push", &name]).env("RBUILD_OFFLINE", "1").fails();
    for args in [
        &["pull", &name][..],
        &["imagetools", "inspect", &name],
        &["run", "--rm", &name],
    ] {
        fixture
            .rbuild(["--offline"])
            .args(args)
            .fails()
            .says("--offline forbids");
    }
    let url = format!("http://{}/file", registry.host());
    fixture
        .context
        .dockerfile(&format!("FROM scratch\nADD {url} /\n"));
    fixture
        .build()
        .arg("--offline")
        .fails()
        .says(&url)
        .says("--offline forbids");
    fixture.context.dockerfile(&format!(
        "FROM scratch\nADD http://{}/r.git#main /\n",
        registry.host()
    ));
    fixture
        .build()
        .arg("--offline")
        .fails()
        .says("r.git")
        .says("--offline forbids");
    assert!(registry.requests().is_empty(), "{:?}", registry.requests());
    // What is here needs nobody.
    fixture.context.dockerfile("FROM busybox\nRUN true\n");
    fixture.build().arg("--offline").args(["-t", "here"]).ok();
    fixture.context.dockerfile("FROM here\nRUN true\n");
    fixture.build().arg("--offline").ok();
    fixture.rbuild(["--offline", "run", "--rm", "here", "true"]).ok();
}

/// What asks a server for something, of which `HOST` is one; `DIR` is a context.
const ASKED: [(&str, &str); 27] = [
    ("FROM HOST/a:1", "build DIR"),
    ("FROM scratch\nCOPY --from=HOST/a:1 / /", "build DIR"),
    (
        "FROM busybox\nRUN --mount=from=HOST/a:1,target=/t true",
        "build DIR",
    ),
    ("# syntax=HOST/a:1\nFROM scratch", "build DIR"),
    (LAYER, "build --build-arg=BUILDKIT_SYNTAX=HOST/a:1 DIR"),
    ("FROM scratch\nADD http://HOST/file /", "build DIR"),
    (
        "FROM scratch\nCOPY --from=n / /",
        "build --build-context=n=docker-image://HOST/a:1 DIR",
    ),
    (
        "FROM scratch\nCOPY --from=n / /",
        "build --build-context=n=http://HOST/n.tar DIR",
    ),
    (LAYER, "build http://HOST/c.tar"),
    (LAYER, "build -f http://HOST/Dockerfile DIR"),
    (LAYER, "build --check -f http://HOST/Dockerfile DIR"),
    ("FROM HOST/a:1", "build --call=outline DIR"),
    (LAYER, "build --cache-to=type=registry,ref=HOST/c:1,mode=max DIR"),
    (
        LAYER,
        "build --cache-to=type=s3,bucket=b,region=r,endpoint_url=http://HOST,access_key_id=a,secret_access_key=b,use_path_style=true DIR",
    ),
    (LAYER, "build --push -t HOST/p:1 DIR"),
    (LAYER, "build -o type=registry,name=HOST/p:1 DIR"),
    (LAYER, "build --sbom=generator=HOST/a:1 DIR"),
    (
        LAYER,
        "build --cache-to=type=azblob,account_url=http://HOST/,account_name=a,secret_access_key=YQ== DIR",
    ),
    (
        LAYER,
        "bake --allow=fs.read=DIR --set *.output=type=registry,name=HOST/p:1 -f DIR/bake.hcl",
    ),
    (LAYER, "pull HOST/a:1"),
    (LAYER, "push HOST/here:1"),
    (LAYER, "login -u me -p word HOST"),
    (LAYER, "imagetools inspect HOST/a:1"),
    (LAYER, "imagetools create -t HOST/b:1 HOST/a:1"),
    (LAYER, "manifest inspect HOST/a:1"),
    (LAYER, "run --rm HOST/a:1"),
    (LAYER, "create HOST/a:1"),
];
const LAYER: &str = "FROM scratch\nCOPY a /a";

/// Asks in every way a server that answers `status` to everything, or that is not there: the code is the trouble's, however
/// often the failure was wrapped.
#[track_caller]
fn asked(status: Option<u16>, expected: i32) {
    let registry = TestRegistry::start();
    let host = match status {
        None => format!("127.0.0.1:{}", machine::free_port().unwrap()),
        Some(status) => {
            registry.fault(Fault::status("", "/", status, ("x", "y"), "no"));
            registry.host()
        }
    };
    let fixture = Fixture::new(LAYER);
    fixture.context.file("a", "a\n");
    fixture.build().args(["-t", &format!("{host}/here:1")]).ok();
    // Most of the time they wait before they try again.
    let numbered: Vec<(usize, (&str, &str))> = ASKED.into_iter().enumerate().collect();
    let ask_one = |(number, asked): &(usize, (&str, &str))| ask(&fixture, *number, *asked, &host, expected);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let asking: Vec<_> = numbered
            .chunks(3)
            .map(|some| scope.spawn(move || some.iter().filter_map(ask_one).collect::<Vec<_>>()))
            .collect();
        let answers = asking.into_iter().map(|asked| asked.join().unwrap());
        answers.flatten().collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Asks with `line` and the `dockerfile` of a directory of its own; gives what was wrong with the code, if something was.
fn ask(
    fixture: &Fixture,
    number: usize,
    (dockerfile, line): (&str, &str),
    host: &str,
    expected: i32,
) -> Option<String> {
    let context = &fixture.context;
    let dir = context.dir().join(number.to_string()).display().to_string();
    context.file(&format!("{number}/a"), "a\n");
    context.file(&format!("{number}/Dockerfile"), dockerfile.replace("HOST", host));
    context.file(
        &format!("{number}/bake.hcl"),
        format!("target default {{\n context = \"{dir}\"\n}}\n"),
    );
    let words = line
        .split(' ')
        .map(|word| word.replace("HOST", host).replace("DIR", &dir));
    let base = dockerfile
        .contains("busybox")
        .then(|| busybox_argument("busybox"));
    let ran = fixture.rbuild(words).args(base).run();
    let code = ran.status.code();
    (code != Some(expected)).then(|| format!("{line} ({dockerfile:?}): {code:?}\n{}", ran.stderr))
}

#[test]
fn every_way_to_ask_a_server_that_is_not_there_ends_with_the_same_code() {
    asked(None, 3);
}

#[test]
fn every_way_to_ask_without_a_right_ends_with_the_same_code() {
    asked(Some(401), 4);
    asked(Some(403), 4);
}

#[test]
fn every_way_to_ask_for_what_is_not_there_ends_with_the_same_code() {
    asked(Some(404), 7);
}

#[test]
fn every_way_to_ask_a_server_that_fails_ends_with_the_same_code() {
    asked(Some(501), 5);
}
