//! `--offline`: whatever would use the network is an error that names what was wanted, and nobody is asked.

use rbuild_testkit::registry::TestRegistry;

use crate::e2e::fixture::Fixture;

/// A token of GitHub's form that may read and write `refs/heads/main` until 2096.
const TOKEN: &str = "e30.eyJhYyI6Ilt7XCJTY29wZVwiOlwicmVmcy9oZWFkcy9tYWluXCIsXCJQZXJtaXNzaW9uXCI6M31dIiwiZXhwIjo0MDAwMDAwMDAwLCJuYmYiOjF9.c2ln";

/// Flags of a build, and what its error names; `HOST` is a registry that counts what it is asked.
const BUILDS: [(&str, &[&str], &str); 20] = [
    ("# syntax=HOST/front:1\nFROM scratch", &[], "HOST/front:1 is"),
    ("FROM HOST/base:1", &[], "HOST/base:1 is"),
    ("FROM scratch\nADD http://HOST/file /", &[], "http://HOST/file is"),
    (
        "FROM scratch\nADD http://HOST/r.git#main /",
        &[],
        "http://HOST/r.git is",
    ),
    (
        "FROM scratch\nCOPY --from=HOST/other:2 / /",
        &[],
        "HOST/other:2 is",
    ),
    (
        "FROM busybox\nRUN --mount=from=HOST/tools,target=/t true",
        &[],
        "HOST/tools:latest is",
    ),
    (
        "FROM scratch\nCOPY --from=n / /",
        &["--build-context=n=docker-image://HOST/named:1"],
        "HOST/named:1 is",
    ),
    (
        "FROM scratch\nCOPY --from=n / /",
        &["--build-context=n=http://HOST/n.tar"],
        "http://HOST/n.tar is",
    ),
    (
        "FROM scratch\nCOPY --from=n / /",
        &["--build-context=n=http://HOST/n.git"],
        "http://HOST/n.git is",
    ),
    (LAYER, &["--cache-from=HOST/c:1"], "HOST/c:1 is"),
    (
        LAYER,
        &["--cache-from=type=s3,S3"],
        "http://HOST/b/manifests/buildkit is",
    ),
    (
        LAYER,
        &["--cache-from=type=azblob,AZURE"],
        "http://HOST/buildkit-cache",
    ),
    (LAYER, &["--cache-from=type=gha,GHA"], "http://HOST/"),
    (
        LAYER,
        &["--cache-to=type=registry,ref=HOST/c:1,mode=max"],
        "HOST/c:1 is",
    ),
    (LAYER, &["--cache-to=type=s3,S3"], "http://HOST/b/"),
    (
        LAYER,
        &["--cache-to=type=azblob,AZURE"],
        "http://HOST/buildkit-cache",
    ),
    (LAYER, &["--cache-to=type=gha,GHA"], "http://HOST/"),
    (LAYER, &["--push", "-t", "HOST/app:1"], "HOST/app:1 is"),
    (LAYER, &["-o", "type=registry,name=HOST/app:2"], "HOST/app:2 is"),
    (LAYER, &["--sbom=generator=HOST/scanner:1"], "HOST/scanner:1 is"),
];
const LAYER: &str = "FROM scratch\nCOPY a /a";

fn filled(text: &str, host: &str) -> String {
    let s3 =
        "bucket=b,region=r,endpoint_url=http://HOST,access_key_id=a,secret_access_key=b,use_path_style=true";
    text.replace("S3", s3)
        .replace(
            "AZURE",
            "account_url=http://HOST/,account_name=a,secret_access_key=YQ==",
        )
        .replace(
            "GHA",
            &format!("url=http://HOST/,url_v2=http://HOST/,version=2,token={TOKEN}"),
        )
        .replace("HOST", host)
}

#[test]
fn every_source_cache_and_output_on_the_network_is_named_offline() {
    let registry = TestRegistry::start();
    let host = registry.host();
    for (dockerfile, flags, named) in BUILDS {
        let fixture = Fixture::new(&filled(dockerfile, &host));
        fixture.context.file("a", "a\n");
        let flags = flags.iter().map(|flag| filled(flag, &host));
        let ran = fixture.build().arg("--offline").args(flags).fails();
        assert_eq!(ran.status.code(), Some(3), "{named}\n{ran}");
        ran.says(&filled(named, &host))
            .says("on the network, and --offline forbids its use");
        assert!(
            registry.requests().is_empty(),
            "{named}: {:?}",
            registry.requests()
        );
    }
}

#[test]
fn contexts_dockerfiles_and_commands_on_the_network_are_named_offline() {
    let registry = TestRegistry::start();
    let host = registry.host();
    let fixture = Fixture::new(LAYER);
    fixture.context.file("a", "a\n");
    let here = format!("{host}/here:1");
    fixture.build().args(["-t", &here]).ok();
    let dir = fixture.context.dir().display().to_string();
    for (args, named) in [
        ("build http://HOST/r.git", "http://HOST/r.git is"),
        ("build http://HOST/c.tar", "http://HOST/c.tar is"),
        ("build -f http://HOST/Dockerfile DIR", "http://HOST/Dockerfile is"),
        ("pull HOST/a:1", "HOST/a:1 is"),
        ("push HOST/here:1", "HOST/here:1 is"),
        ("login -u me -p word HOST", "HOST/login is"),
        ("imagetools inspect HOST/a:1", "HOST/a:1 is"),
        ("imagetools create -t HOST/b:1 HOST/a:1", "HOST/a:1 is"),
        ("manifest inspect HOST/a:1", "HOST/a:1 is"),
        ("manifest create HOST/l:1 HOST/a:1", "HOST/a:1 is"),
        ("run --rm HOST/a:1", "HOST/a:1 is"),
        ("create HOST/a:1", "HOST/a:1 is"),
    ] {
        let args = args.replace("DIR", &dir);
        let args = args.split(' ').map(|arg| filled(arg, &host));
        let ran = fixture.rbuild(["--offline"]).args(args).fails();
        assert_eq!(ran.status.code(), Some(3), "{named}\n{ran}");
        ran.says(&filled(named, &host))
            .says("on the network, and --offline forbids its use");
    }
    // No file of bake's is fetched with or without.
    fixture
        .rbuild(["--offline", "bake", &format!("http://{host}/r.git")])
        .fails()
        .says(&format!("http://{host}/r.git"));
    assert!(registry.requests().is_empty(), "{:?}", registry.requests());
    // What is here needs nobody, nor does forgetting a login.
    fixture.rbuild(["--offline", "tag", &here, "other:2"]).ok();
    fixture.rbuild(["--offline", "inspect", "other:2"]).ok();
    fixture.rbuild(["--offline", "logout", &host]).ok();
}
