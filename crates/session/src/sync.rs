//! Bringing a directory of the client here: `FileSync.DiffCopy`, this side receiving (`session/filesync`,
//! `fsutil/receive.go`).
//!
//! The client lists its tree; what is there from last time and looks the same stays, the rest is asked for. One task
//! moves packets, one blocking thread works on the directory; packets wait between them only up to a number of bytes.

mod disk;
mod error;
mod metadata;
mod order;
mod receive;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use rbuild_sys::RootFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;

use crate::call::{CallError, Conversation};
use crate::header::put_encoded;
use crate::session::Session;
pub(crate) use crate::sync::receive::Receiver;
use crate::wire::{Packet, PacketType};

pub use error::{PathFault, SyncError};
pub use metadata::METADATA_FILE;
pub(crate) use order::as_path;

const METHOD: &str = "/moby.filesync.v1.FileSync/DiffCopy";
/// Bytes of packets that may wait for the disk.
const QUEUE_BYTES_MAX: usize = 4 << 20;
/// Packets that may wait for the disk.
const QUEUE_PACKETS_MAX: usize = 512;
/// Longest a client may take to end the call when everything is here, or to take note that it failed.
pub(crate) const GOODBYE_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// What to ask a client for, and how to keep it.
#[derive(Debug, Clone)]
pub struct SyncRequest {
    /// Name of the directory, as the client knows it (`context`, `dockerfile`).
    pub name: String,
    /// Only what matches is sent; empty for everything.
    pub include_patterns: Vec<String>,
    /// What matches is not sent.
    pub exclude_patterns: Vec<String>,
    /// Paths that are sent together with what the links in them lead to.
    pub follow_paths: Vec<String>,
    /// How what is already here is compared.
    pub differ: Differ,
    /// Owner and group of everything, or `None` to keep what the client sends. BuildKit's own client sends 0:0.
    pub owner: Option<(u32, u32)>,
    /// Take only the list, and the content of some (`local.metadatatransfer`).
    pub metadata_only: Option<MetadataOnly>,
    /// What the client may cost.
    pub limits: SyncLimits,
    /// What the list does not name stays.
    pub keep_others: bool,
}

/// Which of the files here are taken to be what the client has (`local.differ`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Differ {
    /// Those of equal type, size, modification time, mode, owner, device and link.
    #[default]
    Metadata,
    /// None: everything is sent again.
    None,
}

/// Paths whose content is taken although only the list was asked for.
#[derive(Clone)]
pub struct MetadataOnly(Arc<dyn Fn(&Path) -> bool + Send + Sync>);

impl MetadataOnly {
    /// Takes the content of what `wanted` says; parents of such a path are made too.
    #[must_use]
    pub fn except(wanted: impl Fn(&Path) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(wanted))
    }

    pub(crate) fn wants(&self, path: &Path) -> bool {
        (self.0)(path)
    }
}

impl fmt::Debug for MetadataOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetadataOnly(..)")
    }
}

/// Budgets of one transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncLimits {
    /// Entries of the list.
    pub entries_max: u32,
    /// Bytes of content.
    pub bytes_max: u64,
    /// Bytes of content beyond the announced sizes, all files together: a log file may grow while it is sent.
    pub surplus_bytes_max: u64,
    /// Bytes of the list that [`SyncRequest::metadata_only`] keeps.
    pub list_bytes_max: u64,
}

impl Default for SyncLimits {
    fn default() -> Self {
        Self {
            entries_max: 4_000_000,
            bytes_max: 256 << 30,
            surplus_bytes_max: 64 << 20,
            list_bytes_max: 512 << 20,
        }
    }
}

/// What a transfer did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Entries in the client's list.
    pub entries: u32,
    /// Files whose content was asked for.
    pub requested: u32,
    /// Entries that were as the client has them.
    pub unchanged: u32,
    /// Names that are gone or were replaced by something else.
    pub removed: u64,
    /// Bytes of content.
    pub bytes: u64,
}

impl SyncRequest {
    /// Everything in the directory of this name, owned by 0:0.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            include_patterns: Vec::new(),
            exclude_patterns: Vec::new(),
            follow_paths: Vec::new(),
            differ: Differ::default(),
            owner: Some((0, 0)),
            metadata_only: None,
            limits: SyncLimits::default(),
            keep_others: false,
        }
    }

    fn metadata(&self) -> Result<MetadataMap, CallError> {
        let mut metadata = MetadataMap::new();
        for (key, values) in [
            ("include-patterns", self.include_patterns.as_slice()),
            ("exclude-patterns", self.exclude_patterns.as_slice()),
            ("followpaths", self.follow_paths.as_slice()),
            ("dir-name", std::slice::from_ref(&self.name)),
        ] {
            put_encoded(&mut metadata, key, values).map_err(|fault| CallError::Header {
                method: METHOD,
                fault,
            })?;
        }
        Ok(metadata)
    }
}

