//! Why a Dockerfile does not become a graph. Texts are BuildKit's where it has one.

use std::collections::BTreeSet;
use std::fmt;
use std::string::FromUtf8Error;

use rbuild_dockerfile::ignore::PatternError;
use rbuild_dockerfile::quote::quote;
use rbuild_dockerfile::shell::ExpandError;
use rbuild_dockerfile::{MountError, ParseError, Span};
use rbuild_oci::{ConfigError, DigestError, PlatformError, ReferenceError};

use crate::lint::LintWarning;
use crate::resolver::ResolveError;

/// An error with its place and, where one is near, the name that was meant.
#[derive(Debug)]
pub struct FrontendError {
    /// What is wrong.
    pub kind: Box<FrontendErrorKind>,
    /// The places it is about, in BuildKit's order; none if no line is to blame. What stages need in a circle has many, and
    /// a place that BuildKit tells twice is here twice.
    pub spans: Vec<Span>,
    /// The known name nearest to what was written.
    pub suggestion: Option<String>,
    /// Lint warnings found before.
    pub warnings: Vec<LintWarning>,
}

/// An error of a text that has no lines of its own.
fn unplaced(error: &ParseError) -> String {
    match &error.suggestion {
        Some(name) => format!("{} (did you mean {name}?)", error.kind),
        None => error.kind.to_string(),
    }
}

impl FrontendError {
    pub(crate) fn new(kind: FrontendErrorKind) -> Self {
        Self {
            kind: Box::new(kind),
            spans: Vec::new(),
            suggestion: None,
            warnings: Vec::new(),
        }
    }

    pub(crate) fn at(kind: FrontendErrorKind, span: Span) -> Self {
        Self {
            spans: vec![span],
            ..Self::new(kind)
        }
    }

    pub(crate) fn suggest(mut self, suggestion: Option<String>) -> Self {
        self.suggestion = suggestion;
        self
    }

    /// Variables that a word which cannot be expanded asked for and that are not set.
    pub(crate) fn unmatched(&self) -> &BTreeSet<String> {
        const NONE: &BTreeSet<String> = &BTreeSet::new();
        match &*self.kind {
            FrontendErrorKind::Expand(error) => &error.unmatched,
            _ => NONE,
        }
    }

    /// The same with a place, if it has none yet.
    pub(crate) fn or_at(mut self, span: Span) -> Self {
        if self.spans.is_empty() {
            self.spans.push(span);
        }
        self
    }

    /// The first of the places it is about.
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        self.spans.first().copied()
    }
}

fn ignore_file(place: &str) -> String {
    match place {
        "" => String::new(),
        place => format!("failed to read ignore file: {place}: "),
    }
}

impl fmt::Display for FrontendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        match &self.suggestion {
            Some(name) => write!(f, " (did you mean {name}?)"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for FrontendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source = std::error::Error::source(&*self.kind)?;
        match &self.suggestion {
            // Kinds tell what they come from, and the suggestion stands behind it: only what lies deeper is left to tell.
            Some(_) => source.source(),
            None => Some(source),
        }
    }
}

impl From<FrontendErrorKind> for FrontendError {
    fn from(kind: FrontendErrorKind) -> Self {
        Self::new(kind)
    }
}

