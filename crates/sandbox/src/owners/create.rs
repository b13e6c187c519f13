//! Answers to calls that make files: those of root are left to the kernel; for anybody else the file is made here, with
//! its owner on record before the caller goes on.
//!
//! An error means that the kernel shall run the call and find out by itself.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, OwnedFd};

use rbuild_sys::owner::{OwnerIds, Records};
use rbuild_sys::seccomp::notify::Answer;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::caller::Caller;
use super::calls::Name;
use super::files::Recorded;

/// `struct open_how` as it was first: flags, mode, and how to resolve.
const HOW_BYTES: u64 = 24;

/// Where something is to be made.
struct Spot {
    parent: OwnedFd,
    name: CString,
    owner: OwnerIds,
}

impl Spot {
    /// Nothing if the kernel would give a new file there its true owner by itself.
    fn find(caller: &mut Caller<'_>, at: Name, slash: bool) -> Result<Option<Self>, Errno> {
        let path = caller.path(at.path)?;
        let Some((parent, name)) = split(&path, slash) else {
            return Ok(None);
        };
        let parent = caller.hold(at.dir, &parent, true)?;
        let owner = owner_below(caller, &parent)?;
        Ok(owner.map(|owner| Self { parent, name, owner }))
    }

    /// Records the owner of what was made.
    fn own(&self, made: &OwnedFd) -> Result<(), Errno> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(made)?.st_mode);
        match Records::FROM_CWD.record(made.as_fd(), kind, self.owner) {
            // Nothing remembers owners there.
            Err(Errno::OPNOTSUPP) => Ok(()),
            done => done,
        }
    }

    fn own_by_name(&self) -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.own(&rustix::fs::openat(
            &self.parent,
            &self.name,
            flags,
            Mode::empty(),
        )?)
    }
}

/// Whose a new file in `dir` is. Nothing if root's.
fn owner_below(caller: &Caller<'_>, dir: &OwnedFd) -> Result<Option<OwnerIds>, Errno> {
    const SET_GROUP: u32 = 0o2000;
    let stat = rustix::fs::fstat(dir)?;
    let mut owner = caller.credentials()?.owner();
    if stat.st_mode & SET_GROUP != 0 {
        owner.gid = Recorded::of(dir, &stat)?.owner.gid;
    }
    Ok((owner != OwnerIds::default()).then_some(owner))
}

/// Directory and last name of a path. Nothing for what cannot be a new name; a slash at the end is for directories.
fn split(path: &CStr, slash: bool) -> Option<(CString, CString)> {
    let mut text = path.to_bytes();
    if slash {
        while let Some(shorter) = text.strip_suffix(b"/") {
            text = shorter;
        }
    }
    let at = text.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (parent, name) = text.split_at(at);
    if matches!(name, b"" | b"." | b"..") {
        return None;
    }
    let parent = if parent.is_empty() { b"." } else { parent };
    Some((CString::new(parent).ok()?, CString::new(name).ok()?))
}

pub(super) fn directory(caller: &mut Caller<'_>, at: Name, mode: usize) -> Result<Answer, Errno> {
    let Some(spot) = Spot::find(caller, at, true)? else {
        return Ok(Answer::Continue);
    };
    let mode = permissions(caller, caller.word(mode), 0o1777)?;
    if let Err(error) = rustix::fs::mkdirat(&spot.parent, &spot.name, mode) {
        return Ok(Answer::Error(error));
    }
    finish(spot.own_by_name())
}

pub(super) fn link(caller: &mut Caller<'_>, at: Name) -> Result<Answer, Errno> {
    let Some(spot) = Spot::find(caller, at, false)? else {
        return Ok(Answer::Continue);
    };
    // Not a path to be followed here: a text to be stored.
    let target = caller.text(caller.wide(0), 4096)?;
    if let Err(error) = rustix::fs::symlinkat(&target, &spot.parent, &spot.name) {
        return Ok(Answer::Error(error));
    }
    finish(spot.own_by_name())
}

pub(super) fn node(caller: &mut Caller<'_>, at: Name, mode: usize) -> Result<Answer, Errno> {
    let (bits, device) = (caller.word(mode), caller.wide(mode + 1));
    let kind = match FileType::from_raw_mode(bits) {
        // No type means a regular file.
        FileType::Unknown if bits & 0o170_000 == 0 => FileType::RegularFile,
        kind => kind,
    };
    let block = kind == FileType::BlockDevice;
    // 0:0 is overlayfs' whiteout, which it lets nobody make.
    if block || kind == FileType::CharacterDevice && device != 0 {
        return stand_in(caller, at, bits, block, device);
    }
    let Some(spot) = Spot::find(caller, at, false)? else {
        return Ok(Answer::Continue);
    };
    let mode = permissions(caller, bits, 0o7777)?;
    if let Err(error) = rustix::fs::mknodat(&spot.parent, &spot.name, kind, mode, 0) {
        return Ok(Answer::Error(error));
    }
    finish(spot.own_by_name())
}

/// An empty file stands for a device. It cannot be used as one, and no step is to: it is there for the layer.
fn stand_in(caller: &mut Caller<'_>, at: Name, bits: u32, block: bool, device: u64) -> Result<Answer, Errno> {
    if !caller.credentials()?.privileged() {
        return Ok(Answer::Error(Errno::PERM));
    }
    let path = caller.path(at.path)?;
    let Some((parent, name)) = split(&path, false) else {
        return Ok(Answer::Continue);
    };
    let parent = caller.hold(at.dir, &parent, true)?;
    let owner = owner_below(caller, &parent)?.unwrap_or_default();
    let spot = Spot { parent, name, owner };
    let mode = permissions(caller, bits, 0o7777)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = match rustix::fs::openat(&spot.parent, &spot.name, flags, mode) {
        Ok(made) => made,
        Err(error) => return Ok(Answer::Error(error)),
    };
    let recorded = Records::FROM_CWD
        .record_device(made.as_fd(), block, device)
        .and_then(|()| spot.own(&made));
    if let Err(error) = recorded {
        // An empty file that is no device would be a lie.
        rustix::fs::unlinkat(&spot.parent, &spot.name, AtFlags::empty()).ok();
        return Ok(Answer::Error(error));
    }
    Ok(Answer::Value(0))
}

