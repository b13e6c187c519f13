//! Operations in JSON, in the two forms that Go has of them: protobuf's own (`protojson`, which error details are
//! read with), and that of the structs the messages are in Go (`solver/pb/json.go`, which provenance is read with).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::pb;
use pb::file_action::Action;
use pb::user_opt::User;
use serde_json::{Map, Value, json};

use crate::wire::{self, OpKind};

pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// An operation as `protojson` reads it: numbers of 64 bits are texts.
pub(crate) fn protojson(op: &wire::Op) -> Value {
    let mut object = Map::new();
    let inputs = op.inputs.iter().map(|input| Form::Proto.input(input));
    object.insert("inputs".into(), inputs.collect());
    if let Some(platform) = &op.platform {
        object.insert("platform".into(), Form::Proto.platform(platform));
    }
    if let Some(constraints) = &op.constraints {
        object.insert("constraints".into(), json!({ "filter": constraints.filter }));
    }
    if let Some((name, value)) = Form::Proto.kind(op) {
        object.insert(name.into(), value);
    }
    Value::Object(object)
}

/// An operation without its inputs as `encoding/json` reads it.
pub(crate) fn structs(op: &wire::Op) -> Value {
    let mut kind = Map::new();
    if let Some((name, value)) = Form::Structs.kind(op) {
        kind.insert(name.into(), value);
    }
    let platform = op
        .platform
        .as_ref()
        .map(|platform| Form::Structs.platform(platform));
    let constraints = op.constraints.as_ref();
    let constraints = constraints.map(|found| Form::Structs.object(json!({ "filter": found.filter })));
    let mut object = Map::new();
    object.insert("Op".into(), Value::Object(kind));
    for (name, value) in [("platform", platform), ("constraints", constraints)] {
        if let Some(value) = value {
            object.insert(name.into(), value);
        }
    }
    Value::Object(object)
}

/// Which of the two forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Proto,
    Structs,
}

impl Form {
    fn kind(self, op: &wire::Op) -> Option<(&'static str, Value)> {
        let entry = match op.op.as_ref()? {
            OpKind::Exec(op) => ("exec", self.exec(op)),
            OpKind::Source(op) => {
                let value = json!({ "identifier": op.identifier, "attrs": op.attrs });
                ("source", self.object(value))
            }
            OpKind::File(op) => {
                let actions: Value = op.actions.iter().map(|action| self.action(action)).collect();
                ("file", self.object(json!({ "actions": actions })))
            }
            OpKind::Build(op) => ("build", self.build(op)),
            OpKind::Merge(op) => {
                let input = |input: &pb::MergeInput| self.indexed("input", input.input);
                let inputs: Value = op.inputs.iter().map(input).collect();
                ("merge", self.object(json!({ "inputs": inputs })))
            }
            OpKind::Diff(op) => {
                let side = |input: Option<i64>| input.map(|input| self.indexed("input", input));
                let lower = side(op.lower.map(|lower| lower.input));
                let upper = side(op.upper.map(|upper| upper.input));
                ("diff", self.object(json!({ "lower": lower, "upper": upper })))
            }
            OpKind::Passthrough(op) => {
                let outputs: Value = op.outputs.iter().map(|output| self.long(*output)).collect();
                let value = json!({ "id": op.id, "outputs": outputs });
                ("passthrough", self.object(value))
            }
        };
        Some(entry)
    }

    /// A number of 64 bits.
    fn long(self, number: i64) -> Value {
        match self {
            Self::Proto => number.to_string().into(),
            Self::Structs => number.into(),
        }
    }

    /// The fields of a message. Go's structs have `omitempty` on each of them.
    fn object(self, mut value: Value) -> Value {
        if let (Self::Structs, Value::Object(fields)) = (self, &mut value) {
            fields.retain(|_, field| match field {
                Value::Null => false,
                Value::Bool(set) => *set,
                Value::Number(number) => number.as_f64() != Some(0.0),
                Value::String(text) => !text.is_empty(),
                Value::Array(list) => !list.is_empty(),
                // A message that is there but empty stays, a map without entries does not; read back, both are nothing.
                Value::Object(fields) => !fields.is_empty(),
            });
        }
        value
    }

