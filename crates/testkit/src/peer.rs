//! Debian's `docker-registry` as a process: a registry that nobody here wrote.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::machine;

/// User name that [`DockerRegistry::with_password`] accepts.
pub const USER: &str = "tester";
/// Its password.
pub const PASSWORD: &str = "opensesame";
/// bcrypt of [`PASSWORD`], the only form the registry reads.
const HTPASSWD: &str = "tester:$2y$05$1gGWPeYCp3MBO39nesk3YePfE3PPo6AlLKfwRrcvhkVBkpJNIYA6i\n";

/// Certificate and key of the test registry, and who vouches for clients: see `registry/tls.rs`.
const TLS_FILES: [(&str, &str); 4] = [
    ("ca.pem", AUTHORITY),
    ("server.pem", include_str!("registry/tls/server.pem")),
    ("server.key", include_str!("registry/tls/server.key")),
    ("client-ca.pem", include_str!("registry/tls/client-ca.pem")),
];
/// What vouches for the registry of [`DockerRegistry::with_client_certificates`].
pub const AUTHORITY: &str = include_str!("registry/tls/ca.pem");
/// The certificate it asks clients for. Its key is public by being here; its authority's was thrown away.
pub const CLIENT_CERTIFICATE: &str = include_str!("registry/tls/client.pem");
/// The certificate's key.
pub const CLIENT_KEY: &str = include_str!("registry/tls/client.key");

/// A running registry; it ends with the value.
#[derive(Debug)]
pub struct DockerRegistry {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
}

impl DockerRegistry {
    /// Starts one on a free loopback port, open to everyone.
    ///
    /// # Errors
    /// The program is missing (with its package) or does not answer.
    pub fn start() -> Result<Self> {
        Self::with_config("")
    }

    /// Starts one that wants [`USER`] and [`PASSWORD`] by Basic authentication.
    ///
    /// # Errors
    /// As [`DockerRegistry::start`].
    pub fn with_password() -> Result<Self> {
        Self::with_config("auth:\n  htpasswd:\n    realm: test\n    path: HTPASSWD\n")
    }

    /// Starts one that speaks TLS and asks every client for a certificate.
    ///
    /// # Errors
    /// As [`DockerRegistry::start`].
    pub fn with_client_certificates() -> Result<Self> {
        Self::with_config(
            "  tls:\n    certificate: DIR/server.pem\n    key: DIR/server.key\n    clientcas:\n      - DIR/client-ca.pem\n",
        )
    }

    /// Starts one that takes tokens from `realm`, signed by whoever has a certificate of [`AUTHORITY`] and calls itself
    /// `issuer`.
    ///
    /// # Errors
    /// As [`DockerRegistry::start`].
    pub fn with_tokens(realm: &str, issuer: &str) -> Result<Self> {
        Self::with_config(&format!(
            "auth:\n  token:\n    realm: {realm}\n    service: test\n    issuer: {issuer}\n    rootcertbundle: DIR/ca.pem\n"
        ))
    }

    fn with_config(extra: &str) -> Result<Self> {
        let program = machine::required("docker-registry", "docker-registry")?;
        let dir = tempfile::Builder::new().prefix("rbuild-registry-").tempdir()?;
        let port = machine::free_port()?;
        let htpasswd = dir.path().join("htpasswd");
        fs::write(&htpasswd, HTPASSWD)?;
        for (name, text) in TLS_FILES {
            fs::write(dir.path().join(name), text)?;
        }
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n{}",
            dir.path().join("data").display(),
            extra
                .replace("HTPASSWD", &htpasswd.display().to_string())
                .replace("DIR", &dir.path().display().to_string())
        );
        let path = dir.path().join("config.yaml");
        fs::write(&path, config)?;
        let mut command = Command::new(program);
        command.arg("serve").arg(&path).env_clear().stdin(Stdio::null());
        command
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("log"))?);
        let child = command.spawn().context("start docker-registry")?;
        let mut registry = Self { child, dir, port };
        registry.wait()?;
        Ok(registry)
    }

    fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                bail!("docker-registry does not answer:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The file that holds a blob, to damage it.
    #[must_use]
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let blobs = Path::new("data/docker/registry/v2/blobs/sha256");
        self.dir.path().join(blobs).join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        // The process may be gone already; then there is nothing to end.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
