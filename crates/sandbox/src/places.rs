//! What a step would have mounted, where nothing can be mounted: trees are renamed into the step's root and back, small files
//! written there, and what was there before waits aside. The step could write to all of it, so nothing is given to it here
//! that it is only to read: that is for the caller to copy. Refuses what must not be on a disk.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rbuild_sys::{RootFd, clean, remove_tree, sever_links};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::devices;
use crate::plan::{MountKind, MountPlan, Plan, Source};
use crate::step::ordered;
use crate::stubs::{StubKind, Stubs};
use crate::wire::{During as _, Explained as _, SetupError};

/// Links followed to a place.
const LINKS_MAX: usize = 40;
const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// File systems whose files are in memory.
const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;

/// All that was put into one root.
#[derive(Debug)]
pub(crate) struct Places {
    /// A directory beside the root, on its file system.
    aside: RootFd,
    stubs: Stubs,
    taken: Vec<Taken>,
}

/// A name that stands for something else for as long as the step runs.
#[derive(Debug)]
struct Taken {
    parent: OwnedFd,
    name: OsString,
    /// The path as it was asked for.
    shown: PathBuf,
    /// What was there waits under the number of this in `aside`.
    what: What,
}

#[derive(Debug)]
enum What {
    /// A file that was made for the step, and is of no use afterwards.
    Passing,
    /// A directory of the same kind, which must be where it was: elsewhere it would be in the layer.
    Staying(OwnedFd),
    /// Somebody's, who wants it back there.
    Lent {
        home: OwnedFd,
        name: OsString,
        held: OwnedFd,
    },
}

