//! Who `USER` and `--chown` mean, by the image's own `/etc/passwd` and `/etc/group`.
//!
//! The rules are BuildKit's (executor/oci/user.go over moby/sys/user; solver/llbsolver/ops/user_linux.go). The files
//! are read inside the root, with a budget, and never by the name service of this machine. Digits are always a
//! number and never a name; where the originals let a number overflow or a broken entry count as 0, which is root,
//! this is an error.

use std::path::Path;

use rbuild_sys::{RootFd, RootFdError};

use crate::plan::Ids;

/// Why a user specification means nobody.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No entry of that name in `/etc/passwd`.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// No entry of that name in `/etc/group`.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// A number outside 0 to 2147483647.
    #[error("uid or gid {0} is not in the range 0-2147483647")]
    OutOfRange(String),
    /// The entry that matches has no valid number where one belongs.
    #[error("{file}: entry {name} has an id that is not a number from 0 to 2147483647")]
    BadEntry {
        /// The file inside the root.
        file: &'static str,
        /// The entry's name.
        name: String,
    },
    /// A line is longer than the original reads.
    #[error("{file}: a line is longer than {max_bytes} bytes")]
    LongLine {
        /// The file inside the root.
        file: &'static str,
        /// The limit.
        max_bytes: usize,
    },
    /// The file exists and cannot be used: too large, or unreadable.
    #[error("read {file}")]
    Read {
        /// The file inside the root.
        file: &'static str,
        /// Why.
        #[source]
        source: RootFdError,
    },
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// BuildKit's `maxUserFileBytes`.
const FILE_MAX_BYTES: u64 = 10 << 20;
/// `bufio.Scanner`'s default line, which moby/sys/user reads passwd with.
const PASSWD_LINE_MAX: usize = 64 << 10;
/// The line it reads group with.
const GROUP_LINE_MAX: usize = 1 << 20;
/// `maxID` of moby/sys/user.
const ID_MAX: u32 = i32::MAX.cast_unsigned();

/// The ids a process of `USER spec` has. The supplementary groups start with the primary one.
///
/// `spec` is `user`, `uid`, `user:group`, any of the four mixed, or empty for root. A user without explicit group has
/// the groups that list its name; with one, only that.
///
/// # Errors
/// Unknown names, numbers out of range, broken or oversized files.
pub fn lookup_user(root: &RootFd, spec: &str) -> Result<Ids, UserError> {
    let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
    if let (Some(uid), Some(gid)) = (direct(user)?, direct(group)?) {
        return Ok(Ids {
            uid,
            gid,
            groups: vec![gid],
        });
    }
    let (uid, mut gid, name) = match find_user(root, if spec.is_empty() { "0" } else { user }) {
        // BuildKit takes an image whose passwd is broken as having no entry for its default user.
        Err(_) if spec.is_empty() => (0, 0, None),
        found => found?,
    };
    let mut groups = Vec::new();
    if !group.is_empty() {
        gid = find_group(root, group)?;
    } else if let Some(name) = name {
        match groups_of(root, &name) {
            Err(_) if spec.is_empty() => {}
            found => groups = found?,
        }
    }
    if !groups.contains(&gid) {
        groups.insert(0, gid);
    }
    Ok(Ids { uid, gid, groups })
}

/// The owner `--chown=spec` gives: uid and gid. As in BuildKit a user by number alone gives its number to the group,
/// a user by name its primary group, and a name that is in no file is 0.
///
/// # Errors
/// Numbers out of range, broken or oversized files.
pub fn lookup_owner(root: &RootFd, spec: &str) -> Result<(u32, u32), UserError> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let (uid, own_gid) = match direct(user)? {
        Some(uid) => (uid, uid),
        None => match entry(root, &PASSWD_FILE, |fields| fields.first() == Some(&user))? {
            Some(entry) => (entry.id(2)?, entry.id(3)?),
            None => (0, 0),
        },
    };
    let gid = match group {
        None => own_gid,
        Some(group) => match direct(group)? {
            Some(gid) => gid,
            None => match entry(root, &GROUP_FILE, |fields| fields.first() == Some(&group))? {
                Some(entry) => entry.id(2)?,
                // `user:` names the group "", which is in no file: the user's own stays.
                None => own_gid,
            },
        },
    };
    Ok((uid, gid))
}

