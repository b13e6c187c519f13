//! The user's build context: a directory, or a tar archive spooled into one. Owns which ignore file counts.

use std::io::Read;
use std::path::Path;

use rbuild_layer::{
    DecompressError, DecompressLimits, DevicePolicy, ExtractError, ExtractOptions, Extracted, Limits,
    decompress_detected, extract,
};
use rbuild_sys::{RootFd, RootFdError};

use crate::source::{IgnoreRules, IgnoreRulesError};

/// Most bytes of an ignore file.
pub(crate) const IGNORE_FILE_MAX_BYTES: u64 = 16 << 20;
/// Name of the ignore file of a whole context.
pub const IGNORE_FILE: &str = ".dockerignore";

/// Why a context cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The directory, or an ignore file in it, cannot be opened.
    #[error(transparent)]
    Root(#[from] RootFdError),
    /// The ignore file is malformed.
    #[error(transparent)]
    Rules(#[from] IgnoreRulesError),
}

/// Which Dockerfile is built, as far as it decides about the ignore file.
#[derive(Debug, Clone, Copy)]
pub enum DockerfileAt<'a> {
    /// At this path inside the context.
    InContext(&'a str),
    /// In another directory, of which this is an open descriptor, under this name.
    Beside(&'a RootFd, &'a str),
    /// Nowhere: its text came on standard input.
    Nowhere,
}

/// The ignore rules that count for a context and a Dockerfile, if there are any. The ignore file is
/// `<Dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` in the context; they are never merged
/// (`frontend/dockerui`). Neither the rules nor a link keep it from being read, but a link does not lead out of its
/// directory.
///
/// # Errors
/// [`ContextError`]; an ignore file that is not there is none.
pub fn ignore_rules(
    root: &RootFd,
    dockerfile: DockerfileAt<'_>,
) -> Result<Option<IgnoreRules>, ContextError> {
    let own = match dockerfile {
        DockerfileAt::InContext(path) => read_rules(root, &format!("{path}{IGNORE_FILE}"))?,
        DockerfileAt::Beside(dir, name) => read_rules(dir, &format!("{name}{IGNORE_FILE}"))?,
        DockerfileAt::Nowhere => None,
    };
    match own {
        Some(rules) => Ok(Some(rules)),
        None => read_rules(root, IGNORE_FILE),
    }
}

fn read_rules(root: &RootFd, name: &str) -> Result<Option<IgnoreRules>, ContextError> {
    match root.read_file(Path::new(name), IGNORE_FILE_MAX_BYTES) {
        Ok(bytes) => Ok(Some(IgnoreRules::parse(name, &bytes)?)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Why a context in an archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TarContextError {
    /// The directory it is spooled to cannot be opened.
    #[error(transparent)]
    Root(#[from] RootFdError),
    /// It is compressed in a way that cannot be read.
    #[error("context archive: decompress")]
    Decompress(#[from] DecompressError),
    /// The archive was refused, or could not be written.
    #[error("context archive: unpack")]
    Extract(#[from] ExtractError),
}

/// Unpacks a context that came as a tar archive, compressed or not, into an empty directory of ours. Owners become
/// 0:0, device nodes are treated as `devices` says.
///
/// # Errors
/// [`TarContextError`]; the directory is to be thrown away then.
pub fn spool_tar(
    archive: impl Read + Send,
    into: &Path,
    devices: DevicePolicy,
) -> Result<Extracted, TarContextError> {
    let root = RootFd::open(into)?;
    let (_, stream) = decompress_detected(archive, &DecompressLimits::allowed())?;
    let options = ExtractOptions {
        chown: Some((0, 0)),
        limits: Limits::allowed(),
        devices,
    };
    Ok(extract(stream, &root, Path::new("/"), &options)?)
}
