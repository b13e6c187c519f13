//! A build from request to outcome: open, lower, solve, export.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rbuild_fileops::{IgnoreRules, LocalContext, SourceTree};
use rbuild_frontend::{FrontendOptions, ImageResolveMode, LintWarning, Lowered, lower};
use rbuild_graph::progress::Sink;
use rbuild_graph::{Edge, Graph, NetMode, Op, SourceText};
use rbuild_oci::{Digest, ImageConfig, Platform, Timestamp};
use rbuild_store::Lease;
use rbuild_sys::RootFd;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::context::{self, Opened};
use crate::engine::Engine;
use crate::error::{BuildError, Place, RequestError};
use crate::export::{self, Subject};
use crate::job::Job;
use crate::ops::source::Sources;
use crate::ops::{OpError, blocking, host_ca};
use crate::remote_context::Opening;
use crate::request::{BuildOutcome, BuildRequest, ContextSource, DockerfileSource, Entitlement, NoCache};
use crate::resolve::Resolver;
use crate::secrets::Secrets;
use crate::solve::{SolveError, solve};
use crate::ssh::SshAgents;
use crate::start_check;
use crate::value::{Chain, Value};

/// Steps that run at once when the user sets no limit: BuildKit has none, but every one holds processes and threads.
const STEPS_MAX: usize = 128;

/// Builds what `request` asks for.
///
/// # Errors
/// [`BuildError`], with the lines of the Dockerfile where there are any.
pub async fn build(
    engine: Arc<Engine>,
    request: BuildRequest,
    sink: Arc<dyn Sink>,
    cancel: CancellationToken,
) -> Result<BuildOutcome, BuildError> {
    let request = Arc::new(request);
    let plan = export::plan(&request)?;
    let epoch = epoch(&request)?;
    let lease = Arc::new(engine.store.lease("build")?);
    let sources = Arc::new(Sources::default());
    let opened = match &request.context {
        ContextSource::Remote(url) => {
            let opening = Opening {
                engine: &engine,
                lease: &lease,
                request: &request,
                sources: &sources,
                sink: &sink,
                cancel: &cancel,
            };
            opening.open(url).await?
        }
        _ => {
            let (lease, request, sink) = (Arc::clone(&lease), Arc::clone(&request), Arc::clone(&sink));
            let form = engine.form;
            blocking(move || context::open(&lease, form, &request.context, &request.dockerfile, &sink))
                .await?
        }
    };
    let resolver = Resolver {
        engine: Arc::clone(&engine),
        lease: Arc::clone(&lease),
        sink: Arc::clone(&sink),
    };
    let options = frontend_options(&request, &opened, epoch)?;
    let lowering = lower(&options, &resolver);
    let lowered: Lowered = tokio::select! {
        lowered = lowering => lowered.map_err(|error| BuildError::Frontend {
            error,
            source_text: SourceText {
                filename: opened.filename.clone(),
                text: opened.dockerfile.clone(),
                ..SourceText::default()
            },
        })?,
        () = cancel.cancelled() => return Err(BuildError::Canceled),
    };
    let mut outcome = BuildOutcome {
        warnings: warn(&lowered.warnings, &opened),
        ..BuildOutcome::default()
    };
    let graph = Arc::new(lowered.graph);
    let parts = Parts {
        engine,
        lease,
        sources,
        sink: Arc::clone(&sink),
    };
    let job = Arc::new(job(parts, &request, opened.context.as_ref(), &graph)?);
    let chain = match lowered.result {
        Some(target) => solve_result(&job, target, cancel).await?,
        None => Chain::default(),
    };
    let base_history = lowered
        .base_image
        .as_ref()
        .map_or(0, |base| common_history(base, &lowered.image));
    let subject = Subject {
        chain,
        config: lowered.image,
        base_history,
        epoch: lowered.epoch,
    };
    export::all(&job, &subject, plan, &mut outcome).await?;
    outcome
        .warnings
        .extend(start_check::warning(&job, &subject, &sink).await);
    Ok(outcome)
}

fn epoch(request: &BuildRequest) -> Result<Option<Timestamp>, BuildError> {
    let Some(seconds) = request.source_date_epoch else {
        return Ok(None);
    };
    let time = Timestamp::from_unix(seconds, 0).ok_or(RequestError::Epoch(seconds))?;
    Ok(Some(time))
}

