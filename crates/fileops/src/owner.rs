//! Owners as COPY and other instructions write them: `user`, `uid`, `user:group`. Resolved in the user database of a
//! root, with its rules for numbers; an unknown name is an error, where BuildKit falls back to root.

use rbuild_graph::{ChownOpt, UserOpt};
use rbuild_sys::RootFd;
use rbuild_sys::userdb::{Groups, Passwd, Principal, UserDbError};

/// A resolved owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Owner {
    /// The owner of what nobody was named for.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };
}

/// Why an owner could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// Malformed, out of range, or the files could not be read.
    #[error("owner {spec:?}")]
    UserDb {
        /// As written.
        spec: String,
        /// What is wrong.
        #[source]
        source: UserDbError,
    },
    /// No such line in `/etc/passwd`.
    #[error("owner {spec:?}: no user {name:?} in /etc/passwd")]
    UnknownUser {
        /// As written.
        spec: String,
        /// The user part.
        name: String,
    },
    /// No such line in `/etc/group`.
    #[error("owner {spec:?}: no group {name:?} in /etc/group")]
    UnknownGroup {
        /// As written.
        spec: String,
        /// The group part.
        name: String,
    },
}

/// Resolves an owner in the user database of `root`.
///
/// A user alone brings the group of its passwd line, a number alone the group of the same number; `root` needs no
/// file (`client/llb/fileop.go`).
///
/// # Errors
/// [`OwnerError`].
pub fn resolve(owner: &ChownOpt, root: &RootFd) -> Result<Owner, OwnerError> {
    let spec = || owner.to_string();
    let fail = |source| OwnerError::UserDb { spec: spec(), source };
    let mut resolved = match &owner.user {
        None => Owner::ROOT,
        Some(UserOpt::Id(id)) => Owner { uid: *id, gid: *id },
        Some(UserOpt::Name { name, .. }) => {
            // A number that is too large or has a sign is no name: other builders take it for root.
            Principal::parse(name).map_err(fail)?;
            let passwd = Passwd::read(root).map_err(fail)?;
            let unknown = || OwnerError::UnknownUser {
                spec: spec(),
                name: name.clone(),
            };
            let entry = passwd.by_name(name).ok_or_else(unknown)?;
            Owner {
                uid: entry.uid,
                gid: entry.gid,
            }
        }
    };
    match &owner.group {
        None => {}
        Some(UserOpt::Id(id)) => resolved.gid = *id,
        Some(UserOpt::Name { name, .. }) => {
            Principal::parse(name).map_err(fail)?;
            let groups = Groups::read(root).map_err(fail)?;
            let unknown = || OwnerError::UnknownGroup {
                spec: spec(),
                name: name.clone(),
            };
            resolved.gid = groups.by_name(name).ok_or_else(unknown)?.gid;
        }
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, RootFd) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(
            dir.path().join("etc/passwd"),
            "bob:x:1000:100::/:\n1001:x:0:0::/:\n4294967296:x:0:0::/:\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("etc/group"), "staff:x:50:\n").unwrap();
        let root = RootFd::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn item31_names_and_numbers() {
        let (_dir, root) = root();
        for (spec, uid, gid) in [
            ("bob", 1000, 100),
            ("bob:staff", 1000, 50),
            ("bob:7", 1000, 7),
            ("5", 5, 5),
            ("5:staff", 5, 50),
            ("5:6", 5, 6),
            ("root", 0, 0),
            ("root:root", 0, 0),
            ("bob:root", 1000, 0),
            (":staff", 0, 50),
            ("bob:", 1000, 0),
            (":", 0, 0),
            ("1001", 1001, 1001),
        ] {
            let owner = resolve(&ChownOpt::parse(spec, None), &root).unwrap();
            assert_eq!(owner, Owner { uid, gid }, "{spec}");
        }
    }

    #[test]
    fn item31_row15_unknown_and_malformed_owners_fail() {
        let (_dir, root) = root();
        let error = |spec: &str| resolve(&ChownOpt::parse(spec, None), &root).unwrap_err();
        assert!(matches!(error("alice"), OwnerError::UnknownUser { .. }));
        assert!(matches!(error("bob:wheel"), OwnerError::UnknownGroup { .. }));
        for spec in [
            "-1",
            "+0",
            "4294967296",
            "1000:4294967296",
            "2147483648",
            "bob:-1",
        ] {
            assert!(matches!(error(spec), OwnerError::UserDb { .. }), "{spec}");
        }
    }

    #[test]
    fn numbers_need_no_files() {
        let dir = tempfile::tempdir().unwrap();
        let root = RootFd::open(dir.path()).unwrap();
        assert_eq!(
            resolve(&ChownOpt::parse("7:root", None), &root).unwrap(),
            Owner { uid: 7, gid: 0 }
        );
    }
}
