//! Builds the chosen targets, or asks about their Dockerfiles, and shows how: each step with the name of its target.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rbuild_bake::{Chosen, Printed, Target};
use rbuild_builder::request::BuildOutcome;
use rbuild_graph::progress::{Event, Sink};
use rbuild_oci::Digest;
use rbuild_ui::diagnostic::{Diagnostic, ExitCode, WarningText, write_warnings};
use rbuild_ui::progress::Mode;
use serde_json::Value;

use super::low::{self, Extra};
use super::{CommandError, Open};
use crate::args::BakeArgs;
use crate::commands::call;
use crate::engine::{Engine, EngineError, EngineOptions, Planned};
use crate::env::Env;
use crate::request::{self, HighBuild};
use crate::{result_files, view};

/// Builds, or asks.
pub(super) fn build(
    args: &BakeArgs,
    chosen: &Chosen,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let order = order(chosen);
    let links = Links::new(&order, env)?;
    let asked = super::method(args);
    let mut highs = Vec::with_capacity(order.len());
    let mut insecure = Vec::new();
    for target in &order {
        let extra = Extra {
            layout: links.dirs.get(&target.name).map(PathBuf::as_path),
            call: asked,
        };
        let mut flags = low::of(target, args, &extra);
        if flags.call.is_some() {
            // A question builds nothing, so there is nothing of others either.
            for context in &mut flags.build_context {
                if let Some((name, _)) = context.split_once("=target:") {
                    *context = format!("{name}=docker-image://scratch");
                }
            }
        }
        let mut high = request::to_request(flags, env).map_err(|error| {
            CommandError::Failed(Box::new(Diagnostic {
                hints: request::hints(&error),
                ..Diagnostic::new(format!("target {}: {error}", target.name))
            }))
        })?;
        for context in high.request.build_contexts.values_mut() {
            if let Some(layout) = links.layout_of(context) {
                *context = layout;
            }
        }
        for warning in &high.warnings {
            // A warning that cannot be written cannot be told either.
            let _unwritten = writeln!(
                env.stderr,
                "WARNING: {}: {}",
                target.name,
                rbuild_ui::text::one_line(warning)
            );
        }
        insecure.extend(high.insecure.iter().cloned());
        highs.push(high);
    }
    let mut options = options;
    options.registries.insecure.extend(insecure);
    let engine = open(options)?;
    let (questions, builds): (Vec<_>, Vec<_>) = order
        .iter()
        .copied()
        .zip(highs)
        .partition(|(_, high)| high.call.is_some());
    if !builds.is_empty() {
        run(args, builds, engine.as_ref(), env)?;
    }
    if questions.is_empty() {
        return Ok(());
    }
    ask(chosen, questions, engine.as_ref(), env)
}

/// The targets, each behind those that it is built from.
fn order(chosen: &Chosen) -> Vec<&Target> {
    fn add<'a>(target: &'a Target, chosen: &'a Chosen, order: &mut Vec<&'a Target>) {
        if order.iter().any(|known| known.name == target.name) {
            return;
        }
        for linked in needs(target) {
            if let Some(linked) = chosen.targets.get(linked) {
                add(linked, chosen, order);
            }
        }
        order.push(target);
    }
    let mut order = Vec::with_capacity(chosen.targets.len());
    for target in chosen.targets.values() {
        add(target, chosen, &mut order);
    }
    order
}

/// The targets that `target` is built from.
fn needs(target: &Target) -> impl Iterator<Item = &str> {
    target
        .contexts
        .values()
        .filter_map(|value| value.strip_prefix("target:"))
}

/// Where targets are that others are built from: layouts in a directory that goes with this.
struct Links {
    root: Option<PathBuf>,
    dirs: BTreeMap<String, PathBuf>,
}

