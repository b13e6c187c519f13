//! Operations that change files without a process: copies, directories, files, links, removals.

use rbuild_oci::Timestamp;
use serde::{Deserialize, Serialize};

use super::{InputIndex, OutputIndex};

/// File changes, applied in order; each works on an input or on the result of an earlier action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOp {
    /// The actions.
    pub actions: Vec<FileAction>,
}

impl FileOp {
    /// How many outputs an edge to this operation may name.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.actions
            .iter()
            .filter(|action| action.output.is_some())
            .count()
    }
}

/// One action. Inputs are numbered: first the vertex's inputs, then the results of the actions in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileAction {
    /// What it changes; `None` is an empty root.
    pub input: InputIndex,
    /// What it copies from; others have none.
    pub secondary_input: InputIndex,
    /// Output it makes.
    pub output: OutputIndex,
    /// What is done.
    pub kind: FileActionKind,
}

/// Kinds of file action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileActionKind {
    /// Copy from the secondary input.
    Copy(CopyAction),
    /// Write a file.
    MkFile(MkFileAction),
    /// Make a directory.
    MkDir(MkDirAction),
    /// Remove.
    Rm(RmAction),
    /// Make a symbolic link.
    Symlink(SymlinkAction),
}

impl FileActionKind {
    /// Owner of what it makes.
    #[must_use]
    pub const fn owner(&self) -> Option<&ChownOpt> {
        match self {
            Self::Copy(action) => action.owner.as_ref(),
            Self::MkFile(action) => action.owner.as_ref(),
            Self::MkDir(action) => action.owner.as_ref(),
            Self::Symlink(action) => action.owner.as_ref(),
            Self::Rm(_) => None,
        }
    }
}

/// Owner of what an action makes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChownOpt {
    /// User; `None` is root.
    pub user: Option<UserOpt>,
    /// Group; `None` is the user's.
    pub group: Option<UserOpt>,
}

/// One half of an owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserOpt {
    /// A name.
    Name {
        /// As in the user database.
        name: String,
        /// Input whose user database has it.
        input: InputIndex,
    },
    /// A number; alone it is the group too.
    Id(u32),
}

impl ChownOpt {
    /// Reads `user`, `uid`, `user:group` and the like; names are looked up in `input`.
    ///
    /// `root` and an empty half are 0 and digits up to 2147483647 are numbers (`client/llb/fileop.go`). Anything else is
    /// a name: what looks up an owner decides whether it can be one.
    #[must_use]
    pub fn parse(spec: &str, input: InputIndex) -> Self {
        let half = |text: &str| match text.parse::<i32>() {
            _ if matches!(text, "" | "root") => UserOpt::Id(0),
            Ok(id) if id >= 0 && text.starts_with(|c: char| c.is_ascii_digit()) => {
                UserOpt::Id(id.unsigned_abs())
            }
            _ => UserOpt::Name {
                name: text.to_owned(),
                input,
            },
        };
        match spec.split_once(':') {
            None => Self {
                user: Some(half(spec)),
                group: None,
            },
            Some((user, group)) => Self {
                user: Some(half(user)),
                group: Some(half(group)),
            },
        }
    }

    /// The same owner with its names looked up in `input`.
    #[must_use]
    pub fn looked_up_in(mut self, input: InputIndex) -> Self {
        for half in [&mut self.user, &mut self.group].into_iter().flatten() {
            if let UserOpt::Name { input: at, .. } = half {
                *at = input;
            }
        }
        self
    }

    /// Input whose user database is needed. Clients give user and group the same.
    #[must_use]
    pub fn database(&self) -> InputIndex {
        let input = |half: &Option<UserOpt>| match half {
            Some(UserOpt::Name { input, .. }) => *input,
            _ => None,
        };
        input(&self.user).or_else(|| input(&self.group))
    }

    /// Whether a half is a name.
    #[must_use]
    pub fn has_name(&self) -> bool {
        let is_name = |half: &Option<UserOpt>| matches!(half, Some(UserOpt::Name { .. }));
        is_name(&self.user) || is_name(&self.group)
    }

    /// `uid:gid`.
    #[must_use]
    pub const fn ids(uid: u32, gid: u32) -> Self {
        Self {
            user: Some(UserOpt::Id(uid)),
            group: Some(UserOpt::Id(gid)),
        }
    }
}

impl std::fmt::Display for ChownOpt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(user) = &self.user {
            user.fmt(f)?;
        }
        match &self.group {
            Some(group) => write!(f, ":{group}"),
            None => Ok(()),
        }
    }
}

impl std::fmt::Display for UserOpt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name { name, .. } => f.write_str(name),
            Self::Id(id) => id.fmt(f),
        }
    }
}

