//! Warns of an image that will not start, after it was exported: a warning is no reason to hold back a build.
//!
//! Owns which layers are looked at; what is looked for is [`program`]'s.

mod program;

use std::path::PathBuf;
use std::sync::Arc;

use rbuild_graph::progress::Sink;
use rbuild_oci::Digest;
use rbuild_store::LayerId;

use crate::export::Subject;
use crate::images::RemoteLayer;
use crate::job::Job;
use crate::ops::blocking;
use crate::solve::Reporter;
use crate::value::Chain;
use program::StartProblem;
pub(crate) use program::programs;

/// Where the store remembers what was found to start.
const START_SPACE: &str = "starts";
/// Images remembered.
const STARTS_MAX: usize = 1000;

/// Shows a failure to start that can be seen coming, and gives it as a line.
pub(crate) async fn warning(job: &Arc<Job>, subject: &Subject, sink: &Arc<dyn Sink>) -> Option<String> {
    let text = problem(job, subject).await?.to_string();
    let mut reporter = Reporter::internal(sink, "[internal] check that the image starts");
    reporter.start(None);
    reporter.warn(text.clone(), Vec::new(), String::new(), None);
    reporter.done();
    Some(text)
}

/// Looks below layers that were packed straight from what was copied, which bring no program, and then at all if something is amiss there.
async fn problem(job: &Arc<Job>, subject: &Subject) -> Option<StartProblem> {
    let layers = subject.chain.layers();
    let held = job.lease.hold_layers(&job.engine.form_name, layers).ok()?;
    let is_packed = |(layer, dir): (&LayerId, &Option<PathBuf>)| {
        dir.is_none() && job.remote(layer).is_some_and(|remote| remote.is_own)
    };
    let packed = layers
        .iter()
        .zip(&held)
        .rev()
        .take_while(|pair| is_packed(*pair))
        .count();
    let below = &layers[..layers.len() - packed];
    if packed == 0 {
        return problem_of(job, subject, layers).await;
    }
    let is_amiss = match below {
        [] => !programs(&subject.config.to_bytes()).is_empty(),
        below => problem_of(job, subject, below).await.is_some(),
    };
    if !is_amiss {
        return None;
    }
    let whole = job.unpack_chain(&subject.chain).await.ok()?;
    problem_of(job, subject, whole.layers()).await
}

/// Looks at layers that are unpacked anyway. The base of a stage that only copies is not; it is unpacked for this where
/// a program was copied that needs a loader from below, once, and only if the export brought its blobs here.
async fn problem_of(job: &Arc<Job>, subject: &Subject, layers: &[LayerId]) -> Option<StartProblem> {
    let held = job.lease.hold_layers(&job.engine.form_name, layers).ok()?;
    let absent = held.iter().rposition(Option::is_none).map_or(0, |last| last + 1);
    let found = look(job, subject, &layers[absent..]).await?;
    if absent == 0 {
        return Some(found);
    }
    match found {
        StartProblem::Architecture { .. } => Some(found),
        // What is not here may be below.
        StartProblem::NoProgram { .. } | StartProblem::NoInterpreter { .. } => None,
        StartProblem::NoLoader { .. } => {
            let here = |(layer, dir): (&LayerId, &Option<PathBuf>)| {
                let has = |remote: &RemoteLayer| job.engine.store.has_blob(&remote.descriptor.digest);
                dir.is_some()
                    || job
                        .remote(layer)
                        .is_some_and(|remote| matches!(has(&remote), Ok(Some(_))))
            };
            if !layers.iter().zip(&held).all(here) {
                return None;
            }
            let whole = job.unpack_chain(&Chain::new(layers.to_vec())).await.ok()?;
            look(job, subject, whole.layers()).await
        }
    }
}

/// Looks into some layers of the image, unless they were found to start with the same config before: looking mounts them.
async fn look(job: &Arc<Job>, subject: &Subject, layers: &[LayerId]) -> Option<StartProblem> {
    if layers.is_empty() {
        return None;
    }
    let (job, layers, config) = (Arc::clone(job), layers.to_vec(), subject.config.to_bytes());
    let name = name_of(&layers, &config);
    blocking(move || {
        let store = &job.engine.store;
        if matches!(store.kv(START_SPACE, name.as_str()), Ok(Some(_))) {
            return None;
        }
        let view = job.engine.snapshotter.view(&job.lease, &layers).ok()?;
        let problem = program::problem(view.root(), &config);
        if problem.is_none() {
            // Not remembered, it is looked for again: no reason to hold back a build either.
            drop(store.note_kv(START_SPACE, name.as_str(), STARTS_MAX));
        }
        problem
    })
    .await
}

fn name_of(layers: &[LayerId], config: &[u8]) -> Digest {
    let mut text: Vec<u8> = layers
        .iter()
        .flat_map(|id| format!("{id} ").into_bytes())
        .collect();
    text.extend_from_slice(config);
    Digest::sha256(&text)
}

#[cfg(test)]
mod tests {
    use rbuild_oci::DiffId;

    use super::*;

    #[test]
    fn what_is_remembered_is_of_these_layers_and_this_config() {
        let ids = ["a", "b", "a"].map(|text| LayerId::of_diff_id(&DiffId(Digest::sha256(text.as_bytes()))));
        let names = [
            name_of(&ids[..1], b"{}"),
            name_of(&ids[1..2], b"{}"),
            name_of(&ids[..2], b"{}"),
            name_of(&ids[1..], b"{}"),
            name_of(&ids[..1], b"{ }"),
        ];
        let different: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
    }
}
