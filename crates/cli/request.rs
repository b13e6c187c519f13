//! From flags to a [`BuildRequest`]: every flag is judged here, together with the environment, before anything is
//! built. The conflicts refused are buildx's (`commands/build.go`, `build/opt.go`).

mod attests;
mod caches;
mod call;
mod contexts;
mod error;
mod hint;
mod inputs;
mod load;
pub(crate) mod nearest;
mod outputs;
pub(crate) mod policies;
pub(crate) mod rego;
mod unserved;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rbuild_builder::cdi::DeviceGrants;
use rbuild_builder::engine_load::EngineTarget;
use rbuild_builder::request::{
    Attestations, BuildRequest, Entitlement, NoCache, OnError, SecretSource, SecretSpec, SshKeys, SshSpec,
    StepRules, linux_resources,
};
use rbuild_builder::ssh::Keyring;
use rbuild_graph::{HostIp, LinuxResources, NetMode, Ulimit};
use rbuild_ui::progress::Mode;
use rbuild_ui::units;
use rbuild_ui::values::{csv, host, key_value, resource, scalar, secret, ssh::SshFlag, ulimit};

use crate::args::LowBuild;
use crate::docker_config;
use crate::env::Env;
pub(crate) use crate::request::call::Call;
pub(crate) use crate::request::error::UsageError;
pub(crate) use crate::request::hint::hints;
use crate::stdin::Spooled;

/// A build and how it is shown.
#[derive(Debug)]
pub(crate) struct HighBuild {
    /// What is built.
    pub(crate) request: BuildRequest,
    /// What is asked about it instead.
    pub(crate) call: Option<Call>,
    /// How it is shown.
    pub(crate) mode: Mode,
    /// The image id is printed at the end.
    pub(crate) print_id: bool,
    /// What is built instead of the Dockerfile.
    pub(crate) definition: Option<Vec<u8>>,
    /// A table of steps is shown at the end.
    pub(crate) steps: bool,
    /// The engine that is given the image.
    pub(crate) load_into: Option<EngineTarget>,
    /// Where the image id goes.
    pub(crate) iidfile: Option<PathBuf>,
    /// Where the metadata goes.
    pub(crate) metadata_file: Option<PathBuf>,
    /// Hosts for which plain HTTP, or nobody who vouches, is enough: registries of caches.
    pub(crate) insecure: Vec<String>,
    /// What the user should know before the build starts.
    pub(crate) warnings: Vec<String>,
    /// Keeps the archive the request points to.
    pub(crate) _context: Option<Spooled>,
}

