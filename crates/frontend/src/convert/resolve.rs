//! Base images and named contexts: all questions of one round are asked at once, each only once.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use rbuild_dockerfile::ignore::read_patterns;
use rbuild_dockerfile::suggest::nearest;
use rbuild_graph::{Edge, Op, SourceOp};
use rbuild_oci::{ImageConfig, Platform, Reference};

use crate::context::{ContextSource, NamedContext};
use crate::env::Env;
use crate::error::{FrontendError, FrontendErrorKind};
use crate::lowering::{Lowering, NewVertex, json};
use crate::options::ImageResolveMode;
use crate::remote::{self, redact_credentials};
use crate::resolver::{
    IgnoreFilePlace, IgnoreFileRequest, ImageRequest, LayoutPlace, LayoutRequest, MetaResolver, NotAnImage,
    ResolveError, ResolvedImage,
};
use crate::stage::{SCRATCH, StageIndex, shown_platform};
use crate::{image, validate};

/// Questions under way at the same time.
const CONCURRENT: usize = 16;
/// Times a context may be replaced by another (`maxContextRecursion`).
const MOVES_MAX: usize = 10;
/// Name of the ignore file of a named context.
const IGNORE_FILE: &str = ".dockerignore";

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Image(ImageRequest),
    Layout(LayoutRequest),
    IgnoreFile(IgnoreFileRequest),
}

#[derive(Debug, Clone)]
enum Answer {
    Image(ResolvedImage),
    IgnoreFile(Option<Vec<u8>>),
    /// The image is to be replaced by another source.
    Elsewhere(NotAnImage),
}

type Answers = BTreeMap<Question, Answer>;

/// A stage that waits for an answer.
struct Job {
    stage: StageIndex,
    /// Base as it stood before it was made a full reference.
    written: String,
    platform: Platform,
    context: Option<NamedContext>,
    /// The context stands for the stage, not only for its base.
    replaces_stage: bool,
    question: Option<Question>,
}

/// Resolves the bases of all stages that are reachable and not resolved yet.
pub(super) async fn bases<R: MetaResolver>(
    lowering: &mut Lowering<'_>,
    reachable: &[bool],
    resolver: &R,
) -> Result<(), FrontendError> {
    let mut jobs = Vec::new();
    for (index, needed) in reachable.iter().enumerate() {
        if let Some(job) = job(lowering, index, *needed)? {
            jobs.push(job);
        }
    }
    let mut answers = Answers::new();
    let mut moves = 0;
    loop {
        ask_all(lowering, resolver, &jobs, &mut answers).await?;
        match move_contexts(lowering, &mut jobs, &answers)? {
            None => break,
            Some(to) if moves == MOVES_MAX => return Err(FrontendErrorKind::ContextMoves(to).into()),
            Some(_) => moves += 1,
        }
    }
    for job in jobs {
        let span = lowering.stages.list[job.stage].span;
        let answer = job
            .question
            .as_ref()
            .and_then(|question| answers.get(question))
            .cloned();
        apply(lowering, job, answer).map_err(|error| error.or_at(span))?;
    }
    Ok(())
}

/// Asks what the jobs need and nobody has answered yet.
async fn ask_all<R: MetaResolver>(
    lowering: &Lowering<'_>,
    resolver: &R,
    jobs: &[Job],
    answers: &mut Answers,
) -> Result<(), FrontendError> {
    let mut questions: BTreeMap<Question, usize> = BTreeMap::new();
    for (at, job) in jobs.iter().enumerate() {
        let question = job.question.as_ref();
        if let Some(question) = question.filter(|question| !answers.contains_key(question)) {
            questions.entry(question.clone()).or_insert(at);
        }
    }
    let asked: Vec<_> = questions.into_iter().collect();
    let found: Result<Answers, (usize, ResolveError)> = stream::iter(asked)
        .map(|(question, job)| async move {
            match ask(resolver, &question).await {
                Ok(answer) => Ok((question, answer)),
                Err(error) => match error.0.downcast_ref::<NotAnImage>() {
                    Some(to) if jobs[job].context.is_some() => Ok((question, Answer::Elsewhere(to.clone()))),
                    _ => Err((job, error)),
                },
            }
        })
        .buffer_unordered(CONCURRENT)
        .try_collect()
        .await;
    answers.extend(found.map_err(|(job, error)| not_found(lowering, &jobs[job], error))?);
    Ok(())
}

