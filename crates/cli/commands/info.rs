//! `rbuild info`: what this installation is.

use std::ffi::CStr;
use std::fs;
use std::path::Path;

use rbuild_ui::text::one_line;
use rbuild_ui::units::human_size;
use serde_json::{Value, json};

use super::{CommandError, Open};
use crate::args::InfoArgs;
use crate::engine::{EngineOptions, Info};
use crate::env::Env;

/// There where control groups are of the second version.
const UNIFIED_CGROUPS: &str = "/sys/fs/cgroup/cgroup.controllers";

/// The kernel's release.
pub(super) fn kernel() -> String {
    let kernel = rustix::system::uname();
    kernel.release().to_string_lossy().into_owned()
}

/// What templates and JSON have: docker's names where docker says the same, and what scripts ask an engine for before they
/// build. There is no swarm, no network and no plugin here.
fn json(info: &Info, env: &Env) -> Value {
    let machine = rustix::system::uname();
    let root = info.root.display().to_string();
    let text = |text: &CStr| text.to_string_lossy().into_owned();
    let own = |name: &str| env.filled(name).or_else(|| env.filled(&name.to_lowercase()));
    let security: &[&str] = if info.rootless {
        &["name=seccomp,profile=builtin", "name=rootless"]
    } else {
        &["name=seccomp,profile=builtin"]
    };
    let mut all = json!({
        "ID": "",
        "Name": text(machine.nodename()),
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "DockerRootDir": root,
        "Root": root,
        "Form": info.form,
        "Rootless": info.rootless,
        "Driver": "rbuild",
        "DriverStatus": [["Form of layers", info.form]],
        "Images": info.images,
        "Containers": info.containers,
        "ContainersRunning": 0,
        "ContainersPaused": 0,
        "ContainersStopped": info.containers,
        "UsedBytes": info.used_bytes,
        "SecurityOptions": security,
        "Swarm": { "LocalNodeState": "inactive" },
        "Plugins": { "Volume": [], "Network": [], "Authorization": null, "Log": [] },
        "Runtimes": {},
        "DefaultRuntime": "",
        "Isolation": "",
        "ExperimentalBuild": false,
        "Debug": false,
        "HttpProxy": own("HTTP_PROXY").unwrap_or_default(),
        "HttpsProxy": own("HTTPS_PROXY").unwrap_or_default(),
        "NoProxy": own("NO_PROXY").unwrap_or_default(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "Labels": [],
        "Warnings": [],
        "ServerErrors": [],
        "ClientInfo": { "Debug": false, "Context": "default", "Plugins": [], "Warnings": null },
        "RegistryFiles": info.registry_files,
    });
    let machine = json!({
        "OSType": "linux",
        "OperatingSystem": operating_system(),
        // Docker has the kernel's word for it, x86_64, and not the one of platforms.
        "Architecture": text(machine.machine()),
        "KernelVersion": text(machine.release()),
        "NCPU": rbuild_sys::process::processors(),
        "MemTotal": memory_bytes(),
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": if Path::new(UNIFIED_CGROUPS).exists() { "2" } else { "1" },
    });
    if let (Value::Object(all), Value::Object(machine)) = (&mut all, machine) {
        all.extend(machine);
    }
    all
}

/// The name of this machine's distribution.
fn operating_system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("linux").trim_matches(['"', '\'']).to_owned()
}

fn memory_bytes() -> u64 {
    let machine = rustix::system::sysinfo();
    machine.totalram.saturating_mul(u64::from(machine.mem_unit))
}

/// Shows it.
pub(super) fn run(
    args: &InfoArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let template = super::template(args.format.as_deref(), &["", "json"])?;
    let info = open(options)?.info()?;
    let kernel = kernel();
    let files: Vec<String> = info
        .registry_files
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let root = info.root.display().to_string();
    if template.is_some() || args.format.as_deref() == Some("json") {
        let data = json(&info, env);
        return super::show(template.as_ref(), &data, env);
    }
    let rights = if info.rootless {
        "an ordinary user's"
    } else {
        "root's"
    };
    writeln!(env.stdout, "Version:         {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(env.stdout, "Platform:        {}", env.own_platform)?;
    writeln!(env.stdout, "Kernel:          {}", one_line(&kernel))?;
    writeln!(env.stdout, "Rights:          {rights}")?;
    writeln!(env.stdout, "Store:           {}", one_line(&root))?;
    writeln!(env.stdout, "Form of layers:  {}", one_line(&info.form))?;
    writeln!(env.stdout, "Images:          {}", info.images)?;
    writeln!(env.stdout, "Used:            {}", human_size(info.used_bytes))?;
    writeln!(
        env.stdout,
        "Registry files:  {}",
        if files.is_empty() { "none" } else { "" }
    )?;
    for file in files {
        writeln!(env.stdout, " {}", one_line(&file))?;
    }
    Ok(env.stdout.flush()?)
}
