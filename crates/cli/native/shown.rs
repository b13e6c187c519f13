//! Which snapshotter: the first that really works where the store is, or the one that was asked for.

use std::path::Path;

use rbuild_builder::error::chain_text;
use rbuild_snapshotter::Means;
use rbuild_sys::userns::Rung;

use crate::engine::EngineError;

/// How stacks of layers become file systems, and what did not.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) means: Means,
    /// Those tried before, with the reason.
    pub(super) declined: Vec<(Means, String)>,
}

impl Shown {
    /// Tries them in the store's directory `root`, or just `wanted`.
    pub(super) fn choose(wanted: Option<Means>, root: &Path, rung: Rung) -> Result<Self, EngineError> {
        if !rung.has_mounts() {
            return match wanted {
                None | Some(Means::Native) => Ok(Self {
                    means: Means::Native,
                    declined: Vec::new(),
                }),
                Some(other) => Err(EngineError::failed(format!(
                    "snapshotter {other} mounts, and nothing can be mounted on rung {}: leave --snapshotter out",
                    rung.name()
                ))),
            };
        }
        let mut declined = Vec::new();
        for means in Means::ALL
            .into_iter()
            .filter(|means| wanted.is_none_or(|wanted| wanted == *means))
        {
            match means.probe(root, rung.form()) {
                Ok(()) => return Ok(Self { means, declined }),
                Err(error) => declined.push((means, chain_text(&error))),
            }
        }
        let reasons: Vec<String> = declined
            .iter()
            .map(|(means, error)| format!("{means}: {error}"))
            .collect();
        Err(EngineError::failed(format!(
            "snapshotter {}; --snapshotter=native works on every file system",
            reasons.join("; ")
        )))
    }
}
