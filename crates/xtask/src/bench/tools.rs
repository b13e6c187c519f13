//! The builders that are compared, each with the commands of one build and of forgetting everything.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use rbuild_testkit::machine;

use super::cases::{Case, Compression};
use super::contexts::Room;
use crate::shell;

mod daemon;

use daemon::{Daemon, address};

/// A builder.
#[derive(Debug)]
pub(super) struct Tool {
    /// Short name.
    pub(super) name: &'static str,
    /// What it says about itself.
    pub(super) version: String,
    /// What is called.
    program: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Rbuild,
    Buildah,
    BuildKit(Daemon),
    /// The engine's own builder: its BuildKit needs a part of the client that not every client has.
    Docker(Daemon),
}

impl Tool {
    pub(super) fn rbuild(program: PathBuf) -> Self {
        let version = version(&program);
        Self::new("rbuild", version, program, Kind::Rbuild)
    }

    pub(super) fn buildah(program: PathBuf) -> Self {
        let version = version(&program);
        Self::new("buildah", version, program, Kind::Buildah)
    }

    pub(super) fn buildkit(buildctl: PathBuf, buildkitd: PathBuf) -> Self {
        let version = format!("{}, daemon warm", version(&buildkitd));
        let daemon = Daemon::new(buildkitd, |room| {
            vec![
                format!("--addr={}", address(room)),
                format!("--root={}", room.path().join("store").display()),
                "--oci-worker=true".into(),
                "--oci-worker-snapshotter=overlayfs".into(),
                "--oci-worker-gc=false".into(),
                "--containerd-worker=false".into(),
            ]
        });
        Self::new("BuildKit", version, buildctl, Kind::BuildKit(daemon))
    }

    /// An engine of its own, not the machine's.
    pub(super) fn docker(docker: PathBuf, dockerd: PathBuf) -> Self {
        let version = format!("{}, its own builder, daemon warm", version(&dockerd));
        let daemon = Daemon::new(dockerd, |room| {
            let at = |name: &str| room.path().join(name).display().to_string();
            vec![
                format!("--host={}", address(room)),
                format!("--data-root={}", at("store")),
                format!("--exec-root={}", at("exec")),
                format!("--pidfile={}", at("dockerd.pid")),
                "--iptables=false".into(),
                "--ip6tables=false".into(),
                "--bridge=none".into(),
            ]
        });
        Self::new("dockerd", version, docker, Kind::Docker(daemon))
    }

    fn new(name: &'static str, version: String, program: PathBuf, kind: Kind) -> Self {
        Self {
            name,
            version,
            program,
            kind,
        }
    }

    fn daemon(&self) -> Option<&Daemon> {
        match &self.kind {
            Kind::BuildKit(daemon) | Kind::Docker(daemon) => Some(daemon),
            Kind::Rbuild | Kind::Buildah => None,
        }
    }

    /// Whether the tool can do what a case asks: `docker save` knows no compression, the engine's own builder no secrets.
    pub(super) fn can(&self, case: &Case) -> bool {
        !matches!(self.kind, Kind::Docker(_)) || (case.compression.is_none() && !case.secret)
    }

    /// Makes ready to build in a room.
    pub(super) fn start(&self, room: &Room) -> Result<()> {
        self.daemon().map_or(Ok(()), |daemon| daemon.start(room))
    }

    /// Ends what [`Self::start`] began.
    pub(super) fn stop(&self) -> Result<()> {
        self.daemon().map_or(Ok(()), Daemon::stop)
    }