/// Judges the flags.
///
/// # Errors
/// [`UsageError`]: the first thing that is wrong.
pub(crate) fn to_request(mut low: LowBuild, env: &mut Env) -> Result<HighBuild, UsageError> {
    // A path that is empty is none, as in docker.
    for path in [&mut low.iidfile, &mut low.metadata_file] {
        *path = path.take().filter(|path| !path.as_os_str().is_empty());
    }
    let mut warnings = unserved::warnings(&low);
    let call = call::of(&low)?;
    let (mode, print_id) = progress(&low, env)?;
    let rules = rules(&low, env, mode)?;
    // A live view would write over a shell.
    let mode = if rules.on_error == OnError::Shell && mode == Mode::Auto {
        Mode::Plain
    } else {
        mode
    };
    let build_args = build_args(&low, env, &mut warnings)?;
    let platforms = platforms(&low, env)?;
    let (entitlements, devices, network) = permissions(&low)?;
    let attestations = attests::of(&low, &build_args)?;
    let is_index = platforms.len() > 1 || attestations != Attestations::default();
    let outputs = outputs::of(&low, is_index, env.stdout_is_terminal, &mut warnings)?;
    let secrets = secrets(&low, env)?;
    let mut insecure = Vec::new();
    let mut noted = caches::Noted {
        insecure: &mut insecure,
        warnings: &mut warnings,
    };
    let cache_to = caches::exports(&low, &build_args, env, &mut noted)?;
    let cache_from = caches::sources(&low, env, &mut noted)?;
    let labels = key_value::labels(&low.label)?;
    let build_contexts = contexts::of(&low)?;
    let shm_size_bytes = low
        .shm_size
        .as_deref()
        .map(units::parse_size)
        .transpose()
        .map_err(UsageError::ShmSize)?;
    // Standard input is read last: everything else is known to be right.
    let inputs = inputs::of(&low, env)?;
    rego::check(&low.unserved.policy, &inputs.dockerfile)?;
    let request = BuildRequest {
        context: inputs.context,
        dockerfile: inputs.dockerfile,
        target: low.target.clone().filter(|target| !target.is_empty()),
        build_args,
        labels,
        build_contexts,
        tags: low.tag.clone(),
        outputs,
        platforms,
        no_cache: no_cache(&low),
        pull: low.pull.unwrap_or_default(),
        network,
        secrets,
        ssh: ssh(&low, env)?,
        extra_hosts: extra_hosts(&low)?,
        shm_size_bytes: shm_size_bytes.filter(|&bytes| bytes > 0),
        ulimits: low
            .ulimit
            .iter()
            .map(|text| ulimit::parse(text))
            .collect::<Result<Vec<Ulimit>, _>>()?,
        cgroup_parent: low.cgroup_parent.clone().filter(|path| !path.is_empty()),
        linux_resources: resources(&low)?,
        rules,
        entitlements,
        devices,
        host_ca: low.host_ca.unwrap_or_default(),
        own_checks: low.advice.unwrap_or_default(),
        jobs: low.jobs,
        cache_to,
        cache_from,
        attestations,
        policies: Arc::new(policies::of(low.source_policy.as_deref(), env)?),
        locals: low.locals,
    };
    Ok(HighBuild {
        request,
        print_id: print_id && call.is_none(),
        call,
        mode,
        definition: low.definition,
        steps: low.steps.unwrap_or_default(),
        load_into: load::target(low.load.as_ref(), env)?,
        iidfile: low.iidfile,
        metadata_file: low.metadata_file,
        insecure,
        warnings,
        _context: inputs.archive,
    })
}

/// `--progress`, `--quiet` and `BUILDKIT_PROGRESS`: the mode, and whether the image id is printed.
fn progress(low: &LowBuild, env: &Env) -> Result<(Mode, bool), UsageError> {
    let asked = Mode::parse(&low.progress).ok_or_else(|| UsageError::Progress(low.progress.clone()))?;
    let quiet = low.quiet.unwrap_or_default() || asked == Mode::Quiet;
    if quiet {
        return match asked {
            Mode::Auto | Mode::Quiet => Ok((Mode::Quiet, true)),
            _ => Err(UsageError::QuietProgress(low.progress.clone())),
        };
    }
    shown_mode(asked, env).map(|mode| (mode, false))
}

/// The mode that `asked` and the environment come to.
pub(crate) fn shown_mode(asked: Mode, env: &Env) -> Result<Mode, UsageError> {
    let mode = match (asked, env.filled("BUILDKIT_PROGRESS")) {
        (Mode::Auto, Some(text)) => Mode::parse(&text).ok_or(UsageError::Progress(text))?,
        (mode, _) => mode,
    };
    if mode == Mode::Tty && !env.stderr_is_terminal {
        return Err(UsageError::NoConsole);
    }
    Ok(mode)
}

