//! What is known about one entry of an image, in a form that two builders can be compared by.
//!
//! Times are left out on purpose: a build happens when it happens. What a time must be is asked by its own tests.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest as _, Sha256};

/// Contents up to this many bytes are shown as they are, so that a difference can be read.
const SHOWN_BYTES_MAX: usize = 1024;

/// Type of an entry and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File(Content),
    /// Directory.
    Dir,
    /// Symbolic link and its target.
    Symlink(String),
    /// Hard link inside one layer, and the name it points at.
    HardLink(String),
    /// Character device.
    Char(u32, u32),
    /// Block device.
    Block(u32, u32),
    /// Named pipe.
    Fifo,
}

/// Bytes of a regular file.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// Length in bytes.
    pub size_bytes: u64,
    /// Lower-case hex of the SHA-256.
    pub sha256: String,
    /// The text itself when it is short UTF-8.
    pub text: Option<String>,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => write!(f, "{text:?}"),
            None => write!(f, "{} bytes sha256:{}", self.size_bytes, self.sha256),
        }
    }
}

impl Content {
    /// Facts of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let text = if bytes.len() <= SHOWN_BYTES_MAX {
            std::str::from_utf8(bytes).ok()
        } else {
            None
        };
        Self {
            size_bytes: bytes.len() as u64,
            sha256: sha256_hex(bytes),
            text: text.map(str::to_owned),
        }
    }
}

/// One entry of a layer or of a flattened image.
#[derive(Clone, PartialEq, Eq)]
pub struct FileFacts {
    /// Type, and content, target or device.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u64,
    /// Numeric group.
    pub gid: u64,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Modification time, seconds; not part of [`fmt::Display`].
    pub mtime: u64,
}

impl fmt::Debug for FileFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for FileFacts {
    /// The line that recorded expectations hold: type, mode, owner, content, attributes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.kind {
            Kind::File(_) => 'f',
            Kind::Dir => 'd',
            Kind::Symlink(_) => 'l',
            Kind::HardLink(_) => 'h',
            Kind::Char(..) => 'c',
            Kind::Block(..) => 'b',
            Kind::Fifo => 'p',
        };
        // The mode of a symbolic link means nothing on Linux, and writers differ in what they put there.
        match self.kind {
            Kind::Symlink(_) => write!(f, "{letter} {}:{}", self.uid, self.gid)?,
            _ => write!(f, "{letter} {:04o} {}:{}", self.mode, self.uid, self.gid)?,
        }
        match &self.kind {
            Kind::File(content) => write!(f, " {content:?}")?,
            Kind::Symlink(target) => write!(f, " -> {target}")?,
            Kind::HardLink(target) => write!(f, " = {target}")?,
            Kind::Char(major, minor) | Kind::Block(major, minor) => write!(f, " {major}:{minor}")?,
            Kind::Dir | Kind::Fifo => {}
        }
        for (name, value) in &self.xattrs {
            write!(f, " [{name}={}]", hex(value))?;
        }
        Ok(())
    }
}

/// Lower-case hex of the SHA-256 of `bytes`.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
            text
        })
}
