//! A build from request to outcome: open, lower, solve, export.

mod asked;
mod attestations;
mod definition;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rbuild_fileops::SourceTree;
use rbuild_frontend::subrequest::{GivenAnswer, Subrequest};
use rbuild_frontend::{FrontendOptions, LintWarning, Lowered};
use rbuild_graph::progress::Sink;
use rbuild_graph::{Edge, Graph, NetMode, SourceText};
use rbuild_layer::LayerFormat;
use rbuild_oci::{Digest, ImageConfig, Platform};
use rbuild_store::Lease;
use tokio_util::sync::CancellationToken;

use crate::cache_transfer;
use crate::cdi::CdiConfig;
use crate::client::HostClient;
use crate::context::{self, Opened};
use crate::engine::Engine;
use crate::error::{BuildError, Place};
use crate::export::{self, BuildResult, Export, PlatformSubject, Subject};
use crate::failed_step::{self, UserTerminal};
use crate::front_ends::layouts::{self, LayoutStores};
use crate::front_ends::{self, FrontEndFailed, FrontEnds, SYNTAX_ARG, Syntax};
use crate::job::{Job, Settings};
use crate::ops::{OpError, blocking, host_ca, local};
use crate::provenance::capture::ImageSource;
use crate::request::{
    BuildOutcome, BuildRequest, CacheTarget, ContextSource, DockerfileSource, Entitlement, NoCache,
};
use crate::resolve::Resolver;
use crate::secrets::Secrets;
use crate::solve::{SolveError, solve};
use crate::source_policy::{self, SourcePolicies};
use crate::ssh::SshAgents;
use crate::start_check;
use crate::straight::{self, Wanted};
use crate::value::{Chain, Value};
use crate::{remote_context, remote_dockerfile};

pub use attestations::AttestError;
use attestations::{Attester, Source};
pub use definition::build_definition;

/// What a build cannot do itself.
#[derive(Debug)]
pub struct Helpers {
    /// Reads Dockerfiles that name a front end which is an image.
    pub front_ends: Arc<dyn FrontEnds>,
    /// Where the user sits, to look at a step that failed.
    pub terminal: Option<Arc<dyn UserTerminal>>,
}

/// Builds what `request` asks for.
///
/// # Errors
/// [`BuildError`], with the lines of the Dockerfile where there are any.
pub async fn build(
    engine: Arc<Engine>,
    request: BuildRequest,
    sink: Arc<dyn Sink>,
    cancel: CancellationToken,
    helpers: Helpers,
) -> Result<BuildOutcome, BuildError> {
    let request = Arc::new(request);
    let plan = export::plan(&request)?;
    let prepared = prepare(engine, Arc::clone(&request), sink, &cancel).await?;
    let job = &prepared.job;
    cache_transfer::import::all(job, &request.cache_from).await?;
    let mut outcome = BuildOutcome::default();
    let answered = match prepared.foreign() {
        Some(syntax) => prepared.answer_of(&syntax, &*helpers.front_ends, &cancel).await,
        None => {
            let form = straight::form_of(&request, &plan);
            prepared.own_answer(&mut outcome, form, &cancel).await
        }
    };
    let result = match answered {
        Ok(result) => result,
        Err(error) => {
            return Err(failed_step::attend(job, helpers.terminal.as_deref(), &cancel, error).await);
        }
    };
    deliver(job, &result, plan, &request, &mut outcome).await?;
    if let [only] = result.subjects.as_slice() {
        outcome
            .warnings
            .extend(start_check::warning(job, &only.subject, &job.sink).await);
    }
    Ok(outcome)
}

/// Gives the result to whom the request says, and its cache.
async fn deliver(
    job: &Arc<Job>,
    result: &BuildResult,
    plan: Vec<Export>,
    request: &BuildRequest,
    outcome: &mut BuildOutcome,
) -> Result<(), BuildError> {
    export::all(job, result, plan, outcome).await?;
    if let Some(written) = cache_transfer::export::all(job, result, &request.cache_to).await? {
        outcome.note_cache(&written);
    }
    Ok(())
}

