//! Operations in JSON, in the two forms that Go has of them: protobuf's own (`protojson`, which error details and
//! `frontend.convertllb` are written with), and that of the structs the messages are in Go (`solver/pb/json.go`, which
//! provenance is written with). Both leave out fields that have the zero value of their type.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::pb;
use pb::file_action::Action;
use pb::user_opt::User;
use rbuild_oci::go_json::Json;

use crate::wire::{self, OpKind};

pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// An operation as `protojson` writes it: numbers of 64 bits are texts, enumerations names.
pub(crate) fn protojson(op: &wire::Op) -> Json {
    let (name, kind) = Form::Proto.kind(op);
    Json::object([
        (
            "inputs",
            Json::list(op.inputs.iter().map(|input| Form::Proto.input(input))),
        ),
        (name, kind),
        ("platform", op.platform.as_ref().map(platform).into()),
        ("constraints", op.constraints.as_ref().map(constraints).into()),
    ])
}

/// An operation without its inputs as `encoding/json` writes it.
pub(crate) fn structs(op: &wire::Op) -> Json {
    Json::object([
        ("Op", Json::object([Form::Structs.kind(op)])),
        ("platform", op.platform.as_ref().map(platform).into()),
        ("constraints", op.constraints.as_ref().map(constraints).into()),
    ])
}

fn platform(platform: &pb::Platform) -> Json {
    Json::object([
        ("Architecture", (&platform.architecture).into()),
        ("OS", (&platform.os).into()),
        ("Variant", (&platform.variant).into()),
        ("OSVersion", (&platform.os_version).into()),
        ("OSFeatures", Json::texts(&platform.os_features)),
    ])
}

fn constraints(constraints: &pb::WorkerConstraints) -> Json {
    Json::object([("filter", Json::texts(&constraints.filter))])
}

/// Which of the two forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Protobuf's.
    Proto,
    /// Of Go's structs.
    Structs,
}

