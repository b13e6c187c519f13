//! What is said of the results of a build that was asked for on this machine: lists of packages, and how they came to be.
//! The request is told as buildx would have sent it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rbuild_frontend::ImageResolveMode;
use rbuild_graph::{Edge, Graph, GraphError};
use tokio_util::sync::CancellationToken;

use super::solve_edge;
use crate::attestation::Attestation;
use crate::attestation::sbom::{self, Scanned, Scanner, ScannerError};
use crate::error::BuildError;
use crate::export::PlatformSubject;
use crate::job::Job;
use crate::provenance::capture::{Capture, ImageSource};
use crate::provenance::draft::{self, Draft, DraftError, Told};
use crate::provenance::options::{Options, OptionsError};
use crate::provenance::request::Request;
use crate::request::{BuildRequest, ContextSource, DockerfileSource, NoCache};
use crate::resolve::Resolver;

/// Why nothing can be said of a result.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// An attribute.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The scanner.
    #[error(transparent)]
    Scanner(#[from] ScannerError),
    /// What it was made of.
    #[error(transparent)]
    Capture(#[from] GraphError),
    /// How it was made.
    #[error(transparent)]
    Draft(#[from] DraftError),
}

/// What is wanted, found before anything is built.
pub(super) struct Attester<'a> {
    request: &'a BuildRequest,
    scanner: Option<Scanner>,
    provenance: Option<Options>,
}

/// Where a result is from.
pub(super) struct Source<'a> {
    pub(super) graph: &'a Arc<Graph>,
    /// Nothing is an empty result.
    pub(super) target: Option<&'a Edge>,
    /// What else a scanner may look at, by name.
    pub(super) extras: &'a BTreeMap<String, Option<Edge>>,
    /// Scan again, whatever the cache has.
    pub(super) ignore_cache: bool,
    /// Images that were looked at while it was lowered.
    pub(super) images: &'a BTreeSet<ImageSource>,
}

impl<'a> Attester<'a> {
    pub(super) async fn new(request: &'a BuildRequest, resolver: &Resolver<'_>) -> Result<Self, AttestError> {
        let provenance = request.attestations.provenance.as_ref();
        let scanner = match &request.attestations.sbom {
            None => None,
            Some(wanted) => {
                let mode = if request.pull {
                    ImageResolveMode::ForcePull
                } else {
                    ImageResolveMode::Default
                };
                let parameters = wanted.parameters.clone();
                Some(Scanner::find(resolver, &wanted.generator, mode, parameters).await?)
            }
        };
        Ok(Self {
            request,
            scanner,
            provenance: provenance.map(Options::parse).transpose()?,
        })
    }

    /// Whether it is told how busy the machine was.
    pub(super) fn tells_usage(&self) -> bool {
        let provenance = self.provenance.as_ref();
        provenance.is_some_and(|options| options.capture_usage)
    }

    /// Adds to `part` what is to be said of it.
    pub(super) async fn add(
        &self,
        job: &Arc<Job>,
        part: &mut PlatformSubject,
        source: &Source<'_>,
        cancel: &CancellationToken,
    ) -> Result<(), BuildError> {
        let Some(target) = source.target else {
            return Ok(());
        };
        let platform = part.runs_on();
        if let Some(scanner) = &self.scanner {
            let scanned = Scanned {
                name: &platform.to_string(),
                graph: source.graph,
                core: Some(target),
                extras: source.extras,
                ignore_cache: source.ignore_cache,
            };
            let step = scanner.scan(&scanned).map_err(AttestError::from)?;
            if let Some(target) = step.target {
                let found = solve_edge(job, &step.graph, target, cancel.clone()).await?;
                part.attestations.push(sbom::attestation(found));
            }
        }
        if let Some(options) = &self.provenance {
            let policies = &job.settings.policies;
            let (graph, ruled) = super::ruled(job, source.graph, target.clone(), policies, cancel).await?;
            let capture = draft::capture(job, &graph, &ruled).await;
            let mut capture = capture.map_err(AttestError::from)?;
            capture.merge(self.taken());
            let here = platform.to_string();
            let images = source.images.iter();
            let images = images.filter(|image| image.platform.as_deref().is_none_or(|of| of == here));
            capture.add_images(images.cloned());
            let told = Told {
                capture: &capture,
                request: Request::new("dockerfile.v0", &attrs(self.request)),
                graph: Some((source.graph, target)),
            };
            let draft = Draft::new(job, told, options.clone()).map_err(AttestError::from)?;
            part.attestations.push(Attestation::provenance(Arc::new(draft)));
        }
        Ok(())
    }

    /// What was read to make the graph: the Dockerfile and the ignore file.
    fn taken(&self) -> Capture {
        let mut taken = Capture::default();
        let is_local = !matches!(self.request.context, ContextSource::Remote(_));
        if is_local {
            taken.locals.insert("context".to_owned());
        }
        if is_local || !matches!(self.request.dockerfile, DockerfileSource::InContext(_)) {
            taken.locals.insert("dockerfile".to_owned());
        }
        taken
    }
}

/// The request as options of the Dockerfile front end. Paths of this machine are not said, as buildx does not.
fn attrs(request: &BuildRequest) -> BTreeMap<String, String> {
    let mut attrs = BTreeMap::new();
    let mut put = |key: String, value: &str| drop(attrs.insert(key, value.to_owned()));
    for (prefix, values) in [("build-arg", &request.build_args), ("label", &request.labels)] {
        for (name, value) in values {
            put(format!("{prefix}:{name}"), value);
        }
    }
    for (name, value) in &request.build_contexts {
        let is_place = value.contains("://") || value.starts_with("git@");
        let shown = if is_place {
            value.clone()
        } else {
            format!("local:{name}")
        };
        put(format!("context:{name}"), &shown);
    }
    if let Some(target) = &request.target {
        put("target".to_owned(), target);
    }
    if let ContextSource::Remote(url) = &request.context {
        put("context".to_owned(), url);
    }
    match &request.dockerfile {
        DockerfileSource::File(path) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            put("filename".to_owned(), &name);
        }
        DockerfileSource::InContext(name) => put("filename".to_owned(), name),
        DockerfileSource::Text(_) | DockerfileSource::Url(_) => put("filename".to_owned(), "Dockerfile"),
    }
    match &request.no_cache {
        NoCache::Off => {}
        NoCache::All => put("no-cache".to_owned(), ""),
        NoCache::Stages(stages) => put("no-cache".to_owned(), &stages.join(",")),
    }
    attrs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row41_a_request_is_told_without_places_of_this_machine() {
        let request = BuildRequest {
            dockerfile: DockerfileSource::File("/home/me/secret-project/My.Dockerfile".into()),
            build_args: [("A".to_owned(), "b".to_owned())].into(),
            build_contexts: [
                ("dir".to_owned(), "/home/me/other".to_owned()),
                ("image".to_owned(), "docker-image://x".to_owned()),
            ]
            .into(),
            no_cache: NoCache::Stages(vec!["a".to_owned(), "b".to_owned()]),
            ..BuildRequest::default()
        };
        let told = attrs(&request);
        assert!(!format!("{told:?}").contains("/home/me"));
        assert_eq!(told["filename"], "My.Dockerfile");
        assert_eq!(told["context:dir"], "local:dir");
        assert_eq!(told["context:image"], "docker-image://x");
        assert_eq!(
            (told["build-arg:A"].as_str(), told["no-cache"].as_str()),
            ("b", "a,b")
        );
    }
}
