//! Lines that people type and Makefiles and scripts have, with `docker` being this program: each ends as docker's does, or with a
//! sentence that says what to do. Shell and all, since what is printed is what the next command gets.

use std::fs;
use std::os::unix::fs::symlink;

use rbuild_testkit::peer::DockerRegistry;

use crate::e2e::fixture::{Fixture, RBUILD, busybox_argument};

/// A line, its code, and what it prints: on standard output as a whole, of standard error a part. `@` is the short id of the
/// image `app:1`, `REGISTRY` an open registry, `CONTEXT` what the image was built from, with `BASE`.
type Line = (&'static str, i32, &'static str, &'static str);

const LINES: &[Line] = &[
    ("docker run --rm $(docker build -q BASE CONTEXT)", 0, "hi", ""),
    (
        "tar c -C CONTEXT . | docker build -q BASE - | cut -c8-19",
        0,
        "@",
        "",
    ),
    (
        "docker build -q BASE --iidfile id CONTEXT >/dev/null && cut -c8-19 id",
        0,
        "@",
        "",
    ),
    ("docker images -q app:1", 0, "@", ""),
    ("docker images -q absent", 0, "", ""),
    (
        "test -z \"$(docker images -q absent)\" && echo build",
        0,
        "build",
        "",
    ),
    (
        "docker images --format '{{.Repository}}:{{.Tag}}' | grep ^app",
        0,
        "app:1\napp:2",
        "",
    ),
    (
        "docker inspect --format '{{index .Config.Labels \"a\"}}' app:1",
        0,
        "b",
        "",
    ),
    (
        "docker image inspect app:1 >/dev/null 2>&1 && echo there",
        0,
        "there",
        "",
    ),
    (
        "docker image inspect absent >/dev/null 2>&1 || echo absent",
        0,
        "absent",
        "",
    ),
    (
        "docker inspect -s --type image -f '{{.Os}}' app:1",
        0,
        "linux",
        "",
    ),
    (
        "docker image inspect -f '{{index .RepoDigests 0}}' app:1 | cut -d@ -f1",
        0,
        "app",
        "",
    ),
    ("docker history -q app:1 | head -1", 0, "@", ""),
    (
        "docker ps",
        0,
        "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES",
        "",
    ),
    ("docker ps -aq", 0, "", ""),
    ("docker ps -lq", 0, "", ""),
    (
        "docker create --name box app:1 >/dev/null; docker ps -l --format '{{.Names}} {{.Status}}'",
        0,
        "box Created",
        "",
    ),
    (
        "docker create --name newer app:2 >/dev/null; docker ps -n 1 --format '{{.Names}}'",
        0,
        "newer",
        "",
    ),
    (
        "docker ps -n 5 -s --format '{{.Names}} {{.Size}}'",
        0,
        "newer 0B\nbox 0B",
        "",
    ),
    (
        "docker ps -a -f ancestor=app:1 -f name=box --format '{{.Image}}'",
        0,
        "app:1",
        "",
    ),
    ("docker cp box:/out.txt - | tar xO", 0, "hi", ""),
    ("docker cp -q box:/out.txt out.txt && cat out.txt", 0, "hi", ""),
    ("docker export box | tar t | grep ^out", 0, "out.txt", ""),
    ("docker rm -fv box", 0, "box", ""),
    ("docker rm -f $(docker ps -aqf name=newer) | wc -c", 0, "13", ""),
    ("docker rm -f box", 0, "", ""),
    ("docker rm box", 1, "", "no such container: box"),
    (
        "docker rm -f $(docker ps -aq)",
        1,
        "",
        "required arguments were not provided",
    ),
    ("docker run --rm app:1", 0, "hi", ""),
    (
        "docker run --rm -v $PWD:/w -w /w -u $(id -u) -e A=b app:1 sh -c 'pwd; echo $A; cat out.txt'",
        0,
        "/w\nb\nhi",
        "",
    ),
    ("docker run --rm -i app:1 cat < out.txt", 0, "hi", ""),
    ("docker run --rm --entrypoint cat app:1 /out.txt", 0, "hi", ""),
    ("docker run --rm app:1 sh -c 'exit 42'", 42, "", ""),
    (
        "docker run -d app:1",
        125,
        "",
        "nothing runs when rbuild has ended",
    ),
    (
        "docker run --rm -p 80:80 app:1",
        125,
        "",
        "not supported: --publish",
    ),
    (
        "docker run --rm --privileged app:1",
        125,
        "",
        "not supported: --privileged",
    ),
    (
        "docker exec -it box sh",
        1,
        "",
        "not supported: docker exec: nothing runs when rbuild has ended",
    ),
    ("docker logs -f box", 1, "", "not supported: docker logs"),
    (
        "docker save app:1 | gzip > app.tgz && docker load < app.tgz",
        0,
        "Loaded image: app:1",
        "",
    ),
    (
        "docker load -q -i app.tgz | sed 's/Loaded image: //'",
        0,
        "app:1",
        "",
    ),
    (
        "docker tag app:1 REGISTRY/app:1 && docker push -q REGISTRY/app:1",
        0,
        "REGISTRY/app:1",
        "",
    ),
    (
        "docker push -aq REGISTRY/app >/dev/null && echo pushed",
        0,
        "pushed",
        "",
    ),
    ("docker pull -q REGISTRY/app:1", 0, "REGISTRY/app:1", ""),
    (
        "docker pull -a REGISTRY/app",
        1,
        "",
        "not supported: --all-tags: registries are not asked for the tags they have",
    ),
    (
        "docker manifest create --amend --insecure REGISTRY/app:all REGISTRY/app:1",
        0,
        "Created manifest list REGISTRY/app:all",
        "",
    ),
    (
        "docker login -u ann --password-stdin REGISTRY < out.txt",
        0,
        "Login Succeeded",
        "",
    ),
    (
        "docker compose build",
        1,
        "",
        "`rbuild bake -f FILE` builds the services of a compose file",
    ),
    ("docker buildx create --use", 0, "default", ""),
    (
        "docker buildx ls | head -1",
        0,
        "NAME/NODE   DRIVER/ENDPOINT   STATUS    PLATFORMS",
        "",
    ),
    ("docker context ls -q", 0, "default", ""),
    ("docker info -f '{{.OSType}}'", 0, "linux", ""),
    ("docker version --format '{{.Server.Os}}'", 0, "linux", ""),
    (
        "docker system df --format '{{.Type}} {{.TotalCount}} {{.Active}}' | head -3",
        0,
        "Images 1 0\nContainers 0 0\nLocal Volumes 0 0",
        "",
    ),
    (
        "docker system df | head -1",
        0,
        "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE",
        "",
    ),
    (
        "docker system df -v | grep -c ^ID: >/dev/null && echo records",
        0,
        "records",
        "",
    ),
    (
        "docker system df --format '{{.Nope}}'",
        1,
        "",
        "can't evaluate field Nope",
    ),
    ("docker images -f dangling=true -q", 0, "", ""),
    ("docker image prune -f", 0, "Total reclaimed space: 0B", ""),
    (
        "docker rmi $(docker images -f dangling=true -q)",
        1,
        "",
        "required arguments were not provided",
    ),
    ("docker rmi absent", 1, "", "No such image: absent"),
    ("docker rmi -f absent", 0, "", "No such image: absent"),
    ("docker container prune -f", 0, "Total reclaimed space: 0B", ""),
];

struct Place {
    fixture: Fixture,
    path: String,
}

impl Place {
    fn new() -> Self {
        let fixture =
            Fixture::new("FROM busybox\nLABEL a=b\nRUN echo hi > /out.txt\nCMD [\"cat\", \"/out.txt\"]\n");
        let bin = fixture.home.work().join("bin");
        fs::create_dir_all(&bin).unwrap();
        symlink(RBUILD, bin.join("docker")).unwrap();
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display());
        Self { fixture, path }
    }

    fn sh(&self, line: &str) -> rbuild_testkit::command::RbuildCommand {
        let command = self.fixture.home.command("/bin/sh").args(["-c", line]);
        let dir = self.fixture.home.work();
        command.env("PATH", &self.path).current_dir(dir)
    }

    fn build(&self, tags: &str) {
        let base = busybox_argument("busybox");
        let dir = self.fixture.context.dir().display();
        self.sh(&format!("docker build -q {base} {tags} {dir}")).ok();
    }
}

