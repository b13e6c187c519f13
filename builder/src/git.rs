//! The `git` program of this machine, run so that neither its user's settings nor a repository's have a say, and so that
//! nothing it was given by a stranger becomes an option or a program (security rows 37 and 39).
//!
//! * the environment is empty but for what stands here; settings come from one file of our own: no hooks, no file system
//!   monitor, no credential helper, no user's `~/.gitconfig`, no `/etc/gitconfig`;
//! * only https, http, ssh and git are spoken, in submodules too (`GIT_ALLOW_PROTOCOL` beats every setting);
//! * nobody is asked anything: no terminal, no askpass program, no keys but the agent's;
//! * secrets go through the environment, which only the same user can read, and never through arguments.
//!
//! It blocks; it ends when the build is stopped, when it takes too long, and with this process.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rbuild_graph::progress::Stream;
use rbuild_sandbox::{CANNOT_START, Sandbox};
use tokio_util::sync::CancellationToken;

use crate::solve::Reporter;

/// Most that one command may print, bytes: a list of refs, or a commit.
const OUTPUT_BYTES_MAX: usize = 16 << 20;
/// How much of what it said is kept for an error, bytes.
const SAID_BYTES_MAX: usize = 4 << 10;
/// Longest time of one command.
const TIME_MAX: Duration = Duration::from_hours(2);
/// How often a stopped build is noticed.
const POLL: Duration = Duration::from_millis(20);
/// Protocols of repositories.
const REMOTE_PROTOCOLS: &str = "https:http:ssh:git";
/// Variables of this process that are handed on: how to reach the network.
const NETWORK_VARIABLES: [&str; 8] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
];
/// Settings of every command.
const SETTINGS: &str = "[core]
\thooksPath = /dev/null
\tfsmonitor = false
\tattributesFile = /dev/null
\texcludesFile = /dev/null
\taskPass =
\tprotectHFS = true
\tprotectNTFS = true
[init]
\tdefaultBranch = master
[credential]
\thelper =
\tinteractive = false
[fetch]
\trecurseSubmodules = false
[gc]
\tauto = 0
[maintenance]
\tauto = false
[http]
\tlowSpeedLimit = 100
\tlowSpeedTime = 120
[safe]
\tbareRepository = explicit
[advice]
\tdetachedHead = false
";

/// Why git did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no git.
    #[error("git is not installed on this machine, and sources from git repositories need it")]
    Missing,
    /// It could not be started or listened to.
    #[error("run git {command}")]
    Run {
        /// The subcommand.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("git stderr:\n{said}: exit status {code}")]
    Failed {
        /// What it said, made safe to print.
        said: String,
        /// Its exit code.
        code: i32,
    },
    /// It printed too much.
    #[error("git {0} printed more than {OUTPUT_BYTES_MAX} bytes")]
    TooMuch(String),
    /// It took too long.
    #[error("git {command} took longer than {} s", TIME_MAX.as_secs())]
    TooLong {
        /// The subcommand.
        command: String,
    },
    /// The build was stopped.
    #[error("context canceled")]
    Canceled,
}

impl GitError {
    /// Whether git said `text`.
    #[must_use]
    pub fn says(&self, text: &str) -> bool {
        matches!(self, Self::Failed { said, .. } if said.contains(text))
    }
}

/// How ssh is spoken.
#[derive(Debug, Clone, Default)]
pub struct Ssh {
    /// Socket of an agent.
    pub agent: Option<PathBuf>,
    /// File of known hosts; without one every host is believed, as in BuildKit.
    pub known_hosts: Option<PathBuf>,
}

/// What a command works on, and as whom.
#[derive(Clone)]
pub struct Git<'a> {
    sandbox: &'a Sandbox,
    reporter: &'a Reporter,
    cancel: &'a CancellationToken,
    /// An empty directory and the settings.
    home: PathBuf,
    ssh: Ssh,
    /// Settings that hold secrets.
    secrets: Vec<(String, String)>,
    git_dir: Option<PathBuf>,
    work_tree: Option<PathBuf>,
    protocols: &'static str,
}

impl std::fmt::Debug for Git<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Git")
            .field("git_dir", &self.git_dir)
            .field("work_tree", &self.work_tree)
            .finish_non_exhaustive()
    }
}

