//! Merge and diff: operations on layers as a whole. No file is read.

use rbuild_graph::{DiffOp, MergeOp};

use super::{OpError, chain_of};
use crate::job::Job;
use crate::value::{Chain, Value};

/// All inputs stacked, first at the bottom.
///
/// # Errors
/// [`OpError::NoSuchInput`] if an input is missing or is no file system.
pub async fn merge(job: &Job, merge: &MergeOp, inputs: &[Value]) -> Result<Chain, OpError> {
    let mut stacked = Chain::default();
    for input in &merge.inputs {
        stacked = stacked.stacked(&chain_of(job, *input, inputs).await?);
    }
    Ok(stacked)
}

/// What the upper input has above the lower one.
///
/// # Errors
/// [`OpError::UnrelatedDiff`] if the upper does not stand on the lower.
pub async fn diff(job: &Job, diff: &DiffOp, inputs: &[Value]) -> Result<Chain, OpError> {
    let lower = chain_of(job, diff.lower, inputs).await?;
    let upper = chain_of(job, diff.upper, inputs).await?;
    upper.above(&lower).ok_or(OpError::UnrelatedDiff)
}
