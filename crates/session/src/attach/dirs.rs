//! A directory to the server: the same sending end as of trees to a client, with what the server wants of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rbuild_sys::RootFd;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::TreeTalk;
use crate::send_tree::{Command, Outlet, TreeSource, Worker};
use crate::tree_select::Selection;
use crate::wire::{Packet, PacketType};

/// Packets that may wait for the connection, and requests that may wait for the disk.
const PACKETS: usize = 16;
const REQUESTS: usize = 1024;

/// Serves one call of `FileSync.DiffCopy`.
pub(super) async fn send(directories: &BTreeMap<String, PathBuf>, talk: TreeTalk) -> Result<(), Status> {
    let name = talk.header("dir-name");
    let path = directories
        .get(&name)
        .cloned()
        .ok_or_else(|| Status::not_found(format!("no access allowed to dir {name:?}")))?;
    let patterns = ["include-patterns", "exclude-patterns", "followpaths"].map(|key| talk.headers(key));
    let failed = |error: &dyn std::error::Error| Status::unknown(format!("{}: {error}", path.display()));
    let [include, exclude, follow] = &patterns;
    let mut selection = Selection::new(&path, include, exclude, follow).map_err(|error| failed(&error))?;
    // The server is not told who owns what here.
    selection.as_root = true;
    let tree = TreeSource {
        prefix: None,
        root: RootFd::open(&path).map_err(|error| failed(&error))?,
        extra: Vec::new(),
        mod_time: None,
        selection,
    };
    let (mut questions, answers) = talk.split();
    let (packets, mut outbox) = mpsc::channel::<Packet>(PACKETS);
    let (commands, requests) = mpsc::channel(REQUESTS);
    let over = CancellationToken::new();
    let _guard = over.clone().drop_guard();
    let outlet = Outlet {
        runtime: Handle::current(),
        packets,
        over,
    };
    let worker = Worker::new(vec![tree], outlet, |_sent| ()).map_err(|error| failed(&error))?;
    let worker = tokio::task::spawn_blocking(move || worker.run(requests));
    let outward = async {
        while let Some(packet) = outbox.recv().await {
            if answers.send(Ok(packet)).await.is_err() {
                return;
            }
        }
    };
    let inward = async {
        while let Some(packet) = questions.message().await? {
            let command = match PacketType::try_from(packet.kind) {
                Ok(PacketType::Req) => Command::Send(packet.id),
                Ok(PacketType::Fin) => Command::Finish,
                Ok(PacketType::Err) => {
                    let text = String::from_utf8_lossy(&packet.data).into_owned();
                    return Err(Status::unknown(format!("error from receiver: {text}")));
                }
                _ => return Err(Status::internal("unexpected packet")),
            };
            // A worker that is done needs no more.
            commands.send(command).await.ok();
        }
        std::future::pending().await
    };
    tokio::select! {
        // The worker is done and all it said is on its way.
        () = outward => {}
        ended = inward => return ended,
    }
    match worker.await {
        Ok(Ok(_report)) => Ok(()),
        Ok(Err(error)) => Err(failed(&error)),
        Err(_panicked) => Err(Status::internal("the directory could not be read")),
    }
}
