//! Where a body lands: one file in an empty workspace, hashed and counted as it is written, decoded where the server
//! encoded it (Go's client does so too). What broke off is written anew.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use flate2::write::MultiGzDecoder;
use jiff::fmt::strtime;
use rbuild_oci::Digest;
use rbuild_registry::{Excerpt, UrlHead, UrlSink};
use rbuild_snapshotter::Workspace;
use rbuild_sys::RootFd;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use sha2::{Digest as _, Sha256};

use super::Wanted;
use crate::ops::OpError;

/// A body on its way into a workspace.
pub(super) struct Landing {
    wanted: Wanted,
    max_bytes: u64,
    workspace: Workspace,
    root: RootFd,
    /// The file under way.
    body: Option<Body>,
    name: String,
    modified: Option<i64>,
}

/// A file that is whole, in a workspace that is not committed.
pub(super) struct Landed {
    pub(super) workspace: Workspace,
    pub(super) digest: Digest,
    pub(super) name: String,
    /// Seconds since 1970.
    pub(super) modified: Option<i64>,
}

impl Landing {
    pub(super) fn new(wanted: Wanted, max_bytes: u64, workspace: Workspace) -> Result<Self, OpError> {
        let root = RootFd::open(workspace.upper()).map_err(|source| OpError::NoSuchPath {
            path: "/".into(),
            source,
        })?;
        Ok(Self {
            wanted,
            max_bytes,
            workspace,
            root,
            body: None,
            name: String::new(),
            modified: None,
        })
    }

    /// Sets owner, permissions and time of the whole file.
    pub(super) fn finish(mut self) -> io::Result<Landed> {
        let writer = match self.body.take() {
            Some(Body::Plain(writer)) => writer,
            Some(Body::Gzip(decoder)) => decoder.finish()?,
            None => return Err(io::Error::other("the server sent no body")),
        };
        let (uid, gid) = (self.wanted.uid, self.wanted.gid);
        if (uid, gid) != (0, 0) {
            rbuild_sys::owner::chown(&writer.file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        rbuild_sys::owner::chmod(&writer.file, Mode::from_raw_mode(self.wanted.mode))?;
        let time = Timespec {
            tv_sec: self.modified.unwrap_or_default(),
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::futimens(&writer.file, &times)?;
        Ok(Landed {
            workspace: self.workspace,
            digest: Digest::from_sha256(writer.hasher.finalize().into()),
            name: self.name,
            modified: self.modified,
        })
    }
}

impl UrlSink for Landing {
    fn begin(&mut self, head: &UrlHead) -> io::Result<()> {
        if self.body.take().is_some() {
            let (dir, name) = self
                .root
                .parent(Path::new(&self.name))
                .map_err(io::Error::other)?;
            rustix::fs::unlinkat(&dir, &name, AtFlags::empty())?;
        }
        self.name = self.wanted.file_name(Some(head));
        self.modified = head.last_modified.as_deref().and_then(http_time);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self
            .root
            .open_in(Path::new(&self.name), flags, Mode::RUSR | Mode::WUSR)
            .map_err(io::Error::other)?;
        let writer = Writer {
            file: File::from(file),
            hasher: Sha256::new(),
            left: self.max_bytes,
        };
        self.body = Some(match head.content_encoding.as_deref() {
            None | Some("identity") => Body::Plain(writer),
            Some("gzip" | "x-gzip") => Body::Gzip(Box::new(MultiGzDecoder::new(writer))),
            Some(other) => {
                let shown = Excerpt::from(other);
                return Err(io::Error::other(format!(
                    "content encoding {shown} was not asked for"
                )));
            }
        });
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.body {
            Some(Body::Plain(writer)) => writer.write_all(bytes),
            Some(Body::Gzip(decoder)) => decoder.write_all(bytes),
            None => Err(io::Error::other("a body that did not begin")),
        }
    }
}

enum Body {
    Plain(Writer),
    Gzip(Box<MultiGzDecoder<Writer>>),
}

/// A file that is hashed and may not grow beyond its budget: a small body can decode to a large one.
struct Writer {
    file: File,
    hasher: Sha256,
    left: u64,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.left -= count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A date in any of the three forms of RFC 9110, section 5.6.7, as seconds since 1970.
fn http_time(text: &str) -> Option<i64> {
    // Of the second form Go reads every name of a zone, as if it were GMT.
    let zone = |(_, zone): &(&str, &str)| {
        matches!(zone.len(), 3 | 4) && zone.bytes().all(|b| b.is_ascii_uppercase())
    };
    let as_gmt = text
        .rsplit_once(' ')
        .filter(zone)
        .filter(|(before, _)| before.contains("day, "))
        .map(|(before, _)| format!("{before} GMT"));
    let text = as_gmt.as_deref().unwrap_or(text);
    [
        "%a, %d %b %Y %H:%M:%S GMT",
        "%A, %d-%b-%y %H:%M:%S GMT",
        "%a %b %e %H:%M:%S %Y",
    ]
    .iter()
    .find_map(|form| {
        let parsed = strtime::parse(form, text).ok()?.to_datetime().ok()?;
        let zoned = parsed.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(zoned.timestamp().as_second())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_servers_are_read() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 UTC",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(http_time(text), Some(784_111_777), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "Sun, 06 Nov 1994 08:49:37 +0200",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sunday, 06-Nov-94 08:49:37 gmt+2",
            "1994-11-06T08:49:37Z",
        ] {
            assert_eq!(http_time(text), None, "{text}");
        }
    }

    #[test]
    fn row36_a_body_does_not_grow_beyond_its_budget_by_decoding() {
        let decoder = |left| {
            MultiGzDecoder::new(Writer {
                file: tempfile::tempfile().unwrap(),
                hasher: Sha256::new(),
                left,
            })
        };
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 4096);
        let mut small = decoder(1 << 16);
        let failed = small.write_all(&bomb).and_then(|()| small.try_finish());
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let mut large = decoder(1 << 20);
        large.write_all(&bomb).unwrap();
        let writer = large.finish().unwrap();
        assert_eq!(writer.file.metadata().unwrap().len(), 1 << 20);
    }
}
