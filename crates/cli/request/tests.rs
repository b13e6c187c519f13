//! What flags come to, and what they are refused for.

use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use rbuild_builder::request::{
    CacheExport, CacheForm, CacheSource, CacheTarget, ContextSource, Destination, DockerfileSource,
    LayerCompression, LayoutDestination, OutputKind, TreeDestination,
};

use super::*;
use crate::args::{Cli, Command};
use crate::env::testing::env;

fn low(line: &[&str]) -> LowBuild {
    let cli = Cli::try_parse_from(["rbuild", "build"].iter().chain(line)).unwrap();
    match cli.command.flatten() {
        Command::Build(low) => *low,
        other => panic!("{other:?}"),
    }
}

fn high_with(line: &[&str], vars: &[(&str, &str)], stdin: &[u8]) -> Result<HighBuild, UsageError> {
    to_request(low(line), &mut env(vars, stdin).0)
}

fn high(line: &[&str]) -> HighBuild {
    high_with(line, &[], b"").unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

fn refused(line: &[&str]) -> String {
    high_with(line, &[], b"").expect_err(&line.join(" ")).to_string()
}

const STORE: OutputKind = OutputKind::Image {
    push: false,
    push_by_digest: false,
    insecure: false,
};
const PUSH: OutputKind = OutputKind::Image {
    push: true,
    push_by_digest: false,
    insecure: false,
};

fn kinds(line: &[&str]) -> Vec<OutputKind> {
    high(line)
        .request
        .outputs
        .into_iter()
        .map(|output| output.kind)
        .collect()
}

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
    for flag in [
        "--cache-from=type=s3",
        "--cache-to=type=gha,scope=x",
        "--policy=reset=true",
        "--file=https://example.test/Dockerfile",
    ] {
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
    let bad = "--cache-from=type=registry,ref=a,registry.insecure=perhaps";
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
fn questions_about_the_dockerfile() {
    use rbuild_frontend::subrequest::Subrequest as S;
    for (line, subrequest, as_json, ignore_status) in [
        (vec!["--check", "."], S::Lint, false, false),
        (vec!["--check", "--call=outline", "."], S::Lint, false, false),
        (vec!["--call=lint", "."], S::Lint, false, false),
        (vec!["--call=check,ignorestatus=1", "."], S::Lint, false, true),
        (vec!["--call=format=json,outline", "."], S::Outline, true, false),
        (vec!["--print=targets,format=x", "."], S::Targets, false, false),
        (
            vec!["--call=subrequests.describe", "."],
            S::Describe,
            false,
            false,
        ),
    ] {
        let call = high(&line)
            .call
            .unwrap_or_else(|| panic!("{line:?} asks nothing"));
        assert_eq!(
            (call.subrequest, call.as_json, call.ignore_status),
            (subrequest, as_json, ignore_status),
            "{line:?}"
        );
    }
    for line in [["--call=build", "."], ["--call=", "."], ["--check=false", "."]] {
        let high = high(&line);
        assert_eq!((high.call, high.request.own_checks), (None, false), "{line:?}");
    }
    for (flag, expected) in [
        ("--call=outline,targets", "invalid print value: outline,targets"),
        ("--call=outline,a=b", "invalid print field: a=b"),
        (
            "--call=check,ignorestatus=x",
            "invalid ignorestatus print value: x",
        ),
        ("--call=convertllb", "unsupported request frontend.convertllb"),
        ("--call=format=json", "unsupported request frontend."),
    ] {
        assert_eq!(refused(&[flag, "."]), expected);
    }
}

#[test]
fn the_dockerfile_has_the_name_the_user_knows() {
    let dir = tempfile::tempdir().unwrap();
    let context = dir.path().to_str().unwrap();
    let beside = format!("{context}/Dockerfile");
    for (line, stdin, expected) in [
        (vec!["--check", "."], "", "Dockerfile"),
        (vec!["--check", "./"], "", "Dockerfile"),
        (vec!["--check", context], "", beside.as_str()),
        (vec!["--check", "-f", "./a/B", "."], "", "./a/B"),
        (vec!["--check", "-f", "-", "."], "FROM a", "stdin"),
        (vec!["--check", "-"], "FROM a", "stdin"),
    ] {
        let high = high_with(&line, &[], stdin.as_bytes()).unwrap();
        assert_eq!(high.call.unwrap().dockerfile, expected, "{line:?}");
    }
}

#[test]
fn outputs() {
    let file = |path: &str| Destination::File(PathBuf::from(path));
    for (line, expected) in [
        (
            &["-o", "out", "."][..],
            vec![OutputKind::Local(TreeDestination::Dir(PathBuf::from("out")))],
        ),
        (&["-o", "-", "."], vec![OutputKind::Tar(Destination::Stdout)]),
        (
            &["-o", "type=tar", "."],
            vec![OutputKind::Tar(Destination::Stdout)],
        ),
        (
            &["-o", "type=oci", "."],
            vec![OutputKind::Oci(LayoutDestination::Tar(Destination::Stdout))],
        ),
        (
            &["-o", "type=oci,dest=x.tar", "."],
            vec![OutputKind::Oci(LayoutDestination::Tar(file("x.tar")))],
        ),
        (
            &["-o", "type=oci,tar=false,dest=d", "."],
            vec![OutputKind::Oci(LayoutDestination::Dir(PathBuf::from("d")))],
        ),
        (
            &["-o", "type=docker,dest=x.tar", "."],
            vec![OutputKind::Docker(LayoutDestination::Tar(file("x.tar")))],
        ),
        (&["-o", "type=docker", "."], vec![STORE]),
        (&["-o", "type=image", "."], vec![STORE]),
        (&["-t", "a", "-o", "type=registry", "."], vec![PUSH]),
        (&["-t", "a", "--push", "."], vec![PUSH]),
        (&["-t", "a", "--push", "-o", "type=image", "."], vec![PUSH]),
        (
            &["-t", "a", "--push", "-o", "out", "."],
            vec![
                OutputKind::Local(TreeDestination::Dir(PathBuf::from("out"))),
                PUSH,
            ],
        ),
        (&["--load", "."], vec![STORE]),
        (
            &["--load", "-o", "out", "."],
            vec![
                OutputKind::Local(TreeDestination::Dir(PathBuf::from("out"))),
                STORE,
            ],
        ),
        (&["-o", "type=cacheonly", "."], vec![OutputKind::CacheOnly]),
        (
            &["-o", "type=cacheonly", "-o", "out", "."],
            vec![OutputKind::Local(TreeDestination::Dir(PathBuf::from("out")))],
        ),
        (&["-o", "", "."], vec![STORE]),
    ] {
        assert_eq!(kinds(line), expected, "{line:?}");
    }
}

#[test]
fn attributes_of_outputs() {
    let output = |text: &str| high(&["-o", text, "."]).request.outputs.remove(0);
    let zstd = output(
        "type=image,\"name=a,b\",compression=zstd,compression-level=19,force-compression=true,oci-mediatypes=false,rewrite-timestamp=true,annotation.k=v",
    );
    assert_eq!(zstd.names, ["a", "b"]);
    assert_eq!(
        (zstd.compression, zstd.compression_level),
        (LayerCompression::Zstd, Some(19))
    );
    assert!(zstd.force_compression && zstd.rewrite_timestamp && !zstd.oci_mediatypes);
    assert_eq!(zstd.annotations[&None].manifest["k"], "v");
    let tagged = high(&["-t", "tag", "-o", "type=image,name=ignored", "."]);
    assert_eq!(
        tagged.request.outputs[0].names,
        Vec::<String>::new(),
        "tags take the place of names"
    );
    let odd = high(&[
        "-o",
        "type=image,push=false,unpack=true,store=1,mode=copy,tpyo=1",
        ".",
    ]);
    assert_eq!(
        odd.warnings,
        ["unknown attribute \"tpyo\" of output type \"image\" has no effect"]
    );
    let insecure = output("type=image,name=a,push=,push-by-digest=1,registry.insecure=true");
    assert_eq!(
        insecure.kind,
        OutputKind::Image {
            push: true,
            push_by_digest: true,
            insecure: true
        }
    );
}

#[test]
fn outputs_that_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (dir, file) = (dir.path().display(), file.display());
    for (line, expected) in [
        (
            vec!["-o", "type=image,push=true", "."],
            "tag is needed when pushing to registry",
        ),
        (vec!["--push", "."], "tag is needed when pushing to registry"),
        (
            vec!["-o", "-", "-o", "type=oci", "."],
            "multiple outputs configured to write to stdout",
        ),
        (
            vec!["--iidfile=i", "-o", "out", "."],
            "local and tar exporters are incompatible with image ID file",
        ),
        (
            vec!["--iidfile=i", "-o", "-", "."],
            "local and tar exporters are incompatible with image ID file",
        ),
        (
            vec!["-o", "type=local", "."],
            "dest is required for local exporter",
        ),
        (
            vec!["-o", "type=local,dest=-", "."],
            "dest cannot be stdout for local exporter",
        ),
        (
            vec!["-o", "type=oci,tar=false", "."],
            "dest is required for oci exporter",
        ),
        (
            vec!["-o", "type=oci,tar=false,dest=-", "."],
            "dest cannot be stdout for oci exporter",
        ),
        (
            vec!["-o", &format!("{file}"), "."],
            &format!("destination directory {file} is a file"),
        ),
        (
            vec!["-o", &format!("type=tar,dest={dir}"), "."],
            &format!("destination file {dir} is a directory"),
        ),
        (vec!["-o", "type=ftp", "."], "exporter \"ftp\" could not be found"),
        (
            vec!["-o", "type=image,compression=lz4", "."],
            "invalid compression=lz4 of output",
        ),
        (
            vec!["-o", "type=image,compression-level=10", "."],
            "invalid compression-level=10 of output",
        ),
        (
            vec!["-o", "type=image,compression=estargz", "."],
            "not supported yet: output attribute compression=estargz",
        ),
        (
            vec!["-o", "type=local,dest=d,mode=delete", "."],
            "not supported yet: output attribute mode=delete",
        ),
        (
            vec!["-o", "type=image,store=false", "."],
            "not supported yet: output attribute store=false",
        ),
        (
            vec!["-o", "type=docker,dest=x,context=y", "."],
            "not supported yet: output attribute context=y",
        ),
        (
            vec![
                "-o",
                "type=docker,dest=x",
                "--platform=linux/amd64,linux/arm64",
                ".",
            ],
            "docker exporter does not support exporting manifest lists, use the oci exporter instead",
        ),
    ] {
        assert_eq!(refused(&line), expected, "{line:?}");
    }
}

#[test]
fn archives_are_not_written_to_a_terminal() {
    for (text, kind) in [
        ("-", "tar"),
        ("type=oci", "oci"),
        ("type=docker,dest=-", "docker"),
    ] {
        let mut env = env(&[], b"").0;
        env.stdout_is_terminal = true;
        let error = to_request(low(&["-o", text, "."]), &mut env)
            .expect_err(text)
            .to_string();
        assert_eq!(
            error,
            format!("dest file is required for {kind} exporter. refusing to write to console")
        );
    }
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
fn standard_input_is_a_dockerfile_or_an_archive() {
    let text = high_with(&["-"], &[], b"FROM scratch\n").unwrap().request;
    assert!(matches!(text.context, ContextSource::Empty));
    assert!(matches!(text.dockerfile, DockerfileSource::Text(text) if text == b"FROM scratch\n"));
    let archive = high_with(&["-f", "sub/Dockerfile", "-"], &[], b"\x1f\x8b\x08rest").unwrap();
    let ContextSource::Tar(path) = &archive.request.context else {
        panic!("an archive was given")
    };
    assert_eq!(std::fs::read(path).unwrap(), b"\x1f\x8b\x08rest");
    assert!(
        matches!(archive.request.dockerfile, DockerfileSource::InContext(name) if name == "sub/Dockerfile")
    );
    let from = high_with(&["-f", "-", "."], &[], b"FROM x\n").unwrap().request;
    assert!(matches!(from.dockerfile, DockerfileSource::Text(text) if text == b"FROM x\n"));
    for (line, stdin, expected) in [
        (
            &["-f", "-", "-"][..],
            &b"FROM x\n"[..],
            "invalid argument: can't use stdin for both build context and dockerfile",
        ),
        (
            &["-f", "D", "-"],
            b"FROM x\n",
            "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles",
        ),
        (
            &["-"],
            b"",
            "standard input is empty: expected a Dockerfile or a tar archive",
        ),
        (
            &["no/such/dir"],
            b"",
            "unable to prepare context: path \"no/such/dir\" not found",
        ),
    ] {
        assert_eq!(high_with(line, &[], stdin).unwrap_err().to_string(), expected);
    }
}

#[test]
fn the_lower_case_dockerfile_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap().to_owned();
    let found = || match high(&[&path]).request.dockerfile {
        DockerfileSource::File(path) => path.file_name().unwrap().to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(found(), "Dockerfile");
    std::fs::write(dir.path().join("dockerfile"), "FROM scratch").unwrap();
    assert_eq!(found(), "dockerfile");
    std::fs::write(dir.path().join("Dockerfile"), "FROM scratch").unwrap();
    assert_eq!(found(), "Dockerfile");
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

#[test]
fn secrets_and_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s");
    std::fs::write(&file, "x").unwrap();
    let from_file = format!("id=a,src={}", file.display());
    let request = high_with(
        &[
            "--secret",
            &from_file,
            "--secret=id=E",
            "--secret=id=a,env=E",
            ".",
        ],
        &[("E", "v")],
        b"",
    )
    .unwrap()
    .request;
    let ids: Vec<&str> = request.secrets.iter().map(|secret| secret.id.as_str()).collect();
    assert_eq!(ids, ["E", "a"], "the last of an id holds");
    assert!(
        request
            .secrets
            .iter()
            .all(|secret| secret.source == SecretSource::Env("E".to_owned()))
    );
    assert!(refused(&["--secret=id=a,src=/no/such", "."]).starts_with("failed to stat /no/such: "));
}

#[test]
fn other_conflicts() {
    for (line, expected) in [
        (
            &["--network=bridge", "."][..],
            "network mode \"bridge\" not supported by buildkit",
        ),
        (&["--allow=root", "."], "invalid entitlement \"root\""),
        (
            &["--allow=device=a,b=c", "."],
            "invalid entitlement: unknown device config key \"b\"",
        ),
        (
            &["--shm-size=big", "."],
            "invalid argument for --shm-size: invalid size: 'big'",
        ),
        (
            &["--build-arg==x", "."],
            "invalid key-value pair \"=x\": empty key",
        ),
        (
            &["--build-context=x", "."],
            "invalid context value: x, expected key=value",
        ),
        (
            &["--platform=a/b/c/d", "."],
            "invalid platform \"a/b/c/d\": expected os[/arch[/variant]]",
        ),
        (
            &["--annotation=x", "."],
            "invalid annotation \"x\", expected key=value",
        ),
        (&["--add-host=x", "."], "invalid host x"),
        (
            &[""],
            "please specify build context (e.g. \".\" for the current directory)",
        ),
    ] {
        assert_eq!(refused(line), expected);
    }
    assert!(refused(&["--build-arg=BUILDKIT_SYNTAX= ", "."]).starts_with("empty BUILDKIT_SYNTAX"));
    assert_eq!(
        high(&["--no-cache", "--no-cache-filter=a", "."]).request.no_cache,
        NoCache::All
    );
    assert_eq!(
        high(&["--network=none", "."]).request.network,
        Some(NetMode::None)
    );
    let inline = high(&["--build-arg=BUILDKIT_INLINE_CACHE=1", "."]);
    assert!(inline.warnings.is_empty());
    assert_eq!(inline.request.cache_to[0].target, CacheTarget::Inline);
}

#[test]
fn caches_are_read_as_buildx_reads_them() {
    let request = high(&[
        "--cache-to=type=local,dest=out,mode=max,compression=zstd,compression-level=99",
        "--cache-to=type=registry,ref=localhost:5000/a,oci-mediatypes=false,ignore-error=true",
        "--cache-from=busybox,localhost:5000/b:c",
        "--cache-from=type=local,src=in,tag=t",
        ".",
    ])
    .request;
    let zstd = CacheForm {
        compression: LayerCompression::Zstd,
        compression_level: Some(22),
        ..CacheForm::default()
    };
    let local = CacheTarget::Directory {
        dest: "out".into(),
        tag: "latest".to_owned(),
        form: zstd,
    };
    assert_eq!(
        request.cache_to[0],
        CacheExport {
            target: local,
            mode_max: true,
            ignore_error: false
        }
    );
    let CacheTarget::Registry(reference, form) = &request.cache_to[1].target else {
        panic!("a registry")
    };
    assert_eq!(reference.to_string(), "localhost:5000/a:latest");
    assert!(
        !form.oci_mediatypes && !form.image_manifest,
        "no OCI types, so an index"
    );
    let names: Vec<String> = request.cache_from.iter().map(CacheSource::name).collect();
    assert_eq!(
        names,
        [
            "docker.io/library/busybox:latest",
            "localhost:5000/b:c",
            "local:in:t"
        ]
    );
    for (text, expected) in [
        ("--cache-to=type=local", "local cache needs dest"),
        ("--cache-to=dest=x", "type required form> \"dest=x\""),
        (
            "--cache-from=type=local,src=x,digest=md5:a",
            "failed to parse digest of cache: \"md5:a\"",
        ),
        (
            "--cache-from=type=registry,ref=A:b:c",
            "failed to parse ref of cache: \"A:b:c\"",
        ),
    ] {
        assert_eq!(refused(&[text, "."]), expected, "{text}");
    }
    let twice = refused(&["--cache-to=a", "--cache-to=a:latest", "."]);
    assert_eq!(twice, "duplicate cache exports");
}

#[test]
fn remote_contexts_and_where_their_dockerfile_is() {
    for url in [
        "https://h.test/r.git#main:dir",
        "http://h.test/ctx.tar.gz",
        "git://h.test/r",
        "git@h.test:r.git",
        "github.com/moby/buildkit",
    ] {
        let request = high(&[url]).request;
        assert!(
            matches!(&request.context, ContextSource::Remote(given) if given == url),
            "{url}"
        );
        assert!(
            matches!(&request.dockerfile, DockerfileSource::InContext(name) if name == "Dockerfile"),
            "{url}"
        );
    }
    let url = "https://h.test/r.git";
    let inside = high(&["-f", "sub/D", url]).request.dockerfile;
    assert!(matches!(inside, DockerfileSource::InContext(name) if name == "sub/D"));
    let here = high(&["-f", "/abs/D", url]).request.dockerfile;
    assert!(matches!(here, DockerfileSource::File(path) if path == Path::new("/abs/D")));
    let text = high_with(&["-f", "-", url], &[], b"FROM scratch\n")
        .unwrap()
        .request;
    assert!(matches!(&text.dockerfile, DockerfileSource::Text(text) if text == b"FROM scratch\n"));
    let shown = format!("{:?}", high(&["https://us:canary@h.test/r.git"]).request);
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn agents_are_sockets_and_keys_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let key = dir.path().join("id_ed25519");
    std::fs::write(&key, "").unwrap();
    let (socket, key) = (socket.display().to_string(), key.display().to_string());
    let agents = |line: &[&str], vars: &[(&str, &str)]| {
        let ssh = high_with(line, vars, b"").map(|high| high.request.ssh);
        ssh.map(|specs| {
            specs
                .into_iter()
                .map(|spec| (spec.id, spec.socket.display().to_string()))
                .collect::<Vec<_>>()
        })
        .map_err(|error| error.to_string())
    };
    let both = agents(
        &["--ssh", "default", "--ssh", &format!("b={socket}"), "."],
        &[("SSH_AUTH_SOCK", &socket)],
    );
    assert_eq!(
        both.unwrap(),
        [
            ("default".to_owned(), socket.clone()),
            ("b".to_owned(), socket.clone())
        ]
    );
    for (line, says) in [
        (vec!["--ssh=default".to_owned()], "make sure SSH_AUTH_SOCK is set"),
        (vec![format!("--ssh=a={key}")], "a private key"),
        (vec![format!("--ssh=a={socket},{socket}")], "only single socket"),
        (
            vec![format!("--ssh=a={socket}"), format!("--ssh=a={socket}")],
            "duplicate agent ID",
        ),
        (vec![format!("--ssh=a={socket}.none")], "failed to stat"),
    ] {
        let line: Vec<&str> = line.iter().map(String::as_str).chain(["."]).collect();
        let error = agents(&line, &[]).expect_err(says);
        assert!(error.contains(says), "{line:?}: {error}");
    }
}
