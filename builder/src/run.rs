//! Runs a program of an image in the sandbox of steps: `rbuild run`. What it writes is gone with it. Owns what its process
//! starts with; its streams are the caller's.

use std::path::PathBuf;
use std::sync::Arc;

use rbuild_graph::progress::Sink;
use rbuild_graph::{ExecMeta, ExecOp, HostIp, Mount, MountKind, NetMode, SecurityMode};
use rbuild_oci::{ContainerConfig, Platform};
use tokio_util::sync::CancellationToken;

use crate::container::{
    Container, ContainerError, ContainerProcess, ProcessFailure, ProcessRequest, Shown, Streams, TerminalSize,
};
use crate::engine::Engine;
use crate::images::ResolvedImage;
use crate::local_image::{LocalImage, LocalImageError, PullPolicy, Wanted};
use crate::value::Value;

/// What a program sees besides its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunMount {
    /// A file or directory of this machine, as it is and as it becomes.
    Host {
        /// Where it is here.
        source: PathBuf,
        /// Where it is there.
        dest: PathBuf,
        /// It cannot be written.
        readonly: bool,
    },
    /// An empty directory in memory.
    Memory {
        /// Where.
        dest: PathBuf,
        /// Most bytes in it.
        size_bytes: Option<u64>,
    },
}

/// What is run.
#[derive(Debug, Clone, Default)]
pub struct RunRequest {
    /// Name or id of the image.
    pub image: String,
    /// Platform of an image that has several.
    pub platform: Option<Platform>,
    /// When the registry is asked.
    pub pull: PullPolicy,
    /// Instead of the image's command.
    pub args: Vec<String>,
    /// Instead of the image's entry point; the image's command does not count then either. Empty is none.
    pub entrypoint: Option<String>,
    /// Variables, added to the image's; a name without a value takes that one away.
    pub env: Vec<String>,
    /// Instead of the image's directory.
    pub workdir: Option<String>,
    /// Instead of the image's user.
    pub user: Option<String>,
    /// Host name; the sandbox's if absent.
    pub hostname: Option<String>,
    /// Network; that of steps if unset.
    pub network: NetMode,
    /// Lines of `/etc/hosts`.
    pub extra_hosts: Vec<HostIp>,
    /// Nothing can be written.
    pub readonly: bool,
    /// What it sees besides the image.
    pub mounts: Vec<RunMount>,
    /// It has a terminal, of this size when it starts.
    pub terminal: Option<TerminalSize>,
    /// Its input is connected.
    pub interactive: bool,
}

/// Why nothing was run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Neither the image nor the caller says what.
    #[error("no command specified: image {0} has neither an entry point nor a command")]
    NoCommand(String),
    /// The image could not be had.
    #[error(transparent)]
    Image(#[from] LocalImageError),
    /// Its sandbox.
    #[error(transparent)]
    Container(Box<ContainerError>),
}

impl From<ContainerError> for RunError {
    fn from(error: ContainerError) -> Self {
        Self::Container(Box::new(error))
    }
}

/// A program that runs.
#[derive(Debug)]
pub struct Run {
    container: Container,
    /// Its process with its streams.
    pub process: ContainerProcess,
}

impl Run {
    /// Brings the image and starts its program.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn start(
        engine: Arc<Engine>,
        request: &RunRequest,
        sink: Arc<dyn Sink>,
        cancel: &CancellationToken,
    ) -> Result<Self, RunError> {
        let host = Platform::host();
        let wanted = Wanted {
            image: &request.image,
            platform: request.platform.as_ref().unwrap_or(&host),
            pull: request.pull,
        };
        let LocalImage { job, image, chain } = LocalImage::find(engine, wanted, sink).await?;
        let meta = process(&image, request)?;
        let root = Mount {
            input: Some(0),
            readonly: request.readonly,
            ..Mount::new("/", MountKind::Bind)
        };
        let exec = ExecOp {
            meta: ExecMeta {
                hostname: meta.hostname.clone(),
                extra_hosts: meta.extra_hosts.clone(),
                ..ExecMeta::default()
            },
            mounts: vec![root],
            network: request.network,
            security: SecurityMode::Sandbox,
            secret_env: Vec::new(),
            cdi_devices: Vec::new(),
        };
        let shown = request.mounts.iter().map(shown).collect();
        let container = Container::create(&job, exec, &[Value::Chain(chain)], shown, cancel).await?;
        let streams = request.terminal.map_or(
            Streams::Pipes {
                stdin: request.interactive,
            },
            Streams::Terminal,
        );
        let process = ProcessRequest {
            meta,
            secret_env: Vec::new(),
            security: SecurityMode::Sandbox,
            streams,
        };
        let process = container.start(process).await?;
        Ok(Self { container, process })
    }

    /// Waits for the program's end, and gives everything back.
    ///
    /// # Errors
    /// How it failed.
    pub async fn end(self) -> Result<(), ProcessFailure> {
        let ended = self.process.handle.wait().await;
        // That it failed is known; that what it left behind was ended is no failure.
        self.container.release().await.ok();
        ended
    }
}

