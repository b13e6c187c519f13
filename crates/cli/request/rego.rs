//! `--policy`, and the policy that stands beside a Dockerfile: buildx evaluates both (`buildx/build/build.go`,
//! `withPolicyConfig`; `buildx/build/opt.go`). No Rego is evaluated here, so what there is to evaluate is refused, not left out.

use std::path::{Path, PathBuf};

use rbuild_builder::request::DockerfileSource;
use rbuild_ui::values::csv::{self, CsvError};
use rbuild_ui::values::scalar::parse_bool;

/// Keys of a policy.
pub(super) const KEYS: [&str; 5] = ["filename", "reset", "disabled", "strict", "log-level"];
/// Levels of logging (`logrus.ParseLevel`, in lower case).
const LEVELS: [&str; 8] = [
    "panic", "fatal", "error", "warn", "warning", "info", "debug", "trace",
];
const INSTEAD: &str = "no Rego is evaluated here; buildx evaluates it when it builds through `rbuild serve`";

/// Why policies are refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegoError {
    /// It cannot be cut.
    #[error("invalid value of --policy: {0}")]
    Csv(#[from] CsvError),
    /// A field without a value, or with one that it does not take.
    #[error("invalid value {0}")]
    Field(String),
    /// A field that there is not.
    #[error("invalid value {field}")]
    Key {
        /// The key.
        key: String,
        /// The field.
        field: String,
    },
    /// What `bake` takes of a definition alone.
    #[error("--policy does not accept {0}; define policy files in the bake definition")]
    OfBake(&'static str),
    /// It is disabled, and something is wanted of it.
    #[error("disabled policy cannot be combined with other policy flags")]
    Disabled,
    /// A policy that is named.
    #[error("not supported yet: --policy filename={0}: {INSTEAD}")]
    Named(String),
    /// The policy of the Dockerfile.
    #[error("not supported yet: policy {0:?}: {INSTEAD}; `--policy disabled=true` builds without it")]
    Beside(PathBuf),
}

/// One `--policy`.
#[derive(Debug, Default)]
struct Policy {
    named: Option<String>,
    reset: bool,
    disabled: bool,
    is_tuned: bool,
}

impl Policy {
    fn parse(text: &str) -> Result<Self, RegoError> {
        let mut policy = Self::default();
        for field in csv::fields(text)? {
            let invalid = || RegoError::Field(field.clone());
            let (key, value) = field.split_once('=').ok_or_else(invalid)?;
            let truth = || parse_bool(value).ok_or_else(invalid);
            match key.trim().to_lowercase().as_str() {
                "filename" if value.is_empty() => return Err(invalid()),
                "filename" => policy.named = Some(value.to_owned()),
                "reset" => policy.reset = truth()?,
                "disabled" => policy.disabled = truth()?,
                "strict" => {
                    truth()?;
                    policy.is_tuned = true;
                }
                "log-level" if LEVELS.contains(&value.to_lowercase().as_str()) => policy.is_tuned = true,
                "log-level" => return Err(invalid()),
                key => {
                    return Err(RegoError::Key {
                        key: key.to_owned(),
                        field: field.clone(),
                    });
                }
            }
        }
        Ok(policy)
    }
}

/// Judges the flags of `bake` before there is a target; each target judges them again (`buildx/commands/bake.go`,
/// `bakePolicyOverrides`).
pub(crate) fn check_of_bake(flags: &[String]) -> Result<(), RegoError> {
    for text in flags {
        let policy = Policy::parse(text)?;
        if policy.named.is_some() {
            return Err(RegoError::OfBake("filename"));
        }
        if policy.reset {
            return Err(RegoError::OfBake("reset"));
        }
    }
    Ok(())
}

/// Judges the flags, and what stands beside the Dockerfile.
pub(super) fn check(flags: &[String], dockerfile: &DockerfileSource) -> Result<(), RegoError> {
    let all = flags.iter().map(|text| Policy::parse(text));
    let all = all.collect::<Result<Vec<_>, _>>()?;
    if let Some(disabled) = all.iter().find(|policy| policy.disabled) {
        let alone = all.len() == 1 && disabled.named.is_none() && !disabled.reset && !disabled.is_tuned;
        return alone.then_some(()).ok_or(RegoError::Disabled);
    }
    // The default is forgotten by `reset`, and nothing that is not a file is left to evaluate then.
    let is_reset = all.iter().any(|policy| policy.reset);
    if let Some(name) = all.into_iter().find_map(|policy| policy.named) {
        return Err(RegoError::Named(name));
    }
    match dockerfile {
        DockerfileSource::File(path) if !is_reset => beside(path),
        _ => Ok(()),
    }
}

/// `Dockerfile.rego` is the policy of `Dockerfile`.
fn beside(dockerfile: &Path) -> Result<(), RegoError> {
    let mut name = dockerfile.as_os_str().to_owned();
    name.push(".rego");
    let path = PathBuf::from(name);
    if path.symlink_metadata().is_ok() {
        return Err(RegoError::Beside(path));
    }
    Ok(())
}
