//! `rbuild version`.

use std::io;

use rbuild_ui::text::lines;
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
    let side = json!({
        "Name": "rbuild",
        "Version": version,
        "Os": os,
        "Arch": arch,
        "Experimental": false,
    });
    let data = json!({ "Client": side, "Server": side });
    match template {
        Some(template) => {
            let text = template
                .render(&data)
                .map_err(|error| CommandError::failed(&error))?;
            writeln!(env.stdout, "{}", lines(&text))?;
        }
        None => {
            serde_json::to_writer(&mut env.stdout, &data).map_err(io::Error::from)?;
            writeln!(env.stdout)?;
        }
    }
    Ok(env.stdout.flush()?)
}