fn find_user(root: &RootFd, user: &str) -> Result<(u32, u32, Option<String>), UserError> {
    let number = if user.is_empty() { Some(0) } else { numeric(user)? };
    let text = number.map(|number| number.to_string());
    let found = entry(root, &PASSWD_FILE, |fields| match &text {
        Some(number) => fields
            .get(2)
            .is_some_and(|id| id.trim_start_matches('0') == number.trim_start_matches('0') && !id.is_empty()),
        None => fields.first() == Some(&user),
    })?;
    match (found, number) {
        (Some(entry), _) => Ok((entry.id(2)?, entry.id(3)?, Some(entry.name))),
        (None, Some(number)) => Ok((number, 0, None)),
        (None, None) => Err(UserError::NoUser(user.to_owned())),
    }
}

fn find_group(root: &RootFd, group: &str) -> Result<u32, UserError> {
    if let Some(number) = numeric(group)? {
        return Ok(number);
    }
    match entry(root, &GROUP_FILE, |fields| fields.first() == Some(&group))? {
        Some(entry) => entry.id(2),
        None => Err(UserError::NoGroup(group.to_owned())),
    }
}

fn groups_of(root: &RootFd, name: &str) -> Result<Vec<u32>, UserError> {
    let lists = |fields: &[&str]| {
        fields
            .get(3)
            .is_some_and(|list| list.split(',').any(|member| member == name))
    };
    let entries = entries(root, &GROUP_FILE, lists, GROUPS_MAX)?;
    entries.iter().map(|entry| entry.id(2)).collect()
}

/// `root` and numbers need no file.
fn direct(text: &str) -> Result<Option<u32>, UserError> {
    if text == "root" {
        Ok(Some(0))
    } else {
        numeric(text)
    }
}

/// Digits are a number; anything else, signed numbers included, is a name unless it is a number out of range.
fn numeric(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        let signed = text
            .strip_prefix('-')
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()));
        return if signed {
            Err(UserError::OutOfRange(text.to_owned()))
        } else {
            Ok(None)
        };
    }
    match text.parse::<u32>() {
        Ok(id) if id <= ID_MAX => Ok(Some(id)),
        _ => Err(UserError::OutOfRange(text.to_owned())),
    }
}

/// Entries of one user taken; the kernel holds 65536 groups (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;

struct UserFile {
    path: &'static str,
    line_max: usize,
    comments: bool,
}

const PASSWD_FILE: UserFile = UserFile {
    path: PASSWD,
    line_max: PASSWD_LINE_MAX,
    comments: false,
};
const GROUP_FILE: UserFile = UserFile {
    path: GROUP,
    line_max: GROUP_LINE_MAX,
    comments: true,
};

struct Entry {
    file: &'static str,
    name: String,
    fields: Vec<String>,
}

impl Entry {
    fn id(&self, field: usize) -> Result<u32, UserError> {
        let number = self
            .fields
            .get(field)
            .and_then(|text| numeric(text).ok().flatten());
        number.ok_or_else(|| UserError::BadEntry {
            file: self.file,
            name: self.name.clone(),
        })
    }
}

/// The first entry that matches.
fn entry(
    root: &RootFd,
    file: &UserFile,
    wanted: impl Fn(&[&str]) -> bool,
) -> Result<Option<Entry>, UserError> {
    Ok(entries(root, file, wanted, 1)?.pop())
}

fn entries(
    root: &RootFd,
    file: &UserFile,
    wanted: impl Fn(&[&str]) -> bool,
    max: usize,
) -> Result<Vec<Entry>, UserError> {
    let bytes = match root.read_file(Path::new(file.path), FILE_MAX_BYTES) {
        Ok(bytes) => bytes,
        // What cannot be opened as a file has no entries, as in the original: missing, a directory, a pipe.
        Err(RootFdError::NotRegular(_)) => return Ok(Vec::new()),
        Err(source @ RootFdError::TooLarge { .. }) => {
            return Err(UserError::Read {
                file: file.path,
                source,
            });
        }
        Err(error) if error.errno().is_some() => return Ok(Vec::new()),
        Err(source) => {
            return Err(UserError::Read {
                file: file.path,
                source,
            });
        }
    };
    let mut found = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        if line.len() >= file.line_max {
            return Err(UserError::LongLine {
                file: file.path,
                max_bytes: file.line_max,
            });
        }
        let line = String::from_utf8_lossy(line.trim_ascii());
        if line.is_empty() || file.comments && line.starts_with('#') || found.len() == max {
            continue;
        }
        let fields: Vec<&str> = line.split(':').collect();
        if wanted(&fields) {
            let name = fields.first().copied().unwrap_or_default().to_owned();
            let fields = fields.iter().map(|field| (*field).to_owned()).collect();
            found.push(Entry {
                file: file.path,
                name,
                fields,
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
