//! `--build-context`: names and what they stand for. What is of this machine has to be there, whether the Dockerfile uses it or
//! not (`buildx/build/opt.go`, `loadInputs`).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use rbuild_ui::values::context::{self, ContextNameError};

use super::inputs;
use crate::args::LowBuild;

/// Beginnings of values that say where else a context is.
const ELSEWHERE: [&str; 3] = ["docker-image://", "target:", "input:"];
const LAYOUT: &str = "oci-layout://";

/// Why a named context is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NamedContextError {
    /// The text.
    #[error(transparent)]
    Text(#[from] ContextNameError),
    /// There is no such file.
    #[error("failed to get build context {name}: stat {path}: {error}")]
    Missing {
        /// Name of the context.
        name: String,
        /// What is not there.
        path: String,
        /// Cause.
        error: io::Error,
    },
    /// It is a file.
    #[error("failed to get build context path {0}: not a directory")]
    NoDirectory(String),
    /// No image layout.
    #[error("oci-layout reference {reference:?} could not be resolved: could not read {path}: {error}")]
    Layout {
        /// As written.
        reference: String,
        /// Its index.
        path: String,
        /// Cause.
        error: io::Error,
    },
}

/// All of them by their names; of one name the last holds.
pub(super) fn of(low: &LowBuild) -> Result<BTreeMap<String, String>, NamedContextError> {
    let mut all = BTreeMap::new();
    for text in low.build_context.iter().filter(|text| !text.is_empty()) {
        let (name, value) = context::parse(text)?;
        all.insert(name, value);
    }
    for (name, value) in &all {
        check(name, value)?;
    }
    Ok(all)
}

fn check(name: &str, value: &str) -> Result<(), NamedContextError> {
    if let Some(rest) = value.strip_prefix(LAYOUT) {
        return layout(value, rest);
    }
    if inputs::is_url(value) || ELSEWHERE.iter().any(|start| value.starts_with(start)) {
        return Ok(());
    }
    match std::fs::metadata(value) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(NamedContextError::NoDirectory(value.to_owned())),
        Err(error) => Err(NamedContextError::Missing {
            name: name.to_owned(),
            path: value.to_owned(),
            error,
        }),
    }
}

/// A layout has an index where its image is found by a name; by a digest it needs none.
fn layout(reference: &str, rest: &str) -> Result<(), NamedContextError> {
    if rest.contains('@') {
        return Ok(());
    }
    // A colon after the last slash begins a tag.
    let begin = rest.rfind('/').map_or(0, |at| at + 1);
    let end = rest[begin..].find(':').map_or(rest.len(), |at| begin + at);
    let index = Path::new(&rest[..end]).join("index.json");
    match std::fs::metadata(&index) {
        Ok(_) => Ok(()),
        Err(error) => Err(NamedContextError::Layout {
            reference: reference.to_owned(),
            path: index.display().to_string(),
            error,
        }),
    }
}
