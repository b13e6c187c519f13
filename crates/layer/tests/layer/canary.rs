//! A tree that no archive may touch, next to the root that archives are unpacked into.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rbuild_layer::{ApplyError, Limits, UnpackOptions, Unpacked, unpack};
use rbuild_sys::overlay::Form;

/// `outside/` (the canary) and `root/` (for archives) on one file system.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    before: Vec<String>,
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root() && std::env::var_os("RBUILD_INNER").is_none()
}

pub(crate) fn form() -> Form {
    if is_root() { Form::Trusted } else { Form::User }
}

impl Place {
    pub(crate) fn new() -> Self {
        // /tmp may be a tmpfs without user attributes on old kernels; the build directory is where stores live, too.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let canary = dir.path().join("canary");
        for sub in ["", "dir", "emptyd", "dir/sub"] {
            std::fs::create_dir(canary.join(sub)).unwrap();
        }
        for (name, content) in [
            ("secret", "s3cr3t-bytes"),
            ("victim", "v"),
            ("empty", ""),
            ("dir/inner", "i"),
        ] {
            std::fs::write(canary.join(name), content).unwrap();
        }
        std::fs::create_dir(dir.path().join("root")).unwrap();
        let before = describe(&canary);
        assert!(before.len() >= 8);
        Self { dir, before }
    }

    pub(crate) fn canary(&self) -> PathBuf {
        self.dir.path().join("canary")
    }

    /// The canary's path with something below it, as bytes for archives.
    pub(crate) fn canary_bytes(&self, below: &str) -> Vec<u8> {
        format!("{}{below}", self.canary().display()).into_bytes()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub(crate) fn open_root(&self) -> OwnedFd {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        rustix::fs::open(self.root(), flags, rustix::fs::Mode::empty()).unwrap()
    }

    pub(crate) fn unpack(&self, tar: &[u8]) -> Result<Unpacked, ApplyError> {
        self.unpack_with(tar, Limits::default())
    }

    pub(crate) fn unpack_with(&self, tar: &[u8], limits: Limits) -> Result<Unpacked, ApplyError> {
        let options = UnpackOptions {
            limits,
            ..UnpackOptions::new(form())
        };
        let done = unpack(tar, self.open_root().as_fd(), &options);
        self.check();
        done
    }

    /// Panics unless the canary is as it was.
    pub(crate) fn check(&self) {
        assert_eq!(describe(&self.canary()), self.before, "the canary changed");
    }
}

/// Everything about a tree but access and change times.
pub(crate) fn describe(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let what = if meta.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            "dir".to_owned()
        } else if meta.is_symlink() {
            format!("-> {:?}", std::fs::read_link(&path).unwrap())
        } else if meta.is_file() {
            format!("{:?}", String::from_utf8_lossy(&std::fs::read(&path).unwrap()))
        } else {
            format!("dev {}", meta.rdev())
        };
        let mut names = vec![0_u8; 4096];
        let length = rustix::fs::llistxattr(&path, names.as_mut_slice()).unwrap_or(0);
        names.truncate(length);
        lines.push(format!(
            "{} {:o} {}:{} n{} i{} m{}.{} x{:?} {what}",
            path.strip_prefix(root).unwrap().display(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.nlink(),
            meta.ino(),
            meta.mtime(),
            meta.mtime_nsec(),
            String::from_utf8_lossy(&names),
        ));
    }
    lines.sort();
    lines
}

/// The error with all its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// The value of an attribute, links not followed.
pub(crate) fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0_u8; 256];
    let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}
