//! What can be wrong with a Dockerfile, each with its place and, where one is near, the name that was meant.
//!
//! Texts are BuildKit's where it has one: people search for them.

use std::fmt;

use crate::Span;
use crate::quote::quote;
use crate::shell::ExpandError;

/// One thing wrong with a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// What.
    pub kind: ParseErrorKind,
    /// Where.
    pub span: Span,
    /// The known name nearest to what was written.
    pub suggestion: Option<String>,
}

impl ParseError {
    pub(crate) fn new(kind: ParseErrorKind, span: Span) -> Self {
        Self {
            kind,
            span,
            suggestion: None,
        }
    }

    /// Whether lines, not an instruction's meaning, are wrong: BuildKit finds all of these first.
    #[must_use]
    pub fn is_line_error(&self) -> bool {
        use ParseErrorKind as K;
        matches!(
            self.kind,
            K::Empty
                | K::TooLarge
                | K::TooManyInstructions
                | K::LineTooLong
                | K::NoInstructions
                | K::DuplicateDirective { .. }
                | K::BadEscape { .. }
                | K::NotStringArray
                | K::TwoArgumentsNeeded { .. }
                | K::NoEqualsSign { .. }
                | K::UnterminatedHeredoc
                | K::HeredocName(_)
        )
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unplaced = matches!(
            self.kind,
            ParseErrorKind::NoStage | ParseErrorKind::BeforeFirstStage
        );
        if !self.is_line_error() && !unplaced {
            write!(f, "dockerfile parse error on line {}: ", self.span.start)?;
        }
        self.kind.fmt(f)?;
        match &self.suggestion {
            Some(name) => write!(f, " (did you mean {name}?)"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ParseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.kind)
    }
}

/// Kinds of [`ParseError`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseErrorKind {
    /// There is no byte in it.
    #[error("the Dockerfile cannot be empty")]
    Empty,
    /// It is larger than [`crate::MAX_DOCKERFILE_BYTES`].
    #[error("the Dockerfile is larger than {} bytes", crate::MAX_DOCKERFILE_BYTES)]
    TooLarge,
    /// It has more than [`crate::MAX_INSTRUCTIONS`].
    #[error("the Dockerfile has more than {} instructions", crate::MAX_INSTRUCTIONS)]
    TooManyInstructions,
    /// A line is longer than 65,535 bytes.
    #[error("dockerfile line greater than max allowed size of 65535")]
    LineTooLong,
    /// There are only comments and blank lines.
    #[error("file with no instructions")]
    NoInstructions,
    /// No FROM.
    #[error("dockerfile contains no stages to build")]
    NoStage,
    /// An instruction other than ARG before the first FROM.
    #[error("no build stage in current context")]
    BeforeFirstStage,
    /// A directive stands there twice.
    #[error("only one {name} parser directive can be used")]
    DuplicateDirective {
        /// Which.
        name: &'static str,
    },
    /// The escape directive names another character.
    #[error("invalid escape token '{token}' does not match ` or \\")]
    BadEscape {
        /// Which.
        token: String,
    },
    /// A JSON array holds something besides strings.
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    NotStringArray,
    /// `ENV name` without a value.
    #[error("{instruction} must have two arguments")]
    TwoArgumentsNeeded {
        /// ENV or LABEL.
        instruction: &'static str,
    },
    /// A word of ENV or LABEL has no `=`.
    #[error("Syntax error - can't find = in {}. Must be of the form: name=value", quote(.word))]
    NoEqualsSign {
        /// The word.
        word: String,
    },
    /// A here-document does not end.
    #[error("unterminated heredoc")]
    UnterminatedHeredoc,
    /// The name of a here-document cannot be read.
    #[error(transparent)]
    HeredocName(ExpandError),
    /// No such instruction.
    #[error("unknown instruction: {0}")]
    UnknownInstruction(String),
    /// A flag this instruction does not have.
    #[error("unknown flag: --{0}")]
    UnknownFlag(String),
    /// A flag was given twice.
    #[error("duplicate flag specified: --{0}")]
    DuplicateFlag(String),
    /// A flag has no value.
    #[error("missing a value on flag: --{0}")]
    FlagWithoutValue(String),
    /// A boolean flag has another value.
    #[error("expecting boolean value for flag --{flag}, not: {value}")]
    NotBoolean {
        /// Flag.
        flag: String,
        /// Value.
        value: String,
    },
    /// No argument at all.
    #[error("{0} requires at least one argument")]
    AtLeastOneArgument(&'static str),
    /// Not exactly one argument.
    #[error("{0} requires exactly one argument")]
    ExactlyOneArgument(&'static str),
    /// COPY or ADD with one argument.
    #[error(
        "{0} requires at least two arguments, but only one was provided. Destination could not be determined"
    )]
    NoDestination(&'static str),
    /// A here-document where a path is needed.
    #[error("{0} cannot accept a heredoc as a destination")]
    HeredocDestination(&'static str),
    /// `=value` without a name.
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    /// FROM with two, or more than three, words.
    #[error("FROM requires either one or three arguments")]
    FromArguments,
    /// A stage name with other characters.
    #[error("invalid name for build stage: {}, name can't start with a number or contain symbols", quote(.0))]
    StageName(String),
    /// `ONBUILD ONBUILD`.
    #[error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    ChainedOnbuild,
    /// `ONBUILD FROM` or `ONBUILD MAINTAINER`.
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    OnbuildTrigger(String),
    /// A trigger that is several instructions.
    #[error("onbuild trigger should be a single expression")]
    NotOneTrigger,
    /// SHELL in another than JSON form.
    #[error("{0} requires the arguments to be in JSON form")]
    NotJson(&'static str),
    /// `VOLUME ""`.
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    /// `HEALTHCHECK NONE x`.
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthcheckNone,
    /// `HEALTHCHECK CMD` without a command.
    #[error("Missing command after HEALTHCHECK CMD")]
    HealthcheckCommand,
    /// Neither CMD nor NONE.
    #[error("Unknown type {} in HEALTHCHECK (try CMD)", quote(.0))]
    HealthcheckType(String),
    /// An interval below one millisecond.
    #[error("Interval {} cannot be less than 1ms", quote(.0))]
    IntervalTooShort(String),
    /// A duration Go would not read.
    #[error(transparent)]
    Duration(crate::duration::DurationError),
    /// Retries are no number.
    #[error("strconv.ParseInt: parsing {}: {reason}", quote(.value))]
    Number {
        /// As written.
        value: String,
        /// Go's word for what is wrong.
        reason: &'static str,
    },
    /// Retries below zero.
    #[error("--retries cannot be negative ({0})")]
    NegativeRetries(i64),
    /// A value `--network` does not know.
    #[error("invalid network mode {}", quote(.0))]
    NetworkMode(String),
    /// A value `--security` does not know.
    #[error("security {} is not valid", quote(.0))]
    SecurityMode(String),
    /// Something in `--mount`.
    #[error(transparent)]
    Mount(crate::instruction::MountError),
    /// Something in `--device`.
    #[error(transparent)]
    Device(crate::instruction::DeviceError),
}
