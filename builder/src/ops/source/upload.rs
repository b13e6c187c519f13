//! Files that the client offers over its session: `http://buildkit-session/…` (`source/http/transport.go`,
//! `session/upload`). One file in a root of its own, as `source/http/source.go` makes it. A client gives each once, so
//! it is fetched once in a build; its key is what it holds.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_graph::SourceOp;
use rbuild_oci::Digest;
use rbuild_snapshotter::StackError;
use rbuild_sys::{RootFd, RootFdError};
use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::sync::OnceCell;

use super::part;
use crate::client::{ClientBytes, ClientReadError};
use crate::job::Job;
use crate::ops::OpError;
use crate::solve::{Definition, Reporter};
use crate::value::{Chain, Value};

/// What the address of such a file begins with, behind the scheme.
pub const HOST: &str = "buildkit-session/";
/// Largest file, bytes.
const FILE_BYTES_MAX: u64 = 64 << 30;
/// Bytes read at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Permissions where none are asked for.
const DEFAULT_MODE: u32 = 0o600;

/// Why a file of the client is not here.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The client did not give it.
    #[error("fetch {path} from the client")]
    Client {
        /// Its address there.
        path: String,
        /// Why.
        #[source]
        source: ClientReadError,
    },
    /// It broke off, or the disk did not take it.
    #[error("fetch {path} from the client")]
    Io {
        /// Its address there.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be created.
    #[error(transparent)]
    Create(#[from] RootFdError),
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
    /// The layer.
    #[error(transparent)]
    Stack(#[from] StackError),
}

/// Files that were fetched in a build, by what was asked.
#[derive(Debug, Default)]
pub struct Uploads(Mutex<HashMap<String, Arc<OnceCell<Uploaded>>>>);

#[derive(Debug, Clone)]
struct Uploaded {
    content: Digest,
    chain: Chain,
}

/// What the file is to be.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    name: String,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Shape {
    fn read(path: &str, source: &SourceOp) -> Result<Self, UploadError> {
        let attr = |name: &str| source.attrs.get(name).filter(|value| !value.is_empty());
        let last = path.rsplit('/').next().unwrap_or_default();
        let name = attr("http.filename").map_or(last, String::as_str);
        if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
            return Err(UploadError::FileName(name.to_owned()));
        }
        let number = |name: &'static str, radix: u32, default: u32| {
            let Some(value) = attr(name) else {
                return Ok(default);
            };
            let digits = value.strip_prefix("0o").unwrap_or(value);
            u32::from_str_radix(digits, radix).map_err(|_| UploadError::Number {
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
}

/// What the source is: fetched now, since the key is what the file holds. `path` is host and path of the address.
///
/// # Errors
/// [`OpError::Upload`].
pub async fn define(
    job: &Job,
    path: &str,
    source: &SourceOp,
    reporter: &mut Reporter,
) -> Result<Definition<Value>, OpError> {
    let shape = Shape::read(path, source)?;
    let cell = {
        let mut uploads = job.uploads.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(uploads.entry(format!("{path} {shape:?}")).or_default())
    };
    let was_here = cell.initialized();
    reporter.start(None);
    let uploaded = cell.get_or_try_init(|| fetch(job, path, &shape)).await?;
    if was_here {
        reporter.cached();
    } else {
        reporter.done();
    }
    Ok(Definition {
        ingredients: vec![
            part("uploaded file", uploaded.content.as_str()),
            part("uploaded as", &format!("{shape:?}")),
        ],
        content: Vec::new(),
        values: Some(vec![Value::Chain(uploaded.chain.clone())]),
        volatile: false,
    })
}

async fn fetch(job: &Job, path: &str, shape: &Shape) -> Result<Uploaded, UploadError> {
    let at = path
        .strip_prefix(HOST)
        .map_or_else(|| path.to_owned(), |path| format!("/{path}"));
    let reader = job.client.upload(&at, FILE_BYTES_MAX).await;
    let reader = reader.map_err(|source| UploadError::Client {
        path: at.clone(),
        source,
    })?;
    let workspace = job.engine.snapshotter.workspace(&job.lease, &[])?;
    let root = RootFd::open(workspace.upper())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let file = root.open_in(Path::new(&shape.name), flags, Mode::from_raw_mode(DEFAULT_MODE))?;
    let content = copy(reader, File::from(file), shape).await;
    let content = content.map_err(|source| UploadError::Io { path: at, source })?;
    drop(root);
    Ok(Uploaded {
        content,
        chain: Chain::new(vec![workspace.commit()?.id]),
    })
}

async fn copy(mut reader: ClientBytes, mut file: File, shape: &Shape) -> io::Result<Digest> {
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
    rustix::fs::fchown(
        &file,
        Some(Uid::from_raw(shape.uid)),
        Some(Gid::from_raw(shape.gid)),
    )?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(shape.mode))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(path: &str, attrs: &[(&str, &str)]) -> Result<Shape, UploadError> {
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
            assert!(matches!(found, Err(UploadError::FileName(_))), "{name:?}");
        }
        assert!(shape("buildkit-session/", &[]).is_err());
        assert!(shape("buildkit-session/a", &[("http.filename", "..a")]).is_ok());
    }
}