/// A request whose context and Dockerfile are open.
pub(crate) struct Prepared {
    request: Arc<BuildRequest>,
    opened: Opened,
    pub(crate) job: Arc<Job>,
}

impl Prepared {
    /// What the front end is to know for one platform; `None` is the own one.
    pub(crate) fn options(&self, platform: Option<Platform>) -> FrontendOptions {
        asked::options(&self.request, &self.opened, platform)
    }

    /// What another front end makes of the request.
    async fn answer_of(
        &self,
        syntax: &Syntax,
        front_ends: &dyn FrontEnds,
        cancel: &CancellationToken,
    ) -> Result<BuildResult, BuildError> {
        let attrs = self.attrs(syntax).await?;
        let answered = front_ends.answer(&self.job, attrs, cancel).await;
        if cancel.is_cancelled() {
            return Err(BuildError::Canceled);
        }
        answered.map_err(|source| self.foreign_failed(syntax, source))
    }

    /// What another front end answers to a question; nothing if it does not know it.
    pub(crate) async fn question(
        &self,
        syntax: &Syntax,
        subrequest: Subrequest,
        front_ends: &dyn FrontEnds,
        cancel: &CancellationToken,
    ) -> Result<Option<GivenAnswer>, BuildError> {
        let mut attrs = self.attrs(syntax).await?;
        attrs.extend(front_ends::question_attrs(subrequest));
        match front_ends.question(&self.job, attrs, cancel).await {
            _ if cancel.is_cancelled() => Err(BuildError::Canceled),
            Ok(metadata) => Ok(Some(GivenAnswer::new(subrequest, metadata))),
            Err(failed) if failed.is_unsupported => Ok(None),
            Err(failed) => Err(self.foreign_failed(syntax, failed)),
        }
    }

    /// The front end that is to read the Dockerfile, if it is not the one in this program.
    pub(crate) fn foreign(&self) -> Option<Syntax> {
        foreign(&self.request, &self.opened)
    }

    /// The request in the words of front ends.
    async fn attrs(&self, syntax: &Syntax) -> Result<BTreeMap<String, String>, BuildError> {
        let mut attrs = front_ends::attrs(&self.request, &base_name(&self.opened.filename), syntax);
        let request = Arc::clone(&self.request);
        attrs.extend(blocking(move || layouts::attrs(&request.build_contexts)).await?);
        Ok(attrs)
    }

    fn foreign_failed(&self, syntax: &Syntax, source: FrontEndFailed) -> BuildError {
        let named = || {
            let line = syntax.place?;
            Some(Place {
                source: SourceText {
                    filename: self.opened.filename.clone(),
                    text: self.opened.dockerfile.clone(),
                    language: rbuild_frontend::LANGUAGE.to_owned(),
                    definition: None,
                },
                lines: (line, line),
                all: Vec::new(),
            })
        };
        BuildError::ForeignFrontEnd {
            image: syntax.image().to_owned(),
            place: source.place.clone().or_else(named),
            source,
        }
    }

    /// What the front end in this program makes of it.
    async fn own_answer(
        &self,
        outcome: &mut BuildOutcome,
        form: Option<LayerFormat>,
        cancel: &CancellationToken,
    ) -> Result<BuildResult, BuildError> {
        let job = &self.job;
        let platforms = asked::platforms(&self.request)?;
        let is_index = asked::is_index(&self.request, platforms.len() > 1)?;
        let resolver = Resolver::new(job, cancel);
        let mut parts = Vec::with_capacity(platforms.len());
        for platform in platforms {
            let mut options = self.options(platform);
            options.multi_platform = is_index;
            options.later_platform = !parts.is_empty();
            let lowered = lower(&resolver, &options, cancel).await?;
            if parts.is_empty() {
                // The same file has the same faults for every platform.
                outcome.warnings = warn(&lowered.warnings, &self.opened);
            }
            parts.push(lowered);
        }
        let attester = Attester::new(&self.request, &resolver).await?;
        if attester.tells_usage() {
            job.usage.record();
        }
        let images = resolver.looked_at();
        let build = Solving {
            job,
            attester: &attester,
            images: &images,
            form,
            cancel,
        };
        let solving = parts.into_iter().map(|lowered| build.part(lowered));
        let subjects = futures_util::future::try_join_all(solving).await?;
        Ok(BuildResult { subjects, is_index })
    }

