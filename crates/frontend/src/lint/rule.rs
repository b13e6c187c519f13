//! The rules: name, what each is about, and the page that says more.

/// A lint rule, named as BuildKit names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "`description` says what each is about")]
pub enum Rule {
    StageNameCasing,
    FromAsCasing,
    NoEmptyContinuation,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JsonArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    WorkdirRelativePath,
    UndefinedVar,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    InvalidBaseImagePlatform,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    InvalidDefaultArgInFrom,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    InvalidDefinitionDescription,
    ExposeProtoCasing,
    ExposeInvalidFormat,
    PackageCacheInLayer,
    CopiedTreeChanged,
    SourceBeforeDependencies,
    SecretInValue,
    MissingLoader,
    ManySourcesOneName,
}

/// Whose rule it is, and with that whether it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// BuildKit's, on.
    BuildKit,
    /// BuildKit's, off unless asked for.
    BuildKitExperimental,
    /// Ours, off unless asked for.
    Own,
}

impl Rule {
    /// Name, as in `# check=skip=`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// What it is about.
    #[must_use]
    pub const fn description(self) -> &'static str {
        self.row().1
    }

    /// Where to read more; empty if nowhere.
    #[must_use]
    pub const fn url(self) -> &'static str {
        self.row().2
    }

    /// All of BuildKit's.
    pub const BUILDKIT: [Self; 22] = [
        Self::StageNameCasing,
        Self::FromAsCasing,
        Self::NoEmptyContinuation,
        Self::ConsistentInstructionCasing,
        Self::DuplicateStageName,
        Self::ReservedStageName,
        Self::JsonArgsRecommended,
        Self::MaintainerDeprecated,
        Self::UndefinedArgInFrom,
        Self::WorkdirRelativePath,
        Self::UndefinedVar,
        Self::MultipleInstructionsDisallowed,
        Self::LegacyKeyValueFormat,
        Self::InvalidBaseImagePlatform,
        Self::RedundantTargetPlatform,
        Self::SecretsUsedInArgOrEnv,
        Self::InvalidDefaultArgInFrom,
        Self::FromPlatformFlagConstDisallowed,
        Self::CopyIgnoredFile,
        Self::InvalidDefinitionDescription,
        Self::ExposeProtoCasing,
        Self::ExposeInvalidFormat,
    ];

    /// All of ours.
    pub const OWN: [Self; 6] = [
        Self::PackageCacheInLayer,
        Self::CopiedTreeChanged,
        Self::SourceBeforeDependencies,
        Self::SecretInValue,
        Self::MissingLoader,
        Self::ManySourcesOneName,
    ];

    /// Whose rule it is.
    #[must_use]
    pub const fn origin(self) -> Origin {
        match self {
            Self::InvalidDefinitionDescription => Origin::BuildKitExperimental,
            Self::PackageCacheInLayer
            | Self::CopiedTreeChanged
            | Self::SourceBeforeDependencies
            | Self::SecretInValue
            | Self::MissingLoader
            | Self::ManySourcesOneName => Origin::Own,
            _ => Origin::BuildKit,
        }
    }

    #[allow(clippy::too_many_lines, reason = "a flat table")]
    const fn row(self) -> (&'static str, &'static str, &'static str) {
        macro_rules! url {
            ($page:literal) => {
                concat!("https://docs.docker.com/go/dockerfile/rule/", $page, "/")
            };
        }
        match self {
            Self::StageNameCasing => (
                "StageNameCasing",
                "Stage names should be lowercase",
                url!("stage-name-casing"),
            ),
            Self::FromAsCasing => (
                "FromAsCasing",
                "The 'as' keyword should match the case of the 'from' keyword",
                url!("from-as-casing"),
            ),
            Self::NoEmptyContinuation => (
                "NoEmptyContinuation",
                "Empty continuation lines will become errors in a future release",
                url!("no-empty-continuation"),
            ),
            Self::ConsistentInstructionCasing => (
                "ConsistentInstructionCasing",
                "All commands within the Dockerfile should use the same casing (either upper or lower)",
                url!("consistent-instruction-casing"),
            ),
            Self::DuplicateStageName => (
                "DuplicateStageName",
                "Stage names should be unique",
                url!("duplicate-stage-name"),
            ),
            Self::ReservedStageName => (
                "ReservedStageName",
                "Reserved words should not be used as stage names",
                url!("reserved-stage-name"),
            ),
            Self::JsonArgsRecommended => (
                "JSONArgsRecommended",
                "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
                url!("json-args-recommended"),
            ),
            Self::MaintainerDeprecated => (
                "MaintainerDeprecated",
                "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
                url!("maintainer-deprecated"),
            ),
            Self::UndefinedArgInFrom => (
                "UndefinedArgInFrom",
                "FROM command must use declared ARGs",
                url!("undefined-arg-in-from"),
            ),
            Self::WorkdirRelativePath => (
                "WorkdirRelativePath",
                "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
                url!("workdir-relative-path"),
            ),
            Self::UndefinedVar => (
                "UndefinedVar",
                "Variables should be defined before their use",
                url!("undefined-var"),
            ),
            Self::MultipleInstructionsDisallowed => (
                "MultipleInstructionsDisallowed",
                "Multiple instructions of the same type should not be used in the same stage",
                url!("multiple-instructions-disallowed"),
            ),
            Self::LegacyKeyValueFormat => (
                "LegacyKeyValueFormat",
                "Legacy key/value format with whitespace separator should not be used",
                url!("legacy-key-value-format"),
            ),
            Self::InvalidBaseImagePlatform => (
                "InvalidBaseImagePlatform",
                "Base image platform does not match expected target platform",
                "",
            ),
            Self::RedundantTargetPlatform => (
                "RedundantTargetPlatform",
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
                url!("redundant-target-platform"),
            ),
            Self::SecretsUsedInArgOrEnv => (
                "SecretsUsedInArgOrEnv",
                "Sensitive data should not be used in the ARG or ENV commands",
                url!("secrets-used-in-arg-or-env"),
            ),
            Self::InvalidDefaultArgInFrom => (
                "InvalidDefaultArgInFrom",
                "Default value for global ARG results in an empty or invalid base image name",
                url!("invalid-default-arg-in-from"),
            ),
            Self::FromPlatformFlagConstDisallowed => (
                "FromPlatformFlagConstDisallowed",
                "FROM --platform flag should not use a constant value",
                url!("from-platform-flag-const-disallowed"),
            ),
            Self::CopyIgnoredFile => (
                "CopyIgnoredFile",
                "Attempting to Copy file that is excluded by .dockerignore",
                url!("copy-ignored-file"),
            ),
            Self::InvalidDefinitionDescription => (
                "InvalidDefinitionDescription",
                "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
                url!("invalid-definition-description"),
            ),
            Self::ExposeProtoCasing => (
                "ExposeProtoCasing",
                "Protocol in EXPOSE instruction should be lowercase",
                url!("expose-proto-casing"),
            ),
            Self::ExposeInvalidFormat => (
                "ExposeInvalidFormat",
                "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
                url!("expose-invalid-format"),
            ),
            Self::PackageCacheInLayer => (
                "PackageCacheInLayer",
                "Lists and archives of package managers should not stay in a layer of the image",
                "docs/rules/package-cache-in-layer.md",
            ),
            Self::CopiedTreeChanged => (
                "CopiedTreeChanged",
                "Changing owner or mode of copied files in a later layer stores them twice",
                "docs/rules/copied-tree-changed.md",
            ),
            Self::SourceBeforeDependencies => (
                "SourceBeforeDependencies",
                "Dependencies should be installed before the rest of the source is copied",
                "docs/rules/source-before-dependencies.md",
            ),
            Self::SecretInValue => (
                "SecretInValue",
                "Values of ARG, ENV and LABEL are readable for everyone who has the image",
                "docs/rules/secret-in-value.md",
            ),
            Self::MissingLoader => (
                "MissingLoader",
                "A program needs a dynamic loader that the image does not have",
                "docs/rules/missing-loader.md",
            ),
            Self::ManySourcesOneName => (
                "ManySourcesOneName",
                "Of several sources that are copied onto one name only the last one stays",
                "docs/rules/many-sources-one-name.md",
            ),
        }
    }
}
