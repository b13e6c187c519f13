//! Questions with one answer, and streams of bytes in both directions.

use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use rbuild_oci::Digest;
use rbuild_session::fake::{Dialogue, FakeClient};
use rbuild_session::policy::{CheckPolicyRequest, CheckPolicyResponse, Decision, DenyMessage, PolicyAnswer};
use rbuild_session::wire::{
    BytesMessage, ExporterEntry, FinalizeExportRequest, FinalizeExportResponse, FindExportersRequest,
    FindExportersResponse, Info, InfoRequest, InfoResponse, ReadContentRequest, ReadContentResponse,
    WriteAction, WriteContentRequest, WriteContentResponse,
};
use rbuild_session::{CallError, ContentError, SECRET_BYTES_MAX, SecretError, WriteError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::setting::connect;

#[tokio::test]
async fn secrets_come_or_are_absent() {
    let (_sessions, client) = connect(FakeClient::new("one").secret("token", b"s3cret")).await;
    let found = client.session().secret("token").await.unwrap().unwrap();
    assert_eq!(found.expose(), b"s3cret");
    assert_eq!(format!("{found:?}"), "SecretBytes(****)");
    assert_eq!(client.session().secret("other").await.unwrap(), None);

    let (_sessions, without) = connect(FakeClient::new("two")).await;
    assert_eq!(without.session().secret("token").await.unwrap(), None);

    let broken = FakeClient::new("three").unary(
        "/moby.buildkit.secrets.v1.Secrets/GetSecret",
        |_, _: GetSecretRequest| Err::<GetSecretResponse, _>(Status::unknown("vault sealed")),
    );
    let (_sessions, broken) = connect(broken).await;
    let error = broken.session().secret("token").await.unwrap_err();
    assert_eq!(error.to_string(), "vault sealed");
}

#[tokio::test]
async fn row48_a_secret_of_any_size_is_not_taken() {
    let client = FakeClient::new("one")
        .secret("fits", &vec![1; SECRET_BYTES_MAX])
        .secret("over", &vec![1; SECRET_BYTES_MAX + 1])
        .secret("huge", &vec![1; 17 << 20]);
    let (_sessions, client) = connect(client).await;
    assert_eq!(
        client
            .session()
            .secret("fits")
            .await
            .unwrap()
            .unwrap()
            .expose()
            .len(),
        SECRET_BYTES_MAX
    );
    let over = client.session().secret("over").await.unwrap_err();
    assert!(matches!(over, SecretError::TooLarge { .. }), "{over:?}");
    let huge = client.session().secret("huge").await.unwrap_err();
    assert!(
        matches!(huge, SecretError::Call(CallError::Refused { .. })),
        "{huge:?}"
    );
}

#[tokio::test]
async fn credentials_are_the_clients() {
    let (_sessions, client) = connect(FakeClient::new("one").credentials("r.example", "me", "pass")).await;
    let session = client.session();
    let found = session.credentials("r.example").await.unwrap().unwrap();
    assert_eq!((found.username(), found.secret()), ("me", "pass"));
    assert!(!format!("{found:?}").contains("pass"));
    assert_eq!(session.credentials("other.example").await.unwrap(), None);

    let (_sessions, without) = connect(FakeClient::new("two")).await;
    assert_eq!(without.session().credentials("r.example").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_reached_both_ways() {
    let (_sessions, client) = connect(FakeClient::new("one").echoing_agent("default")).await;
    let session = client.session();
    session.check_agent("").await.unwrap();
    let error = session.check_agent("work").await.unwrap_err();
    assert_eq!(error.to_string(), "unset ssh forward key work");

    let mut agent = session.forward_agent("").unwrap();
    agent.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    agent.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello");

    let (mut read, mut write) = tokio::io::split(agent);
    let sent = vec![9_u8; 1 << 20];
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let (_, length) = tokio::join!(writing, read.read_to_end(&mut received));
    assert_eq!(length.unwrap(), sent.len());
    assert_eq!(received, sent);
}

#[tokio::test]
async fn an_agent_that_refuses_fails_the_reader() {
    let client = FakeClient::new("one").script(
        "/moby.sshforward.v1.SSH/ForwardAgent",
        |_: Dialogue<BytesMessage, BytesMessage>| async { Err(Status::unknown("no such agent")) },
    );
    let (_sessions, client) = connect(client).await;
    let mut agent = client.session().forward_agent("x").unwrap();
    let error = agent.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.to_string(), "no such agent");
}

#[tokio::test]
async fn uploads_are_read_within_their_budget() {
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let client = FakeClient::new("one")
        .upload("fits", &bytes)
        .upload("over", &bytes);
    let (_sessions, client) = connect(client).await;
    let cancel = CancellationToken::new();
    let fetch = |path: &'static str, max| client.session().upload("buildkit-session", path, max, &cancel);
    let mut read = Vec::new();
    fetch("/fits", 100_000)
        .await
        .unwrap()
        .read_to_end(&mut read)
        .await
        .unwrap();
    assert_eq!(read, bytes);
    let error = fetch("/over", 99_999)
        .await
        .unwrap()
        .read_to_end(&mut read)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "the client sends more than 99999 bytes");
    let error = fetch("/none", 1).await.unwrap_err();
    assert_eq!(error.to_string(), "no http response from session for none");
}

#[tokio::test]
async fn blobs_of_the_clients_stores_are_read() {
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let digest = Digest::sha256(&bytes);
    let absent = Digest::sha256(b"absent");
    let client = FakeClient::new("one").blob("layout", &digest.to_string(), &bytes);
    let (_sessions, client) = connect(client).await;
    let store = client.session().content_store("layout");
    let cancel = CancellationToken::new();
    assert_eq!(store.info(&digest).await.unwrap().size, 100_000);
    for (offset, size) in [(0, 100_000), (40_000, 60_000), (5, 10), (7, 0)] {
        let mut reader = store.read(&digest, offset, size, &cancel).await.unwrap();
        let mut read = Vec::new();
        while let Some(chunk) = reader.next().await.unwrap() {
            read.extend_from_slice(&chunk);
        }
        let range = usize::try_from(offset).unwrap()..usize::try_from(offset + size).unwrap();
        assert_eq!(read, bytes[range]);
    }
    let error = store.info(&absent).await.unwrap_err();
    assert!(matches!(error, ContentError::NotFound(_)), "{error:?}");
    let error = store.read(&absent, 0, 1, &cancel).await.unwrap_err();
    assert!(matches!(error, ContentError::NotFound(_)), "{error:?}");
    let other = client
        .session()
        .content_store("other")
        .info(&digest)
        .await
        .unwrap_err();
    assert!(matches!(other, ContentError::NotFound(_)), "{other:?}");
    let mut past = store.read(&digest, 99_999, 2, &cancel).await.unwrap();
    assert_eq!(past.next().await.unwrap().unwrap().len(), 1);
    let error = past.next().await.unwrap_err();
    assert!(matches!(error, ContentError::Unfit { .. }), "{error:?}");
}

#[tokio::test]
async fn row48_a_store_that_lies_is_found_out() {
    let digest = Digest::sha256(b"x");
    let client = FakeClient::new("one")
        .unary(
            "/containerd.services.content.v1.Content/Info",
            |_, _: InfoRequest| {
                let info = Info {
                    digest: Digest::sha256(b"y").to_string(),
                    size: 1,
                    ..Info::default()
                };
                Ok(InfoResponse { info: Some(info) })
            },
        )
        .script(
            "/containerd.services.content.v1.Content/Read",
            |talk: Dialogue<ReadContentRequest, ReadContentResponse>| async move {
                for offset in [0, 3] {
                    let data = b"ab".as_slice().into();
                    talk.say(ReadContentResponse { offset, data }).await?;
                }
                Ok(())
            },
        );
    let (_sessions, client) = connect(client).await;
    let store = client.session().content_store("layout");
    let error = store.info(&digest).await.unwrap_err();
    assert!(matches!(error, ContentError::Unfit { .. }), "{error:?}");
    let cancel = CancellationToken::new();
    let mut short = store.read(&digest, 0, 1, &cancel).await.unwrap();
    assert_eq!(short.next().await.unwrap().unwrap(), "a");
    assert_eq!(
        short.next().await.unwrap(),
        None,
        "what is too much is not given on"
    );
    let mut long = store.read(&digest, 0, 5, &cancel).await.unwrap();
    while let Ok(chunk) = long.next().await {
        assert!(chunk.is_some(), "what is missing is no end");
    }
}

#[tokio::test]
async fn exporters_the_client_chooses() {
    let client = FakeClient::new("one")
        .unary(
            "/moby.exporter.v1.Exporter/FindExporters",
            |_, q: FindExportersRequest| {
                let entry = ExporterEntry {
                    kind: q.refs.concat(),
                    attrs: [("dest".to_owned(), "-".to_owned())].into(),
                };
                Ok(FindExportersResponse {
                    exporters: vec![entry],
                })
            },
        )
        .unary(
            "/moby.exporter.v1.Exporter/FinalizeExport",
            |_, q: FinalizeExportRequest| match q.exporter_response.get("digest") {
                Some(_) => Ok(FinalizeExportResponse {}),
                None => Err(Status::invalid_argument("no digest")),
            },
        );
    let (_sessions, client) = connect(client).await;
    let session = client.session();
    let found = session
        .find_exporters([].into(), vec!["oci".into()])
        .await
        .unwrap();
    assert_eq!(found[0].kind, "oci");
    assert_eq!(found[0].attrs["dest"], "-");
    session
        .finalize_export([("digest".into(), "x".into())].into())
        .await
        .unwrap();
    assert!(session.finalize_export([].into()).await.is_err());
}

#[tokio::test]
async fn a_policy_of_the_client_decides() {
    let client = FakeClient::new("one").unary(
        "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy",
        |_, q: CheckPolicyRequest| {
            let decision = Decision {
                action: 1,
                deny_messages: vec![DenyMessage {
                    message: format!("not for {}", q.platform.unwrap_or_default().architecture),
                }],
                update: None,
            };
            Ok(CheckPolicyResponse {
                result: Some(PolicyAnswer::Decision(decision)),
            })
        },
    );
    let (_sessions, client) = connect(client).await;
    let mut question = CheckPolicyRequest::default();
    question.platform.get_or_insert_default().architecture = "arm64".into();
    let answer = client.session().check_policy(question).await.unwrap();
    let Some(PolicyAnswer::Decision(decision)) = answer.result else {
        panic!("{answer:?}");
    };
    assert_eq!(
        (decision.action, decision.deny_messages[0].message.as_str()),
        (1, "not for arm64")
    );
}

#[tokio::test]
async fn calls_run_side_by_side() {
    let mut client = FakeClient::new("one");
    for n in 0..50 {
        client = client.secret(&n.to_string(), &[n]);
    }
    let (_sessions, client) = connect(client).await;
    let session = client.session();
    let all = (0..50).map(|n: u8| async move {
        let found = session.secret(&n.to_string()).await.unwrap().unwrap();
        assert_eq!(found.expose(), [n]);
    });
    tokio::time::timeout(Duration::from_secs(20), futures_util::future::join_all(all))
        .await
        .unwrap();
}

const WRITE: &str = "/containerd.services.content.v1.Content/Write";

/// A store that takes a blob as containerd's does, and the bytes it has got.
fn taking_store(begin: usize, lie: u64) -> (FakeClient, std::sync::Arc<std::sync::Mutex<Vec<u8>>>) {
    let kept = std::sync::Arc::new(std::sync::Mutex::new(vec![0; begin]));
    let of = std::sync::Arc::clone(&kept);
    let client = FakeClient::new("one").script(
        WRITE,
        move |mut talk: Dialogue<WriteContentRequest, WriteContentResponse>| {
            let kept = std::sync::Arc::clone(&of);
            async move {
                if talk.header("buildkit-attachable-store-id") != "local:here" {
                    return Err(Status::not_found("no such store"));
                }
                while let Some(question) = talk.next().await? {
                    let offset = {
                        let mut kept = kept.lock().unwrap();
                        if question.action == i32::from(WriteAction::Write) {
                            assert_eq!(question.offset, i64::try_from(kept.len()).unwrap());
                            kept.extend_from_slice(&question.data);
                        }
                        i64::try_from(kept.len()).unwrap() + i64::try_from(lie).unwrap()
                    };
                    let action = question.action;
                    talk.say(WriteContentResponse {
                        action,
                        offset,
                        ..WriteContentResponse::default()
                    })
                    .await?;
                    if action == i32::from(WriteAction::Commit) {
                        assert_eq!(question.offset, question.total);
                        break;
                    }
                }
                Ok(())
            }
        },
    );
    (client, kept)
}

fn file_of(bytes: &[u8]) -> std::fs::File {
    use std::io::Write as _;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[tokio::test]
async fn blobs_are_put_into_the_clients_stores() {
    let bytes: Vec<u8> = (0..1_500_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let (digest, size) = (Digest::sha256(&bytes), bytes.len() as u64);
    let cancel = CancellationToken::new();
    for (begin, sent) in [(0, 0..), (1_000_000, 1_000_000..)] {
        let (client, kept) = taking_store(begin, 0);
        let (_sessions, client) = connect(client).await;
        let store = client.session().content_store("local:here");
        store
            .write(&digest, size, file_of(&bytes), &cancel)
            .await
            .unwrap();
        let kept = kept.lock().unwrap();
        assert_eq!(kept.len(), bytes.len());
        assert_eq!(
            kept[sent.clone()],
            bytes[sent],
            "what it had of it before is not sent again"
        );
    }
    let there = FakeClient::new("one").script(
        WRITE,
        |_: Dialogue<WriteContentRequest, WriteContentResponse>| async {
            Err(Status::already_exists("it is here"))
        },
    );
    let (_sessions, there) = connect(there).await;
    let store = there.session().content_store("local:here");
    store
        .write(&digest, size, file_of(&bytes), &cancel)
        .await
        .unwrap();
}

#[tokio::test]
async fn row48_a_store_that_counts_wrong_or_leaves_is_found_out() {
    let cancel = CancellationToken::new();
    let digest = Digest::sha256(b"abc");
    for lie in [1, 100] {
        let (client, _) = taking_store(0, lie);
        let (_sessions, client) = connect(client).await;
        let store = client.session().content_store("local:here");
        let error = store
            .write(&digest, 3, file_of(b"abc"), &cancel)
            .await
            .unwrap_err();
        assert!(
            matches!(error, WriteError::Content(ContentError::Unfit { .. })),
            "{error:?}"
        );
    }
    let (client, _) = taking_store(0, 0);
    let (_sessions, client) = connect(client).await;
    let other = client.session().content_store("local:there");
    assert!(other.write(&digest, 3, file_of(b"abc"), &cancel).await.is_err());
    let store = client.session().content_store("local:here");
    let short = store
        .write(&digest, 3, file_of(b"ab"), &cancel)
        .await
        .unwrap_err();
    assert!(matches!(short, WriteError::Read { .. }), "{short:?}");
    let gone = FakeClient::new("two").script(
        WRITE,
        |_: Dialogue<WriteContentRequest, WriteContentResponse>| async { Ok(()) },
    );
    let (_sessions, gone) = connect(gone).await;
    let store = gone.session().content_store("local:here");
    assert!(store.write(&digest, 3, file_of(b"abc"), &cancel).await.is_err());
}
