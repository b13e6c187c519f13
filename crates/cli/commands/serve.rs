//! `rbuild serve`: BuildKit's API for clients of `buildkitd`. Puts together what flags and `buildkitd.toml` say, flags
//! first.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rbuild_builder::cdi::CdiConfig;
use rbuild_builder::request::Entitlement;
use rbuild_server::core::FrontEnds;
use rbuild_server::gc::{Limits, Rule, Rules, Space};
use rbuild_server::history;
use rbuild_tls::{Pair, ServerFiles};
use rbuild_ui::values::scalar::parse_duration;

use super::{CommandError, Open};
use crate::args::{
    ARCHIVE_LIMITS_VARIABLE, Buildkitd, RUNG_VARIABLE, SNAPSHOTTER_VARIABLE, ServeArgs, archive_limits, rung,
    snapshotter,
};
use crate::engine::{EngineOptions, ServeRequest};
use crate::env::Env;
use crate::serve_config::{DiskSpace, GcPolicy, ServeConfig, Worker};
use crate::serve_log::{Level, ServeLog};

/// Where buildkitd looks for what provenance says of the machine.
const PROVENANCE_DIR: &str = "/etc/buildkit/provenance.d";
/// Directory below BuildKit's that is ours: its clients and tests keep other things there too.
const OWN: &str = "rbuild";
/// What is told to whoever asks for steps among the processes of the host.
const NO_PROCESS_SANDBOX: &str = "--oci-worker-no-process-sandbox has no effect: steps always have a process namespace of \
                                  their own; in a container rbuild needs /proc unmasked for them";
/// The unit of `--oci-worker-gc-keepstorage`.
const MEGABYTE: u64 = 1_000_000;

/// The program as it was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Rbuild,
    Buildkitd,
}

/// Serves until it is told to stop.
pub(super) fn run(
    args: &ServeArgs,
    debug: bool,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    serve(args, debug, options, Name::Rbuild, env, open)
}

/// The same under the name of BuildKit's daemon, with the store at that daemon's place.
pub(super) fn run_buildkitd(args: &Buildkitd, env: &mut Env, open: Open<'_>) -> Result<(), CommandError> {
    let limits = env
        .filled(ARCHIVE_LIMITS_VARIABLE)
        .map(|text| archive_limits(&text));
    if let Some(allowance) = limits.transpose().map_err(|error| CommandError::failed(&error))? {
        allowance.hold();
    }
    let options = EngineOptions {
        root: args.root.as_ref().map(|root| root.join(OWN)),
        rung: env
            .filled(RUNG_VARIABLE)
            .map(|text| rung(&text))
            .transpose()
            .map_err(|error| CommandError::failed(&error))?
            .unwrap_or_default(),
        snapshotter: env
            .filled(SNAPSHOTTER_VARIABLE)
            .map(|text| snapshotter(&text))
            .transpose()
            .map_err(|error| CommandError::failed(&error))?
            .unwrap_or_default()
            .0,
        ..EngineOptions::default()
    };
    let debug = args.debug.unwrap_or_default();
    serve(&args.serve, debug, options, Name::Buildkitd, env, open)
}

