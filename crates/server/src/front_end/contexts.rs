//! Contexts of the Dockerfile front end as API clients give them: graphs (`FrontendInputs`), repositories and archives
//! behind addresses, and what the client's own directories are (`frontend/dockerui/context.go`, `config.go`).

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use rbuild_builder::error::chain_text;
use rbuild_builder::ops::blocking;
use rbuild_builder::solve::Reporter;
use rbuild_fileops::SourceTree;
use rbuild_frontend::{ClientContexts, InputGraph, RemoteContext, add_subdirectory};
use rbuild_graph::{Edge, Graph};
use rbuild_layer::{Compression, DecompressLimits};
use rbuild_llb::attrs::{DockerfileAttrs, input_metadata};
use rbuild_llb::errors::sentence;
use rbuild_sys::RootFd;
use rustix::fs::{Mode, OFlags};
use tonic::Status;

use crate::answer::{BuildRef, CONFIG};
use crate::errors::{llb_status, prefixed};
use crate::read_ref;
use crate::resources::Resources;
use crate::running::Running;
use crate::scope::Scope;

/// How much of it is looked at to tell an archive from a Dockerfile, bytes.
const DETECT_BYTES: u64 = 1024;
/// Name of the main context among inputs.
const MAIN: &str = "context";

/// Where a build's files come from.
#[derive(Debug, Default)]
pub(super) struct Contexts {
    /// The main context, if it is no directory of the client.
    pub(super) main: Option<InputGraph>,
    /// Where the Dockerfile is, if it is in no directory of the client.
    pub(super) dockerfile: Option<InputGraph>,
    /// What names of the client refer to.
    pub(super) clients: ClientContexts,
}

impl Contexts {
    /// Finds out where the files are. A context that is one file and no archive is the Dockerfile: then `attrs` get its
    /// name.
    ///
    /// # Errors
    /// Those of decoding inputs and of fetching a context behind an address.
    pub(super) async fn open(
        running: &Running,
        scope: &Scope,
        attrs: &mut DockerfileAttrs,
        given: &BTreeMap<String, pb::Definition>,
    ) -> Result<Self, Status> {
        let inputs = inputs(&running.resources, given, &attrs.input_metadata)?;
        let mut contexts = match &attrs.context.remote {
            Some(address) => remote(running, scope, address, attrs).await?,
            None => None,
        };
        if let Some((_, Some(file))) = &contexts {
            attrs.filename.clone_from(file);
        }
        let (mut main, mut dockerfile) = match contexts.take() {
            Some((remote, _)) => (Some(remote.clone()), Some(remote)),
            None => (
                inputs.get(MAIN).cloned(),
                inputs.get(&attrs.context.dockerfile_local).cloned(),
            ),
        };
        if attrs.context.force_local_dockerfile {
            dockerfile = None;
        }
        if let (Some(whole), Some(subdir)) = (&main, &attrs.context.subdir) {
            main = Some(below(whole, subdir));
        }
        Ok(Self {
            main,
            dockerfile,
            clients: ClientContexts {
                session_id: running.session.clone(),
                local_session_ids: attrs.local_session_ids.clone(),
                shared_keys: attrs.shared_keys.clone(),
                inputs,
            },
        })
    }
}

