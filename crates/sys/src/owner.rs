//! Who a file belongs to, as layers, steps and copies mean it: the inode's own ids, or what is recorded beside them.
//!
//! In a user namespace with one id every file is that id's. There the owner that was meant is recorded, in an attribute
//! of the inode itself, so that it goes where the inode goes: through renames, hard links and overlayfs' copies, and away
//! with it. Absent is 0:0.
//!
//! - Regular files and directories have it in [`OWNER_XATTR`], as text.
//! - Links, pipes and sockets take no `user.*` attribute. They take `security.capability`, which means nothing on what
//!   cannot be executed, and which a namespace's root may set: user and group are in its two sets, with a mark.
//!
//! An ordinary user without a namespace keeps the same records of files that are really his (`record_all`). A symbolic link
//! has its owner in its text there (`owner/link.rs`); a pipe or a socket has no owner but root: another is refused. Since modes hold for such a user, the rights of
//! an owner that a mode lacks are kept on the disk, and the mode that was meant is recorded in [`MODE_XATTR`].
//!
//! Whether records count is a property of the process, as its user is: set once, when it enters its rung, before
//! it has threads.

mod link;
mod real;

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags};
use rustix::io::Errno;
use rustix::path::Arg;

pub use link::{chown_at, make_link, read_link};
pub use real::make_real;

/// Owner of a regular file or directory: user and group in decimal, with a space between.
pub const OWNER_XATTR: &str = "user.rbuild.owner";
/// Device that an empty regular file stands for: `c` or `b`, major and minor, with spaces between.
pub const DEVICE_XATTR: &str = "user.rbuild.device";
/// Permission bits of a regular file or directory, in octal, where those on the disk let its owner do more.
pub const MODE_XATTR: &str = "user.rbuild.mode";
/// What holds the owner of everything else.
pub const CAPABILITY_XATTR: &str = "security.capability";

const OWNERS: u8 = 1;
const ALL: u8 = 2;

static RECORDED: AtomicU8 = AtomicU8::new(0);
/// User and group that files really belong to where they are recorded: of [`ALL`].
static OWN: AtomicU64 = AtomicU64::new(0);

/// From now on owners are recorded, in this process and for good: it is root of a namespace with one id.
pub fn record_owners() {
    RECORDED.store(OWNERS, Ordering::Relaxed);
}

/// From now on owners and modes are recorded, in this process and for good: it is an ordinary user.
pub(crate) fn record_all() {
    let uid = u64::from(rustix::process::geteuid().as_raw());
    let gid = u64::from(rustix::process::getegid().as_raw());
    OWN.store(uid << 32 | gid, Ordering::Relaxed);
    RECORDED.store(ALL, Ordering::Relaxed);
}

/// Whether owners are recorded in this process.
#[must_use]
pub fn are_recorded() -> bool {
    RECORDED.load(Ordering::Relaxed) != 0
}

fn modes_are_recorded() -> bool {
    RECORDED.load(Ordering::Relaxed) == ALL
}

/// Whose files really are that have records.
#[expect(clippy::cast_possible_truncation, reason = "two halves of a word")]
fn own() -> OwnerIds {
    let both = OWN.load(Ordering::Relaxed);
    OwnerIds {
        uid: (both >> 32) as u32,
        gid: both as u32,
    }
}

/// A user and a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnerIds {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// Who this process is, as owners are meant: what is not recorded of its files is root's.
#[must_use]
pub fn caller() -> OwnerIds {
    if are_recorded() {
        return OwnerIds::default();
    }
    OwnerIds {
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
    }
}

/// `fstat(2)` with the owner that is meant. `O_PATH` descriptors will do.
///
/// # Errors
/// The kernel's.
pub fn fstat(fd: impl AsFd) -> Result<Stat, Errno> {
    let fd = fd.as_fd();
    let mut stat = rustix::fs::fstat(fd)?;
    if are_recorded() {
        let kind = kind(&stat);
        let owner = Records::OWN.owner(fd, kind)?;
        if set(&mut stat, owner)
            && modes_are_recorded()
            && let Some(mode) = Records::OWN.mode(fd, kind)?
        {
            stat.st_mode = stat.st_mode & !PERMISSIONS | mode;
        }
    }
    Ok(stat)
}

/// `fstatat(2)` with the owner that is meant.
///
/// # Errors
/// The kernel's.
pub fn statat(dir: impl AsFd, name: impl Arg + Copy, flags: AtFlags) -> Result<Stat, Errno> {
    if !are_recorded() {
        return rustix::fs::statat(dir, name, flags);
    }
    let mut open = OFlags::PATH | OFlags::CLOEXEC;
    if flags.contains(AtFlags::SYMLINK_NOFOLLOW) {
        open |= OFlags::NOFOLLOW;
    }
    fstat(rustix::fs::openat(dir, name, open, Mode::empty())?)
}

