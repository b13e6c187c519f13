//! A main context from the network: brought by the solver like any source, before the Dockerfile in it can be read.
//! What is learnt on the way stays known to the build that follows, so nothing is asked or fetched twice.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use rbuild_frontend::{RemoteContext, redact_credentials};
use rbuild_graph::{Edge, Graph};
use rbuild_layer::{Compression, DecompressLimits};
use rbuild_sys::RootFd;
use rustix::fs::{Mode, OFlags};
use tokio_util::sync::CancellationToken;

use crate::build::solve_edge;
use crate::context::{self, OpenContextError, Opened};
use crate::error::BuildError;
use crate::job::Job;
use crate::ops::{blocking, view};
use crate::request::{BuildRequest, DockerfileSource};
use crate::solve::Reporter;
use crate::value::Chain;

/// How much of a file is looked at to tell an archive from a Dockerfile, bytes (`frontend/dockerui/context.go`).
const DETECT_BYTES: u64 = 1024;
/// Build argument that keeps `.git` in a context.
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";
/// Build argument that gives files the time of their commit.
const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Opens the context that `url` names.
///
/// # Errors
/// [`OpenContextError::Remote`] if it names none; those of its source; those of the Dockerfile.
pub(crate) async fn open(
    job: &Arc<Job>,
    request: &BuildRequest,
    url: &str,
    cancel: &CancellationToken,
) -> Result<Opened, BuildError> {
    Opening { job, request, cancel }.open(url).await
}

/// What a remote context is opened with.
struct Opening<'a> {
    job: &'a Arc<Job>,
    request: &'a BuildRequest,
    cancel: &'a CancellationToken,
}

impl Opening<'_> {
    async fn open(&self, url: &str) -> Result<Opened, BuildError> {
        let is_true = |name: &str| {
            let text = self.request.build_args.get(name);
            text.and_then(|text| rbuild_dockerfile::csv::boolean(text))
                .unwrap_or(false)
        };
        let with_epoch = self
            .request
            .build_args
            .get(SOURCE_DATE_EPOCH)
            .is_some_and(|text| !text.is_empty());
        let parsed = RemoteContext::parse(url, is_true(KEEP_GIT_DIR), with_epoch);
        let mut remote = parsed
            .map_err(OpenContextError::Remote)?
            .ok_or_else(|| OpenContextError::NoRemote(redact_credentials(url)))?;
        let mut dockerfile = self.request.dockerfile.clone();
        if let Some(file) = remote.file {
            let mut graph = Graph::default();
            let edge = remote.add_source_to(&mut graph);
            let (_, chain) = self
                .solve(graph, edge, "failed to read downloaded context")
                .await?;
            let root = self.root(&chain).await?;
            remote.is_archive = is_archive(&root, file)?;
            if !remote.is_archive && matches!(dockerfile, DockerfileSource::InContext(_)) {
                dockerfile = DockerfileSource::InContext(file.to_owned());
            }
        }
        let mut graph = Graph::default();
        let edge = remote.add_to(&mut graph);
        let source = remote.add_source_to(&mut graph);
        let (graph, chain) = self.solve(graph, edge, "failed to read dockerfile").await?;
        let root = self.root(&chain).await?;
        let shown = redact_credentials(url);
        let filename = context::name(&dockerfile);
        let text = blocking(move || context::read_dockerfile(&root, Path::new(&shown), &dockerfile)).await?;
        let load = match graph.get(&source.vertex) {
            Some(vertex) => Reporter::of(&self.job.sink, &source.vertex, vertex),
            None => Reporter::internal(&self.job.sink, &remote.name),
        };
        Ok(Opened {
            context: None,
            remote: Some(remote),
            dockerfile: text.0,
            filename,
            // As in BuildKit, whose ignore file is the client's.
            ignore_patterns: Vec::new(),
            ignore_place: String::new(),
            load,
        })
    }

    /// Brings what is behind `target`. `words` say what is tried (`frontend/dockerui/context.go`).
    async fn solve(
        &self,
        graph: Graph,
        target: Edge,
        words: &'static str,
    ) -> Result<(Arc<Graph>, Chain), BuildError> {
        let graph = Arc::new(graph);
        let chain = solve_edge(self.job, &graph, target, self.cancel.clone()).await;
        let chain = chain.map_err(|error| match error {
            BuildError::Step {
                vertex,
                place,
                failed,
                error,
            } => BuildError::Step {
                vertex,
                place,
                failed,
                error: Box::new(error.during(words)),
            },
            other => other,
        })?;
        Ok((graph, chain))
    }

    async fn root(&self, chain: &Chain) -> Result<Arc<RootFd>, BuildError> {
        let root = view::root(self.job, chain).await;
        let root = root.map_err(|error| BuildError::Step {
            vertex: None,
            place: None,
            failed: None,
            error: Box::new(error),
        })?;
        Ok(Arc::new(root))
    }
}

/// Whether the file begins as an archive does: with the mark of a compression, or with a tar header.
fn is_archive(root: &RootFd, file: &str) -> Result<bool, OpenContextError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = root
        .open_in(Path::new(file), flags, Mode::empty())
        .map_err(|source| OpenContextError::Dockerfile {
            name: file.to_owned(),
            source,
        })?;
    let mut start = Vec::new();
    std::fs::File::from(opened)
        .take(DETECT_BYTES)
        .read_to_end(&mut start)
        .map_err(OpenContextError::Spool)?;
    Ok(begins_as_archive(&start))
}

fn begins_as_archive(start: &[u8]) -> bool {
    match Compression::detect(start) {
        Compression::Gzip | Compression::Bzip2 | Compression::Xz => true,
        Compression::Zstd => false,
        Compression::None => rbuild_layer::is_archive(start, &DecompressLimits::allowed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_from_dockerfiles_by_their_beginning() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(5000);
        header.set_cksum();
        tar.append_data(&mut header, "a", &[7_u8; 5000][..]).unwrap();
        let tar = tar.into_inner().unwrap();
        assert!(begins_as_archive(&tar[..1024]));
        for start in [&b"\x1f\x8b\x08rest"[..], b"BZh9", b"\xfd7zXZ\0"] {
            assert!(begins_as_archive(start), "{start:?}");
        }
        for start in [&b"FROM scratch\n"[..], b"", &[0; 1024], b"\x28\xb5\x2f\xfdzstd"] {
            assert!(!begins_as_archive(start), "{start:?}");
        }
    }
}
