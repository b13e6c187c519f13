//! `rbuild version`.

use super::CommandError;
use crate::env::Env;

/// Shows the version and the machine.
pub(super) fn run(env: &mut Env) -> Result<(), CommandError> {
    writeln!(
        env.stdout,
        "rbuild {} {}",
        env!("CARGO_PKG_VERSION"),
        env.own_platform
    )?;
    Ok(env.stdout.flush()?)
}
