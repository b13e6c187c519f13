//! rbuild in a step of rbuild, on each rung in a step of each rung: the same image as outside, or the words that say why not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rbuild_testkit::machine;

use super::{BUILT, EPOCH, build, config};
use crate::e2e::RBUILD;
use crate::e2e::fixture::Fixture;
use crate::e2e::hostile::canary::{Rung, Site};
#[cfg(target_arch = "x86_64")]
use crate::e2e::{hostile::narrow::FLAGS, rows::compiled};

/// The program with its libraries, base images and contexts, as a directory that a step can be shown.
fn program(fixture: &Fixture) -> Option<PathBuf> {
    let dir = fixture.home.work().join("program");
    fs::create_dir_all(dir.join("libraries")).unwrap();
    let Some(strip) = machine::program("strip") else {
        machine::skip("strip is not here, and the program of the tests is large");
        return None;
    };
    let stripped = Command::new(strip)
        .arg("-o")
        .arg(dir.join("rbuild"))
        .arg(RBUILD)
        .status();
    assert!(stripped.is_ok_and(|status| status.success()));
    let listed = Command::new("ldd").arg(RBUILD).output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    for path in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let path = Path::new(path);
        fs::copy(path, dir.join("libraries").join(path.file_name().unwrap())).unwrap();
    }
    let bases = rbuild_testkit::base::layout().unwrap();
    let copied = Command::new("cp")
        .arg("-a")
        .arg(bases)
        .arg(dir.join("bases"))
        .status();
    assert!(copied.is_ok_and(|status| status.success()));
    for (name, dockerfile) in [
        ("context", BUILT),
        ("no-run", "FROM busybox\nCOPY Dockerfile /f\nWORKDIR /w\n"),
    ] {
        fs::create_dir(dir.join(name)).unwrap();
        fs::write(dir.join(name).join("Dockerfile"), dockerfile).unwrap();
    }
    Some(dir)
}

/// A step that runs `commands`, with the program in `/p` and memory in `/memory`, and what they said in `/said`.
fn step(security: &str, commands: &[String]) -> String {
    format!(
        "FROM busybox
COPY --from=program /libraries /lib64/
COPY --from=program /libraries /lib/x86_64-linux-gnu/
RUN --security={security} --mount=from=program,target=/p --mount=type=tmpfs,target=/memory mkdir -p /said && {}
",
        commands.join(" && ")
    )
}

/// What builds `context` in there into `/said/NAME.tar`, and ends well whatever becomes of it: `/said/NAME` has what was said, and at
/// its end how it ended.
fn inner(name: &str, context: &str, store: &str, rung: Option<&str>) -> String {
    let rung = rung.map(|rung| format!("--rung={rung}")).unwrap_or_default();
    format!(
        "(/p/rbuild {rung} --root {store} build --progress=plain {EPOCH} --build-context=busybox=oci-layout:///p/bases:busybox \
         --output=type=oci,rewrite-timestamp=true,dest=/said/{name}.tar /p/{context} >/said/{name} 2>&1; echo ended with $? >>/said/{name})"
    )
}

/// The builds of a step, by the names that [`inner`] gave them.
struct Said(PathBuf);

impl Said {
    /// Builds the site's Dockerfile with `program`, as files.
    #[track_caller]
    fn of(site: &Site, program: &Path) -> Self {
        let tree = site.fixture.home.work().join("tree");
        site.fixture
            .build()
            .args(site.rung().argument())
            .arg("--allow=security.insecure")
            .arg(format!("--build-context=program={}", program.display()))
            .arg(format!("--output=type=local,dest={}", tree.display()))
            .ok();
        Self(tree.join("said"))
    }

    #[track_caller]
    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }

    /// It was built there, on `rung` with `snapshotter`, and is what was built outside.
    #[track_caller]
    fn assert_same(&self, name: &str, expected: &serde_json::Value, (rung, snapshotter): (&str, &str)) {
        let text = self.text(name);
        assert!(text.ends_with("ended with 0\n"), "{name}: {text}");
        let first = text.lines().next().unwrap_or_default();
        assert!(
            first.contains(&format!("building on rung {rung}"))
                && first.contains(&format!("snapshotter {snapshotter}")),
            "{name}: {first}"
        );
        assert_eq!(&config(&self.0.join(format!("{name}.tar"))), expected, "{name}");
    }

    #[track_caller]
    fn assert_refused(&self, name: &str, because: &str) {
        let text = self.text(name);
        assert!(
            text.contains(because) && !text.ends_with("ended with 0\n"),
            "{name}: {text}"
        );
    }
}

