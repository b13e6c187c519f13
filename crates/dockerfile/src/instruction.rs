//! Instructions with their meaning: typed arguments and flags (BuildKit `frontend/dockerfile/instructions`). Variables
//! are not expanded here.

mod copy;
mod flags;
mod from;
mod healthcheck;
mod mount;
mod run;

use crate::error::{ParseError, ParseErrorKind};
pub use crate::instruction::copy::{Add, Copy, InlineFile, SourcesAndDestination};
use crate::instruction::flags::Flags;
pub use crate::instruction::from::Stage;
pub(crate) use crate::instruction::from::stage;
pub use crate::instruction::healthcheck::Healthcheck;
pub use crate::instruction::mount::{MountError, MountOptions, MountType, Sharing};
pub use crate::instruction::run::{Device, DeviceError, Run, RunNetwork, RunSecurity};
use crate::parser::{Arguments, Heredoc, Node};
use crate::{Span, suggest};

/// An instruction of a stage (or an ARG before the first).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// What it says.
    pub kind: InstructionKind,
    /// Keyword as written.
    pub keyword: String,
    /// The instruction on one line, as BuildKit shows it.
    pub source: String,
    /// Where it stands.
    pub span: Span,
    /// Comment lines right above it.
    pub comments: Vec<String>,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the instruction of its name")]
pub enum InstructionKind {
    Add(Box<Add>),
    Arg(Vec<ArgDefinition>),
    Cmd(CommandLine),
    Copy(Box<Copy>),
    Entrypoint(CommandLine),
    Env(Vec<KeyValue>),
    Expose(Vec<String>),
    Healthcheck(Healthcheck),
    Label(Vec<KeyValue>),
    Maintainer(String),
    /// Text of the delayed instruction, here-documents included.
    Onbuild(String),
    Run(Box<Run>),
    Shell(Vec<String>),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

/// `key=value` of ENV and LABEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Left of `=`.
    pub key: String,
    /// Right of it.
    pub value: String,
    /// The old form with a blank instead of `=`.
    pub legacy: bool,
}

/// `key` or `key=value` of ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDefinition {
    /// Name.
    pub key: String,
    /// Default, if there is one.
    pub value: Option<String>,
    /// What the comment above says of it.
    pub doc_comment: String,
}

/// Command of RUN, CMD and ENTRYPOINT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandLine {
    /// Program and arguments, or one string for the shell.
    pub arguments: Vec<String>,
    /// The shell goes in front: it was not in JSON form.
    pub prepend_shell: bool,
    /// Here-documents.
    pub heredocs: Vec<Heredoc>,
}

/// What a node of the file turns out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Stage(Stage),
    Instruction(Instruction),
}

/// Keywords, upper case.
pub(crate) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Gives a node its meaning.
pub(crate) fn interpret(node: &Node) -> Result<Item, ParseError> {
    if node.keyword.eq_ignore_ascii_case("from") {
        return stage(node).map(Item::Stage);
    }
    let kind = kind(node)?;
    Ok(Item::Instruction(Instruction {
        kind,
        keyword: node.keyword.clone(),
        source: node.original.trim().to_owned(),
        span: node.span,
        comments: node.comments.clone(),
    }))
}

fn kind(node: &Node) -> Result<InstructionKind, ParseError> {
    let fail = |kind| ParseError::new(kind, node.span);
    Ok(match node.keyword.to_ascii_lowercase().as_str() {
        "add" => InstructionKind::Add(Box::new(copy::add(node)?)),
        "arg" => InstructionKind::Arg(arg(node).map_err(fail)?),
        "cmd" => {
            Flags::none(node)?;
            InstructionKind::Cmd(command_line(&node.arguments, &node.heredocs))
        }
        "copy" => InstructionKind::Copy(Box::new(copy::copy(node)?)),
        "entrypoint" => {
            Flags::none(node)?;
            InstructionKind::Entrypoint(command_line(&node.arguments, &node.heredocs))
        }
        "env" => {
            Flags::none(node)?;
            InstructionKind::Env(key_values(node, "ENV").map_err(fail)?)
        }
        "expose" => {
            let mut ports = at_least_one(node, "EXPOSE").map_err(fail)?.to_vec();
            Flags::none(node)?;
            ports.sort_unstable();
            InstructionKind::Expose(ports)
        }
        "healthcheck" => InstructionKind::Healthcheck(healthcheck::healthcheck(node)?),
        "label" => {
            Flags::none(node)?;
            InstructionKind::Label(key_values(node, "LABEL").map_err(fail)?)
        }
        "maintainer" => InstructionKind::Maintainer(exactly_one(node, "MAINTAINER")?),
        "onbuild" => InstructionKind::Onbuild(onbuild(node)?),
        "run" => InstructionKind::Run(Box::new(run::run(node)?)),
        "shell" => InstructionKind::Shell(shell(node)?),
        "stopsignal" => match words(&node.arguments) {
            // BuildKit does not look at flags here.
            [signal] => InstructionKind::StopSignal(signal.clone()),
            _ => return Err(fail(ParseErrorKind::ExactlyOneArgument("STOPSIGNAL"))),
        },
        "user" => InstructionKind::User(exactly_one(node, "USER")?),
        "volume" => InstructionKind::Volume(volume(node)?),
        "workdir" => InstructionKind::Workdir(exactly_one(node, "WORKDIR")?),
        _ => {
            let mut error = fail(ParseErrorKind::UnknownInstruction(node.keyword.clone()));
            error.suggestion = suggest::nearest(&node.keyword, KEYWORDS, false);
            return Err(error);
        }
    })
}