impl Links {
    fn new(order: &[&Target], env: &Env) -> Result<Self, CommandError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut names: Vec<&str> = order.iter().flat_map(|target| needs(target)).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Ok(Self {
                root: None,
                dirs: BTreeMap::new(),
            });
        }
        let temp = env.temp_dir();
        for attempt in 0_u32..100 {
            let root = temp.join(format!("rbuild-bake-{}-{attempt}", std::process::id()));
            match std::fs::DirBuilder::new().mode(0o700).create(&root) {
                Ok(()) => {
                    let dirs = names
                        .iter()
                        .map(|name| ((*name).to_owned(), root.join(name)))
                        .collect();
                    return Ok(Self {
                        root: Some(root),
                        dirs,
                    });
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(CommandError::failed(&format!(
                        "cannot make {}: {error}",
                        root.display()
                    )));
                }
            }
        }
        Err(CommandError::failed(&format!(
            "cannot make a directory in {}: all names are taken",
            temp.display()
        )))
    }
}

impl Links {
    /// Where the target is that a named context stands for, if it stands for one.
    fn layout_of(&self, context: &str) -> Option<String> {
        let dir = self.dirs.get(context.strip_prefix("target:")?)?;
        Some(format!("oci-layout://{}", dir.display()))
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        if let Some(root) = &self.root {
            // What cannot be removed is in the directory for what is short-lived.
            let _left = std::fs::remove_dir_all(root);
        }
    }
}

/// Builds all at once.
fn run(
    args: &BakeArgs,
    builds: Vec<(&Target, HighBuild)>,
    engine: &dyn Engine,
    env: &mut Env,
) -> Result<(), CommandError> {
    let mode = builds.first().map_or(Mode::Auto, |(_, high)| high.mode);
    let progress = view::start_with(mode, "Building", engine, env)
        .map_err(|error| CommandError::failed(&format!("cannot show progress: {error}")))?;
    let position: BTreeMap<&str, usize> = builds
        .iter()
        .enumerate()
        .map(|(at, (target, _))| (target.name.as_str(), at))
        .collect();
    let is_alone = builds.len() == 1;
    let planned = builds.iter().map(|(target, high)| Planned {
        request: high.request.clone(),
        sink: if is_alone {
            progress.sink()
        } else {
            Arc::new(Named {
                target: target.name.clone(),
                inner: progress.sink(),
            })
        },
        after: needs(target)
            .filter_map(|name| position.get(name).copied())
            .collect(),
    });
    let done = engine.build_all(planned.collect());
    let summary = progress.finish();
    if !matches!(mode, Mode::Quiet | Mode::None | Mode::RawJson) {
        let warnings: Vec<WarningText> = summary
            .warnings
            .into_iter()
            .map(|warning| WarningText {
                short: warning.short,
                detail: warning.detail,
                url: warning.url,
                source: None,
            })
            .collect();
        let coloured = env.is_coloured();
        let _unwritten = write_warnings(&warnings, false, coloured, &mut env.stderr);
    }
    let mut outcomes: Vec<(&str, BuildOutcome)> = Vec::new();
    let mut failure = None;
    for ((target, _), done) in builds.iter().zip(done) {
        match done {
            Ok(outcome) => outcomes.push((&target.name, outcome)),
            Err(EngineError::Failed(mut diagnostic)) => {
                diagnostic.message = format!("target {}: {}", target.name, diagnostic.message);
                // The first is the cause; what failed after it may have been stopped.
                failure.get_or_insert(CommandError::Failed(diagnostic));
            }
            Err(EngineError::Cancelled) => {}
        }
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    if outcomes.len() < builds.len() {
        return Err(CommandError::Cancelled);
    }
    if let Some(path) = &args.metadata_file {
        let metadata = outcomes.iter().map(|(name, outcome)| {
            let fields = outcome
                .metadata
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()));
            ((*name).to_owned(), Value::Object(fields.collect()))
        });
        result_files::write_metadata(path, &metadata.collect())
            .map_err(|error| CommandError::failed(&error))?;
    }
    Ok(())
}

/// What happens in the build of one target: its name stands before each step, and no step is another target's.
struct Named {
    target: String,
    inner: Arc<dyn Sink>,
}

impl Named {
    fn own(&self, digest: &Digest) -> Digest {
        Digest::sha256(format!("{} {digest}", self.target).as_bytes())
    }
}

