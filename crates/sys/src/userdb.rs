//! The user database of a root that others filled: `/etc/passwd` and `/etc/group`, read with a budget and parsed
//! line by line. Refuses to guess: text made of digits is a number and never a name, and a number outside
//! 0..=2^31-1 is an error, never another user. Nothing of the host (NSS, `getpwnam`) is ever asked.

use std::path::Path;

use crate::{RootFd, RootFdError};
use rustix::io::Errno;

/// Most bytes read of `/etc/passwd` or `/etc/group`; BuildKit's limit (`solver/llbsolver/ops/user_linux.go`).
pub const USER_FILE_MAX_BYTES: u64 = 10 << 20;
/// Highest user or group id accepted, `2^31 - 1`; the limit of moby/sys/user.
pub(crate) const ID_MAX: u32 = i32::MAX as u32;
/// Most supplementary groups of one user; the kernel's `NGROUPS_MAX`.
pub const GROUPS_MAX: usize = 65_536;

/// What is wrong with a user or group given as text, or with the files it was looked up in.
#[derive(Debug, thiserror::Error)]
pub enum UserDbError {
    /// A number that no id can have, in the words of moby (`moby/sys/user`).
    #[error("uids and gids must be in range 0-{ID_MAX}")]
    IdRange(String),
    /// Neither a name nor a number: empty.
    #[error("{0:?} is not a user or group")]
    Malformed(String),
    /// The file could not be read: no regular file, too large, or the kernel's answer.
    #[error("cannot read the user database")]
    Read(#[source] RootFdError),
    /// The user is in more groups than a process can have.
    #[error("user {0:?} is in more than {GROUPS_MAX} groups")]
    TooManyGroups(String),
}

/// One half of `user:group`, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Principal<'a> {
    /// A number in range.
    Id(u32),
    /// A name to look up.
    Name(&'a str),
}

impl<'a> Principal<'a> {
    /// Reads one half of an owner.
    ///
    /// # Errors
    /// [`UserDbError::IdRange`] for digits above `ID_MAX` or behind a sign (which other builders take for a number, or
    /// for root); [`UserDbError::Malformed`] for nothing.
    pub fn parse(text: &'a str) -> Result<Self, UserDbError> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let is_number = !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit());
        if text.is_empty() {
            return Err(UserDbError::Malformed(text.to_owned()));
        }
        if !is_number {
            return Ok(Self::Name(text));
        }
        match text.parse::<u32>() {
            // Rust takes `+0` for a number.
            Ok(id) if id <= ID_MAX && unsigned.len() == text.len() => Ok(Self::Id(id)),
            _ => Err(UserDbError::IdRange(text.to_owned())),
        }
    }
}

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswdEntry<'a> {
    /// Login name.
    pub name: &'a [u8],
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home directory; empty if the line ends before it.
    pub home: &'a [u8],
}

/// A line of `/etc/group`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupEntry<'a> {
    /// Name.
    pub name: &'a [u8],
    /// Group id.
    pub gid: u32,
    members: &'a [u8],
}

impl<'a> GroupEntry<'a> {
    /// Names of the users that have it as a supplementary group.
    pub fn members(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.members.split(|b| *b == b',').filter(|name| !name.is_empty())
    }
}

/// Content of `/etc/passwd`.
#[derive(Debug, Clone, Default)]
pub struct Passwd(Vec<u8>);

/// Content of `/etc/group`.
#[derive(Debug, Clone, Default)]
pub struct Groups(Vec<u8>);

impl Passwd {
    /// Reads `/etc/passwd` inside `root`. A root without one has no users.
    ///
    /// # Errors
    /// [`UserDbError::Read`] if it is there and is not a regular file within [`USER_FILE_MAX_BYTES`].
    pub fn read(root: &RootFd) -> Result<Self, UserDbError> {
        read_user_file(root, "/etc/passwd").map(Self)
    }

    /// The lines that are entries, in order. Lines without a name or with ids that are not numbers in range are
    /// passed over: no broken line may turn into user 0.
    pub fn entries(&self) -> impl Iterator<Item = PasswdEntry<'_>> {
        lines(&self.0).filter_map(|line| {
            let mut fields = line.split(|b| *b == b':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            let uid = parse_id(fields.nth(1)?)?;
            let gid = parse_id(fields.next()?)?;
            let home = fields.nth(1).unwrap_or_default();
            Some(PasswdEntry { name, uid, gid, home })
        })
    }

    /// The first entry of that name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<PasswdEntry<'_>> {
        self.entries().find(|entry| entry.name == name.as_bytes())
    }

    /// The first entry of that user id.
    #[must_use]
    pub fn by_uid(&self, uid: u32) -> Option<PasswdEntry<'_>> {
        self.entries().find(|entry| entry.uid == uid)
    }
}

impl Groups {
    /// Reads `/etc/group` inside `root`. A root without one has no groups.
    ///
    /// # Errors
    /// [`UserDbError::Read`] if it is there and is not a regular file within [`USER_FILE_MAX_BYTES`].
    pub fn read(root: &RootFd) -> Result<Self, UserDbError> {
        read_user_file(root, "/etc/group").map(Self)
    }

