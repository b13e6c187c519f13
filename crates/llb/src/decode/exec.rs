//! Operations that run a process.

use bollard_buildkit_proto::pb;
use rbuild_graph::{
    CacheSharing, CdiDevice, ContentCache, ExecMeta, ExecOp, HostIp, Mount, MountKind, NetMode, ProxyEnv,
    SecretEnv, SecurityMode, Ulimit,
};

use super::OpError;
use super::convert::index;

pub(super) fn exec(exec: &pb::ExecOp, inputs: usize) -> Result<ExecOp, OpError> {
    let meta = exec.meta.as_ref().ok_or(OpError::ExecMeta)?;
    if meta.args.is_empty() {
        return Err(OpError::ExecArgs);
    }
    if exec.mounts.is_empty() {
        return Err(OpError::ExecMounts);
    }
    if !exec.mounts.iter().any(|mount| mount.dest == "/") {
        return Err(OpError::ExecRoot);
    }
    let device = |device: &pb::CdiDevice| CdiDevice {
        name: device.name.clone(),
        optional: device.optional,
    };
    Ok(ExecOp {
        meta: process(meta),
        mounts: exec
            .mounts
            .iter()
            .map(|one| mount(one, inputs, exec.mounts.len()))
            .collect::<Result<_, _>>()?,
        network: network(exec.network)?,
        security: security(exec.security)?,
        secret_env: exec.secretenv.iter().map(secret).collect(),
        cdi_devices: exec.cdi_devices.iter().map(device).collect(),
    })
}

pub(crate) fn network(value: i32) -> Result<NetMode, OpError> {
    match pb::NetMode::try_from(value) {
        Ok(pb::NetMode::Unset) => Ok(NetMode::Unset),
        Ok(pb::NetMode::Host) => Ok(NetMode::Host),
        Ok(pb::NetMode::None) => Ok(NetMode::None),
        Err(_) => Err(unknown("network mode", value)),
    }
}

pub(crate) fn security(value: i32) -> Result<SecurityMode, OpError> {
    match pb::SecurityMode::try_from(value) {
        Ok(pb::SecurityMode::Sandbox) => Ok(SecurityMode::Sandbox),
        Ok(pb::SecurityMode::Insecure) => Ok(SecurityMode::Insecure),
        Err(_) => Err(unknown("security mode", value)),
    }
}

pub(crate) fn secret(secret: &pb::SecretEnv) -> SecretEnv {
    SecretEnv {
        id: secret.id.clone(),
        name: secret.name.clone(),
        optional: secret.optional,
    }
}

const fn unknown(what: &'static str, value: i32) -> OpError {
    OpError::Value { what, value }
}

pub(crate) fn process(meta: &pb::Meta) -> ExecMeta {
    let host = |host: &pb::HostIp| HostIp {
        host: host.host.clone(),
        ip: host.ip.clone(),
    };
    let limit = |limit: &pb::Ulimit| Ulimit {
        name: limit.name.clone(),
        soft: limit.soft,
        hard: limit.hard,
    };
    let proxy = |proxy: &pb::ProxyEnv| ProxyEnv {
        http_proxy: proxy.http_proxy.clone(),
        https_proxy: proxy.https_proxy.clone(),
        ftp_proxy: proxy.ftp_proxy.clone(),
        no_proxy: proxy.no_proxy.clone(),
        all_proxy: proxy.all_proxy.clone(),
    };
    ExecMeta {
        args: meta.args.clone(),
        env: meta.env.clone(),
        cwd: meta.cwd.clone(),
        user: meta.user.clone(),
        proxy_env: meta.proxy_env.as_ref().map(proxy),
        extra_hosts: meta.extra_hosts.iter().map(host).collect(),
        hostname: meta.hostname.clone(),
        ulimit: meta.ulimit.iter().map(limit).collect(),
        cgroup_parent: meta.cgroup_parent.clone(),
        remove_mount_stubs_recursive: meta.remove_mount_stubs_recursive,
        valid_exit_codes: meta.valid_exit_codes.clone(),
    }
}