impl Places {
    /// For the root `dir`, which has a directory of its own.
    pub(crate) fn beside(dir: &Path) -> Result<Self, SetupError> {
        let mut path = dir.as_os_str().to_owned();
        path.push("-aside");
        let path = PathBuf::from(path);
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.during("make directory", &path)?,
        }
        Ok(Self {
            aside: RootFd::open(&path).explained("open", &path)?,
            stubs: Stubs::default(),
            taken: Vec::new(),
        })
    }

    /// Puts devices, network files and mounts into `root`.
    pub(crate) fn fill(&mut self, root: &RootFd, plan: &Plan) -> Result<(), SetupError> {
        let mut kept = Stubs::default();
        for path in ["/proc", "/sys", "/dev"] {
            kept.ensure(root, Path::new(path), StubKind::Directory)?;
        }
        self.devices(root)?;
        for (path, content) in [
            ("/etc/resolv.conf", &plan.resolv_conf),
            ("/etc/hosts", &plan.hosts),
        ] {
            let replaced = plan
                .mounts
                .iter()
                .any(|mount| clean(&mount.dest) == Path::new(path));
            if let Some(content) = content.as_ref().filter(|_| !replaced) {
                self.stubs.ensure(root, Path::new(path), StubKind::File)?;
                self.file(root, Path::new(path), content, (0, 0, 0o644))?;
            }
        }
        for (_, mount) in ordered(plan) {
            self.mount(root, mount)?;
        }
        Ok(())
    }

    fn devices(&mut self, root: &RootFd) -> Result<(), SetupError> {
        let dev = self.directory(root, Path::new("/dev"), 0o755)?;
        devices::make_plain(dev.as_fd())?;
        for (name, mode) in [("shm", 0o1777), ("mqueue", 0o1777), ("pts", 0o755)] {
            let shown = Path::new("/dev").join(name);
            rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(mode)).during("make", &shown)?;
            rustix::fs::chmodat(&dev, name, Mode::from_raw_mode(mode), AtFlags::empty())
                .during("make", &shown)?;
        }
        Ok(())
    }

    fn mount(&mut self, root: &RootFd, mount: &MountPlan) -> Result<(), SetupError> {
        let dest = clean(&mount.dest);
        if ["/proc", "/sys"].iter().any(|kernel| dest.starts_with(kernel)) || dest == Path::new("/") {
            return Err(refused(&dest, "nothing is mounted there"));
        }
        match &mount.kind {
            MountKind::Tmpfs { mode, .. } => {
                let was_made = self.make_place(root, &dest, StubKind::Directory)?;
                let of_place = if was_made {
                    0o1777
                } else {
                    let (parent, name) = find(root, &dest)?;
                    let flags = AtFlags::SYMLINK_NOFOLLOW;
                    rustix::fs::statat(&parent, &name, flags)
                        .during("stat", &dest)?
                        .st_mode
                };
                self.directory(root, &dest, mode.unwrap_or(of_place)).map(drop)
            }
            MountKind::File {
                content,
                uid,
                gid,
                mode,
            } => {
                self.must_be_memory(&dest)?;
                self.make_place(root, &dest, StubKind::File)?;
                self.file(root, &dest, content, (*uid, *gid, *mode))
            }
            MountKind::Bind {
                source: Source::Path(path),
                selector,
                ..
            } => self.bind(root, &dest, path, selector),
            MountKind::Bind { .. } => Err(refused(
                &dest,
                "it is no directory here: use --snapshotter=native",
            )),
            MountKind::Device(_) | MountKind::HostTree(_) => {
                Err(refused(&dest, "devices of the host need namespaces"))
            }
        }
    }

    /// Makes a place where there is none. In another mount it stays, as BuildKit leaves it: the next step that has that mount finds
    /// it. Whether it had to be made.
    fn make_place(&mut self, root: &RootFd, dest: &Path, kind: StubKind) -> Result<bool, SetupError> {
        let made = self.stubs.ensure(root, dest, kind);
        let Self { stubs, taken, .. } = self;
        stubs.leave(|parent| taken.iter().any(|taken| taken.is_above(parent)));
        made
    }

    fn bind(&mut self, root: &RootFd, dest: &Path, path: &Path, selector: &Path) -> Result<(), SetupError> {
        let part = if clean(selector) == Path::new("/") {
            None
        } else {
            let tree = RootFd::open(path).explained("open mount source", path)?;
            find_below(&tree, selector)?
        };
        let (home, name) = match part {
            Some(part) => part,
            // The tree itself.
            None => {
                let parent = path.parent().unwrap_or(Path::new("/"));
                let home = RootFd::open(parent).explained("open mount source", parent)?;
                let home = home.as_fd().try_clone_to_owned();
                let name = path.file_name().unwrap_or_default().to_owned();
                (home.during("open mount source", path)?, name)
            }
        };
        let held = rustix::fs::openat(&home, &name, PATH, Mode::empty()).during("open mount source", path)?;
        let stat = rustix::fs::fstat(&held).during("stat mount source", path)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => StubKind::Directory,
            _ => StubKind::File,
        };
        self.make_place(root, dest, kind)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let what = What::Lent { home, name, held };
                let (from, old) = match &what {
                    What::Lent { home, name, .. } => {
                        (home.try_clone().during("open mount source", path)?, name.clone())
                    }
                    What::Passing | What::Staying(_) => unreachable!("it was made a line above"),
                };
                let at = self.take(root, dest, what)?;
                let renamed = rustix::fs::renameat(&from, &old, &at.parent, &at.name);
                renamed.during("put a directory to", dest)?;
                self.settle_times(&at)
            }
            // One more name of it: whoever listens there goes on to.
            FileType::Socket => {
                let at = self.take(root, dest, What::Passing)?;
                let linked = rustix::fs::linkat(&home, &name, &at.parent, &at.name, AtFlags::empty());
                linked.during("put a socket to", dest)?;
                self.settle_times(&at)
            }
            FileType::RegularFile => {
                let source = rustix::fs::openat(
                    &home,
                    &name,
                    OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
                    Mode::empty(),
                )
                .during("open mount source", path)?;
                let owner = (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777);
                self.copied(root, dest, source.into(), owner)
            }
            _ => Err(refused(
                dest,
                "what is to be there is neither directory, file nor socket",
            )),
        }
    }

    /// An empty directory in the place of `dest`.
    fn directory(&mut self, root: &RootFd, dest: &Path, mode: u32) -> Result<OwnedFd, SetupError> {
        let at = self.take(root, dest, What::Passing)?;
        rustix::fs::mkdirat(&at.parent, &at.name, Mode::RWXU).during("make directory", dest)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&at.parent, &at.name, flags, Mode::empty()).during("open", dest)?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(mode & 0o7777)).during("set mode of", dest)?;
        let held = made.try_clone().during("open", dest)?;
        if let Some(taken) = self.taken.last_mut() {
            taken.what = What::Staying(held);
        }
        self.settle_times(&at)?;
        Ok(made)
    }

    /// A file of these bytes, owner and mode in the place of `dest`.
    fn file(
        &mut self,
        root: &RootFd,
        dest: &Path,
        content: &[u8],
        owner: (u32, u32, u32),
    ) -> Result<(), SetupError> {
        self.written(root, dest, owner, |file| std::io::Write::write_all(file, content))
    }

    fn copied(
        &mut self,
        root: &RootFd,
        dest: &Path,
        mut source: std::fs::File,
        owner: (u32, u32, u32),
    ) -> Result<(), SetupError> {
        self.written(root, dest, owner, |file| {
            std::io::copy(&mut source, file).map(drop)
        })
    }

    fn written(
        &mut self,
        root: &RootFd,
        dest: &Path,
        (uid, gid, mode): (u32, u32, u32),
        write: impl FnOnce(&mut std::fs::File) -> std::io::Result<()>,
    ) -> Result<(), SetupError> {
        let at = self.take(root, dest, What::Passing)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&at.parent, &at.name, flags, Mode::RUSR).during("make file", dest)?;
        let mut file = std::fs::File::from(made);
        write(&mut file).during("write file", dest)?;
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::fchown(&file, Some(uid), Some(gid)).during("own file", dest)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777)).during("set mode of file", dest)?;
        self.settle_times(&at)
    }

    /// Frees the name of `dest`: what is there waits aside.
    fn take(&mut self, root: &RootFd, dest: &Path, what: What) -> Result<At, SetupError> {
        let (parent, name) = find(root, dest)?;
        let before = rustix::fs::fstat(&parent).during("stat", dest)?;
        let number = self.taken.len().to_string();
        rustix::fs::renameat(&parent, &name, &self.aside, number.as_str()).during("put aside", dest)?;
        let at = At {
            parent: parent.try_clone().during("open directory of", dest)?,
            name: name.clone(),
            before,
        };
        self.taken.push(Taken {
            parent,
            name,
            shown: dest.to_owned(),
            what,
        });
        Ok(at)
    }

    /// The directory of a place is as it was before something was put there.
    fn settle_times(&self, at: &At) -> Result<(), SetupError> {
        set_times(&at.parent, &at.before).during("set times of the directory of", Path::new(&at.name))
    }

    /// Takes everything out again, in the opposite order.
    pub(crate) fn clear(mut self) -> Result<(), SetupError> {
        let mut outcome = Ok(());
        while let Some(taken) = self.taken.pop() {
            let number = self.taken.len().to_string();
            let put_back = taken.give_back(&self.aside, &number);
            // All are put back, and the first failure is told.
            outcome = outcome.and(put_back);
        }
        self.stubs.remove();
        outcome
    }

    /// Secrets are never on a disk, and without mounts that is for the store to be in memory.
    fn must_be_memory(&self, dest: &Path) -> Result<(), SetupError> {
        let magic = rustix::fs::fstatfs(&self.aside).during("stat", dest)?.f_type;
        if [TMPFS_MAGIC, RAMFS_MAGIC].contains(&magic) {
            return Ok(());
        }
        Err(refused(
            dest,
            "without mounts a secret would be written to the disk of the store: give it as a variable \
             (--mount=type=secret,id=…,env=NAME), or put the store into memory (a tmpfs, emptyDir with medium: Memory)",
        ))
    }
}