impl<'a> Git<'a> {
    /// Commands that work on no repository yet. `home` is a new directory, `reporter` shows what git prints.
    ///
    /// # Errors
    /// The settings cannot be written.
    pub fn new(
        sandbox: &'a Sandbox,
        home: PathBuf,
        reporter: &'a Reporter,
        cancel: &'a CancellationToken,
    ) -> Result<Self, GitError> {
        let mut settings = SETTINGS.to_owned();
        if let Some(file) = std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty()) {
            // As the rest of this program does.
            settings += &format!("[http]\n\tsslCAInfo = {}\n", quoted(&file.to_string_lossy()));
        }
        let written =
            fs::create_dir(home.join("empty")).and_then(|()| fs::write(home.join("settings"), settings));
        written.map_err(|source| GitError::Run {
            command: "config".to_owned(),
            source,
        })?;
        Ok(Self {
            sandbox,
            reporter,
            cancel,
            home,
            ssh: Ssh::default(),
            secrets: Vec::new(),
            git_dir: None,
            work_tree: None,
            protocols: REMOTE_PROTOCOLS,
        })
    }

    /// With this agent and these known hosts.
    #[must_use]
    pub(crate) fn with_ssh(mut self, ssh: Ssh) -> Self {
        self.ssh = ssh;
        self
    }

    /// With a setting that holds a secret.
    #[must_use]
    pub(crate) fn with_secret(mut self, name: String, value: String) -> Self {
        self.secrets.push((name, value));
        self
    }

    /// Without secrets.
    #[must_use]
    pub fn without_secrets(mut self) -> Self {
        self.secrets.clear();
        self
    }

    /// On this repository.
    #[must_use]
    pub fn on(&self, git_dir: &Path) -> Self {
        Self {
            git_dir: Some(git_dir.to_owned()),
            ..self.clone()
        }
    }

    /// With its files here.
    #[must_use]
    pub(crate) fn with_work_tree(mut self, work_tree: &Path) -> Self {
        self.work_tree = Some(work_tree.to_owned());
        self
    }

    /// From repositories of our own on this machine, and from no others.
    #[must_use]
    pub(crate) fn of_files(mut self) -> Self {
        self.protocols = "file";
        self.without_secrets()
    }

    /// Runs one command and gives what it printed. What follows `--` or stands in `--option=value` may be anybody's;
    /// everything else is ours.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn run(&self, args: &[&str]) -> Result<Vec<u8>, GitError> {
        let name = args.iter().find(|arg| !arg.starts_with('-')).unwrap_or(&"");
        let fail = |source| GitError::Run {
            command: (*name).to_owned(),
            source,
        };
        let mut command = self.sandbox.host_command("git");
        if let Some(work_tree) = &self.work_tree {
            command.arg("--work-tree").arg(work_tree);
        }
        if let Some(git_dir) = &self.git_dir {
            command.arg("--git-dir").arg(git_dir);
        }
        let dir = self.work_tree.clone().unwrap_or_else(|| self.home.join("empty"));
        let mut child = command
            .args(args)
            .envs(self.environment())
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(fail)?;
        let (sender, ended) = mpsc::channel();
        let readers = [
            child
                .stdout
                .take()
                .map(|pipe| self.listen(Box::new(pipe), Stream::Stdout, sender.clone())),
            child
                .stderr
                .take()
                .map(|pipe| self.listen(Box::new(pipe), Stream::Stderr, sender)),
        ];
        let stopped = self.wait(name, &ended);
        if stopped.is_err() {
            // What it started is in its pid namespace and ends with it.
            child.kill().ok();
        }
        let status = child.wait().map_err(fail)?;
        let [stdout, stderr] = readers.map(|reader| {
            let said = reader.and_then(|reader| reader.join().ok());
            said.unwrap_or_default()
        });
        stopped?;
        let Some(stdout) = stdout else {
            return Err(GitError::TooMuch((*name).to_owned()));
        };
        match status.code().unwrap_or(-1) {
            0 => Ok(stdout),
            code => {
                let said = shown(&stderr.unwrap_or_default());
                if code == i32::from(CANNOT_START) && said.starts_with("git: ") {
                    return Err(GitError::Missing);
                }
                Err(GitError::Failed { said, code })
            }
        }
    }

    /// The same as text, without white space around it.
    ///
    /// # Errors
    /// As [`Git::run`].
    pub fn text(&self, args: &[&str]) -> Result<String, GitError> {
        let output = self.run(args)?;
        Ok(String::from_utf8_lossy(&output).trim().to_owned())
    }

    /// Waits until git has nothing to say any more.
    fn wait(&self, name: &str, ended: &mpsc::Receiver<()>) -> Result<(), GitError> {
        let started = Instant::now();
        loop {
            match ended.recv_timeout(POLL) {
                // Each end of a pipe sends once, and the channel ends with the second.
                Ok(()) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
                Err(mpsc::RecvTimeoutError::Timeout) if self.cancel.is_cancelled() => {
                    return Err(GitError::Canceled);
                }
                Err(mpsc::RecvTimeoutError::Timeout) if started.elapsed() > TIME_MAX => {
                    return Err(GitError::TooLong {
                        command: name.to_owned(),
                    });
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Shows what a pipe gives as output of the vertex and keeps it; nothing if it was too much.
    fn listen(
        &self,
        mut pipe: Box<dyn Read + Send>,
        stream: Stream,
        ended: mpsc::Sender<()>,
    ) -> std::thread::JoinHandle<Option<Vec<u8>>> {
        let reporter = self.reporter.clone();
        std::thread::spawn(move || {
            let (mut kept, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
            let mut fits = true;
            loop {
                let count = match pipe.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(_) => break,
                };
                fits = kept.len() + count <= OUTPUT_BYTES_MAX;
                if !fits {
                    // The pipe closes, and so does git.
                    break;
                }
                kept.extend_from_slice(&buffer[..count]);
                reporter.log(stream, buffer[..count].to_vec());
            }
            // Nobody waits any more if the build was stopped.
            ended.send(()).ok();
            fits.then_some(kept)
        })
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut env: Vec<(OsString, OsString)> = [
            ("HOME", self.home.join("empty").into_os_string()),
            ("GIT_CONFIG_GLOBAL", self.home.join("settings").into_os_string()),
            ("GIT_CONFIG_NOSYSTEM", "1".into()),
            ("GIT_ATTR_NOSYSTEM", "1".into()),
            ("GIT_NO_REPLACE_OBJECTS", "1".into()),
            ("GIT_TEMPLATE_DIR", "".into()),
            ("GIT_CEILING_DIRECTORIES", self.home.clone().into_os_string()),
            ("GIT_TERMINAL_PROMPT", "0".into()),
            ("GIT_ALLOW_PROTOCOL", self.protocols.into()),
            ("GIT_SSH_COMMAND", self.ssh_command().into()),
            ("GIT_SSH_VARIANT", "ssh".into()),
            // Its words are looked at.
            ("LC_ALL", "C".into()),
        ]
        .into_iter()
        .map(|(name, value): (&str, OsString)| (name.into(), value))
        .collect();
        if let Some(agent) = &self.ssh.agent {
            env.push(("SSH_AUTH_SOCK".into(), agent.clone().into_os_string()));
        }
        if !self.secrets.is_empty() {
            env.push(("GIT_CONFIG_COUNT".into(), self.secrets.len().to_string().into()));
        }
        for (at, (name, value)) in self.secrets.iter().enumerate() {
            env.push((format!("GIT_CONFIG_KEY_{at}").into(), name.into()));
            env.push((format!("GIT_CONFIG_VALUE_{at}").into(), value.into()));
        }
        let handed_on = std::iter::once("PATH").chain(NETWORK_VARIABLES);
        env.extend(handed_on.filter_map(|name| Some((name.into(), std::env::var_os(name)?))));
        env
    }

    /// The ssh of this machine without the settings and keys of its user. A shell reads it.
    fn ssh_command(&self) -> String {
        let mut command = "ssh -F /dev/null -o BatchMode=yes -o IdentityFile=/dev/null -o ConnectTimeout=30 \
                           -o ServerAliveInterval=30 -o ServerAliveCountMax=4"
            .to_owned();
        match &self.ssh.known_hosts {
            Some(file) => {
                let option = format!("UserKnownHostsFile=\"{}\"", file.display());
                command += &format!(" -o '{}'", option.replace('\'', "'\\''"));
            }
            None => command += " -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
        }
        command
    }
}

/// A value of a settings file.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The end of what was said, line by line, with nothing in it that steers a terminal.
fn shown(said: &[u8]) -> String {
    let start = said.len().saturating_sub(SAID_BYTES_MAX);
    String::from_utf8_lossy(&said[start..])
        .split(['\n', '\r'])
        .map(|line| rbuild_registry::Excerpt::from(line).as_str().to_owned())
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}
