//! Steps: a process in a sandbox, on a workspace over the layers of its root, with its mounts.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rbuild_graph::progress::Stream;
use rbuild_graph::{ExecMeta, ExecOp, Mount, NetMode, SecurityMode};
use rbuild_sandbox::{
    MountPlan, Network, OverlayPlan, Plan, Process, Rlimit, RlimitResource, RootPlan, Security, Source,
};
use rbuild_snapshotter::Tree;
use rbuild_sys::{RootFd, clean};
use tokio_util::sync::CancellationToken;

use super::host_ca::HostCa;
use super::{OpError, blocking, network_files};
use crate::failed::Left;
use crate::failed_step::FailedStep;
use crate::job::{Job, Place};
use crate::request::Entitlement;
use crate::solve::Reporter;
use crate::value::{Chain, Value};

pub(crate) mod attempt;
pub(crate) mod devices;
pub(crate) mod foreign;
pub mod limits;
pub(crate) mod mounts;
pub(crate) mod output;
pub(crate) mod root;
pub mod user;

use attempt::Attempt;
pub use attempt::Step;
use mounts::MountOutput;

/// `PATH` of a step whose image sets none (BuildKit `util/system/path.go`).
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a step and gives its outputs: what became of the mounts that have one. A step that fails is run again as often as
/// the build says, each time on what it began with. What its mounts were when it failed for good is put into `left`, of
/// builds that keep that.
///
/// # Errors
/// [`OpError::Process`] when the process fails, [`OpError::TimeIsUp`] when it takes too long; those of its mounts and inputs.
pub async fn run(
    job: &Job,
    step: Step<'_>,
    inputs: &[Value],
    reporter: &Reporter,
    cancel: &CancellationToken,
    left: &mut Left,
) -> Result<Vec<Chain>, OpError> {
    let exec = step.exec;
    check_entitlements(job, exec)?;
    job.engine.sandbox.check().map_err(|source| OpError::Spawn {
        command: exec.meta.args.join(" "),
        source,
    })?;
    left.inputs = inputs_of_mounts(exec, inputs);
    left.outputs.clone_from(&left.inputs);
    let mut mounts = exec.mounts.iter().enumerate();
    let (root_at, root) = mounts
        .find(|(_, mount)| mount.dest == "/")
        .ok_or(OpError::NoSuchInput(None))?;
    let retries = job.settings.rules.retries;
    let mut retried = 0;
    let mut emulated = false;
    loop {
        let (mut attempt, view) = Attempt::prepare(job, step, root, inputs, cancel).await?;
        let slot = job.steps.acquire().await;
        let Err(error) = attempt.run(job, step, view, reporter, cancel).await else {
            let outputs = attempt.outputs(exec, root_at).await?;
            let count = exec.outputs();
            return blocking(move || commit(outputs, count)).await;
        };
        drop(slot);
        if !emulated && foreign::emulated(job, &error, reporter).await {
            emulated = true;
            continue;
        }
        if retried == retries || !error.is_of_the_process() {
            if job.settings.keep_failed {
                if let Ok(outputs) = attempt.outputs(exec, root_at).await {
                    for (mount, chain) in blocking(move || commit_left(outputs)).await {
                        left.outputs[mount] = Some(Value::Chain(chain));
                    }
                }
            } else if error.is_of_the_process() {
                job.keep_failed(FailedStep {
                    exec: exec.clone(),
                    attempt,
                });
            }
            return Err(error);
        }
        retried += 1;
        let text = format!("{error}\nretry {retried} of {retries}, on what the step began with\n");
        reporter.log(Stream::Stderr, text.into_bytes());
    }
}

/// Makes layers of the changes, in the order of the outputs.
fn commit(outputs: Vec<MountOutput>, count: usize) -> Result<Vec<Chain>, OpError> {
    let mut chains = vec![Chain::default(); count];
    for output in outputs {
        let Some(index) = output.index else { continue };
        let place = chains.get_mut(index as usize);
        *place.ok_or(OpError::NoSuchOutput(index))? = match output.workspace {
            Some(workspace) => output.base.with(workspace.commit()?.id),
            None => output.base,
        };
    }
    Ok(chains)
}

/// The inputs of the mounts of `exec`, in the order of the mounts.
fn inputs_of_mounts(exec: &ExecOp, inputs: &[Value]) -> Vec<Option<Value>> {
    let input = |mount: &Mount| inputs.get(mount.input? as usize).cloned();
    exec.mounts.iter().map(input).collect()
}

/// Makes layers of what a failed step wrote, by the numbers of its mounts. What cannot be kept is as it was before.
fn commit_left(outputs: Vec<MountOutput>) -> Vec<(usize, Chain)> {
    let kept = outputs.into_iter().filter_map(|output| {
        let layer = output.workspace?.commit().ok()?;
        Some((output.mount, output.base.with(layer.id)))
    });
    kept.collect()
}

/// Refuses what the build was not allowed. Every sandbox is made by [`plan`], which asks this first.
pub(crate) fn check_entitlements(job: &Job, exec: &ExecOp) -> Result<(), OpError> {
    if exec.network == NetMode::Host && !job.may(Entitlement::NetworkHost) {
        return Err(OpError::Entitlement("network.host", Entitlement::NetworkHost));
    }
    if exec.security == SecurityMode::Insecure && !job.may(Entitlement::SecurityInsecure) {
        return Err(OpError::Entitlement(
            "security.insecure",
            Entitlement::SecurityInsecure,
        ));
    }
    Ok(())
}

