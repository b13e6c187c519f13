//! The commands on images beside docker's own, on the same image: what is printed, and how it ends. Debian's engine is the
//! second runner where it can be started; what it printed stands here, so that the first half says something without it.
//!
//! Left out of the comparison, and told in `docs/migration/docker.md`: sizes, which are of compressed layers here; digests, which
//! an engine without containerd's image store has not; and the prefix and the words of errors.

use std::path::{Path, PathBuf};

use rbuild_testkit::command::Ran;
use rbuild_testkit::machine;

use crate::e2e::docker_engine::DockerEngine;
use crate::e2e::fixture::{Fixture, busybox_argument};

const DOCKERFILE: &str = "FROM busybox
LABEL team=a \"with space\"=\"b c\"
ENV A=1 B=\"two words\"
WORKDIR /app
RUN echo one > one
EXPOSE 80 53/udp
USER 1000
ENTRYPOINT [\"/bin/sh\",\"-c\"]
CMD [\"echo hello\"]
";

/// An image with three names, made by rbuild.
fn fixture() -> Fixture {
    let fixture = Fixture::new(DOCKERFILE);
    let tags = ["-t", "app:1", "-t", "app:2", "-t", "team/app:1"];
    let build = ["build", "--build-arg", "SOURCE_DATE_EPOCH=1700000000"];
    let build = fixture.rbuild(build).args(tags).arg(busybox_argument("busybox"));
    build.arg(fixture.context.dir()).ok();
    fixture
}

/// A command line, and what docker prints for it. Ids are those of this build, so `@` stands for the short one.
const PRINTED: &[(&[&str], &str)] = &[
    (&["images", "-q"], "@\n@\n@"),
    (&["images", "app", "-q"], "@\n@"),
    (
        &["images", "none"],
        "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE",
    ),
    (
        &["images", "--format", "table {{.Repository}}\\t{{.Tag}}\\t{{.ID}}"],
        "REPOSITORY   TAG       IMAGE ID\napp          1         @\napp          2         @\nteam/app     1         @",
    ),
    (
        &[
            "images",
            "--format",
            "table {{lower .ID}}: {{.CreatedAt}}",
            "app:1",
        ],
        "IMAGE ID: CREATED AT\n@: 2023-11-14 22:13:20 +0000 UTC",
    ),
    (
        &["images", "--format", "{{.Repository}}\\t{{.Tag}}"],
        "app\t1\napp\t2\nteam/app\t1",
    ),
    (
        &["images", "--format", "{{.Containers}} {{.SharedSize}}", "app:1"],
        "N/A N/A",
    ),
    (
        &[
            "images",
            "--format",
            "{{.ID | upper | len}} {{printf \"%.2s|%q|%-6s|\" .Repository .Tag .Tag}}",
            "app:1",
        ],
        "12 ap|\"1\"|1     |",
    ),
    (
        &[
            "images",
            "--format",
            "{{title .Repository}} {{pad .Tag 1 2}}{{truncate .Repository 2}} {{split .Tag \"x\"}}",
            "app:1",
        ],
        "App  1  ap [1]",
    ),
    (
        &[
            "images",
            "--format",
            "{{if and (eq .Tag \"1\") (ne .Repository \"app\")}}x{{else if not .Tag}}y{{else}}z{{end}}",
        ],
        "z\nz\nx",
    ),
    (
        &[
            "images",
            "--format",
            "{{with .Tag}}{{.}}{{end}}{{$x := .Tag}}{{$x}}",
            "app:1",
        ],
        "11",
    ),
    (&["images", "a*", "--format", "{{.Tag}}"], "1\n2"),
    (&["images", "team/*", "--format", "{{.Tag}}"], "1"),
    (
        &[
            "images",
            "--filter",
            "reference=*:1",
            "--format",
            "{{.Repository}}",
        ],
        "app",
    ),
    (
        &[
            "images",
            "-f",
            "reference=app:1",
            "-f",
            "reference=team/app",
            "--format",
            "{{.Repository}}",
        ],
        "app\nteam/app",
    ),
    (&["images", "--filter", "label=team=a", "-q"], "@\n@\n@"),
    (&["images", "--filter", "label=team=b", "-q"], ""),
    (&["images", "--filter", "before=app:1", "-q"], ""),
    (&["images", "--filter", "since=app:1", "-q"], ""),
    (&["images", "--filter", "dangling=true", "-q"], ""),
    (
        &["history", "--format", "table {{.ID}}\\t{{.Comment}}", "app:1"],
        "IMAGE          COMMENT
@   buildkit.dockerfile.v0
<missing>      buildkit.dockerfile.v0
<missing>      buildkit.dockerfile.v0
<missing>      buildkit.dockerfile.v0
<missing>      buildkit.dockerfile.v0
<missing>      buildkit.dockerfile.v0
<missing>      buildkit.dockerfile.v0
<missing>      buildkit.dockerfile.v0
<missing>",
    ),
    (
        &[
            "history",
            "--no-trunc",
            "--format",
            "{{.CreatedAt}} {{.CreatedBy}}",
            "app:1",
        ],
        "2023-11-14T22:13:20Z CMD [\"echo hello\"]
2023-11-14T22:13:20Z ENTRYPOINT [\"/bin/sh\" \"-c\"]
2023-11-14T22:13:20Z USER 1000
2023-11-14T22:13:20Z EXPOSE [53/udp 80/tcp]
2023-11-14T22:13:20Z RUN /bin/sh -c echo one > one # buildkit
2023-11-14T22:13:20Z WORKDIR /app
2023-11-14T22:13:20Z ENV A=1 B=two words
2023-11-14T22:13:20Z LABEL team=a with space=b c
2024-01-01T00:00:00Z rbuild-testkit: static busybox",
    ),
    (
        &["inspect", "-f", "{{.RepoTags}}", "app:1"],
        "[app:1 app:2 team/app:1]",
    ),
    (
        &[
            "inspect",
            "-f",
            "{{.Config.Env}} {{json .Config.ExposedPorts}} {{.Config.Hostname}}|",
            "app:1",
        ],
        "[PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin A=1 B=two words] {\"53/udp\":{},\"80/tcp\":{}} |",
    ),
    (
        &[
            "inspect",
            "-f",
            "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}",
            "app:1",
        ],
        "team=a;with space=b c;",
    ),
    (
        &[
            "inspect",
            "-f",
            "{{range $i, $v := .Config.Env}}{{if $i}},{{end}}{{$v}}{{end}}",
            "app:1",
        ],
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin,A=1,B=two words",
    ),
    (
        &[
            "inspect",
            "-f",
            "{{index .Config.Labels \"team\"}}|{{.Config.Labels.none}}|{{index .Config.Labels \"none\"}}|",
            "app:1",
        ],
        "a|<no value>||",
    ),
    (
        &[
            "inspect",
            "-f",
            "{{.Config.Cmd}} {{json .Config.Entrypoint}} {{.Config.Volumes}} {{json .Config.OnBuild}} {{.Config.OnBuild}}",
            "app:1",
        ],
        "[echo hello] [\"/bin/sh\",\"-c\"] map[] null []",
    ),
    (
        &[
            "inspect",
            "-f",
            "{{.Os}}/{{.Architecture}} {{.Created}} {{len .RootFS.Layers}} {{.Parent}}{{.DockerVersion}}|",
            "app:1",
        ],
        "linux/amd64 2023-11-14T22:13:20Z 3 |",
    ),
    (&["tag", "app:1", "app:3"], ""),
    (&["rmi", "app:3"], "Untagged: app:3"),
    (&["rmi", "-f", "none"], ""),
    (&["image", "prune", "-f"], "Total reclaimed space: 0B"),
    (&["container", "prune", "-f"], "Total reclaimed space: 0B"),
    (&["context", "ls", "-q"], "default"),
    (&["ps", "-l", "-q"], ""),
    (
        &["system", "df", "--format", "table {{.Type}}\\t{{.Active}}"],
        "TYPE            ACTIVE\nImages          0\nContainers      0\nLocal Volumes   0\nBuild Cache     0",
    ),
    (
        &[
            "info",
            "-f",
            "{{.OSType}}/{{.Architecture}} {{.Swarm.LocalNodeState}} {{.ContainersRunning}}",
        ],
        "linux/x86_64 inactive 0",
    ),
    (
        &["version", "-f", "{{.Client.Os}}/{{.Server.Arch}}"],
        "linux/amd64",
    ),
];

/// Command lines that fail, with docker's codes.
const FAIL: &[(&[&str], i32, &str)] = &[
    (
        &["images", "--format", "{{.Nope}}"],
        1,
        "can't evaluate field Nope",
    ),
    (&["images", "--format", "{{.ID"], 1, "template parsing error"),
    (
        &["images", "--format", "{{nope .ID}}"],
        1,
        "function \"nope\" not defined",
    ),
    (
        &["images", "--filter", "dangling=x"],
        1,
        "nvalid filter 'dangling",
    ),
    (&["images", "--filter", "before=none"], 1, "No such image: none"),
    (&["images", "--filter", "nope=1"], 1, "nvalid filter 'nope"),
    (&["images", "--nope"], 125, "--nope"),
    (&["images", "a", "b"], 1, "images"),
    (&["history", "none"], 1, "No such image: none"),
    (&["history"], 1, "history"),
    (&["image", "inspect", "none"], 1, "No such image: none"),
    (&["inspect", "-f", "{{.Nope}}", "app:1"], 1, "Nope"),
    (&["tag", "app:1", "UPPER"], 1, "must be lowercase"),
    (&["tag", "none", "x"], 1, "No such image: none"),
    (
        &[
            "tag",
            "app:1",
            "x@sha256:1111111111111111111111111111111111111111111111111111111111111111",
        ],
        1,
        "refusing to create a tag with a digest reference",
    ),
    (&["rmi", "none"], 1, "No such image: none"),
    (&["save", "none", "-o", "x.tar"], 1, "No such image: none"),
    (&["load", "-i", "/no/such"], 1, "/no/such"),
    (&["version", "-f", "{{.Nope}}"], 1, "can't evaluate field Nope"),
    (&["info", "-f", "{{.Nope}}"], 1, "can't evaluate field Nope"),
    (&["run", "--nope", "app:1"], 125, "--nope"),
];

/// Runs all of them; `run` is the tool.
fn judge(tool: &str, run: impl Fn(&[&str]) -> Ran) {
    let id = run(&["images", "-q", "app:1"]).stdout_text();
    assert_eq!(id.len(), 12, "{tool}");
    for (line, expected) in PRINTED {
        let ran = run(line);
        let printed = ran.stdout_text();
        let mut lines: Vec<&str> = printed.lines().map(str::trim_end).collect();
        lines.retain(|line| !line.starts_with("Deleted: "));
        let expected = expected.replace('@', &id);
        let mut expected: Vec<&str> = expected.lines().collect();
        if line[0] == "images" {
            // Images of one time come from docker in any order.
            lines.sort_unstable();
            expected.sort_unstable();
        }
        assert_eq!(lines, expected, "{tool}: {line:?}\n{ran}");
        assert_eq!(ran.status.code(), Some(0), "{tool}: {line:?}\n{ran}");
    }
    for (line, code, says) in FAIL {
        let ran = run(line);
        assert_eq!(ran.status.code(), Some(*code), "{tool}: {line:?}\n{ran}");
        assert!(
            ran.stderr.contains(says),
            "{tool}: {line:?} lacks {says:?}\n{ran}"
        );
    }
}

#[test]
fn commands_on_images_print_what_docker_prints() {
    let fixture = fixture();
    judge("rbuild", |args| fixture.rbuild(args.iter().copied()).run());
}

#[test]
fn privileged_docker_prints_what_is_expected_of_us() {
    if !machine::is_root() {
        machine::skip("the engine needs root");
        return;
    }
    let fixture = fixture();
    let archive: PathBuf = fixture.home.work().join("image.tar");
    let save = ["save", "app:1", "app:2", "team/app:1", "-o"];
    fixture.rbuild(save).arg(&archive).ok();
    let engine = DockerEngine::start_in(&fixture.home.work());
    engine.docker(["load", "-q", "-i"]).arg(&archive).ok();
    judge("docker", |args| engine.docker(args.iter().copied()).run());
    what_both_saved_is_the_same(&fixture, &engine, &archive);
    engine.stop();
}

/// Each loads what the other saved: the id stays.
fn what_both_saved_is_the_same(fixture: &Fixture, engine: &DockerEngine, archive: &Path) {
    let back = archive.with_file_name("back.tar");
    engine.docker(["save", "app:1", "-o"]).arg(&back).ok();
    let id = ["inspect", "-f", "{{.Id}}", "app:1"];
    let own = fixture.rbuild(id).ok().stdout_text();
    assert_eq!(engine.docker(id).ok().stdout_text(), own);
    let other = Fixture::new("FROM scratch\n");
    let loaded = other.rbuild(["load", "-i"]).arg(&back).ok();
    assert_eq!(loaded.stdout_text(), "Loaded image: app:1");
    assert_eq!(other.rbuild(id).ok().stdout_text(), own);
}
