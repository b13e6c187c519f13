//! `SOURCE_DATE_EPOCH`: a number, or what has a time (BuildKit `dockerfile2llb/epoch.go`): `context`, a named context, or
//! a stage that is nothing but one ADD from the network. Which source that is, is found here; its time is asked for.

use rbuild_dockerfile::shell::Variables as _;
use rbuild_dockerfile::{Add, ArgDefinition, Dockerfile, InstructionKind, Span, Stage};
use rbuild_graph::{Op, SourceOp};
use rbuild_oci::{DigestError, Timestamp};

use crate::context::ContextSource;
use crate::env::Env;
use crate::error::{FrontendError, FrontendErrorKind};
use crate::git;
use crate::input::InputGraph;
use crate::lowering::Lowering;
use crate::remote;
use crate::resolver::{MetaResolver, ResolveError, SourceTimeRequest};
use crate::stage::SCRATCH;

const NAME: &str = "SOURCE_DATE_EPOCH";
/// The word for the main context.
const MAIN_CONTEXT: &str = "context";

/// Why `SOURCE_DATE_EPOCH` is no time. Texts are BuildKit's.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// It names nothing.
    #[error("invalid SOURCE_DATE_EPOCH: {0}")]
    Unknown(String),
    /// The stage has a base.
    #[error("SOURCE_DATE_EPOCH stage must use FROM scratch")]
    Base,
    /// The stage has no ADD, or several.
    #[error("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD")]
    Adds,
    /// Its ADD has several sources.
    #[error("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source")]
    Sources,
    /// Its ADD is of something local.
    #[error("SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD")]
    Local,
    /// The stage does something else; the keyword, as written.
    #[error("SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported {0} instruction")]
    Instruction(String),
    /// Its checksum is none.
    #[error("{}", .0.in_docker_words())]
    Checksum(DigestError),
    /// The source's time could not be found out.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
}

/// What has the time.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    source: SourceOp,
    log_name: String,
}

/// Takes `SOURCE_DATE_EPOCH` from the arguments and puts the time there, in seconds; nothing if there is none.
///
/// # Errors
/// [`EpochError`] with the lines it is about, and those of words that cannot be expanded.
pub(super) async fn resolve<R: MetaResolver>(
    lowering: &mut Lowering<'_>,
    dockerfile: &Dockerfile,
    resolver: &R,
) -> Result<(), FrontendError> {
    let global = || lowering.global_args.get(NAME).filter(|value| !value.is_empty());
    let given = lowering.build_args.get(NAME).map(String::as_str);
    let Some(value) = given.or_else(global).map(str::to_owned) else {
        return Ok(());
    };
    let time = time(lowering, dockerfile, &value, resolver).await;
    lowering.epoch = time.map_err(|error| match default_span(dockerfile) {
        Some(span) if !lowering.build_args.contains_key(NAME) => error.or_at(span),
        _ => error,
    })?;
    let seconds = lowering.epoch.map(|time| time.unix_seconds().to_string());
    match (lowering.build_args.get_mut(NAME), &seconds) {
        (Some(given), Some(seconds)) => given.clone_from(seconds),
        (Some(_), None) => drop(lowering.build_args.remove(NAME)),
        (None, _) => {}
    }
    if lowering.global_args.get(NAME).is_some() {
        match &seconds {
            Some(seconds) => lowering.global_args.set(NAME, seconds),
            None => lowering.global_args.remove(NAME),
        }
    }
    Ok(())
}

/// Where the Dockerfile says what it is by default.
fn default_span(dockerfile: &Dockerfile) -> Option<Span> {
    let found = dockerfile.global_args.iter().rev().find(|instruction| {
        matches!(&instruction.kind, InstructionKind::Arg(list) if list.iter().any(|arg| arg.key == NAME))
    });
    found.map(|instruction| instruction.span)
}

async fn time<R: MetaResolver>(
    lowering: &mut Lowering<'_>,
    dockerfile: &Dockerfile,
    value: &str,
    resolver: &R,
) -> Result<Option<Timestamp>, FrontendError> {
    if value.is_empty() {
        return Ok(None);
    }
    if let Ok(seconds) = value.parse() {
        let time = Timestamp::from_unix(seconds, 0);
        let wrong = || fail(EpochError::Unknown(value.to_owned()));
        return time.map(Some).ok_or_else(wrong);
    }
    let Some(place) = place(lowering, dockerfile, value)? else {
        return Ok(None);
    };
    let request = SourceTimeRequest {
        source: place.source,
        log_name: place.log_name,
    };
    let found = resolver.source_time(&request).await;
    found.map_err(|error| fail(EpochError::Resolve(error)))
}

fn fail(error: EpochError) -> FrontendError {
    FrontendErrorKind::Epoch(error).into()
}

