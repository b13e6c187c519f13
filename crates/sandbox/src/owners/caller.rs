//! One waiting call, and the way from it to its caller's memory and files.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_sys::seccomp::notify::{self, Call, Listener, Memory};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::calls::Place;
use super::credentials::{Credentials, Table};
use crate::status;

/// Longest path, with its NUL (`PATH_MAX`).
const PATH_MAX: usize = 4096;
/// A read of another process ends where a page does that is not there.
const PAGE: u64 = 4096;
/// Most directories of callers kept open at once by one thread.
const PROCESSES_MAX: usize = 128;

/// What one answering thread keeps between calls.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) listener: Arc<Listener>,
    pub(super) table: Arc<Mutex<Table>>,
    /// The machine's `/proc`, in which callers are found.
    pub(super) proc: OwnedFd,
    /// `/proc/self/fd`, the working directory: what is held is named from here, whatever the root is.
    own_fds: OwnedFd,
    /// The root this thread is in; none if it is not one of a caller.
    root: Option<RootId>,
    processes: HashMap<i32, OwnedFd>,
}

/// Names a directory, and the mount it is seen through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RootId {
    mount: u64,
    device: (u32, u32),
    inode: u64,
}

const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

impl Desk {
    /// For a thread that has a root and a working directory of its own.
    pub(super) fn open(listener: Arc<Listener>, table: Arc<Mutex<Table>>) -> Result<Self, Errno> {
        let open = |path| rustix::fs::open(path, PATH | OFlags::DIRECTORY, Mode::empty());
        let (proc, own_fds) = (open("/proc")?, open("/proc/self/fd")?);
        rustix::process::fchdir(&own_fds)?;
        rustix::process::umask(Mode::empty());
        Ok(Self {
            listener,
            table,
            proc,
            own_fds,
            root: None,
            processes: HashMap::new(),
        })
    }

    /// The caller's directory in `/proc`, which means this caller only from here on.
    fn process(&mut self, call: &Call) -> Result<OwnedFd, Errno> {
        if let Some(known) = self.processes.get(&call.thread) {
            // A dead one has no such file, even if its number has come to mean somebody else.
            if rustix::fs::accessat(
                known,
                "cwd",
                rustix::fs::Access::EXISTS,
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .is_ok()
            {
                return rustix::io::fcntl_dupfd_cloexec(known, 3);
            }
        }
        let name = call.thread.to_string();
        let found = rustix::fs::openat(&self.proc, name, PATH | OFlags::DIRECTORY, Mode::empty())?;
        if !self.listener.is_waiting(call) {
            return Err(Errno::SRCH);
        }
        if self.processes.len() >= PROCESSES_MAX {
            self.processes.clear();
        }
        let kept = rustix::io::fcntl_dupfd_cloexec(&found, 3)?;
        self.processes.insert(call.thread, kept);
        Ok(found)
    }

    /// Makes the caller's root that of this thread.
    fn enter_root(&mut self, process: BorrowedFd<'_>) -> Result<(), Errno> {
        let there = root_id(process, "root", AtFlags::empty())?;
        if there.is_some() && there == self.root {
            return Ok(());
        }
        self.root = None;
        let root = rustix::fs::openat(process, "root", PATH | OFlags::DIRECTORY, Mode::empty())?;
        let entered = rustix::process::fchdir(&root).and_then(|()| rustix::process::chroot("."));
        rustix::process::fchdir(&self.own_fds)?;
        entered?;
        self.root = root_id(root.as_fd(), "", AtFlags::EMPTY_PATH)?;
        Ok(())
    }
}

/// Nothing on a kernel that does not tell (before Linux 5.8): every root is another one there.
fn root_id(dir: BorrowedFd<'_>, path: &str, flags: AtFlags) -> Result<Option<RootId>, Errno> {
    let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
    let stat = rustix::fs::statx(dir, path, flags, wanted)?;
    Ok(
        (stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(RootId {
            mount: stat.stx_mnt_id,
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
        }),
    )
}

/// A call and its caller.
pub(super) struct Caller<'a> {
    pub(super) desk: &'a mut Desk,
    pub(super) call: &'a Call,
    process: Option<OwnedFd>,
}

impl<'a> Caller<'a> {
    pub(super) fn new(desk: &'a mut Desk, call: &'a Call) -> Self {
        Self {
            desk,
            call,
            process: None,
        }
    }