/// A free name.
struct At {
    parent: OwnedFd,
    name: OsString,
    before: Stat,
}

impl Taken {
    fn give_back(self, aside: &RootFd, number: &str) -> Result<(), SetupError> {
        let before = rustix::fs::fstat(&self.parent).during("stat directory of", &self.shown)?;
        let outcome = match &self.what {
            What::Passing => Ok(()),
            What::Staying(held) => self.must_have(held),
            What::Lent { home, name, held } => self.return_to(home, name, held),
        };
        // Whatever has the name now is nothing that could have been there under a mount.
        remove_tree(self.parent.as_fd(), &self.name, None)
            .map_err(std::io::Error::other)
            .during("clear", &self.shown)?;
        match rustix::fs::renameat(aside, number, &self.parent, &self.name) {
            // The step removed the directory that it was in.
            Err(Errno::NOENT) => {}
            done => done.during("put back", &self.shown)?,
        }
        // The step's own changes of the directory have their time in `before`.
        set_times(&self.parent, &before).ok();
        outcome
    }

    fn return_to(&self, home: &OwnedFd, name: &OsString, held: &OwnedFd) -> Result<(), SetupError> {
        self.must_have(held)?;
        // Between mounts nothing can be linked: a file of a cache that the step gave a name in its root, or in another cache,
        // would change in a layer when a later step writes to it.
        sever_links(held.as_fd())
            .map_err(std::io::Error::other)
            .during("keep apart from the root", &self.shown)?;
        rustix::fs::renameat(&self.parent, &self.name, home, name).during("take back", &self.shown)
    }
}

