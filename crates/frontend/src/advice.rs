//! Rules of our own, which BuildKit does not have: what they need to know of each instruction is noted while the stage
//! is lowered, and judged when it is known which stages end up in the image.
//!
//! All are off unless the Dockerfile, `BUILDKIT_DOCKERFILE_CHECK` or the caller asks for them (see [`crate::lint`]),
//! so that what is told by default is what BuildKit tells. Each is a guess from the text: a step is never run, a file
//! never opened. Where the text leaves doubt nothing is said.

mod commands;
mod installs;
mod judge;
mod loader;
mod ownership;
mod packages;
mod secrets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use rbuild_dockerfile::shell::{Lexer, MAX_GROWTH_BYTES};
use rbuild_dockerfile::{
    ArgDefinition, CommandLine, Dockerfile, Instruction, InstructionKind, KeyValue, MountOptions, MountType,
    Run, SourcesAndDestination, Span, path,
};

pub(crate) use crate::advice::judge::conclude;
use crate::dispatch::Site;
use crate::env::Env;
use crate::lint::{Linter, Rule};
use crate::lowering::Lowering;
use crate::stage::StageIndex;

/// Bytes of a path of a step that is looked at: no kernel takes a longer one.
const PATH_BYTES_MAX: usize = 4096;
/// Text that expansions make for these rules alone, all of a Dockerfile.
const EXPANDED_BYTES_MAX: usize = 16 << 20;

/// What was noted of all stages.
#[derive(Debug, Default)]
pub(crate) struct Advice {
    wanted: bool,
    /// How much text expansions may still make.
    expandable_bytes: AtomicUsize,
    notes: BTreeMap<StageIndex, Vec<Note>>,
}

/// What is remembered of one instruction.
#[derive(Debug)]
struct Note {
    span: Span,
    comments: Vec<String>,
    kind: NoteKind,
}

#[derive(Debug)]
enum NoteKind {
    /// COPY or ADD of files.
    Copy(CopyNote),
    Run(RunNote),
}

