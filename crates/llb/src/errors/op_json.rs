//! Operations in protobuf's JSON, under the names of their fields: what Go's `protojson` reads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::pb;
use pb::file_action::Action;
use pb::user_opt::User;
use serde_json::{Map, Value, json};

use crate::wire::{self, OpKind};

pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Numbers of 64 bits are texts.
fn long(number: i64) -> Value {
    Value::String(number.to_string())
}

pub(super) fn op(op: &wire::Op) -> Value {
    let input = |input: &pb::Input| json!({ "digest": input.digest, "index": long(input.index) });
    let mut object = Map::new();
    object.insert("inputs".into(), op.inputs.iter().map(input).collect());
    if let Some(platform) = &op.platform {
        let value = json!({
            "Architecture": platform.architecture,
            "OS": platform.os,
            "Variant": platform.variant,
            "OSVersion": platform.os_version,
            "OSFeatures": platform.os_features,
        });
        object.insert("platform".into(), value);
    }
    if let Some(constraints) = &op.constraints {
        object.insert("constraints".into(), json!({ "filter": constraints.filter }));
    }
    let (name, value) = match &op.op {
        None => return Value::Object(object),
        Some(OpKind::Exec(op)) => ("exec", exec(op)),
        Some(OpKind::Source(op)) => (
            "source",
            json!({ "identifier": op.identifier, "attrs": op.attrs }),
        ),
        Some(OpKind::File(op)) => (
            "file",
            json!({ "actions": op.actions.iter().map(action).collect::<Value>() }),
        ),
        Some(OpKind::Build(op)) => ("build", build(op)),
        Some(OpKind::Merge(op)) => {
            let inputs: Value = op
                .inputs
                .iter()
                .map(|input| json!({ "input": long(input.input) }))
                .collect();
            ("merge", json!({ "inputs": inputs }))
        }
        Some(OpKind::Diff(op)) => {
            let side = |input: Option<i64>| input.map(|input| json!({ "input": long(input) }));
            let lower = side(op.lower.map(|lower| lower.input));
            let upper = side(op.upper.map(|upper| upper.input));
            ("diff", json!({ "lower": lower, "upper": upper }))
        }
        Some(OpKind::Passthrough(op)) => {
            let outputs: Value = op.outputs.iter().copied().map(long).collect();
            ("passthrough", json!({ "id": op.id, "outputs": outputs }))
        }
    };
    object.insert(name.into(), value);
    Value::Object(object)
}

fn exec(exec: &pb::ExecOp) -> Value {
    let secret =
        |secret: &pb::SecretEnv| json!({ "ID": secret.id, "name": secret.name, "optional": secret.optional });
    let device = |device: &pb::CdiDevice| json!({ "name": device.name, "optional": device.optional });
    json!({
        "meta": exec.meta.as_ref().map(meta),
        "mounts": exec.mounts.iter().map(mount).collect::<Value>(),
        "network": exec.network,
        "security": exec.security,
        "secretenv": exec.secretenv.iter().map(secret).collect::<Value>(),
        "cdiDevices": exec.cdi_devices.iter().map(device).collect::<Value>(),
    })
}

fn meta(meta: &pb::Meta) -> Value {
    let host = |host: &pb::HostIp| json!({ "Host": host.host, "IP": host.ip });
    let limit = |limit: &pb::Ulimit| json!({ "Name": limit.name, "Soft": long(limit.soft), "Hard": long(limit.hard) });
    let proxy = |proxy: &pb::ProxyEnv| {
        json!({
            "http_proxy": proxy.http_proxy,
            "https_proxy": proxy.https_proxy,
            "ftp_proxy": proxy.ftp_proxy,
            "no_proxy": proxy.no_proxy,
            "all_proxy": proxy.all_proxy,
        })
    };
    json!({
        "args": meta.args,
        "env": meta.env,
        "cwd": meta.cwd,
        "user": meta.user,
        "proxy_env": meta.proxy_env.as_ref().map(proxy),
        "extraHosts": meta.extra_hosts.iter().map(host).collect::<Value>(),
        "hostname": meta.hostname,
        "ulimit": meta.ulimit.iter().map(limit).collect::<Value>(),
        "cgroupParent": meta.cgroup_parent,
        "removeMountStubsRecursive": meta.remove_mount_stubs_recursive,
        "validExitCodes": meta.valid_exit_codes,
    })
}

