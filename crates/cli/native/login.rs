//! Asking a registry whether it takes a credential.

use rbuild_builder::error::chain_text;
use rbuild_registry::{Client, ConfigSources, Credential, Credentials, RegistryConfig, Secret, USER_AGENT};

/// Whether `host` takes these.
///
/// # Errors
/// What the registry, or the way to it, says.
pub(crate) fn check(host: &str, username: &str, password: &Secret) -> Result<(), String> {
    let text = |error: &dyn std::error::Error| chain_text(error);
    let config = RegistryConfig::load(&ConfigSources::from_process()).map_err(|error| text(&error))?;
    let credential = Credential::Basic {
        username: username.to_owned(),
        password: password.clone(),
    };
    let credentials = Credentials::one(host, credential);
    let client = Client::new(config, credentials, USER_AGENT);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start threads: {error}"))?;
    runtime
        .block_on(client.check_login(host))
        .map_err(|error| text(&error))
}
