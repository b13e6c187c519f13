//! Where an exporter's stream goes: standard output, or a file that appears whole or not at all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

use super::archive_out::{ArchiveOut, append_through};
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

/// A half-written file, or one that another took the place of: removed unless it is kept.
#[derive(Debug)]
struct Partial(Option<PathBuf>);

impl Partial {
    /// Takes the name `path`, from the file that has it if there is one.
    ///
    /// The two change places then, and the old one is removed: ext4 gives a file that is renamed over another its blocks
    /// before the call returns (`auto_da_alloc`), which takes longer than most builds. After a loss of power within half a
    /// minute the file may be empty, as one that is written anew under its own name.
    fn become_whole(&mut self, path: &Path) -> io::Result<()> {
        let Some(from) = &self.0 else { return Ok(()) };
        let is_file = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
        let changed = is_file
            && rustix::fs::renameat_with(
                rustix::fs::CWD,
                from,
                rustix::fs::CWD,
                path,
                rustix::fs::RenameFlags::EXCHANGE,
            )
            .is_ok();
        if !changed {
            std::fs::rename(from, path)?;
            self.0 = None;
        }
        Ok(())
    }
}

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
                partial.become_whole(&path).map_err(fail)
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

impl ArchiveOut for Writer {
    fn append_file(&mut self, source: &File, len: u64) -> io::Result<u64> {
        match &mut self.target {
            Target::Special { file, .. } | Target::File { file, .. } => {
                file.flush()?;
                io::copy(&mut source.take(len), file.get_mut())
            }
            Target::Stdout(_) | Target::Client(_) => append_through(self, source, len),
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
        let mut second = Writer::open(&Destination::File(path.clone())).unwrap();
        second.write_all(b"the second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        second.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"the second");
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "the one before is gone"
        );
    }

    #[test]
    fn a_link_or_a_directory_in_the_place_of_the_file_is_what_rename_makes_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (other, link, taken) = (
            dir.path().join("other"),
            dir.path().join("link"),
            dir.path().join("taken"),
        );
        std::fs::write(&other, b"other").unwrap();
        std::os::unix::fs::symlink(&other, &link).unwrap();
        std::fs::create_dir(&taken).unwrap();
        let write = |path: &Path| {
            let mut writer = Writer::open(&Destination::File(path.to_owned())).unwrap();
            writer.write_all(b"new").unwrap();
            writer.commit()
        };
        write(&link).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_file());
        assert_eq!(std::fs::read(&other).unwrap(), b"other");
        write(&taken).unwrap_err();
        assert!(taken.is_dir());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn files_are_appended_behind_what_was_written_and_before_what_follows() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, vec![7; 700_000]).unwrap();
        let source = || File::open(&from).unwrap();
        let mut writer = Writer::open(&Destination::File(to.clone())).unwrap();
        let mut plain = Vec::new();
        let fill = |out: &mut dyn ArchiveOut| {
            out.write_all(b"before").unwrap();
            let copied = [700_000, 3, 800_000].map(|len| out.append_file(&source(), len).unwrap());
            assert_eq!(copied, [700_000, 3, 700_000]);
            out.write_all(b"behind").unwrap();
        };
        fill(&mut writer);
        fill(&mut super::super::archive_out::Plain(&mut plain));
        writer.commit().unwrap();
        let expected = [&b"before"[..], &vec![7; 1_400_003], b"behind"].concat();
        assert!(std::fs::read(&to).unwrap() == expected && plain == expected);
    }

    #[test]
    fn a_device_is_written_and_not_replaced() {
        let mut null = Writer::open(&Destination::File("/dev/null".into())).unwrap();
        null.write_all(b"gone").unwrap();
        null.commit().unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }
}