    /// Sends the front end's warnings.
    pub(crate) fn warn(&self, warnings: &[LintWarning]) {
        warn(warnings, &self.opened);
    }
}

/// Opens what `request` names.
pub(crate) async fn prepare(
    engine: Arc<Engine>,
    request: Arc<BuildRequest>,
    sink: Arc<dyn Sink>,
    cancel: &CancellationToken,
) -> Result<Prepared, BuildError> {
    let lease = Arc::new(engine.store.lease("build")?);
    let request = remote_dockerfile::fetched(&engine, request).await?;
    let (job, opened) = match &request.context {
        ContextSource::Remote(url) => {
            let job = Arc::new(job(engine, lease, &request, None, None, sink)?);
            let opened = remote_context::open(&job, &request, url, cancel).await?;
            (job, opened)
        }
        _ => {
            let opened = {
                let (lease, request, sink) = (Arc::clone(&lease), Arc::clone(&request), Arc::clone(&sink));
                let form = engine.form;
                blocking(move || context::open(&lease, form, &request.context, &request.dockerfile, &sink))
                    .await?
            };
            let given = foreign(&request, &opened).map(|_| {
                let filename = base_name(&opened.filename);
                front_ends::given_dockerfile(&lease, &filename, &opened.dockerfile, &opened.ignore_patterns)
            });
            let given = given.transpose()?;
            let context = opened.context.clone();
            let job = Arc::new(job(engine, lease, &request, context, given, sink)?);
            (job, opened)
        }
    };
    Ok(Prepared { request, opened, job })
}

/// The build that `request` asks for, whose main context is `context` if it is of this machine.
fn job(
    engine: Arc<Engine>,
    lease: Arc<Lease>,
    request: &BuildRequest,
    context: Option<Arc<SourceTree>>,
    dockerfile: Option<Arc<SourceTree>>,
    sink: Arc<dyn Sink>,
) -> Result<Job, BuildError> {
    let client = Arc::new(HostClient {
        context,
        dockerfile,
        directories: request.build_contexts.clone(),
        layouts: LayoutStores::of(&request.build_contexts),
        locals: request.locals.clone(),
        secrets: Secrets::new(&request.secrets),
        ssh: Arc::new(SshAgents::new(&request.ssh)),
    });
    Ok(Job::new(engine, lease, client, settings(request)?, sink))
}

/// The front end that is to read the Dockerfile, if it is not the one in this program.
fn foreign(request: &BuildRequest, opened: &Opened) -> Option<Syntax> {
    let argument = request.build_args.get(SYNTAX_ARG).map(String::as_str);
    Syntax::foreign(argument, &opened.dockerfile)
}