/// Kinds of [`FrontendError`].
#[derive(Debug, thiserror::Error)]
pub enum FrontendErrorKind {
    /// The Dockerfile cannot be read; these are all its errors, the first is shown.
    #[error("{}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Parse(Vec<ParseError>),
    /// A trigger of the base image or stage cannot be read.
    #[error("{}", unplaced(.0))]
    Trigger(ParseError),
    /// `RUN []`.
    #[error("failed to marshal LLB definition: arguments are required")]
    NoArguments,
    /// A word cannot be expanded.
    #[error("{0}")]
    Expand(ExpandError),
    /// Expansions made more text than one build may.
    #[error(
        "variables of this Dockerfile expand to more than {} bytes in all",
        crate::budget::TEXT_BYTES_MAX
    )]
    TooMuchText,
    /// FROM with a name that expands to nothing.
    #[error("base name ({0}) should not be blank")]
    BlankBase(String),
    /// `--platform` that expands to nothing.
    #[error("empty platform value from expression {0}")]
    BlankPlatform(String),
    /// `--platform` that is none.
    #[error("failed to parse platform {written}: {source}")]
    Platform {
        /// As written.
        written: String,
        /// What is wrong.
        source: PlatformError,
    },
    /// A base that is no image reference.
    #[error("failed to parse stage name {}: {}", quote(.name), .reason.in_docker_words())]
    BaseReference {
        /// The name.
        name: String,
        /// What is wrong.
        reason: ReferenceError,
    },
    /// A name of a named context or stage that is no image reference.
    #[error("invalid context name {name}: {}", .reason.in_docker_words())]
    ContextName {
        /// The name.
        name: String,
        /// What is wrong.
        reason: ReferenceError,
    },
    /// A named context's value has a form there is not.
    #[error("unsupported context source {value} for {name}")]
    ContextSource {
        /// The name.
        name: String,
        /// The value, as written.
        value: String,
    },
    /// A named context of a client without a kind in front.
    #[error("invalid context specifier {value} for {name}")]
    ContextSpecifier {
        /// The name.
        name: String,
        /// The value, as written.
        value: String,
    },
    /// A named context that is an input which was not given.
    #[error("invalid input {input} for {name}")]
    ContextInput {
        /// The name.
        name: String,
        /// The input.
        input: String,
    },
    /// A named context that is replaced again and again.
    #[error(
        "context recursion limit exceeded; this may indicate a cycle in the provided source policies: {0}"
    )]
    ContextMoves(String),
    /// A named context that says to be a git repository, and is none.
    #[error("invalid git context {0}")]
    ContextGit(String),
    /// A graph given to the front end lacks a part of itself.
    #[error("{0}")]
    Input(rbuild_graph::GraphError),
    /// An OCI layout of a client without a digest.
    #[error("oci-layout reference {} has no digest", quote(.0))]
    LayoutWithoutDigest(String),
    /// An OCI layout context whose digest is none.
    #[error("could not parse oci-layout reference {}: {source}", quote(.value))]
    LayoutDigest {
        /// As written.
        value: String,
        /// What is wrong.
        source: DigestError,
    },
    /// The ignore file of a named context cannot be read.
    #[error("failed parsing .dockerignore of context {name}: {source}")]
    ContextIgnoreFile {
        /// The context.
        name: String,
        /// What is wrong.
        source: rbuild_dockerfile::ignore::IgnoreError,
    },
    /// The main context's ignore patterns cannot be used.
    #[error("{}{source}", ignore_file(.place))]
    IgnorePatterns {
        /// File and line, if they are known.
        place: String,
        /// What is wrong.
        source: PatternError,
    },
    /// What is ignored of a context could not be asked.
    #[error(transparent)]
    Context(ResolveError),
    /// An image or context was not found.
    #[error("{name}: {source}")]
    Resolve {
        /// What was asked for, as written.
        name: String,
        /// Why there is no answer.
        source: ResolveError,
        /// Names of stages, if it stands where one can be copied from or mounted.
        stages: Option<Vec<String>>,
    },
    /// The config of a base image cannot be read.
    #[error("failed to parse image config of {name}: {source}")]
    Config {
        /// The image.
        name: String,
        /// What is wrong.
        source: ConfigError,
    },
    /// No stage of that name.
    #[error("target stage {} could not be found", quote(.0))]
    Target(String),
    /// No stage of that number.
    #[error("invalid stage index {0}")]
    StageIndex(i64),
    /// Stages that need each other.
    #[error("circular dependency detected on stage: {0}")]
    Circular(String),
    /// `COPY --from=$x`.
    #[error(
        "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround"
    )]
    VariableInFrom,
    /// A stage is used before it is defined.
    #[error("cannot copy from stage {}, it needs to be defined before current stage {}", quote(.from), quote(.stage))]
    CopyFromLater {
        /// The stage used.
        from: String,
        /// The stage that uses it.
        stage: String,
    },
    /// A stage is mounted before it is defined.
    #[error("cannot mount from stage {} to {}, stage needs to be defined before current command", quote(.from), quote(.target))]
    MountFromLater {
        /// The stage used.
        from: String,
        /// Mount point.
        target: String,
    },
    /// Options of a mount.
    #[error("{0}")]
    Mount(MountError),
    /// A mount over the root.
    #[error("invalid mount target {}", quote(.0))]
    MountTarget(String),
    /// An ssh mount with a source.
    #[error("ssh does not support source")]
    SshSource,
    /// A secret without a name.
    #[error("one of source, target required")]
    SecretWithoutName,
    /// A heredoc with an exec form.
    #[error("parsing produced an invalid run command: {0:?}")]
    HeredocCommand(Vec<String>),
    /// `--chmod` that is no mode.
    #[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
    Chmod(String),
    /// `--chmod` that is no symbolic mode either.
    #[error("invalid syntax")]
    SymbolicChmod,
    /// `--checksum` with several sources.
    #[error("checksum can't be specified for multiple sources")]
    ChecksumOfMany,
    /// `--checksum` of something local.
    #[error("checksum requires HTTP(S) or Git sources")]
    ChecksumOfLocal,
    /// A URL whose file has a name that is no text, in the words of Go's protobuf.
    #[error("failed to marshal LLB definition: string field contains invalid UTF-8")]
    FileName(FromUtf8Error),
    /// `--checksum` that is no digest.
    #[error("{}", .0.in_docker_words())]
    Checksum(DigestError),
    /// `--checksum` and the URL name different commits.
    #[error("checksum mismatch {} != {}", quote(.0), quote(.1))]
    ChecksumMismatch(String, String),
    /// `COPY https://…`.
    #[error("source can't be a URL for COPY")]
    CopyUrl,
    /// `COPY https://….git`.
    #[error("source can't be a git ref for COPY")]
    CopyGit,
    /// A git URL with options there are not.
    #[error("{0}")]
    Git(#[from] crate::git::GitUrlError),
    /// `--keep-git-dir` and the URL disagree.
    #[error("inconsistent keep-git-dir configuration")]
    KeepGitDir,
    /// A port that is none.
    #[error("{0}")]
    Port(crate::dispatch::PortError),
    /// A working directory of a Windows image that is on no drive of it.
    #[error("normalizing workdir: normalizing working directory: removing drive letter: {0}")]
    WorkdirDrive(crate::dispatch::DriveError),
    /// A destination, or the name of a here-document, that a Windows image cannot have.
    #[error("removing drive letter: {0}")]
    Drive(crate::dispatch::DriveError),
    /// A source that a Windows image cannot have.
    #[error("removing drive letter: removing drive letter: {0}")]
    SourceDrive(crate::dispatch::DriveError),
    /// A signal there is not.
    #[error("invalid signal: {0}")]
    Signal(String),
    /// A volume that expands to nothing.
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    /// Options of the `check` directive.
    #[error("failed to parse check options: {0}")]
    CheckOptions(crate::lint::CheckError),
    /// Options of lint that are a build argument.
    #[error("failed to parse build-arg:{name}: {0}", name = crate::convert::CHECK_ARG)]
    CheckArgument(crate::lint::CheckError),
    /// Lint found something, and the Dockerfile says that this is an error.
    #[error("lint violation found for rules: {}", .0.join(", "))]
    Lint(Vec<&'static str>),
    /// `SOURCE_DATE_EPOCH` that is no time.
    #[error(transparent)]
    Epoch(crate::convert::EpochError),
}