fn frontend_options(
    request: &BuildRequest,
    opened: &Opened,
    epoch: Option<Timestamp>,
) -> Result<FrontendOptions, BuildError> {
    let target_platform = match request.platforms.as_slice() {
        [] => None,
        [text] if text == "local" => Some(Platform::host()),
        [text] => Some(
            Platform::parse(text)
                .map_err(|source| RequestError::Platform {
                    text: text.clone(),
                    source,
                })?
                .normalized(),
        ),
        _ => return Err(RequestError::Platforms.into()),
    };
    Ok(FrontendOptions {
        dockerfile: opened.dockerfile.clone(),
        filename: opened.filename.clone(),
        target: request.target.clone(),
        build_args: request.build_args.clone(),
        labels: request.labels.clone(),
        target_platform,
        remote_context: opened.remote.clone(),
        build_contexts: request.build_contexts.clone(),
        no_cache: request.no_cache.clone(),
        extra_hosts: request.extra_hosts.clone(),
        hostname: request
            .build_args
            .get("BUILDKIT_SANDBOX_HOSTNAME")
            .cloned()
            .unwrap_or_default(),
        network: request.network.unwrap_or(NetMode::Unset),
        shm_size_bytes: request.shm_size_bytes.unwrap_or(0),
        ulimits: request.ulimits.clone(),
        cgroup_parent: request.cgroup_parent.clone().unwrap_or_default(),
        source_date_epoch: epoch,
        ignore_patterns: opened.ignore_patterns.clone(),
        image_resolve_mode: if request.pull {
            ImageResolveMode::ForcePull
        } else {
            ImageResolveMode::Default
        },
        cache_id_namespace: request
            .build_args
            .get("BUILDKIT_CACHE_MOUNT_NS")
            .cloned()
            .unwrap_or_default(),
        ..FrontendOptions::default()
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

/// What all jobs of one build share.
pub(crate) struct Parts {
    pub(crate) engine: Arc<Engine>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) sources: Arc<Sources>,
    pub(crate) sink: Arc<dyn Sink>,
}

/// The job that solves `graph`, whose main context is `context` if it is of this machine.
pub(crate) fn job(
    parts: Parts,
    request: &BuildRequest,
    context: Option<&Arc<SourceTree>>,
    graph: &Arc<Graph>,
) -> Result<Job, BuildError> {
    let mut entitlements = request.entitlements.clone();
    if request.network == Some(NetMode::Host) {
        entitlements.push(Entitlement::NetworkHost);
    }
    let chosen = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty());
    let host_ca = request
        .host_ca
        .then(|| host_ca::Bundle::load(chosen.as_deref().map(std::path::Path::new)))
        .transpose()?;
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(Job {
        contexts: contexts(graph, request, context)?,
        secrets: Secrets::new(&request.secrets),
        ssh: Arc::new(SshAgents::new(&request.ssh)),
        entitlements,
        host_ca,
        shm_size_bytes: request.shm_size_bytes,
        fresh_mounts: request.no_cache == NoCache::All,
        site: site(request),
        sources: parts.sources,
        remotes: Mutex::default(),
        fetches: Mutex::default(),
        steps: Semaphore::new(request.jobs.unwrap_or(STEPS_MAX).clamp(1, STEPS_MAX)),
        processors: Semaphore::new(processors),
        graph: Arc::clone(graph),
        engine: parts.engine,
        lease: parts.lease,
        sink: parts.sink,
    })
}

/// The local sources of the graph: the main context as it was opened, others from the directories they name.
fn contexts(
    graph: &Graph,
    request: &BuildRequest,
    main: Option<&Arc<SourceTree>>,
) -> Result<HashMap<String, Arc<SourceTree>>, BuildError> {
    let mut contexts: HashMap<_, _> = main
        .map(|tree| ("context".to_owned(), Arc::clone(tree)))
        .into_iter()
        .collect();
    for vertex in graph.vertices() {
        let Op::Source(source) = &vertex.op else { continue };
        let Some(id) = source.identifier.strip_prefix("local://") else {
            continue;
        };
        let Some(name) = id.strip_prefix("context:") else {
            continue;
        };
        let Some(path) = request.build_contexts.get(name) else {
            continue;
        };
        let fail = |source| RequestError::NamedContext {
            name: name.to_owned(),
            source,
        };
        let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
        let root = RootFd::open(&path).map_err(fail)?;
        let patterns = source
            .attrs
            .get("local.excludepatterns")
            .map(String::as_str)
            .unwrap_or("[]");
        let patterns: Vec<String> = serde_json::from_str(patterns).unwrap_or_default();
        let rules = (!patterns.is_empty())
            .then(|| IgnoreRules::from_patterns(".dockerignore", &patterns))
            .transpose()
            .map_err(|source| RequestError::NamedContextRules {
                name: name.to_owned(),
                source,
            })?;
        contexts.insert(
            id.to_owned(),
            Arc::new(SourceTree::Context(LocalContext::new(root, path, rules))),
        );
    }
    Ok(contexts)
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
    };
    let digest = Digest::sha256(format!("{context}\0{dockerfile}").as_bytes());
    format!("{} ", &digest.hex()[..16])
}

/// History entries that `image` has from `base`: those it begins with, unchanged.
fn common_history(base: &ImageConfig, image: &ImageConfig) -> usize {
    base.history
        .iter()
        .zip(&image.history)
        .take_while(|(old, new)| old == new)
        .count()
}

/// Solves the job's graph for the chain of `target`.
pub(crate) async fn solve_result(
    job: &Arc<Job>,
    target: Edge,
    cancel: CancellationToken,
) -> Result<Chain, BuildError> {
    let targets = [target];
    let sink = Arc::clone(&job.sink);
    let solved = solve(Arc::clone(&job.graph), &targets, Arc::clone(job), sink, cancel).await;
    let values = solved.map_err(|error| match error {
        SolveError::Canceled => BuildError::Canceled,
        SolveError::Vertex { digest, error } => BuildError::Step {
            place: Place::of(&job.graph, &digest),
            error: Box::new(error),
        },
        SolveError::Graph(_) => BuildError::Step {
            place: None,
            error: Box::new(OpError::NoSuchInput(None)),
        },
    })?;
    match values.into_iter().next() {
        Some(Value::Chain(chain)) => Ok(chain),
        _ => Err(BuildError::Step {
            place: None,
            error: Box::new(OpError::NoSuchInput(None)),
        }),
    }
}
