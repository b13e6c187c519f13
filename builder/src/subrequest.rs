//! Questions about a Dockerfile that build nothing (`rbuild build --call`, attribute `requestid` of the API).

use std::sync::Arc;

use rbuild_frontend::subrequest::{LintFailure, LintResults, Subrequest, SubrequestAnswer, TargetList};
use rbuild_frontend::{FrontendError, FrontendErrorKind, FrontendOptions, LintWarning};
use rbuild_graph::SourceText;
use rbuild_graph::progress::Sink;
use rbuild_llb::definition_json;
use tokio_util::sync::CancellationToken;

use crate::build::{lower, prepare};
use crate::engine::Engine;
use crate::error::{BuildError, chain_text};
use crate::front_ends::FrontEnds;
use crate::job::Job;
use crate::request::BuildRequest;
use crate::resolve::Resolver;

/// Takes warnings that are no part of an answer.
pub type Warn<'a> = dyn Fn(&[LintWarning]) + Send + Sync + 'a;

/// Answers about the Dockerfile of `request`: a front end that is an image is asked first, and for one that does not know
/// the question the file is read as a Dockerfile (`buildx/build/build.go`, `fallbackPrintError`).
///
/// # Errors
/// Those of [`ask`], and of opening what `request` names.
pub async fn call(
    engine: Arc<Engine>,
    request: BuildRequest,
    subrequest: Subrequest,
    sink: Arc<dyn Sink>,
    cancel: CancellationToken,
    front_ends: &dyn FrontEnds,
) -> Result<SubrequestAnswer, BuildError> {
    let prepared = prepare(engine, Arc::new(request), sink, &cancel).await?;
    if let Some(syntax) = prepared.foreign()
        && let Some(given) = prepared
            .question(&syntax, subrequest, front_ends, &cancel)
            .await?
    {
        return Ok(SubrequestAnswer::Given(given));
    }
    let warn = |warnings: &[LintWarning]| prepared.warn(warnings);
    ask(&prepared.job, prepared.options(None), subrequest, &warn, &cancel).await
}

/// Answers about the Dockerfile of `options`, for the platform of this machine: BuildKit does not look at the one asked
/// for either. Images are only asked for where what is asked depends on them.
///
/// # Errors
/// [`BuildError::Frontend`] unless the question is what is wrong with the Dockerfile (options of lint that are wrong are an
/// error of their own), and [`BuildError::Canceled`].
pub async fn ask(
    job: &Arc<Job>,
    mut options: FrontendOptions,
    subrequest: Subrequest,
    warn: &Warn<'_>,
    cancel: &CancellationToken,
) -> Result<SubrequestAnswer, BuildError> {
    options.target_platform = None;
    match subrequest {
        Subrequest::Describe => Ok(SubrequestAnswer::Describe),
        Subrequest::Targets => TargetList::of(&options)
            .map(SubrequestAnswer::Targets)
            .map_err(|error| frontend_error(&options, error)),
        Subrequest::Outline => {
            options.outline = true;
            let lowered = lower(&Resolver::new(job, cancel), &options, cancel)
                .await
                .inspect_err(|error| warn_of(error, warn))?;
            warn(&lowered.warnings);
            match lowered.outline {
                Some(outline) => Ok(SubrequestAnswer::Outline(outline)),
                None => unreachable!("the outline was asked for"),
            }
        }
        Subrequest::Lint => {
            options.all_stages = options.target.is_none();
            lint(job, &options, cancel).await.map(SubrequestAnswer::Lint)
        }
        Subrequest::ConvertLlb => {
            let lowered = lower(&Resolver::new(job, cancel), &options, cancel).await;
            let lowered = lowered.inspect_err(|error| warn_of(error, warn))?;
            warn(&lowered.warnings);
            let definition = definition_json::converted(&lowered.graph, lowered.result.as_ref())?;
            Ok(SubrequestAnswer::ConvertLlb(definition))
        }
    }
}

/// Passes on what was found before the Dockerfile was refused.
fn warn_of(error: &BuildError, warn: &Warn<'_>) {
    if let BuildError::Frontend { error, .. } = error {
        warn(&error.warnings);
    }
}

async fn lint(
    job: &Arc<Job>,
    options: &FrontendOptions,
    cancel: &CancellationToken,
) -> Result<LintResults, BuildError> {
    let (warnings, failure) = match lower(&Resolver::new(job, cancel), options, cancel).await {
        Ok(lowered) => (lowered.warnings, None),
        Err(BuildError::Frontend { mut error, .. })
            if !matches!(*error.kind, FrontendErrorKind::CheckArgument(_)) =>
        {
            let warnings = std::mem::take(&mut error.warnings);
            let failure = LintFailure {
                message: chain_text(&error),
                spans: error.spans,
            };
            (warnings, Some(failure))
        }
        Err(other) => return Err(other),
    };
    let definition = options.definition.as_deref().map(definition_json::structs);
    let definition = definition.and_then(Result::ok).unwrap_or_default();
    Ok(LintResults::new(options, definition, warnings, failure))
}

fn frontend_error(options: &FrontendOptions, error: FrontendError) -> BuildError {
    let source_text = SourceText {
        filename: options.filename.clone(),
        text: options.dockerfile.clone(),
        definition: options.definition.clone(),
        ..SourceText::default()
    };
    BuildError::Frontend { error, source_text }
}
