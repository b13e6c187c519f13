//! TCP: who is served and who is not, and that those who are not keep nobody waiting (rows 48 and 49). The authority's
//! key was thrown away when the certificates were made with openssl for a hundred years; the keys here are public.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard_buildkit_proto::moby::buildkit::v1::InfoRequest;
use rbuild_client::{Address, ConnectError, Connection, Security, connect};
use rbuild_server::core::Core;
use rbuild_server::listen::{Access, listen};
use rbuild_tls::{ClientFiles, Pair, ServerFiles, TlsError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::bench::Bench;

/// Longer than anything that is not stuck.
const LONG: Duration = Duration::from_secs(5);

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/server/tls")
        .join(name)
}

fn pair(name: &str) -> Pair {
    Pair {
        cert: file(&format!("{name}.pem")),
        key: file(&format!("{name}.key")),
    }
}

fn client(own: Option<&str>) -> Security {
    let files = ClientFiles {
        ca: file("ca.pem"),
        own: own.map(pair),
    };
    Security {
        config: files.load().unwrap(),
        server_name: None,
    }
}

/// A server on a port of its own, and its address.
fn serve(core: &Arc<Core>) -> (Address, tokio_util::sync::DropGuard) {
    let files = ServerFiles {
        ca: file("ca.pem"),
        own: pair("server"),
    };
    let access = Access {
        tls: Some(files.load().unwrap()),
        ..Access::default()
    };
    let listening = listen("tcp://127.0.0.1:0", &access).unwrap();
    let address = listening[0].address().parse().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(rbuild_server::serve::serve(
        Arc::clone(core),
        listening,
        None,
        stop.clone(),
    ));
    (address, stop.drop_guard())
}

async fn is_served(connected: Result<Connection, ConnectError>) -> bool {
    let Ok(connection) = connected else {
        return false;
    };
    connection.control().info(InfoRequest {}).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row48_only_clients_with_a_certificate_of_the_authority_are_served() {
    let bench = Bench::new();
    let (address, _stop) = serve(&bench.core);
    for (security, expected) in [
        (Some(client(Some("client"))), true),
        (Some(client(Some("foreign"))), false),
        (Some(client(None)), false),
        // A server's certificate is no client's.
        (Some(client(Some("server"))), false),
        // No TLS at all.
        (None, false),
    ] {
        let shown = format!("{security:?}");
        let connected = connect(&address, security.as_ref(), LONG).await;
        assert_eq!(is_served(connected).await, expected, "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row48_a_client_trusts_no_server_of_another_name() {
    let bench = Bench::new();
    let (address, _stop) = serve(&bench.core);
    let named = |name: &str| Security {
        server_name: Some(name.to_owned()),
        ..client(Some("client"))
    };
    let other = connect(&address, Some(&named("build.example")), LONG).await;
    assert!(matches!(other, Err(ConnectError::Refused { .. })), "{other:?}");
    let own = connect(&address, Some(&named("localhost")), LONG).await;
    assert!(is_served(own).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row49_slow_and_garbled_handshakes_keep_nobody_waiting() {
    let bench = Bench::new();
    let (address, _stop) = serve(&bench.core);
    let Address::Tcp { host, port } = &address else {
        panic!("{address} is on TCP");
    };
    // More than are shaken hands with at once: they say nothing, or nonsense, and stay.
    let mut hostile = Vec::new();
    for number in 0..200 {
        let mut socket = TcpStream::connect((host.as_str(), *port)).await.unwrap();
        if number % 2 == 0 {
            socket.write_all(&[0x16, 3, 1, 0xff, 0xff, 1]).await.unwrap();
        }
        hostile.push(socket);
    }
    let since = Instant::now();
    let connected = connect(&address, Some(&client(Some("client"))), LONG).await;
    assert!(is_served(connected).await);
    assert!(since.elapsed() < LONG);
    // Each of them is let go in the end, and the first ones have given way already.
    let ended = async {
        for mut socket in hostile {
            // A reset is an end too.
            let _ended = socket.read(&mut [0; 64]).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended)
        .await
        .expect("a handshake has an end");
}

#[test]
fn half_a_pair_is_refused_by_name() {
    let files = ServerFiles {
        ca: file("ca.pem"),
        own: Pair {
            cert: file("server.pem"),
            key: file("client.key"),
        },
    };
    let error = files.load().unwrap_err();
    assert!(matches!(error, TlsError::Pair { .. }), "{error}");
    assert!(error.to_string().contains("client.key"), "{error}");
}
