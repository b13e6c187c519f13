//! The builders that are compared, each with the commands of one build and of forgetting everything.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rbuild_testkit::machine;

use super::cases::{Case, Compression};
use super::contexts::Room;
use crate::shell;

/// A builder.
#[derive(Debug)]
pub(super) struct Tool {
    /// Short name.
    pub(super) name: &'static str,
    /// What it says about itself.
    pub(super) version: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Rbuild {
        program: PathBuf,
    },
    Buildah {
        program: PathBuf,
    },
    BuildKit {
        buildctl: PathBuf,
        buildkitd: PathBuf,
        /// The daemon of the room that is measured in.
        daemon: RefCell<Option<Child>>,
        /// The daemons' largest peak memory, KiB.
        peak_kib: Cell<u64>,
    },
}

/// Longest time a daemon may take to listen, or to end.
const DAEMON_TIME: Duration = Duration::from_secs(20);

impl Tool {
    pub(super) fn rbuild(program: PathBuf) -> Self {
        let version = version(&program);
        Self {
            name: "rbuild",
            version,
            kind: Kind::Rbuild { program },
        }
    }

    pub(super) fn buildah(program: PathBuf) -> Self {
        let version = version(&program);
        Self {
            name: "buildah",
            version,
            kind: Kind::Buildah { program },
        }
    }

    pub(super) fn buildkit(buildctl: PathBuf, buildkitd: PathBuf) -> Self {
        let version = format!("{}, daemon warm", version(&buildkitd));
        Self {
            name: "BuildKit",
            version,
            kind: Kind::BuildKit {
                buildctl,
                buildkitd,
                daemon: RefCell::new(None),
                peak_kib: Cell::new(0),
            },
        }
    }

    /// Makes ready to build in a room.
    pub(super) fn start(&self, room: &Room) -> Result<()> {
        let Kind::BuildKit {
            buildkitd, daemon, ..
        } = &self.kind
        else {
            return Ok(());
        };
        self.stop()?;
        if socket(room).exists() {
            fs::remove_file(socket(room))?;
        }
        let log = fs::File::create(room.path().join("buildkitd.log"))?;
        let child = Command::new(buildkitd)
            .arg(format!("--addr={}", address(room)))
            .arg(format!("--root={}", room.path().join("store").display()))
            .args([
                "--oci-worker=true",
                "--oci-worker-snapshotter=overlayfs",
                "--oci-worker-gc=false",
                "--containerd-worker=false",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", buildkitd.display()))?;
        *daemon.borrow_mut() = Some(child);
        wait_until("buildkitd listens", || Ok(socket(room).exists()))
    }

    /// Ends what [`Self::start`] began.
    pub(super) fn stop(&self) -> Result<()> {
        let Kind::BuildKit { daemon, peak_kib, .. } = &self.kind else {
            return Ok(());
        };
        let Some(mut child) = daemon.borrow_mut().take() else {
            return Ok(());
        };
        peak_kib.set(peak_kib.get().max(peak_of(child.id()).unwrap_or(0)));
        shell::output(Command::new("kill").arg(child.id().to_string()))?;
        wait_until("buildkitd ends", || Ok(child.try_wait()?.is_some()))
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
        let words = |program: &PathBuf, args: Vec<String>| {
            std::iter::once(program.clone().into_os_string())
                .chain(args.into_iter().map(OsString::from))
                .collect()
        };
        match &self.kind {
            Kind::Rbuild { program } => {
                let mut args = vec![
                    "build".into(),
                    format!("--root={store}"),
                    "--progress=quiet".into(),
                    format!("--output={output}"),
                ];
                args.extend(secret);
                args.push(context);
                vec![words(program, args)]
            }
            Kind::Buildah { program } => {
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
                let name = format!("bench{}", context.rsplit('t').next().unwrap_or_default());
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
                vec![words(program, first), words(program, second)]
            }
            Kind::BuildKit { buildctl, .. } => {
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
                vec![words(buildctl, args)]
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
    pub(super) fn shown(&self) -> String {
        match &self.kind {
            Kind::Rbuild { .. } => "rbuild build --root=STORE --progress=quiet --output=type=oci,dest=OUT CONTEXT".into(),
            Kind::Buildah { .. } => {
                "buildah build --layers --quiet --isolation=oci --runtime=runc -t bench CONTEXT && buildah push bench oci-archive:OUT".into()
            }
            Kind::BuildKit { .. } => {
                "buildctl build --frontend=dockerfile.v0 --local=context=… --output=type=oci,dest=OUT".into()
            }
        }
    }

    /// Peak memory of the daemons behind the tool, KiB.
    pub(super) fn daemon_peak_kib(&self) -> Option<u64> {
        match &self.kind {
            Kind::BuildKit { peak_kib, .. } => Some(peak_kib.get()),
            Kind::Rbuild { .. } | Kind::Buildah { .. } => None,
        }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{}: {error:#}", self.name);
        }
    }
}

fn socket(room: &Room) -> PathBuf {
    room.path().join("buildkitd.sock")
}

fn address(room: &Room) -> String {
    format!("unix://{}", socket(room).display())
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !is_so()? {
        ensure!(
            start.elapsed() < DAEMON_TIME,
            "{what}: not within {DAEMON_TIME:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Largest resident set of a process so far, KiB.
fn peak_of(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
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
