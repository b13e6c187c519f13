//! The sending end on its thread: the lists of all trees, then the files the client asks for.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::iter::Peekable;
use std::os::fd::AsFd as _;
use std::vec::IntoIter;

use prost::bytes::{Bytes, BytesMut};
use rustix::fs::{FileType, OFlags};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{ExtraFile, SendTreeError, SendTreeReport, TreeSource};
use crate::beneath::{self, join};
use crate::file_mode;
use crate::tree_list::{ReadTreeError, TreeList, fail};
use crate::wire::{Packet, PacketType, Stat};

/// Bytes of one packet of content; BuildKit's own sender has half of that.
const CHUNK_BYTES: usize = 64 << 10;
/// Most entries of a list: what our own receiving end takes.
const ENTRIES_MAX: u32 = 4_000_000;
/// Mode of a directory that holds one platform (`exporter/local/export.go`).
const PREFIX_MODE: u32 = 0o040_755;

/// What the client wants.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Command {
    /// The content of an entry.
    Send(u32),
    /// Nothing more.
    Finish,
}

/// Where packets for the client go.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) runtime: Handle,
    pub(crate) packets: mpsc::Sender<Packet>,
    /// Cancelled when nobody takes them any more.
    pub(crate) over: CancellationToken,
}

impl Outlet {
    /// Waits until there is room.
    fn send(&self, packet: Packet) -> Result<(), SendTreeError> {
        let packet = match self.packets.try_send(packet) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Full(packet)) => packet,
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(SendTreeError::Ended),
        };
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.over.cancelled() => Err(SendTreeError::Ended),
                sent = self.packets.send(packet) => sent.map_err(|_| SendTreeError::Ended),
            }
        })
    }
}

/// Where the content of an entry is.
#[derive(Debug)]
enum Content {
    /// In a tree, under this path.
    File { tree: usize, path: Box<[u8]> },
    /// Here.
    Extra(Bytes),
}

pub(crate) struct Worker<P> {
    trees: Vec<TreeSource>,
    outlet: Outlet,
    progress: P,
    /// Files that may be asked for, by their place in the list.
    content: HashMap<u32, Content>,
    report: SendTreeReport,
}

impl<P: FnMut(u64)> Worker<P> {
    pub(crate) fn new(
        mut trees: Vec<TreeSource>,
        outlet: Outlet,
        progress: P,
    ) -> Result<Self, SendTreeError> {
        trees.sort_by(|a, b| a.prefix.cmp(&b.prefix));
        let several = trees.len() > 1;
        let mut seen = HashSet::new();
        for tree in &mut trees {
            tree.extra.sort_by(|a, b| a.name.cmp(&b.name));
            if several || tree.prefix.is_some() {
                check_name(tree.prefix.as_deref().unwrap_or_default(), &mut seen)?;
            }
            let mut names = HashSet::new();
            for file in &tree.extra {
                check_name(&file.name, &mut names)?;
            }
        }
        Ok(Self {
            trees,
            outlet,
            progress,
            content: HashMap::new(),
            report: SendTreeReport::default(),
        })
    }

