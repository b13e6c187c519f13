//! Our own executable in a form no step can write to.
//!
//! A step whose interpreter is `/proc/self/exe` runs us inside, and could then open `/proc/1/exe` for writing
//! (CVE-2019-5736). The supervisor is therefore started from a detached read-only mount of the file, or from a
//! sealed copy in memory where the file on disk is no longer the one that runs.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use rbuild_sys::mount_attr::MountAttr;
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

/// A program that can be started and not changed.
#[derive(Debug)]
pub(crate) struct ProtectedProgram {
    fd: OwnedFd,
}

/// Why the program cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("protect {path:?} from the steps it starts: {verb}")]
pub struct ProgramError {
    path: PathBuf,
    verb: &'static str,
    #[source]
    source: io::Error,
}

const OWN: &str = "/proc/self/exe";

impl ProtectedProgram {
    /// The program this process runs.
    pub(crate) fn own() -> Result<Self, ProgramError> {
        let path = std::fs::read_link(OWN).map_err(|source| error(OWN.into(), "read link", source))?;
        let running = rustix::fs::stat(OWN).map_err(|e| error(OWN.into(), "stat", e.into()))?;
        // By its path and not by the magic link: that leads into the mount namespace it was started in.
        match read_only(&path) {
            Ok(fd)
                if rustix::fs::fstat(&fd)
                    .is_ok_and(|s| (s.st_dev, s.st_ino) == (running.st_dev, running.st_ino)) =>
            {
                Ok(Self { fd })
            }
            _ => copy(OWN.into()),
        }
    }

    /// Another program that calls `init_if_requested`.
    pub(crate) fn at(path: PathBuf) -> Result<Self, ProgramError> {
        read_only(&path).map(|fd| Self { fd }).or_else(|_| copy(path))
    }

    /// Path to start it by in this process.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }
}

fn read_only(path: &PathBuf) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, path, flags)?;
    let attr = MountAttr {
        no_suid: true,
        ..MountAttr::READ_ONLY
    };
    attr.apply(tree.as_fd(), false)
        .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    Ok(tree)
}

fn copy(path: PathBuf) -> Result<ProtectedProgram, ProgramError> {
    let fail = |verb, source: io::Error| error(path.clone(), verb, source);
    let from = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let mut from = std::fs::File::from(from.map_err(|e| fail("open", e.into()))?);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create("rbuild", flags).map_err(|e| fail("copy", e.into()))?;
    let mut to = std::fs::File::from(memory);
    io::copy(&mut from, &mut to).map_err(|e| fail("copy", e))?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&to, seals).map_err(|e| fail("seal", e.into()))?;
    Ok(ProtectedProgram { fd: to.into() })
}

const fn error(path: PathBuf, verb: &'static str, source: io::Error) -> ProgramError {
    ProgramError { path, verb, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_row24_neither_form_can_be_opened_for_writing() {
        // Not our own file: that is busy as a running program, which would hide what is tested.
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, b"\x7fELF").unwrap();
        let mounted = ProtectedProgram::at(file.path().to_owned()).unwrap();
        let copied = copy(file.path().to_owned()).unwrap();
        for (program, errno) in [(mounted, Errno::ROFS), (copied, Errno::PERM)] {
            let opened = rustix::fs::open(program.path(), OFlags::WRONLY, Mode::empty());
            let refused = match opened {
                Err(error) => error,
                Ok(fd) => rustix::io::write(&fd, b"x").unwrap_err(),
            };
            assert_eq!(refused, errno);
            assert_eq!(std::fs::read(program.path()).unwrap(), b"\x7fELF");
        }
        assert!(
            std::fs::read(ProtectedProgram::own().unwrap().path())
                .unwrap()
                .starts_with(b"\x7fELF")
        );
    }
}
