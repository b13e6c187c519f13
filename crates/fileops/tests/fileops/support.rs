//! A source and a destination in a temporary directory, and short ways to fill, copy and look at them.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rbuild_fileops::{
    ContentHash, CopyError, CopyReport, HashError, IgnoreRules, LocalContext, NoStatCache, Owner, Selector,
    SourceTree, copy,
};
use rbuild_graph::{CopyAction, FileTime};
use rbuild_sys::RootFd;

pub(crate) struct World {
    pub(crate) tmp: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let tmp = tempfile::tempdir().unwrap();
        for name in ["src", "dst", "canary"] {
            std::fs::create_dir(tmp.path().join(name)).unwrap();
        }
        std::fs::write(tmp.path().join("canary/secret"), "outside").unwrap();
        Self { tmp }
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.tmp.path().join(path)
    }

    /// A file with its parents.
    pub(crate) fn file(&self, path: &str, content: &str) -> &Self {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    pub(crate) fn dir(&self, path: &str) -> &Self {
        std::fs::create_dir_all(self.path(path)).unwrap();
        self
    }

    pub(crate) fn link(&self, path: &str, target: &str) -> &Self {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    pub(crate) fn chmod(&self, path: &str, mode: u32) -> &Self {
        std::fs::set_permissions(self.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    pub(crate) fn chown(&self, path: &str, uid: u32, gid: u32) -> &Self {
        std::os::unix::fs::lchown(self.path(path), Some(uid), Some(gid)).unwrap();
        self
    }

    pub(crate) fn utime(&self, path: &str, seconds: i64) -> &Self {
        set_mtime(&self.path(path), seconds);
        self
    }

    pub(crate) fn root(&self, path: &str) -> RootFd {
        RootFd::open(&self.path(path)).unwrap()
    }

    /// `src` as a mounted snapshot.
    pub(crate) fn snapshot(&self) -> SourceTree {
        SourceTree::Snapshot(self.root("src"))
    }

    /// `src` as the build context, with the lines of an ignore file.
    pub(crate) fn context(&self, ignore: &str) -> SourceTree {
        let rules = IgnoreRules::parse(".dockerignore", ignore.as_bytes()).unwrap();
        SourceTree::Context(LocalContext::new(self.root("src"), self.path("src"), Some(rules)))
    }

    pub(crate) fn copy(&self, action: &CopyAction) -> Result<CopyReport, CopyError> {
        run(&self.snapshot(), &self.root("dst"), action, None)
    }

    pub(crate) fn copy_as(&self, action: &CopyAction, uid: u32, gid: u32) -> Result<CopyReport, CopyError> {
        run(
            &self.snapshot(),
            &self.root("dst"),
            action,
            Some(Owner { uid, gid }),
        )
    }

    pub(crate) fn copy_context(&self, ignore: &str, action: &CopyAction) -> Result<CopyReport, CopyError> {
        run(&self.context(ignore), &self.root("dst"), action, None)
    }

    pub(crate) fn hash(&self, action: &CopyAction) -> String {
        try_hash(&self.snapshot(), action).unwrap().digest.to_string()
    }

    pub(crate) fn hash_context(&self, ignore: &str, action: &CopyAction) -> String {
        try_hash(&self.context(ignore), action)
            .unwrap()
            .digest
            .to_string()
    }

    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    pub(crate) fn mode(&self, path: &str) -> u32 {
        self.stat(path).mode() & 0o7777
    }

    pub(crate) fn owner(&self, path: &str) -> (u32, u32) {
        let stat = self.stat(path);
        (stat.uid(), stat.gid())
    }

    pub(crate) fn stat(&self, path: &str) -> std::fs::Metadata {
        self.path(path)
            .symlink_metadata()
            .unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// Everything below `dst`, without times.
    pub(crate) fn dst(&self) -> BTreeMap<String, String> {
        listing(&self.path("dst"))
    }

    /// Names below `dst`.
    pub(crate) fn names(&self) -> Vec<String> {
        self.dst().into_keys().collect()
    }

    pub(crate) fn clear_dst(&self) {
        std::fs::remove_dir_all(self.path("dst")).unwrap();
        std::fs::create_dir(self.path("dst")).unwrap();
    }
}

pub(crate) fn run(
    source: &SourceTree,
    root: &RootFd,
    action: &CopyAction,
    owner: Option<Owner>,
) -> Result<CopyReport, CopyError> {
    copy(source, root, action, owner, rbuild_layer::DevicePolicy::Make)
}

pub(crate) fn try_hash(source: &SourceTree, action: &CopyAction) -> Result<ContentHash, HashError> {
    ContentHash::of(source, &Selector::from(action), &NoStatCache)
}

pub(crate) fn set_mtime(path: &Path, seconds: i64) {
    let spec = rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: 5,
    };
    let times = rustix::fs::Timestamps {
        last_access: spec,
        last_modification: spec,
    };
    rustix::fs::utimensat(
        rustix::fs::CWD,
        path,
        &times,
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
    .unwrap();
}

/// The copy action that a Dockerfile's `COPY src dest` becomes (`dockerfile2llb/convert_copy.go`).
pub(crate) fn cp(src: &str, dest: &str) -> CopyAction {
    CopyAction {
        src: src.to_owned(),
        dest: dest.to_owned(),
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..CopyAction::default()
    }
}

/// As [`cp`], with `--parents` and a pattern below `src`.
pub(crate) fn cp_parents(src: &str, pattern: &str, dest: &str) -> CopyAction {
    let literal = !pattern.contains(['*', '?', '[']) && !src.contains(['*', '?', '[']);
    let required = if literal {
        vec![format!("{}/{pattern}", src.trim_end_matches('/'))]
    } else {
        Vec::new()
    };
    CopyAction {
        include_patterns: vec![pattern.to_owned()],
        required_paths: required,
        ..cp(src, dest)
    }
}

pub(crate) const fn at(seconds: i64) -> Option<FileTime> {
    Some(FileTime {
        seconds,
        nanoseconds: 0,
    })
}

pub(crate) fn listing(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let stat = path.symlink_metadata().unwrap();
            let what = if stat.is_dir() {
                todo.push(path.clone());
                String::new()
            } else if stat.is_symlink() {
                format!(" -> {}", std::fs::read_link(&path).unwrap().display())
            } else if stat.is_file() {
                format!(" {:?}", String::from_utf8_lossy(&std::fs::read(&path).unwrap()))
            } else {
                format!(" rdev {:x}", stat.rdev())
            };
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            found.insert(
                name,
                format!("{:o} {}:{}{what}", stat.mode(), stat.uid(), stat.gid()),
            );
        }
    }
    found
}
