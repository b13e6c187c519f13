//! `cargo xtask outside --make`: runs Makefiles, scripts and CI lines of the list `outside-made.txt`, unmodified, with rbuild in
//! the place of docker, kaniko's executor and buildctl, against a registry of this machine.
//!
//! The images that a project names are replaced by stand-ins in that registry, to which `registries.conf` leads their hosts.
//! A command has to end well and say nothing of an error; what it pushed is copied out by skopeo and checked against the
//! specification.

mod list;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rbuild_testkit::debian::DebianBase;
use rbuild_testkit::image::OciLayout;
use rbuild_testkit::peer::DockerRegistry;
use rbuild_testkit::{base, machine, validate};

use self::list::{Project, Stand};
use crate::shell;

/// What one command may take; `timeout` of coreutils ends it.
const SECONDS: &str = "600";
/// Names that rbuild is called by, besides its own.
const NAMES: [&str; 3] = ["docker", "executor", "buildctl-daemonless.sh"];

/// Runs every project, or those with `--only` in their names.
pub(super) fn run(args: &[String], mirrors: &Path) -> Result<()> {
    let rbuild = shell::flag(args, "--rbuild").context("--rbuild PATH is needed")?;
    let rbuild = fs::canonicalize(rbuild)?;
    let only = shell::flag(args, "--only").unwrap_or_default();
    let projects = list::read()?;
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for project in projects.iter().filter(|project| project.name.contains(&only)) {
        let clone = super::clone_of(mirrors, &project.name)?;
        for is_variable in [false, true] {
            if is_variable && !project.with_variable {
                continue;
            }
            let place = Place::make(&rbuild, project, &clone, is_variable)?;
            let row = place.judge(project)?;
            println!("{}", row.text);
            failed.extend(row.failure.map(|why| format!("{}: {why}", project.name)));
            rows.push(row.text);
        }
    }
    if only.is_empty() {
        write(&rows)?;
    }
    ensure!(
        failed.is_empty(),
        "{} failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
    Ok(())
}

/// A line of the table, and why it is not a good one.
struct Row {
    text: String,
    failure: Option<String>,
}

/// Where a project's commands run: its files, a home, a registry.
struct Place<'a> {
    room: tempfile::TempDir,
    registry: DockerRegistry,
    rbuild: &'a Path,
    /// Docker is not there, but a variable names rbuild.
    is_variable: bool,
}

impl<'a> Place<'a> {
    fn make(rbuild: &'a Path, project: &Project, clone: &Path, is_variable: bool) -> Result<Self> {
        let place = Self {
            room: tempfile::tempdir()?,
            registry: DockerRegistry::start()?,
            rbuild,
            is_variable,
        };
        let mut git = Command::new("git");
        git.args(["clone", "-q", "--no-checkout"])
            .arg(clone)
            .arg(place.tree());
        shell::output(&mut git)?;
        let mut git = Command::new("git");
        git.arg("-C")
            .arg(place.tree())
            .args(["checkout", "-q", "--detach", &project.commit]);
        shell::output(&mut git)?;
        for file in &project.files {
            let path = place.tree().join(file);
            fs::create_dir_all(path.parent().context("a file in a directory")?)?;
            fs::write(&path, "#!/bin/sh\necho stand-in\n")?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        fs::create_dir_all(place.bin())?;
        symlink(rbuild, place.bin().join("rbuild"))?;
        for name in NAMES.iter().filter(|name| !is_variable || **name != "docker") {
            symlink(rbuild, place.bin().join(name))?;
        }
        place.lead_hosts(project)?;
        for (image, stand) in &project.bases {
            place
                .stand_in(image, *stand)
                .with_context(|| format!("stand-in of {image}"))?;
        }
        Ok(place)
    }

    fn tree(&self) -> PathBuf {
        self.room.path().join("tree")
    }

    fn bin(&self) -> PathBuf {
        self.room.path().join("bin")
    }

    /// Every host of an image is a part of the registry that is here.
    fn lead_hosts(&self, project: &Project) -> Result<()> {
        let directory = self.room.path().join("home/.config/containers");
        fs::create_dir_all(&directory)?;
        let mut text = String::new();
        let mut hosts: Vec<&str> = project
            .bases
            .iter()
            .filter_map(|(image, _)| image.split('/').next())
            .collect();
        hosts.sort_unstable();
        hosts.dedup();
        for host in hosts {
            let location = format!("{}/{host}", self.registry.host());
            writeln!(
                text,
                "[[registry]]\nprefix = \"{host}\"\nlocation = \"{location}\"\ninsecure = true"
            )?;
        }
        Ok(fs::write(directory.join("registries.conf"), text)?)
    }

    fn stand_in(&self, image: &str, stand: Stand) -> Result<()> {
        let (layout, more) = match stand {
            Stand::Busybox => (format!("{}:busybox", base::layout()?.display()), ""),
            // Its package manager installs nothing.
            Stand::Alpine => (
                format!("{}:busybox", base::layout()?.display()),
                "RUN printf '#!/bin/sh\\n' > /sbin/apk && chmod 755 /sbin/apk\n",
            ),
            Stand::DebianSlim => {
                let base = DebianBase::Slim;
                (format!("{}:{}", base.layout()?.display(), base.name()), "")
            }
        };
        let directory = tempfile::tempdir_in(self.room.path())?;
        fs::write(
            directory.path().join("Dockerfile"),
            format!("FROM base\nLABEL stand-in=1\n{more}"),
        )?;
        let mut command = self.command(self.rbuild);
        command.args(["build", "--push"]);
        command.arg(format!("--build-context=base=oci-layout://{layout}"));
        command.arg(format!("--tag={}/{image}", self.registry.host()));
        shell::output(command.arg(directory.path()))?;
        Ok(())
    }

    /// A program with the home of the project and nothing of whoever runs this.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("HOME", self.room.path().join("home"))
            .env("RBUILD_ROOT", self.room.path().join("store"))
            .env("PATH", format!("{}:{path}", self.bin().display()))
            .env("REGISTRY", self.registry.host())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("DOCKER_CONFIG")
            .stdin(Stdio::null());
        if self.is_variable {
            command.env("DOCKER", "rbuild");
        }
        command
    }

