//! Containers of front ends: a root, mounts, and processes that come and go (`frontend/gateway/container`). The first process is
//! pid 1; the others join it, and end with it. As in BuildKit, a process that fails ends its container.
//!
//! What a container may do is asked for here, where its sandbox is made, and not by whoever passes the request on.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use rbuild_graph::{ExecMeta, ExecOp, MountKind, SecretEnv, SecurityMode};
use rbuild_sandbox::{Confinement, Entrance, MountPlan, SpawnError, Stdio};
use rbuild_sandbox::{Process, Running, Source, WaitError};
use rbuild_sys::overlay::OverlayError;
use rbuild_sys::{RootFd, RootFdError};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::failed_step::{FailedStep, Shell};
use crate::job::{Job, StepNetwork, put_variables};
use crate::ops::exec::mounts;
use crate::ops::exec::root::with_bundle;
use crate::ops::{OpError, blocking, chain_of, exec};
use crate::value::Value;

mod held;
mod process;
mod streams;

use held::Held;
pub use held::Shown;
pub use process::{ContainerProcess, ProcessFailure, ProcessHandle, Streams, UNKNOWN_EXIT_STATUS};
pub use rbuild_sandbox::TerminalSize;
pub use streams::{Input, Output};

/// Most processes of a container at once: each has a supervisor and a thread that waits for it.
const PROCESSES_MAX: usize = 32;

