//! `rbuild tag`.

use super::{CommandError, Open};
use crate::args::TagArgs;
use crate::engine::EngineOptions;

/// Gives an image another name.
pub(super) fn run(args: &TagArgs, options: EngineOptions, open: Open<'_>) -> Result<(), CommandError> {
    Ok(open(options)?.tag(&args.source, &args.target)?)
}
