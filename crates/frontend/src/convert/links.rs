//! Stages of the file, what each needs of others, and the triggers that bases add to them.

use std::collections::BTreeSet;

use rbuild_dockerfile::shell::NoVariables;
use rbuild_dockerfile::suggest::nearest;
use rbuild_dockerfile::{Dockerfile, Instruction, InstructionKind, Stage};
use rbuild_oci::Platform;

use crate::convert::suggestions;
use crate::error::{FrontendError, FrontendErrorKind};
use crate::lowering::Lowering;
use crate::stage::{Command, SCRATCH, StageIndex, StageState};
use crate::validate;

/// Adds all stages with their bases and platforms expanded.
pub(super) fn add_stages(lowering: &mut Lowering<'_>, dockerfile: &Dockerfile) -> Result<(), FrontendError> {
    for (number, stage) in dockerfile.stages.iter().enumerate() {
        add_stage(lowering, stage, number).map_err(|error| error.or_at(stage.span))?;
    }
    Ok(())
}

fn add_stage(lowering: &mut Lowering<'_>, written: &Stage, number: usize) -> Result<(), FrontendError> {
    let lexer = lowering.lexer;
    let global = std::mem::take(&mut lowering.global_args);
    let base = lowering.expand_with(lexer, &written.base_name, &global);
    let platform = match written.platform.as_str() {
        "" => Ok(None),
        platform => lowering.expand_with(lexer, platform, &global).map(Some),
    };
    lowering.global_args = global;
    let unmatched = match &base {
        Ok(found) => &found.unmatched,
        Err(error) => error.unmatched(),
    };
    validate::from_args(lowering, written, unmatched);
    let base = base?;
    if base.text.is_empty() {
        return Err(FrontendErrorKind::BlankBase(written.base_name.clone()).into());
    }
    let mut stage = StageState::from_stage(written.clone());
    stage.base_name = base.text;
    let mut used = base.matched;
    if let Err(error) = &platform {
        validate::from_args(lowering, written, error.unmatched());
    }
    if let Some(found) = platform? {
        validate::from_args(lowering, written, &found.unmatched);
        validate::from_platform(lowering, written, &found);
        let hint = || suggestions(found.unmatched.iter(), &lowering.global_args);
        if found.text.is_empty() {
            let error = FrontendError::new(FrontendErrorKind::BlankPlatform(written.platform.clone()));
            return Err(error.suggest(hint()));
        }
        let parsed = Platform::parse(&found.text).map_err(|source| {
            let written = written.platform.clone();
            FrontendError {
                // BuildKit tells the place where the platform is read and where it is asked for, and they are the same.
                spans: vec![stage.span; 2],
                ..FrontendError::new(FrontendErrorKind::Platform { written, source })
            }
            .suggest(hint())
        })?;
        stage.platform = Some(parsed);
        used.extend(found.matched);
    }
    if !stage.name.is_empty() {
        let platform = stage.platform.as_ref().unwrap_or(&lowering.target_platform);
        if let Some(context) = lowering.contexts.find(&stage.name, platform, stage.span)? {
            stage.named_context = Some(context);
            let index = lowering.stages.add(stage);
            let base = lowering.stages.list[index].base.take();
            return lowering.note_from(index, base, BTreeSet::new());
        }
    } else {
        stage.shown_name = format!("stage-{number}");
    }
    stage.ignore_cache = lowering.options.no_cache.holds_for(&stage.name);
    let index = lowering.stages.add(stage);
    let base = lowering.stages.list[index].base;
    lowering.note_from(index, base, used)?;
    let stage = &mut lowering.stages.list[index];
    let makes_step = |instruction: &&Instruction| {
        use InstructionKind as K;
        matches!(
            instruction.kind,
            K::Add(_) | K::Copy(_) | K::Run(_) | K::Workdir(_)
        )
    };
    let from = usize::from(stage.base_name != SCRATCH && stage.base.is_none());
    stage.command_total = from + stage.instructions.iter().filter(makes_step).count();
    Ok(())
}

/// The stage to build.
pub(super) fn target(lowering: &Lowering<'_>) -> Result<StageIndex, FrontendError> {
    match &lowering.options.target {
        None => Ok(lowering.stages.list.len() - 1),
        Some(name) if name.is_empty() => Ok(lowering.stages.list.len() - 1),
        Some(name) => lowering.stages.find(name).ok_or_else(|| {
            let hint = nearest(name, lowering.stages.names(), true);
            FrontendError::new(FrontendErrorKind::Target(name.clone())).suggest(hint)
        }),
    }
}