    fn indexed(self, name: &str, number: i64) -> Value {
        let mut fields = Map::new();
        fields.insert(name.into(), self.long(number));
        self.object(Value::Object(fields))
    }

    fn input(self, input: &pb::Input) -> Value {
        self.object(json!({ "digest": input.digest, "index": self.long(input.index) }))
    }

    fn platform(self, platform: &pb::Platform) -> Value {
        self.object(json!({
            "Architecture": platform.architecture,
            "OS": platform.os,
            "Variant": platform.variant,
            "OSVersion": platform.os_version,
            "OSFeatures": platform.os_features,
        }))
    }

    fn exec(self, exec: &pb::ExecOp) -> Value {
        let secret = |secret: &pb::SecretEnv| {
            self.object(json!({ "ID": secret.id, "name": secret.name, "optional": secret.optional }))
        };
        let device =
            |device: &pb::CdiDevice| self.object(json!({ "name": device.name, "optional": device.optional }));
        self.object(json!({
            "meta": exec.meta.as_ref().map(|meta| self.meta(meta)),
            "mounts": exec.mounts.iter().map(|mount| self.mount(mount)).collect::<Value>(),
            "network": exec.network,
            "security": exec.security,
            "secretenv": exec.secretenv.iter().map(secret).collect::<Value>(),
            "cdiDevices": exec.cdi_devices.iter().map(device).collect::<Value>(),
        }))
    }

    fn meta(self, meta: &pb::Meta) -> Value {
        let host = |host: &pb::HostIp| self.object(json!({ "Host": host.host, "IP": host.ip }));
        let limit = |limit: &pb::Ulimit| {
            self.object(json!({
                "Name": limit.name,
                "Soft": self.long(limit.soft),
                "Hard": self.long(limit.hard),
            }))
        };
        let proxy = |proxy: &pb::ProxyEnv| {
            self.object(json!({
                "http_proxy": proxy.http_proxy,
                "https_proxy": proxy.https_proxy,
                "ftp_proxy": proxy.ftp_proxy,
                "no_proxy": proxy.no_proxy,
                "all_proxy": proxy.all_proxy,
            }))
        };
        self.object(json!({
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
        }))
    }

    fn mount(self, mount: &pb::Mount) -> Value {
        let file = |id: &str, uid: u32, gid: u32, mode: u32, optional: bool| {
            self.object(json!({ "ID": id, "uid": uid, "gid": gid, "mode": mode, "optional": optional }))
        };
        let secret = mount.secret_opt.as_ref();
        let ssh = mount.ssh_opt.as_ref();
        let cache = |cache: &pb::CacheOpt| self.object(json!({ "ID": cache.id, "sharing": cache.sharing }));
        self.object(json!({
            "input": self.long(mount.input),
            "selector": mount.selector,
            "dest": mount.dest,
            "output": self.long(mount.output),
            "readonly": mount.readonly,
            "mountType": mount.mount_type,
            "TmpfsOpt": mount.tmpfs_opt.map(|tmpfs| self.indexed("size", tmpfs.size)),
            "cacheOpt": mount.cache_opt.as_ref().map(cache),
            "secretOpt": secret.map(|opt| file(&opt.id, opt.uid, opt.gid, opt.mode, opt.optional)),
            "SSHOpt": ssh.map(|opt| file(&opt.id, opt.uid, opt.gid, opt.mode, opt.optional)),
            "resultID": mount.result_id,
            "contentCache": mount.content_cache,
        }))
    }

    fn build(self, build: &wire::BuildOp) -> Value {
        // The definition inside is left out: nothing reads it there.
        let named =
            |(name, input): (&String, &pb::BuildInput)| (name.clone(), self.indexed("input", input.input));
        self.object(json!({
            "builder": self.long(build.builder),
            "inputs": build.inputs.iter().map(named).collect::<Map<_, _>>(),
            "attrs": build.attrs,
        }))
    }

