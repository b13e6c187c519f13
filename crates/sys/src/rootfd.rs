//! Paths inside a root that others filled: every look-up starts at a held descriptor and stays below it.
//!
//! `openat2(2)` with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS` (Linux 5.6) resolves links, `..` and absolute
//! targets inside the root in one step of the kernel, so nothing can be exchanged between a check and its use.

mod follow;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// `PATH_MAX` of linux/limits.h: with its end, what one call of the kernel takes.
const PATH_BYTES_MAX: usize = 4096;

/// A directory that acts as `/` for every path given to it.
#[derive(Debug)]
pub struct RootFd {
    fd: OwnedFd,
}

/// Why a path inside a root could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RootFdError {
    /// The kernel refused.
    #[error("{path:?}: {verb}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// Path inside the root.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A directory was to be made below something else, in the words of Go (`os.MkdirAll`).
    #[error("mkdir {}: not a directory", shown(.0))]
    NotDirectory(PathBuf),
    /// The path names the root itself, where an entry in it was needed.
    #[error("{0:?} names the root directory")]
    IsRoot(PathBuf),
    /// Not a regular file, where one was needed.
    #[error("{} is not a regular file", shown(.0))]
    NotRegular(PathBuf),
    /// Links without end, in the words of BuildKit (`cache/contenthash/path.go`).
    #[error("too many links")]
    Links(PathBuf),
    /// The file is longer than the caller's budget.
    #[error("{path:?} is larger than {max_bytes} bytes")]
    TooLarge {
        /// Path inside the root.
        path: PathBuf,
        /// The budget.
        max_bytes: u64,
    },
}

impl RootFdError {
    /// The kernel's error number, if that is what it was.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Io { source, .. } => Errno::from_io_error(source),
            Self::NotDirectory(_) => Some(Errno::NOTDIR),
            _ => None,
        }
    }

    /// Whether the path does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.errno() == Some(Errno::NOENT)
    }
}

/// Links followed while directories are made, before it is called a loop. The kernel's own limit (`MAXSYMLINKS`).
const LINKS_MAX: usize = 40;
/// Inode of the root of every procfs (`PROC_ROOT_INO`, include/linux/proc_ns.h).
const PROC_ROOT_INODE: u64 = 1;
/// Times a look-up is repeated when the kernel says it raced with a rename (`EAGAIN`, openat2(2)).
const RACE_RETRIES_MAX: usize = 128;

