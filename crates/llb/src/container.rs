//! Requests for containers of the gateway (`NewContainer`, and the first message of `ExecProcess`), as operations that run a
//! process. The mounts of a container are those of an exec; its inputs are results of the build, by their ids.

use bollard_buildkit_proto::moby::buildkit::v1::frontend::{InitMessage, NewContainerRequest};
use bollard_buildkit_proto::pb;
use rbuild_graph::{ExecMeta, ExecOp, HostIp, SecretEnv, SecurityMode};

use crate::decode::{OpError, exec};

/// Most mounts of a container.
const MOUNTS_MAX: usize = 1000;
/// Proto's number for no input, and for no output (`solver/pb/const.go`).
const NONE: i64 = -1;

/// Why a container or a process cannot be asked for like this.
#[derive(Debug, thiserror::Error)]
pub enum ContainerRequestError {
    /// A mount that means nothing.
    #[error(transparent)]
    Op(#[from] OpError),
    /// Too many mounts.
    #[error("a container of {0} mounts, and at most {MOUNTS_MAX} are allowed")]
    Mounts(usize),
    /// An extra host without an address.
    #[error("failed to parse IP {0}")]
    Address(String),
    /// A number that is no security mode: it must never count as one.
    #[error("invalid security mode {0}")]
    Security(i32),
    /// Nothing to run.
    #[error("a process needs arguments")]
    NoArguments,
    /// A secret without a name in the client.
    #[error("secret ID missing for {0:?} environment variable")]
    SecretId(String),
}

/// The mounts and surroundings of a container. Its process part holds host name and hosts only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerOp {
    /// As an operation; nothing is run by it yet.
    pub exec: ExecOp,
    /// Ids of its inputs.
    pub inputs: Vec<String>,
}

/// A container that is asked for.
///
/// # Errors
/// [`ContainerRequestError`].
pub fn container(request: &NewContainerRequest) -> Result<ContainerOp, ContainerRequestError> {
    let count = request.mounts.len();
    if count > MOUNTS_MAX {
        return Err(ContainerRequestError::Mounts(count));
    }
    let mut inputs = Vec::new();
    let mut mounts = Vec::with_capacity(count);
    for mount in &request.mounts {
        let mut mount = pb::Mount {
            input: NONE,
            output: NONE,
            ..mount.clone()
        };
        if !mount.result_id.is_empty() {
            mount.input = i64::try_from(inputs.len()).unwrap_or(i64::MAX);
            inputs.push(std::mem::take(&mut mount.result_id));
        }
        if !mount.dest.starts_with('/') {
            mount.dest.insert(0, '/');
        }
        mounts.push(exec::mount(&mount, inputs.len(), count)?);
    }
    let host = |host: &pb::HostIp| -> Result<HostIp, ContainerRequestError> {
        let address = host.ip.parse::<std::net::IpAddr>();
        let address = address.map_err(|_not_one| ContainerRequestError::Address(host.ip.clone()))?;
        Ok(HostIp {
            host: host.host.clone(),
            ip: address.to_string(),
        })
    };
    let meta = ExecMeta {
        hostname: request.hostname.clone(),
        extra_hosts: request.extra_hosts.iter().map(host).collect::<Result<_, _>>()?,
        ..ExecMeta::default()
    };
    let exec = ExecOp {
        meta,
        mounts,
        network: exec::network(request.network)?,
        security: SecurityMode::Sandbox,
        secret_env: Vec::new(),
        cdi_devices: Vec::new(),
    };
    Ok(ContainerOp { exec, inputs })
}

/// A process that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessOp {
    /// What is run, and as whom.
    pub meta: ExecMeta,
    /// Secrets given as variables.
    pub secret_env: Vec<SecretEnv>,
    /// Whether the sandbox is lifted.
    pub security: SecurityMode,
}

/// The process that `init` asks for.
///
/// # Errors
/// [`ContainerRequestError`].
pub fn process(init: &InitMessage) -> Result<ProcessOp, ContainerRequestError> {
    let meta = init.meta.as_ref().filter(|meta| !meta.args.is_empty());
    let meta = exec::process(meta.ok_or(ContainerRequestError::NoArguments)?);
    let security = exec::security(init.security);
    let unnamed = init.secretenv.iter().find(|secret| secret.id.is_empty());
    if let Some(secret) = unnamed {
        return Err(ContainerRequestError::SecretId(secret.name.clone()));
    }
    Ok(ProcessOp {
        meta: ExecMeta {
            // What BuildKit's gateway does not pass on.
            proxy_env: None,
            ulimit: Vec::new(),
            cgroup_parent: String::new(),
            valid_exit_codes: Vec::new(),
            ..meta
        },
        secret_env: init.secretenv.iter().map(exec::secret).collect(),
        security: security.map_err(|_unknown| ContainerRequestError::Security(init.security))?,
    })
}

#[cfg(test)]
mod tests;
