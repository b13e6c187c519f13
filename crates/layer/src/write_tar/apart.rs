//! A layer directory once more, as files and directories of its own: for when somebody may still have some of the first ones
//! open. Everything is as it is there, overlayfs' marks and names of one file too; what is not there any more when it is
//! come to is left out.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rbuild_sys::data::DataCopier;
use rbuild_sys::{RootFd, TreeEntry, TreeError, walk_tree};
use rustix::fs::{AtFlags, FileType, Mode, Stat};
use rustix::io::Errno;

use super::changes::{beneath, timestamps};
use super::merge::{Attributes, copy_directory, copy_file};
use super::source::DIRECTORY;
use super::{WriteError, failed};
use crate::reader::printable;

/// Makes `out`, an empty directory, a copy of the layer directory `layer`, in which others may be at work meanwhile.
///
/// # Errors
/// [`WriteError`]; `out` holds a useless beginning then. A directory that others move while it is copied is one.
pub fn copy_layer(layer: &RootFd, out: &RootFd) -> Result<(), WriteError> {
    let mut copy = Copy {
        out,
        copier: DataCopier::default(),
        parent: None,
        names: HashMap::new(),
        dirs: Vec::new(),
    };
    let open = |root: &RootFd| {
        rustix::fs::openat(root, ".", DIRECTORY, Mode::empty()).map_err(|e| failed("open", b"/", e))
    };
    let stat = copy_directory(&open(layer)?, &open(out)?, Attributes::All);
    let stat = stat.map_err(|e| failed("copy metadata of", b"/", e))?;
    copy.dirs.push((PathBuf::from("/"), stat));
    walk_tree(layer.as_fd(), PathBuf::from("/"), |dir, entry| {
        let path = dir.join(entry.name);
        match copy.entry(dir, &path, entry) {
            // Gone, something else by now, or under a name that was come to before.
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::EXIST) => Ok(path),
            Err(errno) => Err(Failed(failed("copy", path.as_os_str().as_bytes(), errno))),
        }
    })
    .map_err(|Failed(error)| error)?;
    copy.set_times()
}

/// A failure of the walk as one of the layer.
pub(super) struct Failed(pub(super) WriteError);

impl From<TreeError> for Failed {
    fn from(error: TreeError) -> Self {
        Self(match error {
            TreeError::Io {
                verb, name, source, ..
            } => WriteError::Io {
                verb,
                path: printable(name.as_bytes()),
                source,
            },
            TreeError::MountPoint { name, .. } => WriteError::Changed {
                path: printable(name.as_bytes()),
            },
            TreeError::Moved { .. } => WriteError::Changed {
                path: "a directory".to_owned(),
            },
        })
    }
}

struct Copy<'a> {
    out: &'a RootFd,
    copier: DataCopier,
    /// The directory of the last entry, in what is made.
    parent: Option<(PathBuf, OwnedFd)>,
    /// The first name of each file that has several.
    names: HashMap<(u64, u64), PathBuf>,
    /// Directories whose times are set when nothing is made in them any more.
    dirs: Vec<(PathBuf, Stat)>,
}

