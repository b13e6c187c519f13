//! Rules for the sources of a build: the file of `buildctl build --source-policy-file`, or the one that buildx's variable
//! names.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use bollard_buildkit_proto::moby::buildkit::v1::sourcepolicy;
use rbuild_builder::source_policy::SourcePolicies;
use rbuild_server::policy::{message_of_json, read_json};

use super::UsageError;
use crate::env::Env;

/// Largest file, bytes.
const POLICY_BYTES_MAX: u64 = 16 << 20;

/// The rules, if there are any.
///
/// # Errors
/// [`UsageError::PolicyRead`], [`UsageError::Policy`].
pub(super) fn of(given: Option<&Path>, env: &Env) -> Result<SourcePolicies, UsageError> {
    let named = || {
        env.filled("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY")
            .map(PathBuf::from)
    };
    let Some(path) = given.map(Path::to_owned).or_else(named) else {
        return Ok(SourcePolicies::default());
    };
    read_json(&text(&path)?).map_err(|error| UsageError::Policy { path, error })
}

/// The same as a message for a server.
///
/// # Errors
/// As of [`of`].
pub(crate) fn message(path: &Path) -> Result<sourcepolicy::Policy, UsageError> {
    message_of_json(&text(path)?).map_err(|error| UsageError::Policy {
        path: path.to_owned(),
        error,
    })
}

fn text(path: &Path) -> Result<Vec<u8>, UsageError> {
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(POLICY_BYTES_MAX).read_to_end(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(UsageError::PolicyRead {
            path: path.to_owned(),
            error,
        }),
    }
}
