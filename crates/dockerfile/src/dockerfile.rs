//! A whole Dockerfile: stages in order, the ARGs before them, directives.

use crate::directive::Directive;
use crate::error::{ParseError, ParseErrorKind};
use crate::instruction::{self, Instruction, InstructionKind, Item, Stage};
use crate::{Span, parser};

/// A Dockerfile, read but not expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// ARG instructions before the first FROM.
    pub global_args: Vec<Instruction>,
    /// Stages in order.
    pub stages: Vec<Stage>,
    /// Directives at the top.
    pub directives: Vec<Directive>,
    /// Escape character, `\` or `` ` ``.
    pub escape: char,
    /// Last lines of instructions that have an empty continuation line.
    pub empty_continuations: Vec<u32>,
    /// Lines of MAINTAINER instructions with their comments, which are linted even where they stand wrong.
    pub maintainers: Vec<(Span, Vec<String>)>,
    /// What stands on FROM lines, which is linted even where it is wrong.
    pub from_lines: Vec<FromLine>,
}

/// The words of a FROM line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromLine {
    /// FROM as written.
    pub keyword: String,
    /// What stands behind it, flags apart.
    pub words: Vec<String>,
    /// Where it stands.
    pub span: Span,
    /// Comment lines right above it.
    pub comments: Vec<String>,
}

/// Reads a Dockerfile. What could be read is there in any case; the errors are in the order in which BuildKit finds
/// them, so the first is the one it reports.
#[must_use]
pub fn parse(bytes: &[u8]) -> (Dockerfile, Vec<ParseError>) {
    let (parsed, mut errors) = parser::parse(bytes);
    let had_line_errors = !errors.is_empty();
    let mut dockerfile = Dockerfile {
        global_args: Vec::new(),
        stages: Vec::new(),
        directives: parsed.directives,
        escape: parsed.escape,
        empty_continuations: parsed.empty_continuations,
        maintainers: Vec::new(),
        from_lines: Vec::new(),
    };
    for node in &parsed.nodes {
        if node.keyword.eq_ignore_ascii_case("maintainer") {
            dockerfile.maintainers.push((node.span, node.comments.clone()));
        } else if node.keyword.eq_ignore_ascii_case("from") {
            dockerfile.from_lines.push(FromLine {
                keyword: node.keyword.clone(),
                words: instruction::words(&node.arguments).to_vec(),
                span: node.span,
                comments: node.comments.clone(),
            });
        }
        match instruction::interpret(node) {
            Ok(Item::Stage(stage)) => dockerfile.stages.push(stage),
            Ok(Item::Instruction(instruction)) => match dockerfile.stages.last_mut() {
                Some(stage) => stage.instructions.push(instruction),
                None if matches!(instruction.kind, InstructionKind::Arg(_)) => {
                    dockerfile.global_args.push(instruction);
                }
                None => errors.push(ParseError::new(ParseErrorKind::BeforeFirstStage, node.span)),
            },
            Err(error) => errors.push(error),
        }
    }
    if dockerfile.stages.is_empty() && errors.is_empty() && !had_line_errors {
        errors.push(ParseError::new(ParseErrorKind::NoStage, Span::default()));
    }
    (dockerfile, errors)
}

/// Reads the text of one ONBUILD trigger; its place is that of the FROM that pulls it in.
///
/// # Errors
/// [`ParseError`] if it is not exactly one instruction of those a trigger may be.
pub fn parse_trigger(text: &str, span: Span) -> Result<Instruction, ParseError> {
    let (parsed, errors) = parser::parse(text.as_bytes());
    if let Some(mut error) = errors.into_iter().next() {
        error.span = span;
        return Err(error);
    }
    let mut nodes = parsed.nodes;
    let (Some(mut node), true) = (nodes.pop(), nodes.is_empty()) else {
        return Err(ParseError::new(ParseErrorKind::NotOneTrigger, span));
    };
    node.span = span;
    match instruction::interpret(&node)? {
        Item::Instruction(instruction) => Ok(instruction),
        Item::Stage(_) => Err(ParseError::new(
            ParseErrorKind::OnbuildTrigger("FROM".to_owned()),
            span,
        )),
    }
}
