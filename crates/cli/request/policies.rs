//! Rules for the sources of a build: the file of `buildctl build --source-policy-file`, or the one that buildx's variable
//! names.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use rbuild_builder::source_policy::SourcePolicies;
use rbuild_server::policy::read_json;

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
    let mut text = Vec::new();
    let read = std::fs::File::open(&path).and_then(|file| file.take(POLICY_BYTES_MAX).read_to_end(&mut text));
    if let Err(error) = read {
        return Err(UsageError::PolicyRead { path, error });
    }
    read_json(&text).map_err(|error| UsageError::Policy { path, error })
}
