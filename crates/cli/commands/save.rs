//! `rbuild save`: an archive that `docker load` reads. A file appears whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::{CommandError, Open};
use crate::args::SaveArgs;
use crate::engine::{EngineError, EngineOptions, OpenOutput};
use crate::env::Env;

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// Saves images.
pub(super) fn run(
    args: &SaveArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let Some(path) = &args.output else {
        let mut take = standard_output(env, "save to a terminal. Use the -o flag or redirect")?;
        return Ok(open(options)?.save(&args.images, &mut take)?);
    };
    let engine = open(options)?;
    to_file(path, |create| engine.save(&args.images, create))
}

/// Gives standard output away for an archive, once; a terminal is refused, in words that say `instead`.
pub(super) fn standard_output(
    env: &mut Env,
    instead: &str,
) -> Result<impl FnMut() -> io::Result<Box<dyn Write>> + use<>, CommandError> {
    if env.stdout_is_terminal {
        return Err(CommandError::failed(&format!("cowardly refusing to {instead}")));
    }
    let mut out = Some(std::mem::replace(&mut env.stdout, Box::new(io::sink())));
    Ok(move || out.take().ok_or_else(|| io::ErrorKind::AlreadyExists.into()))
}

/// Has `write` write an archive into a file, which appears whole or not at all.
pub(super) fn to_file(
    path: &Path,
    write: impl FnOnce(OpenOutput<'_>) -> Result<(), EngineError>,
) -> Result<(), CommandError> {
    // What is no file is written as it is: nothing can be put aside beside a pipe.
    let is_plain = fs::metadata(path).map_or(true, |found| found.is_file());
    let aside = if is_plain {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
    } else {
        path.to_owned()
    };
    let mut create = || -> io::Result<Box<dyn Write>> {
        let file = File::create(&aside)?;
        Ok(Box::new(BufWriter::with_capacity(BUFFER_BYTES, file)))
    };
    let written = write(&mut create);
    if !is_plain {
        return Ok(written?);
    }
    let renamed = written.map_err(CommandError::from).and_then(|()| {
        fs::rename(&aside, path)
            .map_err(|error| CommandError::failed(&format!("cannot write {}: {error}", path.display())))
    });
    if renamed.is_err() {
        // What failed is told; that the draft stays behind too would hide it.
        let _draft = fs::remove_file(&aside);
    }
    renamed
}
