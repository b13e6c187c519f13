//! Flags that arrive, are refused, ask for nothing, or come from the environment.

use super::*;

#[test]
fn a_plain_build() {
    let high = high(&["-t", "app", "."]);
    assert!(matches!(&high.request.context, ContextSource::Dir(path) if path == Path::new(".")));
    assert!(
        matches!(&high.request.dockerfile, DockerfileSource::File(path) if path == Path::new("./Dockerfile"))
    );
    assert_eq!(high.request.tags, ["app"]);
    assert_eq!(high.request.outputs.len(), 1);
    assert_eq!(high.request.outputs[0].kind, STORE);
    assert!(high.request.outputs[0].oci_mediatypes);
    assert_eq!((high.mode, high.print_id), (Mode::Auto, false));
    assert!(high.warnings.is_empty(), "{:?}", high.warnings);
}

#[test]
fn every_served_flag_arrives() {
    let high = high(&[
        "--target=t",
        "--label=l=1",
        "--build-context=base:latest=docker-image://x",
        "--platform=linux/arm64,local",
        "--no-cache-filter=a,b",
        "--pull",
        "--network=host",
        "--add-host=h:1.2.3.4",
        "--shm-size=64m",
        "--ulimit=nofile=1:2",
        "--cgroup-parent=/c",
        "--allow=security.insecure",
        "--allow=device=vendor.example/class=one",
        "--host-ca",
        "--advice",
        "-j3",
        "--build-arg=A=1",
        "--annotation=k=v",
        ".",
    ]);
    let request = high.request;
    assert_eq!(request.target.as_deref(), Some("t"));
    assert_eq!(request.labels["l"], "1");
    assert_eq!(request.build_contexts["base"], "docker-image://x");
    assert_eq!(request.platforms, ["linux/arm64", "linux/amd64"]);
    assert_eq!(
        request.no_cache,
        NoCache::Stages(vec!["a".to_owned(), "b".to_owned()])
    );
    assert!(request.pull && request.host_ca && request.own_checks);
    assert_eq!(request.network, Some(NetMode::Host));
    assert_eq!(
        request.entitlements,
        [Entitlement::SecurityInsecure, Entitlement::NetworkHost]
    );
    assert_ne!(request.devices, DeviceGrants::default());
    assert_eq!(request.extra_hosts[0].ip, "1.2.3.4");
    assert_eq!(request.shm_size_bytes, Some(64 << 20));
    assert_eq!(request.ulimits[0].hard, 2);
    assert_eq!(request.cgroup_parent.as_deref(), Some("/c"));
    assert_eq!(request.jobs, Some(3));
    assert_eq!(request.build_args["A"], "1");
    assert_eq!(request.outputs[0].annotations[&None].manifest["k"], "v");
}

#[test]
fn limits_of_steps_and_what_becomes_of_those_that_fail() {
    let limits = |flags: &[&str]| high(&[flags, &["."]].concat()).request.linux_resources;
    let expected = LinuxResources {
        memory: 1 << 30,
        memory_swap: -1,
        cpu_shares: 2,
        cpu_period: 3000,
        cpu_quota: 4000,
        cpuset_cpus: "0-1".to_owned(),
        cpuset_mems: "0".to_owned(),
    };
    let old = [
        "-m",
        "1g",
        "--memory-swap",
        "-1",
        "-c",
        "2",
        "--cpu-period=3000",
        "--cpu-quota=4000",
    ];
    let sets = ["--cpuset-cpus=0-1", "--cpuset-mems=0"];
    assert_eq!(limits(&[&old[..], &sets].concat()), Some(expected));
    let both = limits(&["--resource=memory=5", "--memory=1g"]).unwrap();
    assert_eq!(both.memory, 5, "the new spelling wins, wherever it stands");
    assert_eq!(limits(&["--memory=0", "--cpu-quota=-1"]), None);
    assert_eq!(refused(&["--resource=cpus=1", "."]), "unknown resource \"cpus\"");
    assert!(refused(&["--cpuset-cpus=1-x", "."]).starts_with("invalid cpusetcpus value: 1-x"));

    let rules = |flags: &[&str]| high(&[flags, &["."]].concat()).request.rules;
    assert_eq!(rules(&[]), StepRules::default());
    let expected = StepRules {
        timeout: Some(Duration::from_secs(90)),
        retries: 3,
        strict_limits: true,
        private_network: true,
        proxy_network: false,
        on_error: OnError::Keep("/there".into()),
    };
    assert_eq!(
        rules(&[
            "--run-timeout=1m30s",
            "--run-retries=3",
            "--strict-limits",
            "--network=sandbox",
            "--on-error=keep=/there"
        ]),
        expected
    );
    assert_eq!(rules(&["--run-timeout=0"]).timeout, None);
    let proxied = rules(&["--network=proxy"]);
    assert!(proxied.proxy_network && !proxied.private_network);
    let OnError::Keep(dir) = rules(&["--on-error=keep"]).on_error else {
        panic!("a directory of our own")
    };
    assert!(
        dir.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("rbuild-failed-"),
        "{dir:?}"
    );
    assert_eq!(
        refused(&["--on-error=shell", "."]),
        "--on-error=shell needs a terminal; --on-error=keep does not"
    );
    assert_eq!(
        refused(&["--on-error=keep=", "."]),
        "invalid value \"keep=\" for --on-error: keep, keep=DIR or shell"
    );
}

