//! One file of the layer: what it is and what of it goes into the archive.

use std::os::fd::{BorrowedFd, OwnedFd};

use rbuild_sys::overlay::Form;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{ExportedXattrs, WriteError, failed};
use crate::apply::{DEVICE_XATTR, kept_xattr};
use crate::entry::{Device, EntryKind, Time, Xattr};
use crate::field::decimal;
use crate::reader::printable;
use crate::xattr::{get_xattr, list_xattrs, xattr_is};

const CAPABILITY: &[u8] = b"security.capability";
/// `VFS_CAP_REVISION_3` with its root id, and `VFS_CAP_REVISION_2` (linux/capability.h).
const CAPABILITY_V3_BYTES: usize = 24;
const CAPABILITY_V2_BYTES: usize = 20;

/// A file, opened if it is one that can be (regular or directory).
pub(super) struct Source {
    pub(super) stat: Stat,
    pub(super) fd: Option<OwnedFd>,
}

pub(super) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

impl Source {
    /// Looks at `name` in `dir`.
    pub(super) fn open(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Self, Errno> {
        let stat = rbuild_sys::owner::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let flags = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FILE,
            FileType::Directory => DIRECTORY,
            _ => return Ok(Self { stat, fd: None }),
        };
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
        // What was opened is what counts.
        let stat = rbuild_sys::owner::fstat(&fd)?;
        Ok(Self { stat, fd: Some(fd) })
    }

    pub(super) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(super) fn id(&self) -> (u64, u64) {
        (self.stat.st_dev, self.stat.st_ino)
    }

    pub(super) fn is_whiteout(&self) -> bool {
        self.file_type() == FileType::CharacterDevice && self.stat.st_rdev == 0
    }

    /// When the inode was changed last, be it content, metadata or names: nobody can set that.
    pub(super) fn ctime(&self) -> Time {
        let nanoseconds = u32::try_from(self.stat.st_ctime_nsec).unwrap_or(0);
        Time {
            seconds: self.stat.st_ctime,
            nanoseconds,
        }
    }

    pub(super) fn mtime(&self) -> Time {
        let nanoseconds = u32::try_from(self.stat.st_mtime_nsec).unwrap_or(0);
        Time {
            seconds: self.stat.st_mtime,
            nanoseconds,
        }
    }

    /// The type of the entry. Nothing for a socket, which no archive holds.
    pub(super) fn kind(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        form: Form,
    ) -> Result<Option<EntryKind>, WriteError> {
        let device = || Device {
            major: rustix::fs::major(self.stat.st_rdev),
            minor: rustix::fs::minor(self.stat.st_rdev),
        };
        Ok(Some(match self.file_type() {
            FileType::RegularFile => match self.recorded_device(form, path)? {
                Some(recorded) => recorded,
                None => EntryKind::File {
                    size: u64::try_from(self.stat.st_size).unwrap_or(0),
                },
            },
            FileType::Directory => EntryKind::Directory,
            FileType::Symlink => {
                let target =
                    rbuild_sys::owner::read_link(dir, name).map_err(|e| failed("read link", path, e))?;
                EntryKind::Symlink {
                    target: target.into_bytes(),
                }
            }
            FileType::Fifo => EntryKind::Fifo,
            FileType::CharacterDevice => EntryKind::CharDevice(device()),
            FileType::BlockDevice => EntryKind::BlockDevice(device()),
            _ => return Ok(None),
        }))
    }

    /// The device that an empty file stands for, where devices cannot be made (see `DevicePolicy::Record`).
    fn recorded_device(&self, form: Form, path: &[u8]) -> Result<Option<EntryKind>, WriteError> {
        let (Form::User, 0, Some(fd)) = (form, self.stat.st_size, &self.fd) else {
            return Ok(None);
        };
        let text =
            get_xattr(fd, DEVICE_XATTR.as_bytes()).map_err(|e| failed("read recorded device", path, e))?;
        Ok(text.and_then(|text| parse_device(&text)))
    }

    /// The attributes that are exported, sorted by name.
    pub(super) fn xattrs(&self, wanted: ExportedXattrs, path: &[u8]) -> Result<Vec<Xattr>, WriteError> {
        let Some(fd) = &self.fd else { return Ok(Vec::new()) };
        let fail = |e| failed("read extended attributes", path, e);
        let mut found = Vec::new();
        if let Some(value) = self.capability().map_err(fail)? {
            found.push((CAPABILITY.to_vec(), value));
        }
        if wanted == ExportedXattrs::CapabilityAndUser {
            for name in list_xattrs(fd).map_err(fail)? {
                if name.starts_with(b"user.") && kept_xattr(&name) {
                    found.extend(get_xattr(fd, &name).map_err(fail)?.map(|value| (name, value)));
                }
            }
        }
        Ok(found)
    }

    /// The file capability. One bound to the root of a user namespace loses that id: it means nothing elsewhere
    /// (moby/go-archive does the same, `ReadSecurityXattrToTarHeader`).
    pub(super) fn capability(&self) -> Result<Option<Vec<u8>>, Errno> {
        let Some(fd) = &self.fd else { return Ok(None) };
        let mut buffer = [0_u8; 64];
        let length = match rustix::fs::fgetxattr(fd, CAPABILITY, buffer.as_mut_slice()) {
            Ok(length) => length,
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut value = buffer[..length].to_vec();
        if length == CAPABILITY_V3_BYTES && value[3] == 3 {
            value[3] = 2;
            value.truncate(CAPABILITY_V2_BYTES);
        }
        Ok((!value.is_empty()).then_some(value))
    }

    /// Whether this directory hides what is below it. Refuses what only overlayfs could complete.
    pub(super) fn overlay_state(&self, form: Form, path: &[u8]) -> Result<bool, WriteError> {
        let Some(fd) = &self.fd else { return Ok(false) };
        let fail = |e| failed("read overlay attribute", path, e);
        let (opaque, redirect, metacopy) = match form {
            Form::Trusted => (
                "trusted.overlay.opaque",
                "trusted.overlay.redirect",
                "trusted.overlay.metacopy",
            ),
            Form::User => (
                "user.overlay.opaque",
                "user.overlay.redirect",
                "user.overlay.metacopy",
            ),
        };
        let directory = self.file_type() == FileType::Directory;
        let attribute = if directory { redirect } else { metacopy };
        match rustix::fs::fgetxattr_query(fd, attribute) {
            Ok(_) => {
                return Err(WriteError::NotSelfContained {
                    path: printable(path),
                    attribute,
                });
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(e) => return Err(fail(e)),
        }
        if !directory {
            return Ok(false);
        }
        xattr_is(fd, opaque, b"y").map_err(fail)
    }
}

fn parse_device(text: &[u8]) -> Option<EntryKind> {
    let mut words = text.split(|byte| *byte == b' ');
    let (kind, major, minor) = (words.next()?, words.next()?, words.next()?);
    let number = |word| decimal(word).and_then(|n| u32::try_from(n).ok());
    let device = Device {
        major: number(major)?,
        minor: number(minor)?,
    };
    match (kind, words.next()) {
        (b"b", None) => Some(EntryKind::BlockDevice(device)),
        (b"c", None) if !device.is_whiteout() => Some(EntryKind::CharDevice(device)),
        _ => None,
    }
}
