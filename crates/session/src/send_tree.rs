//! A tree to the client: the `local` exporter (`session/filesync`, `CopyToCaller`; `fsutil/send.go`).
//!
//! One blocking thread lists the trees and reads what the client asks for; one task moves packets. The client decides
//! what it wants to have, and ends the transfer.

mod worker;

use prost::bytes::Bytes;
use rbuild_sys::RootFd;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;

use crate::call::{CallError, clip};
use crate::header::put;
use crate::send_bytes::{EXPORTER_ID, METHOD};
pub(crate) use crate::send_tree::worker::{Command, Outlet, Worker};
use crate::session::Session;
use crate::sync::{FAREWELL_TIMEOUT, GOODBYE_TIMEOUT};
use crate::tree_list::ReadTreeError;
use crate::tree_select::Selection;
use crate::wire::{Packet, PacketType};

/// Tells a client that all platforms come in one transfer, so that it may remove what is not in it.
const WHOLE: &str = "buildkit-exporter-multi-platform";
/// Packets that may wait for the connection, and requests that may wait for the disk.
const QUEUE: usize = 16;
const REQUESTS: usize = 1024;

/// What to send.
#[derive(Debug)]
pub struct SendTree {
    /// Which of the client's exporters is meant.
    pub exporter: u32,
    /// The trees. Several need a prefix each.
    pub trees: Vec<TreeSource>,
    /// This is all there is for the client's directory (`mode=delete` needs it).
    pub whole: bool,
}

/// One tree to send.
#[derive(Debug)]
pub struct TreeSource {
    /// The directory it is put into at the client, such as `linux_amd64`.
    pub prefix: Option<String>,
    /// The tree.
    pub root: RootFd,
    /// Files that are put beside what is at its top, in place of one of the same name.
    pub extra: Vec<ExtraFile>,
    /// Modification time of everything, in nanoseconds since 1970 (`SOURCE_DATE_EPOCH`); `None` for that of each.
    pub mod_time: Option<i64>,
    /// What of the tree is sent.
    pub selection: Selection,
}

/// A file that is in no tree: an attestation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraFile {
    /// Its name; no path.
    pub name: String,
    /// What is in it.
    pub data: Bytes,
    /// Permission bits.
    pub mode: u32,
    /// Modification time, in nanoseconds since 1970.
    pub mod_time: i64,
}

/// Why a tree did not reach the client.
#[derive(Debug, thiserror::Error)]
pub enum SendTreeError {
    /// The call failed, or the client refused.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The caller stopped it.
    #[error("cancelled")]
    Cancelled,
    /// The client says that it failed.
    #[error("error from receiver: {0}")]
    Receiver(String),
    /// The client ended the call too early.
    #[error("the client ended the transfer before it was complete")]
    Ended,
    /// The client did not end the call although it has everything.
    #[error("the client did not end the transfer")]
    Stalled,
    /// The client asked for what is no file of the list, or twice for the same.
    #[error("invalid file id {0}")]
    UnknownId(u32),
    /// A packet that has no place here.
    #[error("unexpected packet from the client")]
    Unexpected,
    /// The tree could not be read.
    #[error(transparent)]
    Read(#[from] ReadTreeError),
    /// More entries than a list can have.
    #[error("more than {0} entries")]
    TooMany(u32),
    /// Prefixes or names of extra files that do not make one tree.
    #[error("{0:?} cannot be the name of a directory or file at the top")]
    Name(String),
}

/// What a transfer did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SendTreeReport {
    /// Entries of the list.
    pub entries: u32,
    /// Files the client asked for.
    pub files: u32,
    /// Bytes of content.
    pub bytes: u64,
}

type Outcome = Result<SendTreeReport, SendTreeError>;

