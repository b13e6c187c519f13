//! What the vertices of a build turned out to be, for whoever tells how it was made.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rbuild_graph::VertexDigest;

use crate::value::{Chain, Value};

/// Outputs of the vertices that have any.
#[derive(Debug, Default)]
pub struct Results(Mutex<HashMap<VertexDigest, Vec<Chain>>>);

impl Results {
    /// Notes the outputs of a vertex. Directories of the client are no layers.
    pub fn note(&self, vertex: &VertexDigest, values: &[Value]) {
        let chains = values.iter().filter_map(|value| match value {
            Value::Chain(chain) => Some(chain.clone()),
            Value::Context(_) => None,
        });
        let chains: Vec<Chain> = chains.collect();
        if !chains.is_empty() {
            let mut results = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            results.insert(vertex.clone(), chains);
        }
    }

    /// The outputs of a vertex; none of one that was not needed.
    #[must_use]
    pub fn of(&self, vertex: &VertexDigest) -> Vec<Chain> {
        let results = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        results.get(vertex).cloned().unwrap_or_default()
    }
}

/// A build as provenance names it.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Its id: of no other build.
    pub id: String,
    /// When it began, milliseconds since 1970.
    pub started_ms: i64,
}

impl Invocation {
    /// The build that keeps what it makes in `place`, which no other build does.
    #[must_use]
    pub fn of(place: &std::path::Path) -> Self {
        let started_ms = crate::time::now_ms();
        let text = format!("{} {} {started_ms}", place.display(), std::process::id());
        let digest = rbuild_oci::Digest::sha256(text.as_bytes());
        Self {
            id: digest.hex()[..25].to_owned(),
            started_ms,
        }
    }
}