impl RootFd {
    /// Opens a trusted directory path (one of the store's own) as a root.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn open(path: &Path) -> Result<Self, RootFdError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| io_error("open root", path, e))?;
        Ok(Self { fd })
    }

    /// Takes a directory descriptor as a root.
    #[must_use]
    pub const fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Opens `path` inside the root; links are followed, and end inside the root. No program inherits what is opened. On the way to what is longer than the kernel
    /// takes in one call no link is followed at all.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn open_in(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, RootFdError> {
        let flags = flags | OFlags::CLOEXEC;
        let opened = if path.as_os_str().len() < PATH_BYTES_MAX {
            open_below(self.fd.as_fd(), path, flags, mode)
        } else {
            self.open_far(&clean(path), flags, mode)
        };
        opened.map_err(|e| io_error("open", path, e))
    }

    /// Part by part.
    fn open_far(&self, clean: &Path, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let on_the_way = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let straight = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let mut dir: Option<OwnedFd> = None;
        let mut part = PathBuf::new();
        for component in clean.components() {
            let Component::Normal(name) = component else {
                continue;
            };
            if part.as_os_str().len() + name.len() + 1 >= PATH_BYTES_MAX {
                let from = dir.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
                dir = Some(rustix::fs::openat2(
                    from,
                    &part,
                    on_the_way,
                    Mode::empty(),
                    straight,
                )?);
                part.clear();
            }
            part.push(name);
        }
        let from = dir.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
        rustix::fs::openat2(from, &part, flags, mode, straight)
    }

    /// Opens the directory that holds the last component of `path`, and gives that component.
    /// The component is never empty, `.` or `..`, and never followed.
    ///
    /// # Errors
    /// [`RootFdError::IsRoot`] if the path names the root; the kernel's otherwise.
    pub fn parent(&self, path: &Path) -> Result<(OwnedFd, OsString), RootFdError> {
        let clean = clean(path);
        let Some(name) = clean.file_name().map(OsStr::to_os_string) else {
            return Err(RootFdError::IsRoot(path.to_owned()));
        };
        let dir = clean.parent().unwrap_or(Path::new("/"));
        let fd = self.open_in(
            dir,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok((fd, name))
    }

    /// Status of `path`, its last component not followed.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn lstat(&self, path: &Path) -> Result<Stat, RootFdError> {
        self.stat_flags(path, OFlags::NOFOLLOW)
    }

    /// Status of `path`, links followed inside the root.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn stat(&self, path: &Path) -> Result<Stat, RootFdError> {
        self.stat_flags(path, OFlags::empty())
    }

    fn stat_flags(&self, path: &Path, flags: OFlags) -> Result<Stat, RootFdError> {
        let fd = self.open_in(path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty())?;
        crate::owner::fstat(&fd).map_err(|e| io_error("stat", path, e))
    }

    /// Reads a whole regular file of at most `max_bytes`. A FIFO, device or directory is refused without being
    /// opened for reading, so a hostile image cannot hold the build up.
    ///
    /// # Errors
    /// Not found, not regular, too large, or the kernel's.
    pub fn read_file(&self, path: &Path, max_bytes: u64) -> Result<Vec<u8>, RootFdError> {
        use std::io::Read as _;
        let fd = self.open_regular(path)?;
        let mut bytes = Vec::new();
        let mut reader = std::fs::File::from(fd).take(max_bytes.saturating_add(1));
        reader.read_to_end(&mut bytes).map_err(|source| RootFdError::Io {
            verb: "read",
            path: path.to_owned(),
            source,
        })?;
        if bytes.len() as u64 > max_bytes {
            return Err(RootFdError::TooLarge {
                path: path.to_owned(),
                max_bytes,
            });
        }
        Ok(bytes)
    }

    /// Opens a regular file for reading. A FIFO, device or directory is refused without being read: it might be a disk
    /// of the host, or never end.
    ///
    /// # Errors
    /// Not found, not regular, or the kernel's.
    pub fn open_regular(&self, path: &Path) -> Result<OwnedFd, RootFdError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = |flags| match self.open_in(path, flags, Mode::empty()) {
            Err(error) if error.errno() == Some(Errno::LOOP) && path.as_os_str().len() < PATH_BYTES_MAX => {
                self.open_patiently(path, flags)
            }
            opened => opened,
        };
        let probe = open(OFlags::PATH | OFlags::CLOEXEC)?;
        let stat = rustix::fs::fstat(&probe).map_err(|e| io_error("stat", path, e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(RootFdError::NotRegular(path.to_owned()));
        }
        let fd = open(flags)?;
        let again = crate::owner::fstat(&fd).map_err(|e| io_error("stat", path, e))?;
        if (again.st_dev, again.st_ino) != (stat.st_dev, stat.st_ino) {
            return Err(RootFdError::NotRegular(path.to_owned()));
        }
        Ok(fd)
    }

    /// Makes `path` and its missing parents as directories and opens the last one. Links on the way are followed
    /// inside the root, and where such a link leads to nothing, its target is made. `made` is called with each new
    /// directory (to set owner, mode and times) and its path as walked.
    ///
    /// # Errors
    /// The kernel's; `ENOTDIR` where a part exists and is no directory; `ELOOP` after 40 links.
    pub fn create_dir_all(
        &self,
        path: &Path,
        mode: Mode,
        mut made: impl FnMut(BorrowedFd<'_>, &Path) -> io::Result<()>,
    ) -> Result<OwnedFd, RootFdError> {
        let fail = |e: Errno| io_error("make directory", path, e);
        let mut pending: Vec<OsString> = components_reversed(path);
        let mut walked = PathBuf::from("/");
        let mut links = 0;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        while let Some(name) = pending.pop() {
            if name == ".." {
                walked.pop();
                continue;
            }
            let dir = open_below(self.fd.as_fd(), &walked, flags, Mode::empty()).map_err(fail)?;
            let next = walked.join(&name);
            match rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => walked = next,
                    FileType::Symlink => {
                        links += 1;
                        if links > LINKS_MAX || is_magic(dir.as_fd()).map_err(fail)? {
                            return Err(fail(Errno::LOOP));
                        }
                        let target = rustix::fs::readlinkat(&dir, &name, Vec::new()).map_err(fail)?;
                        let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                        if target.is_absolute() {
                            walked = PathBuf::from("/");
                        }
                        pending.extend(components_reversed(target));
                    }
                    _ => return Err(RootFdError::NotDirectory(next)),
                },
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&dir, &name, mode) {
                        Ok(()) => {
                            let new = rustix::fs::openat(&dir, &name, flags, Mode::empty()).map_err(fail)?;
                            made(new.as_fd(), &next).map_err(|source| RootFdError::Io {
                                verb: "make directory",
                                path: path.to_owned(),
                                source,
                            })?;
                        }
                        Err(Errno::EXIST) => {}
                        Err(e) => return Err(fail(e)),
                    }
                    walked = next;
                }
                Err(e) => return Err(fail(e)),
            }
        }
        open_below(self.fd.as_fd(), &walked, flags, Mode::empty()).map_err(fail)
    }
}