/// A packet on its way to the disk, with its share of the queue's bytes.
pub(crate) struct Queued {
    packet: Packet,
    _share: Option<OwnedSemaphorePermit>,
}

impl Queued {
    /// A packet of a server, of which few are let wait.
    pub(crate) const fn unshared(packet: Packet) -> Self {
        Self { packet, _share: None }
    }
}

impl Session {
    /// Makes `dest` equal to the client's directory. Files are never changed in place: what differs is a new file, so
    /// hard links to the old ones made elsewhere keep their content. `progress` gets the bytes that came so far.
    ///
    /// After an error `dest` holds some of both trees; the next transfer puts that right. To stop one, use `cancel`:
    /// if the future is dropped instead, its thread may still be at work for a moment.
    ///
    /// # Errors
    /// [`SyncError`].
    ///
    /// # Panics
    /// If the thread that works on the directory did.
    pub async fn sync(
        &self,
        request: &SyncRequest,
        dest: RootFd,
        mut progress: impl FnMut(u64) + Send,
        cancel: &CancellationToken,
    ) -> Result<SyncReport, SyncError> {
        if !self.supports(METHOD) {
            return Err(CallError::Unsupported { method: METHOD }.into());
        }
        let (replies, mut outbox) = mpsc::unbounded_channel();
        let questions = futures_util::stream::poll_fn(move |cx| outbox.poll_recv(cx));
        let mut packets = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(SyncError::Cancelled),
            stream = self.converse::<Packet, Packet>(METHOD, questions, request.metadata()?) => stream?,
        };
        let (queue, waiting) = mpsc::channel(QUEUE_PACKETS_MAX);
        let receiver = Receiver::new(dest, request, replies.clone());
        let mut worker = tokio::task::spawn_blocking(move || receiver.run(waiting));
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(SyncError::Cancelled),
            _ = self.closed() => Err(self.closed_error().into()),
            done = &mut worker => Ok(finished(done)),
            error = self.feed(&mut packets, &queue, &mut progress) => Err(error),
        };
        drop(queue);
        let outcome = match outcome {
            Ok(done) => done,
            Err(error) => Err(settle(worker, error).await),
        };
        match outcome {
            Ok(report) => {
                replies.send(Packet::bare(PacketType::Fin)).ok();
                drop(replies);
                self.part(&mut packets, cancel).await?;
                Ok(report)
            }
            Err(error) => {
                if error.is_ours() {
                    replies.send(Packet::failure(&error.to_string())).ok();
                    drop(replies);
                    let ended = async { while let Ok(Some(_)) = packets.next().await {} };
                    tokio::time::timeout(FAREWELL_TIMEOUT, ended).await.ok();
                }
                Err(error)
            }
        }
    }

    /// Moves packets to the disk until the client stops; says how.
    async fn feed(
        &self,
        packets: &mut Conversation<Packet>,
        queue: &mpsc::Sender<Queued>,
        progress: &mut (impl FnMut(u64) + Send),
    ) -> SyncError {
        let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
        let mut bytes = 0;
        loop {
            let packet = match packets.next().await {
                Ok(Some(packet)) => packet,
                Ok(None) => return SyncError::Ended,
                Err(error) => return error.into(),
            };
            let size = packet.encoded_len();
            bytes += size as u64;
            progress(bytes);
            let share = u32::try_from(size.clamp(1, QUEUE_BYTES_MAX)).unwrap_or(1);
            let Ok(share) = Arc::clone(&room).acquire_many_owned(share).await else {
                return SyncError::Ended;
            };
            let queued = Queued {
                packet,
                _share: Some(share),
            };
            if queue.send(queued).await.is_err() {
                // The worker is done, and says itself how that came.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for the client's FIN and the end of the call.
    async fn part(
        &self,
        packets: &mut Conversation<Packet>,
        cancel: &CancellationToken,
    ) -> Result<(), SyncError> {
        let goodbye = async {
            let mut said = false;
            while let Some(packet) = packets.next().await? {
                said |= PacketType::try_from(packet.kind) == Ok(PacketType::Fin);
            }
            if said { Ok(()) } else { Err(SyncError::Ended) }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(SyncError::Cancelled),
            ended = goodbye => ended,
            () = tokio::time::sleep(GOODBYE_TIMEOUT) => Err(SyncError::Stalled),
        }
    }
}

/// The worker's end after the stream's: if it failed by itself, that is the cause.
async fn settle(worker: JoinHandle<Result<SyncReport, SyncError>>, error: SyncError) -> SyncError {
    match finished(worker.await) {
        Err(cause) if !matches!(cause, SyncError::Ended | SyncError::Cancelled) => cause,
        _ => error,
    }
}

fn finished(
    done: Result<Result<SyncReport, SyncError>, tokio::task::JoinError>,
) -> Result<SyncReport, SyncError> {
    match done {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(_) => Err(SyncError::Cancelled),
        },
    }
}