/// Words or elements of the JSON array.
pub(crate) fn words(arguments: &Arguments) -> &[String] {
    match arguments {
        Arguments::Words(list) | Arguments::Json(list) => list,
        Arguments::Pairs(_) | Arguments::Healthcheck(..) | Arguments::Nested(_) => &[],
    }
}

fn at_least_one<'a>(node: &'a Node, name: &'static str) -> Result<&'a [String], ParseErrorKind> {
    match words(&node.arguments) {
        [] => Err(ParseErrorKind::AtLeastOneArgument(name)),
        list => Ok(list),
    }
}

fn exactly_one(node: &Node, name: &'static str) -> Result<String, ParseError> {
    let [only] = words(&node.arguments) else {
        return Err(ParseError::new(
            ParseErrorKind::ExactlyOneArgument(name),
            node.span,
        ));
    };
    Flags::none(node)?;
    Ok(only.clone())
}

/// The command of a shell or exec form: a shell form is one string.
pub(crate) fn command_line(arguments: &Arguments, heredocs: &[Heredoc]) -> CommandLine {
    let heredocs = heredocs.to_vec();
    match arguments {
        Arguments::Json(list) => CommandLine {
            arguments: list.clone(),
            prepend_shell: false,
            heredocs,
        },
        Arguments::Words(list) if !list.is_empty() => CommandLine {
            arguments: vec![list.join(" ")],
            prepend_shell: true,
            heredocs,
        },
        _ => CommandLine {
            arguments: Vec::new(),
            prepend_shell: true,
            heredocs,
        },
    }
}

fn key_values(node: &Node, name: &'static str) -> Result<Vec<KeyValue>, ParseErrorKind> {
    let Arguments::Pairs(pairs) = &node.arguments else {
        return Err(ParseErrorKind::AtLeastOneArgument(name));
    };
    if pairs.is_empty() {
        return Err(ParseErrorKind::AtLeastOneArgument(name));
    }
    if pairs.iter().any(|(key, ..)| key.is_empty()) {
        return Err(ParseErrorKind::BlankName(name));
    }
    let pair = |(key, value, legacy): &(String, String, bool)| KeyValue {
        key: key.clone(),
        value: value.clone(),
        legacy: *legacy,
    };
    Ok(pairs.iter().map(pair).collect())
}

fn arg(node: &Node) -> Result<Vec<ArgDefinition>, ParseErrorKind> {
    let definition = |word: &String| {
        let (key, value) = match word.split_once('=') {
            Some(("", _)) => return Err(ParseErrorKind::BlankName("ARG")),
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        Ok(ArgDefinition {
            key: key.to_owned(),
            value,
            doc_comment: doc_comment(&node.comments, key),
        })
    };
    at_least_one(node, "ARG")?.iter().map(definition).collect()
}

fn volume(node: &Node) -> Result<Vec<String>, ParseError> {
    let fail = |kind| ParseError::new(kind, node.span);
    let list = at_least_one(node, "VOLUME").map_err(fail)?;
    Flags::none(node)?;
    let trimmed: Vec<String> = list.iter().map(|path| path.trim().to_owned()).collect();
    if trimmed.iter().any(String::is_empty) {
        Err(fail(ParseErrorKind::EmptyVolume))
    } else {
        Ok(trimmed)
    }
}

fn shell(node: &Node) -> Result<Vec<String>, ParseError> {
    Flags::none(node)?;
    let fail = |kind| ParseError::new(kind, node.span);
    match &node.arguments {
        Arguments::Json(list) if !list.is_empty() => Ok(list.clone()),
        Arguments::Words(list) if !list.is_empty() => Err(fail(ParseErrorKind::NotJson("SHELL"))),
        _ => Err(fail(ParseErrorKind::AtLeastOneArgument("SHELL"))),
    }
}

/// The trigger as text, to be parsed when an image or stage is built on this one.
fn onbuild(node: &Node) -> Result<String, ParseError> {
    let fail = |kind| ParseError::new(kind, node.span);
    let Arguments::Nested(nested) = &node.arguments else {
        return Err(fail(ParseErrorKind::AtLeastOneArgument("ONBUILD")));
    };
    Flags::none(node)?;
    match nested.keyword.trim().to_uppercase() {
        keyword if keyword == "ONBUILD" => return Err(fail(ParseErrorKind::ChainedOnbuild)),
        keyword if keyword == "MAINTAINER" || keyword == "FROM" => {
            return Err(fail(ParseErrorKind::OnbuildTrigger(keyword)));
        }
        _ => {}
    }
    let source = node.original.trim_start();
    let mut text = source
        .get("ONBUILD".len()..)
        .unwrap_or_default()
        .trim_start_matches(ONBUILD_BLANKS)
        .to_owned();
    for heredoc in &node.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    Ok(text)
}

/// What BuildKit cuts off behind ONBUILD: Go's `\s`.
const ONBUILD_BLANKS: [char; 5] = ['\t', '\n', '\x0c', '\r', ' '];

/// What a comment `NAME text` says.
pub(crate) fn doc_comment(comments: &[String], name: &str) -> String {
    if name.is_empty() {
        return String::new();
    }
    let text = |line: &String| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
    comments.iter().find_map(text).unwrap_or_default()
}

#[cfg(test)]
mod tests;