impl Form {
    /// The name of a field, which protobuf writes without the underscores of its declaration.
    pub(crate) const fn name(self, proto: &'static str, structs: &'static str) -> &'static str {
        match self {
            Self::Proto => proto,
            Self::Structs => structs,
        }
    }

    /// A number of 64 bits.
    pub(crate) fn long(self, number: i64) -> Json {
        match self {
            Self::Proto if number != 0 => Json::Text(number.to_string()),
            Self::Proto | Self::Structs => number.into(),
        }
    }

    /// A value of an enumeration, which Go's structs have as a number.
    fn named<E: TryFrom<i32>>(self, number: i32, name: fn(&E) -> &'static str) -> Json {
        match (self, E::try_from(number)) {
            (Self::Proto, Ok(known)) if number != 0 => name(&known).into(),
            _ => number.into(),
        }
    }

    /// What the operation does; no name if it does nothing.
    fn kind(self, op: &wire::Op) -> (&'static str, Json) {
        let Some(kind) = &op.op else {
            return ("", Json::Absent);
        };
        match kind {
            OpKind::Exec(op) => ("exec", self.exec(op)),
            OpKind::Source(op) => (
                "source",
                Json::object([
                    ("identifier", (&op.identifier).into()),
                    ("attrs", attrs(&op.attrs)),
                ]),
            ),
            OpKind::File(op) => {
                let actions = op.actions.iter().map(|action| self.action(action));
                ("file", Json::object([("actions", Json::list(actions))]))
            }
            OpKind::Build(op) => ("build", self.build(op)),
            OpKind::Merge(op) => {
                let inputs = op.inputs.iter().map(|input| self.indexed("input", input.input));
                ("merge", Json::object([("inputs", Json::list(inputs))]))
            }
            OpKind::Diff(op) => {
                let side = |input: Option<i64>| Json::from(input.map(|input| self.indexed("input", input)));
                let lower = side(op.lower.map(|lower| lower.input));
                let upper = side(op.upper.map(|upper| upper.input));
                ("diff", Json::object([("lower", lower), ("upper", upper)]))
            }
            OpKind::Passthrough(op) => {
                let outputs = op.outputs.iter().map(|output| self.element(*output));
                let fields = [("id", (&op.id).into()), ("outputs", Json::list(outputs))];
                ("passthrough", Json::object(fields))
            }
        }
    }

    /// A number of 64 bits that is there if it is zero, too.
    fn element(self, number: i64) -> Json {
        match self {
            Self::Proto => Json::Text(number.to_string()),
            Self::Structs => Json::Number(number),
        }
    }

    fn indexed(self, name: &'static str, number: i64) -> Json {
        Json::object([(name, self.long(number))])
    }

    fn input(self, input: &pb::Input) -> Json {
        Json::object([
            ("digest", (&input.digest).into()),
            ("index", self.long(input.index)),
        ])
    }

    fn exec(self, exec: &pb::ExecOp) -> Json {
        let secret = |secret: &pb::SecretEnv| {
            Json::object([
                ("ID", (&secret.id).into()),
                ("name", (&secret.name).into()),
                ("optional", secret.optional.into()),
            ])
        };
        let device = |device: &pb::CdiDevice| {
            Json::object([
                ("name", (&device.name).into()),
                ("optional", device.optional.into()),
            ])
        };
        Json::object([
            ("meta", exec.meta.as_ref().map(|meta| self.meta(meta)).into()),
            (
                "mounts",
                Json::list(exec.mounts.iter().map(|mount| self.mount(mount))),
            ),
            ("network", self.named(exec.network, pb::NetMode::as_str_name)),
            (
                "security",
                self.named(exec.security, pb::SecurityMode::as_str_name),
            ),
            ("secretenv", Json::list(exec.secretenv.iter().map(secret))),
            ("cdiDevices", Json::list(exec.cdi_devices.iter().map(device))),
        ])
    }

    fn meta(self, meta: &pb::Meta) -> Json {
        let host =
            |host: &pb::HostIp| Json::object([("Host", (&host.host).into()), ("IP", (&host.ip).into())]);
        let limit = |limit: &pb::Ulimit| {
            Json::object([
                ("Name", (&limit.name).into()),
                ("Soft", self.long(limit.soft)),
                ("Hard", self.long(limit.hard)),
            ])
        };
        let proxy = |proxy: &pb::ProxyEnv| {
            Json::object([
                (self.name("httpProxy", "http_proxy"), (&proxy.http_proxy).into()),
                (
                    self.name("httpsProxy", "https_proxy"),
                    (&proxy.https_proxy).into(),
                ),
                (self.name("ftpProxy", "ftp_proxy"), (&proxy.ftp_proxy).into()),
                (self.name("noProxy", "no_proxy"), (&proxy.no_proxy).into()),
                (self.name("allProxy", "all_proxy"), (&proxy.all_proxy).into()),
            ])
        };
        let codes = meta.valid_exit_codes.iter();
        let proxies = meta.proxy_env.as_ref().map(proxy);
        Json::object([
            ("args", Json::texts(&meta.args)),
            ("env", Json::texts(&meta.env)),
            ("cwd", (&meta.cwd).into()),
            ("user", (&meta.user).into()),
            (self.name("proxyEnv", "proxy_env"), proxies.into()),
            ("extraHosts", Json::list(meta.extra_hosts.iter().map(host))),
            ("hostname", (&meta.hostname).into()),
            ("ulimit", Json::list(meta.ulimit.iter().map(limit))),
            ("cgroupParent", (&meta.cgroup_parent).into()),
            (
                "removeMountStubsRecursive",
                meta.remove_mount_stubs_recursive.into(),
            ),
            (
                "validExitCodes",
                Json::list(codes.map(|code| Json::Number((*code).into()))),
            ),
        ])
    }

    fn mount(self, mount: &pb::Mount) -> Json {
        let file = |id: &str, uid: u32, gid: u32, mode: u32, optional: bool| {
            Json::object([
                ("ID", id.into()),
                ("uid", uid.into()),
                ("gid", gid.into()),
                ("mode", mode.into()),
                ("optional", optional.into()),
            ])
        };
        let cache = |cache: &pb::CacheOpt| {
            let sharing = self.named(cache.sharing, pb::CacheSharingOpt::as_str_name);
            Json::object([("ID", (&cache.id).into()), ("sharing", sharing)])
        };
        let secret = mount.secret_opt.as_ref();
        let secret = secret.map(|opt| file(&opt.id, opt.uid, opt.gid, opt.mode, opt.optional));
        let ssh = mount.ssh_opt.as_ref();
        let ssh = ssh.map(|opt| file(&opt.id, opt.uid, opt.gid, opt.mode, opt.optional));
        let content_cache = self.named(mount.content_cache, pb::MountContentCache::as_str_name);
        Json::object([
            ("input", self.long(mount.input)),
            ("selector", (&mount.selector).into()),
            ("dest", (&mount.dest).into()),
            ("output", self.long(mount.output)),
            ("readonly", mount.readonly.into()),
            (
                "mountType",
                self.named(mount.mount_type, pb::MountType::as_str_name),
            ),
            (
                "TmpfsOpt",
                mount
                    .tmpfs_opt
                    .map(|tmpfs| self.indexed("size", tmpfs.size))
                    .into(),
            ),
            ("cacheOpt", mount.cache_opt.as_ref().map(cache).into()),
            ("secretOpt", secret.into()),
            ("SSHOpt", ssh.into()),
            ("resultID", (&mount.result_id).into()),
            ("contentCache", content_cache),
        ])
    }

    fn build(self, build: &wire::BuildOp) -> Json {
        // The definition inside is left out: nothing reads it there.
        let inputs = build.inputs.iter();
        Json::object([
            ("builder", self.long(build.builder)),
            (
                "inputs",
                Json::map(inputs.map(|(name, input)| (name, self.indexed("input", input.input)))),
            ),
            ("attrs", attrs(&build.attrs)),
        ])
    }

    fn action(self, action: &pb::FileAction) -> Json {
        let kind = action.action.as_ref().map(|kind| self.action_kind(kind));
        let (name, kind) = kind.unwrap_or_default();
        match self {
            Self::Proto => Json::object([
                ("input", self.long(action.input)),
                ("secondaryInput", self.long(action.secondary_input)),
                ("output", self.long(action.output)),
                (name, kind),
            ]),
            // `solver/pb/json.go` writes the three numbers always.
            Self::Structs => Json::object([
                ("input", self.element(action.input)),
                ("secondaryInput", self.element(action.secondary_input)),
                ("output", self.element(action.output)),
                ("Action", Json::object([(name, kind)])),
            ]),
        }
    }

    fn action_kind(self, action: &Action) -> (&'static str, Json) {
        let owner = |chown: &Option<pb::ChownOpt>| Json::from(chown.as_ref().map(|chown| self.owner(chown)));
        match action {
            Action::Copy(copy) => ("copy", self.copy(copy)),
            Action::Mkfile(file) => (
                "mkfile",
                Json::object([
                    ("path", (&file.path).into()),
                    ("mode", file.mode.into()),
                    ("data", base64(&file.data).into()),
                    ("owner", owner(&file.owner)),
                    ("timestamp", self.long(file.timestamp)),
                ]),
            ),
            Action::Mkdir(dir) => (
                "mkdir",
                Json::object([
                    ("path", (&dir.path).into()),
                    ("mode", dir.mode.into()),
                    ("makeParents", dir.make_parents.into()),
                    ("owner", owner(&dir.owner)),
                    ("timestamp", self.long(dir.timestamp)),
                ]),
            ),
            Action::Rm(rm) => (
                "rm",
                Json::object([
                    ("path", (&rm.path).into()),
                    ("allowNotFound", rm.allow_not_found.into()),
                    ("allowWildcard", rm.allow_wildcard.into()),
                ]),
            ),
            Action::Symlink(link) => (
                "symlink",
                Json::object([
                    ("oldpath", (&link.oldpath).into()),
                    ("newpath", (&link.newpath).into()),
                    ("owner", owner(&link.owner)),
                    ("timestamp", self.long(link.timestamp)),
                ]),
            ),
        }
    }

    fn copy(self, copy: &pb::FileActionCopy) -> Json {
        let patterns = |name, list| (name, Json::texts(list));
        Json::object([
            ("src", (&copy.src).into()),
            ("dest", (&copy.dest).into()),
            ("owner", copy.owner.as_ref().map(|chown| self.owner(chown)).into()),
            ("mode", copy.mode.into()),
            ("followSymlink", copy.follow_symlink.into()),
            ("dirCopyContents", copy.dir_copy_contents.into()),
            (
                "attemptUnpackDockerCompatibility",
                copy.attempt_unpack_docker_compatibility.into(),
            ),
            ("createDestPath", copy.create_dest_path.into()),
            ("allowWildcard", copy.allow_wildcard.into()),
            ("allowEmptyWildcard", copy.allow_empty_wildcard.into()),
            ("timestamp", self.long(copy.timestamp)),
            patterns(
                self.name("includePatterns", "include_patterns"),
                &copy.include_patterns,
            ),
            patterns(
                self.name("excludePatterns", "exclude_patterns"),
                &copy.exclude_patterns,
            ),
            (
                "alwaysReplaceExistingDestPaths",
                copy.always_replace_existing_dest_paths.into(),
            ),
            ("modeStr", (&copy.mode_str).into()),
            patterns(self.name("requiredPaths", "required_paths"), &copy.required_paths),
        ])
    }

    fn owner(self, owner: &pb::ChownOpt) -> Json {
        let half = |half: &Option<pb::UserOpt>| Json::from(half.as_ref().map(|half| self.user(half)));
        Json::object([("user", half(&owner.user)), ("group", half(&owner.group))])
    }

    fn user(self, user: &pb::UserOpt) -> Json {
        let kind = match (self, &user.user) {
            (_, None) => ("", Json::Absent),
            (_, Some(User::ByName(user))) => {
                let fields = [("name", (&user.name).into()), ("input", self.long(user.input))];
                ("byName", Json::object(fields))
            }
            // Protobuf knows that one of the two is there.
            (Self::Proto, Some(User::ById(id))) => ("byID", Json::Number((*id).into())),
            (Self::Structs, Some(User::ById(id))) => ("byId", (*id).into()),
        };
        match self {
            Self::Proto => Json::object([kind]),
            Self::Structs => Json::object([("User", Json::object([kind]))]),
        }
    }
}

pub(crate) fn attrs(attrs: &std::collections::BTreeMap<String, String>) -> Json {
    // Present is written, empty or not.
    Json::map(
        attrs
            .iter()
            .map(|(name, value)| (name, Json::Text(value.clone()))),
    )
}