fn build_args(
    low: &LowBuild,
    env: &Env,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<String, String>, UsageError> {
    let mut args = key_value::build_args(&low.build_arg, |name| env.var(name))?;
    if let Some(epoch) = env.filled("SOURCE_DATE_EPOCH") {
        args.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert(epoch);
    }
    match docker_config::proxies(env) {
        Ok(proxies) => {
            let given: Vec<String> = args.keys().cloned().collect();
            let is_given = |name: &str| given.iter().any(|known| known.eq_ignore_ascii_case(name));
            args.extend(proxies.into_iter().filter(|(name, _)| !is_given(name)));
        }
        Err(error) => warnings.push(format!("proxies are not set: {error}")),
    }
    if args
        .get("BUILDKIT_SYNTAX")
        .is_some_and(|syntax| syntax.trim().is_empty())
    {
        return Err(UsageError::EmptySyntax);
    }
    Ok(args)
}

fn platforms(low: &LowBuild, env: &Env) -> Result<Vec<String>, UsageError> {
    let fallback: Vec<String> = env.filled("DOCKER_DEFAULT_PLATFORM").into_iter().collect();
    let values = if low.platform.is_empty() {
        &fallback
    } else {
        &low.platform
    };
    Ok(scalar::parse_platforms(values, &env.own_platform)?)
}

/// `--allow` and `--network`; the host's network needs no further permission.
fn permissions(low: &LowBuild) -> Result<(Vec<Entitlement>, DeviceGrants, Option<NetMode>), UsageError> {
    let mut granted = Vec::new();
    let mut devices = DeviceGrants::default();
    for name in low.allow.iter().filter(|name| !name.is_empty()) {
        match name.as_str() {
            "network.host" => granted.push(Entitlement::NetworkHost),
            "security.insecure" => granted.push(Entitlement::SecurityInsecure),
            // Outputs ask for it.
            outputs::LOCAL_DELETE => {}
            name if name.split('=').next() == Some(outputs::LOCAL_DELETE) => {
                return Err(UsageError::DeleteValue);
            }
            name if name == "device" || name.starts_with("device=") => {
                let rest = name.strip_prefix("device=").unwrap_or_default();
                devices.add(rest).map_err(UsageError::Device)?;
            }
            name => return Err(UsageError::Entitlement(name.to_owned())),
        }
    }
    let network = match low.network.as_str() {
        "" | "default" => None,
        "none" => Some(NetMode::None),
        // What steps get that ask for nothing else, see `rules`.
        "sandbox" | "proxy" => None,
        "host" => {
            granted.push(Entitlement::NetworkHost);
            Some(NetMode::Host)
        }
        other => return Err(UsageError::Network(other.to_owned())),
    };
    granted.dedup();
    Ok((granted, devices, network))
}

/// `--secret`.
pub(crate) fn secrets(low: &LowBuild, env: &Env) -> Result<Vec<SecretSpec>, UsageError> {
    let mut specs: Vec<SecretSpec> = Vec::new();
    for text in low.secret.iter().filter(|text| !text.is_empty()) {
        let flag = secret::SecretFlag::parse(text)?;
        let source = match flag.place(|name| env.var(name).is_some()) {
            secret::SecretPlace::Env(name) => SecretSource::Env(name),
            secret::SecretPlace::File(path) => {
                let path = PathBuf::from(path);
                if let Err(error) = std::fs::metadata(&path) {
                    return Err(UsageError::SecretFile { path, error });
                }
                SecretSource::File(path)
            }
        };
        specs.retain(|known| known.id != flag.id);
        specs.push(SecretSpec { id: flag.id, source });
    }
    Ok(specs)
}

/// `--ssh`: the socket of an agent, or files of private keys.
pub(crate) fn ssh(low: &LowBuild, env: &Env) -> Result<Vec<SshSpec>, UsageError> {
    let mut specs: Vec<SshSpec> = Vec::new();
    for text in low.ssh.iter().filter(|text| !text.is_empty()) {
        let flag = SshFlag::parse(text);
        if specs.iter().any(|known| known.id == flag.id) {
            return Err(UsageError::SshTwice(flag.id));
        }
        let paths = match flag.paths.as_slice() {
            [] => vec![env.filled("SSH_AUTH_SOCK").ok_or(UsageError::SshNoAgent)?.into()],
            paths => paths.iter().map(PathBuf::from).collect(),
        };
        specs.push(SshSpec {
            id: flag.id,
            keys: ssh_keys(paths)?,
        });
    }
    Ok(specs)
}

/// The one socket, or the keys, that `paths` are (`session/sshforward/sshprovider`).
fn ssh_keys(paths: Vec<PathBuf>) -> Result<SshKeys, UsageError> {
    use std::os::unix::fs::FileTypeExt as _;
    let (mut socket, mut files) = (None, Vec::new());
    for path in paths {
        if socket.is_some() {
            return Err(UsageError::SshSockets);
        }
        match std::fs::metadata(&path) {
            Ok(found) if found.file_type().is_socket() => socket = Some(path),
            Ok(_) => files.push(path),
            Err(error) => return Err(UsageError::SshFile { path, error }),
        }
    }
    match socket {
        Some(_) if !files.is_empty() => Err(UsageError::SshMixed),
        Some(socket) => Ok(SshKeys::Agent(socket)),
        None => Ok(SshKeys::Held(Keyring::load(&files)?)),
    }
}

fn extra_hosts(low: &LowBuild) -> Result<Vec<HostIp>, UsageError> {
    let mut hosts = Vec::new();
    for text in low.add_host.iter().filter(|text| !text.is_empty()) {
        let list = csv::fields(text).map_err(|error| UsageError::HostList {
            text: text.clone(),
            error,
        })?;
        for entry in list {
            // Names of hosts have no case, and BuildKit writes them in one (`frontend/dockerui/attr.go`).
            hosts.extend(host::parse(&entry.to_lowercase())?);
        }
    }
    Ok(hosts)
}

fn resources(low: &LowBuild) -> Result<Option<LinuxResources>, UsageError> {
    let entries = low.step_rules.resources();
    let attrs = resource::parse(entries.iter().map(String::as_str))?;
    Ok(linux_resources(&attrs)?)
}

fn rules(low: &LowBuild, env: &Env, mode: Mode) -> Result<StepRules, UsageError> {
    Ok(StepRules {
        on_error: on_error(low, env, mode)?,
        timeout: low.step_rules.run_timeout.filter(|time| !time.is_zero()),
        retries: low.step_rules.run_retries.unwrap_or_default(),
        strict_limits: low.step_rules.strict_limits.unwrap_or_default(),
        private_network: low.network == "sandbox",
        proxy_network: low.network == "proxy",
    })
}

fn on_error(low: &LowBuild, env: &Env, mode: Mode) -> Result<OnError, UsageError> {
    match low.step_rules.on_error.as_deref() {
        None | Some("") => Ok(OnError::Fail),
        Some("keep") => {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let seconds = since.map_or(0, |since| since.as_secs());
            let name = format!("rbuild-failed-{seconds}-{}", std::process::id());
            Ok(OnError::Keep(env.temp_dir().join(name)))
        }
        Some("shell") if !env.stdin_is_terminal || !env.stderr_is_terminal => {
            Err(UsageError::ShellWithoutTerminal)
        }
        // A live view would write over it.
        Some("shell") if mode == Mode::Tty => Err(UsageError::ShellWithLiveView),
        Some("shell") => Ok(OnError::Shell),
        Some(text) => match text.strip_prefix("keep=").filter(|dir| !dir.is_empty()) {
            Some(dir) => Ok(OnError::Keep(dir.into())),
            None => Err(UsageError::OnError(text.to_owned())),
        },
    }
}

fn no_cache(low: &LowBuild) -> NoCache {
    let stages: Vec<String> = low
        .no_cache_filter
        .iter()
        .flat_map(|list| list.split(','))
        .filter(|stage| !stage.is_empty())
        .map(str::to_owned)
        .collect();
    match (low.no_cache.unwrap_or_default(), stages.is_empty()) {
        (true, _) => NoCache::All,
        (false, false) => NoCache::Stages(stages),
        (false, true) => NoCache::Off,
    }
}

#[cfg(test)]
mod tests;
