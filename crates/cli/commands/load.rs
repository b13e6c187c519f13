//! `rbuild load`: what `docker save` and other tools wrote.

use std::fs::File;
use std::io::{BufReader, Read};

use rbuild_ui::text::one_line;

use super::{CommandError, Open};
use crate::args::LoadArgs;
use crate::engine::{EngineError, EngineOptions};
use crate::env::Env;

/// Loads an archive; prints docker's lines, one for each name.
pub(super) fn run(
    args: &LoadArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let mut file;
    let input: &mut (dyn Read + Send) = match &args.input {
        Some(path) => {
            let opened = File::open(path)
                .map_err(|error| CommandError::failed(&format!("open {}: {error}", path.display())))?;
            file = BufReader::new(opened);
            &mut file
        }
        None if env.stdin_is_terminal => {
            return Err(CommandError::failed(
                &"requested load from stdin, but stdin is empty",
            ));
        }
        None => env.stdin.as_mut(),
    };
    let loaded = open(options)?.load(input, args.platform.as_deref());
    let loaded = loaded.map_err(|error| match (error, &args.input) {
        (EngineError::Failed(mut diagnostic), Some(path)) => {
            diagnostic.message = format!("load {}: {}", path.display(), diagnostic.message);
            EngineError::Failed(diagnostic)
        }
        (error, _) => error,
    })?;
    for image in loaded {
        if image.names.is_empty() {
            writeln!(env.stdout, "Loaded image ID: {}", image.id)?;
        }
        for name in &image.names {
            writeln!(env.stdout, "Loaded image: {}", one_line(&name.familiar()))?;
        }
    }
    Ok(env.stdout.flush()?)
}
