//! Why bake files define nothing: places in them, and what is wrong there.

use crate::syntax::Span;

/// Something in a file is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub span: Span,
    /// The rule that is broken.
    pub summary: &'static str,
    /// How.
    pub detail: String,
}

impl Fault {
    pub(crate) fn new(span: Span, summary: &'static str, detail: impl Into<String>) -> Self {
        Self {
            span,
            summary,
            detail: detail.into(),
        }
    }
}

/// Why there is no definition.
#[derive(Debug, thiserror::Error)]
pub enum BakeError {
    /// A file is wrong.
    #[error("{filename}:{}: {}; {}", range(fault.span), fault.summary, fault.detail)]
    File {
        /// Its name as it was given.
        filename: String,
        /// Its text, to be shown.
        text: String,
        /// Where and how.
        fault: Box<Fault>,
    },
    /// A file is no text.
    #[error("failed to parse {0}: it is not UTF-8")]
    NotText(String),
    /// A file is larger than is read.
    #[error("failed to parse {filename}: more than {most} bytes")]
    TooLarge {
        /// Its name.
        filename: String,
        /// The limit.
        most: usize,
    },
    /// A compose file is wrong.
    #[error("failed to parse compose file: {filename}: {message}")]
    Compose {
        /// Its name.
        filename: String,
        /// What is wrong.
        message: String,
    },
    /// More targets than are built at once.
    #[error("more than {0} targets are defined")]
    TooMany(usize),
    /// A target that nobody defined.
    #[error("failed to find target {0}")]
    NoTarget(String),
    /// A context or Dockerfile that is standard input.
    #[error("{0} from stdin not allowed in bake")]
    Stdin(&'static str),
    /// A pattern without targets.
    #[error("could not find any target matching '{0}'")]
    NoMatch(String),
    /// `--set` without a key.
    #[error("invalid override key {0}, expected target.name")]
    OverrideKey(String),
    /// `--set` without a value.
    #[error("invalid override {0}, expected target.name=value")]
    Override(String),
    /// `--set` of a part that has to be named.
    #[error("invalid key {key}, {name} requires name")]
    OverrideName {
        /// The key.
        key: String,
        /// The attribute.
        name: String,
    },
    /// `--set` of an attribute there is not.
    #[error("unknown key: {0}")]
    OverrideUnknown(String),
    /// `+=` where nothing is appended.
    #[error("invalid key {key}, {name} does not support append")]
    OverrideAppend {
        /// The key.
        key: String,
        /// The attribute.
        name: String,
    },
    /// `--set` of a boolean.
    #[error("invalid value {value} for boolean key {key}")]
    OverrideBool {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// `--set` of a secret nobody declared.
    #[error("secret {0:?} must be declared before it can be overridden")]
    OverrideSecret(String),
    /// `--var` that sets nothing.
    #[error("invalid variable {0:?}, expected key=value")]
    Variable(String),
    /// A value of an attribute that is a list of options.
    #[error(transparent)]
    Entry(#[from] crate::entries::EntryError),
    /// A target that is its own context.
    #[error("target {0} cannot link to itself")]
    SelfLink(String),
    /// Targets that are each other's contexts.
    #[error("infinite loop from {from} to {to}")]
    Loop {
        /// Where it was found.
        from: String,
        /// Where it leads.
        to: String,
    },
    /// A target lacks a platform of one that is built from it.
    #[error(
        "target {linked} can't be used by {target} because its platforms {wanted:?} are not a subset of {has:?}"
    )]
    Platforms {
        /// What is built from it.
        target: String,
        /// The target.
        linked: String,
        /// Platforms wanted.
        wanted: Vec<String>,
        /// Platforms it has.
        has: Vec<String>,
    },
}

/// `LINE,COLUMN-COLUMN`, or `LINE,COLUMN-LINE,COLUMN`.
fn range(span: Span) -> String {
    let ((line, column), (end_line, end_column)) = (span.start, span.end);
    if line == end_line {
        format!("{line},{column}-{end_column}")
    } else {
        format!("{line},{column}-{end_line},{end_column}")
    }
}
