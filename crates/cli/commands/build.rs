//! `rbuild build`.

use std::path::Path;
use std::sync::Arc;

use rbuild_builder::engine_load::EngineTarget;
use rbuild_builder::request::BuildOutcome;
use rbuild_frontend::subrequest::SubrequestAnswer;
use rbuild_graph::progress::{Sink, Warning};
use rbuild_ui::diagnostic::{Diagnostic, Source, WarningText, write_warnings};
use rbuild_ui::progress::{Mode, Steps};
use rbuild_ui::units::human_size;

use super::{CommandError, Open, call};
use crate::args::LowBuild;
use crate::engine::{Engine, EngineOptions};
use crate::env::Env;
use crate::request::Call;
use crate::{request, result_files, view};

/// What came of it.
enum Done<'a> {
    Built(BuildOutcome),
    Answered(&'a Call, SubrequestAnswer),
}

/// Builds, shows how, and writes what was asked for. Nothing comes back where a question was asked instead.
pub(super) fn build(
    low: LowBuild,
    debug: bool,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<Option<BuildOutcome>, CommandError> {
    let high = request::to_request(low, env).map_err(|error| {
        CommandError::Failed(Box::new(Diagnostic {
            hints: request::hints(&error),
            ..Diagnostic::new(error.to_string())
        }))
    })?;
    for warning in &high.warnings {
        // A warning that cannot be written cannot be told either.
        let _unwritten = writeln!(env.stderr, "WARNING: {}", rbuild_ui::text::one_line(warning));
    }
    if let Some(path) = &high.iidfile {
        result_files::remove_iidfile(path).map_err(|error| CommandError::failed(&error))?;
    }
    let dockerfile = dockerfile_of(&high.request.dockerfile);
    let mut options = EngineOptions {
        jobs: high.request.jobs,
        ..options
    };
    options.registries.insecure.extend(high.insecure);
    let engine = open(options)?;
    let progress = view::start_with(high.mode, "Building", engine.as_ref(), env)
        .map_err(|error| CommandError::failed(&format!("cannot show progress: {error}")))?;
    let steps = high.steps.then(|| Arc::new(Steps::new(progress.sink())));
    let sink = steps
        .clone()
        .map_or_else(|| progress.sink(), |steps| steps as Arc<dyn Sink>);
    let done = match (&high.call, &high.definition) {
        (None, None) => engine.build(high.request, sink).map(Done::Built),
        (None, Some(definition)) => engine
            .build_definition(high.request, definition, sink)
            .map(Done::Built),
        (Some(call), _) => engine
            .call(high.request, call.subrequest, sink)
            .map(|answer| Done::Answered(call, answer)),
    };
    let summary = progress.finish();
    if let Some(steps) = steps {
        // What cannot be shown there cannot be complained of there either.
        let _unwritten = steps.write(&mut env.stderr);
    }
    let silent = matches!(high.mode, Mode::Quiet | Mode::None | Mode::RawJson);
    if !silent {
        let warnings: Vec<WarningText> = summary
            .warnings
            .into_iter()
            .map(|warning| text_of(warning, dockerfile.as_deref()))
            .collect();
        let coloured = env.is_coloured();
        let _unwritten = write_warnings(&warnings, debug, coloured, &mut env.stderr);
    }
    let mut outcome = match done? {
        Done::Built(outcome) => outcome,
        Done::Answered(question, answer) => {
            if let Some(path) = &high.metadata_file {
                result_files::write_metadata(path, &call::metadata(&answer)?)
                    .map_err(|error| CommandError::failed(&error))?;
            }
            return call::print(question, &answer, env).map(|()| None);
        }
    };
    if let Some(target) = &high.load_into {
        let by_manifest = give(engine.as_ref(), target, &outcome, silent, env)?;
        if by_manifest {
            result_files::forget_config(&mut outcome);
        }
    }
    files(high.iidfile.as_deref(), high.metadata_file.as_deref(), &outcome)?;
    if let Some(id) = result_files::image_id(&outcome).filter(|_| high.print_id) {
        writeln!(env.stdout, "{id}")?;
        env.stdout.flush()?;
    }
    Ok(Some(outcome))
}

/// Gives the image to another engine, under its names or, without any, by its id. Whether the engine knows it by its
/// manifest's digest.
fn give(
    engine: &dyn Engine,
    target: &EngineTarget,
    outcome: &BuildOutcome,
    silent: bool,
    env: &mut Env,
) -> Result<bool, CommandError> {
    let mut images = outcome.names.clone();
    if images.is_empty() {
        images.extend(result_files::image_id(outcome).map(str::to_owned));
    }
    let given = engine.give(&images, target)?;
    if silent {
        return Ok(given.by_manifest);
    }
    let layers = given.layers_sent + given.layers_kept;
    let text = match given.sent_bytes {
        0 => format!("{target} has the image already"),
        bytes => format!(
            "loaded into {target}: {} of {layers} layers, {}",
            given.layers_sent,
            human_size(bytes)
        ),
    };
    // What is only told need not be told.
    let _unwritten = writeln!(env.stderr, "{text}");
    Ok(given.by_manifest)
}

fn files(
    iidfile: Option<&Path>,
    metadata: Option<&Path>,
    outcome: &BuildOutcome,
) -> Result<(), CommandError> {
    if let Some(path) = iidfile {
        result_files::write_iidfile(path, outcome).map_err(|error| CommandError::failed(&error))?;
    }
    if let Some(path) = metadata {
        result_files::write_metadata(path, &outcome.metadata)
            .map_err(|error| CommandError::failed(&error))?;
    }
    Ok(())
}

/// The text that warnings point into, if it is known here.
fn dockerfile_of(source: &rbuild_builder::request::DockerfileSource) -> Option<Vec<u8>> {
    use std::io::Read as _;

    use rbuild_builder::request::DockerfileSource;
    match source {
        DockerfileSource::Text(text) => Some(text.clone()),
        DockerfileSource::File(path) => {
            let file = std::fs::File::open(path)
                .ok()
                .filter(|file| file.metadata().is_ok_and(|meta| meta.is_file()))?;
            let mut text = Vec::new();
            file.take(crate::stdin::MAX_DOCKERFILE_BYTES)
                .read_to_end(&mut text)
                .ok()?;
            Some(text)
        }
        DockerfileSource::InContext(_) | DockerfileSource::Url(_) => None,
    }
}

fn text_of(warning: Warning, dockerfile: Option<&[u8]>) -> WarningText {
    let source = warning
        .location
        .zip(dockerfile)
        .map(|((filename, spans), text)| Source {
            filename,
            text: text.to_vec(),
            spans,
        });
    WarningText {
        short: warning.short,
        detail: warning.detail,
        url: warning.url,
        source,
    }
}