pub(crate) fn mount(mount: &pb::Mount, inputs: usize, mounts: usize) -> Result<Mount, OpError> {
    let output = match mount.output {
        -1 => None,
        index => {
            let output = u32::try_from(index)
                .ok()
                .filter(|output| (*output as usize) < mounts);
            Some(output.ok_or_else(|| OpError::MountOutput {
                dest: mount.dest.clone(),
                index,
            })?)
        }
    };
    let content_cache = match pb::MountContentCache::try_from(mount.content_cache) {
        Ok(pb::MountContentCache::Default) => ContentCache::Default,
        Ok(pb::MountContentCache::On) => ContentCache::On,
        Ok(pb::MountContentCache::Off) => ContentCache::Off,
        Err(_) => return Err(unknown("mount content cache", mount.content_cache)),
    };
    let kind = kind(mount)?;
    // Clients leave the field of these at zero, and mean no output.
    let has_none = matches!(kind, MountKind::Secret { .. } | MountKind::Ssh { .. });
    let decoded = Mount {
        input: index("mount", mount.input, inputs)?,
        selector: mount.selector.clone(),
        dest: mount.dest.clone(),
        output: output.filter(|_| !has_none),
        readonly: mount.readonly,
        kind,
        content_cache,
        result_id: mount.result_id.clone(),
    };
    let shows_input = matches!(decoded.kind, MountKind::Bind | MountKind::Cache { .. });
    let must = decoded.content_cache == ContentCache::On && decoded.input.is_some() && shows_input;
    if must && !decoded.may_count_by_content() {
        return Err(OpError::MountContentCache { dest: decoded.dest });
    }
    Ok(decoded)
}

fn kind(mount: &pb::Mount) -> Result<MountKind, OpError> {
    let missing = OpError::MountOptions;
    Ok(match pb::MountType::try_from(mount.mount_type) {
        Ok(pb::MountType::Bind) => MountKind::Bind,
        Ok(pb::MountType::Cache) => {
            let options = mount
                .cache_opt
                .as_ref()
                .ok_or(missing("missing cache mount options"))?;
            MountKind::Cache {
                id: options.id.clone(),
                sharing: match pb::CacheSharingOpt::try_from(options.sharing) {
                    Ok(pb::CacheSharingOpt::Shared) => CacheSharing::Shared,
                    Ok(pb::CacheSharingOpt::Private) => CacheSharing::Private,
                    Ok(pb::CacheSharingOpt::Locked) => CacheSharing::Locked,
                    Err(_) => return Err(unknown("cache sharing option", options.sharing)),
                },
            }
        }
        Ok(pb::MountType::Tmpfs) => {
            let size = mount.tmpfs_opt.map_or(0, |options| options.size);
            MountKind::Tmpfs {
                size_bytes: u64::try_from(size).map_err(|_| OpError::TmpfsSize {
                    dest: mount.dest.clone(),
                    size,
                })?,
            }
        }
        Ok(pb::MountType::Secret) => {
            let options = mount
                .secret_opt
                .as_ref()
                .ok_or(missing("invalid secret mount options"))?;
            MountKind::Secret {
                id: options.id.clone(),
                uid: options.uid,
                gid: options.gid,
                mode: options.mode,
                optional: options.optional,
            }
        }
        Ok(pb::MountType::Ssh) => {
            let options = mount
                .ssh_opt
                .as_ref()
                .ok_or(missing("invalid ssh mount options"))?;
            MountKind::Ssh {
                id: options.id.clone(),
                uid: options.uid,
                gid: options.gid,
                mode: options.mode,
                optional: options.optional,
            }
        }
        Err(_) => return Err(unknown("mount type", mount.mount_type)),
    })
}