/// Why a container, or a process of it, could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// No mount is at `/`.
    #[error("a container needs a mount at /")]
    NoRoot,
    /// What is at `/` is no file system of the build.
    #[error("invalid mount type for /")]
    RootKind,
    /// A mount, an image's user, an entitlement.
    #[error(transparent)]
    Op(#[from] OpError),
    /// The layers could not be mounted.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// A mount could not be opened.
    #[error(transparent)]
    Open(#[from] RootFdError),
    /// The kernel refused a pipe or a mount.
    #[error("{verb}")]
    Kernel {
        /// What was tried.
        verb: &'static str,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// The process could not be started.
    #[error("start process")]
    Spawn(#[from] SpawnError),
    /// It has ended, or was released.
    #[error("container has stopped")]
    Stopped,
    /// What it would be shown can only be mounted.
    #[error(
        "files of this machine cannot be shown to a container without namespaces: {0:?} would have to be mounted"
    )]
    NothingMounted(PathBuf),
    /// There is no way into it.
    #[error("a container without namespaces has one process: another cannot join it")]
    OneProcess,
    /// Too many processes.
    #[error("more than {PROCESSES_MAX} processes in a container")]
    Processes,
    /// There is no such mount.
    #[error("mount index {index} is out of bounds ({count} available)")]
    NoSuchMount {
        /// As asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// It has no files to be read from here: a secret, an agent, memory.
    #[error("mountable {0} not found")]
    NoFiles(usize),
}

/// A process to be started.
#[derive(Debug, Clone)]
pub struct ProcessRequest {
    /// Program, environment, directory, user.
    pub meta: ExecMeta,
    /// Secrets it has as variables.
    pub secret_env: Vec<SecretEnv>,
    /// Whether the sandbox is lifted. Those who join have what the first process has.
    pub security: SecurityMode,
    /// Its streams.
    pub streams: Streams,
}

/// A container. [`Container::release`] ends it in order; dropped, it ends too.
#[derive(Debug)]
pub struct Container {
    job: Arc<Job>,
    exec: ExecOp,
    /// The host's certificates are among its files, and its processes are told.
    host_ca: bool,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// The first process that failed.
    failed: Arc<Mutex<Option<ProcessFailure>>>,
    stage: tokio::sync::Mutex<Stage>,
    held: Mutex<Option<Arc<Held>>>,
    /// Its first process has ended.
    over: Arc<AtomicBool>,
    /// Where the proxy of its processes is.
    proxy: Mutex<Vec<(&'static str, String)>>,
    _stop: DropGuard,
}

/// Where a container is in its life.
#[derive(Debug)]
enum Stage {
    New,
    Runs(Arc<Entrance>),
    Over,
}

impl Container {
    /// Makes the mounts of a container ready. `exec` says what they are, in terms of `inputs`, and what the network is; its
    /// process part counts only for host name and extra hosts.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn create<'a>(
        job: &'a Arc<Job>,
        exec: ExecOp,
        inputs: &'a [Value],
        shown: Vec<Shown>,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Self, ContainerError>> {
        Box::pin(Self::create_unboxed(job, exec, inputs, shown, cancel))
    }

    async fn create_unboxed(
        job: &Arc<Job>,
        exec: ExecOp,
        inputs: &[Value],
        shown: Vec<Shown>,
        cancel: &CancellationToken,
    ) -> Result<Self, ContainerError> {
        let root = exec.mounts.iter().find(|mount| mount.dest == "/");
        let root = root.ok_or(ContainerError::NoRoot)?;
        if root.kind != MountKind::Bind {
            return Err(ContainerError::RootKind);
        }
        if job.engine.confinement == Confinement::Chroot
            && let Some(path) = shown.iter().find_map(Shown::host)
        {
            return Err(ContainerError::NothingMounted(path.clone()));
        }
        let stop = cancel.child_token();
        let base = chain_of(job, root.input, inputs).await?;
        let base = job.unpack_chain(&base).await.map_err(OpError::from)?;
        let mounts = mounts::prepare(job, &exec, inputs, false, &stop).await?;
        let bundle = if job.is_proxied(exec.network) {
            job.authorities(exec.network)?
        } else {
            None
        };
        let host_ca = bundle.is_some();
        let (engine, lease) = (Arc::clone(&job.engine), Arc::clone(&job.lease));
        let wanted: Vec<String> = exec.mounts.iter().map(|mount| mount.dest.clone()).collect();
        let shown: Vec<MountPlan> = shown.into_iter().map(Shown::plan).collect();
        let held = blocking(move || {
            let mut workspace = engine
                .snapshotter
                .workspace(&lease, base.layers())
                .map_err(OpError::from)?;
            let made = bundle.map(|bundle| with_bundle(&engine.snapshotter, &lease, &base, &bundle));
            let made = made.transpose()?;
            let above = made.as_ref().map(|(host_ca, _)| host_ca.lower());
            let root = exec::source_of(workspace.tree(above).map_err(OpError::from)?);
            let mut held = Held::mount(root, workspace, mounts, &wanted)?;
            held.plans.extend(shown);
            Ok::<_, ContainerError>(held)
        })
        .await?;
        let mut container = Self::new(job, exec, held, stop);
        container.host_ca = host_ca;
        Ok(container)
    }

    /// A container on what a step left that failed, and the shell for it if there is one.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub(crate) async fn of_failed(
        job: &Arc<Job>,
        failed: FailedStep,
        cancel: &CancellationToken,
    ) -> Result<(Self, Option<Shell>), ContainerError> {
        let FailedStep { exec, attempt } = failed;
        let left = attempt.again(job)?;
        let wanted: Vec<String> = exec.mounts.iter().map(|mount| mount.dest.clone()).collect();
        let meta = exec.meta.clone();
        let root = exec
            .mounts
            .iter()
            .position(|mount| mount.dest == "/")
            .unwrap_or_default();
        let has_host_ca = left.host_ca.is_some();
        let made = blocking(move || {
            let mut held = Held::mount(left.root, left.workspace, left.mounts, &wanted)?;
            let files = held.files.get(root).and_then(Option::as_ref);
            let shell = files.and_then(|root| Shell::of_image(root, &meta)).or_else(|| {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let (shell, mount) = Shell::lent(&path)?;
                held.plans.push(mount);
                Some(shell)
            });
            Ok::<_, ContainerError>((held, shell))
        });
        let (held, shell) = made.await?;
        let mut container = Self::new(job, exec, held, cancel.child_token());
        container.host_ca = has_host_ca;
        Ok((container, shell))
    }

    fn new(job: &Arc<Job>, exec: ExecOp, held: Held, stop: CancellationToken) -> Self {
        Self {
            job: Arc::clone(job),
            exec,
            host_ca: false,
            _stop: stop.clone().drop_guard(),
            stop,
            tasks: TaskTracker::new(),
            failed: Arc::default(),
            stage: tokio::sync::Mutex::new(Stage::New),
            held: Mutex::new(Some(Arc::new(held))),
            over: Arc::default(),
            proxy: Mutex::default(),
        }
    }

    /// The files at `/`.
    pub(crate) fn root(&self) -> Result<Arc<RootFd>, ContainerError> {
        self.files(self.root_index())
    }

    /// Starts a process. That it cannot run is told by its end, as BuildKit does.
    ///
    /// # Errors
    /// [`ContainerError`] for what the build was not allowed, a user the image does not know, and a container that is over.
    pub fn start(&self, request: ProcessRequest) -> BoxFuture<'_, Result<ContainerProcess, ContainerError>> {
        Box::pin(self.start_unboxed(request))
    }

    async fn start_unboxed(&self, request: ProcessRequest) -> Result<ContainerProcess, ContainerError> {
        if self.tasks.len() >= PROCESSES_MAX {
            return Err(ContainerError::Processes);
        }
        let secrets = self.secrets(&request.secret_env).await?;
        let exec = ExecOp {
            meta: ExecMeta {
                hostname: self.exec.meta.hostname.clone(),
                extra_hosts: self.exec.meta.extra_hosts.clone(),
                ..request.meta
            },
            security: request.security,
            ..self.exec.clone()
        };
        exec::check_entitlements(&self.job, &exec)?;
        let root = self.root()?;
        let (meta, host_ca) = (exec.meta.clone(), self.host_ca);
        let made = blocking(move || exec::process(&meta, &root, &secrets, host_ca)).await;
        let process = made?;
        let pipe = process::input(request.streams).map_err(kernel("make a pipe"))?;
        let (theirs, ours) = pipe.unzip();
        let mut stage = self.stage.lock().await;
        if self.stop.is_cancelled() || self.over.load(Ordering::Relaxed) {
            return Err(ContainerError::Stopped);
        }
        let is_first = matches!(*stage, Stage::New);
        let running = self.spawn(&stage, exec, process, request.streams, theirs).await?;
        let running = Arc::new(running);
        let waiter = Arc::clone(&running);
        let stop = self.stop.clone();
        let ready = blocking(move || waiter.ready());
        let mut ready = tokio::select! {
            ready = ready => ready,
            () = stop.cancelled() => {
                running.kill();
                None
            }
        };
        let end = self.watch(&running, is_first);
        let process = process::attach(running, ready.as_mut(), ours, end).map_err(kernel("read a process"));
        if is_first {
            *stage = ready.map_or(Stage::Over, |ready| Stage::Runs(Arc::new(ready.entrance)));
        }
        process
    }

    /// Starts pid 1, or one that joins it.
    async fn spawn(
        &self,
        stage: &Stage,
        exec: ExecOp,
        mut process: Process,
        streams: Streams,
        input: Option<OwnedFd>,
    ) -> Result<Running, ContainerError> {
        let job = Arc::clone(&self.job);
        match stage {
            Stage::Over => Err(ContainerError::Stopped),
            Stage::New => {
                let held = self.held()?;
                process.stdio = stdio(streams, held.trees.len());
                let network = job.network(&exec).await?;
                let variables = network.variables();
                put_variables(&mut process.env, &variables);
                *self.proxy.lock().unwrap_or_else(PoisonError::into_inner) = variables;
                let namespace = network.namespace.clone();
                let place = network.place(held.trees.len() + input.iter().len());
                self.serve(network);
                blocking(move || {
                    let mut fds = process::given(&held.trees, input.as_ref());
                    fds.extend(namespace.iter().map(|namespace| namespace.as_fd()));
                    let (root, mounts) = (held.root.clone(), held.plans.clone());
                    let mut plan = exec::plan(&job, &exec, root, process, mounts, place)?;
                    // Without mounts the root is the directory itself.
                    if plan.confinement == Confinement::Namespaces {
                        plan.root.source = Source::Fd(0);
                    }
                    Ok(job.engine.sandbox.spawn(&plan, &fds)?)
                })
                .await
            }
            Stage::Runs(_) if job.engine.confinement == Confinement::Chroot => {
                Err(ContainerError::OneProcess)
            }
            Stage::Runs(entrance) => {
                let entrance = Arc::clone(entrance);
                process.stdio = stdio(streams, 0);
                put_variables(
                    &mut process.env,
                    &self.proxy.lock().unwrap_or_else(PoisonError::into_inner),
                );
                blocking(move || {
                    let fds = process::given(&[], input.as_ref());
                    Ok(job.engine.sandbox.join(&entrance, &process, &fds)?)
                })
                .await
            }
        }
    }

    /// Keeps the proxy answering, if there is one, until the container is over.
    fn serve(&self, network: StepNetwork) {
        if network.proxy.is_none() {
            return;
        }
        let (job, stop) = (Arc::clone(&self.job), self.stop.clone());
        self.tasks.spawn(async move {
            // Without it the processes reach nothing, and say so.
            network.around(&job, stop.cancelled()).await.ok();
        });
    }

    fn held(&self) -> Result<Arc<Held>, ContainerError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone().ok_or(ContainerError::Stopped)
    }

    /// Follows a process to its end; ends the container with one that fails, and each with the container.
    fn watch(
        &self,
        running: &Arc<Running>,
        is_first: bool,
    ) -> watch::Receiver<Option<Result<(), ProcessFailure>>> {
        let (tell, end) = watch::channel(None);
        let over = is_first.then(|| Arc::clone(&self.over));
        let (running, stop, failed) = (Arc::clone(running), self.stop.clone(), Arc::clone(&self.failed));
        let mut ended = process::wait_on_thread(&running);
        self.tasks.spawn(async move {
            let exit = tokio::select! {
                exit = &mut ended => exit,
                () = stop.cancelled() => {
                    running.kill();
                    ended.await
                }
            };
            // Without a thread to wait on, the process is not waited for; it ends with what is dropped here.
            let exit = exit.unwrap_or(Err(WaitError::Lost));
            if let Some(over) = over {
                over.store(true, Ordering::Relaxed);
            }
            let end = process::judge(exit, stop.is_cancelled());
            if let Err(failure) = &end {
                let mut first = failed.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| failure.clone());
                stop.cancel();
            }
            tell.send_replace(Some(end));
        });
        end
    }

    async fn secrets(&self, wanted: &[SecretEnv]) -> Result<Vec<OsString>, ContainerError> {
        let mut variables = Vec::with_capacity(wanted.len());
        for secret in wanted {
            let value = self.job.client.secret(&secret.id, secret.optional).await;
            let mut text = format!("{}=", secret.name).into_bytes();
            if let Some(value) = value.map_err(OpError::from)? {
                text.extend_from_slice(value.expose());
            }
            variables.push(OsString::from_vec(text));
        }
        Ok(variables)
    }

    fn root_index(&self) -> usize {
        let root = self.exec.mounts.iter().position(|mount| mount.dest == "/");
        root.unwrap_or_default()
    }

    /// The files of a mount as they are now.
    ///
    /// # Errors
    /// [`ContainerError::NoSuchMount`], [`ContainerError::NoFiles`], [`ContainerError::Stopped`].
    pub fn files(&self, index: usize) -> Result<Arc<RootFd>, ContainerError> {
        let held = self.held()?;
        let count = held.files.len();
        let found = held
            .files
            .get(index)
            .ok_or(ContainerError::NoSuchMount { index, count })?;
        found.clone().ok_or(ContainerError::NoFiles(index))
    }

    /// Ends all processes, waits for that, and gives everything back.
    ///
    /// # Errors
    /// The first process that failed, one that was ended here among them.
    pub async fn release(&self) -> Result<(), ProcessFailure> {
        self.stop.cancel();
        // Whoever starts a process now has seen the stop, or is waited for.
        *self.stage.lock().await = Stage::Over;
        self.tasks.close();
        self.tasks.wait().await;
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        blocking(move || drop(held)).await;
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(Ok(()), Err)
    }
}

/// `given` descriptors come before its input.
const fn stdio(streams: Streams, given: usize) -> Stdio {
    match streams {
        Streams::Pipes { stdin: true } => Stdio::Pipes { stdin: Some(given) },
        Streams::Pipes { stdin: false } => Stdio::Pipes { stdin: None },
        Streams::Terminal(size) => Stdio::Terminal(size),
    }
}

fn kernel(verb: &'static str) -> impl Fn(io::Error) -> ContainerError {
    move |source| ContainerError::Kernel { verb, source }
}