/// Gives what `fd` is to a user and a group. `O_PATH` descriptors will do. As with `chown(2)`, set-id bits and file
/// capabilities are lost.
///
/// # Errors
/// The kernel's: `EINVAL` for ids a user namespace does not map, where owners are not recorded.
pub fn chown(fd: impl AsFd, uid: Option<Uid>, gid: Option<Gid>) -> Result<(), Errno> {
    let fd = fd.as_fd();
    if !are_recorded() {
        return rustix::fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH);
    }
    let kind = kind(&rustix::fs::fstat(fd)?);
    let mut owner = Records::OWN.owner(fd, kind)?;
    owner.uid = uid.map_or(owner.uid, Uid::as_raw);
    owner.gid = gid.map_or(owner.gid, Gid::as_raw);
    Records::OWN.give(fd, kind, owner)
}

/// `fchmod(2)` as it is meant.
///
/// # Errors
/// The kernel's.
pub fn chmod(fd: impl AsFd, mode: Mode) -> Result<(), Errno> {
    let fd = fd.as_fd();
    if !modes_are_recorded() {
        return rustix::fs::fchmod(fd, mode);
    }
    let needed = match kind(&rustix::fs::fstat(fd)?) {
        FileType::Directory => Mode::RWXU,
        _ => Mode::RUSR | Mode::WUSR,
    };
    rustix::fs::fchmod(fd, mode | needed)?;
    let recorded = (!mode.contains(needed)).then_some(mode);
    Records::OWN.record_mode(fd, recorded)
}

