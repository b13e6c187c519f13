//! The builders that are compared, each with the commands of one build and of forgetting everything.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
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
        addr: String,
        daemon: Option<u32>,
    },
}

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

    pub(super) fn buildkit(buildctl: PathBuf, addr: String, daemon: Option<u32>) -> Self {
        let version = format!("{}, daemon warm", version(&buildctl));
        Self {
            name: "BuildKit",
            version,
            kind: Kind::BuildKit {
                buildctl,
                addr,
                daemon,
            },
        }
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
            Kind::BuildKit { buildctl, addr, .. } => {
                let mut args = vec![
                    format!("--addr={addr}"),
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
    /// deleted search past every one of them (`recently_deleted`), and that is not what is measured.
    pub(super) fn forget(&self, room: &Room) -> Result<()> {
        let store = room.path().join("store");
        match &self.kind {
            Kind::Rbuild { .. } => {}
            Kind::Buildah { program } => {
                if store.symlink_metadata().is_ok() {
                    let mut command = Command::new(program);
                    command
                        .arg("--root")
                        .arg(&store)
                        .arg("--runroot")
                        .arg(room.path().join("store-run"));
                    shell::output(command.args(["rmi", "--all", "--force"]))?;
                }
            }
            Kind::BuildKit { buildctl, addr, .. } => {
                shell::output(
                    Command::new(buildctl)
                        .arg(format!("--addr={addr}"))
                        .args(["prune", "--all"]),
                )?;
            }
        }
        if store.symlink_metadata().is_ok() {
            let aside = tempfile::Builder::new().prefix("old-").tempdir_in(room.path())?;
            fs::rename(&store, aside.keep().join("store"))?;
        }
        Ok(())
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

    /// Peak memory of the daemon behind the tool, KiB.
    pub(super) fn daemon_peak_kib(&self) -> Option<u64> {
        let Kind::BuildKit {
            daemon: Some(pid), ..
        } = &self.kind
        else {
            return None;
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.split_whitespace().next()?.parse().ok()
    }
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
