//! Credential helpers: programs called `docker-credential-NAME` that print a credential (docker-credential-helpers).
//!
//! Refuses names that are more than a word, answers for another server, answers without end, and helpers that do not
//! finish. Nothing a helper prints is shown unescaped.

use std::io::{Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde::Deserialize;

use super::file::FileError;
use super::{Credential, Secret};
use crate::config::canonical_host;
use crate::escape::Excerpt;

/// Most that a helper may print, in bytes.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;
/// The user whose secret is an identity token.
pub(super) const TOKEN_USER: &str = "<token>";
/// What helpers print when they know no credential for the server.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// Why a helper gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// The name could be more than a program's name.
    #[error("its name is not allowed: only letters, digits, '.', '_' and '-' are")]
    Name,
    /// There is no such program.
    #[error("docker-credential-{name} is not in PATH")]
    Missing {
        /// The checked name.
        name: String,
    },
    /// The program could not be run.
    #[error("it cannot be run")]
    Run(#[source] std::io::Error),
    /// The program did not finish.
    #[error("it did not finish within {seconds} s")]
    Timeout {
        /// The limit in seconds.
        seconds: u64,
    },
    /// The program printed too much.
    #[error("it printed more than {OUTPUT_BYTES_MAX} bytes")]
    TooLong,
    /// The program failed.
    #[error("it ended with {status}: {output}")]
    Failed {
        /// Exit status.
        status: std::process::ExitStatus,
        /// What it printed.
        output: Excerpt,
    },
    /// The answer is no credential.
    #[error("its answer is malformed")]
    Malformed(#[source] FileError),
    /// The answer is for another server.
    #[error("it answered for {0}")]
    OtherServer(Excerpt),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default, rename = "ServerURL")]
    server_url: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// A helper that was found.
#[derive(Debug)]
pub(super) struct Helper {
    program: PathBuf,
}

impl Helper {
    /// Looks for `docker-credential-NAME` in the directories of `path`.
    pub(super) fn find(name: &str, path: &str) -> Result<Self, HelperError> {
        if name.is_empty()
            || !name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        {
            return Err(HelperError::Name);
        }
        let file = format!("docker-credential-{name}");
        let is_program = |p: &PathBuf| {
            p.metadata()
                .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        };
        // An empty or relative entry would mean the build's directory, which is not a place to take programs from.
        let dirs = path.split(':').map(Path::new).filter(|dir| dir.is_absolute());
        match dirs.map(|dir| dir.join(&file)).find(is_program) {
            Some(program) => Ok(Self { program }),
            None => Err(HelperError::Missing {
                name: name.to_owned(),
            }),
        }
    }

    /// Asks for the credential of `server`.
    pub(super) fn get(&self, server: &str, timeout: Duration) -> Result<Option<Credential>, HelperError> {
        let output = match self.run("get", server.as_bytes(), timeout)? {
            Outcome::Done(output) => output,
            Outcome::NotFound => return Ok(None),
        };
        let answer: Answer =
            serde_json::from_slice(&output).map_err(|e| HelperError::Malformed(FileError::Malformed(e)))?;
        if !answer.server_url.is_empty() && host_of(&answer.server_url) != host_of(server) {
            return Err(HelperError::OtherServer(answer.server_url.as_str().into()));
        }
        let secret = Secret::new(answer.secret);
        Ok(match answer.username.as_str() {
            "" if secret.reveal().is_empty() => None,
            TOKEN_USER => Some(Credential::Identity(secret)),
            _ => Some(Credential::Basic {
                username: answer.username,
                password: secret,
            }),
        })
    }

    /// Gives it the credential of `server`.
    pub(super) fn store(
        &self,
        server: &str,
        username: &str,
        secret: &Secret,
        timeout: Duration,
    ) -> Result<(), HelperError> {
        let all = serde_json::json!({
            "ServerURL": server, "Username": username, "Secret": secret.reveal(),
        });
        self.run("store", all.to_string().as_bytes(), timeout).map(drop)
    }

    /// Has it forget the credential of `server`; whether it had one, as far as it says.
    pub(super) fn erase(&self, server: &str, timeout: Duration) -> Result<bool, HelperError> {
        let outcome = self.run("erase", server.as_bytes(), timeout)?;
        Ok(matches!(outcome, Outcome::Done(_)))
    }

    /// Runs one of its commands.
    fn run(&self, verb: &str, input: &[u8], timeout: Duration) -> Result<Outcome, HelperError> {
        let mut command = Command::new(&self.program);
        command
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().map_err(HelperError::Run)?;
        let result = converse(&mut child, input, timeout);
        if result.is_err() {
            // Not waited for yet, so its id cannot be another's; whatever it started goes with it. An error means
            // that nothing was left.
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                rustix::process::kill_process_group(group, Signal::KILL).ok();
            }
        }
        child.wait().map_err(HelperError::Run)?;
        let (status, output, errors) = result?;
        if status.success() {
            return Ok(Outcome::Done(output));
        }
        let said = if output.is_empty() { errors } else { output };
        if String::from_utf8_lossy(&said).trim() == NOT_FOUND {
            return Ok(Outcome::NotFound);
        }
        Err(HelperError::Failed {
            status,
            output: Excerpt::new(&said),
        })
    }
}

/// How a helper's command ended.
enum Outcome {
    /// Well; this is what it printed.
    Done(Vec<u8>),
    /// It knows nothing of the server.
    NotFound,
}

/// Writes the input, collects the output, waits for the end.
fn converse(
    child: &mut Child,
    input: &[u8],
    timeout: Duration,
) -> Result<(std::process::ExitStatus, Vec<u8>, Vec<u8>), HelperError> {
    let deadline = Instant::now() + timeout;
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_vec();
        // On a thread of its own, since a helper may read nothing and a pipe holds only 64 KiB. One that ends without reading
        // breaks the pipe; its status tells more.
        thread::spawn(move || stdin.write_all(&input).ok());
    }
    let output = child.stdout.take().map(collect);
    let errors = child.stderr.take().map(collect);
    let late = || HelperError::Timeout {
        seconds: timeout.as_secs(),
    };
    let receive = |from: Option<mpsc::Receiver<std::io::Result<Vec<u8>>>>| -> Result<Vec<u8>, HelperError> {
        let Some(from) = from else { return Ok(Vec::new()) };
        let left = deadline.saturating_duration_since(Instant::now());
        let bytes = from
            .recv_timeout(left)
            .map_err(|_| late())?
            .map_err(HelperError::Run)?;
        if bytes.len() as u64 > OUTPUT_BYTES_MAX {
            Err(HelperError::TooLong)
        } else {
            Ok(bytes)
        }
    };
    let output = receive(output)?;
    let errors = receive(errors)?;
    loop {
        if let Some(status) = child.try_wait().map_err(HelperError::Run)? {
            return Ok((status, output, errors));
        }
        if Instant::now() >= deadline {
            return Err(late());
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Reads a pipe on a thread of its own, one byte more than allowed at most.
fn collect(pipe: impl Read + Send + 'static) -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let result = pipe
            .take(OUTPUT_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map(|_| bytes);
        // The receiver is gone after a time-out; then nobody wants the answer.
        sender.send(result).ok();
    });
    receiver
}

fn host_of(address: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    canonical_host(rest.split('/').next().unwrap_or_default())
}
