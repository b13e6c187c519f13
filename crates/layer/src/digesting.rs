//! Streams that are hashed as they pass.

use std::io::{self, Read, Write};

use rbuild_oci::Digest;
use sha2::{Digest as _, Sha256};

/// Passes bytes on and keeps their number and SHA-256.
#[derive(Debug)]
pub(crate) struct Digesting<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
}

impl<T> Digesting<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    /// The stream below.
    pub(crate) const fn inner_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// The digest of what passed until now.
    pub(crate) fn digest(&self) -> Digest {
        Digest::from_sha256(self.hash.clone().finalize().into())
    }

    /// The stream below, the digest and the number of bytes that passed.
    pub(crate) fn finish(self) -> (T, Digest, u64) {
        (
            self.inner,
            Digest::from_sha256(self.hash.finalize().into()),
            self.bytes,
        )
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.hash.update(&out[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
