//! Go's `os.FileMode` as it stands in `Stat.mode`, against the kernel's `st_mode` (`os/types.go`, `os/stat_linux.go`).

use rustix::fs::FileType;

const DIR: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const FIFO: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
const CHAR_DEVICE: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;
const IRREGULAR: u32 = 1 << 19;
const TYPE: u32 = DIR | SYMLINK | DEVICE | FIFO | SOCKET | CHAR_DEVICE | IRREGULAR;

/// The type of an entry; `None` for sockets and for what is no one type.
pub(crate) const fn file_type(mode: u32) -> Option<FileType> {
    match mode & TYPE {
        0 => Some(FileType::RegularFile),
        DIR => Some(FileType::Directory),
        SYMLINK => Some(FileType::Symlink),
        FIFO => Some(FileType::Fifo),
        DEVICE => Some(FileType::BlockDevice),
        // Go sets both bits for character devices.
        CHAR_DEVICE_BOTH | CHAR_DEVICE => Some(FileType::CharacterDevice),
        _ => None,
    }
}

const CHAR_DEVICE_BOTH: u32 = DEVICE | CHAR_DEVICE;

/// The twelve permission bits as the kernel has them.
pub(crate) const fn permissions(mode: u32) -> u32 {
    let mut bits = mode & 0o777;
    if mode & SETUID != 0 {
        bits |= 0o4000;
    }
    if mode & SETGID != 0 {
        bits |= 0o2000;
    }
    if mode & STICKY != 0 {
        bits |= 0o1000;
    }
    bits
}

/// The mode that `fsutil` would send for a file of this `st_mode`. Sockets are sent as regular files
/// (`fsutil/stat.go`).
pub(crate) fn from_raw(raw: u32) -> u32 {
    let mut mode = raw & 0o777;
    mode |= match FileType::from_raw_mode(raw) {
        FileType::Directory => DIR,
        FileType::Symlink => SYMLINK,
        FileType::Fifo => FIFO,
        FileType::BlockDevice => DEVICE,
        FileType::CharacterDevice => CHAR_DEVICE_BOTH,
        FileType::RegularFile | FileType::Socket | FileType::Unknown => 0,
    };
    if raw & 0o4000 != 0 {
        mode |= SETUID;
    }
    if raw & 0o2000 != 0 {
        mode |= SETGID;
    }
    if raw & 0o1000 != 0 {
        mode |= STICKY;
    }
    mode
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_go_there_and_back() {
        for (raw, kind) in [
            (0o100_644, FileType::RegularFile),
            (0o104_755, FileType::RegularFile),
            (0o041_777, FileType::Directory),
            (0o120_777, FileType::Symlink),
            (0o010_600, FileType::Fifo),
            (0o020_620, FileType::CharacterDevice),
            (0o060_660, FileType::BlockDevice),
        ] {
            let mode = from_raw(raw);
            assert_eq!(file_type(mode), Some(kind), "{raw:o}");
            assert_eq!(permissions(mode), raw & 0o7777, "{raw:o}");
        }
        assert_eq!(file_type(from_raw(0o140_755)), Some(FileType::RegularFile));
    }

    #[test]
    fn a_mode_of_two_types_is_none() {
        for mode in [DIR | SYMLINK, SOCKET, IRREGULAR, DIR | DEVICE, FIFO | CHAR_DEVICE] {
            assert_eq!(file_type(mode), None, "{mode:x}");
        }
    }
}
