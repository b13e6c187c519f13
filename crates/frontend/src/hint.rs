//! What helps against an error of a Dockerfile, in a sentence beside BuildKit's words for the error itself.
//!
//! A hint says what to write. Where a near name is suggested already, and where the error says by itself what should stand
//! there, there is none.

use rbuild_dockerfile::quote::quote;
use rbuild_dockerfile::{ParseError, ParseErrorKind};

use crate::error::{FrontendError, FrontendErrorKind as Kind};

impl FrontendError {
    /// What to write instead, without a full stop.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match &*self.kind {
            Kind::Parse(errors) => errors.first().and_then(of_text),
            Kind::Trigger(error) => of_text(error),
            _ if self.suggestion.is_some() => None,
            kind => of_meaning(kind),
        }
    }
}

/// Of what cannot be read.
fn of_text(error: &ParseError) -> Option<String> {
    if error.suggestion.is_some() {
        return None;
    }
    Some(match &error.kind {
        ParseErrorKind::Empty | ParseErrorKind::NoInstructions | ParseErrorKind::NoStage => {
            "it begins with FROM and the image that it builds on, or with FROM scratch".to_owned()
        }
        ParseErrorKind::BeforeFirstStage => "only ARG may stand before the first FROM".to_owned(),
        ParseErrorKind::DuplicateDirective { name } => {
            format!("leave one of the two lines `# {name}=` out")
        }
        ParseErrorKind::LineTooLong => {
            "break the line with a backslash, or put its script into a heredoc or a file".to_owned()
        }
        ParseErrorKind::NotStringArray => {
            r#"each part stands in double quotes, as in ["program", "argument"]"#.to_owned()
        }
        ParseErrorKind::TwoArgumentsNeeded { .. } | ParseErrorKind::NoEqualsSign { .. } => {
            r#"write NAME=value; a value with blanks stands in quotes, as in NAME="a value""#.to_owned()
        }
        ParseErrorKind::UnterminatedHeredoc => {
            "its name stands alone on the line that ends it, and tabs may be before it only after `<<-`"
                .to_owned()
        }
        ParseErrorKind::UnknownInstruction(_) => {
            "if the line continues the one above, that one has to end with a backslash".to_owned()
        }
        _ => return None,
    })
}

/// Of a name that is no stage's, and no image's either.
fn no_stage(name: &str, stages: &[String]) -> String {
    /// Most stages that are told.
    const TOLD: usize = 8;
    let told: Vec<String> = stages.iter().take(TOLD).map(|name| quote(name)).collect();
    let known = match (told.len(), stages.len() > TOLD) {
        (0, _) => "none has a name".to_owned(),
        (_, true) => format!("the first are {}", told.join(", ")),
        (_, false) => format!("there are {}", told.join(", ")),
    };
    let name = quote(name);
    format!(
        "{name} is no stage ({known}), so an image of that name was asked for; `FROM … AS NAME` names a stage"
    )
}

/// Of what can be read and means nothing.
fn of_meaning(kind: &Kind) -> Option<String> {
    const OF_NO_VALUE: &str =
        "a variable in it has no value here: give it one by ARG or ENV in this stage, or by --build-arg";
    let fixed = match kind {
        Kind::TooMuchText => "a variable that is made of itself twice doubles each time",
        Kind::BlankBase(_) | Kind::BlankPlatform(_) => {
            "give the variable a value by an ARG before the first FROM, or by --build-arg"
        }
        Kind::Platform { .. } => "a platform is a system and a processor, as in linux/arm64 or linux/arm/v7",
        Kind::Target(_) => "--target names a stage, as `FROM … AS name` does",
        Kind::StageIndex(_) => "stages are counted from 0; only those above this one can be named",
        Kind::Circular(_) => "split the stage in two, the one that is copied from and the one that copies",
        Kind::VariableInFrom => {
            "write ARG NAME before the first FROM, then `FROM ${NAME} AS source`, and --from=source here"
        }
        Kind::MountTarget(_) => "mount it on a directory below /",
        Kind::SshSource => "id= names the agent, and target= the place of its socket",
        Kind::SecretWithoutName => "id= names the secret as --secret id=… gives it",
        Kind::HeredocCommand(_) => "a heredoc goes with the form without brackets, as in RUN <<EOF",
        Kind::SymbolicChmod => "a symbolic mode is as in u=rwX,go=rX",
        Kind::ChecksumOfMany => "write one ADD for each source",
        Kind::ChecksumOfLocal => "leave it out: what is copied from the context is known by its content",
        Kind::Checksum(_) => "a checksum is sha256: and 64 hexadecimal digits, or a commit of git",
        Kind::CopyUrl | Kind::CopyGit => "ADD takes it",
        Kind::KeepGitDir => "say it once, by the flag or in the URL",
        Kind::Port(_) => "a port is as in 80, 8000-8010 or 53/udp",
        Kind::Signal(_) => "a signal is as in SIGTERM, TERM or 15",
        Kind::EmptyVolume => OF_NO_VALUE,
        Kind::CheckOptions(_) | Kind::CheckArgument(_) => {
            "options are as in `# check=skip=RuleOne,RuleTwo;error=true`"
        }
        Kind::Lint(_) => "`# check=skip=RULE` at the top, or above the instruction, leaves a rule out",
        Kind::BaseReference { reason, .. } => {
            let reason = reason.to_string();
            let reason = reason.trim_start_matches("invalid reference format: ");
            return Some(format!(
                "{reason}; an image is named as in debian:12 or registry.example/team/name:tag"
            ));
        }
        Kind::Resolve {
            name,
            stages: Some(stages),
            ..
        } if !name.contains(['/', ':', '@']) => return Some(no_stage(name, stages)),
        Kind::CopyFromLater { from, .. } | Kind::MountFromLater { from, .. } => {
            return Some(format!("move the stage {} above this one", quote(from)));
        }
        _ => return None,
    };
    Some(fixed.to_owned())
}