#[test]
fn lines_of_scripts_end_as_with_docker() {
    let place = Place::new();
    place.build("-t app:1 -t app:2");
    let registry = DockerRegistry::start().unwrap();
    let id = place.sh("docker images -q app:1").ok().stdout_text();
    let context = place.fixture.context.dir().display().to_string();
    let base = busybox_argument("busybox");
    for (line, code, prints, says) in LINES {
        let line = line.replace("REGISTRY", &registry.host());
        let line = line.replace("CONTEXT", &context).replace("BASE", &base);
        let ran = place.sh(&line).run();
        let expected = prints.replace('@', &id).replace("REGISTRY", &registry.host());
        assert_eq!(ran.stdout_text(), expected, "{line}\n{ran}");
        assert_eq!(ran.status.code(), Some(*code), "{line}\n{ran}");
        assert!(ran.stderr.contains(says), "{line}: {says}\n{ran}");
    }
}

/// What docker forgets is forgotten, what it keeps is kept, and the build cache is the builder's.
#[test]
fn pruning_images_leaves_the_build_cache_and_what_has_a_name() {
    let place = Place::new();
    place.build("-t app:1");
    place
        .fixture
        .context
        .dockerfile("FROM busybox\nRUN echo lost > /lost\n");
    place.build("");
    place.fixture.context.dockerfile("FROM scratch\nLABEL c=d\n");
    place.build("-t box:1");
    place.sh("docker create --name holds box:1").ok();
    let names = || {
        place
            .sh("docker images --format '{{.Repository}}:{{.Tag}}' | sort")
            .ok()
            .stdout_text()
    };
    let cached = || {
        let asked = "docker buildx du --format json | grep -c '\"Reclaimable\":true'";
        place.sh(asked).ok().stdout_text().trim().parse::<u32>().unwrap()
    };
    let before = cached();
    assert!(before > 0);
    let asked = place.sh("docker image prune").stdin("n\n").ok();
    assert!(
        asked
            .stdout_text()
            .contains("This will remove all dangling images"),
        "{asked}"
    );
    let unlabelled = place.sh("docker image prune -f --filter label=none=x").ok();
    assert_eq!(unlabelled.stdout_text(), "Total reclaimed space: 0B");
    assert_eq!(
        place
            .sh("docker images -aqf dangling=true | wc -l")
            .ok()
            .stdout_text(),
        "1"
    );
    place.sh("docker image prune -f").ok();
    assert_eq!(
        place.sh("docker images -aqf dangling=true").ok().stdout_text(),
        ""
    );
    assert_eq!(names(), "app:1\nbox:1");
    assert_eq!(cached(), before, "the build cache is nobody's image");

    let ran = place.sh("docker image prune -af").ok();
    assert!(
        ran.stdout_text()
            .starts_with("Deleted Images:\nuntagged: app:1\ndeleted: sha256:"),
        "{ran}"
    );
    assert!(
        ran.stdout_text().ends_with("\n\nTotal reclaimed space: 0B"),
        "{ran}"
    );
    assert_eq!(names(), "box:1", "a container is of it");
    assert_eq!(cached(), before);

    let ran = place.sh("docker system prune -af --volumes").ok();
    let printed = ran.stdout_text();
    for part in [
        "Deleted Containers:\n",
        "untagged: box:1\n",
        "Deleted build cache objects:\n",
    ] {
        assert!(printed.contains(part), "{part}: {ran}");
    }
    assert!(
        printed
            .lines()
            .last()
            .unwrap()
            .starts_with("Total reclaimed space: "),
        "{ran}"
    );
    assert_eq!(names(), "");
    let again = place.sh("docker system prune -f").ok();
    assert_eq!(again.stdout_text(), "Total reclaimed space: 0B");
}
