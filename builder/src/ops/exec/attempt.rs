//! One attempt at a step: a workspace and mounts of its own, so that nothing of an attempt that failed is seen by the
//! next one but what is in cache mounts.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rbuild_graph::progress::Stream;
use rbuild_graph::{ExecOp, LinuxResources, Mount, NetMode, VertexDigest};
use rbuild_sandbox::{Plan, Source};
use rbuild_snapshotter::{Means, Workspace};
use rbuild_sys::RootFd;
use tokio_util::sync::CancellationToken;

use super::mounts::{self, MountOutput, Mounts};
use super::root::{self, Root};
use super::{devices, limits, output, places_of, plan, process, source_of};
use crate::job::{Job, Place, put_variables};
use crate::ops::host_ca::HostCa;
use crate::ops::{OpError, blocking, chain_of};
use crate::solve::Reporter;
use crate::value::{Chain, Value};

/// A step as its graph says it is.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Its name in the graph.
    pub digest: &'a VertexDigest,
    /// What runs.
    pub exec: &'a ExecOp,
    /// What it may use.
    pub resources: Option<&'a LinuxResources>,
    /// Its cache mounts begin anew where this build has not begun them.
    pub fresh: bool,
}

/// What a step runs on.
#[derive(Debug)]
pub(crate) struct Attempt {
    base: Chain,
    root: Root,
    mounts: Mounts,
    /// What it writes may get into other hands, by what it shares with other steps.
    meets_others: bool,
    /// Somebody else may write to what it wrote, now that it has ended.
    is_in_use: bool,
}

impl Attempt {
    /// Makes workspace and mounts ready, and the image's files for [`Self::run`].
    pub(super) async fn prepare(
        job: &Job,
        step: Step<'_>,
        root: &Mount,
        inputs: &[Value],
        cancel: &CancellationToken,
    ) -> Result<(Self, RootFd), OpError> {
        if job.engine.sandbox.is_first() {
            let engine = Arc::clone(&job.engine);
            // Beside the unpacking of what the step runs on.
            tokio::task::spawn_blocking(move || engine.sandbox.get_ready());
        }
        let base = chain_of(job, root.input, inputs).await?;
        let base = job.unpack_chain(&base).await?;
        let mounts = mounts::prepare(job, step.exec, inputs, step.fresh, cancel).await?;
        let meets_others = mounts.meet_others()
            || (step.exec.network != NetMode::None && !rbuild_sys::landlock::has_scopes());
        let bundle = job.authorities(step.exec.network)?;
        let (engine, lease, lowers) = (Arc::clone(&job.engine), Arc::clone(&job.lease), base.clone());
        let (root, view) = blocking(move || {
            Root::prepare(
                &engine.snapshotter,
                &lease,
                &lowers,
                bundle.as_ref(),
                meets_others,
            )
        })
        .await?;
        let attempt = Self {
            base,
            root,
            mounts,
            meets_others,
            is_in_use: false,
        };
        Ok((attempt, view))
    }

    fn plan(
        &self,
        job: &Job,
        step: Step<'_>,
        view: &RootFd,
        network: Option<Place>,
    ) -> Result<Plan, OpError> {
        let secrets = self.mounts.secret_variables();
        let host_ca = self.root.host_ca.is_some();
        let process = process(&step.exec.meta, view, &secrets, host_ca)?;
        let root = self.root.source.clone();
        let mut plan = plan(job, step.exec, root, process, self.mounts.plans(), network)?;
        plan.limits = limits::of(step.resources, job.settings.rules.strict_limits)?;
        plan.meets_others = self.meets_others;
        Ok(plan)
    }

