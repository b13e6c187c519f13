//! Merge, diff and passthrough: operations on file systems as a whole. What is put on top of, or taken from, other layers
//! than it was made on becomes explicit first. Reads files only where that takes it: the first input of a merge, layers that
//! were pulled and layers made on nothing are stacked unread, and so need not be on this machine.

use std::sync::Arc;

use rbuild_graph::{DiffOp, MergeOp, PassthroughOp};

use super::{OpError, blocking, chain_of};
use crate::job::Job;
use crate::value::{Chain, Value};

/// All inputs stacked, first at the bottom.
///
/// # Errors
/// [`OpError::NoSuchInput`] if an input is missing or is no file system, and those of making its layers explicit.
pub async fn merge(job: &Job, merge: &MergeOp, inputs: &[Value]) -> Result<Chain, OpError> {
    let mut stacked = Chain::default();
    for input in &merge.inputs {
        let chain = chain_of(job, *input, inputs).await?;
        stacked = if stacked.layers().is_empty() {
            chain
        } else {
            stacked.stacked(&explicit(job, &chain, 0).await?)
        };
    }
    Ok(stacked)
}

/// What makes the lower input the upper one. If the upper stands on the lower, that is its layers above; else both are
/// compared, file by file (`cache/manager.go`, `Diff`).
///
/// # Errors
/// As for [`merge`].
pub async fn diff(job: &Job, diff: &DiffOp, inputs: &[Value]) -> Result<Chain, OpError> {
    let lower = chain_of(job, diff.lower, inputs).await?;
    let upper = chain_of(job, diff.upper, inputs).await?;
    if lower.layers().is_empty() {
        return Ok(upper);
    }
    if upper.above(&lower).is_some() {
        return explicit(job, &upper, lower.layers().len()).await;
    }
    let (lower, upper) = (job.unpack_chain(&lower).await?, job.unpack_chain(&upper).await?);
    let _permit = job.processors.acquire().await;
    let (engine, lease) = (Arc::clone(&job.engine), Arc::clone(&job.lease));
    let layer = blocking(move || {
        engine
            .snapshotter
            .difference(&lease, lower.layers(), upper.layers())
    })
    .await?;
    Ok(Chain::new(vec![layer]))
}

/// The layers of `chain` from number `from` on, each explicit.
async fn explicit(job: &Job, chain: &Chain, from: usize) -> Result<Chain, OpError> {
    let snapshotter = &job.engine.snapshotter;
    let mut is_known = true;
    for layer in &chain.layers()[from..] {
        is_known = is_known && snapshotter.is_known_explicit(layer)?;
    }
    if is_known {
        return Ok(Chain::new(chain.layers()[from..].to_vec()));
    }
    let chain = job.unpack_chain(chain).await?;
    let _permit = job.processors.acquire().await;
    let (engine, lease) = (Arc::clone(&job.engine), Arc::clone(&job.lease));
    let layers = blocking(move || {
        let all = chain.layers();
        let one = |at: usize| engine.snapshotter.explicit_layer(&lease, &all[..at], &all[at]);
        (from..all.len()).map(one).collect::<Result<Vec<_>, _>>()
    })
    .await?;
    Ok(Chain::new(layers))
}

/// The inputs that are outputs. The others are built all the same, which is what it is for (`solver/llbsolver/ops/passthrough.go`).
///
/// # Errors
/// [`OpError::NoSuchInput`] if an input is missing or is no file system.
pub async fn passthrough(
    job: &Job,
    passthrough: &PassthroughOp,
    inputs: &[Value],
) -> Result<Vec<Chain>, OpError> {
    let mut outputs = Vec::with_capacity(passthrough.outputs.len());
    for input in &passthrough.outputs {
        outputs.push(chain_of(job, Some(*input), inputs).await?);
    }
    Ok(outputs)
}
