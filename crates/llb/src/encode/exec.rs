//! Operations that run a process.

use bollard_buildkit_proto::pb;
use rbuild_graph::{CacheSharing, ContentCache, ExecMeta, ExecOp, Mount, MountKind, NetMode, SecurityMode};

use super::{NoRoom, index};

pub(super) fn exec(exec: &ExecOp) -> Result<pb::ExecOp, NoRoom> {
    let network = match exec.network {
        NetMode::Unset => pb::NetMode::Unset,
        NetMode::Host => pb::NetMode::Host,
        NetMode::None => pb::NetMode::None,
    };
    let security = match exec.security {
        SecurityMode::Sandbox => pb::SecurityMode::Sandbox,
        SecurityMode::Insecure => pb::SecurityMode::Insecure,
    };
    let secret = |secret: &rbuild_graph::SecretEnv| pb::SecretEnv {
        id: secret.id.clone(),
        name: secret.name.clone(),
        optional: secret.optional,
    };
    let device = |device: &rbuild_graph::CdiDevice| pb::CdiDevice {
        name: device.name.clone(),
        optional: device.optional,
    };
    Ok(pb::ExecOp {
        meta: Some(process(&exec.meta)),
        mounts: exec.mounts.iter().map(mount).collect::<Result<_, _>>()?,
        network: network.into(),
        security: security.into(),
        secretenv: exec.secret_env.iter().map(secret).collect(),
        cdi_devices: exec.cdi_devices.iter().map(device).collect(),
    })
}

fn process(meta: &ExecMeta) -> pb::Meta {
    let host = |host: &rbuild_graph::HostIp| pb::HostIp {
        host: host.host.clone(),
        ip: host.ip.clone(),
    };
    let limit = |limit: &rbuild_graph::Ulimit| pb::Ulimit {
        name: limit.name.clone(),
        soft: limit.soft,
        hard: limit.hard,
    };
    let proxy = |proxy: &rbuild_graph::ProxyEnv| pb::ProxyEnv {
        http_proxy: proxy.http_proxy.clone(),
        https_proxy: proxy.https_proxy.clone(),
        ftp_proxy: proxy.ftp_proxy.clone(),
        no_proxy: proxy.no_proxy.clone(),
        all_proxy: proxy.all_proxy.clone(),
    };
    pb::Meta {
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

fn mount(mount: &Mount) -> Result<pb::Mount, NoRoom> {
    let content_cache = match mount.content_cache {
        ContentCache::Default => pb::MountContentCache::Default,
        ContentCache::On => pb::MountContentCache::On,
        ContentCache::Off => pb::MountContentCache::Off,
    };
    let plain = pb::Mount {
        input: index(mount.input),
        selector: mount.selector.clone(),
        dest: mount.dest.clone(),
        output: index(mount.output),
        readonly: mount.readonly,
        result_id: mount.result_id.clone(),
        content_cache: content_cache.into(),
        ..pb::Mount::default()
    };
    Ok(match &mount.kind {
        MountKind::Bind => pb::Mount {
            mount_type: pb::MountType::Bind.into(),
            ..plain
        },
        MountKind::Cache { id, sharing } => pb::Mount {
            mount_type: pb::MountType::Cache.into(),
            cache_opt: Some(pb::CacheOpt {
                id: id.clone(),
                sharing: match sharing {
                    CacheSharing::Shared => pb::CacheSharingOpt::Shared,
                    CacheSharing::Private => pb::CacheSharingOpt::Private,
                    CacheSharing::Locked => pb::CacheSharingOpt::Locked,
                }
                .into(),
            }),
            ..plain
        },
        MountKind::Tmpfs { size_bytes } => pb::Mount {
            mount_type: pb::MountType::Tmpfs.into(),
            tmpfs_opt: Some(pb::TmpfsOpt {
                size: i64::try_from(*size_bytes).map_err(|_| NoRoom::TmpfsSize)?,
            }),
            ..plain
        },
        MountKind::Secret {
            id,
            uid,
            gid,
            mode,
            optional,
        } => pb::Mount {
            mount_type: pb::MountType::Secret.into(),
            secret_opt: Some(pb::SecretOpt {
                id: id.clone(),
                uid: *uid,
                gid: *gid,
                mode: *mode,
                optional: *optional,
            }),
            output: 0,
            ..plain
        },
        MountKind::Ssh {
            id,
            uid,
            gid,
            mode,
            optional,
        } => pb::Mount {
            mount_type: pb::MountType::Ssh.into(),
            ssh_opt: Some(pb::SshOpt {
                id: id.clone(),
                uid: *uid,
                gid: *gid,
                mode: *mode,
                optional: *optional,
            }),
            output: 0,
            ..plain
        },
    })
}
