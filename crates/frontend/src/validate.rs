//! Lint of names, casing and FROM (BuildKit `dockerfile2llb/validations.go`).

use std::collections::BTreeSet;

use rbuild_dockerfile::ignore::PatternMatcher;
use rbuild_dockerfile::quote::quote;
use rbuild_dockerfile::shell::{Expansion, Variables as _};
use rbuild_dockerfile::suggest::nearest;
use rbuild_dockerfile::{Dockerfile, FromLine, InstructionKind, ParseError, Span, Stage, path};
use rbuild_oci::{ImageConfig, Platform, Reference};

use crate::env::Env;
use crate::lint::{Linter, Rule};
use crate::lowering::Lowering;

/// Lint that needs no variables.
pub(crate) fn before_stages(lint: &mut Linter, dockerfile: &Dockerfile) {
    instructions(lint, dockerfile, u32::MAX);
    stage_names(lint, &dockerfile.stages);
    casing(lint, &dockerfile.stages);
}

/// Lint of a Dockerfile that cannot be read: of what BuildKit reads before it comes to the error.
pub(crate) fn before_error(lint: &mut Linter, dockerfile: &Dockerfile, error: &ParseError) {
    if !error.is_line_error() {
        let end = if error.span.start == 0 {
            u32::MAX
        } else {
            error.span.start
        };
        instructions(lint, dockerfile, end);
    }
}

/// Lint of single instructions, in the order of the file, up to the line `end`. What cannot be read on that line is no instruction, and
/// only what is judged before it is read is told of it.
fn instructions(lint: &mut Linter, dockerfile: &Dockerfile, end: u32) {
    for line in &dockerfile.empty_continuations {
        let span = Span::new(*line, *line);
        lint.warn(
            Rule::NoEmptyContinuation,
            "Empty continuation line".to_owned(),
            span,
            &[],
        );
    }
    let first = lint.warnings.len();
    for (span, comments) in &dockerfile.maintainers {
        if span.start > end {
            break;
        }
        let message = "Maintainer instruction is deprecated in favor of using label".to_owned();
        lint.warn(Rule::MaintainerDeprecated, message, *span, comments);
    }
    for line in dockerfile.from_lines.iter().filter(|line| line.span.start <= end) {
        from_words(lint, line);
    }
    let global = dockerfile.global_args.iter().filter(|arg| arg.span.start <= end);
    for instruction in global {
        descriptions(lint, &instruction.kind, instruction.span, &instruction.comments);
    }
    for stage in dockerfile.stages.iter().filter(|stage| stage.span.start <= end) {
        if !stage.name.is_empty() {
            description(lint, "FROM", &[&stage.name], stage.span, &stage.comments);
        }
        let read = stage.instructions.iter().filter(|next| next.span.start <= end);
        for instruction in read {
            descriptions(lint, &instruction.kind, instruction.span, &instruction.comments);
        }
    }
    lint.warnings[first..].sort_by_key(|warning| warning.span.start);
}

/// Casing of `AS` and of the name, whatever stands in their places.
fn from_words(lint: &mut Linter, line: &FromLine) {
    let [_, word, rest @ ..] = line.words.as_slice() else {
        return;
    };
    if let [name] = rest
        && *name != name.to_lowercase()
    {
        let message = format!("Stage name '{name}' should be lowercase");
        lint.warn(Rule::StageNameCasing, message, line.span, &line.comments);
    }
    let from = &line.keyword;
    let fits = if rest.is_empty() {
        true
    } else if *from == from.to_lowercase() {
        *word == word.to_lowercase()
    } else if *from == from.to_uppercase() {
        *word == word.to_uppercase()
    } else {
        true
    };
    if !fits {
        let message = format!("'{word}' and '{from}' keywords' casing do not match");
        lint.warn(Rule::FromAsCasing, message, line.span, &line.comments);
    }
}

fn descriptions(lint: &mut Linter, kind: &InstructionKind, span: Span, comments: &[String]) {
    if let InstructionKind::Arg(definitions) = kind {
        let names: Vec<&str> = definitions
            .iter()
            .map(|definition| definition.key.as_str())
            .collect();
        description(lint, "ARG", &names, span, comments);
    }
}

fn description(lint: &mut Linter, instruction: &str, names: &[&str], span: Span, comments: &[String]) {
    let Some(comment) = comments.last() else { return };
    let first = comment.split(' ').next().unwrap_or_default();
    if names.contains(&first) {
        return;
    }
    let example = if let [name] = names { name } else { "<arg_key>" };
    let message = format!("Comment for {instruction} should follow the format: `# {example} <description>`");
    lint.warn(Rule::InvalidDefinitionDescription, message, span, comments);
}

fn stage_names(lint: &mut Linter, stages: &[Stage]) {
    let mut seen = BTreeSet::new();
    for stage in stages.iter().filter(|stage| !stage.name.is_empty()) {
        let name = quote(&stage.name);
        if matches!(stage.name.as_str(), "context" | "scratch") {
            let message = format!("Stage name should not use the same name as reserved stage {name}");
            lint.warn(Rule::ReservedStageName, message, stage.span, &[]);
        }
        if !seen.insert(&stage.name) {
            let message = format!("Duplicate stage name {name}, stage names should be unique");
            lint.warn(Rule::DuplicateStageName, message, stage.span, &[]);
        }
    }
}

