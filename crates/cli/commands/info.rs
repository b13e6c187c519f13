//! `rbuild info`: what this installation is.

use rbuild_ui::text::one_line;
use rbuild_ui::units::human_size;
use serde_json::json;

use super::{CommandError, Open};
use crate::args::InfoArgs;
use crate::engine::EngineOptions;
use crate::env::Env;

/// Shows it.
pub(super) fn run(
    args: &InfoArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let template = super::template(args.format.as_deref(), &["", "json"])?;
    let info = open(options)?.info()?;
    let kernel = rustix::system::uname();
    let kernel = kernel.release().to_string_lossy().into_owned();
    let files: Vec<String> = info
        .registry_files
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let root = info.root.display().to_string();
    if template.is_some() || args.format.as_deref() == Some("json") {
        // Docker's names where docker says the same.
        let data = json!({
            "ServerVersion": env!("CARGO_PKG_VERSION"),
            "DockerRootDir": root,
            "Root": root,
            "Form": info.form,
            "Rootless": info.rootless,
            "Images": info.images,
            "UsedBytes": info.used_bytes,
            "OSType": "linux",
            "Architecture": env.own_platform.split('/').nth(1),
            "KernelVersion": kernel,
            "NCPU": rbuild_sys::process::processors(),
            "RegistryFiles": files,
        });
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
