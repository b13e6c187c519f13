//! The calls that are answered, by name, and where their arguments are.

/// Where a call says which file it means: numbers of arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A path, relative to the working directory; its last link followed or not.
    Path { path: usize, follow: bool },
    /// An open file.
    Open(usize),
    /// A directory, a path and flags.
    At { dir: usize, path: usize, flags: usize },
}

/// Where the new name is, if not relative to the working directory, and the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) dir: Option<usize>,
    pub(super) path: usize,
}

/// What a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A caller's own credentials.
    Identity(Identity),
    /// Changes the owner; user and group are the argument and the next.
    Chown { place: Place, ids: usize },
    /// Asks for the status in the old form.
    Stat { place: Place, buffer: usize },
    /// Asks for the status in the new form.
    Statx,
    /// Makes a directory.
    MakeDirectory { name: Name, mode: usize },
    /// Makes a symbolic link; the target is argument 0.
    MakeLink { name: Name },
    /// Makes a pipe, a device, an empty file; the device is the argument after the mode.
    MakeNode { name: Name, mode: usize },
    /// Opens a file that may be made; without an argument for flags, as `creat(2)`.
    Open {
        name: Name,
        flags: Option<usize>,
        mode: usize,
    },
    /// Opens a file as a structure says.
    OpenHow,
    /// Becomes another program.
    Execute { place: Place },
    /// Sets the attribute that is named by argument 1.
    SetAttribute,
    /// Removes the attribute that is named by argument 1.
    RemoveAttribute,
    /// Lists attributes into argument 1, which is as long as argument 2 says.
    ListAttributes { place: Place },
}

/// Calls about credentials, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    GetUid,
    GetEuid,
    GetGid,
    GetEgid,
    GetResUid,
    GetResGid,
    GetGroups,
    SetUid,
    SetGid,
    SetReUid,
    SetReGid,
    SetResUid,
    SetResGid,
    SetFsUid,
    SetFsGid,
    SetGroups,
}

const fn path(path: usize, follow: bool) -> Place {
    Place::Path { path, follow }
}

const fn at(dir: usize, path: usize, flags: usize) -> Place {
    Place::At { dir, path, flags }
}

const fn name(path: usize) -> Name {
    Name { dir: None, path }
}

const fn name_at(dir: usize) -> Name {
    Name {
        dir: Some(dir),
        path: dir + 1,
    }
}

/// All of them. An architecture has those that its table names.
#[rustfmt::skip]
pub(super) const CALLS: &[(&str, Kind)] = &[
    ("getuid", Kind::Identity(Identity::GetUid)),
    ("geteuid", Kind::Identity(Identity::GetEuid)),
    ("getgid", Kind::Identity(Identity::GetGid)),
    ("getegid", Kind::Identity(Identity::GetEgid)),
    ("getresuid", Kind::Identity(Identity::GetResUid)),
    ("getresgid", Kind::Identity(Identity::GetResGid)),
    ("getgroups", Kind::Identity(Identity::GetGroups)),
    ("setuid", Kind::Identity(Identity::SetUid)),
    ("setgid", Kind::Identity(Identity::SetGid)),
    ("setreuid", Kind::Identity(Identity::SetReUid)),
    ("setregid", Kind::Identity(Identity::SetReGid)),
    ("setresuid", Kind::Identity(Identity::SetResUid)),
    ("setresgid", Kind::Identity(Identity::SetResGid)),
    ("setfsuid", Kind::Identity(Identity::SetFsUid)),
    ("setfsgid", Kind::Identity(Identity::SetFsGid)),
    ("setgroups", Kind::Identity(Identity::SetGroups)),
    ("chown", Kind::Chown { place: path(0, true), ids: 1 }),
    ("lchown", Kind::Chown { place: path(0, false), ids: 1 }),
    ("fchown", Kind::Chown { place: Place::Open(0), ids: 1 }),
    ("fchownat", Kind::Chown { place: at(0, 1, 4), ids: 2 }),
    ("stat", Kind::Stat { place: path(0, true), buffer: 1 }),
    ("lstat", Kind::Stat { place: path(0, false), buffer: 1 }),
    ("fstat", Kind::Stat { place: Place::Open(0), buffer: 1 }),
    ("newfstatat", Kind::Stat { place: at(0, 1, 3), buffer: 2 }),
    ("fstatat", Kind::Stat { place: at(0, 1, 3), buffer: 2 }),
    ("statx", Kind::Statx),
    ("mkdir", Kind::MakeDirectory { name: name(0), mode: 1 }),
    ("mkdirat", Kind::MakeDirectory { name: name_at(0), mode: 2 }),
    ("symlink", Kind::MakeLink { name: name(1) }),
    ("symlinkat", Kind::MakeLink { name: name_at(1) }),
    ("mknod", Kind::MakeNode { name: name(0), mode: 1 }),
    ("mknodat", Kind::MakeNode { name: name_at(0), mode: 2 }),
    ("creat", Kind::Open { name: name(0), flags: None, mode: 1 }),
    ("open", Kind::Open { name: name(0), flags: Some(1), mode: 2 }),
    ("openat", Kind::Open { name: name_at(0), flags: Some(2), mode: 3 }),
    ("openat2", Kind::OpenHow),
    ("execve", Kind::Execute { place: path(0, true) }),
    ("execveat", Kind::Execute { place: at(0, 1, 4) }),
    ("setxattr", Kind::SetAttribute),
    ("lsetxattr", Kind::SetAttribute),
    ("fsetxattr", Kind::SetAttribute),
    ("removexattr", Kind::RemoveAttribute),
    ("lremovexattr", Kind::RemoveAttribute),
    ("fremovexattr", Kind::RemoveAttribute),
    ("listxattr", Kind::ListAttributes { place: path(0, true) }),
    ("llistxattr", Kind::ListAttributes { place: path(0, false) }),
    ("flistxattr", Kind::ListAttributes { place: Place::Open(0) }),
];

/// Calls that would go round those above, as if the kernel did not have them: programs fall back.
pub(super) const ABSENT: &[&str] = &["io_uring_setup", "setxattrat", "removexattrat", "listxattrat"];