    pub(crate) fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
    ) -> Result<SendTreeReport, SendTreeError> {
        let trees = std::mem::take(&mut self.trees);
        for (index, tree) in trees.iter().enumerate() {
            self.list(index, tree)?;
        }
        self.outlet.send(Packet::bare(PacketType::Stat))?;
        loop {
            match commands.blocking_recv() {
                None => return Err(SendTreeError::Ended),
                Some(Command::Send(id)) => self.send(id, &trees)?,
                Some(Command::Finish) => {
                    self.outlet.send(Packet::bare(PacketType::Fin))?;
                    return Ok(self.report);
                }
            }
        }
    }

    fn list(&mut self, index: usize, tree: &TreeSource) -> Result<(), SendTreeError> {
        let prefix = tree.prefix.as_deref().unwrap_or_default().as_bytes();
        if !prefix.is_empty() {
            let dir = Stat {
                path: prefix.to_vec(),
                mode: file_mode::from_raw(PREFIX_MODE),
                mod_time: tree.mod_time.unwrap_or(0),
                ..Stat::default()
            };
            self.announce(dir, None)?;
        }
        let mut extra = tree.extra.clone().into_iter().peekable();
        let mut list = TreeList::new(&tree.root, &tree.selection)?;
        let mut replaced = None;
        while let Some(mut stat) = list.next()? {
            let top = stat
                .path
                .split(|b| *b == b'/')
                .next()
                .unwrap_or_default()
                .to_vec();
            self.announce_extra(prefix, &mut extra, Some(&top), &mut replaced, tree.mod_time)?;
            if replaced.as_ref() == Some(&top) {
                continue;
            }
            let path = stat.path.clone();
            put_below(prefix, &mut stat);
            if let Some(time) = tree.mod_time {
                stat.mod_time = time;
            }
            let is_file = file_mode::file_type(stat.mode) == Some(FileType::RegularFile);
            let content = is_file.then(|| Content::File {
                tree: index,
                path: path.into(),
            });
            self.announce(stat, content)?;
        }
        self.announce_extra(prefix, &mut extra, None, &mut replaced, tree.mod_time)
    }

    /// Announces the extra files up to `top`, the name at the top of the tree that comes next.
    fn announce_extra(
        &mut self,
        prefix: &[u8],
        extra: &mut Peekable<IntoIter<ExtraFile>>,
        top: Option<&[u8]>,
        replaced: &mut Option<Vec<u8>>,
        mod_time: Option<i64>,
    ) -> Result<(), SendTreeError> {
        while let Some(file) = extra.next_if(|file| top.is_none_or(|top| file.name.as_bytes() <= top)) {
            let stat = Stat {
                path: join(prefix, file.name.as_bytes()),
                mode: file.mode & 0o777,
                size: i64::try_from(file.data.len()).unwrap_or(i64::MAX),
                mod_time: mod_time.unwrap_or(file.mod_time),
                ..Stat::default()
            };
            *replaced = Some(file.name.into_bytes());
            self.announce(stat, Some(Content::Extra(file.data)))?;
        }
        Ok(())
    }

    fn announce(&mut self, stat: Stat, content: Option<Content>) -> Result<(), SendTreeError> {
        let id = self.report.entries;
        if id >= ENTRIES_MAX {
            return Err(SendTreeError::TooMany(ENTRIES_MAX));
        }
        self.report.entries += 1;
        if let Some(content) = content {
            self.content.insert(id, content);
        }
        self.outlet.send(Packet::entry(stat))
    }

    fn send(&mut self, id: u32, trees: &[TreeSource]) -> Result<(), SendTreeError> {
        let content = self.content.remove(&id).ok_or(SendTreeError::UnknownId(id))?;
        self.report.files += 1;
        match content {
            Content::Extra(data) => {
                for chunk in data.chunks(CHUNK_BYTES) {
                    self.chunk(id, data.slice_ref(chunk))?;
                }
            }
            Content::File { tree, path } => self.send_file(id, &trees[tree], &path)?,
        }
        self.outlet.send(Packet::data(id, Bytes::new()))
    }

    fn send_file(&mut self, id: u32, tree: &TreeSource, path: &[u8]) -> Result<(), SendTreeError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let probe =
            beneath::open(tree.root.as_fd(), path, OFlags::PATH).map_err(|e| fail("open", path, e))?;
        let status = rustix::fs::fstat(&probe).map_err(|e| fail("stat", path, e))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            // A socket, which is announced as an empty file.
            return Ok(());
        }
        let mut file =
            File::from(beneath::open(tree.root.as_fd(), path, flags).map_err(|e| fail("open", path, e))?);
        let mut buffer = BytesMut::new();
        loop {
            buffer.resize(CHUNK_BYTES, 0);
            let length = file.read(&mut buffer).map_err(|source| ReadTreeError {
                verb: "read",
                path: crate::sync::as_path(path),
                source,
            })?;
            if length == 0 {
                return Ok(());
            }
            self.chunk(id, buffer.split_to(length).freeze())?;
        }
    }

    fn chunk(&mut self, id: u32, data: Bytes) -> Result<(), SendTreeError> {
        self.report.bytes += data.len() as u64;
        (self.progress)(self.report.bytes);
        self.outlet.send(Packet::data(id, data))
    }
}

/// Moves an entry below a directory; absolute links then lead into that too (`fsutil/fs.go`, `SubDirFS`).
fn put_below(prefix: &[u8], stat: &mut Stat) {
    if prefix.is_empty() {
        return;
    }
    stat.path = join(prefix, &stat.path);
    let is_link = file_mode::file_type(stat.mode) == Some(FileType::Symlink);
    if is_link && stat.linkname.starts_with(b"/") {
        let mut target = b"/".to_vec();
        target.extend_from_slice(prefix);
        target.extend_from_slice(&stat.linkname);
        stat.linkname = target;
    } else if !is_link && !stat.linkname.is_empty() {
        stat.linkname = join(prefix, &stat.linkname);
    }
}

fn check_name(name: &str, seen: &mut HashSet<String>) -> Result<(), SendTreeError> {
    let bad = matches!(name, "" | "." | "..") || name.contains(['/', '\0']);
    if bad || !seen.insert(name.to_owned()) {
        return Err(SendTreeError::Name(name.to_owned()));
    }
    Ok(())
}
