//! `gateway.v0`: front ends that are images (`frontend/gateway`). The image is found as a base image would be, its program
//! runs in a sandbox as a step would, and over its input and output it speaks to a gateway of its own. What it returns
//! is the answer.
//!
//! The image is as little trusted as a client: it is given the options of the build and nothing of the host, and what it
//! asks for is bounded and allowed as if the client had asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use rbuild_builder::error::chain_text;
use rbuild_builder::front_ends::Syntax;
use rbuild_builder::source_meta::MetaQuestion;
use rbuild_graph::{Edge, Graph, Op, SourceOp, Vertex, VertexMeta};
use rbuild_llb::errors::Detail;
use rbuild_oci::{ImageConfig, Reference};
use tonic::Status;

use super::{Asked, GATEWAY, subrequest};
use crate::answer::{Answer, BuildRef};
use crate::core::Core;
use crate::errors::{annotated, llb_status, refused};
use crate::forwarder::Forwarder;
use crate::meta;
use crate::running::Running;
use crate::scope::Scope;

mod environment;
mod process;

/// Front ends that may stand on each other: one that only calls itself ends there.
const DEPTH_MAX: usize = 8;
/// Label of an image: what the front end in it can do (`frontend/gateway/gateway.go`).
const LABEL_CAPS: &str = "moby.buildkit.frontend.caps";
/// Label of an image: it needs no network.
const LABEL_NO_NETWORK: &str = "moby.buildkit.frontend.network.none";
/// What a front end must know to be given inputs.
const CAP_INPUTS: &str = "moby.buildkit.frontend.inputs";

/// The image of a front end.
struct Image {
    files: BuildRef,
    config: ImageConfig,
}

/// Runs the front end that `asked` names, and gives its answer.
///
/// # Errors
/// Those of finding the image, `unimplemented` for what it cannot do, and the front end's own.
pub(super) async fn answer(
    core: &Arc<Core>,
    running: &Arc<Running>,
    caller: &Forwarder,
    scope: &Arc<Scope>,
    asked: Asked,
) -> Result<Answer, Status> {
    let source = asked.attrs.get("source").cloned().unwrap_or_default();
    let answered = run(core, running, (caller, scope), &source, asked).await;
    answered.map_err(|status| {
        let name = GATEWAY.to_owned();
        annotated(&status, &[Detail::Frontend { name, source }])
    })
}

async fn run(
    core: &Arc<Core>,
    running: &Arc<Running>,
    (caller, scope): (&Forwarder, &Arc<Scope>),
    source: &str,
    asked: Asked,
) -> Result<Answer, Status> {
    if asked.attrs.contains_key("gateway-devel") {
        return Err(Status::unknown("development gateway is no longer supported"));
    }
    if caller.depth >= DEPTH_MAX {
        let text = format!("more than {DEPTH_MAX} front ends call each other");
        return Err(Status::resource_exhausted(text));
    }
    let image = find(running, scope, source, &asked).await?;
    check_caps(&image.config, &asked)?;
    process::run(core, running, caller, scope, &image, asked).await
}

/// The image `source` names: by the client's own word for it (`context:NAME`), else in a registry.
async fn find(running: &Running, scope: &Scope, source: &str, asked: &Asked) -> Result<Image, Status> {
    let named = asked.attrs.get(&format!("context:{source}"));
    let reference = match named.map(|value| value.split_once(':').unwrap_or((value, ""))) {
        None => source.to_owned(),
        Some(("docker-image", rest)) => rest.trim_start_matches("//").to_owned(),
        Some(("input", name)) => return given(running, asked, name),
        Some(_) => {
            let text = format!("unsupported context source for front end {source}");
            return Err(refused(text));
        }
    };
    let question = meta::Asked {
        source: meta::image_source(&reference)?,
        question: MetaQuestion::default(),
        policies: asked.policies.clone(),
    };
    let (source, found) = meta::resolve(running, scope, question).await?;
    let found = found
        .image
        .ok_or_else(|| meta::not_an_image(&reference, &source))?;
    let pinned = Reference::parse(meta::reference(&source))
        .map_err(|error| Status::unknown(chain_text(&error)))?
        .with_digest(found.digest.clone());
    let identifier = format!("docker-image://{pinned}");
    let mut graph = Graph::default();
    let vertex = graph.add(Vertex {
        op: Op::Source(SourceOp {
            identifier: identifier.clone(),
            attrs: BTreeMap::new(),
        }),
        inputs: Vec::new(),
        platform: Some(rbuild_oci::Platform::host()),
        constraints: Vec::new(),
        meta: VertexMeta {
            name: identifier,
            ..VertexMeta::default()
        },
    });
    let vertex = vertex.map_err(|error| Status::internal(error.to_string()))?;
    let target = Edge { vertex, output: 0 };
    let definition = rbuild_llb::encode(&graph, &target).ok();
    Ok(Image {
        files: BuildRef::new(Arc::new(graph), Some(target), definition),
        config: config(&found.config)?,
    })
}

