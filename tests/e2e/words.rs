//! What a client of BuildKit's API reads at the end of a build that failed: the last line of `buildctl`, which people and
//! programs look through. Each row is what buildctl printed when BuildKit 73ed6825 was asked the same.

use std::os::unix::fs::symlink;

use rbuild_testkit::web::{Page, WebServer};

use crate::e2e::buildctl_server::{Through, give_busybox};

const SCRATCH: &str = "FROM scratch\n";
/// A root with a shell.
const SHELL: &str = "FROM scratch\nCOPY bin /bin\nCOPY etc /etc\n";
const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Attributes of the front end, and what is said of them.
const ATTRIBUTES: [(&str, &str); 33] = [
    (
        "platform=linux/amd64/v2/x",
        "failed to parse target platform linux/amd64/v2/x: \"linux/amd64/v2/x\": cannot parse platform specifier: invalid argument",
    ),
    (
        "platform=linux/amd64,,x",
        "failed to parse target platform : \"\" is an invalid OS component of \"\": OSAndVersion specifier component must match \
         \"^([A-Za-z0-9_-]+)(?:\\\\(([A-Za-z0-9_.%-]*)((?:\\\\+[A-Za-z0-9_.%-]+)*)\\\\))?$\": invalid argument",
    ),
    ("target=nope", "target stage \"nope\" could not be found"),
    (
        "shm-size=x",
        "failed to parse shm size: strconv.ParseInt: parsing \"x\": invalid syntax",
    ),
    ("ulimit=x", "failed to parse ulimit: invalid ulimit argument: x"),
    (
        "add-hosts=x",
        "failed to parse additional hosts: invalid key-value pair x",
    ),
    ("force-network-mode=x", "invalid netmode x"),
    ("image-resolve-mode=x", "invalid image-resolve-mode: x"),
    ("multi-platform=x", "invalid boolean value for multi-platform: x"),
    (
        "build-arg:BUILDKIT_MULTI_PLATFORM=x",
        "invalid boolean value for multi-platform: x",
    ),
    (
        "attest:provenance=version=v9",
        "invalid provenance SLSA version: v9",
    ),
    ("attest:nope=", "unknown attestation type \"nope\""),
    (
        "build-arg:BUILDKIT_DOCKERFILE_CHECK=x",
        "failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK: invalid check option \"x\"",
    ),
    (
        "override-copy-image=x",
        "support for \"override-copy-image\" was removed in BuildKit 0.11",
    ),
    (
        "build-arg:BUILDKIT_DISABLE_FILEOP=1",
        "support for \"BUILDKIT_DISABLE_FILEOP\" build-arg was removed in BuildKit 0.11",
    ),
    (
        "memory=x",
        "failed to parse resource limits: invalid memory value: x: strconv.ParseInt: parsing \"x\": invalid syntax",
    ),
    (
        "cpushares=-1",
        "failed to parse resource limits: invalid cpushares value: -1: strconv.ParseUint: parsing \"-1\": invalid syntax",
    ),
    (
        "cpusetcpus=x",
        "failed to parse resource limits: invalid cpusetcpus value: x: invalid cpuset element \"x\"",
    ),
    (
        "filename=nope",
        "failed to read dockerfile: open nope: no such file or directory",
    ),
    ("build-arg:SOURCE_DATE_EPOCH=x", "invalid SOURCE_DATE_EPOCH: x"),
    (
        "context:base=oci-layout://nope",
        "oci-layout reference \"nope\" has no digest",
    ),
    ("context:base=foo:bar", "unsupported context source foo for base"),
    ("context:base=input:x", "invalid input x for base"),
    (
        "context={web}/nope",
        "failed to read downloaded context: failed to load cache key: invalid response status 404",
    ),
    (
        "context={web}/nope.git",
        "failed to read dockerfile: failed to load cache key: error fetching default branch for repository {web}/nope.git: git \
         stderr:",
    ),
    ("context={web}/nope.git?x=1", "unexpected query \"x\""),
    (
        "context={web}/nope.git#-x",
        "failed to read dockerfile: failed to load cache key: invalid git ref \"-x\"",
    ),
    (
        "context={web}/nope.git?checksum=zz",
        "failed to read dockerfile: failed to load cache key: invalid checksum zz for Git URL, expected hex commit hash",
    ),
    (
        "context={web}/nope.git?fetch-by-commit=1",
        "failed to read dockerfile: failed to load cache key: fetch-by-commit requires a checksum or a commit SHA ref",
    ),
    ("filename=d", "failed to read dockerfile: d is not a regular file"),
    (
        "build-arg:BUILDKIT_SYNTAX=UPPER",
        "failed with build-arg:BUILDKIT_SYNTAX = UPPER: invalid context name UPPER: invalid reference format: repository name (library/UPPER) must be lowercase",
    ),
    (
        "build-arg:BUILDKIT_SYNTAX=x@y",
        "failed with build-arg:BUILDKIT_SYNTAX = x@y: invalid context name x@y: invalid reference format",
    ),
    (
        "attest:provenance=reproducible=x",
        "failed to parse reproducible flag \"x\": strconv.ParseBool: parsing \"x\": invalid syntax",
    ),
];

