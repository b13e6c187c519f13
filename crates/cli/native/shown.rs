//! Which snapshotter: the first that really works where the store is, or the one that was asked for.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rbuild_builder::error::chain_text;
use rbuild_snapshotter::Means;
use rbuild_store::Store;
use rbuild_sys::userns::Rung;

use crate::engine::EngineError;

/// The space of notes in the store's index: where which snapshotter was tried and works.
const WORKS: &str = "snapshotter-works";
/// As many surroundings as one store is used from at the same time, and a few.
const WORKS_KEPT: usize = 16;

/// What an answer of a trial holds for, beside this boot, the rung and the store: the namespaces that rbuild was started in. A
/// container has others, and may not be allowed what its host is.
#[derive(Debug)]
pub(super) struct Surroundings(Option<String>);

impl Surroundings {
    /// Those of the process, to be asked before it enters namespaces of its own.
    pub(super) fn of_process() -> Self {
        let known = || {
            let user = std::fs::read_link("/proc/self/ns/user").ok()?;
            let mounts = std::fs::read_link("/proc/self/ns/mnt").ok()?;
            Some(format!("{} {}", user.to_str()?, mounts.to_str()?))
        };
        Self(known())
    }

    /// The name of a note about `means`; `None` where it could not be told from that of another place.
    fn note(&self, means: Means, store: &Store, root: &Path, rung: Rung) -> Option<String> {
        let device = std::fs::metadata(root).ok()?.dev();
        let boot = Some(store.boot()).filter(|boot| !boot.is_empty())?;
        let here = self.0.as_deref()?;
        Some(format!("{means} {} {device} {boot} {here}", rung.name()))
    }
}

/// How stacks of layers become file systems, and what did not.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) means: Means,
    /// Those tried before, with the reason.
    pub(super) declined: Vec<(Means, String)>,
}

impl Shown {
    /// Tries them in the directory `root` of `store`, or just `wanted`. One that worked there since the machine was started is
    /// not tried again: a trial takes longer than all of a build that finds nothing changed.
    pub(super) fn choose(
        wanted: Option<Means>,
        store: &Store,
        root: &Path,
        rung: Rung,
        from: &Surroundings,
    ) -> Result<Self, EngineError> {
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
            let note = from.note(means, store, root, rung);
            if let Some(note) = &note
                && matches!(store.kv(WORKS, note), Ok(Some(_)))
            {
                return Ok(Self { means, declined });
            }
            match means.probe(root, rung.form()) {
                Ok(()) => {
                    if let Some(note) = &note {
                        // Without the note it is tried again.
                        drop(store.note_kv(WORKS, note, WORKS_KEPT));
                    }
                    return Ok(Self { means, declined });
                }
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