fn shown(mount: &RunMount) -> Shown {
    match mount.clone() {
        RunMount::Host {
            source,
            dest,
            readonly,
        } => Shown::Host {
            source,
            path: dest,
            readonly,
        },
        RunMount::Memory { dest, size_bytes } => Shown::Memory {
            path: dest,
            size_bytes,
        },
    }
}

fn process(image: &ResolvedImage, request: &RunRequest) -> Result<ExecMeta, RunError> {
    let config = &image.config.config;
    let args = command(config, request);
    if args.is_empty() {
        return Err(RunError::NoCommand(request.image.clone()));
    }
    let filled = |asked: &Option<String>, own: &str| {
        let asked = asked.as_deref().filter(|text| !text.is_empty());
        asked.unwrap_or(own).to_owned()
    };
    let cwd = filled(&request.workdir, &config.working_dir);
    Ok(ExecMeta {
        args,
        env: variables(&config.env, request),
        cwd: if cwd.is_empty() { "/".to_owned() } else { cwd },
        user: filled(&request.user, &config.user),
        hostname: request.hostname.clone().unwrap_or_default(),
        extra_hosts: request.extra_hosts.clone(),
        ..ExecMeta::default()
    })
}

/// Entry point and command, as docker puts them together.
fn command(config: &ContainerConfig, request: &RunRequest) -> Vec<String> {
    let (mut all, own) = match &request.entrypoint {
        None => (config.entrypoint.clone(), config.cmd.clone()),
        Some(text) if text.is_empty() => (Vec::new(), Vec::new()),
        Some(text) => (vec![text.clone()], Vec::new()),
    };
    all.extend(if request.args.is_empty() {
        own
    } else {
        request.args.clone()
    });
    all
}

/// The image's variables with those asked for: later ones of a name replace earlier ones, a name alone removes them.
fn variables(own: &[String], request: &RunRequest) -> Vec<String> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut all: Vec<String> = own.to_vec();
    if request.terminal.is_some() && !all.iter().any(|variable| name(variable) == "TERM") {
        all.push("TERM=xterm".to_owned());
    }
    for variable in &request.env {
        all.retain(|known| name(known) != name(variable));
        if variable.contains('=') {
            all.push(variable.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ContainerConfig {
        ContainerConfig {
            entrypoint: vec!["/app".to_owned(), "-v".to_owned()],
            cmd: vec!["serve".to_owned()],
            env: vec!["A=1".to_owned(), "B=2".to_owned()],
            ..ContainerConfig::default()
        }
    }

    fn asked(args: &[&str], entrypoint: Option<&str>) -> RunRequest {
        RunRequest {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            entrypoint: entrypoint.map(str::to_owned),
            ..RunRequest::default()
        }
    }

    #[test]
    fn entry_point_and_command_are_put_together_as_docker_does() {
        let of = |args: &[&str], entrypoint| command(&config(), &asked(args, entrypoint));
        assert_eq!(of(&[], None), ["/app", "-v", "serve"]);
        assert_eq!(of(&["test"], None), ["/app", "-v", "test"]);
        assert_eq!(of(&["-c", "x"], Some("/bin/sh")), ["/bin/sh", "-c", "x"]);
        assert_eq!(of(&[], Some("/bin/sh")), ["/bin/sh"]);
        assert_eq!(of(&["ls"], Some("")), ["ls"]);
    }

    #[test]
    fn variables_replace_those_of_the_image() {
        let request = RunRequest {
            env: vec!["A=3".to_owned(), "C=4".to_owned()],
            terminal: Some(TerminalSize::default()),
            ..RunRequest::default()
        };
        let all = variables(&config().env, &request);
        assert_eq!(all, ["B=2", "TERM=xterm", "A=3", "C=4"]);
    }
}