/// The source that `value` names; `None` if it names one that has no time, such as a directory or an image.
fn place(
    lowering: &mut Lowering<'_>,
    dockerfile: &Dockerfile,
    value: &str,
) -> Result<Option<Place>, FrontendError> {
    if value == MAIN_CONTEXT {
        return Ok(dated(main_source(lowering)).map(|source| Place {
            source,
            log_name: "[internal] resolve main build context metadata".to_owned(),
        }));
    }
    if let Some(context) = lowering.contexts.named(value, &lowering.options.build_platform)? {
        let source = match context.source {
            ContextSource::Git { url, .. } => Some(url.to_source()),
            ContextSource::Http(url) => Some(remote::context_file(&url)),
            ContextSource::Input(input) => only_source(&input).cloned(),
            _ => None,
        };
        return Ok(dated(source).map(|source| Place {
            source,
            log_name: format!("[internal] resolve SOURCE_DATE_EPOCH named context {value}"),
        }));
    }
    let named = |stage: &&Stage| !stage.name.is_empty() && stage.name.eq_ignore_ascii_case(value);
    let Some(stage) = dockerfile.stages.iter().find(named) else {
        return Err(fail(EpochError::Unknown(value.to_owned())));
    };
    let source = stage_source(lowering, stage).map_err(|error| error.or_at(stage.span))?;
    Ok(Some(Place {
        source,
        log_name: format!("[internal] resolve SOURCE_DATE_EPOCH source stage {}", stage.name),
    }))
}

fn main_source(lowering: &Lowering<'_>) -> Option<SourceOp> {
    match &lowering.options.main_context {
        Some(input) => only_source(input).cloned(),
        None => Some(lowering.options.remote_context.as_ref()?.source.clone()),
    }
}

/// The source of a graph that has one.
fn only_source(input: &InputGraph) -> Option<&SourceOp> {
    let target = input.target.as_ref()?;
    let needed = input.graph.reachable(std::slice::from_ref(&target.vertex)).ok()?;
    let mut sources = needed
        .iter()
        .filter_map(|vertex| match &input.graph.get(vertex)?.op {
            Op::Source(source) => Some(source),
            _ => None,
        });
    let only = sources.next()?;
    sources.next().is_none().then_some(only)
}

/// `source` if its kind has times.
fn dated(source: Option<SourceOp>) -> Option<SourceOp> {
    const KINDS: [&str; 3] = ["git://", "http://", "https://"];
    source.filter(|source| KINDS.iter().any(|kind| source.identifier.starts_with(kind)))
}

fn stage_source(lowering: &mut Lowering<'_>, stage: &Stage) -> Result<SourceOp, FrontendError> {
    let mut env = lowering.global_args.clone();
    env.remove(NAME);
    let lexer = lowering.lexer;
    if lowering.expand_with(lexer, &stage.base_name, &env)?.text != SCRATCH {
        return Err(fail(EpochError::Base));
    }
    let mut found = None;
    for instruction in &stage.instructions {
        match &instruction.kind {
            InstructionKind::Arg(list) => set_args(lowering, list, &mut env)?,
            InstructionKind::Add(_) if found.is_some() => return Err(fail(EpochError::Adds)),
            InstructionKind::Add(add) => found = Some(add_source(lowering, add, &env)?),
            _ => {
                return Err(fail(EpochError::Instruction(instruction.keyword.clone())));
            }
        }
    }
    found.ok_or_else(|| fail(EpochError::Adds))
}

fn set_args(lowering: &mut Lowering<'_>, list: &[ArgDefinition], env: &mut Env) -> Result<(), FrontendError> {
    for arg in list {
        let value = match (lowering.build_args.get(&arg.key), &arg.value) {
            (Some(given), _) => given.clone(),
            (None, Some(value)) => {
                let lexer = lowering.lexer;
                lowering.expand_with(lexer, value, env)?.text
            }
            (None, None) => continue,
        };
        env.set(&arg.key, &value);
    }
    Ok(())
}

fn add_source(lowering: &mut Lowering<'_>, add: &Add, env: &Env) -> Result<SourceOp, FrontendError> {
    let ([path], []) = (add.files.paths.as_slice(), add.files.contents.as_slice()) else {
        return Err(fail(EpochError::Sources));
    };
    let lexer = lowering.lexer;
    let path = lowering.expand_with(lexer, path, env)?.text;
    let checksum = lowering.expand_with(lexer, &add.checksum, env)?.text;
    if git::is_http_file(&path) {
        let name = git::http_file_name(&path).map_err(FrontendErrorKind::FileName)?;
        let source = git::http_source(&path, &name, &checksum);
        return source.map_err(|error| fail(EpochError::Checksum(error)));
    }
    let Some(url) = git::parse(&path) else {
        return Err(fail(EpochError::Local));
    };
    let mut url = url.map_err(FrontendErrorKind::Git)?;
    if add.keep_git_dir == Some(true) {
        url.keep_git_dir = Some(true);
    }
    if !checksum.is_empty() {
        url.checksum = checksum;
    }
    url.times.clear();
    Ok(url.to_source())
}
