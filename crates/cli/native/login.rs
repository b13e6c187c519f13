//! Asking a registry whether it takes a credential.

use rbuild_registry::{Client, ConfigSources, Credential, Credentials, RegistryConfig, Secret, USER_AGENT};
use rbuild_ui::diagnostic::Diagnostic;

use super::{failed, say_of_registries};
use crate::engine::{EngineError, Registries};

/// Whether `host` takes these; the refresh token that its token server gives for them, if it gives one.
///
/// # Errors
/// What the registry, or the way to it, says.
pub(crate) fn check(
    host: &str,
    username: &str,
    password: &Secret,
    said: &Registries,
) -> Result<Option<Secret>, EngineError> {
    let mut config = RegistryConfig::load(&ConfigSources::from_process()).map_err(failed)?;
    say_of_registries(&mut config, said);
    let credential = Credential::Basic {
        username: username.to_owned(),
        password: password.clone(),
    };
    let credentials = Credentials::one(host, credential);
    let client = Client::new(config, credentials, USER_AGENT);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        let text = format!("cannot start threads: {error}");
        EngineError::Failed(Box::new(Diagnostic::new(text)))
    })?;
    runtime.block_on(client.check_login(host)).map_err(failed)
}