/// Options of the client, and what is said of them.
const OPTIONS: [(&str, &str); 9] = [
    ("--output=type=nope", "exporter \"nope\" could not be found"),
    (
        "--output=type=oci,dest=/dev/null,compression=x",
        "unsupported compression type x",
    ),
    (
        "--output=type=oci,dest=/dev/null,compression-level=x",
        "non-integer value x specified for compression-level: strconv.ParseInt: parsing \"x\": invalid syntax",
    ),
    (
        "--output=type=image,push=x",
        "non-bool value specified for push: strconv.ParseBool: parsing \"x\": invalid syntax",
    ),
    (
        "--output=type=oci,dest=/dev/null,annotation-nope.x=y",
        "unrecognized annotation type nope",
    ),
    ("--export-cache=type=nope", "unknown cache exporter: \"nope\""),
    (
        "--export-cache=type=registry,ref=UPPER",
        "failed to configure registry cache exporter: invalid reference format: repository name (library/UPPER) must be lowercase",
    ),
    ("--frontend=nope", "invalid frontend: nope"),
    ("--frontend=gateway.v0", "no source specified for gateway"),
];

/// What stands behind a root with a shell, and what is said of it.
const STEPS: [(&str, &str); 22] = [
    (
        "RUN false",
        "process \"/bin/sh -c false\" did not complete successfully: exit code: 1",
    ),
    (
        "RUN exit 42",
        "process \"/bin/sh -c exit 42\" did not complete successfully: exit code: 42",
    ),
    (
        "USER nope\nRUN true",
        "process \"/bin/sh -c true\" did not complete successfully: unable to find user nope: no matching entries in passwd file",
    ),
    (
        "USER 0:nope\nRUN true",
        "process \"/bin/sh -c true\" did not complete successfully: unable to find group nope: no matching entries in group file",
    ),
    (
        "RUN --network=host true",
        "failed to load LLB: network.host is not allowed",
    ),
    (
        "RUN --security=insecure true",
        "failed to load LLB: security.insecure is not allowed",
    ),
    (
        "RUN --mount=source=nope,target=/x true",
        "failed to compute cache key: failed to calculate checksum of ref REF: \"/nope\": not found",
    ),
    ("RUN --mount=type=x true", "unsupported mount type \"x\""),
    ("RUN --mount=type=bind true", "invalid mount target \"/\""),
    (
        "RUN [\"/nope\"]",
        "process \"/nope\" did not complete successfully: exit code: 1",
    ),
    (
        "RUN [\"nope\"]",
        "process \"nope\" did not complete successfully: exit code: 1",
    ),
    (
        "RUN [\"/etc/passwd\"]",
        "process \"/etc/passwd\" did not complete successfully: exit code: 1",
    ),
    (
        "RUN [\"/etc\"]",
        "process \"/etc\" did not complete successfully: exit code: 1",
    ),
    (
        "USER -1\nRUN true",
        "process \"/bin/sh -c true\" did not complete successfully: uids and gids must be in range 0-2147483647",
    ),
    (
        "USER 0:4294967296\nRUN true",
        "process \"/bin/sh -c true\" did not complete successfully: uids and gids must be in range 0-2147483647",
    ),
    (
        "RUN --mount=type=secret,id=x,required true",
        "secret x: not found",
    ),
    (
        "RUN --mount=type=secret,id=x,target=/,required true",
        "invalid mount type SECRET for /",
    ),
    (
        "RUN --mount=type=ssh,required true",
        "no SSH key \"\" forwarded from the client",
    ),
    (
        "RUN --mount=type=ssh,id=x,required true",
        "no SSH key \"x\" forwarded from the client",
    ),
    (
        "RUN --mount=type=ssh,target=/ true",
        "invalid mount type SSH for /",
    ),
    (
        "RUN --mount=target=/etc/passwd true",
        "process \"/bin/sh -c true\" did not complete successfully: exit code: 1",
    ),
    (
        "RUN --mount=target=/etc/passwd/x true",
        "process \"/bin/sh -c true\" did not complete successfully: exit code: 1",
    ),
];

