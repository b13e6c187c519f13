//! The mounts of a step: inputs, cache directories, memory, secrets, ssh agents. Each is made ready before the step is started, and
//! given back when it has ended.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use rbuild_fileops::SourceTree;
use rbuild_graph::{CacheSharing, DEFAULT_SSH_ID, ExecOp, Mount, MountKind, SecurityMode};
use rbuild_layer::DevicePolicy;
use rbuild_sandbox::{Confinement, MountKind as MountAs, MountPlan, Source};
use rbuild_snapshotter::{Means, Workspace};
use rbuild_store::{CacheMountGuard, MountOwner, MountRequest, MountSharing, StoreError};
use rbuild_sys::{RootFd, clean};
use tokio_util::sync::CancellationToken;

use super::{extra_mounts, source_of};
use crate::job::Job;
use crate::ops::content::tree;
use crate::ops::{OpError, blocking, chain_of, local};
use crate::secrets::SecretValue;
use crate::ssh::{AgentSocket, SocketOwner, SshError};
use crate::value::{Chain, Value};

/// The prepared mounts of one step.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    /// Cache mounts begin anew.
    fresh: bool,
    /// The step cannot write to what it is to read only.
    guarded: bool,
    /// Where mounts with a relative place are.
    cwd: PathBuf,
    plans: Vec<MountPlan>,
    /// Held while the step runs, each id once: two mounts of one locked directory in a step share it, as in BuildKit.
    caches: HashMap<String, CacheMountGuard>,
    secrets: Vec<(String, SecretValue)>,
    /// Held while the step runs.
    agents: Vec<AgentSocket>,
    /// Mounts of inputs that are written to or are an output of the step.
    outputs: Vec<MountOutput>,
    /// Other steps may have one of its caches at the same time.
    meets_others: bool,
}

/// What becomes of a mount when the step has run.
#[derive(Debug)]
pub(crate) struct MountOutput {
    /// Which mount.
    pub(super) mount: usize,
    /// Which output it is; nothing for one whose changes nobody sees.
    pub(super) index: Option<u32>,
    /// What was mounted.
    pub(super) base: Chain,
    /// Where the changes are, unless it is read-only.
    pub(super) workspace: Option<Workspace>,
}

impl Mounts {
    pub(crate) fn take_outputs(&mut self) -> Vec<MountOutput> {
        std::mem::take(&mut self.outputs)
    }

    /// Makes them ready to be mounted once more: a work directory is good for one mount.
    pub(crate) fn renew(&mut self, job: &Job) -> Result<(), OpError> {
        for plan in &mut self.plans {
            if let MountAs::Bind {
                source: Source::Overlay(overlay),
                ..
            } = &mut plan.kind
                && overlay.work.is_some()
            {
                overlay.work = Some(job.lease.new_dir("work").map_err(StoreError::from)?);
            }
        }
        Ok(())
    }

    /// Whether other steps may have a directory of it while it runs.
    pub(crate) const fn meet_others(&self) -> bool {
        self.meets_others
    }

    pub(crate) fn plans(&self) -> Vec<MountPlan> {
        self.plans.clone()
    }

    /// `NAME=value` of secrets given as variables.
    pub(crate) fn secret_variables(&self) -> Vec<OsString> {
        let variable = |(name, value): &(String, SecretValue)| {
            let mut text = format!("{name}=").into_bytes();
            text.extend_from_slice(value.expose());
            OsString::from_vec(text)
        };
        self.secrets.iter().map(variable).collect()
    }
}

/// Makes every mount of `exec` ready.
pub(crate) async fn prepare(
    job: &Job,
    exec: &ExecOp,
    inputs: &[Value],
    fresh: bool,
    cancel: &CancellationToken,
) -> Result<Mounts, OpError> {
    let mut mounts = Mounts {
        fresh,
        guarded: exec.security == SecurityMode::Sandbox && job.engine.confinement == Confinement::Namespaces,
        cwd: PathBuf::from("/").join(&exec.meta.cwd),
        ..Mounts::default()
    };
    for mount in exec.mounts.iter().filter(|mount| mount.dest == "/") {
        let kind = match &mount.kind {
            MountKind::Bind => continue,
            MountKind::Cache { .. } => "CACHE",
            MountKind::Tmpfs { .. } => "TMPFS",
            MountKind::Secret { .. } => "SECRET",
            MountKind::Ssh { .. } => "SSH",
        };
        return Err(OpError::RootKind(kind));
    }
    for (at, mount) in extra_mounts(exec) {
        // Nothing is in memory that is new (`executor/oci/spec_linux.go`, `sub`).
        if matches!(mount.kind, MountKind::Tmpfs { .. })
            && clean(Path::new(&mount.selector)) != Path::new("/")
        {
            return Err(OpError::NothingInMemory {
                command: exec.meta.args.join(" "),
                path: mount.selector.clone(),
            });
        }
        let prepared = prepare_one(job, (at, mount), inputs, cancel, &mut mounts).await;
        prepared.map_err(|source| OpError::Mount {
            dest: mount.dest.clone(),
            source: Box::new(source),
        })?;
    }
    for secret in &exec.secret_env {
        // A variable whose secret is not there is set, to nothing (`solver/llbsolver/ops/exec.go`).
        let value = job.client.secret(&secret.id, secret.optional).await?;
        let value = value.unwrap_or_else(|| SecretValue::new(Vec::new()));
        mounts.secrets.push((secret.name.clone(), value));
    }
    Ok(mounts)
}

