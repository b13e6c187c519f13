//! A layer directory to a layer tar, equal byte for byte to the one BuildKit makes of the same directory.
//!
//! BuildKit walks the overlay's upper directory in lexical order and compares each entry with the merged view of the
//! layers below (util/overlay/overlay_linux.go): a whiteout of nothing is left out, a directory that did not change is
//! written only when something in it is, and an opaque directory becomes whiteouts of what it hides, one by one.
//! With [`WriteOptions::lower`] so does this. Without it every whiteout is written, every directory too, and an
//! opaque directory is followed by `.wh..wh..opq`: the same files for whoever unpacks it, other bytes.
//!
//! Walks with descriptors, without recursion and without one descriptor per level: the way back up is `..`, checked
//! by device and inode. Only attributes of the form in use mean anything; none of overlayfs' own are ever written.

mod apart;
mod changes;
mod compare;
mod merge;
mod sink;
mod source;
mod unmark;
mod walk;

pub use apart::copy_layer;
pub use changes::{Upper, is_explicit, link_changes, link_tree};
pub use merge::{Contents, fold_layers, link_touched, merge_layers};

use std::io::{self, Write};
use std::os::fd::BorrowedFd;

use rbuild_sys::RootFd;
use rbuild_sys::overlay::Form;
use rustix::io::Errno;

use crate::entry::Entry;
use crate::reader::printable;
use crate::writer::{TarWriteError, TarWriter};
use sink::{Sink as _, TarSink};

/// Which extended attributes go into a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ExportedXattrs {
    /// `security.capability` alone: what BuildKit's layers have (containerd, pkg/archive/tar.go, `HandleChange`).
    #[default]
    Capability,
    /// `user.*` as well.
    CapabilityAndUser,
}

/// How to write a layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteOptions<'a> {
    /// Merged view of the layers below, for the bytes BuildKit would write.
    pub lower: Option<&'a RootFd>,
    /// No entry of a layer is newer than this, in seconds since 1970 (`SOURCE_DATE_EPOCH` with rewritten times). Whiteouts
    /// are of 1970.
    pub newest_mtime: Option<i64>,
    /// Every file of a whole file system has this time, in seconds since 1970.
    pub mtime: Option<i64>,
    /// Which extended attributes are written.
    pub xattrs: ExportedXattrs,
    /// Further names of changed files that did not change themselves, as [`link_changes`] gave them: an archive has
    /// them after the others.
    pub late: Option<&'a LateLinks>,
}

/// Paths of names that are in a layer only because the same file has a name there that changed.
pub type LateLinks = std::collections::BTreeSet<Vec<u8>>;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the tar.
    pub bytes: u64,
    /// Entries in it.
    pub entries: u64,
}

/// Why a layer could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The archive could not be written, or cannot hold an entry.
    #[error(transparent)]
    Tar(#[from] TarWriteError),
    /// The kernel refused.
    #[error("layer file {path:?}: {verb}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// Path in the layer, printable.
        path: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// overlayfs moved a directory or kept only metadata; the mount must have both switched off.
    #[error("layer file {path:?} depends on overlayfs' {attribute}")]
    NotSelfContained {
        /// Path in the layer, printable.
        path: String,
        /// The attribute that says so.
        attribute: &'static str,
    },
    /// Something changed the layer while it was read.
    #[error("layer file {path:?} changed while it was read")]
    Changed {
        /// Path in the layer, printable.
        path: String,
    },
}

impl WriteError {
    /// Whether a file cannot have one more name where that was to be: it is of another file system, or has all the names
    /// it may have.
    #[must_use]
    pub fn is_unlinkable(&self) -> bool {
        let Self::Io { source, .. } = self else {
            return false;
        };
        let errno = Errno::from_io_error(source);
        errno.is_some_and(|errno| matches!(errno, Errno::XDEV | Errno::MLINK))
    }
}

/// Writes the layer directory `layer` as a tar to `out`.
///
/// # Errors
/// [`WriteError`], among them [`TarWriteError::Time`] if what is asked to be rewritten cannot be; `out` holds a useless beginning then.
pub fn write_tar(
    layer: BorrowedFd<'_>,
    form: Form,
    options: &WriteOptions<'_>,
    out: impl Write,
) -> Result<Written, WriteError> {
    let sink = sink_to(out).not_newer(options.newest_mtime);
    let walked = walk::Walk::new(layer, form, options, sink)?.run()?;
    end(walked.sink, walked.entries)
}

/// Writes whole file systems as one tar, each below a directory of its own (`linux_amd64`) if that has a name, in this order.
/// Marks of overlayfs in them are no marks: who sees them was shown files that a step marked itself.
///
/// # Errors
/// [`WriteError`]; `out` holds a useless beginning then.
pub fn write_trees(
    trees: &[(String, BorrowedFd<'_>)],
    form: Form,
    options: &WriteOptions<'_>,
    out: impl Write,
) -> Result<Written, WriteError> {
    let mut sink = sink_to(out);
    let mut entries = 0;
    for (name, tree) in trees {
        let walk = walk::Walk::new(*tree, form, options, sink)?.whole();
        let walk = if name.is_empty() { walk } else { walk.below(name)? };
        let walked = walk.run()?;
        sink = walked.sink;
        entries += walked.entries;
    }
    end(sink, entries)
}

/// A layer's archive that is written entry by entry, in the order of a walk: by those who have no layer directory.
#[derive(Debug)]
pub struct LayerTar<W: Write> {
    sink: TarSink<io::BufWriter<W>>,
    entries: u64,
}

impl<W: Write> LayerTar<W> {
    /// An archive that goes to `out`.
    pub fn new(out: W) -> Self {
        Self {
            sink: sink_to(out),
            entries: 0,
        }
    }

    /// Writes an entry without content. The path of a directory ends in a slash.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn entry(&mut self, entry: &Entry) -> Result<(), WriteError> {
        self.entries += 1;
        self.sink.entry(entry)
    }

    /// Writes a regular file of `size` bytes, read from where `fd` stands.
    ///
    /// # Errors
    /// [`WriteError::Changed`] if it has fewer by now, and the others.
    pub fn file(&mut self, entry: &Entry, fd: BorrowedFd<'_>, size: u64) -> Result<(), WriteError> {
        self.entry(entry)?;
        self.sink.content(fd, size, &entry.path)
    }

    /// Entries written so far.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn finish(self) -> Result<Written, WriteError> {
        end(self.sink, self.entries)
    }
}

fn sink_to<W: Write>(out: W) -> TarSink<io::BufWriter<W>> {
    TarSink::new(TarWriter::new(io::BufWriter::with_capacity(
        OUT_BUFFER_BYTES,
        out,
    )))
}

fn end<W: Write>(sink: TarSink<io::BufWriter<W>>, entries: u64) -> Result<Written, WriteError> {
    let bytes = sink.writer.bytes();
    let mut buffered = sink.writer.finish()?;
    buffered.flush().map_err(TarWriteError::Io)?;
    Ok(Written {
        bytes: bytes + TRAILER_BYTES,
        entries,
    })
}

const OUT_BUFFER_BYTES: usize = 128 << 10;
const TRAILER_BYTES: u64 = 1024;

fn failed(verb: &'static str, path: &[u8], errno: Errno) -> WriteError {
    WriteError::Io {
        verb,
        path: printable(path),
        source: errno.into(),
    }
}