#[derive(Debug)]
struct CopyNote {
    /// Absolute, clean.
    destination: String,
    /// All of the main context.
    whole: bool,
    /// Not just single files.
    tree: bool,
    /// The stage or image it copies from.
    from: Option<StageIndex>,
    /// Absolute, clean; of what is copied from another stage.
    sources: Vec<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct RunNote {
    /// Package managers that leave their lists or archives behind.
    leaves: Vec<packages::Leaves>,
    /// What installs the dependencies of a project.
    installs: Option<&'static str>,
    /// Directories whose entries all get another owner or mode, absolute, with the program that does it.
    changes: Vec<ownership::Change>,
    /// Programs it links.
    built: Vec<loader::Built>,
    /// Programs of the system that its text names.
    named: BTreeSet<String>,
    installs_glibc: bool,
}

impl Advice {
    /// Notes are made only if some rule of ours is asked for somewhere.
    pub(crate) fn new(lint: &Linter, dockerfile: &Dockerfile) -> Self {
        let asks = |instruction: &Instruction| lint.asks_own(&instruction.comments);
        let in_stage = |stage: &rbuild_dockerfile::Stage| {
            lint.asks_own(&stage.comments) || stage.instructions.iter().any(asks)
        };
        Self {
            wanted: lint.asks_own(&[])
                || dockerfile.global_args.iter().any(asks)
                || dockerfile.stages.iter().any(in_stage),
            expandable_bytes: AtomicUsize::new(EXPANDED_BYTES_MAX),
            notes: BTreeMap::new(),
        }
    }
}

/// Values of ARGs in front of the first FROM.
pub(crate) fn global_args(lowering: &mut Lowering<'_>, dockerfile: &Dockerfile) {
    if !lowering.advice.wanted {
        return;
    }
    for instruction in &dockerfile.global_args {
        if let InstructionKind::Arg(definitions) = &instruction.kind {
            arguments(lowering, instruction, definitions);
        }
    }
}

/// Notes an instruction that has just been lowered.
pub(crate) fn note(lowering: &mut Lowering<'_>, site: Site<'_>) {
    if !lowering.advice.wanted {
        return;
    }
    let instruction = &site.command.instruction;
    match &instruction.kind {
        InstructionKind::Env(pairs) => values(lowering, instruction, "ENV", pairs),
        InstructionKind::Label(pairs) => values(lowering, instruction, "LABEL", pairs),
        InstructionKind::Arg(definitions) => arguments(lowering, instruction, definitions),
        InstructionKind::Run(run) => {
            let kind = NoteKind::Run(run_note(lowering, site, run));
            keep(lowering, site, kind);
        }
        InstructionKind::Copy(copy) => {
            copied(lowering, site, &copy.files, site.command.sources.first().copied());
        }
        InstructionKind::Add(add) => copied(lowering, site, &add.files, None),
        _ => {}
    }
}

fn keep(lowering: &mut Lowering<'_>, site: Site<'_>, kind: NoteKind) {
    let note = Note {
        span: site.command.instruction.span,
        comments: site.command.instruction.comments.clone(),
        kind,
    };
    lowering.advice.notes.entry(site.stage).or_default().push(note);
}

fn values(lowering: &mut Lowering<'_>, instruction: &Instruction, keyword: &str, pairs: &[KeyValue]) {
    for pair in pairs {
        secret(lowering, instruction, keyword, &pair.key, &pair.value);
    }
}

fn arguments(lowering: &mut Lowering<'_>, instruction: &Instruction, definitions: &[ArgDefinition]) {
    for definition in definitions {
        let value = definition.value.as_deref().unwrap_or_default();
        secret(lowering, instruction, "ARG", &definition.key, value);
    }
}

fn secret(lowering: &mut Lowering<'_>, instruction: &Instruction, keyword: &str, name: &str, value: &str) {
    if let Some(what) = secrets::found(name, value) {
        // The value itself is never repeated.
        let message = format!("{keyword} {name} looks like it holds {what}: it stays readable in the image");
        let (span, comments) = (instruction.span, &instruction.comments);
        lowering.lint.warn(Rule::SecretInValue, message, span, comments);
    }
}

fn copied(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    files: &SourcesAndDestination,
    from: Option<StageIndex>,
) {
    one_name(lowering, site, files);
    let state = &lowering.stages.list[site.stage].state;
    let clean = |word: &String| path::clean(&expanded(lowering, word, &state.env));
    let sources: Vec<String> = files.paths.iter().map(clean).collect();
    let all = |source: &String| matches!(source.as_str(), "." | "/" | "*");
    // A name with an ending is one file.
    let single = |source: &String| path::base(source).trim_start_matches('.').contains('.');
    let note = CopyNote {
        whole: from.is_none() && sources.iter().any(all),
        tree: sources
            .iter()
            .any(|source| all(source) || source.contains('*') || !single(source)),
        destination: absolute(&state.dir, &expanded(lowering, &files.destination, &state.env)),
        sources: match from {
            Some(_) => sources.iter().map(|source| absolute("/", source)).collect(),
            None => Vec::new(),
        },
        from,
    };
    keep(lowering, site, NoteKind::Copy(note));
}

/// Several sources need a directory, and it is the slash behind its name that says so.
fn one_name(lowering: &mut Lowering<'_>, site: Site<'_>, files: &SourcesAndDestination) {
    if files.paths.len() + files.contents.len() < 2 {
        return;
    }
    let state = &lowering.stages.list[site.stage].state;
    let destination = expanded(lowering, &files.destination, &state.env);
    if destination.ends_with('/') || matches!(path::base(&destination), "." | "..") {
        return;
    }
    let instruction = &site.command.instruction;
    let message = format!(
        "several sources and {destination:?} without a slash behind it: unless that is a directory already, each replaces the one before it"
    );
    let (span, comments) = (instruction.span, &instruction.comments);
    lowering
        .lint
        .warn(Rule::ManySourcesOneName, message, span, comments);
}

fn run_note(lowering: &Lowering<'_>, site: Site<'_>, run: &Run) -> RunNote {
    let state = &lowering.stages.list[site.stage].state;
    let text = text(&run.command);
    let commands = commands::split(&text);
    let mounts: Vec<MountOptions> = run
        .mounts
        .iter()
        .filter_map(|mount| {
            let mut expand = |word: &str| Ok(expanded(lowering, word, &state.env));
            MountOptions::parse(mount, &mut expand).ok()
        })
        .collect();
    let kept_out: Vec<&str> = mounts
        .iter()
        .filter(|mount| matches!(mount.mount_type, MountType::Cache | MountType::Tmpfs))
        .map(|mount| mount.target.as_str())
        .collect();
    // What is downloaded into a cache mount need not be downloaded again, so little is lost.
    let cached = mounts.iter().any(|mount| mount.mount_type == MountType::Cache);
    let word = |word: &str| {
        let path = expanded(lowering, word, &state.env);
        (path.len() <= PATH_BYTES_MAX).then(|| absolute(&state.dir, &path))
    };
    RunNote {
        leaves: packages::left(&commands, &kept_out),
        installs: installs::tool(&commands).filter(|_| !cached),
        changes: ownership::changes(&commands, &word),
        built: loader::built(&text, &commands, &state.env, &word),
        named: commands
            .iter()
            .flatten()
            .filter_map(|name| word(name))
            .filter(|path| loader::is_packaged(path))
            .collect(),
        installs_glibc: loader::installs_glibc(&text),
    }
}

/// What the shell, or whatever runs it, is given.
fn text(line: &CommandLine) -> String {
    let mut text = match line.arguments.as_slice() {
        [_, option, script] if !line.prepend_shell && option.ends_with('c') => script.clone(),
        arguments => arguments.join(" "),
    };
    for heredoc in &line.heredocs {
        text.push('\n');
        text += &heredoc.content;
    }
    text
}

/// A word with the variables known so far; as it is if that fails, or if expansions have made too much text already.
fn expanded(lowering: &Lowering<'_>, word: &str, env: &Env) -> String {
    let left = &lowering.advice.expandable_bytes;
    if left.load(Ordering::Relaxed) == 0 || !word.contains(['$', '\\', '"', '\'']) {
        return word.to_owned();
    }
    let lexer = Lexer {
        skip_unset: true,
        ..lowering.lexer
    };
    let text = lexer.expand(word, env).map(|found| found.text);
    let made = text.as_ref().map_or(MAX_GROWTH_BYTES, String::len);
    left.store(
        left.load(Ordering::Relaxed).saturating_sub(made),
        Ordering::Relaxed,
    );
    text.unwrap_or_else(|_| word.to_owned())
}

fn absolute(dir: &str, word: &str) -> String {
    path::clean(&match word.starts_with('/') {
        true => word.to_owned(),
        false => path::join(&["/", dir, word]),
    })
}

#[cfg(test)]
mod tests;