pub(super) fn file(
    caller: &mut Caller<'_>,
    at: Name,
    flags: Option<usize>,
    mode: usize,
) -> Result<Answer, Errno> {
    let flags = flags.map_or(OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC, |flags| {
        OFlags::from_bits_retain(caller.word(flags))
    });
    make_file(caller, at, flags, caller.word(mode))
}

/// `openat2(2)`. One that restricts how a path is resolved and may make a file is not there for those whose files have
/// to be recorded: programs fall back.
pub(super) fn how(caller: &mut Caller<'_>) -> Result<Answer, Errno> {
    if caller.wide(3) < HOW_BYTES {
        return Ok(Answer::Continue);
    }
    let mut bytes = [0_u8; 24];
    caller.read(caller.wide(2), &mut bytes)?;
    let field = |at: usize| {
        let mut word = [0_u8; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_ne_bytes(word)
    };
    let making = OFlags::CREATE | OFlags::TMPFILE.difference(OFlags::DIRECTORY);
    let flags = u32::try_from(field(0)).map(OFlags::from_bits_retain);
    let (Ok(flags), Ok(mode)) = (flags, u32::try_from(field(8))) else {
        return Ok(Answer::Continue);
    };
    if !flags.intersects(making) {
        return Ok(Answer::Continue);
    }
    let at = Name {
        dir: Some(0),
        path: 1,
    };
    if field(16) != 0 {
        return Ok(match Spot::find(caller, at, false)? {
            Some(_) => Answer::Error(Errno::NOSYS),
            None => Answer::Continue,
        });
    }
    make_file(caller, at, flags, mode)
}

fn make_file(caller: &mut Caller<'_>, at: Name, flags: OFlags, mode: u32) -> Result<Answer, Errno> {
    if flags.contains(OFlags::PATH) {
        return Ok(Answer::Continue);
    }
    if flags.contains(OFlags::TMPFILE) {
        return make_unnamed(caller, at, flags, mode);
    }
    let Some(spot) = Spot::find(caller, at, false)? else {
        return Ok(Answer::Continue);
    };
    // Also a link that leads nowhere: what is made behind it is root's.
    match rustix::fs::statat(&spot.parent, &spot.name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {}
        _ => return Ok(Answer::Continue),
    }
    let mode = permissions(caller, mode, 0o7777)?;
    let made = rustix::fs::openat(
        &spot.parent,
        &spot.name,
        flags | OFlags::EXCL | OFlags::CLOEXEC,
        mode,
    );
    match made {
        Ok(made) => hand_over(&spot, made, flags),
        // Somebody was faster.
        Err(Errno::EXIST) => Ok(Answer::Continue),
        Err(error) => Ok(Answer::Error(error)),
    }
}

fn make_unnamed(caller: &mut Caller<'_>, at: Name, flags: OFlags, mode: u32) -> Result<Answer, Errno> {
    let path = caller.path(at.path)?;
    let parent = caller.hold(at.dir, &path, true)?;
    let Some(owner) = owner_below(caller, &parent)? else {
        return Ok(Answer::Continue);
    };
    let mode = permissions(caller, mode, 0o7777)?;
    let spot = Spot {
        parent,
        name: c".".into(),
        owner,
    };
    match rustix::fs::openat(&spot.parent, c".", flags | OFlags::CLOEXEC, mode) {
        Ok(made) => hand_over(&spot, made, flags),
        Err(error) => Ok(Answer::Error(error)),
    }
}

fn hand_over(spot: &Spot, made: OwnedFd, flags: OFlags) -> Result<Answer, Errno> {
    spot.own(&made)?;
    Ok(Answer::Descriptor {
        file: made,
        close_on_exec: flags.contains(OFlags::CLOEXEC),
    })
}

/// What was made is there: an owner that could not be recorded is an error of the call, not a reason to try again.
fn finish(owned: Result<(), Errno>) -> Result<Answer, Errno> {
    Ok(match owned {
        Ok(()) => Answer::Value(0),
        Err(error) => Answer::Error(error),
    })
}

fn permissions(caller: &mut Caller<'_>, mode: u32, allowed: u32) -> Result<Mode, Errno> {
    let umask = caller.umask()?;
    Ok(Mode::from_raw_mode(mode & allowed & !umask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_names_are_split_from_their_directories() {
        let parts = |text: &str, slash| {
            let path = CString::new(text).unwrap();
            split(&path, slash).map(|(parent, name)| {
                (
                    parent.to_str().unwrap().to_owned(),
                    name.to_str().unwrap().to_owned(),
                )
            })
        };
        let found = |parent: &str, name: &str| Some((parent.to_owned(), name.to_owned()));
        assert_eq!(parts("a", false), found(".", "a"));
        assert_eq!(parts("/a", false), found("/", "a"));
        assert_eq!(parts("../b/c", false), found("../b/", "c"));
        assert_eq!(parts("a/", true), found(".", "a"));
        assert_eq!(parts("/a//", true), found("/", "a"));
        for text in ["", "/", "a/", ".", "a/..", "/."] {
            assert_eq!(parts(text, false), None, "{text}");
        }
        assert_eq!(parts("//", true), None);
    }
}