impl Sink for Named {
    fn send(&self, event: Event) {
        let event = match event {
            Event::Vertex(mut state) => {
                state.digest = self.own(&state.digest);
                state.inputs = state.inputs.iter().map(|input| self.own(input)).collect();
                state.name = match state.name.strip_prefix('[') {
                    Some(rest) => format!("[{} {rest}", self.target),
                    None => format!("[{}] {}", self.target, state.name),
                };
                Event::Vertex(state)
            }
            Event::Status(mut status) => {
                status.vertex = self.own(&status.vertex);
                Event::Status(status)
            }
            Event::Log(mut log) => {
                log.vertex = self.own(&log.vertex);
                Event::Log(log)
            }
            Event::Warning(mut warning) => {
                warning.vertex = self.own(&warning.vertex);
                Event::Warning(warning)
            }
        };
        self.inner.send(event);
    }
}

/// Asks about each Dockerfile, and prints all answers.
fn ask(
    chosen: &Chosen,
    mut questions: Vec<(&Target, HighBuild)>,
    engine: &dyn Engine,
    env: &mut Env,
) -> Result<(), CommandError> {
    questions.sort_by(|one, other| one.0.name.cmp(&other.0.name));
    let mode = questions.first().map_or(Mode::Auto, |(_, high)| high.mode);
    let progress = view::start_with(mode, "Building", engine, env)
        .map_err(|error| CommandError::failed(&format!("cannot show progress: {error}")))?;
    let mut answers = Vec::with_capacity(questions.len());
    for (target, high) in questions {
        let Some(call) = high.call else { continue };
        answers.push((
            target,
            engine.call(high.request, call.subrequest, progress.sink()),
            call,
        ));
    }
    let _summary = progress.finish();
    let mut code = None;
    let mut documents = BTreeMap::new();
    for (at, (target, answer, call)) in answers.into_iter().enumerate() {
        let answer = answer.map_err(|error| match error {
            EngineError::Failed(mut diagnostic) => {
                diagnostic.message = format!("target {}: {}", target.name, diagnostic.message);
                CommandError::Failed(diagnostic)
            }
            EngineError::Cancelled => CommandError::Cancelled,
        })?;
        if call.as_json {
            let json = answer.json().map_err(|error| CommandError::failed(&error))?;
            let read: Value = serde_json::from_slice(&json).map_err(|error| CommandError::failed(&error))?;
            let word = match call.subrequest.id().trim_start_matches("frontend.") {
                "lint" => "check".to_owned(),
                word => word.to_owned(),
            };
            let fields = vec![("build".to_owned(), target.to_json()), (word, printed(&read))];
            documents.insert(target.name.clone(), Printed::Fields(fields));
            if answer.status_code().is_some_and(|code| code != 0) && !call.ignore_status {
                code = Some(ExitCode::Failure);
            }
            continue;
        }
        if at > 0 {
            writeln!(env.stdout)?;
        }
        writeln!(env.stdout, "{}", target.name)?;
        if !target.description.is_empty() {
            writeln!(env.stdout, "{}", rbuild_ui::text::one_line(&target.description))?;
        }
        writeln!(env.stdout)?;
        match call::print(&call, &answer, env) {
            Ok(()) => {}
            Err(CommandError::Judged(judged)) => code = Some(judged),
            Err(error) => return Err(error),
        }
    }
    if !documents.is_empty() {
        let mut fields = match chosen.to_json() {
            Printed::Fields(fields) => fields,
            _ => Vec::new(),
        };
        fields.retain(|(name, _)| name == "group");
        fields.push(("target".to_owned(), documents.into()));
        writeln!(env.stdout, "{}", Printed::Fields(fields).to_text())?;
        env.stdout.flush()?;
    }
    code.map_or(Ok(()), |code| Err(CommandError::Judged(code)))
}

fn printed(json: &Value) -> Printed {
    match json {
        Value::String(text) => Printed::text(text),
        Value::Array(values) => Printed::List(values.iter().map(printed).collect()),
        Value::Object(fields) => Printed::Fields(
            fields
                .iter()
                .map(|(name, value)| (name.clone(), printed(value)))
                .collect(),
        ),
        other => Printed::Bare(other.to_string()),
    }
}