fn serve(
    args: &ServeArgs,
    debug: bool,
    mut options: EngineOptions,
    name: Name,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    if let Some(chosen) = args.only.oci_worker_snapshotter {
        options.snapshotter = chosen.0;
    }
    let is_root = rustix::process::geteuid().is_root();
    let path = args.config.clone().or_else(|| config_path(env, is_root));
    let (config, idle) = match &path {
        Some(path) => ServeConfig::read(path)
            .map_err(|error| CommandError::failed(&rbuild_builder::error::chain_text(&error)))?,
        None => (ServeConfig::default(), Vec::new()),
    };
    refuse(args)?;
    let log = log(args, debug, &config)?;
    for key in idle {
        let message = format!(
            "{}: {key} has no effect in rbuild",
            path.clone().unwrap_or_default().display()
        );
        log.write(&mut env.stderr, Level::Warning, &message);
    }
    if args.idle.oci_worker_no_process_sandbox == Some(true) {
        log.write(&mut env.stderr, Level::Warning, NO_PROCESS_SANDBOX);
    }
    options.root = options.root.or_else(|| root(&config, name, env, is_root));
    let request = ServeRequest {
        addresses: addresses(args, &config, env, is_root, options.root.as_deref()),
        uid: config.grpc.uid,
        gid: gid(args, &config)?,
        tls: tls(args, &config)?,
        idle: idle_timeout(args)?,
        entitlements: entitlements(args, &config)?,
        labels: labels(args, &config)?,
        config: args.config.clone(),
        provenance_keys: provenance_keys(&config)?,
        gc: gc(args, &config.worker.oci)?,
        steps_max: args
            .oci_max_parallelism
            .or(Some(config.worker.oci.max_parallelism))
            .filter(|most| *most > 0),
        dns: rbuild_builder::job::Dns {
            servers: config.dns.nameservers.clone(),
            search: config.dns.search_domains.clone(),
            options: config.dns.options.clone(),
        },
        history: history(&config),
        front_ends: FrontEnds {
            no_dockerfile: config.frontend.dockerfile.enabled == Some(false),
            no_gateway: config.frontend.gateway.enabled == Some(false),
            repositories: config.frontend.gateway.allowed_repositories.clone(),
        },
        cdi: cdi(args, &config),
        proxy_network: args.only.proxy_network.unwrap_or(config.proxy_network),
        log,
    };
    let engine = open(options)?;
    if let Some(standing) = engine.standing() {
        log.write(&mut env.stderr, Level::Info, &standing);
    }
    for warning in engine.warnings() {
        log.write(&mut env.stderr, Level::Warning, &warning);
    }
    Ok(engine.serve(request)?)
}

/// What the administrator wants provenance to say of this machine.
fn provenance_keys(config: &ServeConfig) -> Result<serde_json::Map<String, serde_json::Value>, CommandError> {
    let chosen = config.provenance_env_dir.as_deref();
    let dir = chosen.unwrap_or_else(|| Path::new(PROVENANCE_DIR));
    crate::provenance_keys::read(dir)
        .map_err(|error| CommandError::failed(&rbuild_builder::error::chain_text(&error)))
}

/// Flags that ask for what there is not.
fn refuse(args: &ServeArgs) -> Result<(), CommandError> {
    let only = &args.only;
    let refusals = [
        (
            only.oci_worker == "false",
            "--oci-worker=false leaves no worker: rbuild runs steps itself",
        ),
        (
            only.containerd_worker == "true",
            "rbuild has no containerd worker",
        ),
        (
            !only.oci_worker_apparmor_profile.is_empty(),
            "--oci-worker-apparmor-profile: rbuild does not apply AppArmor profiles",
        ),
        (
            only.oci_worker_selinux == Some(true),
            "--oci-worker-selinux: rbuild does not apply SELinux labels",
        ),
    ];
    match refusals.iter().find(|(is_asked, _)| *is_asked) {
        Some((_, message)) => Err(CommandError::failed(message)),
        None => Ok(()),
    }
}

/// Where buildkitd looks for its configuration.
fn config_path(env: &Env, is_root: bool) -> Option<PathBuf> {
    if is_root {
        return Some("/etc/buildkit/buildkitd.toml".into());
    }
    let own = env.filled("XDG_CONFIG_HOME").map(PathBuf::from);
    let own = own.or_else(|| Some(PathBuf::from(env.filled("HOME")?).join(".config")));
    own.map(|dir| dir.join("buildkit/buildkitd.toml"))
}

