//! Mirrors and insecure hosts from the files of Docker, BuildKit and containers.

use super::*;

/// A configuration made of the given files below `etc/` and `home/`.
fn load(files: &[(&str, &str)]) -> Result<RegistryConfig, ConfigError> {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }
    let env = BTreeMap::from([("HOME".to_owned(), dir.path().join("home").display().to_string())]);
    RegistryConfig::load(&ConfigSources {
        env,
        etc: dir.path().join("etc"),
    })
}

fn shown(config: &RegistryConfig, reference: &str) -> Vec<String> {
    let reference = Reference::parse(reference).expect(reference);
    config
        .pull_endpoints(&reference)
        .expect("not blocked")
        .iter()
        .map(|e| format!("{:?} {}/{}", e.policy, e.host, e.repository))
        .collect()
}

#[test]
fn without_files_everything_is_https_but_this_machine() {
    let config = load(&[]).expect("nothing to read");
    assert_eq!(
        shown(&config, "debian"),
        ["HttpsOnly registry-1.docker.io/library/debian"]
    );
    assert_eq!(
        shown(&config, "reg.example:5000/a/b"),
        ["HttpsOnly reg.example:5000/a/b"]
    );
    assert_eq!(shown(&config, "127.0.0.1:5000/a"), ["Loopback 127.0.0.1:5000/a"]);
    assert_eq!(shown(&config, "[::1]:5000/a"), ["Loopback [::1]:5000/a"]);
    assert_eq!(shown(&config, "localhost/a"), ["Loopback localhost/a"]);
    assert_eq!(config.files().count(), 0);
}

#[test]
fn daemon_json_and_buildkitd_toml() {
    let config = load(&[
        (
            "etc/docker/daemon.json",
            r#"{"insecure-registries":["reg.example:5000","10.0.0.0/8"],"registry-mirrors":["https://hub.example/","http://plain.example"],"x":1}"#,
        ),
        (
            "home/.config/buildkit/buildkitd.toml",
            "debug = true\n[registry.\"docker.io\"]\nmirrors = [\"bk.example:8443/proxy/hub\", \"hub.example\"]\n\
             [registry.\"http.example\"]\nhttp = true\n[registry.\"tls.example\"]\nca=[\"/ca.pem\"]\n\
             [[registry.\"tls.example\".keypair]]\nkey=\"/k\"\ncert=\"/c\"\n",
        ),
    ])
    .expect("valid files");
    assert_eq!(
        shown(&config, "debian:12"),
        [
            "HttpsOnly hub.example/library/debian",
            "HttpOnly plain.example/library/debian",
            "HttpsOnly bk.example:8443/proxy/hub/library/debian",
            "HttpsOnly registry-1.docker.io/library/debian",
        ]
    );
    assert_eq!(
        shown(&config, "reg.example:5000/a"),
        ["Insecure reg.example:5000/a"]
    );
    assert_eq!(shown(&config, "reg.example/a"), ["HttpsOnly reg.example/a"]);
    assert_eq!(shown(&config, "10.9.8.7:5000/a"), ["Insecure 10.9.8.7:5000/a"]);
    assert_eq!(shown(&config, "http.example/a"), ["HttpOnly http.example/a"]);
    let tls = config.tls_files("tls.example");
    assert_eq!(tls.ca, [PathBuf::from("/ca.pem")]);
    assert_eq!(tls.keypairs, [(PathBuf::from("/c"), PathBuf::from("/k"))]);
    assert_eq!(config.files().count(), 2);
}

#[test]
fn mirrors_of_the_command_line_are_asked_before_those_of_files() {
    let file = (
        "etc/docker/daemon.json",
        r#"{"registry-mirrors":["https://file.example/"]}"#,
    );
    let mut config = load(&[file]).expect("read");
    config.add_mirror("docker.io", "http://first.example");
    config.add_mirror("docker.io", "second.example/proxy");
    assert_eq!(
        shown(&config, "debian"),
        [
            "HttpOnly first.example/library/debian",
            "HttpsOnly second.example/proxy/library/debian",
            "HttpsOnly file.example/library/debian",
            "HttpsOnly registry-1.docker.io/library/debian",
        ]
    );
    assert_eq!(shown(&config, "other.example/a"), ["HttpsOnly other.example/a"]);
}