fn casing(lint: &mut Linter, stages: &[Stage]) {
    let keywords: Vec<(&str, Span)> = stages
        .iter()
        .flat_map(|stage| {
            let rest = stage.instructions.iter().map(|i| (i.keyword.as_str(), i.span));
            std::iter::once((stage.keyword.as_str(), stage.span)).chain(rest)
        })
        .collect();
    let is = |keyword: &str, other: String| keyword == other;
    let lower = keywords.iter().filter(|(k, _)| is(k, k.to_lowercase())).count();
    let upper = keywords.iter().filter(|(k, _)| is(k, k.to_uppercase())).count();
    let (majority, name): (fn(&str) -> String, _) = if lower > upper {
        (str::to_lowercase, "lowercase")
    } else {
        (str::to_uppercase, "uppercase")
    };
    for (keyword, span) in keywords {
        if keyword != majority(keyword) {
            let message =
                format!("Command '{keyword}' should match the case of the command majority ({name})");
            lint.warn(Rule::ConsistentInstructionCasing, message, span, &[]);
        }
    }
}

/// Bases that are wrong when no build argument is given.
pub(crate) fn bases_with_defaults(lowering: &mut Lowering<'_>, dockerfile: &Dockerfile, defaults: &Env) {
    let lexer = lowering.lexer;
    let mut env = defaults.clone();
    for instruction in &dockerfile.global_args {
        let InstructionKind::Arg(definitions) = &instruction.kind else {
            continue;
        };
        for definition in definitions {
            let Some(value) = &definition.value else { continue };
            // An error here is reported when the arguments are really read.
            let Ok(found) = lexer.expand(value, &env) else {
                return;
            };
            env.set(&definition.key, &found.text);
        }
    }
    for stage in &dockerfile.stages {
        let Ok(found) = lexer.expand(&stage.base_name, &env) else {
            return;
        };
        if Reference::parse(&found.text).is_err() {
            let message = format!(
                "Default value for ARG {} results in empty or invalid base image name",
                stage.base_name
            );
            lowering
                .lint
                .warn(Rule::InvalidDefaultArgInFrom, message, stage.span, &[]);
        }
    }
}

/// Variables of FROM that no ARG declares.
pub(crate) fn from_args(lowering: &mut Lowering<'_>, stage: &Stage, unmatched: &BTreeSet<String>) {
    for name in unmatched {
        if lowering.declared_globals.contains(name) {
            continue;
        }
        let known = lowering
            .declared_globals
            .iter()
            .map(String::as_str)
            .chain(lowering.global_args.names());
        let hint = nearest(name, known, true);
        let hint = hint
            .map(|hint| format!(" (did you mean {hint}?)"))
            .unwrap_or_default();
        let message = format!("FROM argument '{name}' is not declared{hint}");
        lowering
            .lint
            .warn(Rule::UndefinedArgInFrom, message, stage.span, &stage.comments);
    }
}

/// `--platform` of FROM that says what holds anyway, or the same for everyone.
pub(crate) fn from_platform(lowering: &mut Lowering<'_>, stage: &Stage, found: &Expansion) {
    let only_target = found.matched.len() == 1 && found.matched.contains("TARGETPLATFORM");
    if found.unmatched.is_empty()
        && only_target
        && lowering.global_args.get("TARGETPLATFORM") == Some(found.text.as_str())
    {
        let message = format!(
            "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
            stage.platform
        );
        lowering.lint.warn(
            Rule::RedundantTargetPlatform,
            message,
            stage.span,
            &stage.comments,
        );
    }
    if !found.matched.is_empty() || !found.unmatched.is_empty() {
        return;
    }
    let Ok(platform) = Platform::parse(&found.text) else {
        return;
    };
    if !stage.name.contains(&platform.os) && !stage.name.contains(&platform.architecture) {
        let message = format!(
            "FROM --platform flag should not use constant value {}",
            quote(&found.text)
        );
        lowering.lint.warn(
            Rule::FromPlatformFlagConstDisallowed,
            message,
            stage.span,
            &stage.comments,
        );
    }
}

/// A base for another platform than the one asked for.
pub(crate) fn base_platform(
    lint: &mut Linter,
    name: &str,
    expected: &Platform,
    config: &ImageConfig,
    span: Span,
    comments: &[String],
) {
    if expected.os != config.os || expected.architecture != config.architecture {
        let shown = |platform: &Platform| quote(&platform.normalized().to_string());
        let (expected, actual) = (shown(expected), shown(&config.platform()));
        let message = format!(
            "Base image {name} was pulled with platform {actual}, expected {expected} for current build"
        );
        lint.warn(Rule::InvalidBaseImagePlatform, message, span, comments);
    }
}

/// Whether a name sounds like a secret: a telling word in it, and none that says otherwise.
pub(crate) fn sounds_secret(name: &str) -> bool {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    const HARMLESS: [&str; 3] = ["public", "file", "version"];
    let holds = |words: &[&str]| {
        name.split('_')
            .any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)))
    };
    holds(&SECRET) && !holds(&HARMLESS)
}

/// Whether a COPY source is left out by the ignore file, as far as that can be said without looking.
pub(crate) fn is_ignored(matcher: &PatternMatcher, source: &str) -> Option<String> {
    if matcher.has_exclusions() {
        return None;
    }
    let source = path::clean(source);
    if source == "." || source == "/" {
        let all = matcher
            .patterns()
            .iter()
            .any(|pattern| matches!(pattern.text(), "*" | "**" | "**/*"));
        if !all {
            return None;
        }
    }
    matcher.matches_or_parent_matches(&source).then_some(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_sound_secret() {
        for (name, expected) in [
            ("api_key", true),
            ("DATABASE_PASSWORD", true),
            ("GITHUB_TOKEN", true),
            ("AUTH", true),
            ("secret_MESSAGE", true),
            ("sUpEr_Secret", true),
            ("keyboard", false),
            ("MONKEY", false),
            ("PUBLIC_KEY", false),
            ("TOKEN_FILE", false),
            ("SECRET_VERSION", false),
        ] {
            assert_eq!(sounds_secret(name), expected, "{name}");
        }
    }
}
