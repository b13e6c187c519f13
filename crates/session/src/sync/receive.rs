//! The receiving end on its thread: packets in, the directory changed, requests out (`fsutil/receive.go`).

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use rbuild_sys::RootFd;
use rustix::fs::FileType;
use tokio::sync::mpsc;

use crate::call::clip;
use crate::file_mode;
use crate::sync::disk::{Disk, NewFile, Placed};
use crate::sync::error::SyncError;
use crate::sync::metadata::{Listing, METADATA_FILE};
use crate::sync::order::{Order, as_path};
use crate::sync::{MetadataOnly, Queued, SyncLimits, SyncReport, SyncRequest};
use crate::wire::{Packet, PacketType, Stat};

/// Files that are held open while their content comes; BuildKit's client sends four at a time.
const OPEN_MAX: usize = 32;

pub(crate) struct Receiver {
    disk: Disk,
    order: Order,
    limits: SyncLimits,
    replies: mpsc::UnboundedSender<Packet>,
    /// Files whose content was asked for and is not complete.
    pending: HashMap<u32, Pending>,
    open: usize,
    listed: bool,
    surplus: u64,
    report: SyncReport,
    partial: Option<Partial>,
}

/// What a transfer of metadata keeps.
struct Partial {
    wants: MetadataOnly,
    listing: Listing,
    /// Directories above the last entry that are not made yet, as nothing in them is wanted so far.
    parents: Vec<Stat>,
}

struct Pending {
    file: NewFile,
    handle: Option<File>,
    written: u64,
}

impl Receiver {
    pub(crate) fn new(dest: RootFd, request: &SyncRequest, replies: mpsc::UnboundedSender<Packet>) -> Self {
        Self {
            disk: Disk::new(dest, request.differ, request.owner).keeping_others(request.keep_others),
            order: Order::new(),
            limits: request.limits,
            replies,
            pending: HashMap::new(),
            open: 0,
            listed: false,
            surplus: 0,
            report: SyncReport::default(),
            partial: request.metadata_only.clone().map(|wants| Partial {
                wants,
                listing: Listing::new(request.limits.list_bytes_max),
                parents: Vec::new(),
            }),
        }
    }

    /// Works until everything is here.
    pub(crate) fn run(mut self, mut packets: mpsc::Receiver<Queued>) -> Result<SyncReport, SyncError> {
        while !self.listed || !self.pending.is_empty() {
            let Some(queued) = packets.blocking_recv() else {
                return Err(SyncError::Ended);
            };
            self.packet(queued.packet)?;
        }
        if let Some(partial) = &self.partial {
            partial.listing.write(self.disk.root())?;
        }
        self.report.removed = self.disk.removed();
        Ok(self.report)
    }

    fn packet(&mut self, packet: Packet) -> Result<(), SyncError> {
        match PacketType::try_from(packet.kind) {
            Ok(PacketType::Stat) if self.listed => Err(SyncError::Unexpected("STAT")),
            Ok(PacketType::Stat) => match packet.stat {
                Some(stat) => self.entry(stat),
                None => {
                    self.listed = true;
                    self.disk.finish()
                }
            },
            Ok(PacketType::Data) => self.data(packet.id, &packet.data),
            Ok(PacketType::Err) => Err(SyncError::Sender(clip(&String::from_utf8_lossy(&packet.data)))),
            Ok(PacketType::Fin) => Err(SyncError::Unexpected("FIN")),
            Ok(PacketType::Req) => Err(SyncError::Unexpected("REQ")),
            Err(_) => Err(SyncError::Unexpected("of unknown type")),
        }
    }

    fn entry(&mut self, stat: Stat) -> Result<(), SyncError> {
        let id = self.report.entries;
        if id >= self.limits.entries_max {
            return Err(SyncError::TooMuch {
                what: "entries",
                max: self.limits.entries_max.into(),
            });
        }
        self.report.entries += 1;
        let Some(kind) = file_mode::file_type(stat.mode) else {
            return Err(SyncError::Mode {
                path: as_path(&stat.path),
                mode: stat.mode,
            });
        };
        self.order.take(&stat.path, kind == FileType::Directory)?;
        let Some(partial) = &mut self.partial else {
            return self.place(id, kind, &stat);
        };
        if stat.path == METADATA_FILE.as_bytes() {
            return Ok(());
        }
        partial.listing.push(&stat)?;
        let is_below = |dir: &Stat| {
            stat.path
                .strip_prefix(dir.path.as_slice())
                .is_some_and(|rest| rest.starts_with(b"/"))
        };
        while partial.parents.last().is_some_and(|dir| !is_below(dir)) {
            partial.parents.pop();
        }
        if !partial.wants.wants(Path::new(&as_path(&stat.path))) {
            if kind == FileType::Directory {
                partial.parents.push(stat);
            }
            return Ok(());
        }
        for parent in std::mem::take(&mut partial.parents) {
            self.place(id, FileType::Directory, &parent)?;
        }
        self.place(id, kind, &stat)
    }

    fn place(&mut self, id: u32, kind: FileType, stat: &Stat) -> Result<(), SyncError> {
        match self.disk.place(kind, stat)? {
            Placed::Unchanged => self.report.unchanged += 1,
            Placed::Made => {}
            Placed::Empty(file) => {
                self.report.requested += 1;
                let pending = Pending {
                    file,
                    handle: None,
                    written: 0,
                };
                self.pending.insert(id, pending);
                // If nobody takes it the stream is over, and that is found where packets are read.
                self.replies.send(Packet::request(id)).ok();
            }
        }
        Ok(())
    }

    fn data(&mut self, id: u32, data: &[u8]) -> Result<(), SyncError> {
        let Some(pending) = self.pending.get_mut(&id) else {
            return Err(SyncError::UnknownId(id));
        };
        if pending.handle.is_none() {
            pending.handle = Some(self.disk.open_new(&pending.file, pending.written)?);
            self.open += 1;
        }
        if data.is_empty() {
            if let Some(done) = self.pending.remove(&id) {
                self.open -= 1;
                if let Some(handle) = &done.handle {
                    self.disk.complete(&done.file, handle)?;
                }
            }
            return Ok(());
        }
        let length = data.len() as u64;
        let announced_left = pending.file.size.saturating_sub(pending.written);
        self.report.bytes += length;
        self.surplus += length.saturating_sub(announced_left);
        for (what, used, max) in [
            ("bytes", self.report.bytes, self.limits.bytes_max),
            (
                "bytes beyond the announced sizes",
                self.surplus,
                self.limits.surplus_bytes_max,
            ),
        ] {
            if used > max {
                return Err(SyncError::TooMuch { what, max });
            }
        }
        if let Some(handle) = &mut pending.handle {
            handle.write_all(data).map_err(|source| SyncError::Io {
                verb: "write",
                path: pending.file.path(),
                source,
            })?;
        }
        pending.written += length;
        if self.open > OPEN_MAX {
            self.close_others(id);
        }
        Ok(())
    }

    /// Closes what was opened and is not being written just now; a client that mixes many files gets them opened
    /// again.
    fn close_others(&mut self, id: u32) {
        for (other, pending) in &mut self.pending {
            if *other != id && pending.handle.take().is_some() {
                self.open -= 1;
            }
        }
    }
}