#[test]
fn flags_that_are_not_served_are_refused_by_name() {
    for flag in ["--cache-to=type=gcs,bucket=x", "--policy=filename=x"] {
        let name = flag.split('=').next().unwrap();
        let text = refused(&[flag, "."]);
        assert!(
            text.starts_with(&format!("not supported yet: {name}")),
            "{flag}: {text}"
        );
    }
}

#[test]
fn registries_of_caches_may_be_insecure() {
    let high = high(&[
        "--cache-to=type=registry,ref=one.test/a,registry.insecure=true",
        "--cache-from=type=registry,ref=two.test:5000/a,registry.insecure=1",
        "--cache-from=type=registry,ref=three.test/a,registry.insecure=false",
        ".",
    ]);
    assert_eq!(high.insecure, ["one.test", "two.test:5000"]);
    let bad = "--cache-to=type=registry,ref=a,registry.insecure=perhaps";
    assert!(refused(&[bad, "."]).contains("registry.insecure"));
}

#[test]
fn flags_that_ask_for_nothing_are_accepted() {
    let high = high(&[
        "--sbom=false",
        "--provenance=false",
        "--attest=type=provenance,disabled=true",
        "--call=build",
        "--check=false",
        "--builder=default",
        "--compress",
        "--disable-content-trust",
        "--rm",
        "--force-rm",
        "--allow=buildx.local.delete",
        ".",
    ]);
    assert!(high.warnings.is_empty(), "{:?}", high.warnings);
    let warned = high_with(
        &[
            "--squash",
            "--isolation=x",
            "--security-opt=y",
            "--builder=other",
            ".",
        ],
        &[],
        b"",
    )
    .unwrap();
    assert_eq!(warned.warnings.len(), 4);
}

#[test]
fn progress_and_quiet() {
    for (line, vars, expected) in [
        (&["."][..], &[][..], (Mode::Auto, false)),
        (&["-q", "."], &[], (Mode::Quiet, true)),
        (&["--progress=quiet", "."], &[], (Mode::Quiet, true)),
        (&["-q", "--progress=quiet", "."], &[], (Mode::Quiet, true)),
        (&["--progress=none", "."], &[], (Mode::None, false)),
        (&["--progress=rawjson", "."], &[], (Mode::RawJson, false)),
        (&["."], &[("BUILDKIT_PROGRESS", "plain")], (Mode::Plain, false)),
        (
            &["--progress=rawjson", "."],
            &[("BUILDKIT_PROGRESS", "plain")],
            (Mode::RawJson, false),
        ),
        (
            &["-q", "."],
            &[("BUILDKIT_PROGRESS", "plain")],
            (Mode::Quiet, true),
        ),
    ] {
        let high = high_with(line, vars, b"").unwrap();
        assert_eq!((high.mode, high.print_id), expected, "{line:?} {vars:?}");
    }
    assert_eq!(
        refused(&["-q", "--progress=plain", "."]),
        "progress=plain and quiet cannot be used together"
    );
    assert_eq!(
        refused(&["-q", "--progress=none", "."]),
        "progress=none and quiet cannot be used together"
    );
    assert_eq!(refused(&["--progress=fancy", "."]), "invalid progress mode fancy");
    assert_eq!(
        refused(&["--progress=tty", "."]),
        "failed to get console: standard error is not a terminal"
    );
    assert!(high_with(&["."], &[("BUILDKIT_PROGRESS", "fancy")], b"").is_err());
}

#[test]
fn the_environment_gives_defaults() {
    let config = tempfile::tempdir().unwrap();
    std::fs::write(
        config.path().join("config.json"),
        r#"{"proxies":{"default":{"httpProxy":"http://p","httpsProxy":"http://q"}}}"#,
    )
    .unwrap();
    let vars = [
        ("SOURCE_DATE_EPOCH", "1234"),
        ("DOCKER_DEFAULT_PLATFORM", "linux/arm64"),
        ("DOCKER_CONFIG", config.path().to_str().unwrap()),
        ("FROM_ENV", "value"),
        ("HTTP_PROXY", "http://of-the-process"),
    ];
    let request = high_with(
        &[
            "--build-arg=FROM_ENV",
            "--build-arg=UNSET",
            "--build-arg=Http_Proxy=mine",
            ".",
        ],
        &vars,
        b"",
    )
    .unwrap()
    .request;
    assert_eq!(request.platforms, ["linux/arm64"]);
    let args: Vec<(&str, &str)> = request
        .build_args
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(
        args,
        [
            ("FROM_ENV", "value"),
            ("HTTPS_PROXY", "http://q"),
            ("Http_Proxy", "mine"),
            ("SOURCE_DATE_EPOCH", "1234"),
            ("https_proxy", "http://q"),
        ]
    );
    let given = high_with(
        &["--build-arg=SOURCE_DATE_EPOCH=5", "--platform=linux/amd64", "."],
        &vars,
        b"",
    )
    .unwrap()
    .request;
    assert_eq!(
        (given.build_args["SOURCE_DATE_EPOCH"].as_str(), given.platforms),
        ("5", vec!["linux/amd64".to_owned()])
    );
}

#[test]
fn a_damaged_configuration_is_a_warning() {
    let config = tempfile::tempdir().unwrap();
    std::fs::write(config.path().join("config.json"), "{").unwrap();
    let high = high_with(&["."], &[("DOCKER_CONFIG", config.path().to_str().unwrap())], b"").unwrap();
    assert!(
        high.warnings[0].starts_with("proxies are not set: cannot understand"),
        "{:?}",
        high.warnings
    );
}