/// Time set on what an action makes: seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTime {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds below one second.
    pub nanoseconds: u32,
}

impl FileTime {
    /// A document's time as BuildKit gives it to files: in nanoseconds since 1970, which overflow before 1677-09-21 and after
    /// 2262-04-11 (Go's `Time.UnixNano`).
    #[must_use]
    pub fn of(time: Timestamp) -> Self {
        const SECOND: i64 = 1_000_000_000;
        let nanoseconds = time.unix_seconds().wrapping_mul(SECOND);
        let nanoseconds = nanoseconds.wrapping_add(time.subsec_nanoseconds().into());
        Self {
            seconds: nanoseconds.div_euclid(SECOND),
            nanoseconds: u32::try_from(nanoseconds.rem_euclid(SECOND)).unwrap_or_default(),
        }
    }

    /// To the nearest second, half of one up.
    #[must_use]
    pub const fn rounded_seconds(self) -> i64 {
        self.seconds + (self.nanoseconds >= 500_000_000) as i64
    }
}

/// `FileActionCopy` of BuildKit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "field for field BuildKit's message")]
pub struct CopyAction {
    /// Source path, absolute in the secondary input; may hold wildcards.
    pub src: String,
    /// Destination path.
    pub dest: String,
    /// Owner of what is copied; `None` keeps the source's.
    pub owner: Option<ChownOpt>,
    /// Octal mode for files and directories.
    pub mode: Option<u32>,
    /// Symbolic mode such as `u=rwX,go=rX`.
    pub mode_str: Option<String>,
    /// Follow the source if it is a link.
    pub follow_symlink: bool,
    /// Copy what is in a directory, not the directory.
    pub dir_copy_contents: bool,
    /// Unpack the source if it is an archive.
    pub attempt_unpack: bool,
    /// Make missing parents of the destination.
    pub create_dest_path: bool,
    /// Wildcards are allowed in `src`.
    pub allow_wildcard: bool,
    /// A wildcard without a match is not an error.
    pub allow_empty_wildcard: bool,
    /// Patterns that limit what is copied.
    pub include_patterns: Vec<String>,
    /// Patterns that are left out.
    pub exclude_patterns: Vec<String>,
    /// Replace a destination of another type.
    pub always_replace_existing: bool,
    /// Patterns that must match something.
    pub required_paths: Vec<String>,
    /// Time for everything copied.
    pub time: Option<FileTime>,
}

/// `FileActionMkFile` of BuildKit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MkFileAction {
    /// Path.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// Content.
    pub data: Vec<u8>,
    /// Owner.
    pub owner: Option<ChownOpt>,
    /// Time.
    pub time: Option<FileTime>,
}

/// `FileActionMkDir` of BuildKit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MkDirAction {
    /// Path.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// Make missing parents, and accept an existing directory.
    pub make_parents: bool,
    /// Owner.
    pub owner: Option<ChownOpt>,
    /// Time.
    pub time: Option<FileTime>,
}

/// `FileActionRm` of BuildKit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RmAction {
    /// Path; may hold wildcards.
    pub path: String,
    /// A missing path is not an error.
    pub allow_not_found: bool,
    /// Wildcards are allowed.
    pub allow_wildcard: bool,
}

/// `FileActionSymlink` of BuildKit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SymlinkAction {
    /// Text of the link.
    pub target: String,
    /// Where it is made.
    pub path: String,
    /// Owner.
    pub owner: Option<ChownOpt>,
    /// Time.
    pub time: Option<FileTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_read_as_buildkits_client_does() {
        let name = |name: &str| {
            Some(UserOpt::Name {
                name: name.into(),
                input: Some(3),
            })
        };
        for (spec, user, group) in [
            ("bob", name("bob"), None),
            ("bob:", name("bob"), Some(UserOpt::Id(0))),
            (":staff", Some(UserOpt::Id(0)), name("staff")),
            ("root:0", Some(UserOpt::Id(0)), Some(UserOpt::Id(0))),
            ("2147483647", Some(UserOpt::Id(2_147_483_647)), None),
            ("2147483648", name("2147483648"), None),
            ("-1:+1", name("-1"), name("+1")),
            ("a:b:c", name("a"), name("b:c")),
            (":", Some(UserOpt::Id(0)), Some(UserOpt::Id(0))),
            ("", Some(UserOpt::Id(0)), None),
        ] {
            assert_eq!(
                ChownOpt::parse(spec, Some(3)),
                ChownOpt { user, group },
                "{spec:?}"
            );
        }
    }

    #[test]
    fn owners_show_as_written() {
        for spec in ["bob", "bob:staff", "0:staff", "7:6"] {
            assert_eq!(ChownOpt::parse(spec, None).to_string(), spec);
        }
    }
}