#[test]
fn registries_conf_rewrites_and_mirrors() {
    let config = load(&[
        (
            "etc/containers/registries.conf",
            "[[registry]]\nprefix=\"docker.io\"\nlocation=\"hidden.example\"\n",
        ),
        (
            "home/.config/containers/registries.conf",
            r#"unqualified-search-registries = ["docker.io"]
[[registry]]
prefix = "docker.io"
location = "hub.internal/dockerhub"
[[registry.mirror]]
location = "m1.example/cache"
insecure = true
[[registry.mirror]]
location = "m2.example"
pull-from-mirror = "digest-only"
[[registry]]
prefix = "docker.io/library"
location = "registry.internal/official"
[[registry]]
location = "bad.example"
blocked = true
"#,
        ),
        (
            "home/.config/containers/registries.conf.d/50-a.conf",
            "[[registry]]\nprefix=\"*.wild.example\"\ninsecure=true\n",
        ),
        (
            "etc/containers/registries.conf.d/50-a.conf",
            "[[registry]]\nprefix=\"docker.io\"\nlocation=\"hidden.example\"\n",
        ),
    ])
    .expect("valid files");
    assert_eq!(
        shown(&config, "me/app"),
        [
            "Insecure m1.example/cache/me/app",
            "HttpsOnly hub.internal/dockerhub/me/app"
        ]
    );
    let digest = format!("me/app@sha256:{}", "a".repeat(64));
    assert_eq!(shown(&config, &digest).len(), 3);
    assert_eq!(
        shown(&config, "debian"),
        ["HttpsOnly registry.internal/official/debian"]
    );
    assert_eq!(shown(&config, "a.wild.example/x"), ["Insecure a.wild.example/x"]);
    assert_eq!(shown(&config, "wild.example/x"), ["HttpsOnly wild.example/x"]);
    assert_eq!(shown(&config, "notbad.example/x"), ["HttpsOnly notbad.example/x"]);
    let blocked = config.pull_endpoints(&Reference::parse("bad.example/x").expect("reference"));
    assert!(
        blocked
            .expect_err("blocked")
            .to_string()
            .contains("registries.conf")
    );
    let push = config
        .push_endpoint(&Reference::parse("me/app").expect("reference"))
        .expect("not blocked");
    assert_eq!((push.host.as_str(), push.is_mirror), ("hub.internal", false));
}

#[test]
fn certs_d_directories_are_searched() {
    let dir = tempfile::tempdir().expect("a directory");
    let host = dir.path().join("docker/certs.d/reg.example:5000");
    std::fs::create_dir_all(&host).expect("a directory");
    for name in ["ca.crt", "client.cert", "client.key", "README"] {
        std::fs::write(host.join(name), "").expect("a file");
    }
    let sources = ConfigSources {
        env: BTreeMap::new(),
        etc: dir.path().to_owned(),
    };
    let config = RegistryConfig::load(&sources).expect("nothing to read");
    let files = config.tls_files("reg.example:5000");
    assert_eq!(files.ca, [host.join("ca.crt")]);
    assert_eq!(
        files.keypairs,
        [(host.join("client.cert"), host.join("client.key"))]
    );
    assert_eq!(config.tls_files("reg.example"), TlsFiles::default());
}

#[test]
fn malformed_files_are_errors_that_name_the_file() {
    for (name, text) in [
        ("etc/docker/daemon.json", "{"),
        (
            "etc/docker/daemon.json",
            r#"{"insecure-registries":["10.0.0.0/64"]}"#,
        ),
        ("etc/docker/daemon.json", r#"{"registry-mirrors":["ftp://x"]}"#),
        ("etc/buildkit/buildkitd.toml", "[registry.x]\nmirrors = 1\n"),
        ("etc/containers/registries.conf", "[[registry]]\nprefix=\"a*b\"\n"),
        ("etc/containers/registries.conf", "[[registry]]\nlocation=\"\"\n"),
        (
            "etc/containers/registries.conf",
            "[[registry]]\nlocation=\"x\"\n[[registry.mirror]]\nlocation=\"m\"\npull-from-mirror=\"never\"\n",
        ),
    ] {
        let error = load(&[(name, text)]).expect_err(text);
        assert!(error.to_string().contains(name), "{error}");
    }
}
