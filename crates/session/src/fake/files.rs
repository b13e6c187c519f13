//! Files of the fake client: directories it serves, what it is sent, and streams of bytes.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message as _;
use prost::bytes::Bytes;
use rbuild_sys::RootFd;
use rustix::fs::{FileType, Mode, OFlags};
use tonic::Status;

pub(super) use crate::attach::Raw;
use crate::file_mode;
use crate::serve::{Dialogue, rest};
use crate::sync::as_path;
use crate::tree_list::TreeList;
use crate::tree_select::Selection;
use crate::wire::{BytesMessage, Packet, PacketType, ReadContentRequest, ReadContentResponse, Stat};

/// Bytes of one packet of content, as `fsutil` sends them.
const CHUNK_BYTES: usize = 32 << 10;

/// Names of files whose content was asked for.
#[derive(Debug, Clone, Default)]
pub struct SentNames(Arc<Mutex<Vec<PathBuf>>>);

impl SentNames {
    /// The names since the last call, sorted.
    #[must_use]
    pub fn take(&self) -> Vec<PathBuf> {
        let mut names = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        names.sort();
        names
    }

    fn push(&self, path: PathBuf) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(path);
    }
}

/// A directory that is served.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    sent: SentNames,
}

impl Directory {
    pub(super) fn new(path: &Path, sent: SentNames) -> Self {
        Self {
            path: path.to_owned(),
            sent,
        }
    }
}

/// Serves `FileSync.DiffCopy` as `fsutil.Send` does, one file after the other.
pub(super) async fn send(
    directories: &HashMap<String, Directory>,
    mut talk: Dialogue<Packet, Packet>,
) -> Result<(), Status> {
    let name = talk.header("dir-name");
    let directory = directories
        .get(&name)
        .ok_or_else(|| Status::not_found(format!("no access allowed to dir {name:?}")))?;
    let root = RootFd::open(&directory.path).map_err(|e| Status::internal(e.to_string()))?;
    let stats = list(&root)?;
    for stat in &stats {
        talk.say(Packet::entry(stat.clone())).await?;
    }
    talk.say(Packet::bare(PacketType::Stat)).await?;
    while let Some(packet) = talk.next().await? {
        match PacketType::try_from(packet.kind) {
            Ok(PacketType::Req) => {
                let stat = usize::try_from(packet.id).ok().and_then(|id| stats.get(id));
                let stat = stat.ok_or_else(|| Status::internal("invalid file id"))?;
                let path = as_path(&stat.path);
                directory.sent.push(path.clone());
                let bytes = read(&root, &path)?;
                for chunk in bytes.chunks(CHUNK_BYTES) {
                    talk.say(Packet::data(packet.id, bytes.slice_ref(chunk))).await?;
                }
                talk.say(Packet::data(packet.id, Bytes::new())).await?;
            }
            Ok(PacketType::Fin) => return talk.say(Packet::bare(PacketType::Fin)).await,
            Ok(PacketType::Err) => {
                let text = String::from_utf8_lossy(&packet.data).into_owned();
                return Err(Status::unknown(format!("error from receiver: {text}")));
            }
            _ => return Err(Status::internal("unexpected packet")),
        }
    }
    Err(Status::unknown("EOF"))
}

fn list(root: &RootFd) -> Result<Vec<Stat>, Status> {
    let fail = |e: crate::tree_list::ReadTreeError| Status::internal(e.to_string());
    let all = Selection::default();
    let mut list = TreeList::new(root, &all).map_err(fail)?;
    let mut stats = Vec::new();
    while let Some(mut stat) = list.next().map_err(fail)? {
        stat.uid = 0;
        stat.gid = 0;
        stats.push(stat);
    }
    Ok(stats)
}

fn read(root: &RootFd, path: &Path) -> Result<Bytes, Status> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = root
        .open_in(path, flags, Mode::empty())
        .map_err(|e| Status::internal(e.to_string()))?;
    let mut bytes = Vec::new();
    std::fs::File::from(fd)
        .read_to_end(&mut bytes)
        .map_err(|e| Status::internal(e.to_string()))?;
    Ok(Bytes::from(bytes))
}

/// What an exporter of the client takes.
#[derive(Debug)]
pub(super) enum Output {
    Bytes(Arc<Mutex<Vec<u8>>>),
    Tree(Arc<Mutex<ReceivedTree>>),
}

/// A tree that was received.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReceivedTree {
    /// Its entries in the order they came.
    pub entries: Vec<Stat>,
    /// Content of its files.
    pub content: BTreeMap<PathBuf, Vec<u8>>,
    /// Whether the server said that this is all there is.
    pub whole: bool,
}

