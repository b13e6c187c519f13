//! A terminal of the sandbox's own (pty(7)), made inside it and steered from outside: the process has its slave as all
//! three streams, the caller its master. Without namespaces it is one of the container's, and has no name in the step's root.

use std::os::fd::OwnedFd;
use std::path::Path;

use rbuild_sys::RootFd;
use rustix::fs::{Mode, OFlags, Uid};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::plan::TerminalSize;
use crate::wire::{During as _, Explained as _, SetupError};

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS_MAGIC: i64 = 0x1cd1;
const SHOWN: &str = "/dev/pts/ptmx";

/// Both ends of a terminal that nobody uses yet.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
}

impl Terminal {
    /// One of the terminals that this process sees, for a step that will see none.
    pub(crate) fn of_caller(uid: u32) -> Result<Self, SetupError> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).during("open terminal", "/dev/ptmx")?;
        rustix::fs::fcntl_setfl(&master, OFlags::NONBLOCK).during("open terminal", "/dev/ptmx")?;
        Self::of_master(master, uid)
    }

    fn of_master(master: OwnedFd, uid: u32) -> Result<Self, SetupError> {
        rustix::pty::unlockpt(&master).during("unlock terminal", SHOWN)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        // By the master and not by its number: names in there are the sandbox's.
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).during("open terminal", SHOWN)?;
        // With one id the terminal is the step's anyway, and devpts keeps no records.
        if !rbuild_sys::owner::are_recorded() {
            rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), None).during("own terminal", SHOWN)?;
        }
        Ok(Self { master, slave })
    }

    /// Makes it the one that controls this process, which leads its session. Gives its master.
    pub(crate) fn take(self, size: TerminalSize) -> Result<OwnedFd, SetupError> {
        let slave = self.slave;
        let size = Winsize {
            ws_row: size.rows,
            ws_col: size.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&slave, size).during("size terminal", SHOWN)?;
        rustix::process::ioctl_tiocsctty(&slave).during("take terminal", SHOWN)?;
        rustix::stdio::dup2_stdin(&slave).during("use terminal", SHOWN)?;
        rustix::stdio::dup2_stdout(&slave).during("use terminal", SHOWN)?;
        rustix::stdio::dup2_stderr(&slave).during("use terminal", SHOWN)?;
        Ok(self.master)
    }
}

/// Makes a terminal in the sandbox this process is in, and makes it the one that controls this process; it belongs to
/// user `uid`. Gives its master.
pub(crate) fn attach(uid: u32, size: TerminalSize) -> Result<OwnedFd, SetupError> {
    let root = RootFd::open(Path::new("/")).explained("open", "/")?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // Looked at before it is opened: whatever a mount put there might do something when it is.
    let place = root.open_in(
        Path::new("/dev/pts"),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let place = place.explained("open", "/dev/pts")?;
    let magic = rustix::fs::fstatfs(&place).during("stat", "/dev/pts")?.f_type;
    if magic != DEVPTS_MAGIC {
        return Err(SetupError::refused(
            "open terminal",
            Path::new(SHOWN),
            ": it is not on a file system of terminals",
        ));
    }
    let master = rustix::fs::openat(&place, "ptmx", flags | OFlags::NOFOLLOW, Mode::empty());
    let master = master.during("open terminal", SHOWN)?;
    let terminal = Terminal::of_master(master, uid)?;
    rustix::process::setsid().during("leave session", SHOWN)?;
    terminal.take(size)
}