impl AsFd for RootFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A path as messages show it: as it is, unless it has blanks, quotes or what a terminal would act on, or is empty.
#[must_use]
pub fn shown(path: &Path) -> String {
    let plain = path.to_str().filter(|text| {
        let odd = |c: char| {
            c.is_whitespace() || c.is_control() || matches!(c, '"' | '\\' | '\u{200b}'..='\u{206f}')
        };
        !text.is_empty() && !text.contains(odd)
    });
    plain.map_or_else(|| format!("{path:?}"), str::to_owned)
}

/// The path with `.`, empty parts and `..` resolved by text, absolute. `..` stops at the root.
#[must_use]
pub fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

/// Whether links in `dir` are those of a process: their text says where a descriptor led, and may be our own.
/// Those at the root of procfs (inode 1) are ordinary.
fn is_magic(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    let magic = rustix::fs::fstatfs(dir)?.f_type == rustix::fs::PROC_SUPER_MAGIC;
    Ok(magic && rustix::fs::fstat(dir)?.st_ino != PROC_ROOT_INODE)
}

fn components_reversed(path: &Path) -> Vec<OsString> {
    let mut parts: Vec<OsString> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_os_string()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect();
    parts.reverse();
    parts
}

fn open_below(root: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(root, path, flags, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < RACE_RETRIES_MAX => tries += 1,
            other => return other,
        }
    }
}