/// Serves `FileSend.DiffCopy`.
pub(super) async fn receive(
    outputs: &HashMap<u32, Output>,
    mut talk: Dialogue<Raw, Raw>,
) -> Result<(), Status> {
    let id: u32 = talk
        .header("buildkit-attachable-exporter-id")
        .parse()
        .unwrap_or(0);
    match outputs.get(&id) {
        None => Err(Status::unknown(format!("exporter {id} not found"))),
        Some(Output::Bytes(bytes)) => {
            while let Some(Raw(message)) = talk.next().await? {
                let message = BytesMessage::decode(message).map_err(|e| Status::internal(e.to_string()))?;
                bytes
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend_from_slice(&message.data);
            }
            Ok(())
        }
        Some(Output::Tree(tree)) => {
            let mut received = receive_tree(&mut talk).await?;
            received.whole = talk.header("buildkit-exporter-multi-platform") == "1";
            *tree.lock().unwrap_or_else(PoisonError::into_inner) = received;
            Ok(())
        }
    }
}

async fn receive_tree(talk: &mut Dialogue<Raw, Raw>) -> Result<ReceivedTree, Status> {
    let mut tree = ReceivedTree::default();
    let mut open: HashMap<u32, PathBuf> = HashMap::new();
    let mut listed = false;
    while let Some(Raw(message)) = talk.next().await? {
        let packet = Packet::decode(message).map_err(|e| Status::internal(e.to_string()))?;
        match (PacketType::try_from(packet.kind), packet.stat) {
            (Ok(PacketType::Stat), Some(stat)) => {
                let id = u32::try_from(tree.entries.len()).map_err(|_| Status::internal("too many"))?;
                let is_file = file_mode::file_type(stat.mode) == Some(FileType::RegularFile);
                if is_file && stat.linkname.is_empty() {
                    open.insert(id, as_path(&stat.path));
                    say(talk, Packet::request(id)).await?;
                }
                tree.entries.push(stat);
            }
            (Ok(PacketType::Stat), None) => listed = true,
            (Ok(PacketType::Data), _) => {
                let path = open
                    .get(&packet.id)
                    .ok_or_else(|| Status::internal("unknown id"))?;
                tree.content
                    .entry(path.clone())
                    .or_default()
                    .extend_from_slice(&packet.data);
                if packet.data.is_empty() {
                    open.remove(&packet.id);
                }
            }
            (Ok(PacketType::Fin), _) => {
                rest(talk).await;
                return Ok(tree);
            }
            (Ok(PacketType::Err), _) => {
                let text = String::from_utf8_lossy(&packet.data).into_owned();
                return Err(Status::unknown(format!("error from sender: {text}")));
            }
            _ => return Err(Status::internal("unexpected packet")),
        }
        if listed && open.is_empty() {
            listed = false;
            say(talk, Packet::bare(PacketType::Fin)).await?;
        }
    }
    Err(Status::unknown("EOF"))
}

async fn say(talk: &Dialogue<Raw, Raw>, packet: Packet) -> Result<(), Status> {
    talk.say(Raw(Bytes::from(packet.encode_to_vec()))).await
}

/// Gives back what comes.
pub(super) async fn echo(mut talk: Dialogue<BytesMessage, BytesMessage>) -> Result<(), Status> {
    while let Some(message) = talk.next().await? {
        talk.say(message).await?;
    }
    Ok(())
}

pub(super) async fn upload(
    found: Option<Bytes>,
    key: String,
    talk: Dialogue<BytesMessage, BytesMessage>,
) -> Result<(), Status> {
    let bytes = found.ok_or_else(|| Status::unknown(format!("no http response from session for {key}")))?;
    for chunk in bytes.chunks(CHUNK_BYTES) {
        let data = bytes.slice_ref(chunk);
        talk.say(BytesMessage { data }).await?;
    }
    Ok(())
}

pub(super) async fn read_blob(
    blob: &Bytes,
    question: &ReadContentRequest,
    talk: &Dialogue<ReadContentRequest, ReadContentResponse>,
) -> Result<(), Status> {
    let number = |n: i64| usize::try_from(n).map_err(|_| Status::out_of_range("negative"));
    let start = number(question.offset)?.min(blob.len());
    let end = match question.size {
        0 => blob.len(),
        size => start.saturating_add(number(size)?).min(blob.len()),
    };
    let mut offset = 0;
    for chunk in blob[start..end].chunks(CHUNK_BYTES) {
        let data = blob.slice_ref(chunk);
        let length = i64::try_from(data.len()).unwrap_or(0);
        talk.say(ReadContentResponse { offset, data }).await?;
        offset += length;
    }
    Ok(())
}
