//! What Makefiles and scripts of real projects do with `docker` besides building: each of these is a shape of commands that
//! is common in them. `benches/results` has the projects themselves.

use std::fs;
use std::os::unix::fs::symlink;

use rbuild_testkit::command::{Ran, RbuildCommand};
use rbuild_testkit::machine;
use rbuild_testkit::peer::{DockerRegistry, PASSWORD, USER};

use crate::e2e::fixture::{Fixture, RBUILD, busybox_argument};

/// A project with a Makefile, and the tool installed as docker in front of everything else.
struct Project {
    fixture: Fixture,
    path: String,
}

impl Project {
    fn new(dockerfile: &str, makefile: &str) -> Self {
        let fixture = Fixture::new(dockerfile);
        fixture.context.file("Makefile", makefile);
        let bin = fixture.home.work().join("bin");
        fs::create_dir_all(&bin).unwrap();
        symlink(RBUILD, bin.join("docker")).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        Self {
            path: format!("{}:{path}", bin.display()),
            fixture,
        }
    }

    fn make(&self, args: &[&str]) -> RbuildCommand {
        let make = machine::required("make", "make").expect("a tool of the tests");
        self.fixture
            .home
            .command(make.to_str().unwrap())
            .arg("-C")
            .arg(self.fixture.context.dir())
            .arg(format!("BASE={}", busybox_argument("busybox")))
            .args(args)
            .env("PATH", &self.path)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.fixture.context.dir().join(name)).unwrap()
    }

    fn images(&self) -> Ran {
        self.fixture.rbuild(["images", "-aq"]).ok()
    }
}

#[test]
fn artefacts_are_taken_out_of_an_image() {
    // Three ways to the same file.
    let project = Project::new(
        "FROM busybox\nWORKDIR /build\nRUN echo made > app\n",
        "\
IMAGE := builder
all: image copied piped shown
image:
\tdocker build $(BASE) --pull=false -t $(IMAGE) .
copied: image
\tdocker rm -f extract || true
\tdocker create --name extract $(IMAGE)
\tdocker cp extract:/build/app ./copied
\tdocker rm extract
\tid=$$(docker create $(IMAGE)) && docker cp $$id:/build/. out && docker rm -v $$id
piped: image
\tdocker run --rm $(IMAGE) sh -c 'cd /build && tar -c app' | tar -x -O > piped
shown: image
\tdocker run --rm -v \"$(CURDIR)\":/mnt -w /mnt -u \"$$(id -u):$$(id -g)\" $(IMAGE) cp /build/app shown
clean:
\tdocker rm $$(docker ps -aq) || true
\tdocker rmi $(IMAGE) || true
\tdocker rmi $$(docker images -f 'dangling=true' -q) || true
",
    );
    project.make(&["all"]).ok();
    for name in ["copied", "piped", "shown", "out/app"] {
        assert_eq!(project.text(name), "made\n", "{name}");
    }
    project.make(&["clean"]).ok();
    assert_eq!(project.images().stdout_text(), "");
}

#[test]
fn images_are_asked_about_and_saved() {
    let project = Project::new(
        "FROM busybox\nLABEL team=a\nCOPY Makefile /\n",
        "\
NAME := team/app
all:
\tdocker history $(NAME) >/dev/null 2>&1 || docker build $(BASE) --rm --force-rm -t $(NAME):1 -t $(NAME):latest -f Dockerfile .
\tdocker images -q $(NAME):1 > stamp
\tdocker images --filter reference='team/*' --format '{{.Repository}}:{{.Tag}}' > listed
\tdocker images -q --filter label=team=b > none
\ttest $$(docker inspect -f '{{ .Size }}' $(NAME)) -lt 100000000
\ttest -n \"$$(docker image inspect --format='{{.Id}}' $(NAME):1)\"
\tdocker image inspect absent:1 >/dev/null 2>&1 || touch absent
\tdocker save $(NAME):1 | gzip -9 > app.tgz
\tdocker version --format '{{.Server.Version}}' > version
\tdocker info --format '{{.OSType}}/{{.Architecture}}' > platform
\tdocker image prune -f
\tgunzip -c app.tgz | docker load
",
    );
    project.make(&["all"]).ok();
    assert_eq!(project.text("stamp").trim_end().len(), 12);
    assert_eq!(project.text("listed"), "team/app:1\nteam/app:latest\n");
    assert_eq!(project.text("none"), "");
    assert_eq!(
        project.text("version").trim_end(),
        env!("CARGO_PKG_VERSION"),
        "client and server are one"
    );
    assert!(project.text("platform").starts_with("linux/"));
    assert!(project.fixture.context.dir().join("absent").exists());
}

#[test]
fn builders_are_made_chosen_and_removed() {
    let project = Project::new(
        "FROM busybox\nCOPY Makefile /\n",
        "\
NAME := multi
all:
\tdocker buildx version
\tdocker buildx inspect $(NAME) >/dev/null 2>&1 || docker buildx create --name $(NAME) --node $(NAME)-0 --driver docker-container --use
\t- docker buildx create --name other
\tdocker buildx use $(NAME)
\tdocker buildx ls
\tdocker buildx inspect --bootstrap
\tdocker buildx build $(BASE) --builder $(NAME) --progress=plain --load --platform linux/amd64 -t app .
\tdocker buildx --builder $(NAME) build $(BASE) --output=type=docker,dest=app.tar .
\t- docker buildx rm $(NAME) other
",
    );
    project.make(&["all"]).ok();
    assert!(project.fixture.context.dir().join("app.tar").exists());
}

