//! Attributes as clients send them, right and wrong.

use super::*;
use crate::sentence;

fn attrs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn parse(pairs: &[(&str, &str)]) -> DockerfileAttrs {
    DockerfileAttrs::parse(&attrs(pairs)).unwrap()
}

fn refused(pairs: &[(&str, &str)]) -> String {
    sentence(&DockerfileAttrs::parse(&attrs(pairs)).unwrap_err())
}

#[test]
fn nothing_asked_is_the_default() {
    let expected = DockerfileAttrs {
        filename: "Dockerfile".into(),
        ..DockerfileAttrs::default()
    };
    assert_eq!(parse(&[]), expected);
}

#[test]
fn what_buildx_sends_is_read() {
    let read = parse(&[
        ("filename", "sub/Containerfile"),
        ("target", "app"),
        ("platform", "linux/amd64,linux/arm/v7"),
        ("build-arg:A", "1"),
        ("build-arg:SOURCE_DATE_EPOCH", "1700000000"),
        ("build-arg:BUILDKIT_CACHE_MOUNT_NS", "ns"),
        ("label:l", "v"),
        ("no-cache", "a,b"),
        ("context:alpine", "docker-image://alpine:3"),
        ("context:base::linux/arm64", "input:base"),
        ("local-sessionid:context", "session"),
        ("sharedkey:localdir:base", "hint"),
        ("add-hosts", "One=1.2.3.4,two=::FFFF:1.2.3.4"),
        ("hostname", "h"),
        ("force-network-mode", "none"),
        ("cgroup-parent", "/c"),
        ("shm-size", "1048576"),
        ("ulimit", "nofile=1:2,core=-1"),
        ("memory", "10"),
        ("memswap", "-1"),
        ("cpusetcpus", "0-3, 7"),
        ("image-resolve-mode", "local"),
        ("requestid", "frontend.outline"),
        (
            "frontend.caps",
            "moby.buildkit.frontend.inputs,moby.buildkit.frontend.warp+forward",
        ),
        ("vcs:source", "https://example.com"),
        ("multi-platform", "true"),
        ("unknown", "kept"),
    ]);
    assert_eq!(read.filename, "sub/Containerfile");
    assert_eq!(read.target, "app");
    let platforms: Vec<String> = read.platforms.iter().map(Platform::short).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm/v7"]);
    assert!(read.multi_platform);
    assert_eq!(
        read.build_args.len(),
        3,
        "what the front end reads stays an argument: {:?}",
        read.build_args
    );
    assert_eq!(read.build_args["SOURCE_DATE_EPOCH"], "1700000000");
    assert_eq!(read.cache_id_namespace, "ns");
    assert_eq!(read.labels, attrs(&[("l", "v")]));
    assert_eq!(read.no_cache, NoCacheAttr::Stages(vec!["a".into(), "b".into()]));
    assert_eq!(read.named_contexts["base::linux/arm64"], "input:base");
    assert_eq!(read.local_session_ids, attrs(&[("context", "session")]));
    assert_eq!(read.shared_keys, attrs(&[("base", "hint")]));
    let hosts: Vec<(&str, &str)> = read
        .extra_hosts
        .iter()
        .map(|h| (h.host.as_str(), h.ip.as_str()))
        .collect();
    assert_eq!(hosts, [("one", "1.2.3.4"), ("two", "1.2.3.4")]);
    assert_eq!((read.hostname.as_str(), read.network), ("h", NetMode::None));
    assert_eq!(
        (read.cgroup_parent.as_str(), read.shm_size_bytes),
        ("/c", 1 << 20)
    );
    let limits: Vec<(&str, i64, i64)> = read
        .ulimits
        .iter()
        .map(|u| (u.name.as_str(), u.soft, u.hard))
        .collect();
    assert_eq!(limits, [("nofile", 1, 2), ("core", -1, -1)]);
    let expected = LinuxResources {
        memory: 10,
        memory_swap: -1,
        cpuset_cpus: "0-3, 7".into(),
        ..LinuxResources::default()
    };
    assert_eq!(read.linux_resources, Some(expected));
    assert_eq!(read.image_resolve_mode, ResolveMode::PreferLocal);
    assert_eq!(read.request_id.as_deref(), Some("frontend.outline"));
    assert_eq!(
        read.forward.missing_cap.as_deref(),
        Some("moby.buildkit.frontend.warp")
    );
    assert_eq!(read.vcs, attrs(&[("source", "https://example.com")]));
    assert_eq!(read.other, attrs(&[("unknown", "kept")]));
}

