//! Base images and named contexts: all questions of one round are asked at once, each only once. What the answers make of
//! the stages stands in `resolve/answer.rs`.

mod answer;

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use rbuild_dockerfile::suggest::nearest;
use rbuild_oci::{Platform, Reference};

pub(crate) use self::answer::shown;
use crate::context::{ContextSource, NamedContext};
use crate::error::{FrontendError, FrontendErrorKind};
use crate::image;
use crate::lowering::Lowering;
use crate::options::ImageResolveMode;
use crate::resolver::{
    IgnoreFilePlace, IgnoreFileRequest, ImageRequest, LayoutPlace, LayoutRequest, MetaResolver, NotAnImage,
    ResolveError, ResolvedImage,
};
use crate::stage::{SCRATCH, StageIndex};

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
    let mut wrong = None;
    for (index, needed) in reachable.iter().enumerate() {
        match job(lowering, index, *needed) {
            Ok(found) => jobs.extend(found),
            // Of several the last is told: BuildKit begins with the one that it came to last.
            Err(error) => wrong = Some(error),
        }
    }
    if let Some(error) = wrong {
        return Err(error);
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
        answer::apply(lowering, job, answer).map_err(|error| error.or_at(span))?;
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
    if let Some(Question::IgnoreFile(_)) = job.question {
        return FrontendError::at(
            FrontendErrorKind::Context(source),
            lowering.stages.list[job.stage].span,
        );
    }
    let mut known = lowering.stages.names();
    let common = [
        "alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora",
    ];
    known.extend(common);
    let hint = nearest(&job.written, known, true);
    let is_copied_from = lowering.stages.list[job.stage].unregistered;
    let stages = is_copied_from.then(|| {
        let named = lowering.stages.list.iter().map(|stage| stage.name.clone());
        named.filter(|name| !name.is_empty()).collect()
    });
    let kind = FrontendErrorKind::Resolve {
        name: job.written.clone(),
        source,
        stages,
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
                reason: source,
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
                reason: source,
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
                attrs: answer::ignore_file_attrs(name, session),
                log_name: format!("[context {name}] load {IGNORE_FILE}"),
            },
        })),
        ContextSource::Scratch
        | ContextSource::Git { .. }
        | ContextSource::Http(_)
        | ContextSource::Input(_) => None,
    })
}
