//! `rbuild version`.

use serde_json::json;

use super::CommandError;
use crate::args::VersionArgs;
use crate::env::Env;

/// Shows the version and the machine. Scripts ask docker's client for its server's version: both are this program.
pub(super) fn run(args: &VersionArgs, env: &mut Env) -> Result<(), CommandError> {
    let template = super::template(args.format.as_deref(), &["", "json"])?;
    let version = env!("CARGO_PKG_VERSION");
    if template.is_none() && args.format.as_deref() != Some("json") {
        writeln!(env.stdout, "rbuild {version} {}", env.own_platform)?;
        return Ok(env.stdout.flush()?);
    }
    let (os, arch) = env.own_platform.split_once('/').unwrap_or_default();
    // There is no engine whose API could have a version, and no commit that a release would be known by.
    let side = json!({
        "Platform": { "Name": "rbuild" },
        "Name": "rbuild",
        "Version": version,
        "ApiVersion": "",
        "APIVersion": "",
        "DefaultAPIVersion": "",
        "MinAPIVersion": "",
        "GitCommit": "",
        "GoVersion": "",
        "Os": os,
        "Arch": arch,
        "BuildTime": "",
        "Context": "default",
        "KernelVersion": super::info::kernel(),
        "Components": [],
        "Experimental": false,
    });
    let data = json!({ "Client": side, "Server": side });
    super::show(template.as_ref(), &data, env)
}
