//! Where an exporter's stream goes: standard output, or a file that appears whole or not at all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::client::{Client, ClientStream, OutputError};
use crate::ops::blocking;
use crate::request::Destination;

/// Why a destination could not be written.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// A file of this machine.
    #[error("write {path:?}")]
    File {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The client.
    #[error(transparent)]
    Client(#[from] OutputError),
}

/// An open destination. Nothing is seen under its name before [`Writer::commit`].
pub struct Writer {
    target: Target,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

enum Target {
    Stdout(BufWriter<io::Stdout>),
    /// A device or pipe: written as it is, since renaming over it would take it away from everybody.
    Special {
        file: BufWriter<File>,
        path: PathBuf,
    },
    File {
        file: BufWriter<File>,
        partial: Partial,
        path: PathBuf,
    },
    Client(BufWriter<Box<dyn ClientStream>>),
}

/// A half-written file, removed unless it is kept.
#[derive(Debug)]
struct Partial(Option<PathBuf>);

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = std::fs::remove_file(&path)
        {
            // Nothing waits for this: the file is beside its destination under a name that says what it is.
            debug_assert_eq!(error.kind(), io::ErrorKind::NotFound, "{path:?}");
        }
    }
}

const BUFFER_BYTES: usize = 256 * 1024;

impl Writer {
    /// Opens `destination`; `metadata` is what the client is told of the stream.
    ///
    /// # Errors
    /// The kernel's with the path, or the client's.
    pub async fn to(
        client: &dyn Client,
        destination: &Destination,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self, DestinationError> {
        if let Destination::Client(exporter) = destination {
            let stream = client.stream(*exporter, metadata).await?;
            return Ok(Self {
                target: Target::Client(BufWriter::with_capacity(BUFFER_BYTES, stream)),
            });
        }
        let destination = destination.clone();
        blocking(move || Self::open(&destination)).await
    }

    /// Opens a destination on this machine, making missing parents of a file.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn open(destination: &Destination) -> Result<Self, DestinationError> {
        let target = match destination {
            Destination::Client(exporter) => return Err(OutputError::NoClient(*exporter).into()),
            Destination::Stdout => Target::Stdout(BufWriter::with_capacity(BUFFER_BYTES, io::stdout())),
            Destination::File(path) => {
                let fail = |source| DestinationError::File {
                    path: path.clone(),
                    source,
                };
                if std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
                    let file = File::options().write(true).open(path).map_err(fail)?;
                    let file = BufWriter::with_capacity(BUFFER_BYTES, file);
                    return Ok(Self {
                        target: Target::Special {
                            file,
                            path: path.clone(),
                        },
                    });
                }
                if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    std::fs::create_dir_all(parent).map_err(fail)?;
                }
                let partial = partial_name(path);
                let file = File::create(&partial).map_err(fail)?;
                let partial = Partial(Some(partial));
                Target::File {
                    file: BufWriter::with_capacity(BUFFER_BYTES, file),
                    partial,
                    path: path.clone(),
                }
            }
        };
        Ok(Self { target })
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn commit(self) -> Result<(), DestinationError> {
        match self.target {
            Target::Client(stream) => {
                let stream = stream
                    .into_inner()
                    .map_err(|error| OutputError::Client(Box::new(error.into_error())))?;
                Ok(stream.finish()?)
            }
            Target::Stdout(mut out) => out.flush().map_err(|source| DestinationError::File {
                path: "standard output".into(),
                source,
            }),
            Target::Special { mut file, path } => file
                .flush()
                .map_err(|source| DestinationError::File { path, source }),
            Target::File {
                mut file,
                mut partial,
                path,
            } => {
                let fail = |source| DestinationError::File {
                    path: path.clone(),
                    source,
                };
                file.flush().map_err(fail)?;
                if let Some(from) = partial.0.take() {
                    std::fs::rename(from, &path).map_err(fail)?;
                }
                Ok(())
            }
        }
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.target {
            Target::Stdout(out) => out.write(bytes),
            Target::Client(stream) => stream.write(bytes),
            Target::Special { file, .. } | Target::File { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::Stdout(out) => out.flush(),
            Target::Client(stream) => stream.flush(),
            Target::Special { file, .. } | Target::File { file, .. } => file.flush(),
        }
    }
}

/// A name beside `path` that two processes do not share.
fn partial_name(path: &Path) -> PathBuf {
    let mut name = path
        .file_name()
        .map(std::ffi::OsStr::to_os_string)
        .unwrap_or_default();
    name.push(format!(".rbuild-{}.partial", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/out.tar");
        let mut dropped = Writer::open(&Destination::File(path.clone())).unwrap();
        dropped.write_all(b"half").unwrap();
        drop(dropped);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
        let mut kept = Writer::open(&Destination::File(path.clone())).unwrap();
        kept.write_all(b"whole").unwrap();
        assert!(!path.exists());
        kept.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn a_device_is_written_and_not_replaced() {
        let mut null = Writer::open(&Destination::File("/dev/null".into())).unwrap();
        null.write_all(b"gone").unwrap();
        null.commit().unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }
}