/// What stands behind `FROM scratch`, and what is said of it.
const FILES: [(&str, &str); 26] = [
    (
        "COPY nope /",
        "failed to compute cache key: failed to calculate checksum of ref REF: \"/nope\": not found",
    ),
    (
        "COPY loop /",
        "failed to compute cache key: failed to calculate checksum of ref REF: too many links",
    ),
    (
        "COPY --parents d/./nope /",
        "failed to compute cache key: failed to calculate checksum of ref REF: \"/d/nope\": not found",
    ),
    (
        "COPY --parents gone/./nope /",
        "failed to compute cache key: failed to calculate checksum of ref REF: \"/gone/nope\": not found",
    ),
    (
        "COPY --parents d/./ /",
        "failed to compute cache key: failed to calculate checksum of ref REF: \"/d\": not found",
    ),
    ("COPY --from=7 / /", "invalid stage index 7"),
    (
        "COPY --from=UPPER / /",
        "failed to parse stage name \"UPPER\": invalid reference format: repository name (library/UPPER) must be lowercase",
    ),
    (
        "COPY --chmod=9 d /",
        "invalid chmod parameter: '9'. it should be octal string and between 0 and 07777",
    ),
    ("COPY --chown=nope d /", "invalid user index: -1"),
    ("COPY <<E /x\ntext", "unterminated heredoc"),
    ("COPY ${x:?gone} /", "failed to process \"${x:?gone}\": x: gone"),
    (
        "ADD {web}/nope /",
        "failed to load cache key: invalid response status 404",
    ),
    (
        "ADD {web}/broken /",
        "failed to load cache key: invalid response status 500",
    ),
    (
        "ADD http://127.0.0.1:1/x /",
        "failed to load cache key: Get \"http://127.0.0.1:1/x\": dial tcp 127.0.0.1:1: connect: connection refused",
    ),
    (
        "ADD {web}/%zz /",
        "failed to load cache key: parse \"{web}/%zz\": invalid URL escape \"%zz\"",
    ),
    (
        "ADD http:///x /",
        "failed to load cache key: Get \"http:///x\": http: no Host in request URL",
    ),
    (
        "ADD http://h:x/x /",
        "failed to load cache key: parse \"http://h:x/x\": invalid port \":x\" after host",
    ),
    (
        "ADD {web}/%ff /",
        "failed to marshal LLB definition: string field contains invalid UTF-8",
    ),
    (
        "ADD --checksum=sha256:zz {web}/ok /",
        "invalid checksum digest length",
    ),
    (
        "ADD --checksum=sha256:ZEROS {web}/ok /",
        "digest mismatch sha256:2689367b205c16ce32ed4200942b8b8b1e262dfc70d9bc9fbc77c49699a4f1df: sha256:ZEROS",
    ),
    (
        "ADD {web}/nope.git /",
        "failed to load cache key: error fetching default branch for repository {web}/nope.git: git stderr:",
    ),
    (
        "ADD {web}/nope.git? /",
        "failed to load cache key: error fetching default branch for repository {web}/nope.git?: git stderr:",
    ),
    (
        "ADD git@127.0.0.1:r.git /",
        "failed to load cache key: no SSH key \"default\" forwarded from the client",
    ),
    ("COPY d/f /x\nCOPY d/f /x/y", "mkdir /x: not a directory"),
    ("COPY d/f /x\nWORKDIR /x", "mkdir /x: not a directory"),
    (
        "COPY --from=127.0.0.1:1/x / /",
        "127.0.0.1:1/x: failed to resolve source metadata for 127.0.0.1:1/x:latest: failed to do request: Head \"http://127.0.0.1:1/v2/x/manifests/latest\": dial tcp 127.0.0.1:1: connect: connection refused",
    ),
];

