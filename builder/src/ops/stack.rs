//! Merge and diff: operations on layers as a whole. No file is read.

use rbuild_graph::{DiffOp, MergeOp};

use super::{OpError, chain_of};
use crate::value::{Chain, Value};

/// All inputs stacked, first at the bottom.
///
/// # Errors
/// [`OpError::NoSuchInput`] if an input is missing or is no file system.
pub fn merge(merge: &MergeOp, inputs: &[Value]) -> Result<Chain, OpError> {
    let mut stacked = Chain::default();
    for input in &merge.inputs {
        stacked = stacked.stacked(&chain_of(*input, inputs)?);
    }
    Ok(stacked)
}

/// What the upper input has above the lower one.
///
/// # Errors
/// [`OpError::UnrelatedDiff`] if the upper does not stand on the lower.
pub fn diff(diff: &DiffOp, inputs: &[Value]) -> Result<Chain, OpError> {
    let lower = chain_of(diff.lower, inputs)?;
    let upper = chain_of(diff.upper, inputs)?;
    upper.above(&lower).ok_or(OpError::UnrelatedDiff)
}
