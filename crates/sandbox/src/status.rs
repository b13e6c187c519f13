//! `/proc/PID/status` of a process that a held directory means.

use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The status of a process is shorter, however many groups it has.
const STATUS_MAX: usize = 16 << 10;

/// The file, of the process whose directory in `/proc` this is.
pub(crate) fn read(process: BorrowedFd<'_>) -> Result<String, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let status = rustix::fs::openat(process, "status", flags, Mode::empty())?;
    let mut text = vec![0; STATUS_MAX];
    let len = rustix::io::read(&status, text.as_mut_slice())?;
    text.truncate(len);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// What stands behind a name, which ends with its colon.
pub(crate) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}