    /// The lines that are entries, in order; broken ones are passed over as in [`Passwd::entries`], and so are comments,
    /// which moby/sys/user knows in this file only.
    pub fn entries(&self) -> impl Iterator<Item = GroupEntry<'_>> {
        lines(&self.0)
            .filter(|line| !line.starts_with(b"#"))
            .filter_map(|line| {
                let mut fields = line.split(|b| *b == b':');
                let name = fields.next().filter(|name| !name.is_empty())?;
                let gid = parse_id(fields.nth(1)?)?;
                Some(GroupEntry {
                    name,
                    gid,
                    members: fields.next().unwrap_or_default(),
                })
            })
    }

    /// The first entry of that name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<GroupEntry<'_>> {
        self.entries().find(|entry| entry.name == name.as_bytes())
    }

    /// The supplementary groups of a user, sorted, each once.
    ///
    /// # Errors
    /// [`UserDbError::TooManyGroups`] above [`GROUPS_MAX`].
    pub fn of_user(&self, name: &[u8]) -> Result<Vec<u32>, UserDbError> {
        let mut found = std::collections::BTreeSet::new();
        for entry in self.entries() {
            if entry.members().any(|member| member == name) {
                found.insert(entry.gid);
            }
            if found.len() > GROUPS_MAX {
                return Err(UserDbError::TooManyGroups(
                    String::from_utf8_lossy(name).into_owned(),
                ));
            }
        }
        Ok(found.into_iter().collect())
    }
}

fn read_user_file(root: &RootFd, path: &str) -> Result<Vec<u8>, UserDbError> {
    match root.read_file(Path::new(path), USER_FILE_MAX_BYTES) {
        Ok(bytes) => Ok(bytes),
        Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::NOTDIR)) => Ok(Vec::new()),
        Err(e) => Err(UserDbError::Read(e)),
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(|b| *b == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
}

fn parse_id(field: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(field).ok()?;
    match Principal::parse(text) {
        Ok(Principal::Id(id)) => Some(id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row15_digits_are_never_a_name_and_range_is_checked() {
        assert_eq!(Principal::parse("0").unwrap(), Principal::Id(0));
        assert_eq!(Principal::parse("2147483647").unwrap(), Principal::Id(ID_MAX));
        assert_eq!(Principal::parse("0x0").unwrap(), Principal::Name("0x0"));
        assert_eq!(Principal::parse("www-data").unwrap(), Principal::Name("www-data"));
        for text in [
            "2147483648",
            "4294967295",
            "4294967296",
            "99999999999999999999999",
            "-1",
            "+0",
            "-0",
        ] {
            assert!(
                matches!(Principal::parse(text), Err(UserDbError::IdRange(_))),
                "{text}"
            );
        }
        assert!(matches!(Principal::parse(""), Err(UserDbError::Malformed(_))));
    }

    #[test]
    fn row15_broken_lines_are_nobody() {
        let text = b"evil:x:abc:0::/:\nbig:x:4294967296:0::/:\n:x:0:0::/:\nneg:x:-1:0\nshort:x:5\n\nbob:x:1000:100:Bob:/home/bob:/bin/sh\n";
        let passwd = Passwd(text.to_vec());
        assert_eq!(passwd.entries().count(), 1);
        let bob = passwd.by_name("bob").unwrap();
        assert_eq!((bob.uid, bob.gid, bob.home), (1000, 100, &b"/home/bob"[..]));
        assert_eq!(passwd.by_uid(1000), Some(bob));
        assert!(passwd.by_name("evil").is_none());
    }

    #[test]
    fn groups_of_a_user_are_sorted_and_counted_once() {
        let text = b"root:x:0:\nwheel:x:10:bob,alice\nb:x:5:bob\nb2:x:5:,bob,\nno:x:7:bobby\n";
        let groups = Groups(text.to_vec());
        assert_eq!(groups.of_user(b"bob").unwrap(), [5, 10]);
        assert_eq!(groups.by_name("wheel").unwrap().gid, 10);
        let no = groups.by_name("no").unwrap();
        assert_eq!(no.members().collect::<Vec<_>>(), [b"bobby"]);
    }

    #[test]
    fn row15_a_user_in_too_many_groups_is_an_error() {
        let text = |n: usize| {
            (0..n)
                .map(|i| format!("g{i}:x:{i}:bob\n"))
                .collect::<String>()
                .into_bytes()
        };
        assert_eq!(
            Groups(text(GROUPS_MAX)).of_user(b"bob").unwrap().len(),
            GROUPS_MAX
        );
        let many = Groups(text(GROUPS_MAX + 1));
        assert!(matches!(many.of_user(b"bob"), Err(UserDbError::TooManyGroups(_))));
    }

    #[test]
    fn row15_the_files_are_read_inside_the_root_with_a_budget() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("root/etc");
        std::fs::create_dir_all(&etc).unwrap();
        std::fs::write(dir.path().join("passwd"), "host:x:1:1::/:\n").unwrap();
        let root = RootFd::open(&dir.path().join("root")).unwrap();
        assert_eq!(
            Passwd::read(&root).unwrap().entries().count(),
            0,
            "no file is no users"
        );

        std::os::unix::fs::symlink(dir.path().join("passwd"), etc.join("passwd")).unwrap();
        assert_eq!(
            Passwd::read(&root).unwrap().entries().count(),
            0,
            "the host's file is not seen"
        );
        std::fs::remove_file(etc.join("passwd")).unwrap();

        std::fs::write(etc.join("real"), "in:x:1:1::/:\n").unwrap();
        std::os::unix::fs::symlink("/etc/real", etc.join("passwd")).unwrap();
        assert!(
            Passwd::read(&root).unwrap().by_name("in").is_some(),
            "a link inside the root works"
        );
        std::fs::remove_file(etc.join("passwd")).unwrap();

        let file = std::fs::File::create(etc.join("passwd")).unwrap();
        file.set_len(10 << 30).unwrap();
        assert!(matches!(
            Passwd::read(&root),
            Err(UserDbError::Read(RootFdError::TooLarge { .. }))
        ));
        std::fs::remove_file(etc.join("passwd")).unwrap();

        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let path = etc.join("passwd");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(matches!(
            Passwd::read(&root),
            Err(UserDbError::Read(RootFdError::NotRegular(_)))
        ));
    }
}
