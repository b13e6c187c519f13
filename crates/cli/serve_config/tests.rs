//! What a configuration means, and what is refused of it.

use std::time::Duration;

use rbuild_server::gc::Space;

use super::*;

fn read(text: &str) -> Result<(ServeConfig, Vec<String>), ServeConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buildkitd.toml");
    std::fs::write(&path, text).unwrap();
    ServeConfig::read(&path)
}

#[test]
fn every_table_is_read() {
    let (config, idle) = read(
        r#"
        debug = true
        root = "/r"
        insecure-entitlements = ["network.host"]
        [log]
          format = "json"
          level = "warn"
        [dns]
          nameservers = ["1.1.1.1"]
          options = ["edns0"]
          searchDomains = ["example.com"]
        [grpc]
          address = ["unix:///a", "tcp://0.0.0.0:1234"]
          uid = 5
          gid = 7
          [grpc.tls]
            cert = "/c"
            key = "/k"
            ca = "/a"
        [frontend."dockerfile.v0"]
          enabled = false
        [frontend."gateway.v0"]
          allowedRepositories = ["docker.io/a/b"]
        [history]
          maxAge = 60
          maxEntries = 7
        [registry."docker.io"]
          mirrors = ["localhost:1"]
        [worker.oci]
          enabled = true
          rootless = false
          max-parallelism = 4
          gc = true
          reservedSpace = "10%"
          maxUsedSpace = 5000
          minFreeSpace = "2GB"
          labels = {a = "b"}
          [[worker.oci.gcpolicy]]
            filters = ["type==source.local"]
            keepDuration = "48h"
            maxUsedSpace = "512MB"
          [[worker.oci.gcpolicy]]
            all = true
            keepDuration = 60
        [worker.containerd]
          enabled = false
          namespace = "x"
        "#,
    )
    .unwrap();
    assert_eq!(idle, Vec::<String>::new());
    assert_eq!(config.insecure_entitlements, ["network.host"]);
    assert_eq!(
        (config.log.format.as_str(), config.log.level.as_str()),
        ("json", "warn")
    );
    assert_eq!(
        (config.grpc.address.len(), config.grpc.uid, config.grpc.gid),
        (2, Some(5), Some(7))
    );
    assert_eq!(config.grpc.tls.ca, Path::new("/a"));
    assert_eq!(
        config.dns.nameservers,
        ["1.1.1.1".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(config.frontend.dockerfile.enabled, Some(false));
    assert_eq!(config.frontend.gateway.allowed_repositories, ["docker.io/a/b"]);
    let history = config.history.unwrap();
    assert_eq!(
        (history.max_age.0, history.max_entries),
        (Duration::from_secs(60), 7)
    );
    let oci = config.worker.oci;
    assert_eq!((oci.max_parallelism, oci.labels["a"].as_str()), (4, "b"));
    let spaces = [oci.reserved_space, oci.max_used_space, oci.min_free_space].map(|space| space.0);
    assert_eq!(
        spaces,
        [Space::Percent(10), Space::Bytes(5000), Space::Bytes(2 << 30)]
    );
    let times: Vec<Duration> = oci.gcpolicy.iter().map(|policy| policy.keep_duration.0).collect();
    assert_eq!(times, [Duration::from_secs(48 * 3600), Duration::from_secs(60)]);
}

#[test]
fn keys_without_effect_are_named() {
    let (_, idle) = read(
        "nonsense = 1\n[otel]\nsocketPath = \"/x\"\n[worker.oci]\nbinary = \"crun\"\nsnapshotter = \"native\"\n",
    )
    .unwrap();
    assert_eq!(
        idle,
        ["nonsense", "otel", "worker.oci.binary", "worker.oci.snapshotter"]
    );
}

#[test]
fn protection_that_is_not_given_is_refused() {
    for (text, key) in [
        ("[worker.oci]\nselinux = true", "worker.oci.selinux"),
        (
            "[worker.oci]\napparmor-profile = \"x\"",
            "worker.oci.apparmor-profile",
        ),
        ("[worker.oci]\nnetworkMode = \"cni\"", "worker.oci.networkMode"),
        ("[worker.oci]\nenabled = false", "worker.oci.enabled"),
        ("[worker.containerd]\nenabled = true", "worker.containerd.enabled"),
        ("[cache.gha.sign]\ncommand = [\"x\"]", "cache.gha.sign"),
        ("[cache.gha.verify]\nrequired = true", "cache.gha.verify.required"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(key), "{text}: {error}");
    }
}

#[test]
fn values_that_are_none_are_errors_that_name_the_file() {
    for text in [
        "grpc = 3",
        "[dns]\nnameservers = [\"example.com\"]",
        "[worker.oci]\nreservedSpace = \"much\"",
        "[worker.oci]\nreservedSpace = \"101%\"",
        "[worker.oci]\nreservedSpace = -1",
        "[[worker.oci.gcpolicy]]\nkeepDuration = \"soon\"",
    ] {
        let error = read(text).unwrap_err();
        assert!(error.to_string().contains("buildkitd.toml"), "{text}: {error}");
    }
}

#[test]
fn a_missing_file_says_nothing() {
    let (config, idle) = ServeConfig::read(Path::new("/nonexistent/buildkitd.toml")).unwrap();
    assert_eq!((config.root, idle.len()), (None, 0));
}