/// What a process of `meta` starts with. `view` shows the image's users.
pub(crate) fn process(
    meta: &ExecMeta,
    view: &RootFd,
    secrets: &[OsString],
    host_ca: bool,
) -> Result<Process, OpError> {
    let user = user::lookup(view, &meta.user).map_err(|source| OpError::User {
        command: meta.args.join(" "),
        user: meta.user.clone(),
        source,
    })?;
    let mut process = Process::new(meta.args.iter().map(OsString::from).collect());
    process.env = environment(meta, &user.home, host_ca);
    process.env.extend_from_slice(secrets);
    if !meta.cwd.is_empty() {
        process.cwd = PathBuf::from(&meta.cwd);
    }
    process.ids = user.ids;
    process.rlimits = meta.ulimit.iter().filter_map(rlimit).collect();
    Ok(process)
}

/// A stack of layers as the sandbox takes it.
pub(crate) fn source_of(tree: Tree) -> Source {
    match tree {
        Tree::Directory(dir) => Source::Path(dir),
        Tree::Overlay(spec) => {
            let (upper, work) = spec.upper_work.unzip();
            Source::Overlay(OverlayPlan {
                form: spec.form,
                lowers: spec.lowers,
                upper,
                work,
                volatile: spec.volatile,
            })
        }
    }
}

/// The sandbox of `exec` with its first process. `network` is where the descriptor of a network is that the step is
/// to be on.
///
/// # Errors
/// [`OpError::Entitlement`], and those of reading the host's network files.
pub(crate) fn plan(
    job: &Job,
    exec: &ExecOp,
    root: Source,
    process: Process,
    mounts: Vec<MountPlan>,
    network: Option<Place>,
) -> Result<Plan, OpError> {
    check_entitlements(job, exec)?;
    let meta = &exec.meta;
    let readonly = exec
        .mounts
        .iter()
        .any(|mount| mount.dest == "/" && mount.readonly);
    let root = RootPlan {
        source: root,
        readonly,
    };
    let mut plan = Plan::new(root, Vec::new());
    plan.process = process;
    plan.confinement = job.engine.confinement;
    plan.mounts = mounts;
    if !meta.hostname.is_empty() {
        plan.hostname.clone_from(&meta.hostname);
    }
    plan.network = match (exec.network, network) {
        (NetMode::None, _) => Network::None,
        (NetMode::Host | NetMode::Unset, None) => Network::Host,
        (NetMode::Unset | NetMode::Host, Some(place)) => Network::Given(place.index),
    };
    plan.security = match exec.security {
        SecurityMode::Sandbox => Security::Sandbox,
        SecurityMode::Insecure => Security::Insecure,
    };
    let dns = &job.settings.dns;
    let resolv_conf = match plan.network {
        Network::Host => network_files::resolv_conf(true, dns),
        Network::None => network_files::resolv_conf(false, dns),
        Network::Given(_) if network.is_some_and(|place| place.is_proxied) => {
            network_files::resolv_conf(false, dns)
        }
        Network::Given(_) => network_files::private_resolv_conf(dns),
    };
    let resolv_conf = resolv_conf.map_err(|source| OpError::Host {
        path: network_files::RESOLV_CONF.into(),
        source,
    })?;
    plan.resolv_conf = Some(resolv_conf);
    plan.hosts = Some(network_files::hosts(&meta.hostname, &meta.extra_hosts));
    plan.shm_size_bytes = job.settings.shm_size_bytes;
    plan.cgroup_parent = Some(&meta.cgroup_parent)
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    Ok(plan)
}

fn rlimit(limit: &rbuild_graph::Ulimit) -> Option<Rlimit> {
    Some(Rlimit {
        resource: RlimitResource::from_name(&limit.name)?,
        // Negative is "unlimited" in Docker's notation.
        soft: u64::try_from(limit.soft).ok(),
        hard: u64::try_from(limit.hard).ok(),
        required: true,
    })
}

/// The whole environment but secrets: the image's and the Dockerfile's, proxies, and what every process needs.
fn environment(meta: &ExecMeta, home: &Path, host_ca: bool) -> Vec<OsString> {
    let mut env: Vec<OsString> = meta.env.iter().map(OsString::from).collect();
    if let Some(proxy) = &meta.proxy_env {
        let named = [
            ("HTTP_PROXY", &proxy.http_proxy),
            ("HTTPS_PROXY", &proxy.https_proxy),
            ("FTP_PROXY", &proxy.ftp_proxy),
            ("NO_PROXY", &proxy.no_proxy),
            ("ALL_PROXY", &proxy.all_proxy),
        ];
        for (name, value) in named.into_iter().filter(|(_, value)| !value.is_empty()) {
            env.push(format!("{name}={value}").into());
            env.push(format!("{}={value}", name.to_ascii_lowercase()).into());
        }
    }
    let has = |name: &str| {
        meta.env
            .iter()
            .any(|pair| pair.split_once('=').is_some_and(|(key, _)| key == name))
    };
    if !has("PATH") {
        env.push(DEFAULT_PATH.into());
    }
    if !has("HOME") {
        let mut variable = OsString::from("HOME=");
        variable.push(home);
        env.push(variable);
    }
    if host_ca {
        env.extend(HostCa::variables(&meta.env).into_iter().map(OsString::from));
    }
    env
}

/// Where something is mounted for the step, and a place for it may be made.
fn places_of(plan: &Plan) -> Vec<PathBuf> {
    let mounts = plan.mounts.iter().map(|mount| clean(&mount.dest));
    mounts
        .chain(["/etc/hosts".into(), network_files::RESOLV_CONF.into()])
        .collect()
}

/// The mounts of an exec that are not its root, with their numbers.
fn extra_mounts(exec: &ExecOp) -> impl Iterator<Item = (usize, &Mount)> {
    exec.mounts
        .iter()
        .enumerate()
        .filter(|(_, mount)| mount.dest != "/")
}
