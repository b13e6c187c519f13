//! Both ends of a session that are ours: what a client of a server attaches, and what the server asks it for.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use futures_util::StreamExt as _;
use rbuild_session::attach::{AgentStream, Attachables, Place};
use rbuild_session::{Selection, SendTree, Session, Sessions, SyncRequest, TreeSource};
use rbuild_sys::RootFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

/// Connects what is attached, without a network between.
async fn connect(attachables: Attachables) -> (Session, Sessions, AbortOnDropHandle<()>) {
    let sessions = Sessions::new(1);
    let attached = attachables.attach();
    let introduction = attached.introduction("one", "test", "").unwrap();
    let (found, finding) = tokio::sync::oneshot::channel();
    let accepting = sessions.clone();
    let task = tokio::spawn(async move {
        let serving = attached.serve(|outgoing| async move {
            let incoming = outgoing.map(Ok::<_, Status>);
            let answers = accepting.accept(&introduction, incoming).await?;
            found.send(answers.session().clone()).ok();
            Ok::<_, Status>(answers)
        });
        serving.await.ok();
    });
    (finding.await.unwrap(), sessions, AbortOnDropHandle::new(task))
}

fn listed(dir: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(at) = waiting.pop() {
        for entry in std::fs::read_dir(&at).unwrap().map(Result::unwrap) {
            let path = entry.path();
            found.push(path.strip_prefix(dir).unwrap().display().to_string());
            if entry.file_type().unwrap().is_dir() {
                waiting.push(path);
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_sent_as_the_server_wants_it_and_no_other() {
    let (source, dest) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["a/b/c", "a/skip/x", "a/skip/kept", "other"] {
        let path = source.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }
    std::os::unix::fs::symlink("a/b", source.path().join("link")).unwrap();
    let (session, _sessions, _task) =
        connect(Attachables::default().directory("context", source.path().to_owned())).await;
    let sync = async |name: &str, include: &[&str], exclude: &[&str], follow: &[&str]| {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let request = SyncRequest {
            include_patterns: texts(include),
            exclude_patterns: texts(exclude),
            follow_paths: texts(follow),
            ..SyncRequest::new(name)
        };
        let root = RootFd::open(dest.path()).unwrap();
        session
            .sync(&request, root, |_| (), &CancellationToken::new())
            .await
            .map(drop)
    };
    sync("context", &[], &["a/skip", "!a/skip/kept"], &[])
        .await
        .unwrap();
    let all = ["a", "a/b", "a/b/c", "a/skip", "a/skip/kept", "link", "other"];
    assert_eq!(listed(dest.path()), all);
    assert_eq!(std::fs::read(dest.path().join("a/b/c")).unwrap(), b"a/b/c");
    sync("context", &["other"], &[], &["link/c"]).await.unwrap();
    assert_eq!(listed(dest.path()), ["a", "a/b", "a/b/c", "link", "other"]);
    let refused = sync("secret", &[], &[], &[]).await.unwrap_err();
    assert!(
        refused.to_string().contains("no access allowed to dir"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_put_beside_what_is_there_and_half_an_archive_is_none() {
    let (source, dest) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(source.path().join("new"), "n").unwrap();
    let tree = dest.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("old"), "o").unwrap();
    let [whole, half] = ["whole", "half"].map(|name| dest.path().join(name));
    let attachables = Attachables::default()
        .output(0, Place::Directory(tree.clone()))
        .output(1, Place::File(whole.clone()))
        .output(2, Place::File(half.clone()));
    let (session, _sessions, _task) = connect(attachables).await;
    let cancel = CancellationToken::new();
    let request = SendTree {
        exporter: 0,
        trees: vec![TreeSource {
            prefix: None,
            root: RootFd::open(source.path()).unwrap(),
            extra: Vec::new(),
            mod_time: None,
            selection: Selection::default(),
        }],
        whole: false,
    };
    session.send_tree(request, |_| (), &cancel).await.unwrap();
    assert_eq!(listed(&tree), ["new", "old"]);
    let open = |exporter| session.send_bytes(exporter, &BTreeMap::new(), &cancel).unwrap();
    let mut sender = open(1);
    sender.write(b"all of it").await.unwrap();
    sender.finish().await.unwrap();
    assert_eq!(std::fs::read(&whole).unwrap(), b"all of it");
    let mut broken = open(2);
    broken.write(b"half").await.unwrap();
    drop(broken);
    let since = std::time::Instant::now();
    while half.exists() || since.elapsed().as_millis() < 200 {
        assert!(since.elapsed().as_secs() < 10, "what is not whole is removed");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_logins_and_agents_are_what_was_attached() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent");
    let listener = UnixListener::bind(&socket).unwrap();
    let agent = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut asked = [0; 4];
        stream.read_exact(&mut asked).await?;
        stream.write_all(b"signed").await?;
        Ok::<_, io::Error>(asked)
    });
    let attachables = Attachables::default()
        .agent(
            "default",
            Arc::new(move || {
                let connecting = tokio::net::UnixStream::connect(socket.clone());
                Box::pin(async move {
                    let stream = connecting.await.map_err(|error| error.to_string())?;
                    Ok(Box::new(stream) as Box<dyn AgentStream>)
                })
            }),
        )
        .secrets(Arc::new(|id: &str| match id {
            "known" => Ok(Some(b"value".to_vec())),
            "broken" => Err("cannot be read".to_owned()),
            _ => Ok(None),
        }))
        .logins(Arc::new(|host| {
            Box::pin(async move { ("me".to_owned(), format!("for {host}")) })
        }));
    let (session, _sessions, _task) = connect(attachables).await;
    let secret = session.secret("known").await.unwrap().unwrap();
    assert_eq!(secret.expose(), b"value");
    assert!(session.secret("unknown").await.unwrap().is_none());
    assert!(
        session
            .secret("broken")
            .await
            .unwrap_err()
            .to_string()
            .contains("cannot be read")
    );
    let login = session.credentials("registry.example").await.unwrap().unwrap();
    assert_eq!((login.username(), login.secret()), ("me", "for registry.example"));
    session.check_agent("").await.unwrap();
    assert!(session.check_agent("other").await.is_err());
    let mut stream = session.forward_agent("default").unwrap();
    stream.write_all(b"sign").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(
        (agent.await.unwrap().unwrap(), answer.as_slice()),
        (*b"sign", &b"signed"[..])
    );
}