fn mount(mount: &pb::Mount) -> Value {
    let file = |id: &str, uid: u32, gid: u32, mode: u32, optional: bool| json!({ "ID": id, "uid": uid, "gid": gid, "mode": mode, "optional": optional });
    let secret = mount.secret_opt.as_ref();
    let ssh = mount.ssh_opt.as_ref();
    let cache = |cache: &pb::CacheOpt| json!({ "ID": cache.id, "sharing": cache.sharing });
    json!({
        "input": long(mount.input),
        "selector": mount.selector,
        "dest": mount.dest,
        "output": long(mount.output),
        "readonly": mount.readonly,
        "mountType": mount.mount_type,
        "TmpfsOpt": mount.tmpfs_opt.map(|tmpfs| json!({ "size": long(tmpfs.size) })),
        "cacheOpt": mount.cache_opt.as_ref().map(cache),
        "secretOpt": secret.map(|opt| file(&opt.id, opt.uid, opt.gid, opt.mode, opt.optional)),
        "SSHOpt": ssh.map(|opt| file(&opt.id, opt.uid, opt.gid, opt.mode, opt.optional)),
        "resultID": mount.result_id,
        "contentCache": mount.content_cache,
    })
}

fn build(build: &wire::BuildOp) -> Value {
    // The definition inside is left out: nothing reads it there.
    let named =
        |(name, input): (&String, &pb::BuildInput)| (name.clone(), json!({ "input": long(input.input) }));
    json!({
        "builder": long(build.builder),
        "inputs": build.inputs.iter().map(named).collect::<Map<_, _>>(),
        "attrs": build.attrs,
    })
}

fn action(action: &pb::FileAction) -> Value {
    let mut object = Map::new();
    object.insert("input".into(), long(action.input));
    object.insert("secondaryInput".into(), long(action.secondary_input));
    object.insert("output".into(), long(action.output));
    let (name, value) = match &action.action {
        None => return Value::Object(object),
        Some(Action::Copy(action)) => ("copy", copy(action)),
        Some(Action::Mkfile(file)) => (
            "mkfile",
            json!({
                "path": file.path,
                "mode": file.mode,
                "data": base64(&file.data),
                "owner": file.owner.as_ref().map(owner),
                "timestamp": long(file.timestamp),
            }),
        ),
        Some(Action::Mkdir(dir)) => (
            "mkdir",
            json!({
                "path": dir.path,
                "mode": dir.mode,
                "makeParents": dir.make_parents,
                "owner": dir.owner.as_ref().map(owner),
                "timestamp": long(dir.timestamp),
            }),
        ),
        Some(Action::Rm(rm)) => (
            "rm",
            json!({
                "path": rm.path,
                "allowNotFound": rm.allow_not_found,
                "allowWildcard": rm.allow_wildcard,
            }),
        ),
        Some(Action::Symlink(link)) => (
            "symlink",
            json!({
                "oldpath": link.oldpath,
                "newpath": link.newpath,
                "owner": link.owner.as_ref().map(owner),
                "timestamp": long(link.timestamp),
            }),
        ),
    };
    object.insert(name.into(), value);
    Value::Object(object)
}

fn copy(copy: &pb::FileActionCopy) -> Value {
    json!({
        "src": copy.src,
        "dest": copy.dest,
        "owner": copy.owner.as_ref().map(owner),
        "mode": copy.mode,
        "followSymlink": copy.follow_symlink,
        "dirCopyContents": copy.dir_copy_contents,
        "attemptUnpackDockerCompatibility": copy.attempt_unpack_docker_compatibility,
        "createDestPath": copy.create_dest_path,
        "allowWildcard": copy.allow_wildcard,
        "allowEmptyWildcard": copy.allow_empty_wildcard,
        "timestamp": long(copy.timestamp),
        "include_patterns": copy.include_patterns,
        "exclude_patterns": copy.exclude_patterns,
        "alwaysReplaceExistingDestPaths": copy.always_replace_existing_dest_paths,
        "modeStr": copy.mode_str,
        "required_paths": copy.required_paths,
    })
}

fn owner(owner: &pb::ChownOpt) -> Value {
    let half = |half: &Option<pb::UserOpt>| match half.as_ref().and_then(|half| half.user.as_ref()) {
        None => Value::Null,
        Some(User::ById(id)) => json!({ "byID": id }),
        Some(User::ByName(named)) => {
            json!({ "byName": { "name": named.name, "input": long(named.input) } })
        }
    };
    json!({ "user": half(&owner.user), "group": half(&owner.group) })
}