/// The last part of a path as it was given.
pub(crate) fn base_name(filename: &str) -> String {
    let name = std::path::Path::new(filename).file_name();
    name.map_or_else(
        || "Dockerfile".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// Makes a graph of a Dockerfile, asking registries and the client of a build what the front end wants to know.
///
/// # Errors
/// [`BuildError::Frontend`], [`BuildError::Canceled`].
pub async fn lower(
    resolver: &Resolver<'_>,
    options: &FrontendOptions,
    cancel: &CancellationToken,
) -> Result<Lowered, BuildError> {
    let lowering = rbuild_frontend::lower(options, resolver);
    tokio::select! {
        lowered = lowering => lowered.map_err(|error| BuildError::Frontend {
            error,
            source_text: SourceText { filename: options.filename.clone(), text: options.dockerfile.clone(), language: rbuild_frontend::LANGUAGE.to_owned(), definition: options.definition.clone() },
        }),
        () = cancel.cancelled() => Err(BuildError::Canceled),
    }
}

/// What all results of a build are solved with.
struct Solving<'a> {
    job: &'a Arc<Job>,
    attester: &'a Attester<'a>,
    images: &'a BTreeSet<ImageSource>,
    /// The form of layers, if results are only exported.
    form: Option<LayerFormat>,
    cancel: &'a CancellationToken,
}

impl Solving<'_> {
    async fn part(&self, mut lowered: Lowered) -> Result<PlatformSubject, BuildError> {
        let graph = Arc::new(std::mem::take(&mut lowered.graph));
        let platform = Some(lowered.platform.clone());
        if let (Some(form), Some(target)) = (self.form, &lowered.result) {
            let wanted = Wanted::new(form, &lowered.image);
            self.job.finals.note(target.vertex.clone(), wanted);
        }
        let subject = subject(self.job, &lowered, &graph, self.cancel).await?;
        let mut part = PlatformSubject::new(platform, subject);
        let source = Source {
            graph: &graph,
            target: lowered.result.as_ref(),
            extras: &lowered.scan_targets,
            ignore_cache: lowered.ignore_cache,
            images: self.images,
        };
        self.attester
            .add(self.job, &mut part, &source, self.cancel)
            .await?;
        Ok(part)
    }
}

/// Solves what the front end made: an image but for its layers' blobs.
///
/// # Errors
/// Those of [`solve_edge`].
async fn subject(
    job: &Arc<Job>,
    lowered: &Lowered,
    graph: &Arc<Graph>,
    cancel: &CancellationToken,
) -> Result<Subject, BuildError> {
    let chain = match &lowered.result {
        Some(target) => solve_edge(job, graph, target.clone(), cancel.clone()).await?,
        None => Chain::default(),
    };
    let base_history = lowered
        .base_image
        .as_ref()
        .map_or(0, |base| common_history(base, &lowered.image));
    Ok(Subject {
        chain,
        config: lowered.image.clone(),
        base_history,
        epoch: lowered.epoch,
    })
}

/// Sends the front end's warnings, and gives them as lines.
fn warn(warnings: &[LintWarning], opened: &Opened) -> Vec<String> {
    for warning in warnings {
        let lines = vec![(warning.span.start, warning.span.end)];
        opened.load.warn(
            warning.short(),
            vec![warning.description.to_owned()],
            warning.url.to_owned(),
            Some((opened.filename.clone(), lines)),
        );
    }
    warnings.iter().map(LintWarning::short).collect()
}

fn settings(request: &BuildRequest) -> Result<Settings, BuildError> {
    let mut entitlements = request.entitlements.clone();
    if request.network == Some(NetMode::Host) {
        entitlements.push(Entitlement::NetworkHost);
    }
    let chosen = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty());
    let host_ca = request
        .host_ca
        .then(|| host_ca::Bundle::load(chosen.as_deref().map(std::path::Path::new)))
        .transpose()?;
    Ok(Settings {
        entitlements,
        cdi: Some(CdiConfig::default()),
        devices: request.devices.clone(),
        host_ca,
        shm_size_bytes: request.shm_size_bytes,
        rules: request.rules.clone(),
        fresh_mounts: request.no_cache == NoCache::All,
        site: site(request),
        jobs: request.jobs,
        policies: Arc::clone(&request.policies),
        inline_cache: request
            .cache_to
            .iter()
            .any(|export| export.target == CacheTarget::Inline),
        ..Settings::default()
    })
}

