//! Answers about files that are there: their status, their owner, their attributes, and programs that are started.
//!
//! An error means that the kernel shall run the call and find out by itself.

use std::os::fd::{AsFd as _, OwnedFd};

use rbuild_sys::owner::{CAPABILITY_XATTR, OwnerIds, Records};
use rbuild_sys::seccomp::notify::Answer;
use rbuild_sys::status_image::StatusImage;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::caller::Caller;
use super::calls::Place;

/// What all attributes of ours begin with.
const OURS: &[u8] = b"user.rbuild.";
/// Longest name of an attribute, with its NUL (`XATTR_NAME_MAX`).
const ATTRIBUTE_MAX: usize = 256;
/// Most bytes of a list of names (`XATTR_LIST_MAX`).
const LIST_MAX: usize = 64 << 10;

/// What is recorded of a file.
pub(super) struct Recorded {
    pub(super) owner: OwnerIds,
    device: Option<(bool, u64)>,
}

impl Recorded {
    /// Of what `fd` holds. An error for what belongs to another user of the machine: there are no records of that.
    pub(super) fn of(fd: &OwnedFd, stat: &Stat) -> Result<Self, Errno> {
        if (stat.st_uid, stat.st_gid) != (0, 0) {
            return Err(Errno::PERM);
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        let device = if kind == FileType::RegularFile && stat.st_size == 0 {
            Records::FROM_CWD.device(fd.as_fd())?
        } else {
            None
        };
        Ok(Self {
            owner: Records::FROM_CWD.owner(fd.as_fd(), kind)?,
            device,
        })
    }

    fn is_nothing(&self) -> bool {
        self.owner == OwnerIds::default() && self.device.is_none()
    }

    fn put(&self, image: &mut StatusImage) {
        image.set_owner(self.owner);
        if let Some((block, number)) = self.device {
            image.set_device(block, number);
        }
    }
}

pub(super) fn stat(caller: &mut Caller<'_>, place: Place, buffer: usize) -> Result<Answer, Errno> {
    let fd = caller.open(place)?;
    let recorded = Recorded::of(&fd, &rustix::fs::fstat(&fd)?)?;
    if recorded.is_nothing() {
        return Ok(Answer::Continue);
    }
    let mut image = StatusImage::stat(&fd)?;
    recorded.put(&mut image);
    caller.write(caller.wide(buffer), image.bytes())?;
    Ok(Answer::Value(0))
}

pub(super) fn statx(caller: &mut Caller<'_>) -> Result<Answer, Errno> {
    const SYNC: u32 = 0x6000;
    let place = Place::At {
        dir: 0,
        path: 1,
        flags: 2,
    };
    let fd = caller.open(place)?;
    let recorded = Recorded::of(&fd, &rustix::fs::fstat(&fd)?)?;
    if recorded.is_nothing() {
        return Ok(Answer::Continue);
    }
    let mut image = StatusImage::statx(&fd, caller.word(2) & SYNC, caller.word(3))?;
    recorded.put(&mut image);
    caller.write(caller.wide(4), image.bytes())?;
    Ok(Answer::Value(0))
}

pub(super) fn chown(caller: &mut Caller<'_>, place: Place, ids: usize) -> Result<Answer, Errno> {
    const KEEP: u32 = u32::MAX;
    let fd = caller.open(place)?;
    let stat = rustix::fs::fstat(&fd)?;
    let old = Recorded::of(&fd, &stat)?.owner;
    let kept = |id: u32, old: u32| if id == KEEP { old } else { id };
    let new = OwnerIds {
        uid: kept(caller.word(ids), old.uid),
        gid: kept(caller.word(ids + 1), old.gid),
    };
    if !caller.credentials()?.may_give(old, new) {
        return Ok(Answer::Error(Errno::PERM));
    }
    let kind = FileType::from_raw_mode(stat.st_mode);
    Ok(match Records::FROM_CWD.give(fd.as_fd(), kind, new) {
        // Not a file of a layer: nothing remembers its owner.
        Ok(()) | Err(Errno::OPNOTSUPP) => Answer::Value(0),
        Err(error) => Answer::Error(error),
    })
}

/// A set-id program makes the caller its owner. What cannot be started leaves a caller that is its owner too early; it is
/// the caller of a program that does not start.
pub(super) fn execute(caller: &mut Caller<'_>, place: Place) -> Result<Answer, Errno> {
    let fd = caller.open(place)?;
    let stat = rustix::fs::fstat(&fd)?;
    let before = caller.credentials()?;
    let mut after = before.clone();
    let set = SetIds::of(&fd, &stat)?;
    after.user.execute(set.user);
    after.group.execute(set.group);
    if after != before {
        caller.become_other(after)?;
    }
    Ok(Answer::Continue)
}

/// The ids that a program gives.
#[derive(Default)]
struct SetIds {
    user: Option<u32>,
    group: Option<u32>,
}

impl SetIds {
    fn of(fd: &OwnedFd, stat: &Stat) -> Result<Self, Errno> {
        const SET_USER: u32 = 0o4000;
        const SET_GROUP: u32 = 0o2010;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let user = stat.st_mode & SET_USER != 0;
        let group = stat.st_mode & SET_GROUP == SET_GROUP;
        if !regular || !(user || group) || is_script(fd)? {
            return Ok(Self::default());
        }
        let owner = Recorded::of(fd, stat)?.owner;
        Ok(Self {
            user: user.then_some(owner.uid),
            group: group.then_some(owner.gid),
        })
    }
}

/// The kernel ignores set-id bits of those.
fn is_script(held: &OwnedFd) -> Result<bool, Errno> {
    use std::os::fd::AsRawFd as _;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let path = format!("./{}", held.as_raw_fd());
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    let mut start = [0_u8; 2];
    let read = rustix::io::read(&file, start.as_mut_slice())?;
    Ok(read == 2 && start == *b"#!")
}

/// Records are not the step's to write: it has `chown(2)`.
pub(super) fn change_attribute(caller: &Caller<'_>, refusal: Errno) -> Result<Answer, Errno> {
    let name = caller.text(caller.wide(1), ATTRIBUTE_MAX)?;
    if name.to_bytes().starts_with(OURS) {
        return Ok(Answer::Error(refusal));
    }
    Ok(Answer::Continue)
}

/// Lists attributes without those of ours.
pub(super) fn list_attributes(caller: &mut Caller<'_>, place: Place) -> Result<Answer, Errno> {
    use std::os::fd::AsRawFd as _;
    let fd = caller.open(place)?;
    let stat = rustix::fs::fstat(&fd)?;
    if Recorded::of(&fd, &stat)?.is_nothing() {
        return Ok(Answer::Continue);
    }
    let kind = FileType::from_raw_mode(stat.st_mode);
    let has_user = matches!(kind, FileType::RegularFile | FileType::Directory);
    let mut names = vec![0; LIST_MAX];
    let len = rustix::fs::listxattr(format!("./{}", fd.as_raw_fd()), names.as_mut_slice())?;
    let mut shown = Vec::new();
    for name in names[..len].split_inclusive(|byte| *byte == 0) {
        let ours = name.starts_with(OURS)
            || !has_user && name.strip_suffix(b"\0") == Some(CAPABILITY_XATTR.as_bytes());
        if !ours {
            shown.extend_from_slice(name);
        }
    }
    let room = caller.wide(2);
    if room != 0 {
        if room < shown.len() as u64 {
            return Ok(Answer::Error(Errno::RANGE));
        }
        caller.write(caller.wide(1), &shown)?;
    }
    Ok(Answer::Value(i64::try_from(shown.len()).unwrap_or(i64::MAX)))
}
