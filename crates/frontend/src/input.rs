//! Graphs that are given to the front end, and whose words its contexts are (`FrontendInputs`, `context:` and
//! `local-sessionid:` of BuildKit's `frontend/dockerui`).

use std::collections::BTreeMap;
use std::sync::Arc;

use rbuild_graph::{Edge, Graph};

use crate::error::{FrontendError, FrontendErrorKind};
use crate::lowering::Lowering;
use crate::origins::Made;

/// A graph that somebody else made, and what of it is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InputGraph {
    /// The graph.
    pub graph: Arc<Graph>,
    /// What of it; `None` is an empty file system.
    pub target: Option<Edge>,
    /// Config of the image that it is, as its maker wrote it (`input-metadata:`).
    pub config: Option<Vec<u8>>,
}

/// Who gave the named contexts.
#[derive(Debug, Clone, Default)]
pub enum ContextOrigin {
    /// `--build-context`: what is neither a URL nor an image is a directory of this machine.
    #[default]
    Host,
    /// A client of the API, which writes the kind in front (`frontend/dockerui/namedcontext.go`).
    Client(Box<ClientContexts>),
}

/// What a client's words refer to.
#[derive(Debug, Clone, Default)]
pub struct ClientContexts {
    /// The client's session.
    pub session_id: String,
    /// `local-sessionid:NAME`: session that has local directory NAME, if it is another one.
    pub local_session_ids: BTreeMap<String, String>,
    /// `sharedkey:localdir:NAME` by name of the context.
    pub shared_keys: BTreeMap<String, String>,
    /// Graphs that `input:NAME` refers to.
    pub inputs: BTreeMap<String, InputGraph>,
}

impl ClientContexts {
    /// The session that has local directory `name`.
    #[must_use]
    pub fn session_of(&self, name: &str) -> &str {
        self.local_session_ids.get(name).unwrap_or(&self.session_id)
    }
}

impl Lowering<'_> {
    /// Puts a given graph into the one that is being made.
    pub(crate) fn add_input(&mut self, input: &InputGraph) -> Result<Option<Made>, FrontendError> {
        if let Some(target) = &input.target {
            self.graph
                .merge(&input.graph, target)
                .map_err(FrontendErrorKind::Input)?;
        }
        let target = input.target.clone();
        Ok(target.map(|edge| self.origins.outside(edge)))
    }
}