#[test]
fn caches_are_read_in_both_spellings() {
    let read = parse(&[
        ("cache-imports", r#"[{"Type":"local","Attrs":{"src":"d"}}]"#),
        ("cache-from", "a/b,c"),
    ]);
    let kinds: Vec<&str> = read
        .cache_imports
        .iter()
        .map(|cache| cache.kind.as_str())
        .collect();
    assert_eq!(kinds, ["local", "registry", "registry"]);
    assert_eq!(read.cache_imports[2].attrs, attrs(&[("ref", "c")]));
}

#[test]
fn no_cache_without_stages_is_all() {
    assert_eq!(parse(&[("no-cache", "")]).no_cache, NoCacheAttr::All);
}

#[test]
fn build_arguments_beat_attributes() {
    let read = parse(&[
        ("hostname", "a"),
        ("build-arg:BUILDKIT_SANDBOX_HOSTNAME", "b"),
        ("multi-platform", "false"),
        ("build-arg:BUILDKIT_MULTI_PLATFORM", "1"),
    ]);
    assert_eq!((read.hostname.as_str(), read.multi_platform), ("b", true));
    assert_eq!(read.other, BTreeMap::new());
    let empty = parse(&[("hostname", "a"), ("build-arg:BUILDKIT_SANDBOX_HOSTNAME", "")]);
    assert_eq!(empty.hostname, "a");
}

#[test]
fn the_context_is_local_unless_an_address_is_given() {
    let local = parse(&[]).context;
    assert_eq!(
        (local.remote, local.dockerfile_local.as_str()),
        (None, "dockerfile")
    );
    let remote = parse(&[
        ("contextkey", "ctx"),
        ("ctx", "https://example.com/a.git"),
        ("contextsubdir", "sub"),
        ("dockerfilekey", "df"),
        ("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR", "1"),
    ]);
    let expected = ContextAttrs {
        remote: Some("https://example.com/a.git".into()),
        subdir: Some("sub".into()),
        dockerfile_local: "df".into(),
        force_local_dockerfile: true,
        keep_git_dir: Some(true),
    };
    assert_eq!(remote.context, expected);
    assert_eq!(remote.other, BTreeMap::new());
    let not_named = parse(&[("contextkey", "ctx"), ("context", "https://example.com")]);
    assert_eq!(
        not_named.context.remote, None,
        "the address is looked for under the key alone"
    );
}

#[test]
fn errors_are_buildkits_sentences() {
    for (pairs, sentence) in [
        (
            &[("override-copy-image", "x")][..],
            "support for \"override-copy-image\" was removed in BuildKit 0.11",
        ),
        (
            &[("build-arg:BUILDKIT_DISABLE_FILEOP", "1")],
            "support for \"BUILDKIT_DISABLE_FILEOP\" build-arg was removed in BuildKit 0.11",
        ),
        (&[("image-resolve-mode", "x")], "invalid image-resolve-mode: x"),
        (
            &[("add-hosts", "one")],
            "failed to parse additional hosts: invalid key-value pair one",
        ),
        (
            &[("add-hosts", "one=1.2.3")],
            "failed to parse additional hosts: failed to parse IP 1.2.3",
        ),
        (
            &[("add-hosts", "a\"b")],
            "failed to parse additional hosts: parse error on line 1, column 2: bare \" in non-quoted field",
        ),
        (
            &[("shm-size", "1m")],
            "failed to parse shm size: strconv.ParseInt: parsing \"1m\": invalid syntax",
        ),
        (
            &[("ulimit", "nofile")],
            "failed to parse ulimit: invalid ulimit argument: nofile",
        ),
        (
            &[("ulimit", "as=1")],
            "failed to parse ulimit: invalid ulimit type: as",
        ),
        (
            &[("ulimit", "core=1:2:3")],
            "failed to parse ulimit: too many limit value arguments - 1:2:3, can only have up to two, `soft[:hard]`",
        ),
        (
            &[("ulimit", "core=3:2")],
            "failed to parse ulimit: ulimit soft limit must be less than or equal to hard limit: 3 > 2",
        ),
        (
            &[("ulimit", "core=-1:2")],
            "failed to parse ulimit: ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: 2",
        ),
    ] {
        assert_eq!(refused(pairs), sentence);
    }
}

#[test]
fn errors_of_limits_and_choices_are_buildkits_sentences() {
    for (pairs, sentence) in [
        (
            &[("memory", "x")][..],
            "failed to parse resource limits: invalid memory value: x: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            &[("memory", "0")],
            "failed to parse resource limits: invalid memory value: 0: must be > 0",
        ),
        (
            &[("memswap", "-2")],
            "failed to parse resource limits: invalid memswap value: -2: must be -1 (unlimited) or > 0",
        ),
        (
            &[("cpushares", "-1")],
            "failed to parse resource limits: invalid cpushares value: -1: strconv.ParseUint: parsing \"-1\": invalid syntax",
        ),
        (
            &[("cpuquota", "-1")],
            "failed to parse resource limits: invalid cpuquota value: -1: must be > 0",
        ),
        (
            &[("cpusetcpus", "3-1")],
            "failed to parse resource limits: invalid cpusetcpus value: 3-1: invalid cpuset range \"3-1\"",
        ),
        (
            &[("cpusetmems", "0,9999")],
            "failed to parse resource limits: invalid cpusetmems value: 0,9999: cpuset element \"9999\" exceeds maximum 8192",
        ),
        (&[("force-network-mode", "bridge")], "invalid netmode bridge"),
        (
            &[("multi-platform", "x")],
            "invalid boolean value for multi-platform: x",
        ),
        (
            &[("multi-platform", "0"), ("platform", "linux/amd64,linux/arm64")],
            "conflicting config: returning multiple target platforms is not allowed",
        ),
        (&[("attest:x", "")], "unknown attestation type \"x\""),
        (&[("attest:sbom", "generator=")], "sbom generator cannot be empty"),
        (
            &[("attest:provenance", "version=v9")],
            "invalid provenance SLSA version: v9",
        ),
        (
            &[("frontend.caps", "a,b+forward")],
            "unsupported frontend capability a",
        ),
    ] {
        assert_eq!(refused(pairs), sentence);
    }
}

#[test]
fn errors_of_others_follow_buildkits_sentences() {
    for (pairs, start) in [
        (("platform", "linux/amd64,"), "failed to parse target platform : "),
        (("cache-imports", "["), "failed to unmarshal cache-imports: "),
        (
            ("attest:sbom", "generator=A"),
            "failed to parse sbom generator A: ",
        ),
    ] {
        let found = refused(&[pairs]);
        assert!(found.starts_with(start), "{found}");
    }
}

#[test]
fn attestations_have_defaults() {
    let read = parse(&[
        ("attest:provenance", "mode=max,version=v0.2"),
        ("build-arg:BUILDKIT_ATTEST_PROVENANCE", "mode=min"),
        ("build-arg:BUILDKIT_ATTEST_SBOM", "true"),
    ]);
    let sbom = read.attestations.sbom.unwrap();
    assert_eq!(
        sbom.generator.to_string(),
        "docker.io/docker/buildkit-syft-scanner:stable-1"
    );
    assert_eq!(sbom.parameters, attrs(&[("true", "")]));
    let provenance = read.attestations.provenance.unwrap();
    assert_eq!(provenance.version, SlsaVersion::V02);
    assert_eq!(provenance.parameters, attrs(&[("mode", "max")]));
    assert_eq!(read.other, BTreeMap::new());
}

#[test]
fn input_metadata_are_base64_in_json() {
    let read = input_metadata(r#"{"containerimage.config":"e30=","x":null}"#).unwrap();
    assert_eq!(read["containerimage.config"], b"{}");
    assert_eq!(read["x"], b"");
    for bad in ["", "[]", r#"{"a":1}"#, r#"{"a":"%"}"#] {
        let text = sentence(&input_metadata(bad).unwrap_err());
        assert!(
            text.starts_with(&format!("failed to parse input metadata {bad}: ")),
            "{text}"
        );
    }
}
