//! What is to be built: a definition as it is, or what a front end makes of the client's files.

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use futures_util::future::{BoxFuture, FutureExt as _};
use rbuild_builder::front_ends;
use rbuild_builder::source_policy::SourcePolicies;
use tonic::Status;

use crate::answer::{Answer, BuildRef, Refs};
use crate::caps;
use crate::core::Core;
use crate::errors::{llb_status, refused};
use crate::forwarder::Forwarder;
use crate::running::Running;

mod contexts;
mod dockerfile;
mod gateway;
pub mod local;
mod subrequest;

/// Names of the Dockerfile front end that is part of this program.
pub const DOCKERFILE: &str = "dockerfile.v0";
/// The front end that runs others.
const GATEWAY: &str = "gateway.v0";

/// What a client asks to be built.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// A graph.
    pub definition: Option<pb::Definition>,
    /// Or the front end that makes one.
    pub frontend: String,
    /// Its options.
    pub attrs: BTreeMap<String, String>,
    /// Graphs that are given to it.
    pub inputs: BTreeMap<String, pb::Definition>,
    /// Rules for the sources of the graph, beside those of the build.
    pub policies: SourcePolicies,
}

impl Asked {
    /// Whether neither graph nor front end is named: the front end then runs in the client.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.frontend.is_empty() && self.definition.is_none()
    }
}

/// The answer to what is asked. Nothing is built that the answer itself does not need.
///
/// # Errors
/// Those of the front end, and `invalid_argument` for front ends there are none of.
pub fn answer<'a>(
    core: &'a Arc<Core>,
    running: &'a Arc<Running>,
    caller: &'a Arc<Forwarder>,
    asked: Asked,
) -> BoxFuture<'a, Result<Answer, Status>> {
    // A front end may ask for another one: the type has to end somewhere.
    answer_now(core, running, caller, asked).boxed()
}

async fn answer_now(
    core: &Arc<Core>,
    running: &Arc<Running>,
    caller: &Arc<Forwarder>,
    asked: Asked,
) -> Result<Answer, Status> {
    if asked.frontend.is_empty() {
        let Some(definition) = asked.definition else {
            return Ok(Answer::empty());
        };
        let found = self::definition(running, definition, asked.policies)?;
        if let Some(found) = &found {
            caller.scope.add(found);
        }
        return Ok(Answer {
            refs: Refs::One(found),
            ..Answer::empty()
        });
    }
    if asked.definition.is_some() {
        return Err(refused(format!(
            "invalid solve request: both a definition and frontend {} are given",
            asked.frontend
        )));
    }
    let allowed = &core.settings.front_ends;
    let scope = caller.scope.child(&asked);
    let answer = match asked.frontend.as_str() {
        DOCKERFILE if allowed.no_dockerfile => Err(switched_off(DOCKERFILE)),
        GATEWAY if allowed.no_gateway => Err(switched_off(GATEWAY)),
        DOCKERFILE => {
            dockerfile::answer(core, running, (caller, &scope), asked)
                .boxed()
                .await
        }
        GATEWAY => match asked.attrs.get("source").map(String::as_str) {
            Some(source) if !may_run(core, source) => Err(Status::unknown(format!(
                "'{source}' is not an allowed gateway source"
            ))),
            Some(source) if front_ends::is_own(source) => {
                dockerfile::answer(core, running, (caller, &scope), asked)
                    .boxed()
                    .await
            }
            Some(_) => {
                gateway::answer(core, running, caller, &scope, asked)
                    .boxed()
                    .await
            }
            None => Err(refused("no source specified for gateway")),
        },
        other => Err(refused(format!("invalid frontend: {other}"))),
    }?;
    for (_, found) in answer.all() {
        if let Some(found) = found {
            scope.add(found);
        }
    }
    scope.register(&core.producers, &answer);
    Ok(answer)
}

/// A front end that the configuration forbids is one that there is not.
fn switched_off(name: &str) -> Status {
    refused(format!("invalid frontend: {name}"))
}

/// Whether the configuration lets `source` be a front end; what is no image's name is judged later.
fn may_run(core: &Core, source: &str) -> bool {
    rbuild_oci::Reference::parse(source).map_or(true, |reference| core.settings.front_ends.allow(&reference))
}

/// A definition as a file system.
///
/// # Errors
/// A refusal.
pub fn definition(
    running: &Running,
    definition: pb::Definition,
    policies: SourcePolicies,
) -> Result<Option<Arc<BuildRef>>, Status> {
    let decoded = running
        .resources
        .decode(&definition)
        .map_err(|error| llb_status(&error))?;
    let needed = decoded.caps.iter().map(String::as_str);
    caps::check_definition(needed).map_err(|error| Status::unimplemented(error.to_string()))?;
    let Some(target) = decoded.target else {
        return Ok(None);
    };
    running.events.name_vertices(&decoded.digests);
    let graph = Arc::new(decoded.graph);
    let found = BuildRef::new(graph, Some(target), Some(definition));
    let found = found.with_policies(policies).with_digests(decoded.digests);
    Ok(Some(Arc::new(found)))
}
