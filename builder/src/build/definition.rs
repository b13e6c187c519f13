//! A build of what is no Dockerfile: a definition that was given whole. Whoever understands it answers; what becomes of the
//! answer is the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use rbuild_graph::progress::Sink;
use tokio_util::sync::CancellationToken;

use crate::cache_transfer;
use crate::engine::Engine;
use crate::error::BuildError;
use crate::export;
use crate::front_ends::FrontEnds;
use crate::request::{BuildOutcome, BuildRequest};

/// Builds what `definition` answers; of `request` count the outputs, the caches, the local directories and what steps may
/// use.
///
/// # Errors
/// [`BuildError`], those of the definition as of a front end.
pub async fn build_definition(
    engine: Arc<Engine>,
    request: BuildRequest,
    sink: Arc<dyn Sink>,
    cancel: CancellationToken,
    definition: Arc<dyn FrontEnds>,
) -> Result<BuildOutcome, BuildError> {
    let plan = export::plan(&request)?;
    let lease = Arc::new(engine.store.lease("build")?);
    let job = Arc::new(super::job(engine, lease, &request, None, None, sink)?);
    cache_transfer::import::all(&job, &request.cache_from).await?;
    let answered = definition.answer(&job, BTreeMap::new(), &cancel).await;
    if cancel.is_cancelled() {
        return Err(BuildError::Canceled);
    }
    let result = answered.map_err(|source| BuildError::ForeignFrontEnd {
        image: "definition".to_owned(),
        place: source.place.clone(),
        source,
    })?;
    let mut outcome = BuildOutcome::default();
    super::deliver(&job, &result, plan, &request, &mut outcome).await?;
    Ok(outcome)
}