/// Finds what each stage takes from others.
pub(super) fn link(lowering: &mut Lowering<'_>) -> Result<(), FrontendError> {
    let written = lowering.stages.list.len();
    for index in 0..written {
        let instructions = std::mem::take(&mut lowering.stages.list[index].instructions);
        // A context in the stage's place is built from nothing, so it needs nothing.
        let replaced = lowering.stages.list[index].named_context.is_some();
        for instruction in instructions {
            let span = instruction.span;
            let command = command(lowering, instruction).map_err(|error| error.or_at(span))?;
            let stage = &mut lowering.stages.list[index];
            if !replaced {
                stage
                    .deps
                    .extend(command.sources.iter().map(|source| (*source, span)));
            }
            stage.commands.push(command);
        }
    }
    lowering.stages.check_circles()?;
    if let [only] = lowering.stages.list.as_mut_slice() {
        only.shown_name.clear();
    }
    Ok(())
}

/// Finds the stages an instruction takes files from; an image becomes a stage of its own.
fn command(lowering: &mut Lowering<'_>, instruction: Instruction) -> Result<Command, FrontendError> {
    let mut sources = Vec::new();
    match &instruction.kind {
        InstructionKind::Copy(copy) if !copy.from.is_empty() => {
            let lexer = lowering.lexer;
            if lowering.expand_with(lexer, &copy.from, &NoVariables)?.text != copy.from {
                return Err(FrontendErrorKind::VariableInFrom.into());
            }
            sources.push(match copy.from.parse::<i64>() {
                Ok(number) => usize::try_from(number)
                    .ok()
                    .filter(|index| *index < lowering.stages.list.len())
                    .ok_or(FrontendErrorKind::StageIndex(number))?,
                Err(_) => source(lowering, &copy.from, &instruction),
            });
        }
        InstructionKind::Run(run) => {
            for from in &run.mount_sources {
                let name = if from.is_empty() { SCRATCH } else { from };
                sources.push(source(lowering, name, &instruction));
            }
        }
        _ => {}
    }
    Ok(Command {
        instruction,
        sources,
        on_build: false,
    })
}

fn source(lowering: &mut Lowering<'_>, name: &str, instruction: &Instruction) -> StageIndex {
    match lowering.stages.find(name) {
        Some(index) => index,
        None => lowering.stages.add(StageState::image(name, instruction.span)),
    }
}

/// Puts ONBUILD triggers of bases in front of the stages that are built on them. True if they need stages or images
/// that were not needed before.
pub(super) fn read_triggers(lowering: &mut Lowering<'_>, reachable: &[bool]) -> Result<bool, FrontendError> {
    let mut new_deps = false;
    for (index, needed) in reachable.iter().enumerate() {
        if !needed {
            continue;
        }
        if lowering.stages.list[index].dispatched {
            // A context that stands in a stage's place has no instructions for its triggers to stand before.
            lowering.stages.list[index].image.config.on_build.clear();
            continue;
        }
        let mut triggers = std::mem::take(&mut lowering.stages.list[index].image.config.on_build);
        if let Some(base) = lowering.stages.list[index].base {
            // The image of a stage is copied over once the base is done.
            triggers.clear();
            if !std::mem::replace(&mut lowering.stages.list[index].triggers_read, true) {
                let written = lowering.stages.list[base].commands.iter();
                triggers.extend(written.filter_map(|command| match &command.instruction.kind {
                    InstructionKind::Onbuild(text) => Some(text.clone()),
                    _ => None,
                }));
            }
        }
        if !triggers.is_empty() {
            new_deps |= add_triggers(lowering, index, &triggers)?;
        }
    }
    Ok(new_deps)
}

fn add_triggers(
    lowering: &mut Lowering<'_>,
    index: StageIndex,
    triggers: &[String],
) -> Result<bool, FrontendError> {
    let span = lowering.stages.list[index].span;
    let mut commands = Vec::with_capacity(triggers.len());
    let mut new_deps = false;
    for text in triggers {
        lowering.budget.spend(text.len())?;
        let instruction = rbuild_dockerfile::parse_trigger(text, span)
            .map_err(|error| FrontendError::at(FrontendErrorKind::Trigger(error), span))?;
        let mut command = command(lowering, instruction).map_err(|error| error.or_at(span))?;
        command.on_build = true;
        new_deps |= !command.sources.is_empty();
        let sources = command.sources.iter().map(|source| (*source, span));
        lowering.stages.list[index].deps.extend(sources);
        commands.push(command);
    }
    let stage = &mut lowering.stages.list[index];
    stage.command_total += commands.len();
    commands.append(&mut stage.commands);
    stage.commands = commands;
    Ok(new_deps)
}