/// Makes the contexts what they are to be replaced by. Gives the last of these; `None` if there was nothing to do.
fn move_contexts(
    lowering: &Lowering<'_>,
    jobs: &mut [Job],
    answers: &Answers,
) -> Result<Option<String>, FrontendError> {
    let mut moved = None;
    for job in jobs {
        let answer = job.question.as_ref().and_then(|question| answers.get(question));
        let (Some(Answer::Elsewhere(to)), Some(context)) = (answer, &job.context) else {
            continue;
        };
        let span = lowering.stages.list[job.stage].span;
        let value = to.updated.replacen("://", ":", 1);
        let next = crate::context::replaced(&lowering.contexts, context, &value);
        let Some(next) = next.map_err(|error| error.or_at(span))? else {
            let error = ResolveError(Box::new(to.clone()));
            return Err(not_found(lowering, job, error));
        };
        job.question = context_question(&next, &job.platform, lowering.options.image_resolve_mode)?;
        job.context = Some(next);
        moved = Some(value);
    }
    Ok(moved)
}

async fn ask<R: MetaResolver>(resolver: &R, question: &Question) -> Result<Answer, ResolveError> {
    match question {
        Question::Image(request) => resolver.image_config(request).await.map(Answer::Image),
        Question::Layout(request) => resolver.layout_config(request).await.map(Answer::Image),
        Question::IgnoreFile(request) => resolver
            .context_ignore_file(request)
            .await
            .map(Answer::IgnoreFile),
    }
}

fn not_found(lowering: &Lowering<'_>, job: &Job, source: ResolveError) -> FrontendError {
    let mut known = lowering.stages.names();
    let common = [
        "alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora",
    ];
    known.extend(common);
    let hint = nearest(&job.written, known, true);
    let kind = FrontendErrorKind::Resolve {
        name: job.written.clone(),
        source,
    };
    FrontendError::at(kind, lowering.stages.list[job.stage].span).suggest(hint)
}

/// What is to be asked for a stage; nothing if its base needs no answer.
fn job(
    lowering: &mut Lowering<'_>,
    index: StageIndex,
    reachable: bool,
) -> Result<Option<Job>, FrontendError> {
    let stage = &mut lowering.stages.list[index];
    if stage.base.is_some() || stage.dispatched || stage.resolved {
        return Ok(None);
    }
    stage.resolved = reachable;
    if stage.base_name == SCRATCH && stage.named_context.is_none() {
        stage.image = image::empty(&lowering.target_platform);
        stage.platform = Some(lowering.target_platform.clone());
        stage.dispatched = stage.unregistered;
        return Ok(None);
    }
    let span = stage.span;
    let written = stage.base_name.clone();
    let reference = Reference::parse(&written).map_err(|source| {
        FrontendError::at(
            FrontendErrorKind::BaseReference {
                name: written.clone(),
                source,
            },
            span,
        )
    })?;
    let reference = reference.or_latest().to_string();
    if !reachable {
        // BuildKit checks the name of an unused base too, and no more.
        return Ok(None);
    }
    stage.base_name.clone_from(&reference);
    let platform = stage
        .platform
        .clone()
        .unwrap_or_else(|| lowering.target_platform.clone());
    let replaces_stage = stage.named_context.is_some();
    let context = match stage.named_context.take() {
        Some(context) => Some(context),
        None => lowering.contexts.find(&reference, &platform, span)?,
    };
    let mode = lowering.options.image_resolve_mode;
    let question = match &context {
        Some(context) => context_question(context, &platform, mode)?,
        None => {
            let shown = if lowering.options.multi_platform {
                format!("{platform} ")
            } else {
                String::new()
            };
            let log_name = format!("[{shown}internal] load metadata for {reference}");
            Some(Question::Image(ImageRequest {
                reference,
                platform: platform.clone(),
                mode,
                log_name,
            }))
        }
    };
    Ok(Some(Job {
        stage: index,
        written,
        platform,
        context,
        replaces_stage,
        question,
    }))
}