/// What the contexts are when they are built outside.
fn outside(site: &Site, program: &Path) -> [serde_json::Value; 2] {
    ["context", "no-run"].map(|name| {
        let archive = site.fixture.home.work().join("outside.tar");
        let args = build(&program.join(name), &archive);
        site.fixture.rbuild(site.rung().argument()).args(args).ok();
        config(&archive)
    })
}

#[test]
fn privileged_insecure_steps_of_each_rung_build_on_the_rungs_that_are_left_there() {
    for outer in Rung::with_mounts() {
        let commands = [
            inner("memory", "context", "/memory/a", None),
            inner("overlay", "context", "/own", None),
            inner("one-id", "context", "/memory/b", Some("one-id")),
            inner("chroot", "context", "/memory/c", Some("chroot")),
            inner("subids", "context", "/memory/d", Some("subids")),
        ];
        let site = Site::on(outer, &step("insecure", &commands));
        let Some(program) = program(&site.fixture) else {
            return;
        };
        let [expected, _] = outside(&site, &program);
        let said = Said::of(&site, &program);
        said.assert_same("memory", &expected, ("1 (root)", "overlayfs"));
        // The store lies on the overlay that is the step's root.
        said.assert_same("overlay", &expected, ("1 (root)", "native"));
        said.assert_refused("subids", "/etc/subuid gives user root no range of ids");
        let one_id = ("3 (one-id)", "overlayfs");
        match outer {
            // A listener is in force there already, and devices are recorded by it.
            Rung::OneId => {
                said.assert_refused("one-id", "a seccomp listener is in force here already");
                said.assert_refused(
                    "chroot",
                    "read device \"/dev/zero\": it is recorded and not there",
                );
            }
            Rung::Subids => {
                said.assert_same("one-id", &expected, one_id);
                said.assert_refused("chroot", "make device \"/dev/null\": root makes none here");
            }
            _ => {
                said.assert_same("one-id", &expected, one_id);
                said.assert_same("chroot", &expected, ("4 (chroot)", "native"));
            }
        }
    }
}

#[test]
fn privileged_secure_steps_of_each_rung_build_what_needs_no_step_and_say_what_runs_one() {
    for outer in Rung::here() {
        let commands = [
            inner("run", "context", "/store", None),
            inner("no-run", "no-run", "/store", None),
            "(/p/rbuild --root /store doctor >/said/doctor 2>&1; true)".to_owned(),
        ];
        let site = Site::on(outer, &step("sandbox", &commands));
        let Some(program) = program(&site.fixture) else {
            return;
        };
        let [_, expected] = outside(&site, &program);
        let said = Said::of(&site, &program);
        if outer == Rung::Chroot {
            for name in ["run", "no-run"] {
                assert!(
                    said.text(name).contains("there is no /proc here"),
                    "{}",
                    said.text(name)
                );
            }
            continue;
        }
        assert_eq!(
            said.text("no-run").lines().last(),
            Some("ended with 0"),
            "{outer:?}: {}",
            said.text("no-run")
        );
        assert_eq!(config(&said.0.join("no-run.tar")), expected, "{outer:?}");
        said.assert_refused(
            "run",
            "in a step of rbuild or BuildKit, --security=insecure helps",
        );
        assert!(
            said.text("doctor").contains("RUN --security=insecure"),
            "{outer:?}: {}",
            said.text("doctor")
        );
    }
}

/// Below a listener there is no second one: sockets that cannot be judged are refused there.
#[cfg(target_arch = "x86_64")]
#[test]
fn privileged_row28_below_a_listener_sockets_behind_a_pointer_are_refused() {
    for outer in [Rung::Root, Rung::OneId] {
        if !Rung::with_mounts().contains(&outer) {
            continue;
        }
        let commands = [inner("narrow", "narrow", "/memory/a", Some("root"))];
        let site = Site::on(outer, &step("insecure", &commands));
        let (Some(program), Some(narrow)) = (
            program(&site.fixture),
            compiled(&site.fixture, "narrow.c", "narrow", &FLAGS),
        ) else {
            return;
        };
        let context = program.join("narrow");
        fs::create_dir(&context).unwrap();
        fs::copy(narrow, context.join("narrow")).unwrap();
        fs::write(
            context.join("Dockerfile"),
            "FROM busybox\nCOPY narrow /bin/\nRUN narrow\n",
        )
        .unwrap();
        let text = Said::of(&site, &program).text("narrow");
        let said = |line| text.lines().any(|told| told.ends_with(line));
        assert!(text.ends_with("ended with 0\n"), "{outer:?}: {text}");
        assert!(said("kernel's ciphers: error 001"), "{outer:?}: {text}");
        let network = if outer == Rung::OneId {
            "network: error 001"
        } else {
            "network: DONE"
        };
        assert!(said(network), "{outer:?}: {text}");
    }
}
