//! The way out of a step whose build has a proxy network (BuildKit's `util/network/proxyprovider`): its network namespace
//! has a loopback and nothing else, and on that a proxy of HTTP and HTTPS listens. The socket was made in the namespace, the
//! process that answers is ours: nothing else leads out, and everything that is fetched is seen, judged by the build's source
//! policies, told in the step's log, and a material in its provenance.
//!
//! In the place of a server of HTTPS the proxy shows a certificate of an authority that the step is made to trust.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use rbuild_tls::authority::{Authority, AuthorityError};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::job::Job;

mod capture;
mod exchange;

pub use capture::{Capture, Captures, Incomplete};

use exchange::{Answer, Exchange, plain};

/// Most connections of one step at once; more wait.
const CONNECTIONS_MAX: usize = 128;
/// How long a client may take for the head of a request, and for a handshake.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// How long what is under way may take when the step is over.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// Pause after the kernel refused a connection.
const PAUSE: Duration = Duration::from_millis(50);
/// What is not reached through the proxy.
const NO_PROXY: &str = "127.0.0.1,localhost,::1";

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyNetworkError {
    /// The kernel gives no namespace, or nothing listens in it.
    #[error("make a network with a proxy")]
    Namespace(#[from] io::Error),
    /// Nobody certifies what the proxy answers.
    #[error("make an authority for the proxy")]
    Authority(#[from] AuthorityError),
}

/// The proxy of one step.
#[derive(Debug)]
pub(crate) struct StepProxy {
    namespace: Arc<OwnedFd>,
    listener: TcpListener,
    address: SocketAddr,
    authority: Arc<Authority>,
    capture: Arc<Capture>,
}

/// A client that wants to speak TLS to a server.
struct Tunnel {
    upgrade: OnUpgrade,
    /// Name or number, and its port, as asked for.
    authority: String,
}

impl StepProxy {
    /// Makes the namespace and listens in it.
    ///
    /// # Errors
    /// [`ProxyNetworkError::Namespace`].
    pub(crate) fn listen(authority: Arc<Authority>) -> Result<Self, ProxyNetworkError> {
        let namespace = Arc::new(rbuild_sys::namespace::new_network()?);
        let inside = Arc::clone(&namespace);
        let open = move || -> io::Result<TcpListener> {
            rbuild_sys::namespace::enter_network(inside.as_fd())?;
            rbuild_sys::process::loopback_up()?;
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = match std::thread::Builder::new().spawn(open)?.join() {
            Ok(opened) => opened?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok(Self {
            address: listener.local_addr()?,
            namespace,
            listener,
            authority,
            capture: Arc::default(),
        })
    }

    /// The namespace.
    pub(crate) fn namespace(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.namespace)
    }

    /// What was fetched.
    pub(crate) fn capture(&self) -> Arc<Capture> {
        Arc::clone(&self.capture)
    }

    /// Variables by which programs find the proxy, as names and values.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let proxy = format!("http://{}", self.address);
        let proxies =
            ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"].map(|name| (name, proxy.clone()));
        let none = ["NO_PROXY", "no_proxy"].map(|name| (name, NO_PROXY.to_owned()));
        proxies.into_iter().chain(none).collect()
    }

    /// Answers until `over`; what is under way then has a moment to end.
    ///
    /// # Errors
    /// The kernel's, when the socket cannot be waited for.
    pub(crate) async fn serve(&self, job: &Job, over: &CancellationToken) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener.try_clone()?)?;
        let (tell, mut tunnels) = mpsc::channel(CONNECTIONS_MAX);
        let mut work: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = over.cancelled() => break,
                accepted = listener.accept(), if work.len() < CONNECTIONS_MAX => match accepted {
                    Ok((stream, _)) => work.push(self.connection(job, TokioIo::new(stream), tell.clone()).boxed()),
                    Err(_) => tokio::time::sleep(PAUSE).await,
                },
                Some(tunnel) = tunnels.recv() => work.push(self.tunnel(job, tunnel).boxed()),
                Some(()) = work.next(), if !work.is_empty() => {}
            }
        }
        let rest = async { while work.next().await.is_some() {} };
        // What did not end is cut off, and told so by what records it.
        tokio::time::timeout(DRAIN_MAX, rest).await.ok();
        Ok(())
    }

    /// A connection of the step: requests for http, and for ways to servers of https.
    async fn connection(
        &self,
        job: &Job,
        stream: TokioIo<tokio::net::TcpStream>,
        tunnels: mpsc::Sender<Tunnel>,
    ) {
        let exchange = Exchange::new(job, &self.capture, None);
        let answer = |mut request: Request<Incoming>| {
            let (exchange, tunnels) = (&exchange, tunnels.clone());
            async move {
                if request.method() != Method::CONNECT {
                    return Ok::<_, Infallible>(exchange.answer(request).await);
                }
                let Some(authority) = request.uri().authority().map(ToString::to_string) else {
                    return Ok(plain(StatusCode::BAD_REQUEST, "Bad Request"));
                };
                let upgrade = hyper::upgrade::on(&mut request);
                // The loop that takes it ends with the step.
                tunnels.send(Tunnel { upgrade, authority }).await.ok();
                Ok::<Response<Answer>, Infallible>(plain(StatusCode::OK, ""))
            }
        };
        let served = server()
            .serve_connection(stream, service_fn(answer))
            .with_upgrades();
        // A client that breaks off is told of where its requests are.
        served.await.ok();
    }

    /// A way to a server of https: the step speaks to us instead.
    async fn tunnel(&self, job: &Job, tunnel: Tunnel) {
        let Ok(upgraded) = tunnel.upgrade.await else {
            return;
        };
        let host = tunnel
            .authority
            .rsplit_once(':')
            .map_or(tunnel.authority.as_str(), |(host, _)| host);
        let Ok(config) = self
            .authority
            .server(host.trim_start_matches('[').trim_end_matches(']'))
        else {
            return;
        };
        let handshake = TlsAcceptor::from(config).accept(TokioIo::new(upgraded));
        let Ok(Ok(stream)) = tokio::time::timeout(HEAD_MAX, handshake).await else {
            return;
        };
        let exchange = Exchange::new(job, &self.capture, Some(&tunnel.authority));
        let answer = |request| {
            let exchange = &exchange;
            async move { Ok::<_, Infallible>(exchange.answer(request).await) }
        };
        let served = server().serve_connection(TokioIo::new(stream), service_fn(answer));
        served.await.ok();
    }
}

fn server() -> http1::Builder {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    server
}