fn context_question(
    context: &NamedContext,
    platform: &Platform,
    mode: ImageResolveMode,
) -> Result<Option<Question>, FrontendError> {
    let name = &context.name;
    let platform = platform.clone();
    Ok(match &context.source {
        ContextSource::Image(image) => {
            let reference = Reference::parse(image).map_err(|source| FrontendErrorKind::BaseReference {
                name: image.clone(),
                source,
            })?;
            let log_name = format!("[context {name}] load metadata for {image}");
            let reference = reference.or_latest().to_string();
            Some(Question::Image(ImageRequest {
                reference,
                platform,
                mode,
                log_name,
            }))
        }
        ContextSource::Layout {
            directory,
            tag,
            digest,
        } => {
            let log_name = format!("[context {name}] load metadata for {directory}");
            Some(Question::Layout(LayoutRequest {
                name: name.clone(),
                place: LayoutPlace::Directory {
                    directory: directory.clone(),
                    tag: tag.clone(),
                    digest: digest.clone(),
                },
                platform,
                log_name,
            }))
        }
        ContextSource::Store {
            session,
            store,
            reference,
            digest,
        } => Some(Question::Layout(LayoutRequest {
            name: reference.clone(),
            place: LayoutPlace::Store {
                session: session.clone(),
                store: store.clone(),
                digest: digest.clone(),
            },
            platform,
            log_name: format!("[context {name}] load metadata for {reference}"),
        })),
        ContextSource::Directory(directory) => Some(Question::IgnoreFile(IgnoreFileRequest {
            name: name.clone(),
            place: IgnoreFilePlace::Directory(directory.clone()),
        })),
        ContextSource::Local {
            name: local, session, ..
        } => Some(Question::IgnoreFile(IgnoreFileRequest {
            name: name.clone(),
            place: IgnoreFilePlace::Local {
                name: local.clone(),
                attrs: ignore_file_attrs(name, session),
                log_name: format!("[context {name}] load {IGNORE_FILE}"),
            },
        })),
        ContextSource::Scratch
        | ContextSource::Git { .. }
        | ContextSource::Http(_)
        | ContextSource::Input(_) => None,
    })
}

/// Gives a stage its base.
fn apply(lowering: &mut Lowering<'_>, job: Job, answer: Option<Answer>) -> Result<(), FrontendError> {
    let index = job.stage;
    let (edge, config) = match (&job.context, answer) {
        (Some(context), answer) => context_base(lowering, context, &job.platform, answer)?,
        (None, Some(Answer::Image(found))) => return image_base(lowering, job, &found),
        (None, _) => unreachable!("an image was asked for, and the answer to that is an image"),
    };
    let stage = &mut lowering.stages.list[index];
    stage.state.edge = edge;
    stage.platform = Some(job.platform.clone());
    if let Some(config) = config {
        if job.replaces_stage && !config.architecture.is_empty() && !config.os.is_empty() {
            stage.platform = Some(config.platform());
        }
        stage.base_image = Some(config.clone());
        stage.image = ImageConfig {
            created: None,
            ..config
        };
    } else {
        stage.image = image::empty(&job.platform);
    }
    if job.replaces_stage {
        take_settings(lowering, index);
    }
    let stage = &mut lowering.stages.list[index];
    stage.dispatched = job.replaces_stage || stage.unregistered;
    Ok(())
}

