//! What a step that failed left, before it is taken away: as a directory (`--on-error=keep`), or as a shell among its
//! mounts, in its environment, as its user (`--on-error=shell`). Decides what is shown and where; the user's terminal is
//! the caller's.

use std::fmt::Debug;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use rbuild_graph::{ExecMeta, ExecOp};
use rbuild_layer::DevicePolicy;
use rbuild_sys::RootFd;
use tokio_util::sync::CancellationToken;

use crate::container::{Container, ContainerError, ContainerProcess, ProcessRequest, Streams, TerminalSize};
use crate::error::{BuildError, chain_text};
use crate::export::tree::{TreeExportError, copy_out};
use crate::job::Job;
use crate::ops::blocking;
use crate::ops::exec::attempt::Attempt;
use crate::request::OnError;

mod shell;

pub(crate) use shell::Shell;

/// A step whose last attempt failed.
#[derive(Debug)]
pub(crate) struct FailedStep {
    pub(crate) exec: ExecOp,
    pub(crate) attempt: Attempt,
}

/// The terminal of whoever asked for the build.
pub trait UserTerminal: Send + Sync + Debug {
    /// How large it is.
    fn size(&self) -> TerminalSize;

    /// Says `told`, a line each, and lends the terminal to a process until that ends.
    fn lend<'a>(
        &'a self,
        process: ContainerProcess,
        told: &'a [String],
    ) -> BoxFuture<'a, Result<(), io::Error>>;
}

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
pub enum FailedStepError {
    /// The directory to keep it in is somebody's.
    #[error("{0:?} is there already, and is not an empty directory of this user")]
    Taken(PathBuf),
    /// The directory cannot be made.
    #[error("make {path:?}")]
    Make {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The files cannot be copied.
    #[error(transparent)]
    Copy(#[from] TreeExportError),
    /// The step's mounts cannot be made again.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Nothing reads commands.
    #[error(
        "the image has no shell, and this machine no static busybox to lend (apt-get install busybox-static); \
         --on-error=keep keeps the files"
    )]
    NoShell,
    /// Nobody has a terminal.
    #[error("there is no terminal")]
    NoTerminal,
    /// The terminal.
    #[error("use the terminal")]
    Terminal(#[source] io::Error),
}

/// Does what the build says is done about a step that failed, and gives `error` with what came of it.
pub(crate) async fn attend(
    job: &Arc<Job>,
    terminal: Option<&dyn UserTerminal>,
    cancel: &CancellationToken,
    error: BuildError,
) -> BuildError {
    let Some(failed) = job.take_failed().filter(|_| !error.is_canceled()) else {
        return error;
    };
    let note = match &job.settings.rules.on_error {
        OnError::Fail => return error,
        OnError::Keep(dir) => match keep(job, failed, dir, cancel).await {
            Ok(()) => format!("the files of the failed step are in {}", dir.display()),
            Err(reason) => format!(
                "the files of the failed step could not be kept: {}",
                chain_text(&reason)
            ),
        },
        OnError::Shell => match enter(job, failed, terminal, cancel, &error).await {
            Ok(()) => return error,
            Err(reason) => format!("no shell in the failed step: {}", chain_text(&reason)),
        },
    };
    BuildError::Left {
        error: Box::new(error),
        note,
    }
}

async fn keep(
    job: &Arc<Job>,
    failed: FailedStep,
    dir: &Path,
    cancel: &CancellationToken,
) -> Result<(), FailedStepError> {
    prepare(dir)?;
    let (container, _) = Container::of_failed(job, failed, cancel).await?;
    let files = container.root()?.as_fd().try_clone_to_owned();
    let files = RootFd::from_fd(files.map_err(|source| FailedStepError::Make {
        path: dir.to_owned(),
        source,
    })?);
    let (dir, devices) = (dir.to_owned(), DevicePolicy::for_form(job.engine.form));
    let copied = blocking(move || copy_out(files, &dir, None, devices)).await;
    // It had no process that could fail.
    container.release().await.ok();
    Ok(copied?)
}

/// Makes the directory for the files, which are nobody else's to read.
fn prepare(dir: &Path) -> Result<(), FailedStepError> {
    let fail = |source| FailedStepError::Make {
        path: dir.to_owned(),
        source,
    };
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = std::fs::symlink_metadata(dir).map_err(fail)?;
            let is_own = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
            if is_own && std::fs::read_dir(dir).map_err(fail)?.next().is_none() {
                Ok(())
            } else {
                Err(FailedStepError::Taken(dir.to_owned()))
            }
        }
        made => made.map_err(fail),
    }
}

async fn enter(
    job: &Arc<Job>,
    failed: FailedStep,
    terminal: Option<&dyn UserTerminal>,
    cancel: &CancellationToken,
    error: &BuildError,
) -> Result<(), FailedStepError> {
    let terminal = terminal.ok_or(FailedStepError::NoTerminal)?;
    let exec = failed.exec.clone();
    let (container, shell) = Container::of_failed(job, failed, cancel).await?;
    let shell = shell.ok_or(FailedStepError::NoShell)?;
    let mut told = vec![format!("{}.", error.message())];
    told.push(format!(
        "You are in {}, with the step's files, mounts and environment; `exit` ends the build.",
        cwd(&exec)
    ));
    told.extend(
        shell
            .is_lent
            .then(|| "The image has no shell: this one is busybox, with its own tools.".to_owned()),
    );
    let process = ProcessRequest {
        meta: ExecMeta {
            args: shell.args,
            ..exec.meta
        },
        secret_env: exec.secret_env,
        security: exec.security,
        streams: Streams::Terminal(terminal.size()),
    };
    let process = container.start(process).await?;
    let lent = terminal.lend(process, &told).await;
    // How a shell ends says nothing of the build.
    container.release().await.ok();
    lent.map_err(FailedStepError::Terminal)
}

fn cwd(exec: &ExecOp) -> &str {
    match exec.meta.cwd.as_str() {
        "" => "/",
        cwd => cwd,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_kept_where_nothing_of_others_is() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        prepare(&place("new")).unwrap();
        assert_eq!(std::fs::metadata(place("new")).unwrap().mode() & 0o777, 0o700);
        prepare(&place("new")).unwrap();
        std::fs::write(place("new/file"), "").unwrap();
        std::fs::write(place("file"), "").unwrap();
        std::fs::create_dir(place("empty")).unwrap();
        std::os::unix::fs::symlink(place("empty"), place("link")).unwrap();
        for taken in ["new", "file", "link"] {
            let error = prepare(&place(taken)).unwrap_err();
            assert!(matches!(error, FailedStepError::Taken(_)), "{taken}: {error}");
        }
        assert!(matches!(
            prepare(&place("no/such")).unwrap_err(),
            FailedStepError::Make { .. }
        ));
    }
}
