//! The files of a chain of layers, to be looked at.

use std::sync::Arc;

use rbuild_sys::RootFd;

use super::{OpError, blocking};
use crate::job::Job;
use crate::value::Chain;

/// The files of `chain`, mounted where nobody else sees them and unmounted with the root. What is not here is fetched.
///
/// # Errors
/// Those of fetching, unpacking and mounting layers.
pub async fn root(job: &Job, chain: &Chain) -> Result<RootFd, OpError> {
    let chain = job.unpack_chain(chain).await?;
    let (engine, lease) = (Arc::clone(&job.engine), Arc::clone(&job.lease));
    let view = blocking(move || engine.snapshotter.view(&lease, chain.layers())).await?;
    Ok(view.into_root())
}