    /// Runs the step's process to its end, or ends it after the time that steps have.
    pub(super) async fn run(
        &mut self,
        job: &Job,
        step: Step<'_>,
        view: RootFd,
        reporter: &Reporter,
        cancel: &CancellationToken,
    ) -> Result<(), OpError> {
        let network = job.network(step.exec).await?;
        let mut plan = self.plan(job, step, &view, network.place(0))?;
        put_variables(&mut plan.process.env, &network.variables());
        devices::inject(job, step.exec, &mut plan).await?;
        self.root.note(&view, &places_of(&plan), plan.confinement)?;
        // The end of uses is seen of the kernel's overlays alone.
        self.is_in_use = plan.meets_others && job.engine.snapshotter.means() != Means::Overlayfs;
        let meta = &step.exec.meta;
        let command = meta.args.join(" ");
        let (engine, namespace) = (Arc::clone(&job.engine), network.namespace.clone());
        let spawned = blocking(move || {
            let fds: Vec<BorrowedFd<'_>> = namespace.iter().map(|namespace| namespace.as_fd()).collect();
            root::spawn(&engine.sandbox, view, &plan, &fds)
        })
        .await;
        let running = spawned.map_err(|source| OpError::Spawn {
            command: command.clone(),
            source,
        })?;
        let time_is_up = time_is_up(job.settings.rules.timeout);
        let following = output::follow(running, job, reporter, cancel, time_is_up);
        let followed = Box::pin(network.around(job, following)).await?;
        if let Some(proxy) = &network.proxy {
            let capture = proxy.capture();
            if let Some(text) = capture.log() {
                reporter.log(Stream::Stderr, text.into_bytes());
            }
            job.captures.note(step.digest, &command, capture);
        }
        if cancel.is_cancelled() {
            return Err(OpError::Canceled);
        }
        let exit = match followed {
            Err(output::FollowError::TimeIsUp(after)) => return Err(OpError::TimeIsUp { command, after }),
            Err(output::FollowError::Wait(source)) => {
                return Err(output::never_ran(command, source, reporter));
            }
            Ok(exit) => exit,
        };
        self.is_in_use |= exit.is_in_use;
        match output::failure(&exit, &meta.valid_exit_codes) {
            None => Ok(()),
            Some((exit, hint)) => Err(OpError::Process { command, exit, hint }),
        }
    }

    /// What a step that failed ran on, ready to be mounted once more: its root, its mounts, and whether the host's
    /// certificates are among its files.
    pub(crate) fn again(mut self, job: &Job) -> Result<Remains, OpError> {
        let mut workspace = self.root.workspace;
        workspace.renew()?;
        self.mounts.renew(job)?;
        let above = self.root.host_ca.as_ref().map(HostCa::lower);
        Ok(Remains {
            root: source_of(workspace.tree(above)?),
            mounts: self.mounts,
            workspace,
            host_ca: self.root.host_ca,
        })
    }

    /// What became of the mounts of the step, of which the one numbered `root_at` is its root.
    pub(super) async fn outputs(
        mut self,
        exec: &ExecOp,
        root_at: usize,
    ) -> Result<Vec<MountOutput>, OpError> {
        let mut outputs = self.mounts.take_outputs();
        drop(self.mounts);
        let (root, is_in_use) = (self.root, self.is_in_use);
        let (mut outputs, workspace) = blocking(move || {
            let workspace = root.settle(is_in_use)?;
            if is_in_use {
                for output in outputs.iter_mut().filter_map(|output| output.workspace.as_mut()) {
                    output.set_apart()?;
                }
            }
            Ok::<_, OpError>((outputs, workspace))
        })
        .await?;
        let root = &exec.mounts[root_at];
        outputs.push(MountOutput {
            mount: root_at,
            index: root.output,
            base: self.base,
            workspace: (!root.readonly).then_some(workspace),
        });
        Ok(outputs)
    }
}

/// What a step left, to be mounted once more.
#[derive(Debug)]
pub(crate) struct Remains {
    pub(crate) root: Source,
    pub(crate) mounts: Mounts,
    pub(crate) workspace: Workspace,
    /// Its directory is one of the root's.
    pub(crate) host_ca: Option<HostCa>,
}

/// Ends when `time` has passed since it was first waited for, and says so; never without one.
async fn time_is_up(time: Option<Duration>) -> Duration {
    match time {
        Some(time) => {
            tokio::time::sleep(time).await;
            time
        }
        None => std::future::pending().await,
    }
}