#[test]
fn lists_of_architectures_are_pushed_after_logging_in() {
    let registry = DockerRegistry::with_password().unwrap();
    let project = Project::new(
        "FROM scratch\nARG ARCH\nLABEL arch=$ARCH\nCOPY Makefile /\n",
        "\
ARCHS ?= amd64 arm64
TAG := 1
all: push-all manifest
login:
\techo $(PASSWORD) | docker login --username=$(NAME) --password-stdin $(REGISTRY)
build-%:
\tdocker build --platform linux/$* --build-arg ARCH=$* -t $(REGISTRY)/app-$*:$(TAG) .
push-%: build-% login
\tdocker push --disable-content-trust=false $(REGISTRY)/app-$*:$(TAG)
push-all: $(addprefix push-,$(ARCHS))
manifest:
\tDOCKER_CLI_EXPERIMENTAL=enabled docker manifest create -a $(REGISTRY)/app:$(TAG) $(foreach a,$(ARCHS),$(REGISTRY)/app-$(a):$(TAG))
\tfor a in $(ARCHS); do docker manifest annotate --arch $$a $(REGISTRY)/app:$(TAG) $(REGISTRY)/app-$$a:$(TAG); done
\tdocker manifest push --purge $(REGISTRY)/app:$(TAG)
\tdocker tag $(REGISTRY)/app-amd64:$(TAG) $(REGISTRY)/app-amd64:latest
\tdocker push --all-tags $(REGISTRY)/app-amd64
\tdocker logout $(REGISTRY)
",
    );
    let (host, user, password) = (
        format!("REGISTRY={}", registry.host()),
        format!("NAME={USER}"),
        format!("PASSWORD={PASSWORD}"),
    );
    project.make(&[&host, &user, &password, "all"]).ok();
    let other = Fixture::new("FROM scratch\n");
    let login = ["login", "-u", USER, "--password-stdin", &registry.host()];
    other.rbuild(login).stdin(PASSWORD).ok();
    let list = format!("{}/app:1", registry.host());
    for arch in ["amd64", "arm64"] {
        let platform = format!("linux/{arch}");
        other.rbuild(["pull", "--platform", &platform, &list]).ok();
        let asked = ["inspect", "-f", "{{index .Config.Labels \"arch\"}}", &list];
        assert_eq!(
            other
                .rbuild(asked)
                .args(["--platform", &platform])
                .ok()
                .stdout_text(),
            arch
        );
    }
    other
        .rbuild(["pull", &format!("{}/app-amd64:latest", registry.host())])
        .ok();
    other
        .rbuild(["push", "-a", "nothing"])
        .fails()
        .says("does not exist locally");
}

#[test]
fn what_needs_an_engine_says_what_there_is_instead() {
    let project = Project::new("FROM scratch\n", "");
    for (args, says) in [
        (
            &["compose", "build"][..],
            "`rbuild bake -f FILE` builds the services",
        ),
        (&["network", "create", "x"], "keeps no networks"),
        (&["volume", "rm", "-f", "x"], "keeps no networks, volumes"),
        (&["exec", "-it", "x", "sh"], "nothing runs when rbuild has ended"),
        (&["stop", "x"], "nothing runs when rbuild has ended"),
        (&["commit", "x", "y"], "an image is made by a build"),
        (&["sbom", "x", "--format", "spdx-json"], "--sbom=true"),
        (&["scout", "cves"], "a service that rbuild knows nothing of"),
    ] {
        let docker = project.fixture.home.work().join("bin/docker");
        let ran = project.fixture.home.command(docker.to_str().unwrap()).args(args);
        ran.fails()
            .says(&format!("not supported: docker {}", args[0]))
            .says(says);
    }
}

/// Lines of pipelines that are written for any machine: a context is made and used, and a builder of it.
#[test]
fn what_pipelines_do_before_they_build_is_answered_as_docker_does() {
    let project = Project::new("FROM scratch\n", "");
    let docker = project.fixture.home.work().join("bin/docker");
    let asked = |line: &str| {
        let command = project.fixture.home.command(docker.to_str().unwrap());
        command.args(line.split(' ').filter(|word| !word.is_empty()))
    };
    for (line, printed) in [
        ("context show", "default"),
        ("context use default", "default"),
        ("context create tls-environment", "tls-environment"),
        ("buildx create --use tls-environment", "default"),
        ("buildx uninstall", ""),
        ("volume prune -f", "Total reclaimed space: 0B"),
        ("network prune -f", ""),
    ] {
        assert_eq!(asked(line).ok().stdout_text(), printed, "{line}");
    }
    asked("system prune -af --volumes").ok();
    let listed = asked("context ls").ok().stdout_text();
    assert!(
        listed.lines().any(|line| line.starts_with("default *")),
        "{listed}"
    );
    for line in [
        "context use far",
        "context rm tls-environment",
        "context create default",
    ] {
        asked(line).fails().says("not supported: docker context");
    }
    // Without a command all there are are shown, and that is no failure.
    for (line, shown) in [
        ("", "Usage: docker [OPTIONS] <COMMAND>"),
        ("image", "Usage: docker image [OPTIONS] <COMMAND>"),
        ("buildx", "Usage: docker buildx [OPTIONS] <COMMAND>"),
        (
            "buildx imagetools",
            "Usage: docker buildx imagetools [OPTIONS] <COMMAND>",
        ),
        ("manifest", "Usage: docker manifest [OPTIONS] <COMMAND>"),
    ] {
        let help = asked(line).ok().stdout_text();
        assert!(
            help.contains(shown) && !help.contains("checkpoint"),
            "{line}: {help}"
        );
    }
}
