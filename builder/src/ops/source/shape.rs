//! Sources that are one file in a root of its own: its name, owner, permissions and time (attributes `http.filename`,
//! `http.perm`, `http.uid` and `http.gid`).

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use rbuild_graph::SourceOp;
use rbuild_oci::Digest;
use rbuild_sys::{RootFd, RootFdError};
use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Permissions where none are asked for.
const DEFAULT_MODE: u32 = 0o600;

/// Why the attributes of a source describe no file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// The name for it is none of a file.
    #[error("invalid http.filename {0:?}")]
    FileName(String),
    /// An attribute that is no number.
    #[error("invalid value {value:?} of source attribute {name}")]
    Number {
        /// The attribute.
        name: &'static str,
        /// As written.
        value: String,
    },
}

/// What the file is to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shape {
    name: String,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Shape {
    /// As the attributes of `source` say; it has the last name of `path` where they name none.
    pub(super) fn read(path: &str, source: &SourceOp) -> Result<Self, ShapeError> {
        let attr = |name: &str| source.attrs.get(name).filter(|value| !value.is_empty());
        let last = path.rsplit('/').next().unwrap_or_default();
        let name = attr("http.filename").map_or(last, String::as_str);
        if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
            return Err(ShapeError::FileName(name.to_owned()));
        }
        let number = |name: &'static str, radix: u32, default: u32| {
            let Some(value) = attr(name) else {
                return Ok(default);
            };
            let digits = value.strip_prefix("0o").unwrap_or(value);
            u32::from_str_radix(digits, radix).map_err(|_| ShapeError::Number {
                name,
                value: value.clone(),
            })
        };
        Ok(Self {
            name: name.to_owned(),
            mode: number("http.perm", 8, DEFAULT_MODE)? & 0o7777,
            uid: number("http.uid", 10, 0)?,
            gid: number("http.gid", 10, 0)?,
        })
    }

    /// An empty file in the empty directory `dir`, for [`Self::fill`].
    pub(super) fn create(&self, dir: &Path) -> Result<File, RootFdError> {
        let root = RootFd::open(dir)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = root.open_in(Path::new(&self.name), flags, Mode::from_raw_mode(DEFAULT_MODE))?;
        Ok(File::from(file))
    }

    /// Writes what `reader` has, gives the file its owner, permissions and time, and says what it holds.
    pub(super) async fn fill(
        &self,
        mut file: File,
        mut reader: impl AsyncRead + Unpin,
    ) -> io::Result<Digest> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let count = reader.read(&mut buffer).await?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            file.write_all(&buffer[..count])?;
        }
        rbuild_sys::owner::chown(
            &file,
            Some(Uid::from_raw(self.uid)),
            Some(Gid::from_raw(self.gid)),
        )?;
        rbuild_sys::owner::chmod(&file, Mode::from_raw_mode(self.mode))?;
        let epoch = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        rustix::fs::futimens(
            &file,
            &Timestamps {
                last_access: epoch,
                last_modification: epoch,
            },
        )?;
        Ok(Digest::from_sha256(hasher.finalize().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(path: &str, attrs: &[(&str, &str)]) -> Result<Shape, ShapeError> {
        let attrs = attrs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let source = SourceOp {
            identifier: String::new(),
            attrs: attrs.collect(),
        };
        Shape::read(path, &source)
    }

    #[test]
    fn the_file_is_what_the_source_says() {
        let plain = shape("buildkit-session/abc", &[]).unwrap();
        assert_eq!((plain.name.as_str(), plain.mode, plain.uid), ("abc", 0o600, 0));
        let attrs = [
            ("http.filename", "context"),
            ("http.perm", "0644"),
            ("http.uid", "7"),
        ];
        let full = shape("buildkit-session/abc", &attrs).unwrap();
        assert_eq!((full.name.as_str(), full.mode, full.uid), ("context", 0o644, 7));
        assert!(shape("buildkit-session/a", &[("http.gid", "x")]).is_err());
    }

    #[test]
    fn row48_a_file_name_is_no_path() {
        for name in ["../x", "a/b", "..", "/etc/passwd", "a\0b"] {
            let found = shape("buildkit-session/a", &[("http.filename", name)]);
            assert!(matches!(found, Err(ShapeError::FileName(_))), "{name:?}");
        }
        assert!(shape("buildkit-session/", &[]).is_err());
        assert!(shape("buildkit-session/a", &[("http.filename", "..a")]).is_ok());
    }
}