/// Makes the mount of this number ready.
async fn prepare_one(
    job: &Job,
    (at, mount): (usize, &Mount),
    inputs: &[Value],
    cancel: &CancellationToken,
    mounts: &mut Mounts,
) -> Result<(), OpError> {
    let kind = match &mount.kind {
        MountKind::Bind => bind(job, (at, mount), inputs, mounts).await?,
        MountKind::Cache { id, sharing } => cache(job, mount, id, *sharing, inputs, cancel, mounts).await?,
        MountKind::Tmpfs { size_bytes } => MountAs::Tmpfs {
            size_bytes: Some(*size_bytes).filter(|size| *size > 0),
            mode: None,
        },
        MountKind::Secret {
            id,
            uid,
            gid,
            mode,
            optional,
        } => match job.client.secret(id, *optional).await? {
            Some(value) => MountAs::File {
                content: value.expose().to_vec(),
                uid: *uid,
                gid: *gid,
                mode: *mode,
            },
            None => return Ok(()),
        },
        MountKind::Ssh {
            id,
            uid,
            gid,
            mode,
            optional,
        } => {
            let agents = job.client.agents();
            let written = id;
            let id = if id.is_empty() { DEFAULT_SSH_ID } else { id };
            if *optional && !agents.has(id).await {
                return Ok(());
            }
            let owner = SocketOwner {
                uid: *uid,
                gid: *gid,
                mode: *mode,
            };
            let dir = job.lease.new_dir("ssh").map_err(StoreError::from)?;
            let socket = AgentSocket::listen(&agents, id, &dir, owner).await;
            let socket = socket.map_err(|error| match error {
                SshError::NoneGiven(_) => SshError::NoneGiven(written.clone()),
                error => error,
            })?;
            let source = Source::Path(socket.path().to_owned());
            mounts.agents.push(socket);
            MountAs::Bind {
                source,
                selector: PathBuf::new(),
                readonly: false,
            }
        }
    };
    mounts.plans.push(MountPlan {
        dest: mounts.cwd.join(&mount.dest),
        kind,
    });
    Ok(())
}

/// A mount whose changes are kept, until the step has ended at least.
async fn bind_output(
    job: &Job,
    (at, mount): (usize, &Mount),
    inputs: &[Value],
    mounts: &mut Mounts,
) -> Result<Source, OpError> {
    let base = chain_of(job, mount.input, inputs).await?;
    let base = job.unpack_chain(&base).await?;
    let mut output = MountOutput {
        mount: at,
        index: mount.output,
        base: base.clone(),
        workspace: None,
    };
    let source = if mount.readonly {
        stack(job, lower_dirs(job, &base)?, true, mounts.guarded).await?
    } else {
        let (engine, lease) = (Arc::clone(&job.engine), Arc::clone(&job.lease));
        let (workspace, source) = blocking(move || {
            let mut workspace = engine.snapshotter.workspace(&lease, base.layers())?;
            let source = source_of(workspace.tree(None)?);
            Ok::<_, OpError>((workspace, source))
        })
        .await?;
        output.workspace = Some(workspace);
        source
    };
    mounts.outputs.push(output);
    Ok(source)
}

/// The directories of an unpacked chain, top first; never none, since an overlay needs one.
fn lower_dirs(job: &Job, chain: &Chain) -> Result<Vec<PathBuf>, OpError> {
    let mut dirs = job.engine.snapshotter.lowers(&job.lease, chain.layers())?;
    if dirs.is_empty() {
        dirs.push(job.lease.new_dir("empty").map_err(StoreError::from)?);
    }
    Ok(dirs)
}