impl Taken {
    /// Whether `dir` is the directory of somebody's that was put there, or below it.
    fn is_above(&self, dir: BorrowedFd<'_>) -> bool {
        let What::Lent { held, .. } = &self.what else {
            return false;
        };
        let id = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
        let climb = || -> Result<bool, Errno> {
            let lent = id(held.as_fd())?;
            let mut at = id(dir)?;
            let mut above = rustix::fs::openat(dir, ".", DIRECTORY, Mode::empty())?;
            while at != lent {
                above = rustix::fs::openat(&above, "..", DIRECTORY, Mode::empty())?;
                let next = id(above.as_fd())?;
                if next == at {
                    return Ok(false);
                }
                at = next;
            }
            Ok(true)
        };
        climb().unwrap_or(false)
    }

    /// What was put there is there: mounted, it could not have gone.
    fn must_have(&self, held: &OwnedFd) -> Result<(), SetupError> {
        let id = |stat: Stat| (stat.st_dev, stat.st_ino);
        let put = rustix::fs::fstat(held).map(id).during("stat", &self.shown)?;
        let there = rustix::fs::statat(&self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW).map(id);
        if there == Ok(put) {
            return Ok(());
        }
        Err(refused(
            &self.shown,
            "the step moved or removed what was mounted there",
        ))
    }
}

/// The directory and the name that `path` means in `root`, links followed inside it.
fn find(root: &RootFd, path: &Path) -> Result<(OwnedFd, OsString), SetupError> {
    let found = find_below(root, path)?;
    found.ok_or_else(|| refused(path, "it is the root itself"))
}

/// The same; nothing for the root itself. What links say is left to the kernel word by word: `..` behind one is above what it
/// leads to.
fn find_below(root: &RootFd, path: &Path) -> Result<Option<(OwnedFd, OsString)>, SetupError> {
    let mut path = clean(path);
    for _ in 0..=LINKS_MAX {
        let Some((above, name)) = path.parent().zip(path.file_name()) else {
            let id = |stat: Stat| (stat.st_dev, stat.st_ino);
            let led = root
                .open_in(&path, DIRECTORY, Mode::empty())
                .explained("open", &path)?;
            let (led, top) = (rustix::fs::fstat(&led).map(id), rustix::fs::fstat(root).map(id));
            return if led == top {
                Ok(None)
            } else {
                Err(refused(&path, "a link leads there by a name that ends in `..`"))
            };
        };
        let parent = root
            .open_in(above, DIRECTORY, Mode::empty())
            .explained("open directory of", &path)?;
        match rustix::fs::readlinkat(&parent, name, Vec::new()) {
            Ok(target) => path = above.join(std::ffi::OsStr::from_bytes(target.as_bytes())),
            Err(Errno::INVAL) => return Ok(Some((parent, name.to_owned()))),
            Err(error) => return Err(error).during("open", &path),
        }
    }
    Err(Errno::LOOP).during("open", &path)
}

fn set_times(dir: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
    let time = |tv_sec, nanoseconds: u64| Timespec {
        tv_sec,
        tv_nsec: nanoseconds.cast_signed(),
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    // The directory may be held by its path only, which futimens refuses and a `.` below it does not.
    rustix::fs::utimensat(dir, ".", &times, AtFlags::empty())
}

fn refused(dest: &Path, text: &str) -> SetupError {
    SetupError::refused(
        "put into the root of a step without namespaces",
        dest,
        format!(": {text}"),
    )
}
