//! Where archives of images are written to: a stream that may be told to take a whole file.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Write};

/// What is read of a file at once where the kernel does not copy it, in bytes.
const COPY_BYTES: usize = 256 * 1024;

/// A stream that takes files.
pub trait ArchiveOut: Write {
    /// Appends the first `len` bytes of `file`; how many there were. One that writes to a file itself has the kernel copy them.
    ///
    /// # Errors
    /// The kernel's, of reading or writing.
    fn append_file(&mut self, file: &File, len: u64) -> io::Result<u64>;
}

/// Any stream.
pub(crate) struct Plain<'a>(pub(crate) &'a mut dyn Write);

impl Write for Plain<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl ArchiveOut for Plain<'_> {
    fn append_file(&mut self, file: &File, len: u64) -> io::Result<u64> {
        append_through(&mut self.0, file, len)
    }
}

/// Appends the first `len` bytes of `file` to `out` through memory of this process.
///
/// # Errors
/// Those of reading and writing.
pub(super) fn append_through(out: &mut dyn Write, file: &File, len: u64) -> io::Result<u64> {
    io::copy(&mut BufReader::with_capacity(COPY_BYTES, file.take(len)), out)
}
