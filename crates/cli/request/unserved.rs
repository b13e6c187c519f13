//! Flags of the classic builder, and `--builder`. What would change the result is told of; what asks for nothing is accepted.

use crate::args::LowBuild;

/// `--compress`, `--rm` and `--force-rm` asked for what always holds; these did something once, and `--builder` does elsewhere.
pub(super) fn warnings(low: &LowBuild) -> Vec<String> {
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
