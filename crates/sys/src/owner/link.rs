//! Whom a symbolic link belongs to, for a user who can give it no attribute: its own text says so.
//!
//! A path means the same with `./` in front of it, with as many slashes as one likes. A link whose owner is recorded has its target
//! behind such parts: the kernel, and whoever follows it, arrives at the same place, and whoever reads it through here gets the
//! target and the owner. The record is in the inode, as those of files are, and goes where it goes.
//!
//! ```text
//! ./////  digits of the user  ./////  digits of the group  ./////  target
//! ```
//! A digit, of four, is a dot with as many slashes and one; highest first, none for 0. An absolute target keeps its first slash in
//! front. A target that is no record and would be read as one is written as the record of root.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use super::{Gid, OwnerIds, Uid, modes_are_recorded};

/// Slashes behind the dot that divides.
const DIVIDER: usize = 5;
/// Bits of a digit.
const BITS: u32 = 2;

/// `readlinkat(2)`: the target that is meant. An empty name is the link that `dir` holds.
///
/// # Errors
/// The kernel's.
pub fn read_link(dir: impl AsFd, name: impl Arg) -> Result<CString, Errno> {
    let text = rustix::fs::readlinkat(dir, name, Vec::new())?;
    Ok(match decode(text.as_bytes()).filter(|_| modes_are_recorded()) {
        Some((_, target)) => CString::new(target).map_err(|_nul| Errno::INVAL)?,
        None => text,
    })
}

/// `symlinkat(2)` of a target that is meant, for root.
///
/// # Errors
/// The kernel's.
pub fn make_link(target: &[u8], dir: impl AsFd, name: impl Arg) -> Result<(), Errno> {
    if modes_are_recorded() && decode(target).is_some() {
        return rustix::fs::symlinkat(encode(target, OwnerIds::default()), dir, name);
    }
    rustix::fs::symlinkat(target, dir, name)
}

/// Gives `name`, which is not followed, to a user and a group, and holds it (`O_PATH`). Where links have their owner in their
/// text, a symbolic link is another one afterwards, with its own times: nobody else may work in `dir` meanwhile.
///
/// # Errors
/// The kernel's: `ENAMETOOLONG` for a target that leaves no room for an owner.
pub fn chown_at(
    dir: impl AsFd,
    name: impl Arg + Copy,
    uid: Option<Uid>,
    gid: Option<Gid>,
) -> Result<OwnedFd, Errno> {
    let dir = dir.as_fd();
    let node = hold(dir, name)?;
    if !modes_are_recorded() || !is_link(&node)? {
        super::chown(&node, uid, gid)?;
        return Ok(node);
    }
    let text = rustix::fs::readlinkat(&node, c"", Vec::new())?;
    let (old, target) =
        decode(text.as_bytes()).unwrap_or_else(|| (OwnerIds::default(), text.to_bytes().to_vec()));
    let owner = OwnerIds {
        uid: uid.map_or(old.uid, Uid::as_raw),
        gid: gid.map_or(old.gid, Gid::as_raw),
    };
    if owner == old {
        return Ok(node);
    }
    let is_plain = owner == OwnerIds::default() && decode(&target).is_none();
    let text = if is_plain { target } else { encode(&target, owner) };
    if text.len() > LONGEST {
        return Err(Errno::NAMETOOLONG);
    }
    rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
    rustix::fs::symlinkat(text, dir, name)?;
    hold(dir, name)
}

