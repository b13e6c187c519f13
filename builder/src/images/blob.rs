//! Layers' blobs: brought into the store from where the image is, and shown while they come.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rbuild_oci::{Algorithm, Descriptor};
use rbuild_registry::{BlobSink, Progress};
use rbuild_store::{BlobWriter, DiskError, Lease};

use super::follow::Ahead;
use super::{Images, Origin, layout, repositories};
use crate::ops::blocking;
use crate::pull::PullError;
use crate::solve::Reporter;

impl Images {
    /// Makes sure that a blob is in the store, and shows how it comes.
    ///
    /// # Errors
    /// [`PullError`].
    pub(crate) async fn fetch_shown(
        &self,
        lease: &Arc<Lease>,
        origin: &Origin,
        descriptor: &Descriptor,
        reporter: Option<&Reporter>,
    ) -> Result<(), PullError> {
        self.fetch_followed(lease, origin, descriptor, reporter, None)
            .await
    }

    /// The same, with somebody who reads a blob while it comes from a registry, and only then.
    ///
    /// # Errors
    /// [`PullError`].
    pub(crate) async fn fetch_followed(
        &self,
        lease: &Arc<Lease>,
        origin: &Origin,
        descriptor: &Descriptor,
        reporter: Option<&Reporter>,
        ahead: Option<Ahead>,
    ) -> Result<(), PullError> {
        if lease.hold_blob(&descriptor.digest)? {
            return Ok(());
        }
        let (started, id) = (SystemTime::now(), descriptor.digest.to_string());
        let shown = reporter.cloned();
        let progress: Progress = Arc::new(move |current, total| {
            if let Some(reporter) = &shown {
                reporter.status(&id, current, total, started, current == total);
            }
        });
        progress(0, descriptor.size);
        self.fetch_blob(lease, origin, descriptor, &progress, ahead)
            .await?;
        progress(descriptor.size, descriptor.size);
        Ok(())
    }

    /// Brings a blob into the store. `progress` hears of the bytes so far and in all.
    ///
    /// # Errors
    /// [`PullError`].
    async fn fetch_blob(
        &self,
        lease: &Arc<Lease>,
        origin: &Origin,
        descriptor: &Descriptor,
        progress: &Progress,
        ahead: Option<Ahead>,
    ) -> Result<(), PullError> {
        let digest = descriptor.digest.clone();
        match origin {
            Origin::Store => {
                let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
                Err(PullError::Layout { digest, source: gone })
            }
            Origin::Layout(dir) => {
                let (lease, dir, descriptor) = (Arc::clone(lease), dir.clone(), descriptor.clone());
                blocking(move || copy_blob(&lease, &dir, &descriptor)).await
            }
            Origin::Session(from) => from.fetch(lease, descriptor, progress).await,
            Origin::Registry(reference) => {
                let mut sink = StoreSink::new(lease, digest.algorithm(), ahead)?;
                let fetched = self
                    .client
                    .fetch_blob_to(reference, descriptor, &mut sink, progress)
                    .await;
                let from = fetched.map_err(|source| PullError::Fetch { digest, source })?;
                sink.commit(descriptor)?;
                repositories::note(&self.store, &descriptor.digest, &from);
                Ok(())
            }
            Origin::Service(service) => {
                let mut sink = StoreSink::new(lease, digest.algorithm(), ahead)?;
                let fetched = service.fetch(descriptor, &mut sink, progress).await;
                fetched.map_err(|source| PullError::Service { digest, source })?;
                sink.commit(descriptor)
            }
        }
    }
}

/// A blob of the store being written by a download, which may begin anew.
struct StoreSink<'l> {
    lease: &'l Lease,
    algorithm: Algorithm,
    writer: BlobWriter<'l>,
    ahead: Option<Ahead>,
}

impl<'l> StoreSink<'l> {
    fn new(lease: &'l Lease, algorithm: Algorithm, ahead: Option<Ahead>) -> Result<Self, DiskError> {
        Ok(Self {
            lease,
            algorithm,
            writer: lease.store().blob_writer_with(lease, algorithm)?,
            ahead,
        })
    }

    /// Names what was written, and tells who followed it.
    fn commit(self, descriptor: &Descriptor) -> Result<(), PullError> {
        let digest = &descriptor.digest;
        let committed = self.writer.commit(Some(digest), Some(descriptor.size));
        committed.map_err(|source| PullError::Commit {
            digest: digest.clone(),
            source,
        })?;
        if let Some(ahead) = self.ahead {
            ahead.written(descriptor.size);
            ahead.end();
        }
        Ok(())
    }
}

impl BlobSink for StoreSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let before = self.writer.size_so_far();
        self.writer.write_all(bytes)?;
        let now = self.writer.size_so_far();
        if let Some(ahead) = self.ahead.as_ref().filter(|_| now > before) {
            if before == 0 {
                ahead.begin(self.writer.file_so_far()?);
            }
            ahead.written(now);
        }
        Ok(())
    }

    fn restart(&mut self) -> std::io::Result<()> {
        self.writer = self
            .lease
            .store()
            .blob_writer_with(self.lease, self.algorithm)
            .map_err(std::io::Error::other)?;
        Ok(())
    }
}

fn copy_blob(lease: &Lease, dir: &Path, descriptor: &Descriptor) -> Result<(), PullError> {
    let digest = descriptor.digest.clone();
    let fail = |source| PullError::Layout {
        digest: digest.clone(),
        source,
    };
    let mut file = layout::open_blob(dir, &digest).map_err(fail)?;
    let mut writer = lease.store().blob_writer_with(lease, digest.algorithm())?;
    let mut buffer = vec![0; 1 << 20];
    let mut left = descriptor.size.saturating_add(1);
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match file.read(&mut buffer[..most]).map_err(fail)? {
            0 => break,
            count => {
                writer.write_all(&buffer[..count]).map_err(fail)?;
                left -= count as u64;
            }
        }
    }
    let committed = writer.commit(Some(&digest), Some(descriptor.size));
    committed.map(drop).map_err(|source| PullError::Commit {
        digest: digest.clone(),
        source,
    })
}