fn io_error(verb: &'static str, path: &Path, errno: Errno) -> RootFdError {
    RootFdError::Io {
        verb,
        path: path.to_owned(),
        source: errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, RootFd) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        std::fs::create_dir(dir.path().join("canary")).unwrap();
        std::fs::write(dir.path().join("canary/secret"), "outside").unwrap();
        let root = RootFd::open(&dir.path().join("root")).unwrap();
        (dir, root)
    }

    #[test]
    fn row23_no_program_inherits_what_is_opened_inside_a_root() {
        let (_dir, root) = root();
        for flags in [OFlags::DIRECTORY, OFlags::PATH] {
            let fd = root.open_in(Path::new("/"), flags, Mode::empty()).unwrap();
            let set = rustix::io::fcntl_getfd(&fd).unwrap();
            assert!(set.contains(rustix::io::FdFlags::CLOEXEC), "{flags:?}");
        }
    }

    #[test]
    fn row13_what_is_deeper_than_one_path_is_reached_and_no_link_on_the_way_there() {
        let (dir, root) = root();
        let name = "n".repeat(200);
        let mut at = root.as_fd().try_clone_to_owned().unwrap();
        let mut far = PathBuf::from("/");
        for _ in 0..50 {
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, &name, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
            far.push(&name);
        }
        rustix::fs::symlinkat(dir.path().join("canary"), &at, "link").unwrap();
        rustix::fs::mkdirat(&at, "end", Mode::RWXU).unwrap();
        assert_eq!(
            root.read_file(&far.join("link/secret"), 100).unwrap_err().errno(),
            Some(Errno::LOOP)
        );
        // Nor is one followed that stands in the part from which the rest is reached, wherever it leads.
        symlink(".", dir.path().join("root/here")).unwrap();
        symlink("/", dir.path().join("root/out")).unwrap();
        let host = dir.path().join("root").join(far.strip_prefix("/").unwrap());
        for link in [
            Path::new("here").join(far.strip_prefix("/").unwrap()),
            Path::new("out").join(host.strip_prefix("/").unwrap()),
        ] {
            let error = root.stat(&link.join("end")).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::LOOP), "{link:?}");
        }
        let (parent, end) = root.parent(&far.join("end/../end")).unwrap();
        assert_eq!(end, "end");
        rustix::fs::mkdirat(&parent, "beside", Mode::RWXU).unwrap();
        assert!(root.stat(&far.join("beside")).is_ok());
        assert!(root.stat(&far.join("absent")).unwrap_err().is_not_found());
    }

    #[test]
    fn links_and_dots_end_inside_the_root() {
        let (dir, root) = root();
        let canary = dir.path().join("canary");
        symlink(&canary, dir.path().join("root/abs")).unwrap();
        symlink("../../canary", dir.path().join("root/rel")).unwrap();
        for path in [
            "abs/secret",
            "rel/secret",
            "../canary/secret",
            "/../../canary/secret",
        ] {
            let error = root.read_file(Path::new(path), 100).unwrap_err();
            assert!(error.is_not_found(), "{path}: {error}");
        }
    }

    #[test]
    fn directories_are_made_through_links_inside_the_root() {
        let (dir, root) = root();
        symlink("/run", dir.path().join("root/var")).unwrap();
        symlink(dir.path().join("canary/new"), dir.path().join("root/out")).unwrap();
        let mut made = Vec::new();
        root.create_dir_all(Path::new("var/a/b"), Mode::from_raw_mode(0o755), |_, path| {
            made.push(path.to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(
            made,
            [Path::new("/run"), Path::new("/run/a"), Path::new("/run/a/b")]
        );
        root.create_dir_all(Path::new("out/x"), Mode::from_raw_mode(0o755), |_, _| Ok(()))
            .unwrap();
        assert!(!dir.path().join("canary/new").exists(), "nothing is made outside");
        let inside = clean(&dir.path().join("canary/new/x"));
        assert!(
            root.stat(&inside).is_ok(),
            "the link's target is made below the root"
        );
    }

    #[test]
    fn a_link_loop_and_a_file_in_the_way_are_errors() {
        let (dir, root) = root();
        symlink("b", dir.path().join("root/a")).unwrap();
        symlink("a", dir.path().join("root/b")).unwrap();
        std::fs::write(dir.path().join("root/file"), "").unwrap();
        let mode = Mode::from_raw_mode(0o755);
        let looped = root
            .create_dir_all(Path::new("a/x"), mode, |_, _| Ok(()))
            .unwrap_err();
        assert_eq!(looped.errno(), Some(Errno::LOOP));
        let blocked = root
            .create_dir_all(Path::new("file/x"), mode, |_, _| Ok(()))
            .unwrap_err();
        assert_eq!(blocked.errno(), Some(Errno::NOTDIR));
    }

    #[test]
    fn only_regular_files_within_the_budget_are_read() {
        let (dir, root) = root();
        std::fs::write(dir.path().join("root/f"), "12345").unwrap();
        assert_eq!(root.read_file(Path::new("f"), 5).unwrap(), b"12345");
        assert!(matches!(
            root.read_file(Path::new("f"), 4),
            Err(RootFdError::TooLarge { max_bytes: 4, .. })
        ));
        let fifo = rustix::fs::CWD;
        rustix::fs::mknodat(
            fifo,
            dir.path().join("root/p"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(matches!(
            root.read_file(Path::new("p"), 4),
            Err(RootFdError::NotRegular(_))
        ));
    }

    #[test]
    fn the_root_has_no_parent_entry() {
        let (_dir, root) = root();
        for path in ["/", ".", "a/..", "", "../.."] {
            assert!(
                matches!(root.parent(Path::new(path)), Err(RootFdError::IsRoot(_))),
                "{path}"
            );
        }
        assert_eq!(root.parent(Path::new("/x")).unwrap().1, "x");
    }
}
