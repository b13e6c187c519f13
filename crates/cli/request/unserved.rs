//! Flags that are recognised but not served, and flags of the classic builder. What would change the result is
//! refused by name; what asks for nothing is accepted.

use super::UsageError;
use crate::args::LowBuild;

/// Warnings of accepted flags.
///
/// # Errors
/// [`UsageError::NotSupported`] with the first flag that is not served.
pub(super) fn check(low: &LowBuild) -> Result<Vec<String>, UsageError> {
    let flags = &low.unserved;
    if !flags.policy.is_empty() {
        let instead = "no Rego is evaluated here; buildx evaluates it when it builds through `rbuild serve`";
        return Err(UsageError::NotSupported(format!("--policy: {instead}")));
    }
    Ok(legacy(low))
}

/// `--compress`, `--rm` and `--force-rm` asked for what always holds; these did something once, and `--builder` does elsewhere.
fn legacy(low: &LowBuild) -> Vec<String> {
    let flags = &low.legacy;
    let builder = low.unserved.builder.as_deref();
    let said = [
        (
            builder.is_some_and(|name| !matches!(name, "" | "default")),
            "builder flag has no effect: rbuild is its own builder.",
        ),
        (
            flags.isolation.is_some(),
            "isolation flag is deprecated with BuildKit.",
        ),
        (
            !flags.security_opt.is_empty(),
            "security-opt flag is deprecated. \"RUN --security=insecure\" should be used with BuildKit.",
        ),
        (
            flags.squash == Some(true),
            "squash flag is without effect. Squash inside the build with a multi-stage Dockerfile.",
        ),
    ];
    said.iter()
        .filter(|(given, _)| *given)
        .map(|(_, text)| (*text).to_owned())
        .collect()
}