/// The store's place: BuildKit's directory for a program of BuildKit's name, since containers keep that one.
fn root(config: &ServeConfig, name: Name, env: &Env, is_root: bool) -> Option<PathBuf> {
    if name == Name::Rbuild {
        return config.root.clone();
    }
    if env.filled("RBUILD_ROOT").is_some() {
        return None;
    }
    let of_user = || {
        let data = env.filled("XDG_DATA_HOME").map(PathBuf::from);
        let data = data.or_else(|| Some(PathBuf::from(env.filled("HOME")?).join(".local/share")));
        data.map(|dir| dir.join("buildkit"))
    };
    let usual = || {
        if is_root {
            Some("/var/lib/buildkit".into())
        } else {
            of_user()
        }
    };
    config.root.clone().or_else(usual).map(|root| root.join(OWN))
}

fn addresses(
    args: &ServeArgs,
    config: &ServeConfig,
    env: &Env,
    is_root: bool,
    root: Option<&Path>,
) -> Vec<String> {
    if !args.addr.is_empty() {
        return args.addr.clone();
    }
    if !config.grpc.address.is_empty() {
        return config.grpc.address.clone();
    }
    let dir = match env.filled("XDG_RUNTIME_DIR").filter(|_| !is_root) {
        Some(dir) => PathBuf::from(dir),
        None if is_root => PathBuf::from("/run"),
        None => root.map_or_else(|| env.temp_dir(), Path::to_owned),
    };
    vec![format!(
        "unix://{}",
        dir.join("buildkit/buildkitd.sock").display()
    )]
}

fn gid(args: &ServeArgs, config: &ServeConfig) -> Result<Option<u32>, CommandError> {
    let Some(group) = &args.group else {
        return Ok(config.grpc.gid);
    };
    if let Ok(gid) = group.parse() {
        return Ok(Some(gid));
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok())?
    });
    found
        .map(Some)
        .ok_or_else(|| CommandError::failed(&format!("there is no group {group:?}")))
}

/// All three files or none: half a TLS would be none.
fn tls(args: &ServeArgs, config: &ServeConfig) -> Result<Option<ServerFiles>, CommandError> {
    let file = |flag: &Option<PathBuf>, key: &Path| {
        let given = flag.clone().unwrap_or_else(|| key.to_owned());
        Some(given).filter(|path| !path.as_os_str().is_empty())
    };
    let of_file = &config.grpc.tls;
    let files = (
        file(&args.tlscacert, &of_file.ca),
        file(&args.tlscert, &of_file.cert),
        file(&args.tlskey, &of_file.key),
    );
    match files {
        (None, None, None) => Ok(None),
        (Some(ca), Some(cert), Some(key)) => Ok(Some(ServerFiles {
            ca,
            own: Pair { cert, key },
        })),
        _ => Err(CommandError::failed(
            &"TLS needs --tlscacert, --tlscert and --tlskey together: clients without a certificate are never served",
        )),
    }
}

fn idle_timeout(args: &ServeArgs) -> Result<Option<std::time::Duration>, CommandError> {
    let Some(text) = &args.idle_timeout else {
        return Ok(None);
    };
    let parsed = parse_duration(text);
    parsed
        .map(Some)
        .ok_or_else(|| CommandError::failed(&format!("--idle-timeout {text:?} is not a duration such as 5m")))
}

fn entitlements(args: &ServeArgs, config: &ServeConfig) -> Result<Vec<Entitlement>, CommandError> {
    let flags = &args.allow_insecure_entitlement;
    let names = if flags.is_empty() {
        &config.insecure_entitlements
    } else {
        flags
    };
    // Devices are allowed where there are any, as by BuildKit.
    let names = names.iter().filter(|name| *name != "device");
    names
        .map(|name| match name.as_str() {
            "network.host" => Ok(Entitlement::NetworkHost),
            "security.insecure" => Ok(Entitlement::SecurityInsecure),
            other => Err(CommandError::failed(&format!(
                "{other:?} is no entitlement: network.host and security.insecure are"
            ))),
        })
        .collect()
}

