//! Files that somebody names, which may be anything.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a regular file of this machine for reading, through links. A pipe without a writer is not waited for, and no terminal
/// becomes this process's.
///
/// # Errors
/// The kernel's; for what is no regular file one that says so.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_neither_read_nor_waited_for() {
        let room = tempfile::tempdir().unwrap();
        let (file, link, pipe) = (
            room.path().join("f"),
            room.path().join("l"),
            room.path().join("p"),
        );
        std::fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        assert_eq!(io::read_to_string(open_regular(&link).unwrap()).unwrap(), "text");
        for path in [&*pipe, room.path(), Path::new("/dev/null")] {
            let error = open_regular(path).unwrap_err();
            assert_eq!(error.to_string(), "not a regular file", "{path:?}");
        }
    }
}