    fn judge(&self, project: &Project) -> Result<Row> {
        let start = Instant::now();
        let mut failure = None;
        for line in &project.commands {
            failure = self.ran(line)?;
            if failure.is_some() {
                break;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let mut found = Vec::new();
        for name in &project.pushed {
            if failure.is_some() {
                break;
            }
            match self.pulled(name) {
                Ok(what) => found.push(format!("`{name}`: {what}")),
                Err(error) => failure = Some(format!("{name}: {error:#}")),
            }
        }
        let commands: Vec<String> = project
            .commands
            .iter()
            .map(|line| format!("`{}`", line.replace('|', "\\|")))
            .collect();
        let what = failure
            .as_deref()
            .map_or_else(|| found.join(", "), |why| format!("FAILS: {why}"));
        let text = format!(
            "| {} | {} | {} | {} | {seconds:.0} s | {} |",
            project.name,
            &project.commit[..7],
            commands.join("<br>"),
            if self.is_variable {
                "`DOCKER=rbuild`"
            } else {
                "`docker`"
            },
            what.replace('\n', " ")
        );
        Ok(Row { text, failure })
    }

    /// Runs a command of a project; what is wrong about how it went. Loops of shells hide how their parts ended, so an error
    /// that was told counts too.
    fn ran(&self, line: &str) -> Result<Option<String>> {
        let mut command = self.command("timeout");
        command
            .args([SECONDS, "bash", "-c", line])
            .current_dir(self.tree());
        let output = command.output().context("start a shell")?;
        let told = String::from_utf8_lossy(&output.stderr);
        let error = told
            .lines()
            .find(|line| line.starts_with("ERROR") || line.starts_with("error:"));
        if output.status.success() && error.is_none() {
            return Ok(None);
        }
        let last = told
            .lines()
            .rfind(|line| !line.trim().is_empty())
            .unwrap_or_default();
        Ok(Some(format!(
            "{line}: {}: {}",
            output.status,
            error.unwrap_or(last)
        )))
    }

    /// Copies an image out of the registry, with all its platforms, and reads every byte of it.
    fn pulled(&self, name: &str) -> Result<String> {
        let directory = tempfile::tempdir_in(self.room.path())?;
        let skopeo = machine::required("skopeo", "skopeo")?;
        let mut copy = Command::new(skopeo);
        copy.args([
            "--insecure-policy",
            "copy",
            "-q",
            "--all",
            "--src-tls-verify=false",
        ]);
        copy.arg(format!("docker://{}/{name}", self.registry.host()));
        shell::output(copy.arg(format!("oci:{}:x", directory.path().display())))?;
        let layout = OciLayout::open(directory.path())?;
        let problems = validate::problems(&layout)?;
        ensure!(problems.is_empty(), "{}", problems.join("; "));
        let images = layout.images()?;
        let layers: usize = images
            .iter()
            .map(|image| image.manifest["layers"].as_array().map_or(0, Vec::len))
            .sum();
        Ok(format!("{} image(s), {layers} layers", images.len()))
    }
}

fn write(rows: &[String]) -> Result<()> {
    shell::write_results("made", |date| {
        format!(
            "# {date}: Makefiles, scripts and CI lines of others\n\n\
         Public projects at the commits named, unmodified ([the list](../../crates/xtask/outside-made.txt)), run by\n\
         `cargo xtask outside --make --mirrors DIR --rbuild PATH`. rbuild is on `PATH` under the names `docker`, `executor` and\n\
         `buildctl-daemonless.sh`, or there is no `docker` and a variable of the Makefile names rbuild. Images of others are stand-ins in\n\
         the registry of the run, Debian's `docker-registry`: busybox, for Alpine with an `apk` that installs nothing, or Debian 12; what a\n\
         project compiles before it calls docker is a script. A command has to end with 0 and to tell of no error. The last column is what\n\
         skopeo then copied out of the registry, read to the last byte against the specification.\n\n\
         | project | commit | commands | rbuild is | time | in the registry |\n|---|---|---|---|---|---|\n{}\n",
            rows.join("\n")
        )
    })
}
