//! `rbuild doctor`: whether steps can run here, on which rung, and what to change for the next one.

use rbuild_sys::userns::{Choice, Rung};
use rbuild_ui::diagnostic::ExitCode;

use super::CommandError;
use crate::args::DoctorArgs;
use crate::doctor;
use crate::engine::EngineOptions;
use crate::env::Env;

/// Tries each rung, or the one of `--rung`, and shows what came of it. Exit code 1 if a build would find none that runs steps.
pub(super) fn run(args: &DoctorArgs, options: EngineOptions, env: &mut Env) -> Result<(), CommandError> {
    let rungs = match options.rung {
        Choice::First => Rung::ALL.to_vec(),
        Choice::Namespaces => Rung::ALL.into_iter().filter(|rung| rung.has_mounts()).collect(),
        Choice::Only(rung) => vec![rung],
    };
    let near = options.root.or_else(crate::native::store_root);
    let report = doctor::examine(&rungs, near.as_deref());
    if args.json {
        serde_json::to_writer_pretty(&mut env.stdout, &report).map_err(std::io::Error::from)?;
        writeln!(env.stdout)?;
    } else {
        report.write(&mut env.stdout)?;
    }
    env.stdout.flush()?;
    match report.has_steps {
        true => Ok(()),
        false => Err(CommandError::Judged(ExitCode::Failure)),
    }
}
