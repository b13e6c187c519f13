//! `USER` as a process: ids, supplementary groups and home directory, from the image's own files, with moby's exact
//! rules (`executor/oci/user.go`, `moby/sys/user`): digits are an id and never a name, an id needs no entry, an
//! explicit group takes the place of all supplementary ones.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rbuild_sandbox::Ids;
use rbuild_sys::RootFd;
use rbuild_sys::userdb::{Groups, Passwd, Principal, UserDbError};

/// Who a process is, and where its home is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessUser {
    /// Ids.
    pub ids: Ids,
    /// Home directory; `/` where the image names none, as runc has it.
    pub home: PathBuf,
}

/// Why a user cannot run a process.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The image has no user of that name.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),
    /// The image has no group of that name.
    #[error("unable to find group {0}: no matching entries in group file")]
    UnknownGroup(String),
    /// The text or the image's files.
    #[error(transparent)]
    UserDb(#[from] UserDbError),
}

impl UserError {
    /// Whom it is about, as written, in front of a cause that does not name him.
    pub(crate) fn whose(&self, user: &str) -> String {
        match self {
            Self::UnknownUser(_) | Self::UnknownGroup(_) | Self::UserDb(UserDbError::IdRange(_)) => {
                String::new()
            }
            Self::UserDb(_) => format!(": unable to find user {user}"),
        }
    }
}

/// Who `spec` is in the image seen through `root`. Nothing is user 0.
///
/// # Errors
/// [`UserError`]; an image without a readable user database is one for names, and for nothing else.
pub fn lookup(root: &RootFd, spec: &str) -> Result<ProcessUser, UserError> {
    let mut halves = spec.split(':');
    let user = halves.next().unwrap_or_default();
    let group = halves.next().filter(|group| !group.is_empty());
    // What is behind a second colon is passed over, but then both halves are looked up.
    let is_two = halves.next().is_none();
    let explicit = group.map(Principal::parse).transpose()?;
    // `root` beside an id, or beside another `root`, is a number too (`ParseUIDGID`); alone it is a name to look up.
    let root_or_id =
        |half: &Principal<'_>| is_two && matches!(half, Principal::Id(_) | Principal::Name("root"));
    let principal = match user {
        "" => Principal::Id(0),
        "root" if explicit.as_ref().is_some_and(root_or_id) => Principal::Id(0),
        _ => Principal::parse(user)?,
    };
    let explicit = match explicit {
        Some(Principal::Name("root")) if is_two && matches!(principal, Principal::Id(_)) => {
            Some(Principal::Id(0))
        }
        other => other,
    };
    let by_id = matches!(principal, Principal::Id(_)) && !matches!(explicit, Some(Principal::Name(_)));
    // An id works without the files, so files that cannot be read only matter to names.
    let tolerant = |error: UserDbError| {
        if by_id {
            Ok(())
        } else {
            Err(UserError::from(error))
        }
    };
    let passwd = Passwd::read(root).or_else(|error| tolerant(error).map(|()| Passwd::default()))?;
    let entry = match principal {
        Principal::Id(uid) => passwd.by_uid(uid),
        Principal::Name(name) => Some(
            passwd
                .by_name(name)
                .ok_or_else(|| UserError::UnknownUser(name.to_owned()))?,
        ),
    };
    let uid = match principal {
        Principal::Id(uid) => uid,
        Principal::Name(_) => entry.map_or(0, |entry| entry.uid),
    };
    let mut ids = Ids {
        uid,
        gid: entry.map_or(0, |entry| entry.gid),
        groups: Vec::new(),
    };
    match explicit {
        Some(Principal::Id(gid)) => ids.gid = gid,
        Some(Principal::Name(name)) => {
            let groups = Groups::read(root)?;
            ids.gid = groups
                .by_name(name)
                .ok_or_else(|| UserError::UnknownGroup(name.to_owned()))?
                .gid;
        }
        None => {
            if let Some(entry) = entry {
                let groups =
                    Groups::read(root).or_else(|error| tolerant(error).map(|()| Groups::default()))?;
                ids.groups = groups.of_user(entry.name)?;
            }
        }
    }
    if !ids.groups.contains(&ids.gid) {
        ids.groups.insert(0, ids.gid);
    }
    let home = entry
        .map(|entry| entry.home)
        .filter(|home| !home.is_empty())
        .unwrap_or(b"/");
    Ok(ProcessUser {
        ids,
        home: PathBuf::from(OsStr::from_bytes(home)),
    })
}

#[cfg(test)]
mod tests;
