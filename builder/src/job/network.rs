//! Where the steps of a build reach the network: on the host's, on one of the build's own, through a proxy, or nowhere.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, OnceLock};

use rbuild_graph::{ExecOp, NetMode};
use rbuild_tls::authority::Authority;
use tokio_util::sync::CancellationToken;

use super::Job;
use crate::ops::host_ca::Bundle;
use crate::ops::{OpError, blocking};
use crate::private_network::PrivateNetwork;
use crate::proxy_network::{ProxyNetworkError, StepProxy};

/// The network of one step; nothing of its own on the host's, and where there is none.
#[derive(Debug, Default)]
pub(crate) struct StepNetwork {
    /// Its namespace.
    pub(crate) namespace: Option<Arc<OwnedFd>>,
    /// The only way out of that.
    pub(crate) proxy: Option<StepProxy>,
}

/// A namespace among the descriptors of a sandbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Its number.
    pub(crate) index: usize,
    /// Nothing but a proxy leads out: there are no name servers.
    pub(crate) is_proxied: bool,
}

/// What vouches for the proxies of a build, made when first asked for.
#[derive(Debug, Default)]
pub(crate) struct ProxyAuthority(OnceLock<Arc<Authority>>);

impl ProxyAuthority {
    fn get(&self) -> Result<Arc<Authority>, ProxyNetworkError> {
        if let Some(known) = self.0.get() {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(Authority::new()?);
        // Of two that are made at once the first is used.
        Ok(Arc::clone(self.0.get_or_init(|| made)))
    }
}

impl StepNetwork {
    /// Where the namespace is, if its descriptor is the `index`th.
    pub(crate) fn place(&self, index: usize) -> Option<Place> {
        self.namespace.as_ref().map(|_| Place {
            index,
            is_proxied: self.proxy.is_some(),
        })
    }

    /// Variables that say where the proxy is.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        self.proxy.as_ref().map(StepProxy::variables).unwrap_or_default()
    }

    /// Runs `step` with its proxy.
    ///
    /// # Errors
    /// [`OpError::ProxyNetwork`].
    pub(crate) async fn around<T>(&self, job: &Job, step: impl Future<Output = T>) -> Result<T, OpError> {
        let Some(proxy) = &self.proxy else {
            return Ok(step.await);
        };
        let over = CancellationToken::new();
        let stepping = async {
            let _over = over.clone().drop_guard();
            step.await
        };
        let (done, served) = tokio::join!(stepping, proxy.serve(job, &over));
        served.map_err(ProxyNetworkError::from)?;
        Ok(done)
    }
}

/// Puts `variables` into an environment, in place of what it has by those names.
pub(crate) fn put_variables(env: &mut Vec<OsString>, variables: &[(&'static str, String)]) {
    let is_ours = |pair: &OsString| {
        let name = pair.as_bytes().split(|byte| *byte == b'=').next();
        variables.iter().any(|(own, _)| name == Some(own.as_bytes()))
    };
    env.retain(|pair| !is_ours(pair));
    env.extend(
        variables
            .iter()
            .map(|(name, value)| OsString::from(format!("{name}={value}"))),
    );
}

impl Job {
    /// Whether a step of `network` has a proxy and nothing else.
    pub(crate) fn is_proxied(&self, network: NetMode) -> bool {
        self.settings.rules.proxy_network && network != NetMode::None
    }

    /// The network of a step. One of the build's own is made when first asked for, a proxy for each step.
    ///
    /// # Errors
    /// [`OpError::Network`], [`OpError::ProxyNetwork`].
    pub(crate) async fn network(&self, exec: &ExecOp) -> Result<StepNetwork, OpError> {
        if self.is_proxied(exec.network) {
            let authority = self.proxy_authority.get()?;
            let proxy = blocking(move || StepProxy::listen(authority)).await?;
            return Ok(StepNetwork {
                namespace: Some(proxy.namespace()),
                proxy: Some(proxy),
            });
        }
        if !self.settings.rules.private_network || exec.network != NetMode::Unset {
            return Ok(StepNetwork::default());
        }
        let engine = Arc::clone(&self.engine);
        let start = || blocking(move || PrivateNetwork::start(&engine.sandbox).map(Arc::new));
        let network = self.network.get_or_try_init(start).await?;
        Ok(StepNetwork {
            namespace: Some(network.namespace()),
            proxy: None,
        })
    }

    /// The authorities that a step of `network` is made to trust.
    ///
    /// # Errors
    /// [`OpError::ProxyNetwork`].
    pub(crate) fn authorities(&self, network: NetMode) -> Result<Option<Bundle>, OpError> {
        let host = self.settings.host_ca.clone();
        if !self.is_proxied(network) {
            return Ok(host);
        }
        let pem = self.proxy_authority.get()?.pem();
        Ok(Some(Bundle::with_proxy(host, &pem)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_take_the_place_of_the_images() {
        let mut env: Vec<OsString> = ["A=1", "http_proxy=http://elsewhere", "http_proxy_not=2"]
            .map(Into::into)
            .into();
        put_variables(&mut env, &[("http_proxy", "http://here".to_owned())]);
        assert_eq!(
            env,
            ["A=1", "http_proxy_not=2", "http_proxy=http://here"].map(OsString::from)
        );
    }
}