impl Session {
    /// Sends trees to the client's exporter. `progress` gets the bytes that went so far.
    ///
    /// # Errors
    /// [`SendTreeError`].
    ///
    /// # Panics
    /// If the thread that reads the tree did.
    pub async fn send_tree(
        &self,
        request: SendTree,
        progress: impl FnMut(u64) + Send + 'static,
        cancel: &CancellationToken,
    ) -> Outcome {
        if !self.supports(METHOD) {
            return Err(CallError::Unsupported { method: METHOD }.into());
        }
        let mut metadata = MetadataMap::new();
        let fail = |fault| CallError::Header {
            method: METHOD,
            fault,
        };
        put(&mut metadata, EXPORTER_ID, &request.exporter.to_string()).map_err(fail)?;
        if request.whole {
            put(&mut metadata, WHOLE, "1").map_err(fail)?;
        }
        let over = CancellationToken::new();
        let _guard = over.clone().drop_guard();
        let (packets, mut outbox) = mpsc::channel(QUEUE);
        let questions = futures_util::stream::poll_fn(move |cx| outbox.poll_recv(cx));
        let (commands, requests) = mpsc::channel(REQUESTS);
        let outlet = Outlet {
            runtime: Handle::current(),
            packets: packets.clone(),
            over: over.clone(),
        };
        let worker = Worker::new(request.trees, outlet, progress)?;
        let mut worker = tokio::task::spawn_blocking(move || worker.run(requests));

        let mut listen = Box::pin(self.listen(metadata, questions, commands));
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(SendTreeError::Cancelled),
            done = &mut worker => Ok(finished(done)),
            ended = &mut listen => Err(ended.err().unwrap_or(SendTreeError::Ended)),
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            // The client may end the call before the worker's own end is seen.
            Err(error) => {
                over.cancel();
                // With it goes the worker's other end.
                drop(listen);
                return settle(worker, error).await;
            }
        };
        let patience = match &outcome {
            Ok(_) => GOODBYE_TIMEOUT,
            Err(error) => {
                packets.try_send(Packet::failure(&error.to_string())).ok();
                FAREWELL_TIMEOUT
            }
        };
        drop(packets);
        let ended = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(SendTreeError::Cancelled),
            ended = listen => ended,
            () = tokio::time::sleep(patience) => Err(SendTreeError::Stalled),
        };
        match (outcome, ended) {
            // The worker may see that the client is gone before what the client said is read.
            (Err(SendTreeError::Ended), Err(told)) if !matches!(told, SendTreeError::Stalled) => Err(told),
            (outcome, ended) => {
                let report = outcome?;
                ended.map(|()| report)
            }
        }
    }

    /// Passes the client's requests on until it ends the call.
    async fn listen(
        &self,
        metadata: MetadataMap,
        questions: impl futures_util::Stream<Item = Packet> + Send + 'static,
        commands: mpsc::Sender<Command>,
    ) -> Result<(), SendTreeError> {
        let mut answers = self
            .converse::<Packet, Packet>(METHOD, questions, metadata)
            .await?;
        while let Some(packet) = answers.next().await? {
            let command = match PacketType::try_from(packet.kind) {
                Ok(PacketType::Req) => Command::Send(packet.id),
                Ok(PacketType::Fin) => Command::Finish,
                Ok(PacketType::Err) => {
                    let text = String::from_utf8_lossy(&packet.data);
                    return Err(SendTreeError::Receiver(clip(&text)));
                }
                _ => return Err(SendTreeError::Unexpected),
            };
            // A worker that is done needs no more; the client's end is what counts then.
            commands.send(command).await.ok();
        }
        Ok(())
    }
}

/// The worker's end after the stream's.
async fn settle(worker: JoinHandle<Outcome>, error: SendTreeError) -> Outcome {
    match (finished(worker.await), error) {
        (Ok(report), SendTreeError::Ended) => Ok(report),
        (Err(cause), SendTreeError::Ended) => Err(cause),
        (_, error) => Err(error),
    }
}

fn finished(done: Result<Outcome, tokio::task::JoinError>) -> Outcome {
    match done {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(_) => Err(SendTreeError::Cancelled),
        },
    }
}
