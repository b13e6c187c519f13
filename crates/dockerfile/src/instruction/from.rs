//! FROM: the head of a stage.

use crate::Span;
use crate::error::{ParseError, ParseErrorKind};
use crate::instruction::flags::{FlagType, Flags};
use crate::instruction::{Instruction, doc_comment, words};
use crate::parser::Node;

/// A stage: FROM and the instructions up to the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Image or stage it is based on, as written.
    pub base_name: String,
    /// Name, lower case; empty if it has none.
    pub name: String,
    /// `--platform`, as written; empty if absent.
    pub platform: String,
    /// FROM as written.
    pub keyword: String,
    /// The whole FROM line.
    pub source: String,
    /// Where the FROM line stands.
    pub span: Span,
    /// Comment lines right above it.
    pub comments: Vec<String>,
    /// What the comment above says of the stage.
    pub doc_comment: String,
    /// Its instructions.
    pub instructions: Vec<Instruction>,
}

pub(crate) fn stage(node: &Node) -> Result<Stage, ParseError> {
    let fail = |kind| ParseError::new(kind, node.span);
    let (base, written) = match words(&node.arguments) {
        [base] => (base, None),
        [base, keyword, name] if is_as(keyword) => (base, Some(name)),
        _ => return Err(fail(ParseErrorKind::FromArguments)),
    };
    let name = written.map(|name| name.to_lowercase()).unwrap_or_default();
    if let Some(written) = written.filter(|_| !is_stage_name(&name)) {
        return Err(fail(ParseErrorKind::StageName(written.clone())));
    }
    let flags = Flags::parse(node, &[("platform", FlagType::Text)])?;
    Ok(Stage {
        base_name: base.clone(),
        doc_comment: doc_comment(&node.comments, &name),
        name,
        platform: flags.text("platform").to_owned(),
        keyword: node.keyword.clone(),
        source: node.original.trim().to_owned(),
        span: node.span,
        comments: node.comments.clone(),
        instructions: Vec::new(),
    })
}

/// AS in any case. Go's `strings.EqualFold` takes the long s for one.
fn is_as(keyword: &str) -> bool {
    keyword.eq_ignore_ascii_case("as") || matches!(keyword, "aſ" | "Aſ")
}

fn is_stage_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
}