fn is_link(node: &OwnedFd) -> Result<bool, Errno> {
    let stat = rustix::fs::fstat(node)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// The longest target of a link on the file systems that there are (`PATH_MAX` without its end).
const LONGEST: usize = 4095;

fn hold(dir: impl AsFd, name: impl Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// The owner that a held link's own text tells.
pub(super) fn owner(link: impl AsFd) -> Result<OwnerIds, Errno> {
    let text = rustix::fs::readlinkat(link, c"", Vec::new())?;
    Ok(decode(text.as_bytes())
        .map(|(owner, _)| owner)
        .unwrap_or_default())
}

fn encode(target: &[u8], owner: OwnerIds) -> Vec<u8> {
    let (root, rest) = match target.strip_prefix(b"/") {
        Some(rest) => (&b"/"[..], rest),
        None => (&b""[..], target),
    };
    let mut text = root.to_vec();
    let mut part = |slashes: usize| {
        text.push(b'.');
        text.resize(text.len() + slashes, b'/');
    };
    part(DIVIDER);
    for id in [owner.uid, owner.gid] {
        let digits = (u32::BITS - id.leading_zeros()).div_ceil(BITS);
        for at in (0..digits).rev() {
            part((id >> (at * BITS) & 3) as usize + 1);
        }
        part(DIVIDER);
    }
    text.extend_from_slice(rest);
    text
}

fn decode(text: &[u8]) -> Option<(OwnerIds, Vec<u8>)> {
    let (root, mut rest) = match text.strip_prefix(b"/") {
        Some(rest) => (&b"/"[..], rest),
        None => (&b""[..], text),
    };
    // A part, and what is behind it. Slashes beyond those of a divider belong to the target.
    let mut part = || {
        let behind = rest.strip_prefix(b".")?;
        let slashes = behind
            .iter()
            .take(DIVIDER)
            .take_while(|byte| **byte == b'/')
            .count();
        rest = &behind[slashes..];
        (slashes > 0).then_some(slashes)
    };
    let mut id = || {
        let mut id = 0_u32;
        loop {
            match part()? {
                DIVIDER => return Some(id),
                slashes => {
                    let digit = u32::try_from(slashes - 1).ok()?;
                    // No digit of 0 in front, and none too many: each owner has one spelling.
                    let fits = id.leading_zeros() >= BITS && (id, digit) != (0, 0);
                    id = fits.then_some(id << BITS | digit)?;
                }
            }
        }
    };
    // In front of the first divider there are no digits.
    let first = id()?;
    let (uid, gid) = (id()?, id()?);
    (first == 0).then(|| (OwnerIds { uid, gid }, [root, rest].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: [&[u8]; 9] = [
        b"f",
        b"../up",
        b"/abs",
        b"/",
        b"//two",
        b"./here",
        b"././//.//odd",
        b".",
        b"\xff not text",
    ];

    #[test]
    fn what_is_written_is_read() {
        for target in TARGETS {
            assert_eq!(decode(target), None, "{target:?}");
            for (uid, gid) in [(0, 0), (1, 0), (0, 7), (1000, 1000), (u32::MAX - 1, u32::MAX)] {
                let owner = OwnerIds { uid, gid };
                let text = encode(target, owner);
                assert!(text.len() <= target.len() + 6 * 3 + 5 * 32, "{}", text.len());
                assert_eq!(decode(&text), Some((owner, target.to_vec())), "{target:?}");
                // A target that looks like a record is one of a record.
                let twice = encode(&text, OwnerIds::default());
                assert_eq!(decode(&twice), Some((OwnerIds::default(), text)));
            }
        }
    }

    #[test]
    fn what_is_no_record_is_a_target() {
        for text in [
            &b"./////"[..],
            b"./////./////",
            b"./////././////./////f",
            b"./////x./////./////f",
            b"././/////./////./////f",
            b".//./////./////./////f",
        ] {
            assert_eq!(decode(text), None, "{:?}", String::from_utf8_lossy(text));
        }
        let too_many = ["./////", &".////".repeat(17), "./////./////f"].concat();
        assert_eq!(decode(too_many.as_bytes()), None);
        assert_eq!(
            decode(b"./////./////./////"),
            Some((OwnerIds::default(), Vec::new())),
            "which nobody writes"
        );
    }

    #[test]
    fn a_link_with_an_owner_leads_where_it_led() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("f"), "content").unwrap();
        let owner = OwnerIds {
            uid: 65_534,
            gid: u32::MAX,
        };
        let absolute = dir.path().join("f");
        for (name, target) in [
            ("d/l", "../f"),
            ("l", "f"),
            ("dot", "./f"),
            ("abs", absolute.to_str().unwrap()),
        ] {
            let text = encode(target.as_bytes(), owner);
            rustix::fs::symlink(text, dir.path().join(name)).unwrap();
            assert_eq!(
                std::fs::read_to_string(dir.path().join(name)).unwrap(),
                "content",
                "{name}"
            );
        }
    }
}
