//! Dockerfile to graph (BuildKit `dockerfile2llb`): stages are found and linked, bases resolved together, then each
//! stage the target needs is dispatched in the order of the file.

mod args;
mod epoch;
mod links;
mod resolve;

use std::collections::{BTreeMap, BTreeSet};

use rbuild_dockerfile::ignore::PatternMatcher;
use rbuild_dockerfile::shell::{Lexer, Variables as _};
use rbuild_dockerfile::suggest::nearest;
use rbuild_dockerfile::{Dockerfile, Span};
use rbuild_graph::{Edge, Graph, SourceText};
use rbuild_oci::{ImageConfig, Platform, Timestamp};

use crate::advice::Advice;
use crate::budget::Budget;
use crate::context::NamedContexts;
pub(crate) use crate::convert::args::{CHECK_ARG, check_argument};
pub use crate::convert::epoch::EpochError;
pub(crate) use crate::convert::resolve::shown;
use crate::error::{FrontendError, FrontendErrorKind};
use crate::lint::{LintWarning, Linter};
use crate::local_paths::LocalPaths;
use crate::lowering::Lowering;
use crate::options::FrontendOptions;
use crate::origins::Origins;
use crate::resolver::MetaResolver;
use crate::stage::{StageIndex, Stages};
use crate::subrequest::Outline;
use crate::{advice, dispatch, image, validate};

/// What editors call the language of a source (`dockerui/config.go`).
pub const LANGUAGE: &str = "Dockerfile";

/// A Dockerfile made into a graph.
#[derive(Debug)]
pub struct Lowered {
    /// The graph; it may hold vertices that `result` does not need.
    pub graph: Graph,
    /// The root of the target stage; `None` is an empty one.
    pub result: Option<Edge>,
    /// Config of the image, with history; no layers are in it.
    pub image: ImageConfig,
    /// Config of the base image of the target, unchanged.
    pub base_image: Option<ImageConfig>,
    /// Platform of the target stage.
    pub platform: Platform,
    /// Stages of the file, in order.
    pub stages: Vec<StageInfo>,
    /// What lint found.
    pub warnings: Vec<LintWarning>,
    /// Paths of the main context that are needed, relative; `None` is all of it.
    pub context_paths: Option<Vec<String>>,
    /// Time for everything that has none of its own.
    pub epoch: Option<Timestamp>,
    /// The target is not taken from the cache.
    pub ignore_cache: bool,
    /// What a scanner may look at besides the result, by name; nothing is empty.
    pub scan_targets: BTreeMap<String, Option<Edge>>,
    /// Parameters of the target, if they were asked for.
    pub outline: Option<Outline>,
}

/// What is known of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageInfo {
    /// Name; empty if it has none.
    pub name: String,
    /// Base as written.
    pub base: String,
    /// What the comment above says of it.
    pub description: String,
    /// Where FROM stands.
    pub span: Span,
    /// The target needs it.
    pub needed: bool,
}

/// Lowers `options.dockerfile` for one platform.
///
/// # Errors
/// [`FrontendError`] for anything the user got wrong, and for images that cannot be resolved.
pub async fn lower<R: MetaResolver>(
    options: &FrontendOptions,
    resolver: &R,
) -> Result<Lowered, FrontendError> {
    let (mut lowering, dockerfile) = prepare(options)?;
    match run(&mut lowering, &dockerfile, resolver).await {
        Ok(target) => finish(lowering, &dockerfile, target),
        Err(mut error) => {
            error.warnings = std::mem::take(&mut lowering.lint.warnings);
            Err(error)
        }
    }
}

fn prepare(options: &FrontendOptions) -> Result<(Lowering<'_>, Dockerfile), FrontendError> {
    let check = args::check_options(options)?;
    let (dockerfile, errors) = rbuild_dockerfile::parse(&options.dockerfile);
    if let Some(first) = errors.first() {
        let mut lint = Linter::new(check);
        validate::before_error(&mut lint, &dockerfile, first);
        let mut error = FrontendError::from(FrontendErrorKind::Parse(errors.clone()));
        error.spans.extend(Some(first.span).filter(|span| span.start > 0));
        error.warnings = lint.warnings;
        return Err(error);
    }
    let mut graph = Graph::default();
    graph.sources.push(SourceText {
        filename: options.filename.clone(),
        text: options.dockerfile.clone(),
        language: LANGUAGE.to_owned(),
        definition: options.definition.clone(),
    });
    let lint = Linter::new(check);
    let lowering = Lowering {
        options,
        build_args: options.build_args.clone(),
        contexts: NamedContexts::new(options)?,
        lexer: Lexer::new(dockerfile.escape),
        advice: Advice::new(&lint, &dockerfile),
        lint,
        budget: Budget::default(),
        graph,
        origins: Origins::default(),
        stages: Stages::default(),
        global_args: crate::env::Env::default(),
        global_outline: BTreeMap::new(),
        declared_globals: args::declared(&dockerfile),
        target_platform: options
            .target_platform
            .clone()
            .unwrap_or_else(|| options.build_platform.clone()),
        implicit_target: options.target_platform.is_none(),
        epoch: None,
        proxy: args::proxy(&options.build_args),
        ignore: None,
        context_paths: BTreeSet::new(),
        local_paths: LocalPaths::default(),
    };
    Ok((lowering, dockerfile))
}