/// A context in a stage's place gives its variables, directory and user to what is built on it.
fn take_settings(lowering: &mut Lowering<'_>, index: StageIndex) {
    let stage = &mut lowering.stages.list[index];
    for entry in &stage.image.config.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        stage.state.env.set(name, value);
    }
    if !stage.image.config.working_dir.is_empty() {
        stage.state.dir.clone_from(&stage.image.config.working_dir);
    }
    stage.state.user.clone_from(&stage.image.config.user);
}

fn context_base(
    lowering: &mut Lowering<'_>,
    context: &NamedContext,
    platform: &Platform,
    answer: Option<Answer>,
) -> Result<(Option<Edge>, Option<ImageConfig>), FrontendError> {
    let name = &context.name;
    let mut vertex = NewVertex::default();
    let op = match (&context.source, answer) {
        (ContextSource::Image(image), Some(Answer::Image(found))) => {
            vertex.name = format!("[context {name}] {image}");
            vertex.platform = Some(platform.clone());
            let config = parse_config(image, &found.config)?;
            let op = image_source(&found, ImageResolveMode::Default)?;
            return Ok((Some(lowering.add(Op::Source(op), vertex)), Some(config)));
        }
        (ContextSource::Layout { directory, .. }, Some(Answer::Image(found))) => {
            vertex.name = format!("[context {name}] OCI load from client");
            vertex.platform = Some(platform.clone());
            let config = parse_config(directory, &found.config)?;
            let op = SourceOp {
                identifier: format!("oci-layout://{name}@{}", found.digest),
                attrs: BTreeMap::from([("oci.store".to_owned(), directory.clone())]),
            };
            return Ok((Some(lowering.add(Op::Source(op), vertex)), Some(config)));
        }
        (ContextSource::Directory(_), Some(Answer::IgnoreFile(ignore))) => {
            vertex.name = format!("[context {name}] load from client");
            let attrs = local_attrs(name, "", ignore.as_deref())?;
            SourceOp {
                identifier: format!("local://context:{name}"),
                attrs,
            }
        }
        (
            ContextSource::Local {
                name: local,
                session,
                shared_key,
            },
            Some(Answer::IgnoreFile(ignore)),
        ) => {
            vertex.name = format!("[context {name}] load from client");
            let mut attrs = local_attrs(name, shared_key, ignore.as_deref())?;
            attrs.insert("local.session".to_owned(), session.clone());
            let identifier = format!("local://{local}");
            let edge = lowering.add(Op::Source(SourceOp { identifier, attrs }), vertex);
            lowering.local_paths.watch(&edge);
            return Ok((Some(edge), None));
        }
        (
            ContextSource::Store {
                session,
                store,
                reference,
                ..
            },
            Some(Answer::Image(found)),
        ) => {
            vertex.name = format!("[context {name}] OCI load from client");
            vertex.platform = Some(platform.clone());
            let config = parse_config(store, &found.config)?;
            let op = SourceOp {
                identifier: format!("oci-layout://{reference}"),
                attrs: BTreeMap::from([
                    ("oci.session".to_owned(), session.clone()),
                    ("oci.store".to_owned(), store.clone()),
                ]),
            };
            return Ok((Some(lowering.add(Op::Source(op), vertex)), Some(config)));
        }
        (ContextSource::Input(input), _) => {
            let config = input.config.as_ref().map(|bytes| parse_config(name, bytes));
            return Ok((lowering.add_input(input)?, config.transpose()?));
        }
        (ContextSource::Git { url, text }, _) => {
            vertex.name = remote::git_name(text);
            url.to_source()
        }
        (ContextSource::Http(url), _) => {
            vertex.name = format!("[context {name}] {}", redact_credentials(url));
            remote::context_file(url)
        }
        (ContextSource::Scratch, _) => return Ok((None, None)),
        _ => unreachable!("each kind of context gets the answer to its own question"),
    };
    Ok((Some(lowering.add(Op::Source(op), vertex)), None))
}

/// Attributes of the source that brings a context's ignore file alone.
fn ignore_file_attrs(name: &str, session: &str) -> BTreeMap<String, String> {
    let attrs = [
        ("local.followpaths", json(&[IGNORE_FILE.to_owned()])),
        ("local.sharedkeyhint", format!("context:{name}-{IGNORE_FILE}")),
        ("local.session", session.to_owned()),
        ("local.differ", "none".to_owned()),
    ];
    attrs
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}

