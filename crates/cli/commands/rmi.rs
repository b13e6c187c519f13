//! `rbuild rmi`: each image is tried; the first failure is reported at the end. With `--force` it is none that there is no
//! such image.

use rbuild_ui::text::one_line;

use super::{CommandError, Open};
use crate::args::RmiArgs;
use crate::engine::EngineOptions;
use crate::env::Env;

/// Removes images.
pub(super) fn run(
    args: &RmiArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let engine = open(options)?;
    let mut failure = None;
    for image in &args.images {
        match engine.remove_image(image, args.force) {
            Ok(removed) if removed.missing => writeln!(env.stderr, "No such image: {}", one_line(image))?,
            Ok(removed) => {
                for name in removed.untagged {
                    writeln!(env.stdout, "Untagged: {}", one_line(&name))?;
                }
                for digest in removed.deleted {
                    writeln!(env.stdout, "Deleted: {digest}")?;
                }
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    env.stdout.flush()?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}