async fn run<R: MetaResolver>(
    lowering: &mut Lowering<'_>,
    dockerfile: &Dockerfile,
    resolver: &R,
) -> Result<StageIndex, FrontendError> {
    validate::before_stages(&mut lowering.lint, dockerfile);
    let last_name = dockerfile
        .stages
        .last()
        .map(|stage| stage.name.as_str())
        .unwrap_or_default();
    let target_name = lowering.options.target.as_deref().unwrap_or(last_name).to_owned();
    let defaults = args::defaults(lowering, &target_name);
    validate::bases_with_defaults(lowering, dockerfile, &defaults);
    lowering.global_args = args::global(lowering, &dockerfile.global_args, defaults, true)?;
    advice::global_args(lowering, dockerfile);
    epoch::resolve(lowering, dockerfile, resolver).await?;
    links::add_stages(lowering, dockerfile)?;
    let target = links::target(lowering)?;
    links::link(lowering)?;
    loop {
        let reachable = lowering.stages.reachable(target);
        let wanted = wanted(lowering, &reachable);
        resolve::bases(lowering, &wanted, resolver).await?;
        if !links::read_triggers(lowering, &reachable)? {
            break;
        }
    }
    lowering.ignore = match lowering.options.ignore_patterns.as_slice() {
        [] => None,
        patterns => {
            let place = || lowering.options.ignore_place.clone();
            let refused = |source| FrontendErrorKind::IgnorePatterns {
                place: place(),
                source,
            };
            Some(PatternMatcher::new(patterns).map_err(refused)?)
        }
    };
    let reachable = lowering.stages.reachable(target);
    for (index, needed) in wanted(lowering, &reachable).into_iter().enumerate() {
        let stage = &lowering.stages.list[index];
        // With all stages, those that a context stands for are read too.
        let replaced = lowering.options.all_stages && !stage.unregistered;
        if needed && (!stage.dispatched || replaced) {
            dispatch_stage(lowering, index)?;
        }
    }
    advice::conclude(lowering, target);
    image::finish(lowering, target);
    match lowering.lint.failures() {
        Some(rules) => Err(FrontendErrorKind::Lint(rules).into()),
        None => Ok(target),
    }
}

/// The stages that are lowered.
fn wanted(lowering: &Lowering<'_>, reachable: &[bool]) -> Vec<bool> {
    let all = lowering.options.all_stages;
    reachable.iter().map(|needed| *needed || all).collect()
}

fn dispatch_stage(lowering: &mut Lowering<'_>, index: StageIndex) -> Result<(), FrontendError> {
    let history = lowering.stages.list[index]
        .base
        .map_or(0, |base| lowering.stages.list[base].image.history.len());
    lowering
        .budget
        .spend(history * size_of::<rbuild_oci::History>())?;
    lowering.stages.inherit(index);
    let target_platform = lowering.target_platform.clone();
    let stage = &mut lowering.stages.list[index];
    stage.dispatched = true;
    stage.is_built = true;
    let platform = stage.platform.get_or_insert(target_platform).clone();
    if platform.os != "windows" && stage.image.config.env_value("PATH").is_none() {
        stage
            .image
            .config
            .env
            .push(format!("PATH={}", image::DEFAULT_PATH));
    }
    for entry in stage.image.config.env.clone() {
        let (name, value) = entry.split_once('=').unwrap_or((&entry, ""));
        stage.state.env.set(name, value);
    }
    if !stage.image.config.working_dir.is_empty() {
        let dir = stage.image.config.working_dir.clone();
        let span = stage.span;
        dispatch::set_workdir(stage, &dir, &platform.os).map_err(|error| error.or_at(span))?;
    }
    if !stage.image.config.user.is_empty() {
        stage.state.user.clone_from(&stage.image.config.user);
    }
    let commands = std::mem::take(&mut stage.commands);
    for command in &commands {
        let span = command.instruction.span;
        dispatch::command(lowering, index, command).map_err(|error| error.or_at(span))?;
    }
    Ok(())
}

fn finish(
    mut lowering: Lowering<'_>,
    dockerfile: &Dockerfile,
    target: StageIndex,
) -> Result<Lowered, FrontendError> {
    let reachable = lowering.stages.reachable(target);
    let outline = lowering
        .options
        .outline
        .then(|| lowering.outline(target, &dockerfile.stages[target]));
    let mut scan_targets = lowering.scan_targets(target, &reachable)?;
    let stage = std::mem::take(&mut lowering.stages.list[target]);
    let info = |(index, stage): (usize, &rbuild_dockerfile::Stage)| StageInfo {
        name: stage.name.clone(),
        base: stage.base_name.clone(),
        description: stage.doc_comment.clone(),
        span: stage.span,
        needed: reachable.get(index).copied().unwrap_or(false),
    };
    let result = match &stage.state.root {
        Some(target) => {
            let graph = &mut lowering.graph;
            lowering.origins.settle(graph, target);
            let target = &target.edge;
            Some(lowering.local_paths.follow(graph, target, &mut scan_targets)?)
        }
        None => None,
    };
    let all = lowering.context_paths.contains("/");
    let relative = |path: &String| path.trim_start_matches('/').to_owned();
    Ok(Lowered {
        graph: lowering.graph,
        result,
        image: stage.image,
        base_image: stage.base_image,
        platform: stage.platform.unwrap_or(lowering.target_platform),
        stages: dockerfile.stages.iter().enumerate().map(info).collect(),
        warnings: lowering.lint.warnings,
        context_paths: (!all).then(|| lowering.context_paths.iter().map(relative).collect()),
        epoch: lowering.epoch,
        ignore_cache: stage.ignore_cache,
        scan_targets,
        outline,
    })
}

/// Names that may have been meant by a variable, and the unset ones.
pub(crate) fn suggestions<'a>(
    unmatched: impl Iterator<Item = &'a String>,
    known: &crate::env::Env,
) -> Option<String> {
    let names = known.names();
    let mut found = unmatched.filter_map(|name| nearest(name, names.iter().copied(), true));
    found.next()
}

type Values = BTreeMap<String, String>;