fn local_attrs(
    name: &str,
    shared_key: &str,
    ignore: Option<&[u8]>,
) -> Result<BTreeMap<String, String>, FrontendError> {
    let hint = format!("context:{name}-{shared_key}");
    let mut attrs = BTreeMap::from([("local.sharedkeyhint".to_owned(), hint)]);
    let patterns =
        read_patterns(ignore.unwrap_or_default()).map_err(|source| FrontendErrorKind::ContextIgnoreFile {
            name: name.to_owned(),
            source,
        })?;
    if !patterns.is_empty() {
        attrs.insert("local.excludepatterns".to_owned(), json(&patterns));
    }
    Ok(attrs)
}

fn image_base(lowering: &mut Lowering<'_>, job: Job, found: &ResolvedImage) -> Result<(), FrontendError> {
    let index = job.stage;
    let config = parse_config(&job.written, &found.config)?;
    let op = image_source(found, lowering.options.image_resolve_mode)?;
    let mut platform = job.platform;
    let stage = &lowering.stages.list[index];
    if stage.platform.is_none() && lowering.implicit_target {
        let build = &lowering.options.build_platform;
        let is = |p: &Platform| p.os == config.os && p.architecture == config.architecture;
        if !is(&platform) && is(build) {
            platform = build.clone();
        }
    }
    let is_empty = config.rootfs.diff_ids.is_empty() && config.history.iter().all(|entry| entry.empty_layer);
    let edge = if is_empty {
        None
    } else {
        let text = format!("FROM {}", op.identifier.trim_start_matches("docker-image://"));
        let shown = shown(lowering, &platform, &Env::default());
        let stage = &mut lowering.stages.list[index];
        let name = stage.numbered(&text, false, &shown);
        let (span, comments) = (stage.span, stage.comments.clone());
        validate::base_platform(
            &mut lowering.lint,
            &job.written,
            &platform,
            &config,
            span,
            &comments,
        );
        let platform = Some(platform.clone());
        Some(lowering.add(
            Op::Source(op),
            NewVertex {
                platform,
                name,
                span: Some(span),
                ..NewVertex::default()
            },
        ))
    };
    let stage = &mut lowering.stages.list[index];
    stage.state.edge = edge;
    stage.platform = Some(platform);
    stage.base_image = Some(config.clone());
    stage.image = ImageConfig {
        created: None,
        ..config
    };
    stage.dispatched = stage.unregistered;
    Ok(())
}

/// The platform in step names; empty unless the result is one of several.
pub(crate) fn shown(lowering: &Lowering<'_>, platform: &Platform, env: &Env) -> String {
    if lowering.options.multi_platform {
        shown_platform(platform, env)
    } else {
        String::new()
    }
}

fn image_source(found: &ResolvedImage, mode: ImageResolveMode) -> Result<SourceOp, FrontendError> {
    let reference =
        Reference::parse(&found.canonical_reference).map_err(|source| FrontendErrorKind::BaseReference {
            name: found.canonical_reference.clone(),
            source,
        })?;
    let mut attrs = BTreeMap::new();
    if mode != ImageResolveMode::Default {
        attrs.insert("image.resolvemode".to_owned(), mode.as_str().to_owned());
    }
    let pinned = reference.or_latest().with_digest(found.digest.clone());
    Ok(SourceOp {
        identifier: format!("docker-image://{pinned}"),
        attrs,
    })
}

fn parse_config(name: &str, bytes: &[u8]) -> Result<ImageConfig, FrontendError> {
    let mut config = ImageConfig::parse(bytes).map_err(|source| FrontendErrorKind::Config {
        name: name.to_owned(),
        source,
    })?;
    // BuildKit's front end reads the config into structs, so what it does not know is gone.
    config.drop_unknown();
    Ok(config)
}
