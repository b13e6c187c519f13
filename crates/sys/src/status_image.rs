//! The status of a file as the kernel writes it into a program's memory, to be changed before the program sees it.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd as _};

use rustix::io::Errno;

use crate::owner::OwnerIds;

/// A status as the kernel writes it for a program, to be changed before the program sees it.
#[derive(Debug)]
pub struct StatusImage {
    bytes: [u8; 256],
    len: usize,
    offsets: Offsets,
}

#[derive(Debug)]
struct Offsets {
    mode: usize,
    /// The field is 16 bits wide.
    short_mode: bool,
    uid: usize,
    gid: usize,
    /// Of the device: major and minor apart, or both in one.
    device: Result<(usize, usize), usize>,
}

impl StatusImage {
    /// What `stat(2)` and its kin write, of what `fd` holds.
    ///
    /// # Errors
    /// The kernel's.
    pub fn stat(fd: impl AsFd) -> Result<Self, Errno> {
        let mut bytes = [0_u8; 256];
        // SAFETY: the buffer is longer than the kernel's structure, and the path ends with NUL.
        // WHY: the caller wants the kernel's bytes, and rustix gives a structure with holes.
        let done = unsafe {
            libc::syscall(
                libc::SYS_newfstatat,
                fd.as_fd().as_raw_fd(),
                c"".as_ptr(),
                bytes.as_mut_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        if done != 0 {
            return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
        }
        Ok(Self {
            bytes,
            len: size_of::<libc::stat>(),
            offsets: Offsets {
                mode: offset_of!(libc::stat, st_mode),
                short_mode: false,
                uid: offset_of!(libc::stat, st_uid),
                gid: offset_of!(libc::stat, st_gid),
                device: Err(offset_of!(libc::stat, st_rdev)),
            },
        })
    }

    /// What `statx(2)` writes with these flags and this mask.
    ///
    /// # Errors
    /// The kernel's.
    pub fn statx(fd: impl AsFd, flags: u32, mask: u32) -> Result<Self, Errno> {
        let mut bytes = [0_u8; 256];
        // SAFETY: the buffer has the size of the kernel's structure, and the path ends with NUL.
        // WHY: as for `stat`.
        let done = unsafe {
            libc::syscall(
                libc::SYS_statx,
                fd.as_fd().as_raw_fd(),
                c"".as_ptr(),
                flags | libc::AT_EMPTY_PATH.cast_unsigned(),
                mask,
                bytes.as_mut_ptr(),
            )
        };
        if done != 0 {
            return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
        }
        Ok(Self {
            bytes,
            len: size_of::<libc::statx>(),
            offsets: Offsets {
                mode: offset_of!(libc::statx, stx_mode),
                short_mode: true,
                uid: offset_of!(libc::statx, stx_uid),
                gid: offset_of!(libc::statx, stx_gid),
                device: Ok((
                    offset_of!(libc::statx, stx_rdev_major),
                    offset_of!(libc::statx, stx_rdev_minor),
                )),
            },
        })
    }

    /// Sets user and group.
    pub fn set_owner(&mut self, owner: OwnerIds) {
        self.put(self.offsets.uid, &owner.uid.to_ne_bytes());
        self.put(self.offsets.gid, &owner.gid.to_ne_bytes());
    }

    /// Makes it that of a device.
    pub fn set_device(&mut self, block: bool, number: u64) {
        const TYPE: u16 = 0o170_000;
        let kind: u16 = if block { 0o060_000 } else { 0o020_000 };
        let at = self.offsets.mode;
        let mode = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]);
        // The upper half of a wide field is zero, on machines that have the lower one first.
        let mode = (mode & !TYPE) | kind;
        if self.offsets.short_mode {
            self.put(at, &mode.to_ne_bytes());
        } else {
            self.put(at, &u32::from(mode).to_ne_bytes());
        }
        match self.offsets.device {
            Ok((major, minor)) => {
                self.put(major, &rustix::fs::major(number).to_ne_bytes());
                self.put(minor, &rustix::fs::minor(number).to_ne_bytes());
            }
            Err(both) => self.put(both, &number.to_ne_bytes()),
        }
    }

    /// The whole of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        self.bytes[at..at + value.len()].copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_the_kernels_but_for_what_was_set() {
        let file = tempfile::tempfile().unwrap();
        let before = StatusImage::stat(&file).unwrap();
        let mut image = StatusImage::stat(&file).unwrap();
        assert_eq!(before.bytes(), image.bytes());
        image.set_owner(OwnerIds { uid: 7, gid: 1 << 20 });
        image.set_device(true, rustix::fs::makedev(8, 300));
        let word = |at: usize| u32::from_ne_bytes(image.bytes()[at..at + 4].try_into().unwrap());
        assert_eq!(word(offset_of!(libc::stat, st_uid)), 7);
        assert_eq!(word(offset_of!(libc::stat, st_gid)), 1 << 20);
        assert_eq!(word(offset_of!(libc::stat, st_mode)) & 0o170_000, 0o060_000);
        let mut extended = StatusImage::statx(&file, 0, 0xfff).unwrap();
        extended.set_device(false, rustix::fs::makedev(1, 3));
        let at = offset_of!(libc::statx, stx_mode);
        let mode = u16::from_ne_bytes(extended.bytes()[at..at + 2].try_into().unwrap());
        assert_eq!(mode & 0o170_000, 0o020_000);
    }
}