/// The graphs a client gives, with what it says of the images they are.
fn inputs(
    resources: &Resources,
    given: &BTreeMap<String, pb::Definition>,
    metadata: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, InputGraph>, Status> {
    let mut inputs = BTreeMap::new();
    for (name, definition) in given {
        // As BuildKit's `IsNil`: an absent definition and an empty one are the same message.
        if definition.metadata.is_empty() {
            return Err(Status::unknown(
                "failed to get frontend inputs: invalid nil input definition to definition op",
            ));
        }
        let decoded = resources.decode(definition).map_err(|error| llb_status(&error))?;
        let mut config = None;
        if let Some(text) = metadata.get(name) {
            let mut read = input_metadata(text).map_err(|error| Status::unknown(sentence(&error)))?;
            config = read.remove(CONFIG);
        }
        let input = InputGraph {
            graph: Arc::new(decoded.graph),
            target: decoded.target,
            config,
        };
        inputs.insert(name.clone(), input);
    }
    Ok(inputs)
}

/// The context behind an address, with the name of its file if that is no archive; `None` if it is no address.
async fn remote(
    running: &Running,
    scope: &Scope,
    address: &str,
    attrs: &DockerfileAttrs,
) -> Result<Option<(InputGraph, Option<String>)>, Status> {
    let keep_git_dir = attrs.context.keep_git_dir == Some(true);
    let epoch = attrs.build_args.get("SOURCE_DATE_EPOCH");
    let parsed = RemoteContext::parse(address, keep_git_dir, epoch.is_some_and(|text| !text.is_empty()));
    let parsed = parsed.map_err(|error| Status::unknown(chain_text(&error)))?;
    let Some(mut remote) = parsed else { return Ok(None) };
    let Some(file) = remote.file else {
        return Ok(Some((given(|graph| remote.add_to(graph)), None)));
    };
    let source = given(|graph| remote.add_source_to(graph));
    let tree = tree(running, scope, &source).await;
    let tree = tree.map_err(|error| prefixed(&error, "failed to read downloaded context"))?;
    remote.is_archive = blocking(move || is_archive(tree.root(), file)).await?;
    let name = (!remote.is_archive).then(|| file.to_owned());
    Ok(Some((given(|graph| remote.add_to(graph)), name)))
}

/// Whether the file begins as an archive does: with the mark of a compression, or with a tar header.
fn is_archive(root: &RootFd, file: &str) -> Result<bool, Status> {
    let fail = |text: String| Status::unknown(format!("failed to read downloaded context: {text}"));
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = root.open_in(Path::new(file), flags, Mode::empty());
    let opened = opened.map_err(|error| fail(chain_text(&error)))?;
    let mut start = Vec::new();
    let read = std::fs::File::from(opened)
        .take(DETECT_BYTES)
        .read_to_end(&mut start);
    read.map_err(|error| fail(error.to_string()))?;
    Ok(begins_as_archive(&start))
}

fn begins_as_archive(start: &[u8]) -> bool {
    match Compression::detect(start) {
        Compression::Gzip | Compression::Bzip2 | Compression::Xz => true,
        Compression::Zstd => false,
        Compression::None => rbuild_layer::is_archive(start, &DecompressLimits::default()),
    }
}

/// The files of a graph, built if nobody has built them yet.
///
/// # Errors
/// Those of building it.
pub(super) async fn tree(
    running: &Running,
    scope: &Scope,
    built: &InputGraph,
) -> Result<Arc<SourceTree>, Status> {
    let found = BuildRef::new(Arc::clone(&built.graph), built.target.clone(), None);
    let found = Arc::new(found);
    scope.add(&found);
    read_ref::tree(running, Some(&found)).await
}

/// Where warnings about a file of a graph belong: its target. `None` for an empty one.
pub(super) fn reporter(running: &Running, built: &InputGraph) -> Option<Reporter> {
    let target = &built.target.as_ref()?.vertex;
    let vertex = built.graph.get(target)?;
    Some(Reporter::of(&running.job.sink, target, vertex))
}

/// What `add` puts into a graph of its own.
fn given(add: impl FnOnce(&mut Graph) -> Edge) -> InputGraph {
    let mut graph = Graph::default();
    let target = add(&mut graph);
    InputGraph {
        graph: Arc::new(graph),
        target: Some(target),
        config: None,
    }
}

/// An empty file system with what is in `subdirectory` of `from`.
fn below(from: &InputGraph, subdirectory: &str) -> InputGraph {
    let Some(target) = &from.target else {
        return from.clone();
    };
    let mut graph = Graph::clone(&from.graph);
    let target = add_subdirectory(&mut graph, target.clone(), subdirectory);
    InputGraph {
        graph: Arc::new(graph),
        target: Some(target),
        config: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_graph::{Op, SourceOp, Vertex};

    fn definition() -> pb::Definition {
        let graph = given(|graph| {
            let source = SourceOp {
                identifier: "local://x".to_owned(),
                attrs: BTreeMap::new(),
            };
            let vertex = Vertex::new(Op::Source(source), Vec::new());
            let vertex = graph.add(vertex).unwrap();
            Edge { vertex, output: 0 }
        });
        rbuild_llb::encode(&graph.graph, graph.target.as_ref().unwrap()).unwrap()
    }

    #[test]
    fn inputs_are_graphs_with_the_config_the_client_gives() {
        let given = BTreeMap::from([("base".to_owned(), definition())]);
        let metadata = r#"{"containerimage.config":"e30="}"#.to_owned();
        let metadata = BTreeMap::from([("base".to_owned(), metadata)]);
        let found = inputs(&Resources::default(), &given, &metadata)
            .unwrap()
            .remove("base")
            .unwrap();
        assert_eq!(
            (found.graph.len(), found.config.as_deref()),
            (1, Some(&b"{}"[..]))
        );
        let sub = below(&found, "a/../b");
        let target = sub.graph.get(&sub.target.unwrap().vertex).unwrap();
        assert_eq!(target.meta.name, "copy /b /");
    }

    #[test]
    fn row48_inputs_that_are_none_are_refused() {
        let nil = BTreeMap::from([("context".to_owned(), pb::Definition::default())]);
        let error = inputs(&Resources::default(), &nil, &BTreeMap::new()).unwrap_err();
        let text = "failed to get frontend inputs: invalid nil input definition to definition op";
        assert_eq!(error.message(), text);
        let mut broken = definition();
        broken.def[0] = b"\xff".to_vec();
        assert!(
            inputs(
                &Resources::default(),
                &BTreeMap::from([("a".to_owned(), broken)]),
                &BTreeMap::new()
            )
            .is_err()
        );
        let given = BTreeMap::from([("a".to_owned(), definition())]);
        let metadata = BTreeMap::from([("a".to_owned(), "{".to_owned())]);
        assert!(inputs(&Resources::default(), &given, &metadata).is_err());
        assert!(inputs(&Resources::default(), &given, &BTreeMap::new()).is_ok());
    }

    #[test]
    fn archives_are_told_from_dockerfiles_by_their_beginning() {
        for start in [&b"\x1f\x8b\x08rest"[..], b"BZh9", b"\xfd7zXZ\0"] {
            assert!(begins_as_archive(start), "{start:?}");
        }
        for start in [&b"FROM scratch\n"[..], b"", &[0; 1024]] {
            assert!(!begins_as_archive(start), "{start:?}");
        }
    }
}
