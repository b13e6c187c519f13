//! A context or Dockerfile on standard input. What it is, is told by its first bytes; an archive goes into a file
//! without a name, which is gone when the program is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Largest Dockerfile (BuildKit's limit for a message that holds one).
pub(crate) const MAX_DOCKERFILE_BYTES: u64 = 16 * 1024 * 1024;
/// Largest context archive.
const MAX_ARCHIVE_BYTES: u64 = 64 * 1024 * 1024 * 1024;

/// Two tar blocks: what is looked at.
const PEEK_BYTES: u64 = 1024;
const TAR_BLOCK: usize = 512;

/// Why standard input is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StdinError {
    /// It could not be read.
    #[error("cannot read standard input: {0}")]
    Read(io::Error),
    /// It could not be put aside.
    #[error("cannot put the context aside in {path}: {error}")]
    Spool {
        /// Directory.
        path: PathBuf,
        /// Cause.
        error: io::Error,
    },
    /// There is nothing.
    #[error("standard input is empty: expected a Dockerfile or a tar archive")]
    Empty,
    /// There is too much.
    #[error("standard input is larger than {0} bytes")]
    TooLarge(u64),
}

/// What was on standard input.
#[derive(Debug)]
pub(crate) enum Input {
    /// A Dockerfile.
    Text(Vec<u8>),
    /// A tar archive, compressed or not.
    Archive(Spooled),
}

/// An archive put aside; it is there as long as this is.
#[derive(Debug)]
pub(crate) struct Spooled {
    file: File,
}

impl Spooled {
    /// A path under which this process can open the archive.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// Reads a context: archive or Dockerfile.
pub(crate) fn read_context(stdin: &mut dyn Read, directory: &Path) -> Result<Input, StdinError> {
    let mut head = Vec::new();
    (&mut *stdin)
        .take(PEEK_BYTES)
        .read_to_end(&mut head)
        .map_err(StdinError::Read)?;
    if head.is_empty() {
        return Err(StdinError::Empty);
    }
    if is_archive(&head) {
        return spool(&head, stdin, directory).map(Input::Archive);
    }
    let mut whole = (&head[..]).chain(stdin);
    read_text(&mut whole).map(Input::Text)
}

/// Reads a Dockerfile.
pub(crate) fn read_text(stdin: &mut dyn Read) -> Result<Vec<u8>, StdinError> {
    let mut text = Vec::new();
    stdin
        .take(MAX_DOCKERFILE_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(StdinError::Read)?;
    if text.is_empty() {
        return Err(StdinError::Empty);
    }
    if text.len() as u64 > MAX_DOCKERFILE_BYTES {
        return Err(StdinError::TooLarge(MAX_DOCKERFILE_BYTES));
    }
    Ok(text)
}

/// buildx's test (`build/utils.go`), and zstd: a compression's magic, or a tar header whose sum is right.
fn is_archive(head: &[u8]) -> bool {
    const MAGICS: [&[u8]; 4] = [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    MAGICS.iter().any(|magic| head.starts_with(magic)) || head.get(..TAR_BLOCK).is_some_and(is_tar_header)
}

fn is_tar_header(block: &[u8]) -> bool {
    const SUM: std::ops::Range<usize> = 148..156;
    let digits: String = block[SUM]
        .iter()
        .map(|&b| char::from(b))
        .skip_while(|c| *c == ' ')
        .take_while(char::is_ascii_digit)
        .collect();
    let Ok(expected) = u32::from_str_radix(&digits, 8) else {
        return false;
    };
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, &byte)| {
            if SUM.contains(&at) {
                u32::from(b' ')
            } else {
                u32::from(byte)
            }
        })
        .sum();
    sum == expected
}

fn spool(head: &[u8], rest: &mut dyn Read, directory: &Path) -> Result<Spooled, StdinError> {
    let failed = |error| StdinError::Spool {
        path: directory.to_owned(),
        error,
    };
    let mut file = unnamed_file(directory).map_err(failed)?;
    file.write_all(head).map_err(failed)?;
    let copied = io::copy(&mut rest.take(MAX_ARCHIVE_BYTES + 1), &mut file).map_err(failed)?;
    if copied > MAX_ARCHIVE_BYTES {
        return Err(StdinError::TooLarge(MAX_ARCHIVE_BYTES));
    }
    Ok(Spooled { file })
}

/// A new file that no one else can open by name.
fn unnamed_file(directory: &Path) -> io::Result<File> {
    let mut name = [0u8; 16];
    File::open("/dev/urandom")?.read_exact(&mut name)?;
    let mut text = String::from(".rbuild-context-");
    rbuild_oci::push_hex(&mut text, &name);
    let path = directory.join(text);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tar with one empty file, made by hand.
    pub(crate) fn tiny_tar() -> Vec<u8> {
        let mut block = vec![0u8; TAR_BLOCK];
        block[0] = b'a';
        block[100..107].copy_from_slice(b"0000644");
        block[124..135].copy_from_slice(b"00000000000");
        block[156] = b'0';
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block.extend_from_slice(&[0; 1024]);
        block
    }

    #[test]
    fn archives_are_told_by_their_content() {
        let tar = tiny_tar();
        for archive in [
            &tar[..],
            b"\x1f\x8b\x08rest",
            b"BZh9",
            b"\xfd7zXZ\0",
            b"\x28\xb5\x2f\xfd",
        ] {
            assert!(is_archive(archive));
        }
        let mut damaged = tar.clone();
        damaged[0] = b'b';
        for text in [
            &b"FROM scratch\n"[..],
            b"",
            b"\x1f\x8b",
            &damaged[..],
            &[0; 1024],
            &[b' '; 1024],
        ] {
            assert!(!is_archive(text));
        }
    }

    #[test]
    fn an_archive_is_put_aside_whole_and_leaves_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut tar = tiny_tar();
        tar.extend(std::iter::repeat_n(7u8, 100_000));
        let Input::Archive(spooled) = read_context(&mut &tar[..], dir.path()).unwrap() else {
            panic!("an archive was given");
        };
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(fs::read(spooled.path()).unwrap(), tar);
    }

    #[test]
    fn anything_else_is_a_dockerfile() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("FROM scratch\n{}", "#".repeat(3000));
        let Input::Text(read) = read_context(&mut text.as_bytes(), dir.path()).unwrap() else {
            panic!("a text was given");
        };
        assert_eq!(read, text.as_bytes());
        assert!(matches!(
            read_context(&mut io::empty(), dir.path()),
            Err(StdinError::Empty)
        ));
        let endless = read_text(&mut io::repeat(b'#'));
        assert!(matches!(endless, Err(StdinError::TooLarge(MAX_DOCKERFILE_BYTES))));
    }
}
