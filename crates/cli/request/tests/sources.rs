//! Secrets, agents, caches and questions, and what contradicts itself.

use super::*;

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
        (vec!["--call=convertllb", "."], S::ConvertLlb, false, false),
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
        ("--call=convertlbl", "unsupported request frontend.convertlbl"),
        ("--call=format=json", "unsupported request frontend."),
    ] {
        assert_eq!(refused(&[flag, "."]), expected);
    }
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
        (&["--allow=root", "."], "unknown entitlement root"),
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
            "failed to parse target platform a/b/c/d: \"a/b/c/d\": cannot parse platform specifier: invalid argument",
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
        "--cache-to=type=local,dest=out,mode=max,compression=zstd,compression-level=99,reset=true",
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
        reset: true,
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
        (
            "--cache-to=bucket=b,secret_access_key=hidden",
            "type required form> \"bucket=b,secret_access_key=…\"",
        ),
        ("--cache-to=dest=x", "type required form> \"dest=x\""),
    ] {
        assert_eq!(refused(&[text, "."]), expected, "{text}");
    }
    for (text, told) in [
        (
            "type=local,src=x,digest=md5:a",
            "type=local is left out: failed to parse digest of cache: \"md5:a\"",
        ),
        (
            "type=registry,ref=A:b:c",
            "type=registry is left out: failed to parse ref of cache: \"A:b:c\"",
        ),
        (
            "type=s3,bucket=b",
            "type=s3 is left out: failed to configure s3 cache importer: region ($AWS_REGION) not set for s3 cache",
        ),
        (
            "type=regitsry,ref=a",
            "type=regitsry is left out: there is no such kind to read; did you mean \"registry\"?",
        ),
        (
            "type=inline",
            "type=inline is left out: there is no such kind to read; there are registry, local, gha, s3, azblob",
        ),
    ] {
        let build = high(&[&format!("--cache-from={text}"), "--cache-from=kept", "."]);
        assert_eq!(build.warnings, [format!("--cache-from {told}")], "{text}");
        assert_eq!(build.request.cache_from.len(), 1, "{text}");
    }
    let twice = refused(&["--cache-to=a", "--cache-to=a:latest", "."]);
    assert_eq!(twice, "duplicate cache exports");
}

#[test]
fn agents_are_sockets_or_keys_of_files() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let key = dir.path().join("id_ed25519");
    let mut made = std::process::Command::new("ssh-keygen");
    made.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key);
    assert!(made.status().unwrap().success());
    let (socket, key) = (socket.display().to_string(), key.display().to_string());
    let agents = |line: &[&str], vars: &[(&str, &str)]| {
        let ssh = high_with(line, vars, b"").map(|high| high.request.ssh);
        ssh.map(|specs| {
            specs
                .into_iter()
                .map(|spec| match spec.keys {
                    SshKeys::Agent(socket) => (spec.id, socket.display().to_string()),
                    SshKeys::Held(ring) => (spec.id, format!("{ring:?}")),
                })
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
    let held = agents(
        &[
            "--ssh",
            &format!("default={key}"),
            "--ssh",
            &format!("b={key},{key}"),
            ".",
        ],
        &[],
    );
    let held: Vec<String> = held
        .unwrap()
        .into_iter()
        .map(|(id, told)| format!("{id}: {told}"))
        .collect();
    assert_eq!(held, ["default: Keyring of 1", "b: Keyring of 2"]);
    for (line, says) in [
        (vec!["--ssh=default".to_owned()], "make sure SSH_AUTH_SOCK is set"),
        (vec![format!("--ssh=a={key}.pub")], "no private key in PEM form"),
        (
            vec![format!("--ssh=a={key},{socket}")],
            "invalid combination of keys and sockets",
        ),
        (vec![format!("--ssh=a={socket},{key}")], "only single socket"),
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