    /// The commands of one build, from a context to an OCI archive.
    pub(super) fn commands(&self, room: &Room, case: &Case, context: usize) -> Vec<Vec<OsString>> {
        let out = room
            .path()
            .join(format!("out{context}.tar"))
            .display()
            .to_string();
        let context = room.context(context).display().to_string();
        let store = room.path().join("store").display().to_string();
        let output = output(&out, case.compression);
        let secret = case.secret.then(|| format!("--secret=id=key,src={context}/key"));
        let words = |args: Vec<String>| {
            std::iter::once(self.program.clone().into_os_string())
                .chain(args.into_iter().map(OsString::from))
                .collect()
        };
        let name = format!("bench{}", context.rsplit('t').next().unwrap_or_default());
        match &self.kind {
            Kind::Rbuild => {
                let mut args = vec![
                    "build".into(),
                    format!("--root={store}"),
                    "--progress=quiet".into(),
                    format!("--output={output}"),
                ];
                args.extend(secret);
                args.push(context);
                vec![words(args)]
            }
            Kind::Buildah => {
                let places = || {
                    vec![
                        "--root".into(),
                        store.clone(),
                        "--runroot".into(),
                        format!("{store}-run"),
                    ]
                };
                let build = [
                    "build",
                    "--layers",
                    "--quiet",
                    "--tls-verify=false",
                    "--isolation=oci",
                ];
                let mut first = places();
                first.extend(build.map(String::from));
                // crun refuses machines that have both cgroup versions mounted; runc takes either.
                first.extend(machine::program("runc").map(|runc| format!("--runtime={}", runc.display())));
                first.extend(secret);
                first.extend(["-t".into(), name.clone(), context]);
                let mut second = places();
                second.extend(["push", "--quiet"].map(String::from));
                second.extend(case.compression.map(|compression| match compression {
                    Compression::None => "--disable-compression".into(),
                    Compression::Gzip => "--compression-format=gzip".into(),
                    Compression::Zstd => "--compression-format=zstd".into(),
                }));
                second.push(name);
                second.push(format!("oci-archive:{out}"));
                vec![words(first), words(second)]
            }
            Kind::BuildKit(_) => {
                let mut args = vec![
                    format!("--addr={}", address(room)),
                    "build".into(),
                    "--progress=quiet".into(),
                    "--frontend=dockerfile.v0".into(),
                    format!("--local=context={context}"),
                    format!("--local=dockerfile={context}"),
                    format!("--output={output}"),
                ];
                args.extend(secret);
                vec![words(args)]
            }
            Kind::Docker(_) => {
                let host = || vec![format!("--host={}", address(room))];
                let mut build = host();
                // Steps need no network; the engine's has none to give.
                build.extend(["build", "--quiet", "--network=none"].map(String::from));
                build.extend(["-t".into(), name.clone(), context]);
                let mut save = host();
                save.extend(["save".into(), format!("--output={out}"), name]);
                let mut build: Vec<OsString> = words(build);
                build.splice(0..0, ["env".into(), "DOCKER_BUILDKIT=0".into()]);
                vec![build, words(save)]
            }
        }
    }

    /// Drops the tool's whole cache. Its files are only put aside: ext4 makes whoever creates files just after many were
    /// deleted search past every one of them (`recently_deleted`), and that is not what is measured. A daemon begins
    /// anew.
    pub(super) fn forget(&self, room: &Room) -> Result<()> {
        self.stop()?;
        let store = room.path().join("store");
        if store.symlink_metadata().is_ok() {
            unmount_below(&store)?;
            let aside = tempfile::Builder::new().prefix("old-").tempdir_in(room.path())?;
            fs::rename(&store, aside.keep().join("store"))?;
        }
        self.start(room)
    }

    /// The commands as written in reports.
    pub(super) fn shown(&self) -> &'static str {
        match &self.kind {
            Kind::Rbuild => "rbuild build --root=STORE --progress=quiet --output=type=oci,dest=OUT CONTEXT",
            Kind::Buildah => {
                "buildah build --layers --quiet --isolation=oci --runtime=runc -t bench CONTEXT && buildah push bench oci-archive:OUT"
            }
            Kind::BuildKit(_) => {
                "buildctl build --frontend=dockerfile.v0 --local=context=… --output=type=oci,dest=OUT"
            }
            Kind::Docker(_) => {
                "DOCKER_BUILDKIT=0 docker build --quiet --network=none -t bench CONTEXT && docker save --output=OUT bench"
            }
        }
    }

    /// Peak memory of the daemons behind the tool, KiB.
    pub(super) fn daemon_peak_kib(&self) -> Option<u64> {
        self.daemon().map(Daemon::peak_kib)
    }
}

/// Unmounts what a tool has left mounted below its store: buildah the directory of its layers.
fn unmount_below(dir: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut below: Vec<&str> = points.filter(|point| Path::new(point).starts_with(dir)).collect();
    below.reverse();
    for point in below {
        shell::output(Command::new("umount").arg(point))?;
    }
    Ok(())
}

/// The value of `--output`, as rbuild and buildctl write it.
fn output(out: &str, compression: Option<Compression>) -> String {
    let compression = match compression {
        None => "",
        Some(Compression::None) => ",compression=uncompressed,force-compression=true",
        Some(Compression::Gzip) => ",compression=gzip,force-compression=true",
        Some(Compression::Zstd) => ",compression=zstd,force-compression=true",
    };
    format!("type=oci,dest={out}{compression}")
}

fn version(program: &PathBuf) -> String {
    shell::output(Command::new(program).arg("--version"))
        .map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}
