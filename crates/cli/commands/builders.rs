//! The commands of buildx that manage builders. There is one, which is this program: the commands answer as if it had
//! always been the builder that is meant, and refuse one that would build elsewhere.

use rbuild_ui::table::Table;

use super::CommandError;
use crate::args::{BuilderCommand, CreateArgs};
use crate::env::Env;

/// Name of the builder.
pub(super) const NAME: &str = "default";
/// Drivers that build on this machine.
const OWN: [&str; 3] = ["docker-container", "docker", "rbuild"];

/// Answers.
pub(super) fn run(command: &BuilderCommand, env: &mut Env) -> Result<(), CommandError> {
    match command {
        BuilderCommand::Create(args) => create(args, env)?,
        BuilderCommand::Use(_)
        | BuilderCommand::Stop(_)
        | BuilderCommand::Rm(_)
        | BuilderCommand::Install
        | BuilderCommand::Uninstall => {}
        BuilderCommand::Ls => {
            let mut table = Table::new(&["NAME/NODE", "DRIVER/ENDPOINT", "STATUS", "PLATFORMS"]);
            let platform = env.own_platform.clone();
            table.row([
                format!("{NAME}*"),
                "rbuild".to_owned(),
                "running".to_owned(),
                platform,
            ]);
            table.write(&mut env.stdout)?;
        }
        BuilderCommand::Inspect(args) => {
            let name = args.name.as_deref().unwrap_or(NAME);
            let name = rbuild_ui::text::one_line(name);
            write!(
                env.stdout,
                "Name:          {name}\nDriver:        rbuild\n\nNodes:\nName:          {name}\nEndpoint:      in process\n\
                 Status:        running\nBuildKit version: {}\nPlatforms:     {}\n",
                crate::args::api_version(),
                env.own_platform
            )?;
        }
    }
    Ok(env.stdout.flush()?)
}

fn create(args: &CreateArgs, env: &mut Env) -> Result<(), CommandError> {
    if let Some(driver) = args.driver.as_deref().filter(|driver| !OWN.contains(driver)) {
        return Err(CommandError::failed(&format!(
            "not supported: --driver {driver}: rbuild builds on this machine"
        )));
    }
    let elsewhere = args
        .endpoint
        .as_deref()
        .filter(|endpoint| endpoint.contains("://") && !endpoint.starts_with("unix://"));
    if let Some(endpoint) = elsewhere {
        return Err(CommandError::failed(&format!(
            "not supported: {endpoint}: rbuild builds on this machine"
        )));
    }
    let ignored = [
        ("--driver-opt", !args.driver_opt.is_empty()),
        ("--platform", !args.platform.is_empty()),
        ("--buildkitd-config", args.buildkitd_config.is_some()),
        ("--buildkitd-flags", args.buildkitd_flags.is_some()),
    ];
    for (flag, _) in ignored.iter().filter(|(_, given)| *given) {
        // A warning that cannot be written cannot be told either.
        let _unwritten = writeln!(env.stderr, "WARNING: {flag} has no effect: no daemon is started");
    }
    let name = args.name.as_deref().unwrap_or(NAME);
    Ok(writeln!(env.stdout, "{}", rbuild_ui::text::one_line(name))?)
}