/// The last error that was printed, without what is new in each run.
fn said(stderr: &[u8]) -> String {
    const REF: &str = "checksum of ref ";
    let text = String::from_utf8_lossy(stderr);
    let mut errors = text
        .lines()
        .filter_map(|line| line.strip_prefix("ERROR: failed to solve: "));
    let last = errors.next_back().unwrap_or(&text);
    match last
        .split_once(REF)
        .and_then(|(head, rest)| Some((head, rest.split_once(": ")?.1)))
    {
        Some((head, rest)) => format!("{head}{REF}REF: {rest}"),
        None => last.to_owned(),
    }
}

#[test]
fn privileged_the_last_line_of_a_failed_build_is_what_buildkit_says() {
    let Some(through) = Through::start(SCRATCH) else {
        return;
    };
    let web = WebServer::start();
    web.put("/ok", Page::of("ok"))
        .put("/broken", Page::of("").status(500));
    give_busybox(&through, &["sh", "true", "false"]);
    through.file("etc/passwd", "root:x:0:0::/:/bin/sh\n");
    through.file("etc/group", "root:x:0:\n");
    through.file("d/f", "x");
    symlink("loop", through.context().join("loop")).unwrap();
    let filled = |text: &str| {
        text.replace("{web}", web.url("").trim_end_matches('/'))
            .replace("ZEROS", ZEROS)
    };
    let mut wrong = Vec::new();
    let mut judge = |what: &str, args: &[&str], expected: &str| {
        let expected = filled(expected);
        let ran = through.run(args);
        let said = said(&ran.stderr);
        if ran.status.success() || said.trim_end() != expected {
            wrong.push(format!("{what}\n  {said}\n  and not\n  {expected}"));
        }
    };
    for (attribute, expected) in ATTRIBUTES {
        through.file(
            "Dockerfile",
            if attribute.starts_with("context:base") {
                "FROM base\n"
            } else {
                SCRATCH
            },
        );
        judge(attribute, &[&format!("--opt={}", filled(attribute))], expected);
    }
    through.file("Dockerfile", "FROM scratch\nCOPY d /\n");
    for (option, expected) in OPTIONS {
        judge(option, &[option], expected);
    }
    for (base, rows) in [(SHELL, &STEPS[..]), (SCRATCH, &FILES[..])] {
        for (lines, expected) in rows {
            through.file("Dockerfile", &format!("{base}{}\n", filled(lines)));
            judge(lines, &[], expected);
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}
