//! How sessions begin and end, and that nothing is left of them.

use std::fs;
use std::time::{Duration, Instant};

use rbuild_session::fake::{FakeClient, FakeConnection, SentNames};
use rbuild_session::wire::{Packet, PacketType, Stat};
use rbuild_session::{
    AcceptError, CallError, CloseReason, GetError, SecretError, Sessions, SyncError, SyncRequest,
};
use rbuild_sys::RootFd;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::setting::{connect, sync};

/// Waits until no more tasks live than before.
async fn settled(before: usize) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let now = Handle::current().metrics().num_alive_tasks();
        if now <= before {
            return;
        }
        assert!(Instant::now() < end, "{now} tasks live, {before} before");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

#[tokio::test]
async fn a_session_is_found_while_it_lives() {
    let sessions = Sessions::new(4);
    assert!(sessions.find("one").is_none());
    let waiter = sessions.clone();
    let waiting = tokio::spawn(async move { waiter.get("input:one", Duration::from_secs(30)).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let client = FakeClient::new("one").shared_key("key").secret("s", b"x");
    let client = client.header("x-docker-expose-session-name", "laptop");
    let connection = client.connect(&sessions).await.unwrap();
    let session = waiting.await.unwrap().unwrap();
    assert_eq!((session.id(), session.shared_key()), ("one", "key"));
    let shown = format!("{session:?}");
    assert!(shown.contains("laptop"), "{shown}");
    assert!(session.supports("/moby.buildkit.secrets.v1.Secrets/getsecret"));
    assert!(!session.supports("/moby.filesync.v1.FileSync/DiffCopy"));
    assert!(!session.is_closed());

    connection.disconnect();
    let reason = tokio::time::timeout(Duration::from_secs(30), session.closed())
        .await
        .unwrap();
    assert_eq!(reason, CloseReason::ClientLeft);
    assert!(sessions.find("one").is_none());
    let none = sessions.get("one", Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(none, GetError::NotFound { id: "one".into() });
    assert_eq!(none.to_string(), "no active session for one");
    let error = session.secret("s").await.unwrap_err();
    assert!(
        matches!(error, SecretError::Call(CallError::Closed { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn row48_sessions_are_counted_and_not_taken_over() {
    let sessions = Sessions::new(2);
    let first = FakeClient::new("one")
        .secret("s", b"mine")
        .connect(&sessions)
        .await
        .unwrap();
    let again = FakeClient::new("one")
        .secret("s", b"evil")
        .connect(&sessions)
        .await;
    assert!(matches!(again, Err(AcceptError::Exists(id)) if id == "one"));
    let _second = FakeClient::new("two").connect(&sessions).await.unwrap();
    let third = FakeClient::new("three").connect(&sessions).await;
    assert!(matches!(third, Err(AcceptError::Full)));
    let secret = sessions.find("one").unwrap().secret("s").await.unwrap().unwrap();
    assert_eq!(secret.expose(), b"mine");
    first.disconnect();
    sessions.get("two", Duration::ZERO).await.unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while sessions.count() > 1 {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    FakeClient::new("one").connect(&sessions).await.unwrap();
}

#[tokio::test]
async fn nothing_is_left_of_sessions() {
    let before = tasks();
    let sessions = Sessions::new(64);
    for n in 0..20 {
        let client = FakeClient::new(&n.to_string())
            .secret("s", b"x")
            .echoing_agent("default");
        let connection = client.connect(&sessions).await.unwrap();
        connection.session().secret("s").await.unwrap();
        let agent = connection.session().forward_agent("").unwrap();
        if n % 2 == 0 {
            connection.disconnect();
        } else {
            connection.session().close();
            assert_eq!(connection.session().closed().await, CloseReason::Ended);
        }
        drop(agent);
    }
    settled(before).await;
    assert_eq!(sessions.count(), 0);
}

#[tokio::test]
async fn a_server_can_end_all_sessions() {
    let before = tasks();
    let (sessions, client) = connect(FakeClient::new("one")).await;
    let session = client.session().clone();
    sessions.close_all();
    assert!(session.is_closed());
    assert_eq!(sessions.count(), 0);
    drop(client);
    settled(before).await;
}

/// A client that lists endless content for a file and then says no more.
fn endless() -> FakeClient {
    FakeClient::new("one").file_sync(|talk| async move {
        let stat = Stat {
            path: b"f".to_vec(),
            mode: 0o644,
            size: i64::MAX,
            ..Stat::default()
        };
        talk.say(Packet::entry(stat)).await?;
        loop {
            talk.say(Packet::data(0, vec![0; 32 << 10].into())).await?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}

async fn broken_off(
    client: FakeClient,
    how: impl AsyncFnOnce(FakeConnection, CancellationToken),
) -> (SyncError, Duration) {
    let before = tasks();
    let (_sessions, client) = connect(client).await;
    let dest = tempfile::tempdir().unwrap();
    let session = client.session().clone();
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    let root = RootFd::open(dest.path()).unwrap();
    let transfer = tokio::spawn(async move {
        session
            .sync(&SyncRequest::new("context"), root, |_| (), &token)
            .await
    });
    while fs::metadata(dest.path().join("f")).map_or(0, |meta| meta.len()) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let start = Instant::now();
    how(client, cancel).await;
    let error = transfer.await.unwrap().unwrap_err();
    let took = start.elapsed();
    settled(before).await;
    (error, took)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_the_middle_ends_the_transfer() {
    let (error, took) = broken_off(endless(), async |client, _| client.disconnect()).await;
    let SyncError::Call(CallError::Closed { reason, .. }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(reason, CloseReason::ClientLeft);
    assert!(took < Duration::from_secs(9), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_can_be_stopped() {
    let (error, took) = broken_off(endless(), async |client, cancel| {
        cancel.cancel();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        drop(client);
    })
    .await;
    assert!(matches!(error, SyncError::Cancelled), "{error:?}");
    assert!(took < Duration::from_secs(9), "{took:?}");
}

#[tokio::test]
async fn a_client_that_never_answers_can_be_left() {
    let client = FakeClient::new("one").file_sync(|_| std::future::pending());
    let (_sessions, client) = connect(client).await;
    let dest = tempfile::tempdir().unwrap();
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.cancel();
    });
    let root = RootFd::open(dest.path()).unwrap();
    let outcome = client
        .session()
        .sync(&SyncRequest::new("context"), root, |_| (), &cancel)
        .await;
    assert!(matches!(outcome, Err(SyncError::Cancelled)), "{outcome:?}");
}

#[tokio::test]
async fn a_client_that_ends_early_is_no_client_that_is_done() {
    let dest = tempfile::tempdir().unwrap();
    for says in [0, 1] {
        let client = FakeClient::new("one").file_sync(move |talk| async move {
            for _ in 0..says {
                talk.say(Packet::bare(PacketType::Stat)).await?;
            }
            Ok(())
        });
        let (_sessions, client) = connect(client).await;
        let error = sync(client.session(), dest.path()).await.unwrap_err();
        assert!(matches!(error, SyncError::Ended), "{says}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row48_a_client_that_goes_quiet_is_given_up() {
    let sessions = Sessions::new(4);
    let client = FakeClient::new("one").header("x-buildkit-session-health-custom-timeout", "1000");
    let connection = client.connect(&sessions).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!connection.session().is_closed(), "one that answers lives on");
    connection.freeze();
    let reason = tokio::time::timeout(Duration::from_secs(20), connection.session().closed())
        .await
        .unwrap();
    assert_eq!(reason, CloseReason::Unhealthy);
    // Who waits for the end hears of it first; it is taken off the list by the task that told.
    let is_gone = async {
        while sessions.count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), is_gone)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_of_one_session_run_side_by_side() {
    let all = tempfile::tempdir().unwrap();
    let mut client = FakeClient::new("one");
    let sent = SentNames::default();
    for name in ["a", "b", "c", "d"] {
        let dir = all.path().join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(name), vec![1; 3 << 20]).unwrap();
        fs::create_dir(all.path().join(format!("to-{name}"))).unwrap();
        client = client.directory(name, &dir, &sent);
    }
    let (_sessions, client) = connect(client).await;
    let cancel = CancellationToken::new();
    let transfers = ["a", "b", "c", "d"].map(|name| {
        let (session, cancel) = (client.session(), &cancel);
        let dest = all.path().join(format!("to-{name}"));
        async move {
            let root = RootFd::open(&dest).unwrap();
            let report = session
                .sync(&SyncRequest::new(name), root, |_| (), cancel)
                .await
                .unwrap();
            assert_eq!(report.bytes, 3 << 20);
        }
    });
    tokio::time::timeout(Duration::from_secs(60), futures_util::future::join_all(transfers))
        .await
        .unwrap();
}