    /// An argument of 32 bits.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the kernel takes the low half of such arguments"
    )]
    pub(super) const fn word(&self, index: usize) -> u32 {
        self.call.args[index] as u32
    }

    /// An argument as it is.
    pub(super) const fn wide(&self, index: usize) -> u64 {
        self.call.args[index]
    }

    /// The caller's directory in `/proc`; this thread is in the caller's root afterwards.
    fn process(&mut self) -> Result<BorrowedFd<'_>, Errno> {
        if self.process.is_none() {
            let process = self.desk.process(self.call)?;
            self.desk.enter_root(process.as_fd())?;
            self.process = Some(process);
        }
        self.process.as_ref().map(OwnedFd::as_fd).ok_or(Errno::SRCH)
    }

    /// Reads exactly this much.
    pub(super) fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        let read = notify::peek(self.call.thread, address, buffer)?;
        if !self.desk.listener.is_waiting(self.call) {
            return Err(Errno::SRCH);
        }
        if read == buffer.len() {
            Ok(())
        } else {
            Err(Errno::FAULT)
        }
    }

    /// Reads a text of at most `max` bytes, its NUL included.
    pub(super) fn text(&self, address: u64, max: usize) -> Result<CString, Errno> {
        let mut text = Vec::new();
        while text.len() < max {
            let at = address.checked_add(text.len() as u64).ok_or(Errno::FAULT)?;
            let to_page_end = usize::try_from(PAGE - at % PAGE).map_err(|_| Errno::FAULT)?;
            let mut part = vec![0; to_page_end.min(max - text.len())];
            let read = notify::peek(self.call.thread, at, &mut part)?;
            part.truncate(read);
            if part.is_empty() {
                return Err(Errno::FAULT);
            }
            let end = part.iter().position(|byte| *byte == 0);
            text.extend_from_slice(&part[..end.unwrap_or(part.len())]);
            if end.is_some() {
                if !self.desk.listener.is_waiting(self.call) {
                    return Err(Errno::SRCH);
                }
                return CString::new(text).map_err(|_| Errno::FAULT);
            }
        }
        Err(Errno::NAMETOOLONG)
    }

    /// Writes into the caller's memory.
    pub(super) fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        Memory::open(self.process()?)?.write(address, bytes)
    }

    /// Who the caller believes to be.
    pub(super) fn credentials(&self) -> Result<Credentials, Errno> {
        let mark = notify::mark(self.call.thread)?;
        if !self.desk.listener.is_waiting(self.call) {
            return Err(Errno::SRCH);
        }
        let table = self.desk.table.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(table.get(mark).clone())
    }

    /// Makes the caller somebody else.
    pub(super) fn become_other(&self, credentials: Credentials) -> Result<(), Errno> {
        let mut table = self.desk.table.lock().unwrap_or_else(PoisonError::into_inner);
        let number = table.number(credentials).ok_or(Errno::NOMEM)?;
        drop(table);
        if !self.desk.listener.is_waiting(self.call) {
            return Err(Errno::SRCH);
        }
        // Should the caller die right now and its number be taken: nobody looks at this limit.
        notify::set_mark(self.call.thread, number)
    }

    /// The path that an argument points to.
    pub(super) fn path(&mut self, argument: usize) -> Result<CString, Errno> {
        let path = self.text(self.wide(argument), PATH_MAX)?;
        self.without_self(path)
    }

    /// Holds the file that the call means, without opening it.
    pub(super) fn open(&mut self, place: Place) -> Result<OwnedFd, Errno> {
        const AT_EMPTY_PATH: u32 = AtFlags::EMPTY_PATH.bits();
        const AT_SYMLINK_NOFOLLOW: u32 = AtFlags::SYMLINK_NOFOLLOW.bits();
        match place {
            Place::Open(argument) => self.descriptor(self.word(argument)),
            Place::Path { path, follow } => {
                let path = self.path(path)?;
                self.hold(None, &path, follow)
            }
            Place::At { dir, path, flags } => {
                let flags = self.word(flags);
                let empty = flags & AT_EMPTY_PATH != 0;
                // Linux 6.11 takes no path at all for an empty one.
                if empty && self.wide(path) == 0 {
                    return self.base(Some(dir));
                }
                let text = self.path(path)?;
                if text.is_empty() {
                    return if empty {
                        self.base(Some(dir))
                    } else {
                        Err(Errno::NOENT)
                    };
                }
                self.hold(Some(dir), &text, flags & AT_SYMLINK_NOFOLLOW == 0)
            }
        }
    }

    /// Holds what a path leads to, seen from the directory that an argument means, or from the working directory.
    pub(super) fn hold(&mut self, dir: Option<usize>, path: &CStr, follow: bool) -> Result<OwnedFd, Errno> {
        let flags = if follow { PATH } else { PATH | OFlags::NOFOLLOW };
        if path.to_bytes().starts_with(b"/") {
            self.process()?;
            return rustix::fs::openat(CWD, path, flags, Mode::empty());
        }
        let base = self.base(dir)?;
        rustix::fs::openat(&base, path, flags, Mode::empty())
    }

    /// The directory, or whatever it is, that relative paths start from.
    fn base(&mut self, dir: Option<usize>) -> Result<OwnedFd, Errno> {
        const AT_FDCWD: u32 = (-100_i32).cast_unsigned();
        match dir.map(|argument| self.word(argument)) {
            None | Some(AT_FDCWD) => rustix::fs::openat(self.process()?, "cwd", PATH, Mode::empty()),
            Some(number) => self.descriptor(number),
        }
    }

    fn descriptor(&mut self, number: u32) -> Result<OwnedFd, Errno> {
        if number > i32::MAX.cast_unsigned() {
            return Err(Errno::BADF);
        }
        rustix::fs::openat(self.process()?, format!("fd/{number}"), PATH, Mode::empty())
    }

    /// The bits that new files do not get.
    pub(super) fn umask(&mut self) -> Result<u32, Errno> {
        let status = self.status()?;
        let value = status::field(&status, "Umask:").ok_or(Errno::INVAL)?;
        u32::from_str_radix(value, 8).map_err(|_| Errno::INVAL)
    }

    fn status(&mut self) -> Result<String, Errno> {
        status::read(self.process()?)
    }

    /// The same path without the names that mean whoever follows them, which would be this thread.
    fn without_self(&mut self, path: CString) -> Result<CString, Errno> {
        let text = path.to_bytes();
        let Some((known, kind)) = SELVES.iter().find(|(name, _)| {
            text.strip_prefix(name.as_bytes())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        }) else {
            return Ok(path);
        };
        let status = self.status()?;
        let last = |name| status::field(&status, name).and_then(|line| line.split_whitespace().last());
        let (process, thread) = (
            last("NStgid:").ok_or(Errno::NOENT)?,
            last("NSpid:").ok_or(Errno::NOENT)?,
        );
        let mut own = match kind {
            Own::Process => format!("/proc/{process}"),
            Own::Thread => format!("/proc/{process}/task/{thread}"),
            Own::Files => format!("/proc/{process}/fd"),
            Own::File(number) => format!("/proc/{process}/fd/{number}"),
        }
        .into_bytes();
        own.extend_from_slice(&text[known.len()..]);
        CString::new(own).map_err(|_| Errno::INVAL)
    }
}

/// What a name of the caller's own means.
#[derive(Clone, Copy)]
enum Own {
    Process,
    Thread,
    Files,
    File(u8),
}

const SELVES: [(&str, Own); 6] = [
    ("/proc/self", Own::Process),
    ("/proc/thread-self", Own::Thread),
    ("/dev/fd", Own::Files),
    ("/dev/stdin", Own::File(0)),
    ("/dev/stdout", Own::File(1)),
    ("/dev/stderr", Own::File(2)),
];

#[cfg(test)]
mod tests;