    fn action(self, action: &pb::FileAction) -> Value {
        let mut object = Map::new();
        object.insert("input".into(), self.long(action.input));
        object.insert("secondaryInput".into(), self.long(action.secondary_input));
        object.insert("output".into(), self.long(action.output));
        let kind = action.action.as_ref().map(|kind| self.action_kind(kind));
        match (self, kind) {
            (Self::Proto, None) => {}
            (Self::Proto, Some((name, value))) => drop(object.insert(name.into(), value)),
            (Self::Structs, kind) => {
                let kind = kind.map(|(name, value)| (name.to_owned(), value));
                object.insert("Action".into(), Value::Object(kind.into_iter().collect()));
            }
        }
        Value::Object(object)
    }

    fn action_kind(self, action: &Action) -> (&'static str, Value) {
        let owner = |chown: &Option<pb::ChownOpt>| chown.as_ref().map(|chown| self.owner(chown));
        let (name, value) = match action {
            Action::Copy(copy) => return ("copy", self.copy(copy)),
            Action::Mkfile(file) => (
                "mkfile",
                json!({
                    "path": file.path,
                    "mode": file.mode,
                    "data": base64(&file.data),
                    "owner": owner(&file.owner),
                    "timestamp": self.long(file.timestamp),
                }),
            ),
            Action::Mkdir(dir) => (
                "mkdir",
                json!({
                    "path": dir.path,
                    "mode": dir.mode,
                    "makeParents": dir.make_parents,
                    "owner": owner(&dir.owner),
                    "timestamp": self.long(dir.timestamp),
                }),
            ),
            Action::Rm(rm) => (
                "rm",
                json!({
                    "path": rm.path,
                    "allowNotFound": rm.allow_not_found,
                    "allowWildcard": rm.allow_wildcard,
                }),
            ),
            Action::Symlink(link) => (
                "symlink",
                json!({
                    "oldpath": link.oldpath,
                    "newpath": link.newpath,
                    "owner": owner(&link.owner),
                    "timestamp": self.long(link.timestamp),
                }),
            ),
        };
        (name, self.object(value))
    }

    fn copy(self, copy: &pb::FileActionCopy) -> Value {
        self.object(json!({
            "src": copy.src,
            "dest": copy.dest,
            "owner": copy.owner.as_ref().map(|chown| self.owner(chown)),
            "mode": copy.mode,
            "followSymlink": copy.follow_symlink,
            "dirCopyContents": copy.dir_copy_contents,
            "attemptUnpackDockerCompatibility": copy.attempt_unpack_docker_compatibility,
            "createDestPath": copy.create_dest_path,
            "allowWildcard": copy.allow_wildcard,
            "allowEmptyWildcard": copy.allow_empty_wildcard,
            "timestamp": self.long(copy.timestamp),
            "include_patterns": copy.include_patterns,
            "exclude_patterns": copy.exclude_patterns,
            "alwaysReplaceExistingDestPaths": copy.always_replace_existing_dest_paths,
            "modeStr": copy.mode_str,
            "required_paths": copy.required_paths,
        }))
    }

    fn owner(self, owner: &pb::ChownOpt) -> Value {
        let half = |half: &Option<pb::UserOpt>| self.user(half.as_ref()?.user.as_ref()?);
        self.object(json!({ "user": half(&owner.user), "group": half(&owner.group) }))
    }

    fn user(self, user: &User) -> Option<Value> {
        let named = |named: &pb::NamedUserOpt| {
            self.object(json!({ "name": named.name, "input": self.long(named.input) }))
        };
        Some(match (self, user) {
            (Self::Proto, User::ById(id)) => json!({ "byID": id }),
            (Self::Proto, User::ByName(user)) => json!({ "byName": named(user) }),
            (Self::Structs, User::ById(id)) => json!({ "User": self.object(json!({ "byId": id })) }),
            (Self::Structs, User::ByName(user)) => json!({ "User": { "byName": named(user) } }),
        })
    }
}
