//! Files behind more links than the kernel follows in one call (`MAXSYMLINKS`, 40): found link by link, as many as BuildKit follows
//! (`cache/contenthash/path.go`). Every step starts at the held root and follows nothing, so it ends inside the root whatever is
//! exchanged in between.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use super::{RootFd, RootFdError, components_reversed, io_error};

/// Links followed on the way to one file (`maxSymlinkLimit`).
const LINKS_MAX: usize = 255;

impl RootFd {
    /// Opens what `path` leads to, links followed inside the root.
    ///
    /// # Errors
    /// [`RootFdError::Links`]; the kernel's, with the path up to where it was met.
    pub(super) fn open_patiently(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, RootFdError> {
        let straight = |at: &Path, flags| self.open_in(at, flags | OFlags::NOFOLLOW, Mode::empty());
        let mut pending = components_reversed(path);
        let mut real = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if name == ".." {
                real.pop();
                continue;
            }
            let next = real.join(&name);
            let fd = straight(&next, OFlags::PATH)?;
            let stat = rustix::fs::fstat(&fd).map_err(|e| io_error("stat", &next, e))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                real = next;
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(RootFdError::Links(path.to_owned()));
            }
            let target = crate::owner::read_link(&fd, c"").map_err(|e| io_error("read link", &next, e))?;
            let target = Path::new(OsStr::from_bytes(target.as_bytes()));
            if target.components().next() == Some(Component::RootDir) {
                real = PathBuf::from("/");
            }
            pending.extend(components_reversed(target));
        }
        straight(&real, flags)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::io::Errno;

    use super::*;

    /// A root in which `f` stands behind as many links, each in a directory behind another link.
    fn behind(links: usize) -> (tempfile::TempDir, RootFd) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("d")).unwrap();
        fs::write(root.join("d/real"), "inside").unwrap();
        fs::write(dir.path().join("secret"), "outside").unwrap();
        symlink("/../../d", root.join("way")).unwrap();
        let mut target = "d/real".to_owned();
        for number in 1..links {
            symlink(&target, root.join(format!("l{number}"))).unwrap();
            target = format!("l{number}");
        }
        symlink(&target, root.join("f")).unwrap();
        let root = RootFd::open(&root).unwrap();
        (dir, root)
    }

    #[test]
    fn as_many_links_are_followed_as_buildkit_follows() {
        for links in [1, 40, 41, 255] {
            let (_dir, root) = behind(links);
            assert_eq!(root.read_file(Path::new("f"), 10).unwrap(), b"inside", "{links}");
        }
        for links in [256, 300] {
            let (_dir, root) = behind(links);
            let error = root.read_file(Path::new("f"), 10).unwrap_err();
            assert_eq!(error.to_string(), "too many links");
        }
    }

    #[test]
    fn no_number_of_links_leads_out_or_into_what_is_no_file() {
        let (dir, root) = behind(60);
        let at = |name: &str| dir.path().join("root").join(name);
        symlink("../../secret", at("l100")).unwrap();
        symlink("way/../way/real", at("l200")).unwrap();
        symlink("d", at("l300")).unwrap();
        symlink("l1/below", at("l400")).unwrap();
        for (start, end) in [(100, "out"), (200, "back"), (300, "dir"), (400, "through")] {
            for number in start + 1..start + 50 {
                symlink(format!("l{}", number - 1), at(&format!("l{number}"))).unwrap();
            }
            symlink(format!("l{}", start + 49), at(end)).unwrap();
        }
        let read = |name: &str| root.read_file(Path::new(name), 10);
        assert!(read("out").unwrap_err().is_not_found(), "`..` ends at the root");
        assert_eq!(read("back").unwrap(), b"inside");
        assert!(matches!(read("dir"), Err(RootFdError::NotRegular(_))));
        assert_eq!(read("through").unwrap_err().errno(), Some(Errno::NOTDIR));
    }
}
