//! A tar builder that writes whatever it is told, right or wrong.

use rbuild_layer::{Entry, EntryKind, Time};

/// An entry of root's of which only place and kind matter.
pub(crate) fn entry(path: &(impl AsRef<[u8]> + ?Sized), kind: EntryKind) -> Entry {
    Entry {
        path: path.as_ref().to_vec(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time::EPOCH,
        xattrs: Vec::new(),
    }
}

/// An archive under construction.
#[derive(Default, Clone)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

/// One header block; the checksum is set last.
#[derive(Clone)]
pub(crate) struct Block(pub(crate) [u8; 512]);

impl Block {
    pub(crate) fn new(name: &[u8], flag: u8, size: u64) -> Self {
        let mut block = Self([0; 512]);
        block.put(0, &name[..name.len().min(100)]);
        block.put(100, b"0000644\0");
        block.put(108, b"0000000\0");
        block.put(116, b"0000000\0");
        block.put(124, format!("{size:011o}\0").as_bytes());
        block.put(136, b"00000000000\0");
        block.0[156] = flag;
        block.put(257, b"ustar\x0000");
        block.put(329, b"0000000\0");
        block.put(337, b"0000000\0");
        block
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn link(mut self, target: &[u8]) -> Self {
        self.put(157, &target[..target.len().min(100)]);
        self
    }

    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.put(100, format!("{mode:07o}\0").as_bytes());
        self
    }

    pub(crate) fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.put(108, format!("{uid:07o}\0").as_bytes());
        self.put(116, format!("{gid:07o}\0").as_bytes());
        self
    }

    pub(crate) fn mtime(mut self, seconds: u64) -> Self {
        self.put(136, format!("{seconds:011o}\0").as_bytes());
        self
    }

    pub(crate) fn device(mut self, major: u32, minor: u32) -> Self {
        self.put(329, format!("{major:07o}\0").as_bytes());
        self.put(337, format!("{minor:07o}\0").as_bytes());
        self
    }

    pub(crate) fn prefix(mut self, prefix: &[u8]) -> Self {
        self.put(345, prefix);
        self
    }

    pub(crate) fn sealed(mut self) -> [u8; 512] {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|b| u32::from(*b)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

/// `"<length> <key>=<value>\n"`.
pub(crate) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body;
    while body + length.to_string().len() != length {
        length = body + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

impl Tar {
    pub(crate) fn block(mut self, block: Block) -> Self {
        self.0.extend_from_slice(&block.sealed());
        self
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn content(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &[u8], content: &[u8]) -> Self {
        self.block(Block::new(name, b'0', content.len() as u64))
            .content(content)
    }

    pub(crate) fn dir(self, name: &[u8]) -> Self {
        self.block(Block::new(name, b'5', 0).mode(0o755))
    }

    pub(crate) fn symlink(self, name: &[u8], target: &[u8]) -> Self {
        self.block(Block::new(name, b'2', 0).link(target))
    }

    pub(crate) fn hardlink(self, name: &[u8], target: &[u8]) -> Self {
        self.block(Block::new(name, b'1', 0).link(target))
    }

    pub(crate) fn pax(self, records: &[Vec<u8>]) -> Self {
        let body = records.concat();
        self.block(Block::new(b"PaxHeaders.0/x", b'x', body.len() as u64))
            .content(&body)
    }

    pub(crate) fn long(self, flag: u8, name: &[u8]) -> Self {
        let body = [name, b"\0"].concat();
        let mut block = Block::new(b"././@LongLink", flag, body.len() as u64);
        block.put(257, b"ustar  \0");
        self.block(block).content(&body)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}