impl Copy<'_> {
    /// `ENOENT` if it is gone, or its directory was when that was come to.
    fn entry(&mut self, dir: &Path, path: &Path, entry: &TreeEntry<'_>) -> Result<(), Errno> {
        if self.parent.as_ref().is_none_or(|(known, _)| known != dir) {
            let made = self.out.open_in(dir, DIRECTORY, Mode::empty());
            let made = made.map_err(|e| e.errno().unwrap_or(Errno::IO))?;
            self.parent = Some((dir.to_owned(), made));
        }
        let Some((_, to)) = &self.parent else {
            return Err(Errno::NOENT);
        };
        if FileType::from_raw_mode(entry.stat.st_mode) == FileType::Directory {
            let source = rustix::fs::openat(entry.dir, entry.name, DIRECTORY, Mode::empty())?;
            rustix::fs::mkdirat(to, entry.name, Mode::RWXU)?;
            let made = rustix::fs::openat(to, entry.name, DIRECTORY, Mode::empty())?;
            let stat = copy_directory(&source, &made, Attributes::All)?;
            self.dirs.push((path.to_owned(), stat));
            return Ok(());
        }
        let id = (entry.stat.st_dev, entry.stat.st_ino);
        if let Some(first) = self.names.get(&id) {
            let (dir, name): (OwnedFd, OsString) = self
                .out
                .parent(first)
                .map_err(|e| e.errno().unwrap_or(Errno::IO))?;
            match rustix::fs::linkat(&dir, &name, to, entry.name, AtFlags::empty()) {
                Err(Errno::MLINK) => {}
                linked => return linked,
            }
        }
        copy_file((entry.dir, to.as_fd()), entry.name, &self.copier, Attributes::All)?;
        if entry.stat.st_nlink > 1 {
            self.names.insert(id, path.to_owned());
        }
        Ok(())
    }

    fn set_times(&self) -> Result<(), WriteError> {
        for (path, stat) in &self.dirs {
            let shown = OsStr::as_bytes(path.as_os_str());
            let dir = self.out.open_in(path, DIRECTORY, Mode::empty());
            let dir = dir.map_err(|e| beneath("open", shown, e))?;
            rustix::fs::futimens(&dir, &timestamps(stat)).map_err(|e| failed("set times", shown, e))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::process::Command;

    fn copy(from: &Path, to: &Path) -> Result<(), WriteError> {
        fs::create_dir(to).unwrap();
        copy_layer(&RootFd::open(from).unwrap(), &RootFd::open(to).unwrap())
    }

    #[test]
    fn a_copy_has_everything_and_shares_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::write(from.join("a/b/file"), "content").unwrap();
        fs::set_permissions(from.join("a/b/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::hard_link(from.join("a/b/file"), from.join("second")).unwrap();
        symlink("a/b", from.join("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            from.join("pipe"),
            FileType::Fifo,
            Mode::from_raw_mode(0o640),
            0,
        )
        .unwrap();
        let opaque = rustix::fs::setxattr(
            from.join("a"),
            "user.overlay.opaque",
            b"y",
            rustix::fs::XattrFlags::empty(),
        );
        fs::File::open(from.join("a"))
            .unwrap()
            .set_modified(std::time::UNIX_EPOCH)
            .unwrap();
        copy(&from, &to).unwrap();
        for name in ["a", "a/b", "a/b/file", "second", "link", "pipe"] {
            let (one, other) = (
                from.join(name).symlink_metadata().unwrap(),
                to.join(name).symlink_metadata().unwrap(),
            );
            assert_ne!(one.ino(), other.ino(), "{name}");
            assert_eq!(
                (one.mode(), one.size().min(9), one.mtime(), one.mtime_nsec()),
                (
                    other.mode(),
                    other.size().min(9),
                    other.mtime(),
                    other.mtime_nsec()
                ),
                "{name}"
            );
        }
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("a/b"));
        let (one, other) = (
            to.join("second").metadata().unwrap(),
            to.join("a/b/file").metadata().unwrap(),
        );
        assert_eq!((one.ino(), one.nlink()), (other.ino(), 2), "one file still");
        if opaque.is_ok() {
            let mut value = [0; 4];
            let length = rustix::fs::getxattr(to.join("a"), "user.overlay.opaque", &mut value[..]);
            assert_eq!(length, Ok(1), "what overlayfs marked");
        }
        fs::write(from.join("second"), "changed").unwrap();
        assert_eq!(fs::read_to_string(to.join("a/b/file")).unwrap(), "content");
    }

    #[test]
    fn privileged_whiteouts_and_devices_are_what_they_were() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP: making devices needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        for words in ["gone c 0 0", "disk b 7 9"] {
            let made = Command::new("mknod")
                .args(words.split(' '))
                .current_dir(&from)
                .status();
            assert!(made.unwrap().success());
        }
        copy(&from, &to).unwrap();
        for name in ["gone", "disk"] {
            let of = |dir: &Path| dir.join(name).symlink_metadata().unwrap();
            assert_eq!(
                (of(&from).mode(), of(&from).rdev()),
                (of(&to).mode(), of(&to).rdev()),
                "{name}"
            );
        }
    }

    #[test]
    fn what_others_do_meanwhile_leads_nowhere_and_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (from, outside) = (dir.path().join("from"), dir.path().join("outside"));
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("secret"), "of the host").unwrap();
        for at in 0..50 {
            fs::create_dir_all(from.join(format!("d{at}"))).unwrap();
            fs::write(from.join(format!("d{at}/secret")), "own").unwrap();
        }
        let done = std::sync::atomic::AtomicBool::new(false);
        let ended = || done.load(std::sync::atomic::Ordering::Relaxed);
        std::thread::scope(|scope| {
            let copies = Ends(&done);
            scope.spawn(|| {
                while !ended() {
                    for at in 0..50 {
                        let (name, aside) = (from.join(format!("d{at}")), from.join("aside"));
                        fs::rename(&name, &aside).unwrap();
                        symlink(&outside, &name).unwrap();
                        fs::remove_file(&name).unwrap();
                        fs::rename(&aside, &name).unwrap();
                    }
                }
            });
            for round in 0..15 {
                let to = dir.path().join(format!("to{round}"));
                let copied = copy(&from, &to);
                assert!(
                    copied.is_ok() || matches!(copied, Err(WriteError::Changed { .. })),
                    "{copied:?}"
                );
                for entry in fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().path()) {
                    let is_dir = entry.symlink_metadata().unwrap().is_dir();
                    let text = fs::read_to_string(entry.join("secret"));
                    assert!(!is_dir || text.is_err() || text.unwrap() == "own", "{entry:?}");
                }
            }
            drop(copies);
        });
    }

    /// Tells a thread to end, also when an assertion fails.
    struct Ends<'a>(&'a std::sync::atomic::AtomicBool);

    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
}
