//! A network for the steps of one build: a network namespace with an interface of its own, from which pasta(1) carries
//! what goes out. Nothing outside reaches in, the host's own loopback and abstract sockets are not there; the steps of the
//! build share it. Without root rights as with them.

use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, ChildStderr, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rbuild_sandbox::{CANNOT_START, Sandbox};

/// Where steps ask for names; pasta asks the host's servers.
pub(crate) const NAME_SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));

/// The program.
const PASTA: &str = "pasta";
/// How long it has until the namespace has a way out.
const READY_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);
/// How soon it is noticed that it ended, or that nobody wants it any more.
const LOOK: Duration = Duration::from_millis(50);
/// Most of what it says that is repeated, bytes.
const SAID_MAX: u64 = 2000;

/// Why there is no such network.
#[derive(Debug, thiserror::Error)]
pub enum PrivateNetworkError {
    /// The kernel gives no namespace.
    #[error("make a network namespace")]
    Namespace(#[source] io::Error),
    /// There is no thread to keep the program on.
    #[error("start a thread")]
    Thread(#[source] io::Error),
    /// The program is not there.
    #[error("a network of the build's own needs pasta (package passt), which is not in PATH")]
    Missing,
    /// It could not be started.
    #[error("start pasta")]
    Start(#[source] io::Error),
    /// It ended.
    #[error("pasta gave the build no network: {0}")]
    Refused(String),
    /// It did nothing.
    #[error("pasta gave the build no network within {READY_MAX:?}")]
    Slow,
}

/// The network. Its program ends when this is dropped.
#[derive(Debug)]
pub struct PrivateNetwork {
    namespace: Arc<OwnedFd>,
    /// Whoever keeps the program ends it when this is gone.
    _stop: mpsc::Sender<()>,
}

impl PrivateNetwork {
    /// Makes the namespace, and waits until it has a way out.
    ///
    /// # Errors
    /// [`PrivateNetworkError`].
    pub fn start(sandbox: &Sandbox) -> Result<Self, PrivateNetworkError> {
        let namespace = rbuild_sys::namespace::new_network().map_err(PrivateNetworkError::Namespace)?;
        let namespace = Arc::new(namespace);
        let input = namespace.try_clone().map_err(PrivateNetworkError::Namespace)?;
        let mut command = sandbox.host_command(PASTA);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        // It finds the namespace as its standard input: no other descriptor of ours reaches it. Nothing is forwarded
        // inwards, and the gateway's address is the gateway, not this machine.
        command.args([
            "--foreground",
            "--quiet",
            "--config-net",
            "--runas",
            "0:0",
            "--netns-only",
        ]);
        let server = NAME_SERVER.to_string();
        command.args([
            "--netns",
            "/proc/self/fd/0",
            "--no-map-gw",
            "--dns-forward",
            &server,
        ]);
        command.args(["-t", "none", "-u", "none", "-T", "none", "-U", "none"]);
        command
            .stdin(Stdio::from(input))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let (stop, stopped) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        // The program ends with the thread that starts it.
        let keep = move || match command.spawn() {
            Ok(child) => keep(child, &stopped, &tell),
            Err(error) => drop(tell.send(PrivateNetworkError::Start(error))),
        };
        let thread = std::thread::Builder::new().name("network".to_owned()).spawn(keep);
        drop(thread.map_err(PrivateNetworkError::Thread)?);
        let deadline = Instant::now() + READY_MAX;
        while !has_way_out(&namespace)? {
            match told.recv_timeout(POLL) {
                Ok(error) => return Err(error),
                Err(RecvTimeoutError::Disconnected) => return Err(PrivateNetworkError::Slow),
                Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                    return Err(PrivateNetworkError::Slow);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        Ok(Self {
            namespace,
            _stop: stop,
        })
    }
}

impl PrivateNetwork {
    /// The namespace. It leads out as long as this lives.
    pub(crate) fn namespace(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.namespace)
    }
}

/// Stays with the program until it ends, or nobody wants it any more.
fn keep(mut child: Child, stopped: &mpsc::Receiver<()>, tell: &mpsc::Sender<PrivateNetworkError>) {
    let stderr = child.stderr.take();
    let said = std::thread::Builder::new().spawn(move || stderr.map(listen).unwrap_or_default());
    let ended = loop {
        match child.try_wait() {
            Ok(None) => {}
            ended => break ended.ok().flatten(),
        }
        if !matches!(stopped.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout)) {
            child.kill().ok();
            child.wait().ok();
            return;
        }
    };
    let error = if ended.and_then(|status| status.code()) == Some(i32::from(CANNOT_START)) {
        PrivateNetworkError::Missing
    } else {
        let said = said.ok().and_then(|said| said.join().ok());
        PrivateNetworkError::Refused(said.unwrap_or_default())
    };
    // Who waited for the network may have it already, and lose it.
    drop(tell.send(error));
}

/// Reads what the program says to its end, and keeps the beginning, without words on a log that it cannot reach.
fn listen(mut stderr: ChildStderr) -> String {
    let mut text = Vec::new();
    // What was read before an error is said.
    stderr.by_ref().take(SAID_MAX).read_to_end(&mut text).ok();
    io::copy(&mut stderr, &mut io::sink()).ok();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains("to syslog")).collect();
    lines.join("; ")
}

/// Whether the namespace has a route that is not its loopback's.
fn has_way_out(namespace: &Arc<OwnedFd>) -> Result<bool, PrivateNetworkError> {
    let inside = Arc::clone(namespace);
    let look = move || -> io::Result<bool> {
        rbuild_sys::namespace::enter_network(inside.as_fd())?;
        let v4 = std::fs::read_to_string("/proc/thread-self/net/route")?;
        let v6 = std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
        Ok(routes(&v4, &v6))
    };
    let thread = std::thread::Builder::new()
        .spawn(look)
        .map_err(PrivateNetworkError::Thread)?;
    match thread.join() {
        Ok(seen) => seen.map_err(PrivateNetworkError::Namespace),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Of `/proc/net/route` any line but the first, of `/proc/net/ipv6_route` a default route of an interface.
fn routes(v4: &str, v6: &str) -> bool {
    let default = |line: &str| {
        line.split_whitespace().nth(1) == Some("00") && line.split_whitespace().last() != Some("lo")
    };
    v4.lines().nth(1).is_some() || v6.lines().any(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_is_no_way_out() {
        let head = "Iface\tDestination\tGateway\tFlags\n";
        let zero = "0".repeat(32);
        let lo = format!("{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n");
        let eth = format!("{zero} 00 {zero} 00 {zero} 00000400 00000001 00000000 00000003     eth0\n");
        assert!(!routes(head, &lo) && !routes("", ""));
        assert!(routes(head, &format!("{lo}{eth}")));
        assert!(routes(&format!("{head}eth0\t00000000\t010200C0\t0003\n"), ""));
    }
}
