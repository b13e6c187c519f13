//! What was built, from the server: archives into files or to standard output, trees into directories. Of an archive that breaks off
//! no file is left; in a directory what the tree does not name stays, unless it is to be a mirror.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost::Message as _;
use prost::bytes::Bytes;
use rbuild_sys::RootFd;
use tokio::sync::mpsc;
use tonic::Status;

use crate::send_bytes::EXPORTER_ID;
use crate::serve::Dialogue;
use crate::sync::{Queued, Receiver, SyncRequest};
use crate::wire::{BytesMessage, Packet, PacketType};

/// Chunks that may wait for the disk.
const QUEUE: usize = 16;

/// Where a result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An archive into a file.
    File(PathBuf),
    /// An archive to standard output.
    Stdout,
    /// A tree into a directory, which is made if it is missing.
    Directory(PathBuf),
    /// The same; what the tree does not name goes.
    Mirror(PathBuf),
}

/// A message that is decoded when it is known what it is: the method is the same for bytes and trees.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Raw(pub(crate) Bytes);

impl prost::Message for Raw {
    fn encode_raw(&self, buf: &mut impl prost::bytes::BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        _: u32,
        _: prost::encoding::WireType,
        _: &mut impl prost::bytes::Buf,
        _: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        unreachable!("merge is replaced")
    }

    fn merge(&mut self, mut buf: impl prost::bytes::Buf) -> Result<(), prost::DecodeError> {
        self.0 = buf.copy_to_bytes(buf.remaining());
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0 = Bytes::new();
    }
}

/// Serves one call of `FileSend.DiffCopy`.
pub(super) async fn receive(outputs: &BTreeMap<u32, Place>, talk: Dialogue<Raw, Raw>) -> Result<(), Status> {
    let id: u32 = talk.header(EXPORTER_ID).parse().unwrap_or(0);
    match outputs.get(&id) {
        None => Err(Status::unknown(format!("exporter {id} not found"))),
        Some(Place::Directory(dir)) => tree(dir.clone(), true, talk).await,
        Some(Place::Mirror(dir)) => tree(dir.clone(), false, talk).await,
        Some(Place::File(path)) => {
            let path = path.clone();
            archive(talk, move |chunks| write_file(&path, chunks)).await
        }
        Some(Place::Stdout) => archive(talk, |chunks| write_to(&mut io::stdout().lock(), chunks)).await,
    }
}

type Chunks = mpsc::Receiver<Option<Bytes>>;

/// Hands an archive to `write`; `None` is its end.
async fn archive(
    talk: Dialogue<Raw, Raw>,
    write: impl FnOnce(Chunks) -> io::Result<()> + Send + 'static,
) -> Result<(), Status> {
    let (mut messages, _answers) = talk.split();
    let (chunks, waiting) = mpsc::channel(QUEUE);
    let writer = tokio::task::spawn_blocking(move || write(waiting));
    while let Some(Raw(message)) = messages.message().await? {
        let message = BytesMessage::decode(message).map_err(|error| Status::internal(error.to_string()))?;
        if chunks.send(Some(message.data)).await.is_err() {
            break;
        }
    }
    // A writer that gave up says why.
    chunks.send(None).await.ok();
    match writer.await {
        Ok(written) => written.map_err(|error| Status::unknown(error.to_string())),
        Err(_panicked) => Err(Status::internal("the archive could not be written")),
    }
}

fn write_to(to: &mut impl Write, mut chunks: Chunks) -> io::Result<()> {
    loop {
        match chunks.blocking_recv() {
            Some(Some(bytes)) => to.write_all(&bytes)?,
            Some(None) => return to.flush(),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn write_file(path: &Path, chunks: Chunks) -> io::Result<()> {
    let mut file = File::create(path)?;
    let is_file = file.metadata()?.is_file();
    write_to(&mut file, chunks).inspect_err(|_broken| {
        if is_file {
            // What cannot be removed cannot be told better than by the error that made it useless.
            std::fs::remove_file(path).ok();
        }
    })
}

/// Brings a tree into a directory.
async fn tree(dir: PathBuf, keep_others: bool, talk: Dialogue<Raw, Raw>) -> Result<(), Status> {
    let failed = |error: &dyn std::error::Error| Status::unknown(format!("{}: {error}", dir.display()));
    std::fs::create_dir_all(&dir).map_err(|error| failed(&error))?;
    let root = RootFd::open(&dir).map_err(|error| failed(&error))?;
    let own = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let request = SyncRequest {
        owner: Some(own),
        keep_others,
        ..SyncRequest::new("")
    };
    let (mut messages, answers) = talk.split();
    let (replies, mut outbox) = mpsc::unbounded_channel::<Packet>();
    let receiver = Receiver::new(root, &request, replies.clone());
    let (queue, waiting) = mpsc::channel(QUEUE);
    let mut worker = tokio::task::spawn_blocking(move || receiver.run(waiting));
    let say = |packet: Packet| Ok(Raw(Bytes::from(packet.encode_to_vec())));
    let outward = async {
        while let Some(packet) = outbox.recv().await {
            if answers.send(say(packet)).await.is_err() {
                return;
            }
        }
    };
    tokio::pin!(outward);
    let done = loop {
        tokio::select! {
            done = &mut worker => break done,
            () = &mut outward => return Err(Status::cancelled("the server has left the call")),
            message = messages.message() => {
                let Some(Raw(message)) = message? else {
                    return Err(Status::unknown("the server ended the transfer before it was complete"));
                };
                let packet = Packet::decode(message).map_err(|error| Status::internal(error.to_string()))?;
                // A worker that is done is found above.
                queue.send(Queued::unshared(packet)).await.ok();
            }
        }
    };
    match done {
        Ok(Ok(_report)) => {}
        Ok(Err(error)) => return Err(failed(&error)),
        Err(_panicked) => return Err(Status::internal("the tree could not be written")),
    }
    if replies.send(Packet::bare(PacketType::Fin)).is_ok() {
        drop(replies);
        outward.await;
    }
    while let Some(Raw(message)) = messages.message().await? {
        let packet = Packet::decode(message).map_err(|error| Status::internal(error.to_string()))?;
        if PacketType::try_from(packet.kind) == Ok(PacketType::Fin) {
            break;
        }
    }
    Ok(())
}