/// Where devices are described, unless they are switched off.
fn cdi(args: &ServeArgs, config: &ServeConfig) -> Option<CdiConfig> {
    let config = &config.cdi;
    if args.cdi_disabled.unwrap_or(config.disabled) {
        return None;
    }
    let mut cdi = CdiConfig {
        auto_allowed: config.auto_allowed.clone(),
        ..CdiConfig::default()
    };
    for dirs in [&config.spec_dirs, &args.cdi_spec_dir] {
        if !dirs.is_empty() {
            cdi.dirs.clone_from(dirs);
        }
    }
    Some(cdi)
}

fn labels(args: &ServeArgs, config: &ServeConfig) -> Result<HashMap<String, String>, CommandError> {
    let mut labels = config.worker.oci.labels.clone();
    for list in &args.oci_worker_labels {
        for pair in list.split(',') {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| CommandError::failed(&format!("label {pair:?} is not KEY=VALUE")))?;
            labels.insert(key.to_owned(), value.to_owned());
        }
    }
    Ok(labels)
}

fn gc(args: &ServeArgs, worker: &Worker) -> Result<Rules, CommandError> {
    if !args.only.oci_worker_gc.or(worker.gc).unwrap_or(true) {
        return Ok(Rules::Off);
    }
    let of_flag = args.oci_worker_gc_keepstorage.as_deref();
    if let Some(limits) = of_flag
        .filter(|text| !text.is_empty())
        .map(keep_storage)
        .transpose()?
    {
        return Ok(Rules::Standard(Some(limits)));
    }
    if !worker.gcpolicy.is_empty() {
        return Ok(Rules::Listed(worker.gcpolicy.iter().map(rule).collect()));
    }
    let limits = Limits {
        reserved: worker.reserved_space.0,
        max_used: worker.max_used_space.0,
        min_free: worker.min_free_space.0,
    };
    if limits != Limits::default() {
        return Ok(Rules::Standard(Some(limits)));
    }
    let DiskSpace(kept) = worker.gckeepstorage;
    let old = (kept != Space::default()).then_some(Limits {
        reserved: kept,
        ..Limits::default()
    });
    Ok(Rules::Standard(old))
}

/// What a table says; BuildKit's own limits where there is none.
fn history(config: &ServeConfig) -> history::Limits {
    let usual = history::Limits::default();
    config.history.as_ref().map_or(usual, |table| history::Limits {
        entries: table.max_entries.min(usual.entries_max),
        age: table.max_age.0,
        ..usual
    })
}

fn keep_storage(text: &str) -> Result<Limits, CommandError> {
    let parts: Option<Vec<u64>> = text.splitn(3, ',').map(|part| part.parse().ok()).collect();
    let parts = parts.ok_or_else(|| {
        CommandError::failed(&format!(
            "--oci-worker-gc-keepstorage {text:?} is not RESERVED[,FREE[,MAXIMUM]] in MB"
        ))
    })?;
    let space = |index: usize| {
        let megabytes = parts.get(index).copied().unwrap_or(0);
        Space::Bytes(megabytes.saturating_mul(MEGABYTE))
    };
    Ok(Limits {
        reserved: space(0),
        min_free: space(1),
        max_used: space(2),
    })
}

fn rule(policy: &GcPolicy) -> Rule {
    let reserved = match policy.reserved_space.0 {
        none if none == Space::default() => policy.keep_bytes.0,
        given => given,
    };
    Rule {
        all: policy.all,
        filters: policy.filters.clone(),
        keep_duration: policy.keep_duration.0,
        limits: Limits {
            reserved,
            max_used: policy.max_used_space.0,
            min_free: policy.min_free_space.0,
        },
    }
}

fn log(args: &ServeArgs, debug: bool, config: &ServeConfig) -> Result<ServeLog, CommandError> {
    let of_file = match config.log.level.as_str() {
        _ if debug => "debug",
        "" if config.debug || config.trace => "debug",
        level => level,
    };
    let level = args.log_level.as_deref().unwrap_or(of_file);
    let format = args.log_format.as_deref().unwrap_or(&config.log.format);
    ServeLog::new(format, level).map_err(|error| CommandError::failed(&error))
}