async fn bind(
    job: &Job,
    (at, mount): (usize, &Mount),
    inputs: &[Value],
    mounts: &mut Mounts,
) -> Result<MountAs, OpError> {
    let selector = PathBuf::from(mount.selector.trim_start_matches('/'));
    let input = match mount.input {
        None => Some(Value::Chain(Chain::default())),
        Some(index) => inputs.get(index as usize).cloned(),
    };
    let input = input.ok_or(OpError::NoSuchInput(mount.input))?;
    // What is written to a mount that nobody keeps is seen by whoever looks into a failed step.
    let seen = job.settings.keep_failed || matches!(input, Value::Chain(_));
    if mount.output.is_some() || (!mount.readonly && seen) {
        let source = bind_output(job, (at, mount), inputs, mounts).await?;
        return Ok(MountAs::Bind {
            source,
            selector,
            readonly: mount.readonly,
        });
    }
    let source = match input {
        Value::Context(context) => {
            // What a step sees of a context belongs to root and knows the ignore rules, so it is a copy.
            let dir = job.lease.new_dir("context").map_err(StoreError::from)?;
            // As in BuildKit the top is everyone's to enter: steps run as other users too.
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).map_err(|source| OpError::Host {
                path: dir.clone(),
                source,
            })?;
            let (made, select) = (dir.clone(), mount.selector.clone());
            let devices = DevicePolicy::for_form(job.engine.form);
            blocking(move || {
                let root = RootFd::open(&made).map_err(|source| OpError::NoSuchPath {
                    path: "/".into(),
                    source,
                })?;
                local::copy(&context.tree, &select, &root, devices)
            })
            .await?;
            stack(job, vec![dir], mount.readonly, mounts.guarded).await?
        }
        Value::Chain(chain) => {
            let chain = job.unpack_chain(&chain).await?;
            stack(job, lower_dirs(job, &chain)?, mount.readonly, mounts.guarded).await?
        }
    };
    Ok(MountAs::Bind {
        source,
        selector,
        readonly: mount.readonly,
    })
}

/// Layers as a mount: read-only, or with changes that nobody looks at afterwards. What is read-only to somebody whom nothing
/// keeps from writing (not `guarded`) has to stand it.
async fn stack(job: &Job, lowers: Vec<PathBuf>, readonly: bool, guarded: bool) -> Result<Source, OpError> {
    let (engine, lease) = (Arc::clone(&job.engine), Arc::clone(&job.lease));
    blocking(move || {
        let snapshotter = &engine.snapshotter;
        let tree = if readonly && (guarded || snapshotter.means() == Means::Overlayfs) {
            snapshotter.read_only(&lease, lowers)?
        } else {
            snapshotter.discarded(&lease, lowers)?
        };
        Ok(source_of(tree))
    })
    .await
}

async fn cache(
    job: &Job,
    mount: &Mount,
    id: &str,
    sharing: CacheSharing,
    inputs: &[Value],
    cancel: &CancellationToken,
    mounts: &mut Mounts,
) -> Result<MountAs, OpError> {
    let (seed, id) = match mount.input {
        None => (None, id.to_owned()),
        Some(index) => {
            let value = inputs
                .get(index as usize)
                .ok_or(OpError::NoSuchInput(mount.input))?;
            // As in BuildKit, a cache that begins with an input's content is another one for each such content.
            (
                Some(tree(job, value).await?),
                format!("{id}:{}", seed_name(value)),
            )
        }
    };
    let sharing = match sharing {
        // Without mounts a cache is in one place at a time.
        CacheSharing::Shared if job.engine.confinement == Confinement::Chroot => MountSharing::Locked,
        CacheSharing::Shared => MountSharing::Shared,
        CacheSharing::Private => MountSharing::Private,
        CacheSharing::Locked => MountSharing::Locked,
    };
    mounts.meets_others |= sharing == MountSharing::Shared;
    // What a step that must run again finds is not what earlier builds left, but what this one did.
    let first = || {
        let mut begun = job.begun_mounts.lock().unwrap_or_else(PoisonError::into_inner);
        begun.insert(id.clone())
    };
    let fresh = (job.settings.fresh_mounts && seed.is_some()) || (mounts.fresh && first());
    if !mounts.caches.contains_key(&id) {
        let (store, lease, stop, name) = (
            job.engine.store.clone(),
            Arc::clone(&job.lease),
            cancel.clone(),
            id.clone(),
        );
        let devices = DevicePolicy::for_form(job.engine.form);
        let guard = blocking(move || {
            let request = MountRequest {
                id: &name,
                owner: MountOwner::Step,
                sharing,
                fresh,
            };
            let mut prepare = |dir: &Path| seed_mount(dir, seed.as_deref(), devices);
            store.cache_mount(&lease, request, &|| stop.is_cancelled(), &mut prepare)
        });
        mounts.caches.insert(id.clone(), guard.await?);
    }
    let dir = mounts.caches[&id].path().to_owned();
    let source = if mount.readonly && !mounts.guarded {
        stack(job, vec![dir], true, false).await?
    } else {
        Source::Path(dir)
    };
    let selector = PathBuf::from(mount.selector.trim_start_matches('/'));
    Ok(MountAs::Bind {
        source,
        selector,
        readonly: mount.readonly,
    })
}

/// Names the content of a seed. Layers never change, so their names do.
fn seed_name(value: &Value) -> String {
    match value {
        Value::Chain(chain) => chain.name().to_string(),
        Value::Context(_) => "context".to_owned(),
    }
}

fn seed_mount(dir: &Path, seed: Option<&SourceTree>, devices: DevicePolicy) -> io::Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    let Some(seed) = seed else { return Ok(()) };
    let root = RootFd::open(dir).map_err(io::Error::other)?;
    local::copy(seed, "/", &root, devices).map_err(io::Error::other)
}