/// Names the project, so that a miss is compared with earlier builds of the same one.
fn site(request: &BuildRequest) -> String {
    let context = match &request.context {
        ContextSource::Empty => String::new(),
        ContextSource::Dir(path) => std::path::absolute(path)
            .unwrap_or_else(|_| path.clone())
            .display()
            .to_string(),
        ContextSource::Tar(_) => "tar".to_owned(),
        ContextSource::Remote(url) => url.clone(),
    };
    let dockerfile = match &request.dockerfile {
        DockerfileSource::File(path) => path.display().to_string(),
        DockerfileSource::Text(_) => "-".to_owned(),
        DockerfileSource::InContext(name) => name.clone(),
        DockerfileSource::Url(url) => url.shown().to_string(),
    };
    let digest = Digest::sha256(format!("{context}\0{dockerfile}").as_bytes());
    format!("{} ", &digest.hex()[..16])
}

/// History entries that `image` has from `base`: those it begins with, unchanged.
#[must_use]
pub fn common_history(base: &ImageConfig, image: &ImageConfig) -> usize {
    base.history
        .iter()
        .zip(&image.history)
        .take_while(|(old, new)| old == new)
        .count()
}

fn outside(error: OpError) -> BuildError {
    BuildError::Step {
        vertex: None,
        place: None,
        failed: None,
        error: Box::new(error),
    }
}

/// Solves one edge of `graph`, to layers: a directory of the client is copied into one.
///
/// # Errors
/// Those of [`ruled`] and [`solve_value`].
pub(crate) async fn solve_edge(
    job: &Arc<Job>,
    graph: &Arc<Graph>,
    target: Edge,
    cancel: CancellationToken,
) -> Result<Chain, BuildError> {
    let policies = &job.settings.policies;
    let (graph, target) = ruled(job, graph, target, policies, &cancel).await?;
    let value = solve_value(job, &graph, target, cancel).await?;
    to_chain(job, &value).await
}

/// The layers of a value; a directory of the client is copied into one.
///
/// # Errors
/// [`BuildError::Step`] without a vertex.
pub async fn to_chain(job: &Job, value: &Value) -> Result<Chain, BuildError> {
    local::chain(job, value).await.map_err(outside)
}

/// One edge of `graph` as it is when its sources follow `policies`.
///
/// # Errors
/// [`BuildError::Step`] without a vertex for what they refuse, [`BuildError::Canceled`].
pub async fn ruled(
    job: &Job,
    graph: &Arc<Graph>,
    target: Edge,
    policies: &SourcePolicies,
    cancel: &CancellationToken,
) -> Result<(Arc<Graph>, Edge), BuildError> {
    let rewritten = tokio::select! {
        rewritten = source_policy::rewrite(job, policies, graph, &target) => rewritten,
        () = cancel.cancelled() => return Err(BuildError::Canceled),
    };
    Ok(match rewritten.map_err(|error| outside(error.into()))? {
        Some((graph, target)) => (Arc::new(graph), target),
        None => (Arc::clone(graph), target),
    })
}

/// Solves one edge of `graph`, in which the rules for sources were followed.
///
/// # Errors
/// [`BuildError::Step`] with the lines of the Dockerfile it comes from, [`BuildError::Canceled`].
pub async fn solve_value(
    job: &Arc<Job>,
    graph: &Arc<Graph>,
    target: Edge,
    cancel: CancellationToken,
) -> Result<Value, BuildError> {
    let sink = Arc::clone(&job.sink);
    let solved = solve(Arc::clone(graph), &[target], Arc::clone(job), sink, cancel).await;
    let values = solved.map_err(|error| match error {
        SolveError::Canceled => BuildError::Canceled,
        SolveError::Vertex { digest, error } => BuildError::Step {
            place: Place::of(graph, &digest),
            failed: job.failures.of(graph, &digest),
            vertex: Some(digest),
            error: Box::new(error),
        },
        SolveError::Graph(_) => outside(OpError::NoSuchInput(None)),
    })?;
    let value = values.into_iter().next();
    value.ok_or_else(|| outside(OpError::NoSuchInput(None)))
}