/// An input of the build as the image, with the config that the client gives for it.
fn given(running: &Running, asked: &Asked, name: &str) -> Result<Image, Status> {
    let missing = || Status::unknown(format!("invalid input {name} for front end"));
    let input: pb::Definition = asked.inputs.get(name).cloned().ok_or_else(missing)?;
    let decoded = running
        .resources
        .decode(&input)
        .map_err(|error| llb_status(&error))?;
    let mut found = None;
    if let Some(text) = asked.attrs.get(&format!("input-metadata:{name}")) {
        let read = rbuild_llb::attrs::input_metadata(text);
        let mut read = read.map_err(|error| refused(chain_text(&error)))?;
        found = read.remove(crate::answer::CONFIG);
    }
    Ok(Image {
        files: BuildRef::new(Arc::new(decoded.graph), decoded.target, Some(input)),
        config: found.map_or_else(|| Ok(ImageConfig::default()), |bytes| config(&bytes))?,
    })
}

fn config(bytes: &[u8]) -> Result<ImageConfig, Status> {
    ImageConfig::parse(bytes).map_err(|error| Status::unknown(chain_text(&error)))
}

/// The names in a list such as `a+v1,b`.
fn names(list: &str) -> BTreeSet<&str> {
    let name = |cap: &'_ str| -> Option<usize> { cap.find('+') };
    list.split(',')
        .map(|cap| name(cap).map_or(cap, |end| &cap[..end]))
        .filter(|name| !name.is_empty())
        .collect()
}

/// Refuses a front end that lacks what the build needs of it.
fn check_caps(config: &ImageConfig, asked: &Asked) -> Result<(), Status> {
    let labels = &config.config.labels;
    let has = names(labels.get(LABEL_CAPS).map_or("", String::as_str));
    let mut needed = names(asked.attrs.get("frontend.caps").map_or("", String::as_str));
    if !asked.inputs.is_empty() {
        needed.insert(CAP_INPUTS);
    }
    match needed.difference(&has).next() {
        None => Ok(()),
        Some(missing) => Err(subrequest::missing_cap(missing)),
    }
}

/// Hands the whole build over to another front end (`frontend/dockerfile/builder`, `forwardGateway`).
///
/// # Errors
/// Those of the front end, and of a configuration that forbids it.
pub(super) async fn forward(
    core: &Arc<Core>,
    running: &Arc<Running>,
    caller: &Arc<Forwarder>,
    mut asked: Asked,
    syntax: &Syntax,
) -> Result<Answer, Status> {
    asked.attrs.insert("cmdline".to_owned(), syntax.line.clone());
    asked.attrs.insert("source".to_owned(), syntax.image().to_owned());
    asked.frontend = GATEWAY.to_owned();
    super::answer(core, running, caller, asked).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(caps: &str) -> ImageConfig {
        let mut config = ImageConfig::default();
        config
            .config
            .labels
            .insert(LABEL_CAPS.to_owned(), caps.to_owned());
        config
    }

    #[test]
    fn what_a_build_needs_a_front_end_must_say_it_has() {
        let needs = |text: &str| Asked {
            attrs: BTreeMap::from([("frontend.caps".to_owned(), text.to_owned())]),
            ..Asked::default()
        };
        check_caps(&image("a,b+v2,,"), &needs("b")).unwrap();
        check_caps(&image("a+x"), &needs("a+y")).unwrap();
        let status = check_caps(&image("a"), &needs("a,c")).unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unimplemented);
        assert!(status.message().contains("capability c"), "{}", status.message());
        let with_inputs = Asked {
            inputs: BTreeMap::from([("x".to_owned(), pb::Definition::default())]),
            ..Asked::default()
        };
        check_caps(&image("a"), &with_inputs).unwrap_err();
        check_caps(&image(CAP_INPUTS), &with_inputs).unwrap();
    }
}