/// Gives what is ours the owner that is meant. Files of ids that are not mapped, or of others, are no files of ours: nothing
/// is recorded of them, and they stay what they are.
fn set(stat: &mut Stat, owner: OwnerIds) -> bool {
    let own = own();
    // A directory that hands its group down gives it to files of an ordinary user, who cannot refuse it.
    let ours = stat.st_uid == own.uid && (stat.st_gid == own.gid || modes_are_recorded());
    if ours {
        (stat.st_uid, stat.st_gid) = (owner.uid, owner.gid);
    }
    ours
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Reads and writes records of held inodes, `O_PATH` or not.
#[derive(Clone, Copy, Debug)]
pub struct Records {
    /// What stands before a descriptor's number in the path of its magic link.
    prefix: &'static str,
    /// Descriptors are mostly `O_PATH`.
    only_held: bool,
}

impl Records {
    /// For a process with its own `/proc`.
    pub const OWN: Self = Self {
        prefix: "/proc/self/fd/",
        only_held: false,
    };
    /// For a thread whose working directory is its `/proc/self/fd`, whatever its root is.
    pub const FROM_CWD: Self = Self {
        prefix: "./",
        only_held: true,
    };

    /// The recorded owner of an inode of that type.
    ///
    /// # Errors
    /// The kernel's. A file system without attributes has no records.
    pub fn owner(self, fd: BorrowedFd<'_>, kind: FileType) -> Result<OwnerIds, Errno> {
        let mut value = [0_u8; 64];
        let name = attribute(kind);
        if name == CAPABILITY_XATTR && modes_are_recorded() {
            return match kind {
                FileType::Symlink => link::owner(fd),
                _ => Ok(OwnerIds::default()),
            };
        }
        let read = match self.get(fd, name, &mut value)? {
            Some(len) => &value[..len],
            None => return Ok(OwnerIds::default()),
        };
        let found = if name == OWNER_XATTR {
            decode(read)
        } else {
            decode_capability(read)
        };
        Ok(found.unwrap_or_default())
    }

    /// `chown(2)` of an inode of that type, kept as a record.
    ///
    /// # Errors
    /// The kernel's.
    pub fn give(self, fd: BorrowedFd<'_>, kind: FileType, owner: OwnerIds) -> Result<(), Errno> {
        let own = own();
        let (uid, gid) = (Uid::from_raw(own.uid), Gid::from_raw(own.gid));
        // To whom it belongs anyway: the kernel then does all else that comes with a change of owner, and refuses it
        // where it would.
        rustix::fs::chownat(fd, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        if modes_are_recorded()
            && kind == FileType::RegularFile
            && let Some(mode) = self.mode(fd, kind)?
        {
            self.record_mode(fd, Some(Mode::from_raw_mode(mode & 0o1777)))?;
        }
        self.record(fd, kind, owner)
    }

    /// The recorded permission bits of an inode of that type.
    fn mode(self, fd: BorrowedFd<'_>, kind: FileType) -> Result<Option<u32>, Errno> {
        if attribute(kind) != OWNER_XATTR {
            return Ok(None);
        }
        let mut value = [0_u8; 16];
        let len = self.get(fd, MODE_XATTR, &mut value)?;
        let text = len.and_then(|len| std::str::from_utf8(&value[..len]).ok());
        Ok(text
            .and_then(|text| u32::from_str_radix(text, 8).ok())
            .filter(|mode| *mode <= PERMISSIONS))
    }

    fn record_mode(self, fd: BorrowedFd<'_>, mode: Option<Mode>) -> Result<(), Errno> {
        match mode {
            Some(mode) => self.set(fd, MODE_XATTR, format!("{:o}", mode.as_raw_mode()).as_bytes()),
            None => match rustix::fs::fremovexattr(fd, MODE_XATTR) {
                Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
                done => done,
            },
        }
    }

    /// Records an owner and changes nothing else.
    ///
    /// # Errors
    /// The kernel's.
    pub fn record(self, fd: BorrowedFd<'_>, kind: FileType, owner: OwnerIds) -> Result<(), Errno> {
        let name = attribute(kind);
        if name == CAPABILITY_XATTR && modes_are_recorded() {
            // A link is given away by its name.
            return match self.owner(fd, kind)? == owner {
                true => Ok(()),
                false => Err(Errno::PERM),
            };
        }
        if owner == OwnerIds::default() {
            let removed = match self.try_open(|| rustix::fs::fremovexattr(fd, name)) {
                Err(Errno::BADF) => rustix::fs::removexattr(self.path(fd).as_str(), name),
                done => done,
            };
            return match removed {
                Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
                done => done,
            };
        }
        let value = if name == OWNER_XATTR {
            format!("{} {}", owner.uid, owner.gid).into_bytes()
        } else {
            encode_capability(owner)
        };
        self.set(fd, name, &value)
    }

    /// The device a regular file stands for: whether it is a block device, and its number.
    ///
    /// # Errors
    /// The kernel's.
    pub fn device(self, fd: BorrowedFd<'_>) -> Result<Option<(bool, u64)>, Errno> {
        let mut value = [0_u8; 64];
        let len = self.get(fd, DEVICE_XATTR, &mut value)?;
        Ok(len.and_then(|len| decode_device(&value[..len])))
    }

    /// Makes an empty regular file stand for a device.
    ///
    /// # Errors
    /// The kernel's.
    pub fn record_device(self, fd: BorrowedFd<'_>, block: bool, number: u64) -> Result<(), Errno> {
        let kind = if block { 'b' } else { 'c' };
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let value = format!("{kind} {major} {minor}");
        self.set(fd, DEVICE_XATTR, value.as_bytes())
    }

    fn set(self, fd: BorrowedFd<'_>, name: &str, value: &[u8]) -> Result<(), Errno> {
        let none = XattrFlags::empty();
        match self.try_open(|| rustix::fs::fsetxattr(fd, name, value, none)) {
            Err(Errno::BADF) => rustix::fs::setxattr(self.path(fd).as_str(), name, value, none),
            done => done,
        }
    }

    fn get(self, fd: BorrowedFd<'_>, name: &str, value: &mut [u8]) -> Result<Option<usize>, Errno> {
        let got = match self.try_open(|| rustix::fs::fgetxattr(fd, name, &mut *value)) {
            Err(Errno::BADF) => rustix::fs::getxattr(self.path(fd).as_str(), name, &mut *value),
            done => done,
        };
        match got {
            Ok(len) => Ok(Some(len)),
            // Longer than any record is no record, and what this user may not read is not this user's.
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE | Errno::ACCESS | Errno::PERM) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// By the descriptor itself, which needs no `/proc`; `EBADF` for one that only holds.
    fn try_open<T>(self, call: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        if self.only_held { Err(Errno::BADF) } else { call() }
    }

    /// The magic link leads to the held inode, whatever has its name by now, and is not followed further.
    fn path(self, fd: BorrowedFd<'_>) -> String {
        format!("{}{}", self.prefix, fd.as_raw_fd())
    }
}

/// Whether owners can be recorded in the directory `dir`: of files, and of what takes no `user.*` attributes.
///
/// # Errors
/// The kernel's: `EOPNOTSUPP` on a file system without such attributes.
pub fn probe(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    let name = format!(".rbuild-owner-{}", rustix::process::getpid().as_raw_nonzero());
    if modes_are_recorded() {
        return probe_directory(dir, &name);
    }
    rustix::fs::symlinkat(c"owner", dir, name.as_str())?;
    let checked = (|| {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let link = rustix::fs::openat(dir, name.as_str(), flags, Mode::empty())?;
        let owner = OwnerIds { uid: 1, gid: 2 };
        Records::OWN.record(link.as_fd(), FileType::Symlink, owner)?;
        if Records::OWN.owner(link.as_fd(), FileType::Symlink)? != owner {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(())
    })();
    rustix::fs::unlinkat(dir, name.as_str(), AtFlags::empty())?;
    checked?;
    probe_directory(dir, &name)
}

fn probe_directory(dir: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    rustix::fs::mkdirat(dir, name, Mode::RWXU)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let checked = rustix::fs::openat(dir, name, flags, Mode::empty())
        .and_then(|made| Records::OWN.record(made.as_fd(), FileType::Directory, OwnerIds { uid: 1, gid: 2 }));
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?;
    checked
}

/// Permission bits, those of set-id and the sticky one among them.
const PERMISSIONS: u32 = 0o7777;

const fn attribute(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile | FileType::Directory => OWNER_XATTR,
        _ => CAPABILITY_XATTR,
    }
}

fn decode(text: &[u8]) -> Option<OwnerIds> {
    let (uid, gid) = std::str::from_utf8(text).ok()?.split_once(' ')?;
    Some(OwnerIds {
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
    })
}

fn decode_device(text: &[u8]) -> Option<(bool, u64)> {
    let mut words = std::str::from_utf8(text).ok()?.split(' ');
    let block = match words.next()? {
        "b" => true,
        "c" => false,
        _ => return None,
    };
    let (major, minor) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words
        .next()
        .is_none()
        .then_some((block, rustix::fs::makedev(major, minor)))
}

/// `VFS_CAP_REVISION_2` (linux/capability.h): a word with the revision, then permitted and inheritable capabilities, low
/// words first. The low words are the ids, the high ones say that this is a record.
const CAPABILITY_REVISION: u32 = 0x0200_0000;
const CAPABILITY_MARK: [u32; 2] = [0x6f77_6e65, 0x7262_6c64];

fn encode_capability(owner: OwnerIds) -> Vec<u8> {
    let [first, second] = CAPABILITY_MARK;
    [CAPABILITY_REVISION, owner.uid, owner.gid, first, second]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect()
}

fn decode_capability(value: &[u8]) -> Option<OwnerIds> {
    let (words, []) = value.as_chunks::<4>() else {
        return None;
    };
    let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    match words.as_slice() {
        [CAPABILITY_REVISION, uid, gid, mark @ ..] if mark == CAPABILITY_MARK => {
            Some(OwnerIds { uid: *uid, gid: *gid })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written_and_nothing_else_is() {
        let owner = OwnerIds {
            uid: 1000,
            gid: u32::MAX - 1,
        };
        assert_eq!(decode_capability(&encode_capability(owner)), Some(owner));
        assert_eq!(decode(b"1000 4294967294"), Some(owner));
        for text in [&b""[..], b"1", b"1 2 3", b"-1 2", b"1 4294967296", b"a b"] {
            assert_eq!(decode(text), None, "{text:?}");
        }
        let mut real = encode_capability(owner);
        real[12] = 0;
        assert_eq!(decode_capability(&real), None, "a file capability is no owner");
        assert_eq!(decode_device(b"c 1 3"), Some((false, rustix::fs::makedev(1, 3))));
        assert_eq!(decode_device(b"b 7 0"), Some((true, rustix::fs::makedev(7, 0))));
        assert_eq!(decode_device(b"c 1 3 4"), None);
    }

    #[test]
    fn privileged_what_has_no_user_attributes_keeps_its_owner_through_renames_until_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        let open = |path: &std::path::Path| {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty()).unwrap()
        };
        let owner = OwnerIds { uid: 7, gid: 8 };
        Records::OWN
            .give(open(&path).as_fd(), FileType::Symlink, owner)
            .unwrap();
        let moved = dir.path().join("moved");
        std::fs::rename(&path, &moved).unwrap();
        let link = open(&moved);
        assert_eq!(Records::OWN.owner(link.as_fd(), FileType::Symlink), Ok(owner));
        Records::OWN
            .give(link.as_fd(), FileType::Symlink, OwnerIds::default())
            .unwrap();
        assert_eq!(
            Records::OWN.owner(link.as_fd(), FileType::Symlink),
            Ok(OwnerIds::default())
        );
    }

    #[test]
    fn privileged_this_file_system_takes_records_of_every_kind() {
        let dir = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        probe(fd.as_fd()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing stays");
    }
}
